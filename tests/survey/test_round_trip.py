"""Random tables, written by the libraries that people use, are read back value for value."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from astropy.table import MaskedColumn, Table
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from zmill.survey.kinds import TypeChanged, carried, extra_type, identifiers
from zmill.survey.readers import open_table

LETTERS = st.text("abcXYZ0189 #'+-_.äß", max_size=8).map(str.strip).filter(lambda t: not t.startswith("#"))
TEXTS = LETTERS.filter(lambda text: text not in ("", "--", ".") and "'" not in text[:1])
IDS = st.integers(-(2**63), 2**63 - 1) | st.integers(10**18, 10**18 + 3)
FLOATS = st.floats(allow_nan=True, allow_infinity=False)
SMALL = st.integers(-(2**31), 2**31 - 1)
ROWS = st.lists(
    st.fixed_dictionaries({"id": IDS, "n": st.none() | SMALL, "x": FLOATS, "s": TEXTS, "yes": st.booleans()}),
    min_size=1,
    max_size=12,
)
Rows = list[dict[str, Any]]


def columns(rows: Rows) -> dict[str, list[Any]]:
    return {name: [row[name] for row in rows] for name in rows[0]}


def frame(rows: Rows) -> pd.DataFrame:
    return pd.DataFrame(columns(rows)).astype({"id": "int64", "n": "Int32", "x": "float64", "yes": "bool"})


def arrow(rows: Rows) -> pa.Table:
    types = {"id": pa.int64(), "n": pa.int32(), "x": pa.float64(), "s": pa.string(), "yes": pa.bool_()}
    return pa.table({name: pa.array(values, types[name]) for name, values in columns(rows).items()})


def polars(rows: Rows) -> pl.DataFrame:
    kinds = {"id": pl.Int64, "n": pl.Int32, "x": pl.Float64, "s": pl.String, "yes": pl.Boolean}
    return pl.DataFrame(columns(rows), schema=kinds)


def astropy(rows: Rows) -> Table:
    found = columns(rows)
    numbers = [0 if n is None else n for n in found["n"]]
    masked = MaskedColumn(np.array(numbers, np.int32), mask=[n is None for n in found["n"]], fill_value=-(2**31) + 7)
    return Table({**found, "id": np.array(found["id"], np.int64), "n": masked})


def hdf5(rows: Rows, path: Path) -> None:
    table = astropy(rows)
    table["s"] = np.char.encode(table["s"].astype(str), "utf-8")
    table.write(path, path="deep/table", serialize_meta=True)


WRITERS: dict[str, tuple[str, Callable[[Rows, Path], Any]]] = {
    "pandas csv": ("t.csv", lambda rows, path: frame(rows).to_csv(path, index=False)),
    "pandas tsv": ("t.tsv", lambda rows, path: frame(rows).to_csv(path, index=False, sep="\t")),
    "pandas semicolons": ("t.csv", lambda rows, path: frame(rows).to_csv(path, index=False, sep=";")),
    "pandas bz2": ("t.csv.bz2", lambda rows, path: frame(rows).to_csv(path, index=False)),
    "pandas parquet": ("t.parquet", lambda rows, path: frame(rows).to_parquet(path)),
    "pyarrow csv": ("t.csv", lambda rows, path: pyarrow.csv.write_csv(arrow(rows), path)),
    "pyarrow parquet": ("t.parquet", lambda rows, path: pq.write_table(arrow(rows), path, row_group_size=3)),
    "polars csv": ("t.csv", lambda rows, path: polars(rows).write_csv(path)),
    "polars parquet": ("t.parquet", lambda rows, path: polars(rows).write_parquet(path)),
    "astropy csv": ("t.csv", lambda rows, path: astropy(rows).write(path, format="ascii.csv")),
    "astropy ecsv": ("t.ecsv", lambda rows, path: astropy(rows).write(path, format="ascii.ecsv")),
    "astropy votable": ("t.vot", lambda rows, path: astropy(rows).write(path, format="votable")),
    "astropy binary votable": (
        "t.xml",
        lambda rows, path: astropy(rows).write(path, format="votable", tabledata_format="binary2"),
    ),
    "astropy parquet": ("t.parquet", lambda rows, path: astropy(rows).write(path, format="parquet")),
    "astropy hdf5": ("t.hdf5", hdf5),
}


def same(found: Any, expected: Any) -> bool:
    if isinstance(expected, float) and math.isnan(expected):
        return found is None or math.isnan(found)
    return bool(found == expected)


def read_as_the_import_does(path: Path) -> dict[str, list[Any]]:
    """The columns of a file as an identifier, carried columns and a number."""
    opened = open_table(path)
    types = {name: opened.type_of(name) for name in ("id", "n", "s", "yes")}
    kinds = {name: extra_type([kind]) for name, kind in types.items()}
    kinds["id"] = pa.int64()
    while True:
        try:
            parts = []
            for batch in opened.batches(["id", "n", "x", "s", "yes"], 5, numeric={"x"}):
                part = {"id": identifiers(batch["id"], kinds["id"], "id"), "x": batch["x"]}
                part |= {name: carried(batch[name], kinds[name], name) for name in ("n", "s", "yes")}
                parts.append(pa.table(part))
            return pa.concat_tables(parts).to_pydict()
        except TypeChanged as change:
            kinds[change.column] = change.type


@pytest.mark.parametrize("writer", WRITERS)
@given(rows=ROWS)
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
def test_what_was_written_is_read(tmp_path_factory: pytest.TempPathFactory, writer: str, rows: Rows) -> None:
    name, write = WRITERS[writer]
    path = tmp_path_factory.mktemp("t") / name
    write(rows, path)
    found = read_as_the_import_does(path)
    for column in ("id", "x", "n", "yes", "s"):
        for value, row in zip(found[column], rows, strict=True):
            expected = row[column]
            if column == "s" and not isinstance(value, str) and value is not None:
                expected = float(expected)  # text that is a number in every row is one
            assert same(value, expected) or (column == "s" and text_of_number(value, expected)), (
                column,
                value,
                expected,
            )


def text_of_number(value: Any, text: Any) -> bool:
    """Whether a column of text files, in which every value looks like a number or a truth value, was taken for numbers."""
    if not isinstance(text, str):
        return bool(value == text)
    try:
        return value is None or bool(value == float(text))
    except ValueError:
        return text.lower() in ("true", "false", "nan", "null", "na")


def test_fits_is_read_value_for_value(tmp_path: Path) -> None:
    """Without hypothesis, whose text FITS cannot hold: every type with its ends."""
    ends = {
        kind: np.array([np.iinfo(kind).min, np.iinfo(kind).max, 1], kind)
        for kind in ("uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")
    }
    floats = {kind: np.array([np.nan, np.finfo(kind).max, 0.1], kind) for kind in ("float32", "float64")}
    table = Table(
        {**ends, **floats, "s": ["", "a b", "x"], "yes": [True, False, True], "v": np.arange(6).reshape(3, 2)}
    )
    table.write(tmp_path / "t.fits")
    opened = open_table(tmp_path / "t.fits")
    found = pa.Table.from_batches(list(opened.batches([*opened.columns, "v[1]"], 2))).to_pydict()
    for name in table.colnames[:-1]:
        assert all(same(value, kept) for value, kept in zip(found[name], table[name].tolist(), strict=True)), name
    assert found["v[1]"] == [1, 3, 5]
