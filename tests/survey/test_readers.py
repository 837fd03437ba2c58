"""Every format gives the same table, in batches, whole or in pieces."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from astropy.table import Table
from pydantic import ValidationError
from small_survey import survey, table, write

from zmill.survey.readers import FORMATS, ReadError, hats_format, open_table
from zmill.survey.readers.held import Held
from zmill.survey.readers.text import TextTable

LAYOUTS = ["desi", "fits_stamp", "gaia_xp_coefficients", "sdss_spec", "spplate"]
"""Layouts of spectra and stamps, in tests/survey/test_spectra_files.py and tests/inputs/image/test_image_sources.py."""
TABLES = [name for name in FORMATS if name not in LAYOUTS]


def read(path: Path, columns: list[str], **options: object) -> pa.Table:
    opened = open_table(path, **options)  # type: ignore[arg-type]
    return pa.Table.from_batches(list(opened.batches(columns, 50)))


@pytest.mark.parametrize("format", TABLES)
def test_every_format_gives_the_same_rows(tmp_path: Path, format: str) -> None:
    data = table(230)
    path = write(data, tmp_path, format)
    opened = open_table(path)
    assert set(data.column_names) <= set(opened.columns)
    assert opened.rows in (None, 230)
    names = ["kind", "id", "ra", "mag_r", "size"]
    batches = list(opened.batches(names, 50, numeric={"ra", "mag_r"}))
    assert max(batch.num_rows for batch in batches) <= 50
    found = pa.Table.from_batches(batches)
    assert found.column_names == names
    found, expected = found.sort_by("ra"), data.select(names).sort_by("ra")
    for name in names:
        values = found.column(name).to_pylist()
        kept = expected.column(name).to_pylist()
        assert values == (
            [str(value) for value in kept] if isinstance(opened, TextTable) and name != "mag_r" else kept
        ) or values == (
            pytest.approx(kept)  # text does not keep every bit of a float32
        )


@pytest.mark.parametrize("format", TABLES)
def test_pieces_together_are_the_table(tmp_path: Path, format: str) -> None:
    path = write(table(230), tmp_path, format)
    opened = open_table(path)
    spans = opened.spans(60)
    whole = [value for batch in opened.batches(["id"], 64) for value in batch.column(0).to_pylist()]
    pieces = [v for span in spans for b in opened.batches(["id"], 64, span) for v in b.column(0).to_pylist()]
    assert pieces == whole
    assert len(spans) > 2 or isinstance(opened, TextTable | Held | hats_format.Reader)


def test_a_survey_definition_takes_every_format() -> None:
    assert [survey(format=name).format for name in FORMATS] == list(FORMATS)
    with pytest.raises(ValidationError, match="there is no format 'fitz'; did you mean 'fits'"):
        survey(format="fitz")


def test_missing_column_names_file_and_nearest(tmp_path: Path) -> None:
    path = write(table(3), tmp_path, "parquet")
    with pytest.raises(ReadError, match=r"s\.parquet: there is no column 'mag_rr'; did you mean 'mag_r'\?"):
        read(path, ["mag_rr"])


def test_missing_file_unknown_ending_and_wrong_content(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match="there is no such file"):
        open_table(tmp_path / "none.fits")
    (tmp_path / "table.xyz").write_text("1 2")
    with pytest.raises(ReadError, match="its ending determines no format; name one under format: arrow, ascii, csv"):
        open_table(tmp_path / "table.xyz")
    for name in ("a.fits", "a.parquet", "a.hdf5", "a.vot"):
        (tmp_path / name).write_text("<html>503 Service Unavailable</html>")
        with pytest.raises(ReadError, match=r"a\.\w+: is not a readable"):
            open_table(tmp_path / name)


def test_fits_unsigned_scaled_null_logical_and_compressed(tmp_path: Path) -> None:
    big = np.array([0, 2**64 - 1, 5], np.uint64)
    columns = [
        fits.Column("u64", "K", bzero=2**63, array=big),
        fits.Column("u16", "I", bzero=2**15, array=np.array([0, 65535, 7], np.uint16)),
        fits.Column("scaled", "I", array=np.array([0, 2, 5], np.int16)),
        fits.Column("null", "J", null=-9, array=np.array([1, -9, 3], np.int32)),
        fits.Column("yes", "L", array=np.array([True, False, True])),
        fits.Column("vector", "2E", array=np.zeros((3, 2), np.float32)),
    ]
    hdu = fits.BinTableHDU.from_columns(columns, name="OBJECTS")
    hdu.header["TSCAL3"], hdu.header["TZERO3"] = 0.5, 1.0
    for name in ("t.fits", "t.fits.gz"):
        hdu.writeto(tmp_path / name)
        for group in (None, "OBJECTS", "1"):
            opened = open_table(tmp_path / name, group=group)
            assert opened.columns == ["u64", "u16", "scaled", "null", "yes"]
            assert read(tmp_path / name, ["vector[1]"]).to_pydict() == {"vector[1]": [0.0] * 3}
            found = pa.Table.from_batches(list(opened.batches(opened.columns, 2))).to_pydict()
            assert found == {
                "u64": big.tolist(),
                "u16": [0, 65535, 7],
                "scaled": [1.0, 2.0, 3.5],
                "null": [1, None, 3],
                "yes": [True, False, True],
            }
    with pytest.raises(ReadError, match="there is no extension 'STARS'; there is: 0 PRIMARY, 1 OBJECTS"):
        open_table(tmp_path / "t.fits", group="STARS")


def test_fits_that_is_cut_short_is_refused(tmp_path: Path) -> None:
    path = write(table(3000), tmp_path, "fits")
    path.write_bytes(path.read_bytes()[:40_000])
    with pytest.raises(ReadError, match="cut short"):
        list(open_table(path).batches(["id"], 100))


def test_hdf5_group_found_or_requested(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "t.hdf5", "w") as file:
        file["one/x"] = [1, 2]
        file["two/x"] = [3, 4]
    with pytest.raises(ReadError, match="name under `group` the group that holds the table; there is: one, two"):
        open_table(tmp_path / "t.hdf5")
    with pytest.raises(ReadError, match="there is no group 'three'; there is: one, two"):
        open_table(tmp_path / "t.hdf5", group="three")
    assert read(tmp_path / "t.hdf5", ["x"], group="two").to_pydict() == {"x": [3, 4]}
    Table({"x": [5], "s": ["a"]}).write(tmp_path / "records.hdf5", path="deep/table")
    assert read(tmp_path / "records.hdf5", ["x", "s"]).to_pydict() == {"x": [5], "s": ["a"]}
    with h5py.File(tmp_path / "uneven.hdf5", "w") as file:
        file["x"], file["y"] = [1, 2], [1]
    with pytest.raises(ReadError, match="differ in length"):
        open_table(tmp_path / "uneven.hdf5")


def test_votable_null_is_null(tmp_path: Path) -> None:
    masked = Table({"n": np.ma.array([1, 2], mask=[False, True]), "s": ["a", "b"]})
    masked.write(tmp_path / "t.vot", format="votable")
    assert read(tmp_path / "t.vot", ["n", "s"]).to_pydict() == {"n": [1, None], "s": ["a", "b"]}


def test_hats_of_others_without_its_margin(real_data: Path) -> None:
    opened = open_table(real_data / "hats_elais" / "elaisfbmc_collection")
    ids = [v for batch in opened.batches(["ELAIS"], 500) for v in batch.column(0).to_pylist()]
    assert len(ids) == opened.rows == 3762


def test_hats_without_its_partition_is_named(tmp_path: Path) -> None:
    folder = write(table(50), tmp_path, "hats")
    next((folder / "main" / "dataset").rglob("*.parquet")).unlink()
    with pytest.raises(ReadError, match=r"missing, though .*partition_info\.csv names its pixel"):
        open_table(folder)


@pytest.mark.parametrize("ending", ["fits", "vot", "hdf5", "parquet"])
def test_units_that_astropy_writes_are_given_as_text(tmp_path: Path, ending: str) -> None:
    data = Table({"ra": [0.5], "flux": [2.0], "n": [1]}, units={"ra": "rad", "flux": "uJy"})
    form = {"vot": "votable"}.get(ending, ending)
    options = {"path": "t", "serialize_meta": True} if ending == "hdf5" else {}
    data.write(tmp_path / f"t.{ending}", format=form, **options)
    opened = open_table(tmp_path / f"t.{ending}")
    assert opened.units == {"ra": "rad", "flux": "uJy"}
    assert opened.columns == ["ra", "flux", "n"]


def test_units_of_attributes_and_of_files_without_any(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "t.hdf5", "w") as file:
        for name, key, unit in (("ra", "units", b"rad"), ("dec", "UNIT", "rad"), ("n", "origin", "none")):
            file[name] = [1.0]
            file[name].attrs[key] = unit
    assert open_table(tmp_path / "t.hdf5").units == {"ra": "rad", "dec": "rad"}
    fields = [pa.field("a", pa.float64(), metadata={"Units": "mJy"}), pa.field("b", pa.float64())]
    for metadata in ({}, {"PANDAS_ATTRS": '{"units": {"b": "deg"}}'}, {"PANDAS_ATTRS": '{"b": {"unit": "deg"}}'}):
        schema = pa.schema(fields, metadata=metadata)
        pq.write_table(pa.table([[1.0], [2.0]], schema=schema), tmp_path / "t.parquet")
        assert open_table(tmp_path / "t.parquet").units == {"a": "mJy", **({"b": "deg"} if metadata else {})}
    for format in ("csv", "hats", "fits"):
        assert open_table(write(table(50), tmp_path, format)).units == {}
