"""Columns of several numbers per row are read from every format that can hold them, value for value, or refused with the reason."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from astropy.table import MaskedColumn, Table

from zmill.survey.readers import ReadError, example, open_table

ROWS, WIDTH = 90, 7
RNG = np.random.default_rng(3)
FLUX = RNG.normal(0, 1, (ROWS, WIDTH)).astype(np.float32)
FLUX[5, 2] = np.nan
FIXED: list[list[float]] = FLUX.tolist()
LISTS: list[Any] = [row[: number % WIDTH] for number, row in enumerate(FIXED)]
LISTS[30:60] = [[]] * 30
SKY = {"id": np.arange(ROWS), "ra": RNG.uniform(0, 360, ROWS), "dec": RNG.uniform(-80, 80, ROWS)}


def read(path: Path, name: str = "flux", **options: Any) -> dict[int, Any]:
    """The arrays by the identifier of their rows, read in batches and in pieces, whose types are one."""
    opened = open_table(path, **options)
    assert opened.lacks(name, array=True) == ""
    parts = [
        pa.Table.from_batches([batch])
        for span in opened.spans(40)
        for batch in opened.batches([name, "id"], 25, span, numeric={"id"}, arrays={name})
    ]
    assert max(part.num_rows for part in parts) <= 25
    assert len({part.schema.field(name).type for part in parts}) == 1
    table = pa.concat_tables(parts)
    assert pa.types.is_floating(table.schema.field(name).type.value_type)
    return dict(zip(map(int, table["id"].to_pylist()), table[name].to_pylist(), strict=True))


def same(found: dict[int, Any], expected: list[Any]) -> bool:
    assert sorted(found) == list(range(len(expected)))
    return all(
        len(found[row]) == len(values)
        and np.allclose(np.array(found[row], float), np.array(values, float), 1e-6, 0, equal_nan=True)
        for row, values in enumerate(expected)
    )


def columns(kind: str) -> pa.Table:
    values = (
        pa.array(FIXED, pa.list_(pa.float32(), WIDTH)) if kind == "fixed" else pa.array(LISTS, pa.list_(pa.float32()))
    )
    return pa.table({**SKY, "flux": values})


def hdf5(path: Path, kind: str) -> None:
    with h5py.File(path, "w") as file:
        for name, values in SKY.items():
            file[name] = values
        if kind == "fixed":
            file["flux"] = FLUX
        else:
            flux = file.create_dataset("flux", (ROWS,), h5py.vlen_dtype(np.float32))
            for row, values in enumerate(LISTS):
                flux[row] = np.array(values, np.float32)


def masked(values: list[float], kind: Any) -> np.ma.MaskedArray:
    """As astropy wants lists of a VOTable."""
    return np.ma.array(values, kind, mask=np.zeros(len(values), bool))


def astropy(kind: str, array: Callable[..., Any] = np.array) -> Table:
    flux: Any = FLUX
    if kind == "lists":
        flux = np.empty(ROWS, object)
        flux[:] = [array(values, np.float32) for values in LISTS]
    return Table({**SKY, "flux": flux})


WRITERS: dict[str, tuple[str, Callable[[Path, str], Any]]] = {
    "parquet": ("t.parquet", lambda path, kind: pq.write_table(columns(kind), path, row_group_size=33)),
    "polars": ("t.parquet", lambda path, kind: __import__("polars").from_arrow(columns(kind)).write_parquet(path)),
    "feather": (
        "t.feather",
        lambda path, kind: __import__("pyarrow.feather").feather.write_feather(columns(kind), path),
    ),
    "arrow": ("s.arrow", lambda path, kind: example("arrow", columns(kind), path.parent)),
    "hats": ("collection", lambda path, kind: example("hats", columns(kind), path.parent)),
    "hdf5": ("t.hdf5", hdf5),
    "votable": ("t.vot", lambda path, kind: astropy(kind, masked).write(path, format="votable")),
    "binary votable": (
        "t.vot",
        lambda path, kind: astropy(kind, masked).write(path, format="votable", tabledata_format="binary2"),
    ),
    "ecsv": ("t.ecsv", lambda path, kind: astropy(kind).write(path, format="ascii.ecsv")),
    "fits": ("t.fits", lambda path, kind: astropy(kind).write(path)),
}


@pytest.mark.parametrize("kind", ["fixed", "lists"])
@pytest.mark.parametrize("writer", [name for name in WRITERS if name != "fits"])
def test_arrays_are_read_as_they_were_written(tmp_path: Path, writer: str, kind: str) -> None:
    name, write = WRITERS[writer]
    write(tmp_path / name, kind)
    assert same(read(tmp_path / name), FIXED if kind == "fixed" else LISTS)


def test_vectors_of_fits_are_read_and_scaled(tmp_path: Path) -> None:
    WRITERS["fits"][1](tmp_path / "t.fits", "fixed")
    assert same(read(tmp_path / "t.fits"), FIXED)
    counts = RNG.integers(-9, 9, (ROWS, WIDTH)).astype(np.int16)
    scaled = fits.BinTableHDU.from_columns(
        [fits.Column("id", "K", array=SKY["id"]), fits.Column("flux", f"{WIDTH}I", array=counts)]
    )
    scaled.header["TSCAL2"], scaled.header["TZERO2"] = 0.5, 1.0
    scaled.writeto(tmp_path / "scaled.fits")
    assert same(read(tmp_path / "scaled.fits"), (counts * 0.5 + 1).tolist())


@pytest.mark.parametrize("ending", ["fits", "vot"])
def test_missing_values_in_arrays_are_null(tmp_path: Path, ending: str) -> None:
    mask = np.zeros((ROWS, WIDTH), bool)
    mask[3, 1] = True
    table = Table({"id": SKY["id"], "flux": MaskedColumn(np.nan_to_num(FLUX), mask=mask)})
    table.write(tmp_path / f"t.{ending}", format={"vot": "votable"}.get(ending, ending))
    found = read(tmp_path / f"t.{ending}")
    assert found[3][1] is None or np.isnan(found[3][1])
    assert found[3][0] == FLUX[3, 0] and found[4] == FIXED[4]


def test_arrays_that_a_format_does_not_give_are_refused_with_the_reason(tmp_path: Path) -> None:
    WRITERS["fits"][1](tmp_path / "lists.fits", "lists")
    lengths = fits.Column("flux", "PE()", array=np.array([np.array(v, np.float32) for v in LISTS], object))
    fits.BinTableHDU.from_columns([lengths]).writeto(tmp_path / "lists.fits", overwrite=True)
    Table({"flux": np.zeros((4, 3, 2), np.float32)}).write(tmp_path / "images.fits")
    with h5py.File(tmp_path / "images.hdf5", "w") as file:
        file["id"], file["flux"] = np.arange(4), np.zeros((4, 3, 2))
    Table({"flux": np.zeros((4, 3, 2), np.float32)}).write(tmp_path / "images.vot", format="votable")
    pq.write_table(pa.table({"flux": [[[1.0]]]}), tmp_path / "nested.parquet")
    pq.write_table(pa.table({"flux": [["a"]]}), tmp_path / "texts.parquet")
    for file, why in {
        "lists.fits": r"column 'flux' has arrays of variable length \(FITS format PE.*write them with one length, or as lists in Parquet",
        "images.fits": "column 'flux' has arrays of several dimensions in its rows .*: write them flat",
        "images.hdf5": r"column 'flux' holds arrays of shape \(3, 2\) in its rows, .*: write them flat",
        "images.vot": r"column 'flux' holds arrays of shape \(2, 3\) in its rows",
        "nested.parquet": "column 'flux' holds list<.*> and not several numbers per row",
        "texts.parquet": "column 'flux' holds list<.*string> and not several numbers per row",
    }.items():
        with pytest.raises(ReadError, match=rf"{file}: {why}"):
            list(open_table(tmp_path / file).batches(["flux"], 10, arrays={"flux"}))


def test_an_axis_beside_two_dimensional_datasets_is_no_column(tmp_path: Path) -> None:
    """The wavelengths of spectra, which all of them share."""
    hdf5(tmp_path / "t.hdf5", "fixed")
    with h5py.File(tmp_path / "t.hdf5", "a") as file:
        file["wavelength"] = np.linspace(3600, 9800, WIDTH)
    assert same(read(tmp_path / "t.hdf5"), FIXED)
    opened = open_table(tmp_path / "t.hdf5")
    assert opened.rows == ROWS and "wavelength" not in opened.columns
    assert "has 7 values, one for each value in a row of 'flux', and not one per row" in opened.lacks("wavelength")
    with h5py.File(tmp_path / "t.hdf5", "a") as file:
        file["other"] = np.zeros(WIDTH + 1)
    with pytest.raises(ReadError, match="differ in length"):
        open_table(tmp_path / "t.hdf5")
