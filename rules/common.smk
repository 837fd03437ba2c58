# What several stages ask of the survey once it is imported, and what searches ask of the configuration.

from functools import lru_cache

from zmill import gpus
from zmill.catalog import shards, sources
from zmill.predict import assign
from zmill.survey.importer import import_settings, manifest

# What split and cleaning use of the survey definition: a new description, label source or redshift grid reruns neither.
ROW_SETTINGS = {**import_settings(survey), "cuts": dump(survey)["cuts"]}

# Of what models learn: with another of these, other models were asked for.
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


def by_content(files: list) -> list:
    """Files that no job has made count as changed where their content is, which `content_of` tells: not their time."""
    return [file if file in MADE else ancient(file) for file in files]


def content_of(files: list, known: Path) -> str:
    """The content of files that no job has made."""
    return sources.digest([file for file in files if file not in MADE], known)


@lru_cache(maxsize=1)
def models_of_shards(plan_changed: int, champion_changed: int) -> dict[int, str]:
    """The model of each shard, decided once for all of them."""
    return assign.assign(
        Path(RESULTS), shards.numbers(Path(RESULTS, "survey")), settings.refresh.budget, settings.predict.pdf
    )


def model_of(wildcards) -> str:
    """Hash of the model that a shard is predicted by: it is predicted again when this is another one."""
    plan, state = Path(RESULTS, "survey", "partition_info.csv"), assign.state(Path(RESULTS))
    if not (plan.is_file() and state.is_file()):
        return ""  # asked for before there is a champion; asked again once there is one
    assigned = models_of_shards(plan.stat().st_mtime_ns, state.stat().st_mtime_ns)
    return assigned.get(int(wildcards.shard), "")


# Targets ask by name for what every stage makes. A job that fails loses its outputs, and Snakemake does not miss outputs that
# only other jobs ask for once these have run: without this, the night after a failure would find nothing to do.
UP_TO_SAMPLE = [f"{RESULTS}/sample/sample.json"]
if not survey.tables:
    UP_TO_SAMPLE += [file for file in (*SOURCES.survey, *SOURCES.labels) if file in MADE]
    UP_TO_SAMPLE += [f"{RESULTS}/{name}/partition_info.csv" for name in ("survey", "specz", "clean")]
    UP_TO_SAMPLE += [f"{RESULTS}/{name}.parquet" for name in ("matches", "split")]
    UP_TO_SAMPLE += [f"{RESULTS}/{name}.json" for name in ("training", "imputation")]
UP_TO_MODELS = [*UP_TO_SAMPLE, *expand(f"{RESULTS}/models/{{model}}/model.json", model=MODELS)]
UP_TO_LEADERBOARD = [
    *UP_TO_MODELS,
    *expand(f"{RESULTS}/evaluation/{{model}}/metrics.json", model=MODELS),
    f"{RESULTS}/evaluation/leaderboard.csv",
]
UP_TO_RELEASE = [*UP_TO_LEADERBOARD, f"{RESULTS}/report.html"]
if not survey.tables:
    UP_TO_RELEASE += [f"{RESULTS}/photoz/partition_info.csv"]
    UP_TO_RELEASE += [f"{RESULTS}/{name}.json" for name in ("champion", "gates", "progress/release")]


def shards_of(stage: str):
    """Input function: what a stage says of each of its shards (known once the checkpoint has run); nothing where the
    survey has no sky. A job's own process on a cluster runs that job alone: it need not plan thousands that are done.
    """

    def progress(wildcards) -> list[str]:
        if survey.tables or not workflow.is_main_process:
            return []
        catalog = Path(checkpoints.import_survey.get().output.catalog).parent
        return expand(f"{RESULTS}/progress/{stage}/{{shard}}.json", shard=shards.numbers(catalog))

    return progress


def searched(wildcards) -> list[str]:
    """The winners of all searches there are."""
    if not settings.tune:
        raise WorkflowError(
            "config.yaml: tune: names no model, so there is nothing to search; docs/tuning.md shows how, or add "
            "--configfile config.yaml docs/models/studies.yaml"
        )
    return expand(f"{RESULTS}/tune/{{model}}/best.yaml", model=settings.tune)


def search_of(wildcards) -> dict:
    """A search without its budget: more trials rerun none of those that were done."""
    return {key: value for key, value in dump(settings.tune[wildcards.model]).items() if key != "trials"}


def settings_beside(wildcards) -> dict:
    """Settings of the searched model that are not searched."""
    from zmill.tune.space import beside  # takes torch with it, which only a search needs

    return beside(settings.models[wildcards.model].model_extra or {}, settings.tune[wildcards.model].space)
