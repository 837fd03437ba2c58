"""Select the best model by its metrics, and write the leaderboards of all rows and by pattern of missing bands."""

from pathlib import Path

from zmill.catalog.files import atomic_write, read_json, write_json
from zmill.training.missing_data import table
from zmill.training.selection import choose, leaderboard
from zmill.workflow.job import job

with job(snakemake) as log:
    evaluations = {Path(path).parent.name: read_json(path) for path in snakemake.input.metrics}
    best = choose(evaluations, snakemake.params.metric)
    with atomic_write(snakemake.output.leaderboard) as temporary:
        temporary.write_text(leaderboard(evaluations, snakemake.params.metric), encoding="utf-8")
    with atomic_write(snakemake.output.patterns) as temporary:
        temporary.write_text(table(evaluations), encoding="utf-8")
    write_json(snakemake.output.best, best)
    log.info("chosen: %s: %s", best["model"], best["why"])
