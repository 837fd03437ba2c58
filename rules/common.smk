# What several stages ask of the survey once it is imported.

from zmill.catalog import shards as shard_plan


def shard_numbers(wildcards) -> list[int]:
    """Numbers of the shards that the imported survey was grouped into (known once the checkpoint has run)."""
    return sorted(shard_plan.read(checkpoints.import_survey.get().output.shards))
