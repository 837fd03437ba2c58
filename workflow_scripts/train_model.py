"""Training, validation and calibration rows in; a trained and calibrated model of one type out."""

from pathlib import Path

import numpy as np
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
from zmill.survey.photometry import Photometry, columns

with job(snakemake.log[0]) as log:
    torch.set_num_threads(snakemake.threads)
    bands = tuple(snakemake.params.bands)
    cls = model_class(snakemake.params.type)
    settings = cls.Settings.model_validate(snakemake.params.settings)
    extra = tuple(getattr(settings, "extra", ()))
    check_extra(extra, snakemake.params.extra, snakemake.wildcards.model)
    extra_names = tuple(name for name in extra if name != "ebv")
    context = Context(
        bands=bands,
        reference=bands.index(snakemake.params.reference),
        grid=Grid(**snakemake.params.grid),
        seed=snakemake.params.seed,
        extra_names=extra_names,
        filters=snakemake.params.filters,
    )

    def read(path: str) -> Labelled:
        there = set(pq.read_schema(path).names)
        wanted = [name for name in columns(bands, extra_names) if name in there]
        table = pq.read_table(path, columns=[*wanted, "redshift", "weight"])
        photometry = Photometry.from_arrow(table, bands, extra_names)
        redshift, weight = (table.column(name).to_numpy().astype(np.float64) for name in ("redshift", "weight"))
        return Labelled(photometry, redshift, weight)

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
