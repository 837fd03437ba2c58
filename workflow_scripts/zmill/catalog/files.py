"""The one atomic write, checksums by which a damaged file is recognized, and hashes of content.

A JSON file ends with a checksum of its own text (`write_json`). Any other file has a check file in the same folder, `.NAME.xxh3`,
which `atomic_write` writes; partitions of catalogues have their sidecar. `zmill.mend` compares all of them with the files when a run starts.
"""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import xxhash

SUFFIX = ".xxh3"
"""Suffix of the name of a check file."""
CHECKSUM = "file_xxh3"
"""Last key of a JSON file: the hash of all the text before it."""
_TAIL = re.compile(rb',?\n  "(.{%d})": "(.{16})"\n}\n\Z' % len(CHECKSUM), re.DOTALL)
SYNCS = 16
"""Number of files that `sync` writes to disk at a time: the disk then serves several in one operation."""
MEND = "run snakemake --cores 2 mend, then run again"


class Damaged(ValueError):
    """The content of a file is not what was written; the message names the file and the command that repairs it."""

    def __init__(self, path: Path | str, why: str) -> None:
        super().__init__(f"{path}: damaged ({why}): {MEND}")
        self.why = why


class ReadError(Exception):
    """A file cannot be read as a table."""


@contextmanager
def atomic_write(path: Path | str, check: bool = True, durable: bool = True) -> Iterator[Path]:
    """Atomic write: yield a temporary path in the folder of `path`, renamed to `path` on success and removed on failure.

    Parameters
    ----------
    check : whether a check file is written; false for files whose hash is stored elsewhere.
    durable : whether content and name are on the disk when the block ends, so that the file is complete even
        after a power loss. Without it, a damaged file is still recognized; see `sync`.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_path(path)
    try:
        yield temporary
        rename_finished(temporary, path, check, durable)
    finally:
        temporary.unlink(missing_ok=True)


def rename_finished(written: Path, path: Path, check: bool = True, durable: bool = True) -> None:
    """Rename a finished temporary file to `path`, as `atomic_write` does; for files that one job begins and another finishes."""
    if check:
        _write_check(path, written)
    if durable:
        _to_disk(written, os.O_RDONLY)
    os.replace(written, path)
    if durable:
        sync_folder(path.parent)


def temporary_path(path: Path) -> Path:
    """The temporary path for `path`, unique to this process and machine."""
    return path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.tmp")


def sync(paths: Iterable[Path]) -> None:
    """Write files of `durable=False`, and their names, to the disk (fsync)."""
    files = list(paths)
    with ThreadPoolExecutor(SYNCS) as pool:
        list(pool.map(lambda path: _to_disk(path, os.O_RDONLY), files))
    for folder in {path.parent for path in files}:
        sync_folder(folder)


def sync_folder(path: Path) -> None:
    """Write a folder's list of names to the disk (fsync), so that it survives a power loss."""
    _to_disk(path, os.O_RDONLY | os.O_DIRECTORY)


def _to_disk(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# -------------------------------------------------------------------------------------------------- check files


def check_file(path: Path) -> Path:
    """Path of the check file of a file that cannot contain its own checksum."""
    return path.with_name(f".{path.name}{SUFFIX}")


def _write_check(path: Path, temporary: Path) -> None:
    """Write the checksum lines of `temporary`, which will become `path`, and of today's `path`: a killed job leaves one of the two."""
    check = check_file(path)
    before = _checks(check)[:1] if path.is_file() else []
    with atomic_write(check, check=False, durable=False) as file:
        file.write_text("".join(f"{line}\n" for line in [_checksum_line(temporary), *before]), encoding="ascii")


def _checksum_line(path: Path) -> str:
    return f"{path.stat().st_size} {file_hash(path)}"


def _checks(check: Path) -> list[str]:
    return check.read_bytes().decode("ascii", "replace").splitlines() if check.is_file() else []


def fault(path: Path, most_bytes: float = float("inf")) -> str | None:
    """What is wrong with a file that has a check file; None where it is as written or has no check file.

    Parameters
    ----------
    most_bytes : of larger files, only the size is compared with the check file.
    """
    checks = _checks(check_file(path))
    if not checks:
        return None
    if not path.is_file():
        return "missing"
    size = path.stat().st_size
    if size not in {int(line.split()[0]) for line in checks if re.fullmatch(r"\d+ [0-9a-f]{32}", line)}:
        return f"{size} bytes, not as many as were written"
    if size <= most_bytes and _checksum_line(path) not in checks:
        return "its content is not what was written"
    return None


# --------------------------------------------------------------------------------------------------------- JSON


def write_json(path: Path | str, content: Any, sort_keys: bool = True, durable: bool = True) -> None:
    """Write `content` as indented JSON; NaN is refused. An object ends with its own checksum; any other value has a check file."""
    text = json.dumps(content, indent=2, sort_keys=sort_keys, allow_nan=False)
    is_object = isinstance(content, dict)
    if is_object:
        text = text.removesuffix("}").rstrip()
        comma = "," if content else ""
        text += f'{comma}\n  "{CHECKSUM}": "{xxhash.xxh3_64_hexdigest(text.encode())}"\n}}'
    with atomic_write(path, check=not is_object, durable=durable) as temporary:
        temporary.write_text(f"{text}\n", encoding="utf-8")


def read_json(path: Path | str) -> Any:
    """Read a JSON file, without its checksum; a file without a checksum is accepted.

    Raises
    ------
    Damaged
        Where it is no JSON, or its content is not what was written.
    """
    text = Path(path).read_bytes()
    tail = _TAIL.search(text)
    if tail and sum(one != other for one, other in zip(tail[1], CHECKSUM.encode(), strict=True)) > 1:
        tail = None  # another key that is as long
    if tail and (tail[1], tail[2]) != (CHECKSUM.encode(), xxhash.xxh3_64_hexdigest(text[: tail.start()]).encode()):
        raise Damaged(path, "its content is not what was written")
    try:
        content = json.loads(text)
    except ValueError as error:
        raise Damaged(path, f"no JSON: {error}" if text.strip() else "empty") from None
    if isinstance(content, dict) and content.pop(CHECKSUM, None) is not None and not tail:
        raise Damaged(path, "its content is not what was written")
    return content


def problem(path: Path, most_bytes: float = float("inf")) -> str | None:
    """What is wrong with a file that has a checksum of its own or a check file; None where no fault is found.

    most_bytes : as for `fault`.
    """
    if path.suffix != ".json" or check_file(path).is_file():
        return fault(path, most_bytes)
    try:
        read_json(path)
    except Damaged as error:
        return error.why
    except FileNotFoundError:
        return "missing"
    return None


def file_hash(path: Path | str) -> str:
    """xxh3-128 of a file's bytes, in hexadecimal: shows whether content changed, is no protection against forgery."""
    digest = xxhash.xxh3_128()
    with open(path, "rb") as handle:
        while block := handle.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()
