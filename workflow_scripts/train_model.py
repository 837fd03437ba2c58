"""Training, validation and calibration rows in; a trained and calibrated model of one type out."""

from pathlib import Path

import pyarrow.parquet as pq
import torch

from zmill.job import job
from zmill.models import store
from zmill.models.base import Context, Labelled
from zmill.models.device import choose, reproducible
from zmill.models.features import check_extra
from zmill.models.registry import model_class
from zmill.models.trained import fit_and_calibrate
from zmill.pdf.grid import Grid

with job(snakemake.log[0]) as log:
    torch.set_num_threads(snakemake.threads)
    bands = tuple(snakemake.params.bands)
    cls = model_class(snakemake.params.type)
    settings = cls.Settings.model_validate(snakemake.params.settings)
    extra_names = check_extra(settings, snakemake.params.extra, snakemake.wildcards.model)
    context = Context(
        bands=bands,
        reference=bands.index(snakemake.params.reference),
        grid=Grid(**snakemake.params.grid),
        seed=snakemake.params.seed,
        extra_names=extra_names,
        filters=snakemake.params.filters,
    )

    def read(path: str) -> Labelled:
        return Labelled.from_arrow(pq.read_table(path), bands, extra_names, snakemake.params.weighted)

    with reproducible():
        trained = fit_and_calibrate(
            snakemake.wildcards.model,
            snakemake.params.type,
            settings,
            context,
            read(snakemake.input.train),
            read(snakemake.input.valid),
            read(snakemake.input.calib),
            choose(),
            log.info,
        )
    store.save(Path(snakemake.output[0]).parent, trained)
