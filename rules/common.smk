# Functions of the imported survey that several stages use, and of the configuration that searches use.

from functools import lru_cache

from zmill.workflow import gpus
from zmill.catalog import shards, sources
from zmill.inputs import registry as input_kinds
from zmill.workflow.planning import executes
from zmill.predict import assign
from zmill.survey.importer import import_settings, manifest

# What split and cleaning use of the survey definition: a new description, label source or redshift grid reruns neither.
ROW_SETTINGS = {**import_settings(survey), "cuts": dump(survey)["cuts"]}

# What models are trained on, what labelled rows are made of, and what every row is made of. The settings of the last two do not
# depend on filters, and those of the last not on the reference band, so that a change of these does not rerun them.
INPUTS = input_kinds.settings_of(survey)
INPUTS_OF_SAMPLE = input_kinds.settings_of(survey, training=False)
INPUTS_OF_ROWS = input_kinds.settings_of(type(survey).model_validate(ROW_SETTINGS), training=False)

# Settings of the rows that models are trained on: with other settings, models are trained anew.
SAMPLE_SETTINGS = {
    "survey": ROW_SETTINGS,
    "grid": [survey.redshift_grid.min, survey.redshift_grid.max],
    "split": dump(settings.split),
    "ambiguous": settings.crossmatch.ambiguous,
    "impute": settings.clean.impute,
    "seed": settings.seed,
}

# Jobs that can use a GPU ask for one on a cluster, whose nodes may have them, and on a machine that has: there, no more of
# them run at a time than it has GPUs. On a machine without, cores alone count.
CLUSTER = workflow.remote_exec or workflow.nodes is not None
GPUS = 0 if CLUSTER else gpus.count()
GPU = 1 if CLUSTER or GPUS else 0
if GPUS and "gpu" not in workflow.global_resources:
    workflow.register_resource("gpu", GPUS)


def threads_of_shard(wildcards) -> int:
    """Cores that predict a shard, or one GPU's share of them: shards are predicted on all GPUs at a time."""
    return min(16, max(1, workflow.cores // GPUS)) if GPUS else 16


def content_of(files: list, known: Path) -> str:
    """A parameter that changes with the content of the source files of a stage; `known` is the manifest that the stage keeps."""
    return sources.digest(files, known, DATA, note=executes(workflow))


@lru_cache(maxsize=1)
def models_of_shards(plan_changed: int, champion_changed: int) -> dict[int, str]:
    """The model of each shard, computed once for all shards."""
    return assign.assign(
        Path(RESULTS), shards.numbers(Path(RESULTS, "survey")), settings.refresh.budget, settings.predict.pdf
    )


def model_of(wildcards) -> str:
    """Hash of the model of a shard, which is predicted again when the hash changes."""
    plan, state = Path(RESULTS, "survey", "partition_info.csv"), assign.state(Path(RESULTS))
    if not (plan.is_file() and state.is_file()):
        return ""  # called before there is a champion, and again once there is one
    assigned = models_of_shards(plan.stat().st_mtime_ns, state.stat().st_mtime_ns)
    return assigned.get(int(wildcards.shard), "")


# The last files of each way through the workflow.
MODEL_FILES = expand(f"{RESULTS}/models/{{model}}/model.json", model=MODELS)
LEADERBOARD = f"{RESULTS}/evaluation/leaderboard.csv"
FINISHED = [f"{RESULTS}/report.html"] + ([] if survey.tables else [f"{RESULTS}/progress/release.json"])


def shards_of(stage: str, finish: str):
    """Input function: the record that a stage writes of each shard, known once the checkpoint has run; nothing where the
    survey has no sky. On a cluster, a job's own process runs that job alone: only where that is `finish`, which reads
    the records, does it need them.
    """

    def progress(wildcards) -> list[str]:
        if survey.tables:
            return []
        if workflow.is_main_process:
            checkpoints.import_survey.get()
        elif not any(job.rulename.endswith(finish) for job in workflow.dag_settings.target_jobs):
            return []
        numbers = shards.numbers(Path(RESULTS, "survey"))
        return expand(f"{RESULTS}/progress/{stage}/{{shard}}.json", shard=numbers)

    return progress


cleaned, predicted = shards_of("clean", "clean_catalog"), shards_of("predict", "photoz_catalog")


def searched(wildcards) -> list[str]:
    """The results of all searches that have been run."""
    if not settings.tune:
        raise WorkflowError(
            "config.yaml: tune: names no model, so there is nothing to search; docs/tuning.md shows how, or add "
            "--configfile config.yaml docs/models/studies.yaml"
        )
    return expand(f"{RESULTS}/tune/{{model}}/best.yaml", model=settings.tune)


def search_of(wildcards) -> dict:
    """A search without its budget, so that a larger budget reruns no finished trial."""
    return {key: value for key, value in dump(settings.tune[wildcards.model]).items() if key != "trials"}


def fixed_search_settings(wildcards) -> dict:
    """Settings of the searched model that are not searched."""
    from zmill.tune.space import fixed_settings  # imports torch, which only a search needs

    return fixed_settings(settings.models[wildcards.model].model_extra or {}, settings.tune[wildcards.model].space)


def retrieving_model(wildcards) -> str:
    """The model of type spectrum_neighbors, the first if there are several."""
    found = [name for name, entry in settings.models.items() if (entry.type or name) == "spectrum_neighbors"]
    if not found:
        raise WorkflowError(
            "retrieve: models: none is of type spectrum_neighbors, which keeps embeddings of its training spectra"
        )
    if not settings.retrieve:
        raise WorkflowError("retrieve: no object is named: snakemake retrieve --config 'retrieve=[12, 34]'")
    return f"{RESULTS}/models/{found[0]}/model.json"
