"""Train and calibrate a model, save it as `held_out`, then refit it on all labelled rows but the test rows and save it again."""

from functools import partial
from pathlib import Path

import pyarrow.parquet as pq

from zmill.catalog.files import read_json
from zmill.inputs.base import LabelledBatch, ModelContext
from zmill.inputs.photometry.features import check_extra
from zmill.inputs.photometry.impute import MeanColors, fill
from zmill.models.registry import model_class
from zmill.networks.device import choose, reproducible
from zmill.training import store
from zmill.training.trained import fit_and_calibrate, refit
from zmill.workflow.job import job

with job(snakemake) as log:
    cls = model_class(snakemake.params.type)
    settings = cls.Settings.model_validate(snakemake.params.settings)
    extra_names = check_extra(settings, snakemake.params.extra, snakemake.wildcards.model)
    context = ModelContext.named(
        snakemake.params.bands,
        snakemake.params.reference,
        snakemake.params.grid,
        snakemake.params.seed,
        extra_names,
        snakemake.params.filters,
    )

    def read(path: str) -> LabelledBatch:
        return LabelledBatch.from_arrow(pq.read_table(path), context.bands, extra_names, snakemake.params.weighted)

    train, valid, calib = (read(snakemake.input[split]) for split in ("train", "valid", "calib"))
    colors = MeanColors.from_json(read_json(snakemake.input.imputation))
    device = choose()
    checkpoint = store.Checkpoint(
        Path(snakemake.params.checkpoint),
        store.identity(snakemake.params.type, settings, context, (train, valid, calib), device),
        log.info,
    )
    with reproducible(), checkpoint:
        trained = fit_and_calibrate(
            snakemake.wildcards.model,
            snakemake.params.type,
            settings,
            context,
            train,
            valid,
            calib,
            device,
            log.info,
            checkpoint,
            partial(fill, colors=colors) if snakemake.params.impute == "mean_color" else None,
        )
        if snakemake.output.held_out:
            store.save(Path(snakemake.output.held_out).parent, trained)
            refit(trained, LabelledBatch.join([train, valid, calib]), log.info)
        store.save(Path(snakemake.output.model).parent, trained)
