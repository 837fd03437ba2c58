"""Tables of text, one row a line: values between commas, tabs, semicolons, bars or blanks.

Blocks of complete lines are cleaned (comments, blanks around values, encoding), parsed by pyarrow, and counted: a block must
have as many rows as lines, or the run stops and names the line. Values are text unless they are requested as numbers.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Collection, Iterator
from functools import cached_property
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from zmill.catalog.files import ReadError
from zmill.survey.readers.base import Span, Table, decoded, refuse_repeated, windows
from zmill.survey.readers.streams import opened, stem
from zmill.workflow.job import log

BLOCK_BYTES = 8 << 20
"""Bytes that are parsed at a time."""
HEAD_BYTES = 1 << 18
"""Bytes from which the header and the first rows are read."""
LONGEST_LINE = 1 << 27
SAMPLE_LINES = 20
DELIMITERS = (",", "\t", ";", "|")
MISSING = [*pyarrow.csv.ConvertOptions().null_values, "--", "None"]
"""Texts of a missing number; astropy writes `--`."""
WHOLE = r"^(0|-?[1-9][0-9]{0,18})$"
"""Pattern of an integer in its usual form: `007` and `+5` are text."""
TRUTH = {"true": True, "false": False}


class TextTable(Table):
    """One text file, as one piece; the number of rows is only known after reading it.

    Parameters
    ----------
    aligned : columns stand between blanks, and a header line may be missing; they are called col1, col2, ... then, and
        can be called so where there is a header.
    """

    rows = None

    def __init__(self, path: Path, aligned: bool) -> None:
        self.path = path
        with opened(path) as file:
            raw = bytes(file.read(HEAD_BYTES))
        if len(raw) == HEAD_BYTES and (raw.rfind(b"\n") >= 0 or raw.rfind(b"\r") >= 0):
            raw = raw[: max(raw.rfind(b"\n"), raw.rfind(b"\r")) + 1]
        if b"\0" in raw:
            raise ReadError(f"{path}: holds bytes of value 0: it is no text, or was damaged when it was written")
        lines = (decoded(raw.removeprefix(b"\xef\xbb\xbf")) or "").replace("\r\n", "\n").replace("\r", "\n").split("\n")
        self._comments: list[str] = []
        data: list[tuple[int, str]] = []
        for number, line in enumerate(lines):
            if line.startswith("#"):
                if not data:
                    self._comments.append(line.lstrip("#").strip())
            elif line.strip():
                data.append((number, line))
        if any("Byte-by-byte Description" in line for _, line in data):
            raise ReadError(
                f"{path}: is a machine-readable table of CDS or AAS, which zmill does not read: write it as ECSV or Parquet "
                "(Table.read(..., format='ascii.mrt') of astropy reads it)"
            )
        first = data[0][1] if data else self._comments[-1] if self._comments else ""
        if not first:
            raise ReadError(f"{path}: is empty: it has no header and no row")
        self._delimiter = _delimiter(first, [line for _, line in data[1:SAMPLE_LINES]], aligned, stem(path.name))
        names, self._first_line = self._header(data, aligned)
        self._width = len(names)
        refuse_repeated(path, [name for name in names if name])
        self._index = {name: index for index, name in enumerate(names) if name}
        if aligned:
            for index in range(len(names)):
                self._index.setdefault(f"col{index + 1}", index)
        self.columns = list(self._index)
        self._sample = [(number, line) for number, line in data if number >= self._first_line]

    def _header(self, data: list[tuple[int, str]], aligned: bool) -> tuple[list[str], int]:
        """The columns' names, and the number (from 0) of the first line that may hold a row."""
        if not data:
            return self._split(self._comments[-1]), 0
        start, line = data[0]
        first = self._split(line)
        if any(_is_number(value) for value in first):
            above = self._split(self._comments[-1]) if self._comments else []
            if len(above) == len(first) and not any(_is_number(name) for name in above):
                return above, start
            if aligned:
                return [f"col{index + 1}" for index in range(len(first))], start
        elif aligned and not any(_is_number(value) for _, next_ in data[1:2] for value in self._split(next_)):
            return [f"col{index + 1}" for index in range(len(first))], start
        for behind in (1, 2):  # VizieR: names, units (where they were requested), dashes
            if len(data) > behind and all(re.fullmatch(r"-+", v) for v in self._split(data[behind][1])):
                if behind == 2:
                    units = self._split(data[1][1])
                    self.units = {name: unit for name, unit in zip(first, units, strict=False) if unit}
                return first, data[behind][0] + 1
        return first, start + 1

    def _split(self, line: str) -> list[str]:
        return next(csv.reader([self._trimmed(line.encode()).decode()], delimiter=self._delimiter), [""])

    def _trimmed(self, text: bytes) -> bytes:
        """Text without blanks around values, except between quotation marks."""
        if self._delimiter == " ":
            text = _replaced(text, rb"[ \t]+", b" ")
        else:
            sign = self._delimiter.encode()
            if b" " + sign in text or sign + b" " in text:
                text = _replaced(text, rb" *" + re.escape(sign) + rb" *", sign)
        if text.startswith(b" ") or b"\n " in text:
            text = re.sub(rb"(?m)^ +", b"", text)
        if text.endswith(b" ") or b" \n" in text:
            text = re.sub(rb"(?m) +$", b"", text)
        return text

    @cached_property
    def types(self) -> dict[str, pa.DataType]:  # type: ignore[override]
        """Types from the first rows; a line that is no row of the table is refused."""
        text, lines = self._tidied("\n".join(line for _, line in self._sample).encode(), 0)
        if not lines:
            return dict.fromkeys(self.columns, pa.null())
        try:
            table = self._parse(text, self.columns, ())
        except pa.ArrowInvalid:
            table = None
        if table is None or table.num_rows != lines:
            for number, line in self._sample:
                if fault := self._line_fault(line, [], ()):
                    raise ReadError(f"{self.path}: line {number + 1}: {fault}")
            raise ReadError(f"{self.path}: its first {lines} lines are no {lines} rows of {self._width} values")
        return {name: _kind(table.column(name)) for name in self.columns}

    # ------------------------------------------------------------------------------------------------- rows

    def read(
        self, columns: list[str], batch_rows: int, span: Span, numeric: Collection[str]
    ) -> Iterator[pa.RecordBatch]:
        wanted = columns or self.columns[:1]
        for raw, first_line in self._blocks():
            text, lines = self._tidied(raw, first_line)
            if not lines:
                continue
            try:
                table = self._parse(text, wanted, numeric)
            except pa.ArrowInvalid as error:
                raise ReadError(self._fault(raw, first_line, wanted, numeric) or f"{self.path}: {error}") from error
            if table.num_rows != lines:
                raise ReadError(
                    self._fault(raw, first_line, wanted, numeric)
                    or f"{self.path}: {lines} lines from line {first_line + 1} on hold {table.num_rows} rows"
                )
            for batch in table.combine_chunks().to_batches():
                for start, stop in windows(0, batch.num_rows, batch_rows):
                    yield batch.slice(start, stop - start)

    def _blocks(self) -> Iterator[tuple[bytes, int]]:
        """Blocks of complete lines after the header, ending in \\n, and the number of lines before each."""
        left, number, skip = b"", 0, self._first_line
        with opened(self.path) as file:
            ended = False
            while not ended:
                read = bytes(file.read(BLOCK_BYTES))
                ended = len(read) == 0
                if number == 0 and not left:
                    read = read.removeprefix(b"\xef\xbb\xbf")
                block = left + read
                carried = b""
                if not ended and block.endswith(b"\r"):
                    block, carried = block[:-1], b"\r"
                if b"\r" in block:
                    block = block.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
                end = len(block) if ended else block.rfind(b"\n") + 1
                block, left = block[:end], block[end:] + carried
                if len(left) > LONGEST_LINE:
                    raise ReadError(
                        f"{self.path}: line {number + 1} is longer than {LONGEST_LINE >> 20} MB: no table of text"
                    )
                while skip > number and block:
                    behind = block.find(b"\n") + 1 or len(block)
                    block, number = block[behind:], number + 1
                if block:
                    yield block, number
                    number += block.count(b"\n")

    def _tidied(self, raw: bytes, first_line: int) -> tuple[bytes, int]:
        """A block without comments, blank lines and blanks around values, in UTF-8; and its number of lines."""
        text = raw
        if b"\0" in text:
            line = first_line + 1 + text[: text.find(b"\0")].count(b"\n")
            raise ReadError(
                f"{self.path}: line {line} holds bytes of value 0: the file was damaged when it was written"
            )
        if text.startswith(b"#") or b"\n#" in text:
            text = self._without_comments(text, first_line)
        if not text.isascii():
            try:
                text.decode("utf-8")
            except UnicodeDecodeError:
                text = text.decode("latin-1").encode("utf-8")
        text = self._trimmed(text)
        if text.startswith(b"\n") or b"\n\n" in text:
            text = re.sub(rb"\n{2,}", b"\n", text).removeprefix(b"\n")
        return text, text.count(b"\n") + (not text.endswith(b"\n") if text else 0)

    def _without_comments(self, text: bytes, first_line: int) -> bytes:
        if re.search(rb"(?m)^#(RESOURCE=|Table\b)", text):
            raise ReadError(f"{self.path}: holds several tables of VizieR; write each into a file of its own")
        rest, times = re.subn(rb"(?m)^#.*\n?", b"", text)
        comment = text[text.find(b"#") :].split(b"\n", 1)[0][:80].decode("utf-8", "replace")
        log.info(
            "%s: %d lines from line %d on begin with # and are comments: %r", self.path, times, first_line + 1, comment
        )
        return rest

    def _parse(self, text: bytes, columns: list[str], numeric: Collection[str]) -> pa.Table:
        names = {name: f"c{self._index[name]}" for name in columns}
        types = {
            column: pa.bool_()
            if name in numeric and pa.types.is_boolean(self.types[name])
            else pa.float64()
            if name in numeric
            else pa.string()
            for name, column in names.items()
        }
        table = pyarrow.csv.read_csv(
            pa.BufferReader(text),
            pyarrow.csv.ReadOptions(
                use_threads=False, block_size=len(text) + 1, column_names=[f"c{n}" for n in range(self._width)]
            ),
            pyarrow.csv.ParseOptions(delimiter=self._delimiter),
            pyarrow.csv.ConvertOptions(
                column_types=types,
                include_columns=list(dict.fromkeys(names.values())),
                null_values=MISSING,
                true_values=["true", "True", "TRUE"],
                false_values=["false", "False", "FALSE"],
            ),
        )
        return pa.table({name: table.column(column) for name, column in names.items()})

    # ----------------------------------------------------------------------------------------------- faults

    def _fault(self, raw: bytes, first_line: int, columns: list[str], numeric: Collection[str]) -> str:
        """The first line that is no row of the table, and why."""
        for number, line in enumerate((decoded(raw) or "").split("\n"), first_line + 1):
            if line.strip() and not line.startswith("#"):
                fault = self._line_fault(line, columns, numeric)
                if fault:
                    return f"{self.path}: line {number}: {fault}"
        return ""

    def _line_fault(self, line: str, columns: list[str], numeric: Collection[str]) -> str:
        values = self._split(line)
        short = line.strip()[:60]
        if _opens(self._trimmed(line.encode()).decode(), self._delimiter):
            return (
                f"a quotation mark opens and does not close before the end of the line ({short!r}): a row is one line; close it, "
                "or replace the line break in the text by a blank"
            )
        if len(values) != self._width:
            where = "the header" if self.columns[:1] != ["col1"] else "the first line"
            blank = "; a missing value must be written, as nan or --" if self._delimiter == " " else ""
            return f"{len(values)} values where {where} has {self._width} ({short!r}): values would stand in wrong columns{blank}"
        for name in columns:
            value = values[self._index[name]]
            truth = name in numeric and pa.types.is_boolean(self.types[name])
            fits = value.lower() in TRUTH if truth else _is_number(value)
            if name in numeric and not fits and value not in MISSING:
                expected = "true or false, as in the first rows" if truth else "a number"
                return (
                    f"column {name!r} holds {value!r}, expected {expected}; a missing value is written as nothing, NaN, null, -- "
                    "or a number under `sentinels`"
                )
        return ""


def _delimiter(first: str, others: list[str], aligned: bool, name: str) -> str:
    """The delimiter: the one that gives most values in the first line."""
    counts = {sign: len(next(csv.reader([first], delimiter=sign), [])) for sign in DELIMITERS}
    if name.endswith(".tsv") and counts["\t"] > 1:
        return "\t"
    best = max(DELIMITERS, key=lambda sign: counts[sign])
    words = first.split()
    if not aligned:
        return best if counts[best] > 1 else " " if len(words) > 1 else ","
    same = all(len(next(csv.reader([line], delimiter=best), [])) == counts[best] for line in others)
    closed = all(word.endswith(best) for word in words[:-1])
    if (
        best != "\t"
        and counts[best] > 1
        and same
        and (counts[best] > len(words) or (counts[best] == len(words) and closed))
    ):
        return best
    return " "


def _replaced(text: bytes, pattern: bytes, by: bytes) -> bytes:
    """The text with every match of a pattern replaced, except between quotation marks."""
    if b'"' not in text:
        return re.sub(pattern, by, text)
    return re.sub(rb'("(?:[^"\n]|"")*")|' + pattern, lambda found: found[1] or by, text)


def _opens(line: str, delimiter: str) -> bool:
    """Whether a quotation mark at the start of a value is not closed."""
    try:
        next(csv.reader([line], delimiter=delimiter, strict=True), None)
    except csv.Error as error:
        return "end of data" in str(error)
    return False


def _is_number(value: str) -> bool:
    """Whether pyarrow reads a value as a number; it accepts fewer spellings than Python."""
    try:
        float(value)
    except ValueError:
        return False
    return value.isascii() and "_" not in value and value.strip(" ") == value.strip()


def _kind(column: pa.ChunkedArray) -> pa.DataType:
    """The type of the values of a text column: null, truth values, integers, numbers or text."""
    values = column.filter(pc.invert(pc.is_in(column, pa.array(MISSING)))).combine_chunks()
    if not len(values):
        return pa.null()
    if pc.all(pc.is_in(pc.utf8_lower(values), pa.array(list(TRUTH)))).as_py():
        return pa.bool_()
    for kind in (pa.int64(), pa.float64()):
        if kind == pa.int64() and not pc.all(pc.match_substring_regex(values, WHOLE)).as_py():
            continue
        try:
            values.cast(kind)
        except pa.ArrowInvalid:
            continue
        return kind
    return pa.string()
