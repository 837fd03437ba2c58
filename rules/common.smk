# What several stages ask of the survey once it is imported.

from functools import lru_cache

from zmill.catalog import shards as shard_plan
from zmill.survey.importer import import_settings

# What split and cleaning use of the survey definition: a new description, label source or redshift grid reruns neither.
ROW_SETTINGS = {**import_settings(survey), "cuts": dump(survey)["cuts"]}


def shard_numbers(wildcards) -> list[int]:
    """Numbers of the shards that the imported survey was grouped into (known once the checkpoint has run)."""
    return sorted(shard_plan.read(checkpoints.import_survey.get().output.shards))


@lru_cache(maxsize=1)
def shard_sidecars(path: str, changed: int) -> dict[int, list[str]]:
    """Sidecars of the partitions of each shard; the plan is read once for all shards."""
    catalog = Path(path).parent
    return {
        shard: [str(partition.sidecar(catalog)) for partition in partitions]
        for shard, partitions in shard_plan.read(Path(path)).items()
    }


def survey_sidecars(wildcards) -> list[str]:
    """Content hashes of a shard's partitions: a shard is cleaned again when one of them changes."""
    shards = str(checkpoints.import_survey.get().output.shards)
    return shard_sidecars(shards, Path(shards).stat().st_mtime_ns)[int(wildcards.shard)]
