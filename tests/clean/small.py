"""A small imported survey on disk and its matches, as the stages before leave them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from zmill.catalog import hats
from zmill.catalog.hats import Partition
from zmill.inputs.photometry.batch import mask_of
from zmill.survey_definition import Survey

BANDS = ("g", "r", "i", "z")


def survey(**changes: object) -> Survey:
    values = {
        "files": ["none.parquet"],
        "columns": {"ra": "ra", "dec": "dec", "flux": "mag_{band}", "extra": ["size", "kind"]},
        "bands": list(BANDS),
    }
    return Survey.model_validate(values | changes)


def photometry(rows: int, rng: np.random.Generator, first_id: int = 0, text_ids: bool = False) -> dict[str, pa.Array]:
    """Columns of the survey behind the position; a third of the magnitudes is missing."""
    mag = rng.normal(22, 1, (rows, len(BANDS))).astype(np.float32) - 0.4 * np.arange(len(BANDS), dtype=np.float32)
    state = rng.choice(3, (rows, len(BANDS)), p=[0.7, 0.2, 0.1])
    mag[state > 0] = np.nan
    ids = np.arange(first_id, first_id + rows)
    out = {"object_id": pa.array([f"J{n:06d}" for n in ids], pa.string()) if text_ids else pa.array(ids)}
    out |= {"ra": pa.array(np.zeros(rows)), "dec": pa.array(np.zeros(rows))}
    out |= {f"mag_{band}": pa.array(mag[:, n]) for n, band in enumerate(BANDS)}
    for kind in ("magerr", "maglim"):
        values = np.where(np.isnan(mag), np.nan, 0.1).astype(np.float32)
        out |= {f"{kind}_{band}": pa.array(values[:, n]) for n, band in enumerate(BANDS)}
    out |= {"undetected": pa.array(mask_of(state == 1)), "unobserved": pa.array(mask_of(state == 2))}
    out |= {"ebv": pa.array(np.full(rows, np.nan, np.float32))}
    out |= {"size": pa.array(rng.uniform(0, 5, rows).astype(np.float32))}
    out |= {"kind": pa.array(rng.choice(["star", "galaxy"], rows).tolist(), pa.string())}
    return out


def write_survey(
    folder: Path, sizes: list[int], seed: int = 1, order: int = 4, text_ids: bool = False
) -> list[Partition]:
    """A finished catalogue with a partition of each size; ids count up through it."""
    rng = np.random.default_rng(seed)
    found, first = [], 0
    for number, rows in enumerate(sizes):
        partition = Partition(order, 10 + number)
        start, stop = partition.interval()
        healpix = np.sort(rng.integers(start, stop, rows))
        columns = photometry(rows, rng, first, text_ids)
        write_rows(folder, partition, pa.table({"_healpix_29": pa.array(healpix)} | columns))
        found.append(partition)
        first += rows
    hats.finish(folder, "small", found)
    return found


def write_rows(folder: Path, partition: Partition, table: pa.Table) -> None:
    with hats.write_partition(folder, partition, table.schema) as writer:
        writer.write(table)


def write_matches(path: Path, catalog: Path, every: int = 1, seed: int = 1) -> pa.Table:
    """Labels for every so-many-th row; one in ten of them ambiguous."""
    rng = np.random.default_rng(seed)
    pieces = []
    for partition in hats.partitions(catalog):
        rows = hats.read_columns(catalog, partition, ["object_id", "_healpix_29", "ra", "dec"])
        number = np.arange(0, rows.num_rows, every)
        n = len(number)
        piece = {name: rows.column(name).take(pa.array(number)) for name in ("object_id", "_healpix_29")}
        piece |= {
            "norder": pa.array(np.full(n, partition.order, np.int8)),
            "npix": pa.array(np.full(n, partition.pixel)),
        }
        piece |= {"row": pa.array(number)}
        piece |= {name: rows.column(name).take(pa.array(number)) for name in ("ra", "dec")}
        piece |= {"specz_id": pa.array([f"s{k}" for k in number], pa.string())}
        piece |= {"redshift": pa.array(rng.uniform(0, 2, n)), "redshift_err": pa.array(np.full(n, np.nan, np.float32))}
        piece |= {"quality": pa.array(np.full(n, 4, np.int8)), "label_source": pa.array(["sdss"] * n, pa.string())}
        piece |= {"separation_arcsec": pa.array(rng.uniform(0, 1, n).astype(np.float32))}
        piece |= {"ambiguous": pa.array(rng.random(n) < 0.1)}
        pieces.append(pa.table(piece))
    table = pa.concat_tables(pieces)
    pq.write_table(table, path)
    return table
