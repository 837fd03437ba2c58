"""A small survey written in every format, for the tests of reading and importing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from astropy.table import Table

from zmill.catalog import hats
from zmill.catalog.hats import Partition
from zmill.catalog.sky import HEALPIX_COLUMN, healpix
from zmill.survey_definition import Survey

BANDS = ["g", "r", "i"]


def survey(**changes: Any) -> Survey:
    """The definition that fits `table()`."""
    values: dict[str, Any] = {
        "files": ["*.parquet"],
        "columns": {
            "object_id": "id",
            "ra": "ra",
            "dec": "dec",
            "flux": "mag_{band}",
            "error": "err_{band}",
            "extra": ["size", "kind"],
        },
        "bands": BANDS,
        "sentinels": {"undetected": [99.0], "unobserved": [-99.0]},
    }
    columns = {**values["columns"], **changes.pop("columns", {})}
    return Survey.model_validate({**values, **changes, "columns": columns})


def table(rows: int, seed: int = 0, first_id: int = 1) -> pa.Table:
    """Good rows, some with bands undetected or unobserved, all over the sky."""
    rng = np.random.default_rng(seed)
    columns: dict[str, Any] = {
        "id": np.arange(first_id, first_id + rows, dtype=np.int64),
        "ra": rng.uniform(0, 360, rows),
        "dec": np.degrees(np.arcsin(rng.uniform(-1, 1, rows))),
    }
    for band in BANDS:
        state = rng.random(rows)
        mag = np.where(state < 0.1, 99.0, np.where(state < 0.2, -99.0, rng.uniform(18, 26, rows)))
        columns[f"mag_{band}"] = mag.astype(np.float32)
        columns[f"err_{band}"] = rng.uniform(0.01, 0.3, rows).astype(np.float32)
    columns["size"] = rng.integers(1, 9, rows).astype(np.int32)
    columns["kind"] = pa.array([("star", "galaxy")[n % 2] for n in range(rows)])
    return pa.table(columns)


def write(data: pa.Table, folder: Path, format: str) -> Path:
    """Write the table in a format; returns the file or folder."""
    folder.mkdir(parents=True, exist_ok=True)
    columns = {name: data.column(name).to_numpy(zero_copy_only=False) for name in data.column_names}
    if format == "parquet":
        pq.write_table(data, folder / "s.parquet", row_group_size=37)
        return folder / "s.parquet"
    if format == "csv":
        pyarrow.csv.write_csv(data, folder / "s.csv")
        return folder / "s.csv"
    if format == "hdf5":
        with h5py.File(folder / "s.hdf5", "w") as file:
            for name, values in columns.items():
                file[f"photometry/{name}"] = values.astype("S8") if values.dtype == object else values
        return folder / "s.hdf5"
    if format == "hats":
        _write_hats(data, folder / "collection")
        return folder / "collection"
    as_astropy = Table({n: v.astype("U8") if v.dtype == object else v for n, v in columns.items()})
    path = folder / {"fits": "s.fits", "votable": "s.vot"}[format]
    as_astropy.write(path, format=format, overwrite=True)
    return path


def _write_hats(data: pa.Table, folder: Path) -> None:
    """A collection: its catalogue has two partitions, and a margin that must not be read."""
    index = healpix(data.column("ra").to_numpy(), data.column("dec").to_numpy())
    rows = data.add_column(0, HEALPIX_COLUMN, pa.array(index))
    pixels = index >> 58
    for name, chosen in (("main", pixels >= 0), ("margin", pixels == 3)):
        found = [Partition(0, int(pixel)) for pixel in np.unique(pixels[chosen])]
        for partition in found:
            part = rows.filter(pa.array(pixels == partition.pixel))
            with hats.write_partition(folder / name, partition, rows.schema) as writer:
                writer.write(part.sort_by(HEALPIX_COLUMN))
        hats.finish(folder / name, name, found)
    (folder / "collection.properties").write_text(
        "#HATS Collection\nobs_collection=test\nhats_primary_table_url=main\nall_margins=margin\n"
    )
