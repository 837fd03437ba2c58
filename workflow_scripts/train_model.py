"""Train and calibrate a model, save it as `held_out`, then refit it on all labelled rows but the test rows and save it again."""

from pathlib import Path

from zmill.catalog import sources
from zmill.clean.partition import learned_of
from zmill.inputs.base import LabelledBatch, ModelContext
from zmill.inputs.photometry.extra import check_extra
from zmill.inputs.registry import from_json
from zmill.models.registry import model_class
from zmill.networks.device import choose, reproducible
from zmill.pdf.grid import Grid
from zmill.training import store
from zmill.training.samples import read_samples
from zmill.training.trained import fit_and_calibrate, refit
from zmill.workflow.job import job

with job(snakemake) as log:
    files = sources.look(snakemake.params.files, Path(snakemake.params.files_read))
    cls = model_class(snakemake.params.type)
    settings = cls.Settings.model_validate(snakemake.params.settings)
    extra_names = check_extra(settings, snakemake.params.extra, snakemake.wildcards.model)
    inputs = tuple(kind.with_extra(extra_names) for kind in from_json(snakemake.params.inputs, cls.inputs))
    context = ModelContext(inputs, Grid(**snakemake.params.grid), snakemake.params.seed)
    tables = {split: Path(snakemake.input[split]) for split in ("train", "valid", "calib")}
    samples = read_samples(tables, context, cls.streams)
    train, valid, calib = (samples[split].training_rows(snakemake.params.weighted) for split in tables)
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
            learned_of(snakemake.params.impute, Path(snakemake.input.imputation)),
            snakemake.params.odds_width,
        )
        if snakemake.output.held_out:
            store.save(Path(snakemake.output.held_out).parent, trained)
            refit(trained, LabelledBatch.join([train, valid, calib]), log.info)
        store.save(Path(snakemake.output.model).parent, trained)
    sources.keep(files, Path(snakemake.params.files_read))
