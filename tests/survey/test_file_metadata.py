"""Metadata in files is heeded: nulls, status of a service, kind of catalogue, vectors, several tables."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from astropy.table import Table
from small_survey import survey, table, write

from zmill.config import ConfigError
from zmill.survey.check import check_columns
from zmill.survey.readers import ReadError, open_table


def read(path: Path, *columns: str, **options: str) -> dict[str, list[object]]:
    opened = open_table(path, **options)
    return pa.Table.from_batches(list(opened.batches(list(columns), 2))).to_pydict()


def test_nulls_of_fits(tmp_path: Path) -> None:
    column = fits.Column("yes", "L", array=np.array([True, False, True]))
    whole = fits.Column("n", "K", null=-1, array=np.array([2**60 + 1, -1, 3]))
    vector = fits.Column("v", "2J", null=-1, array=np.array([[1, -1], [-1, 4], [5, 6]]))
    fits.BinTableHDU.from_columns([column, whole, vector]).writeto(tmp_path / "t.fits")
    content = bytearray((tmp_path / "t.fits").read_bytes())
    content[content.rfind(b"END" + b" " * 77) // 2880 * 2880 + 2880 + 17] = 0  # the second row's truth value
    (tmp_path / "t.fits").write_bytes(content)
    assert read(tmp_path / "t.fits", "yes", "n", "v[0]", "v[1]") == {
        "yes": [True, None, True],
        "n": [2**60 + 1, None, 3],
        "v[0]": [1, None, 5],
        "v[1]": [None, 4, 6],
    }


@pytest.mark.parametrize("format", ["fits", "vot", "hdf5", "parquet", "ecsv", "lists"])
def test_one_element_of_a_vector_in_every_format(tmp_path: Path, format: str) -> None:
    values = np.arange(12, dtype=np.float32).reshape(4, 3)
    path = tmp_path / f"t.{format}"
    if format == "lists":
        path = tmp_path / "t.parquet"
        pq.write_table(pa.table({"id": range(4), "MAG": [*values[:3].tolist(), [9.0]]}), path)
    else:
        options = {"path": "t"} if format == "hdf5" else {}
        Table({"id": range(4), "MAG": values}).write(
            path, format={"vot": "votable", "ecsv": "ascii.ecsv"}.get(format, format), **options
        )
    opened = open_table(path)
    assert opened.columns == ["id"]
    last = [2.0, 5.0, 8.0, None if format == "lists" else 11.0]
    assert read(path, "MAG[2]", "MAG[0]") == {"MAG[2]": last, "MAG[0]": [0.0, 3.0, 6.0, 9.0]}
    told = (
        "lists of numbers: write MAG\\[0\\]"
        if format == "lists"
        else "3 numbers per row: write MAG\\[0\\] … MAG\\[2\\]"
    )
    with pytest.raises(ReadError, match=f"there is no column 'MAG_g'; MAG is a column of {told}"):
        read(path, "MAG_g")
    with pytest.raises(ReadError, match=f"column 'MAG' is a column of {told}"):
        read(path, "MAG")
    if format != "lists":
        with pytest.raises(ReadError, match=r"there is no 'MAG\[3\]'"):
            read(path, "MAG[3]")


def test_several_tables_in_a_file_are_named(tmp_path: Path) -> None:
    hdus = [fits.PrimaryHDU(), *(fits.BinTableHDU(Table({"x": range(n)}), name=f"T{n}") for n in (2, 3))]
    fits.HDUList(hdus).writeto(tmp_path / "t.fits")
    with pytest.raises(ReadError, match=r"holds 2 tables: 1 T2 \(2 rows\), 2 T3 \(3 rows\); name one under `group`"):
        open_table(tmp_path / "t.fits")
    assert open_table(tmp_path / "t.fits", group="T3").rows == 3


def test_layouts_of_others_in_hdf5_are_named(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "p.h5", "w") as file:
        file["frame/block0_values"] = np.zeros((3, 2))
        file["frame"].attrs["pandas_type"] = b"frame"
    with pytest.raises(ReadError, match="was written by pandas"):
        open_table(tmp_path / "p.h5")
    with h5py.File(tmp_path / "v.h5", "w") as file:
        file["table/columns/x/data"] = [1]
    with pytest.raises(ReadError, match="was written by vaex"):
        open_table(tmp_path / "v.h5")


def test_margins_and_hipscat_are_no_survey(tmp_path: Path) -> None:
    folder = write(table(50), tmp_path, "hats")
    properties = next(p for p in (folder / "margin").iterdir() if p.name == "hats.properties")
    content = properties.read_text()
    kept = [line for line in content.splitlines() if not line.startswith("dataproduct_type")]
    properties.write_text("\n".join([*kept, "dataproduct_type=margin", "hats_primary_table_url=main"]) + "\n")
    with pytest.raises(ReadError, match=r"is a HATS margin and no catalogue of objects .* it belongs to main"):
        open_table(folder / "margin")
    old = tmp_path / "old"
    old.mkdir()
    (old / "catalog_info.json").write_text(json.dumps({"catalog_name": "x"}))
    with pytest.raises(
        ReadError, match=r"is a HiPSCat catalogue .* old/Norder=\*/Dir=\*/\*\.parquet, with format: parquet"
    ):
        open_table(old)


VOTABLE = """<?xml version="1.0"?><VOTABLE version="1.4" xmlns="http://www.ivoa.net/xml/VOTable/v1.3"><RESOURCE type="results">
{before}<TABLE><FIELD name="{a}" datatype="long"><VALUES null="-9"/></FIELD><FIELD name="b" datatype="double" unit="deg"/>
<DATA><TABLEDATA><TR><TD>5000000000000000001</TD><TD>1.5</TD></TR><TR><TD>-9</TD><TD/></TR></TABLEDATA></DATA></TABLE>
{after}</RESOURCE></VOTABLE>"""


def votable(path: Path, status: str = "", text: str = "", after: bool = True, a: str = "a") -> Path:
    info = f'<INFO name="QUERY_STATUS" value="{status}">{text}</INFO>' if status else ""
    path.write_text(VOTABLE.format(before="" if after else info, after=info if after else "", a=a))
    return path


@pytest.mark.parametrize("after", [True, False])
def test_the_status_of_a_service_is_heeded(tmp_path: Path, after: bool) -> None:
    opened = open_table(votable(tmp_path / "t.vot", "OK", after=after))
    assert opened.warnings == () and opened.units == {"b": "deg"}
    assert read(tmp_path / "t.vot", "a") == {"a": [5000000000000000001, None]}
    opened = open_table(votable(tmp_path / "t.vot", "OVERFLOW", after=after))
    assert "cut the table at its limit" in opened.warnings[0] and opened.rows == 2
    with pytest.raises(ReadError, match="reports an error: no such table"):
        open_table(votable(tmp_path / "t.vot", "ERROR", "no such table", after))


def test_columns_of_the_same_name_are_refused_in_every_format(tmp_path: Path) -> None:
    pq.write_table(pa.table([[1], [2]], names=["a", "a"]), tmp_path / "t.parquet")
    (tmp_path / "t.csv").write_text("a,a\n1,2\n")
    (tmp_path / "t.dat").write_text("# a a\n1 2\n")
    (tmp_path / "t.tbl").write_text("|  a  |  a  |\n| int | int |\n  1     2\n")
    (tmp_path / "t.ecsv").write_text(
        "# %ECSV 1.0\n# ---\n# datatype:\n# - {name: a, datatype: int64}\n# - {name: a, datatype: int64}\na a\n1 2\n"
    )
    votable(tmp_path / "t.vot", a="b")
    fits.BinTableHDU(Table({"a": [1], "c": [2]})).writeto(tmp_path / "t.fits")
    content = (tmp_path / "t.fits").read_bytes()
    (tmp_path / "t.fits").write_bytes(content.replace(b"TTYPE2  = 'c       '", b"TTYPE2  = 'a       '"))
    for path in sorted(tmp_path.iterdir()):
        with pytest.raises(ReadError, match=r"has 2 columns '[ab]'"):
            open_table(path)
    with pytest.raises(ConfigError, match="has 2 columns 'a'"):
        check_columns([tmp_path / "t.parquet"], survey())


def test_ipac_and_ecsv_are_found_by_their_content(tmp_path: Path) -> None:
    lines = ["\\origin = IRSA", "|   id|      ra|", "|  int|  double|", "|     |     deg|", "| null|    null|"]
    (tmp_path / "t.txt").write_text("\n".join([*lines, "     1     1.50", "  null     2.50", ""]))
    opened = open_table(tmp_path / "t.txt")
    assert opened.units == {"ra": "deg"} and read(tmp_path / "t.txt", "id", "ra") == {"id": [1, None], "ra": [1.5, 2.5]}
    Table({"id": [1], "name": ["a b"]}, units={"id": "m"}).write(tmp_path / "t.csv", format="ascii.ecsv")
    assert read(tmp_path / "t.csv", "name") == {"name": ["a b"]} and open_table(tmp_path / "t.csv").units == {"id": "m"}
    text = (tmp_path / "t.csv").read_text()
    (tmp_path / "t.csv").write_text(text.replace('"a b"', '"a b\nc"'))
    with pytest.raises(ReadError, match="2 lines hold 1 rows"):
        open_table(tmp_path / "t.csv")


ONE_FIELD = """<?xml version="1.0"?>
<VOTABLE version="1.4" xmlns="http://www.ivoa.net/xml/VOTable/v1.3"><RESOURCE><TABLE>
<FIELD name="a" datatype="{type}" {more}/><FIELD name="b" datatype="int"/><DATA><TABLEDATA>
{rows}
</TABLEDATA></DATA></TABLE></RESOURCE></VOTABLE>
"""


@pytest.mark.parametrize(
    ("type_", "more", "value", "message"),
    [
        ("float", "", "22.o5", "a value of a field of numbers is none, and would be missing"),
        ("double", "", "12:30:01.5", "a value of a field of numbers is none"),
        ("short", "", "40000", "a whole number is beyond the type of its field"),
        ("int", "", "-3000000000", "a whole number is beyond the type of its field"),
        ("char", 'arraysize="4"', "NGC 4151", "a text is longer than its field says, and would be cut"),
    ],
)
@pytest.mark.parametrize("nulls", [0, 30])
def test_a_value_that_a_votable_cannot_hold_is_refused_with_its_line(
    tmp_path: Path, type_: str, more: str, value: str, message: str, nulls: int
) -> None:
    """Not clipped, cut or made missing, as astropy does; also behind many words for a missing value."""
    good = {"char": "NGC"}.get(type_, "17")
    missing = "null" if type_ in ("float", "double") else good
    values = [good, *[missing] * nulls, value, good]
    rows = "\n".join(f"<TR><TD>{one}</TD><TD></TD></TR>" for one in values)
    (tmp_path / "t.vot").write_text(ONE_FIELD.format(type=type_, more=more, rows=rows))
    with pytest.raises(ReadError, match=rf"t\.vot: line {5 + nulls}: {message}"):
        open_table(tmp_path / "t.vot")
    (tmp_path / "t.vot").write_text(ONE_FIELD.format(type=type_, more=more, rows=rows.replace(value, missing)))
    found = read(tmp_path / "t.vot", "a")["a"]
    assert len(found) == nulls + 3 and str(found[0]).startswith(good)


@pytest.mark.parametrize(
    "line", [" 1234567     2.50", "       1   12345.50", "     1     2.50 7", "12345678 2.50     "]
)
def test_a_value_that_is_wider_than_its_column_of_ipac_is_refused(tmp_path: Path, line: str) -> None:
    lines = ["|   id|      ra|", "|  int|  double|", "     1     1.50 ", " 12345 12345.75 "]
    (tmp_path / "t.tbl").write_text("\n".join([*lines, ""]))
    assert read(tmp_path / "t.tbl", "id", "ra") == {"id": [1, 12345], "ra": [1.5, 12345.75]}
    (tmp_path / "t.tbl").write_text("\n".join([*lines, line, *lines[2:], ""]))
    with pytest.raises(ReadError, match=r"t\.tbl: line 5: .* has a value that reaches below a bar"):
        open_table(tmp_path / "t.tbl")


def test_tables_between_bars_are_read_or_named(tmp_path: Path) -> None:
    """Not taken for headers of IPAC, which begin with a bar, too."""
    (tmp_path / "t.csv").write_text("| id | ra |\n| 1 | 10.5 |\n| 2 | 11.5 |\n| 3 | 12.5 |\n| 4 | 13.5 |\n")
    batches = open_table(tmp_path / "t.csv").batches(["id", "ra"], 9, numeric={"ra"})
    assert pa.Table.from_batches(batches).to_pydict() == {"id": [*"1234"], "ra": [10.5, 11.5, 12.5, 13.5]}
    (tmp_path / "t.csv").write_text("| id | ra |\n|----|----|\n| 1 | 10.5 |\n")
    with pytest.raises(ReadError, match="line 2: column 'ra' holds '----', expected a number"):
        list(open_table(tmp_path / "t.csv").batches(["id", "ra"], 9, numeric={"ra"}))
    Table({"id": [1, 2], "ra": [1.5, 2.5]}).write(tmp_path / "t.txt", format="ascii.mrt")
    with pytest.raises(ReadError, match=r"t\.txt: is a machine-readable table of CDS or AAS"):
        open_table(tmp_path / "t.txt")


@pytest.mark.parametrize("column", ["m", "m[0]", "m.psf"])
def test_an_unreadable_part_of_a_column_is_named_like_the_column(tmp_path: Path, column: str) -> None:
    pq.write_table(pa.table({"id": [1], "m": [{"psf": 22.0}]}), tmp_path / "t.parquet")
    assert "column 'm' holds records" in open_table(tmp_path / "t.parquet").lacks(column)
    lists = np.array([np.array([22.0], np.float32), np.array([1.0, 2.0], np.float32)], object)
    fits.BinTableHDU.from_columns([fits.Column("m", "PE()", array=lists)]).writeto(tmp_path / "t.fits")
    assert "column 'm' has arrays of variable length (FITS format PE" in open_table(tmp_path / "t.fits").lacks(column)


def test_a_value_that_a_votable_cannot_hold_is_found_among_many_files(tmp_path: Path) -> None:
    """Headers are read by several threads, and astropy's warnings are set for all of them."""
    good = "\n".join(f"<TR><TD>{number}</TD><TD>1</TD></TR>" for number in range(300))
    for number in range(12):
        rows = good.replace("<TD>250<", "<TD>40000<") if number % 3 == 0 else good
        (tmp_path / f"{number:02}.vot").write_text(ONE_FIELD.format(type="short", more="", rows=rows))
        Table({"a": [1], "b": [2]}).write(tmp_path / f"{number:02}.ecsv")
    files = sorted(tmp_path.iterdir())
    with ThreadPoolExecutor(8) as pool:
        faults = list(pool.map(_fault, files))
    refused = {
        path.name for path, fault in zip(files, faults, strict=True) if "line 254: a whole number is beyond" in fault
    }
    assert refused == {"00.vot", "03.vot", "06.vot", "09.vot"} and sum(map(bool, faults)) == 4


def _fault(path: Path) -> str:
    try:
        open_table(path)
    except ReadError as error:
        return str(error)
    return ""
