"""Run one trial of a search for the settings of a model."""

from pathlib import Path

from zmill.catalog.files import write_json
from zmill.config import Search, parse
from zmill.inputs.base import ModelContext
from zmill.inputs.registry import from_json
from zmill.models.registry import model_class
from zmill.networks.device import choose, reproducible
from zmill.pdf.grid import Grid
from zmill.training.samples import read_samples
from zmill.tune.space import further_inputs
from zmill.tune.trial import Task, run
from zmill.workflow.job import job

with job(snakemake) as log:
    search = parse(Search, snakemake.params.search, f"config.yaml: tune.{snakemake.wildcards.model}")
    extra_names = further_inputs(snakemake.params.settings, search.space)
    cls = model_class(snakemake.params.type)
    kinds = from_json(snakemake.params.inputs, cls.inputs)
    inputs = tuple(kind.with_extra(extra_names) for kind in kinds)
    context = ModelContext(inputs, Grid(**snakemake.params.grid), snakemake.params.model_seed)
    task = Task(
        model=snakemake.wildcards.model,
        type=snakemake.params.type,
        settings=snakemake.params.settings,
        search=search,
        metric=snakemake.params.metric,
        seed=snakemake.params.seed,
        context=context,
        sample=read_samples(
            {split: Path(snakemake.input[split]) for split in ("train", "valid", "calib")}, context, cls.streams
        ),
        weighted=snakemake.params.weighted,
        device=choose(),
        log=log.info,
    )
    with reproducible():
        outcome = run(
            task, int(snakemake.wildcards.trial), Path(snakemake.params.journal), Path(snakemake.params.checkpoint)
        )
    write_json(snakemake.output[0], outcome)
