"""Find the nearest training spectra of objects of the survey."""

from pathlib import Path

from zmill.inputs.registry import from_json
from zmill.predict.retrieve import retrieve
from zmill.workflow.job import job

with job(snakemake) as log:
    found = retrieve(
        Path(snakemake.params.results),
        Path(snakemake.input.model).parent,
        snakemake.params.objects,
        from_json(snakemake.params.inputs),
        Path(snakemake.output[0]),
    )
    for row in found.drop_columns([name for name in found.schema.names if found[name].type.num_fields]).to_pylist():
        if row["rank"]:
            log.info(
                "%s: %d. %s (%s), redshift %.5g, distance %.4g, %.3g of that of a novel object",
                *(
                    row[name]
                    for name in ("object_id", "rank", "neighbor_id", "split", "redshift", "distance", "novelty")
                ),
            )
