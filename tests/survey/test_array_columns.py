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
SHAPE = (2, 3, 4)
CUBE = RNG.normal(0, 1, (ROWS, *SHAPE)).astype(np.float32)
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
    if kind == "cube":
        kinds = pa.fixed_shape_tensor(pa.float32(), SHAPE)
        storage = pa.FixedSizeListArray.from_arrays(pa.array(CUBE.reshape(-1)), CUBE[0].size)
        return pa.table({**SKY, "flux": pa.ExtensionArray.from_storage(kinds, storage)})
    values = (
        pa.array(FIXED, pa.list_(pa.float32(), WIDTH)) if kind == "fixed" else pa.array(LISTS, pa.list_(pa.float32()))
    )
    return pa.table({**SKY, "flux": values})


def hdf5(path: Path, kind: str) -> None:
    with h5py.File(path, "w") as file:
        for name, values in SKY.items():
            file[name] = values
        if kind != "lists":
            file["flux"] = FLUX if kind == "fixed" else CUBE
        else:
            flux = file.create_dataset("flux", (ROWS,), h5py.vlen_dtype(np.float32))
            for row, values in enumerate(LISTS):
                flux[row] = np.array(values, np.float32)


def masked(values: list[float], kind: Any) -> np.ma.MaskedArray:
    """As astropy wants lists of a VOTable."""
    return np.ma.array(values, kind, mask=np.zeros(len(values), bool))


def astropy(kind: str, array: Callable[..., Any] = np.array) -> Table:
    flux: Any = FLUX if kind == "fixed" else CUBE
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
    pq.write_table(pa.table({"flux": [[[1.0]]]}), tmp_path / "nested.parquet")
    pq.write_table(pa.table({"flux": [["a"]]}), tmp_path / "texts.parquet")
    for file, why in {
        "lists.fits": r"column 'flux' has arrays of variable length \(FITS format PE.*write them with one length, or as lists in Parquet",
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


def nested(path: Path) -> None:
    """As polars writes arrays of several dimensions."""
    kind = pa.list_(pa.list_(pa.list_(pa.float32(), SHAPE[2]), SHAPE[1]), SHAPE[0])
    rows = [None if number == 4 else row for number, row in enumerate(CUBE.tolist())]
    pq.write_table(pa.table({**SKY, "flux": pa.array(rows, kind)}), path, row_group_size=33)


@pytest.mark.parametrize("writer", [*WRITERS, "npz", "compressed npz", "records"])
def test_arrays_of_several_dimensions_are_read_flat_with_their_shape(tmp_path: Path, writer: str) -> None:
    """Stamps: the last axis varies fastest, in every format."""
    save = np.savez_compressed if writer == "compressed npz" else np.savez
    if writer == "polars":
        path = tmp_path / "t.parquet"
        nested(path)
    elif "npz" in writer:
        path = tmp_path / "t.npz"
        save(path, **SKY, flux=CUBE, names=np.array(["u", "g"]))  # type: ignore[arg-type]
    elif writer == "records":
        path = tmp_path / "t.npz"
        labels = np.zeros(ROWS, [("id", np.int64), ("z", np.float32)])
        labels["id"] = SKY["id"]
        save(path, flux=CUBE, labels=labels)
    else:
        path = tmp_path / WRITERS[writer][0]
        WRITERS[writer][1](path, "cube")
    expected = CUBE.reshape(ROWS, -1).tolist()
    found = read(path)
    if writer == "polars":
        assert found[4] is None
        found[4] = expected[4]
    assert same(found, expected)
    opened = open_table(path)
    if "votable" in writer:
        assert opened.shapes["flux"] == (24,), "files of astropy have the axes in the wrong order"
    else:
        assert opened.shapes["flux"] == SHAPE and "flux" not in opened.columns


def test_planes_of_arrays_with_rows_on_the_second_axis(tmp_path: Path) -> None:
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "t.npz", id=SKY["id"], ra=SKY["ra"], flux=np.moveaxis(CUBE, 0, 1))
        for plane in range(SHAPE[0]):
            assert same(read(tmp_path / "t.npz", f"flux[{plane}]"), CUBE[:, plane].reshape(ROWS, -1).tolist())
        assert open_table(tmp_path / "t.npz").shapes["flux[1]"] == SHAPE[1:]


def test_archives_of_numpy_are_never_unpickled(tmp_path: Path) -> None:
    objects = np.array([{"a": 1}] * ROWS, object)
    np.savez(tmp_path / "t.npz", id=SKY["id"], flux=objects, other=np.zeros((3, ROWS)), turned=np.asfortranarray(FLUX))
    opened = open_table(tmp_path / "t.npz")
    assert opened.rows == ROWS and opened.columns == ["id"]
    for name, why in {
        "flux": "Python objects, which would be unpickled",
        "other": r"shape \(3, 90\), and not 90 rows",
        "turned": "Fortran order",
    }.items():
        with pytest.raises(ReadError, match=f"column {name!r} .*{why}"):
            list(opened.batches([name], 10, arrays={name}))
    data = (tmp_path / "t.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(data[: len(data) // 2])
    with pytest.raises(ReadError, match=r"cut\.npz"):
        open_table(tmp_path / "cut.npz")
