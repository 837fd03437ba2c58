"""zmill: a photometric redshift with a calibrated PDF for every row of a survey.

snakemake --cores all                        the survey that config.yaml names, to the end
snakemake --cores all refresh                the same every night: what changed, and nothing else
snakemake --cores all --config survey=NAME   another one of surveys/
snakemake --list-target-rules                all targets
"""

from importlib import import_module
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.utils import min_version

from zmill.config import ConfigError, check_files, dump, load
from zmill.inputs.registry import default_models, further_files
from zmill.simulate import IMAGERS, INSTRUMENTS
from zmill.workflow.input_files import find, resolve
from zmill.workflow.job import failed
from zmill.workflow.patches import (
    allow_outputs_older_than_inputs,
    collect_garbage_less_often,
    plan_by_records,
)
from zmill.workflow.waiting import sleep_while_waiting
from zmill.workflow.warning import collect

min_version("9.20")
sleep_while_waiting()
collect_garbage_less_often()
allow_outputs_older_than_inputs(warn=workflow.is_main_process)


try:
    check_files(["config.yaml", *workflow.configfiles])
except ConfigError as error:
    raise WorkflowError(str(error)) from None


configfile: "config.yaml"


# The image of envs/zmill.def in the working folder; used only with --sdm apptainer.
container: "zmill.sif"


try:
    settings, survey = load(config, Path("surveys"), Path(str(workflow.current_basedir), "surveys"))
    if not settings.models:
        settings = settings.model_copy(update={"models": default_models(survey, config.get("models") or {})})
except ConfigError as error:
    raise WorkflowError(str(error)) from None

DATA = settings.data_dir
DEMO = str(Path(DATA) / "demo")
RESULTS = str(Path(settings.results_dir) / settings.survey)
LOGS = f"{RESULTS}/logs"
MODELS = list(settings.models)
if workflow.modifier.modify_path(RESULTS) != RESULTS:
    raise WorkflowError(
        "module: prefix and replace_prefix are not supported: set results_dir and data_dir in its config"
    )


# `mend` imports the readers of catalogues, which only a run that begins needs.
plan_by_records(RESULTS, lambda results: import_module("zmill.mend").mend(results))
# The retrain check; as an `ancient` input, it makes Snakemake reconsider a job once the check is done.
TRAINING = [] if survey.tables else ancient(f"{RESULTS}/training.json")


wildcard_constraints:
    shard=r"\d+",
    model="|".join(MODELS),
    trial=r"\d+",


localrules:
    all,
    refresh,
    train,
    tune,
    evaluate,


include: "rules/demo_data.smk"
include: "rules/demo_spectra.smk"
include: "rules/demo_images.smk"


MADE = [
    Path(file)
    for file in [
        *rules.demo_data.output,
        *expand(rules.demo_spectra.output, instrument=INSTRUMENTS),
        *expand(rules.demo_images.output, imager=IMAGERS),
    ]
]


try:
    SEDS = resolve(settings.demo.seds, Path(DATA), "config.yaml: demo.seds")
    SOURCES = find(survey, DATA, made_by_workflow=MADE, further=further_files(survey))
    # A job on a cluster starts Snakemake in its own process, which need not repeat these checks.
    if workflow.is_main_process:
        from zmill.check import check  # imports the models and torch, which is most of the time of a start

        check(settings, survey, SOURCES)
except ConfigError as error:
    raise WorkflowError(str(error)) from None


include: "rules/common.smk"


if survey.tables:

    include: "rules/sample_tables.smk"

else:

    include: "rules/import_survey.smk"
    include: "rules/labels.smk"
    include: "rules/crossmatch.smk"
    include: "rules/sample.smk"
    include: "rules/clean.smk"
    include: "rules/predict.smk"
    include: "rules/release.smk"
    include: "rules/retrieve.smk"


include: "rules/train.smk"
include: "rules/tune.smk"
include: "rules/evaluate.smk"
include: "rules/report.smk"


rule all:
    """Everything: photo-z and PDFs of every row, released, and the report (the default)."""
    default_target: True
    input:
        FINISHED,
        cleaned,
        predicted,


rule refresh:
    """One night: changed rows of the survey and changed labels are processed, predicted and released (docs/nightly.md)."""
    input:
        FINISHED,
        cleaned,
        predicted,


rule train:
    """All configured models, trained and calibrated."""
    input:
        MODEL_FILES,
        cleaned,


rule evaluate:
    """The leaderboard of all models, and which one is best."""
    input:
        LEADERBOARD,
        cleaned,


onsuccess:
    print(f"\nzmill: survey {settings.survey} is done. Where the results are:")
    for what, place in {
        "report (open it in a browser)": f"{RESULTS}/report.html",
        "photo-z of every row (HATS)": f"{RESULTS}/current/photoz",
        "PDFs of every row (HATS)": f"{RESULTS}/current/pdf",
        "models side by side": f"{RESULTS}/evaluation/leaderboard.csv",
        **{f"best settings of {model}": f"{RESULTS}/tune/{model}/best.yaml" for model in settings.tune},
    }.items():
        if Path(place).exists():
            print(f"  {what:32s}{place}")
    if warnings := collect(RESULTS):
        print("Read before using them (also at the head of the report):")
        for stage, text in warnings:
            print(f"  {stage}: {text}")


onerror:
    print("\nzmill: a job failed. Finished work is kept: run again to go on.")
    for file, message in failed(LOGS).items():
        print(f"  {file}\n    {message}")
    print(f"The last line of a log in {LOGS}/ is the cause; for killed jobs, see the messages above.")
