"""Files as streams of bytes; the first bytes determine format and compression."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa

from zmill.catalog.files import ReadError

HEAD_BYTES = 4096
BROKEN = (OSError, EOFError, lzma.LZMAError, zlib.error)
"""What reading a damaged file raises."""
BLOCK_BYTES = 1 << 16
"""Compressed bytes that are read at a time."""
COMPRESSIONS = {b"\x1f\x8b": "gz", b"BZh": "bz2", b"\xfd7zXZ\x00": "xz", b"\x28\xb5\x2f\xfd": "zst"}
COMPRESSED_ENDINGS = (".gz", ".bz2", ".xz", ".zst")
REFUSED = {
    b"PK\x03\x04": "a zip archive or an Excel file: unpack it, or export the table as CSV or Parquet",
    b"\xff\xfe": "text in UTF-16: write it as UTF-8",
    b"\xfe\xff": "text in UTF-16: write it as UTF-8",
    b"\x93NUMPY": "a NumPy array: write it as a table, in Parquet or FITS",
    b"FEA1": "a Feather file of version 1: write it as Feather of version 2 or Parquet",
    b"ORC": "an ORC file: write it as Parquet",
}


def compression(path: Path) -> str | None:
    """The compression by the file's first bytes: `gz`, `bz2`, `xz` or `zst`, or None."""
    with open(path, "rb") as file:
        first = file.read(8)
    return next((name for magic, name in COMPRESSIONS.items() if first.startswith(magic)), None)


def opened(path: Path) -> Any:
    """The file, decompressed, as a binary stream with `read`; all but `zst` can `seek`.

    Raises
    ------
    ReadError
        Where it is no table but an archive.
    """
    kind = compression(path)
    if kind == "zst":
        return pa.CompressedInputStream(pa.OSFile(str(path)), "zstd")
    if kind == "gz":
        return gzip.GzipFile(path, "rb")
    if kind is not None:
        return io.BufferedReader(_Streams(path, {"bz2": bz2.BZ2Decompressor, "xz": lzma.LZMADecompressor}[kind]))
    file = open(path, "rb")  # noqa: SIM115 - the caller closes it
    first = file.read(8)
    for magic, what in REFUSED.items():
        if first.startswith(magic):
            file.close()
            raise ReadError(f"{path}: is {what}")
    file.seek(0)
    return file


class _Streams(io.RawIOBase):
    """All the streams that a file of bz2 or xz holds, one behind the other, as parallel programs write them.

    Python's own classes end where a stream behind the first is damaged, as if the file ended there.

    Parameters
    ----------
    new : makes a decompressor of one stream.
    """

    def __init__(self, path: Path, new: Callable[[], Any]) -> None:
        self._file, self._new = open(path, "rb"), new  # noqa: SIM115 - closed with this
        self._engine, self._position = new(), 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._next(len(buffer))
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def _next(self, size: int) -> bytes:
        data = b""
        while not data:
            raw = b""
            if self._engine.eof:
                raw = self._engine.unused_data.lstrip(b"\0")  # what streams may be filled up with
                while not raw and (more := self._file.read(BLOCK_BYTES)):
                    raw = more.lstrip(b"\0")
                if not raw:
                    return b""
                self._engine = self._new()
            elif self._engine.needs_input:
                raw = self._file.read(BLOCK_BYTES)
                if not raw:
                    raise EOFError("it ends in the middle of a compressed stream")
            data = self._engine.decompress(raw, size)
        return data

    def seek(self, position: int, whence: int = io.SEEK_SET) -> int:
        if whence != io.SEEK_SET:
            raise io.UnsupportedOperation("seek from elsewhere than the start")
        if position < self._position:
            self._file.seek(0)
            self._engine, self._position = self._new(), 0
        while self._position < position and (data := self._next(min(position - self._position, BLOCK_BYTES))):
            self._position += len(data)
        return self._position

    def tell(self) -> int:
        return self._position

    def close(self) -> None:
        self._file.close()
        super().close()


def is_npz(path: Path) -> bool:
    """Whether a file is a NumPy archive: a zip file of arrays."""
    with open(path, "rb") as file:
        if file.read(4) != b"PK\x03\x04":
            return False
    try:
        with zipfile.ZipFile(path) as archive:
            return bool(archive.namelist()) and all(name.endswith(".npy") for name in archive.namelist())
    except zipfile.BadZipFile:
        return path.suffix == ".npz"  # whose reader says what is wrong with it


def head(path: Path, size: int = HEAD_BYTES) -> bytes:
    """The first bytes of the decompressed file.

    Raises
    ------
    ReadError
        As `opened`, and where the compressed file is damaged at once.
    """
    try:
        with opened(path) as file:
            return bytes(file.read(size))
    except BROKEN as error:
        raise ReadError(f"{path}: cannot be read: {error}") from error


def content_of(path: Path) -> str | None:
    """The format by a file's first bytes, or None."""
    if is_npz(path):
        return "npz"
    first = head(path)
    if first.startswith(b"SIMPLE  ="):
        return "fits"
    if first.startswith(b"PAR1"):
        return "parquet"
    if first.startswith(b"\x89HDF\r\n"):
        return "hdf5"
    text = first.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text.startswith(b"# %ECSV"):
        return "ecsv"
    if text.startswith(b"<") and b"<VOTABLE" in first.upper():
        return "votable"
    lines = [line.strip() for line in text.splitlines()]
    bars = [line for line in lines if line.startswith(b"|") and line.endswith(b"|") and len(line) > 1]
    if lines and (lines[0].startswith(b"\\") or (lines[0] in bars and _ipac_types(bars[1:2]))):
        return "ipac"
    return None


def _ipac_types(second: list[bytes]) -> bool:
    """Whether the second line between bars holds IPAC's column types, or there is none; other tables have values there."""
    names = (b"int", b"long", b"float", b"double", b"real", b"char", b"date", b"bool")
    words = [word.strip().lower() for line in second for word in line.strip(b"|").split(b"|")]
    return all(any(word and name.startswith(word) for name in names) for word in words)


def stem(name: str) -> str:
    """A file's name in lower case, without the ending of its compression."""
    lower = name.lower()
    return next((lower.removesuffix(ending) for ending in COMPRESSED_ENDINGS if lower.endswith(ending)), lower)
