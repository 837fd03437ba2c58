"""Collect the trials of a search: write the best settings as an entry of `models:`, a table of the trials, and a summary."""

from zmill.catalog.files import atomic_write, read_json, write_json
from zmill.config import Search, parse
from zmill.tune import result
from zmill.workflow.job import job

with job(snakemake) as log:
    found = result.describe(
        snakemake.wildcards.model,
        snakemake.params.type,
        snakemake.params.settings,
        parse(Search, snakemake.params.search, f"config.yaml: tune.{snakemake.wildcards.model}"),
        snakemake.params.metric,
        snakemake.params.seed,
        [read_json(path) for path in snakemake.input],
    )
    for path, text in ((snakemake.output.best, result.entry(found)), (snakemake.output.trials, result.table(found))):
        with atomic_write(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    write_json(snakemake.output.search, found)
    log.info("%s", result.entry(found))
