"""Tables of text: every line is one row, or the run stops and names the line."""

from __future__ import annotations

import bz2
import gzip
import logging
import lzma
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from zmill.survey.readers import ReadError, open_table, streams, text

ROWS = [f"N{n},{n}.5,{n}" for n in range(1, 40)]


def read(path: Path, columns: list[str] | None = None, numeric: set[str] | None = None) -> dict[str, list[object]]:
    opened = open_table(path)
    batches = list(opened.batches(columns or opened.columns, 7, numeric=numeric or set()))
    return pa.Table.from_batches(batches).to_pydict() if batches else {}


def written(path: Path, lines: list[str], ending: str = "\n") -> Path:
    path.write_bytes((ending.join(lines) + ending).encode())
    return path


FAULTY = {
    "short": ("N20,1.5", "2 values where the header has 3"),
    "long": ("N20,1.5,2,3", "4 values where the header has 3"),
    "open quote": ('"N20,1.5,2', "a quotation mark opens and does not close"),
    "line break in a value": ('"N20\nb",1.5,2', "a quotation mark opens and does not close"),
    "a number for Python alone": ("N20,1.5\u00a0,2", "column 'ra' holds '1.5\\\\xa0', expected a number"),
    "digits of another script": ("N20,\uff11.5,2", "column 'ra' holds '\uff11.5', expected a number"),
    "no number": ("N20,10:20:30,2", "column 'ra' holds '10:20:30', expected a number"),
    "zero bytes": ("N20,\0\0,2", "bytes of value 0"),
}


@pytest.mark.parametrize("fault", FAULTY)
@pytest.mark.parametrize("head_bytes", [64, 1 << 18])
def test_a_line_that_is_no_row_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str, head_bytes: int
) -> None:
    monkeypatch.setattr(text, "HEAD_BYTES", head_bytes)
    line, message = FAULTY[fault]
    path = written(tmp_path / "t.csv", ["# a comment", "id,ra,n", *ROWS[:19], line, *ROWS[20:]])
    with pytest.raises(ReadError, match=rf"t\.csv: (line 22 |line 22: |.*){message}") as caught:
        read(path, numeric={"ra"})
    if fault != "zero bytes" or head_bytes == 64:
        assert "line 22" in str(caught.value)


def test_two_stray_quotation_marks_swallow_nothing(tmp_path: Path) -> None:
    lines = ["id,ra,n", *ROWS]
    lines[5], lines[30] = '"' + lines[5], '"' + lines[30]
    with pytest.raises(ReadError, match=r"t\.csv: line 6: a quotation mark opens and does not close"):
        read(written(tmp_path / "t.csv", lines))


def test_values_in_quotation_marks_are_read(tmp_path: Path) -> None:
    path = written(tmp_path / "t.csv", ['"id" , "na,me",n', '"a, b","say ""hi""",1', 'c d,5" source, 2 '])
    assert read(path) == {"id": ["a, b", "c d"], "na,me": ['say "hi"', '5" source'], "n": ["1", "2"]}


@pytest.mark.parametrize("line", ["4 150.1 2.2 19.9", "4 150.1 2.2 19.9 20.1 N 4"])
def test_aligned_text_with_a_blank_value_is_refused(tmp_path: Path, line: str) -> None:
    rows = [f"{n}  150.{n}  2.{n}  19.{n}   20.{n}" for n in range(9)]
    path = written(tmp_path / "t.dat", [*rows[:4], line, *rows[5:]])
    with pytest.raises(
        ReadError, match=r"t\.dat: line 5: \d values where the first line has 5 .* a missing value must be"
    ):
        read(path)


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("lines", [["# made 2026", "#", "id,ra,n"], ["# made 2026", "# id,ra,n"], ["#id, ra, n"]])
def test_comments_before_the_header_and_a_header_that_begins_with_a_comment_sign(
    tmp_path: Path, lines: list[str], ending: str
) -> None:
    path = written(tmp_path / "t.csv", [*lines, *[row.replace("N", "") for row in ROWS]], ending)
    assert read(path, ["id", "n"]) == {"id": [str(n) for n in range(1, 40)], "n": [str(n) for n in range(1, 40)]}


def test_a_comment_sign_is_one_at_the_start_of_a_line_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = written(tmp_path / "t.csv", ["id,n", "A#1,2", "# left out,3", "#B,4", "C,5"])
    with caplog.at_level(logging.INFO, "zmill"):
        assert read(path) == {"id": ["A#1", "C"], "n": ["2", "5"]}
    path = written(tmp_path / "t.dat", ["# x y z", "1 2.5   a#b", " 3 4.5 b  "])
    expected = {"x": ["1", "3"], "y": ["2.5", "4.5"], "z": ["a#b", "b"]}
    assert read(path, ["x", "y", "z"]) == expected
    assert list(read(path, ["col3", "col1"]).values()) == [expected["z"], expected["x"]]


def test_aligned_text_with_and_without_a_header(tmp_path: Path) -> None:
    body = ["1 2.5 'a", "3 4.5 b"]
    assert open_table(written(tmp_path / "a.txt", body)).columns == ["col1", "col2", "col3"]
    named = open_table(written(tmp_path / "b.txt", ["id ra name", *body]))
    assert named.columns == ["id", "ra", "name", "col1", "col2", "col3"]
    assert read(tmp_path / "b.txt", ["name"]) == {"name": ["'a", "b"]}


@pytest.mark.parametrize("sign", [",", "\t", ";", "|", " "])
@pytest.mark.parametrize("name", ["t.csv", "t.txt"])
def test_the_delimiter_is_found(tmp_path: Path, sign: str, name: str) -> None:
    path = written(
        tmp_path / name, [sign.join(["id", "ra", "dec"]), *(sign.join([f"N{n}", "1.5", "-2"]) for n in range(9))]
    )
    assert read(path, ["id", "dec"], {"dec"}) == {"id": [f"N{n}" for n in range(9)], "dec": [-2.0] * 9}


def test_text_of_vizier(tmp_path: Path) -> None:
    lines = [
        "#",
        "#   VizieR",
        "#Column\tRA\t(F9.5)\tright ascension",
        "RA\tName\tz",
        "deg\t \t",
        "---------\t--------\t-----",
    ]
    rows = ["150.12345\tzCOSMOS 1\t0.731", "150.12346\t        \t     ", "150.12347\tzCOSMOS 3\t0.5  "]
    path = written(tmp_path / "t.tsv", [*lines, *rows, ""])
    opened = open_table(path)
    assert opened.columns == ["RA", "Name", "z"] and opened.units == {"RA": "deg"}
    found = read(path, ["RA", "Name", "z"], {"RA", "z"})
    assert found == {
        "RA": [150.12345, 150.12346, 150.12347],
        "Name": ["zCOSMOS 1", "", "zCOSMOS 3"],
        "z": [0.731, None, 0.5],
    }
    path = written(tmp_path / "two.tsv", [*lines, *rows, "", "#Table\tJ_A", *lines[3:], *rows])
    with pytest.raises(ReadError, match="holds several tables of VizieR"):
        read(path)


@pytest.mark.parametrize("kind", ["gz", "bz2", "xz", "zst"])
def test_compression_is_found_by_content(tmp_path: Path, kind: str) -> None:
    plain = "\n".join(["id,ra,n", *ROWS]).encode()
    packed = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress, "zst": zstd}[kind](plain)
    for name in ("t.csv", f"t.csv.{kind}"):
        (tmp_path / name).write_bytes(packed)
        assert read(tmp_path / name, ["n"])["n"] == [str(n) for n in range(1, 40)]
    (tmp_path / "cut.csv").write_bytes(packed[: len(packed) * 2 // 3])
    with pytest.raises(ReadError, match=r"cut\.csv"):
        read(tmp_path / "cut.csv")


@pytest.mark.parametrize("kind", ["gz", "bz2", "xz", "zst"])
def test_every_stream_of_a_compressed_file_is_read_or_refused(tmp_path: Path, kind: str) -> None:
    """Parallel programs write many streams; a damaged one in the middle does not end the file."""
    pack = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress, "zst": zstd}[kind]
    parts = [pack(("\n".join(rows) + "\n").encode()) for rows in (["id,ra,n", *ROWS[:20]], ROWS[20:30], ROWS[30:])]
    path = tmp_path / "t.csv"
    path.write_bytes(b"".join(parts))
    assert read(path, ["n"])["n"] == [str(n) for n in range(1, 40)]
    for damaged in (parts[1][:-9], b"\7" + parts[1][1:], parts[1][:8], b"garbage" * 9):
        path.write_bytes(parts[0] + damaged + parts[2])
        with pytest.raises(ReadError, match=r"t\.csv: "):
            read(path, ["n"])
        path.write_bytes(parts[0] + damaged)
        with pytest.raises(ReadError, match=r"t\.csv: "):
            read(path, ["n"])


@pytest.mark.parametrize("kind", ["gz", "bz2", "xz", "zst"])
def test_damage_deep_in_a_compressed_file_names_the_file(tmp_path: Path, kind: str) -> None:
    """Behind what its header is taken from."""
    pack = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress, "zst": zstd}[kind]
    rng = np.random.default_rng(1)
    rows = [f"{n},{x!r}" for n, x in enumerate(rng.random(40_000).tolist())]
    packed = bytearray(pack("\n".join(["id,ra", *rows]).encode()))
    for place in (len(packed) // 2, len(packed) - 300):
        damaged = bytes([*packed[:place], packed[place] ^ 255, *packed[place + 1 :]])
        (tmp_path / "t.csv").write_bytes(damaged)
        with pytest.raises(ReadError, match=r"t\.csv: "):
            read(tmp_path / "t.csv", ["id"])


@pytest.mark.parametrize("kind", ["bz2", "xz"])
@given(places=st.lists(st.integers(0, 5000), max_size=6), sizes=st.lists(st.integers(1, 3000), min_size=6, max_size=6))
@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
def test_compressed_files_are_read_from_any_offset(
    tmp_path_factory: pytest.TempPathFactory, kind: str, places: list[int], sizes: list[int]
) -> None:
    pack = {"bz2": bz2.compress, "xz": lzma.compress}[kind]
    plain = np.random.default_rng(1).bytes(4500)
    path = tmp_path_factory.mktemp("t") / "t"
    path.write_bytes(pack(plain[:1000]) + bytes(8) + pack(plain[1000:1001]) + pack(plain[1001:]) + bytes(4))
    with streams.opened(path) as file:
        assert file.read() == plain
        for place, size in zip(places, sizes, strict=False):
            file.seek(place)
            assert file.read(size) == plain[place : place + size]


def zstd(plain: bytes) -> bytes:
    return bytes(pa.Codec("zstd").compress(plain, asbytes=True))


def test_what_is_no_text_is_named(tmp_path: Path) -> None:
    for content, message in ((b"PK\x03\x04....", "zip archive or an Excel"), ("a,b\n".encode("utf-16"), "UTF-16")):
        (tmp_path / "t.csv").write_bytes(content)
        with pytest.raises(ReadError, match=message):
            open_table(tmp_path / "t.csv")
    (tmp_path / "t.csv").write_bytes(b"")
    with pytest.raises(ReadError, match="is empty"):
        open_table(tmp_path / "t.csv")
    with pytest.raises(ReadError, match=r"has 2 columns 'a'"):
        open_table(written(tmp_path / "t.csv", ["a,b,a", "1,2,3"]))
    with pytest.raises(ReadError, match=r"t\.fits: is votable by its content, not fits; leave out `format`"):
        (tmp_path / "t.fits").write_text("<?xml version='1.0'?><VOTABLE/>")
        open_table(tmp_path / "t.fits", "fits")


def test_latin_1_and_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes("\ufeffid,name\n1,Bär\n".encode())
    (tmp_path / "l.csv").write_bytes("id,name\n1,Bär\n".encode("latin-1"))
    assert read(tmp_path / "t.csv") == read(tmp_path / "l.csv") == {"id": ["1"], "name": ["Bär"]}


def test_first_rows_tell_types_and_no_value(tmp_path: Path) -> None:
    opened = open_table(written(tmp_path / "t.csv", ["i,f,s,z,b,e", "1,1.5,a,007,True,", "2,,b,8,false,--"]))
    assert opened.types == {
        "i": pa.int64(),
        "f": pa.float64(),
        "s": pa.string(),
        "z": pa.float64(),
        "b": pa.bool_(),
        "e": pa.null(),
    }
    assert read(tmp_path / "t.csv", ["z", "i"]) == {"z": ["007", "8"], "i": ["1", "2"]}


def test_decimals_after_integers_and_missing_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "BLOCK_BYTES", 1000)
    monkeypatch.setattr(text, "HEAD_BYTES", 100)
    path = written(tmp_path / "t.csv", ["a,b", *["1,x"] * 1000, "2.5,y", "nan,--", ",z"])
    batches = list(open_table(path).batches(["a"], 100, numeric={"a"}))
    found = pa.Table.from_batches(batches).column("a").to_pylist()
    assert found == [1.0] * 1000 + [2.5, None, None]
    (tmp_path / "b.csv").write_text("a,b\nTrue,1.5\nFalse,--\n")
    (batch,) = open_table(tmp_path / "b.csv").batches(["a", "b"], 10, numeric={"a", "b"})
    np.testing.assert_array_equal(batch.column("a"), [1.0, 0.0])
    assert batch.column("b").to_pylist() == [1.5, None]


LINES = st.lists(
    st.sampled_from(
        ["a,1,2", "b,3,4", "# remark", "", '"c,d",5,6', "e,7", "f,8,9,10", '"g,1,2', 'h",1,2', "  i , 3,4", "x"]
    ),
    max_size=30,
)


@given(LINES, st.integers(10, 60))
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_lines_are_rows_or_the_file_is_refused(tmp_path: Path, lines: list[str], block: int) -> None:
    whole = {"a,1,2", "b,3,4", '"c,d",5,6', 'h",1,2', "  i , 3,4"}
    data = [line for line in lines if line and not line.startswith("#")]
    path = written(tmp_path / "t.csv", ["id,x,y", *lines])
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(text, "BLOCK_BYTES", block)
        patched.setattr(text, "HEAD_BYTES", block)
        try:
            found = read(path, ["id", "y"])
        except ReadError as error:
            wrong = next(number for number, line in enumerate(lines, 2) if line in data and line not in whole)
            assert f"line {wrong}: " in str(error)
            return
    assert set(data) <= whole
    ids = {"a,1,2": "a", "b,3,4": "b", '"c,d",5,6': "c,d", 'h",1,2': 'h"', "  i , 3,4": "i"}
    assert found.get("id", []) == [ids[line] for line in data]
