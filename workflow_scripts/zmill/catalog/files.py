"""The one atomic write, checksums by which a damaged file is recognized, and hashes of content.

A JSON file ends with a checksum of its own text (`write_json`). Any other file has a check file beside it, `.NAME.xxh3`, which `whole`
writes; partitions of catalogues have their sidecar. `zmill.mend` holds all of them against the files when a run starts.
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
"""Of the name of a check file."""
CHECKSUM = "file_xxh3"
"""Last key of a JSON file: the hash of all the text before it."""
_TAIL = re.compile(rb',?\n  "(.{%d})": "(.{16})"\n}\n\Z' % len(CHECKSUM), re.DOTALL)
SYNCS = 16
"""Files that `sync` brings to the disk at a time: they then share what the disk does for each."""
MEND = "run snakemake --cores 2 mend, then run again"


class Damaged(ValueError):
    """A file that is not what was written; the message names it and the command that mends it."""

    def __init__(self, path: Path | str, why: str) -> None:
        super().__init__(f"{path}: damaged ({why}): {MEND}")
        self.why = why


class ReadError(Exception):
    """A file that cannot be read as the table it should be."""


@contextmanager
def whole(path: Path | str, check: bool = True, durable: bool = True) -> Iterator[Path]:
    """A temporary name beside `path` that takes its place when the block ends well, and is removed when it does not.

    Parameters
    ----------
    check : whether a check file is written; not for files whose hash is kept elsewhere.
    durable : whether content and name are on the disk when the block ends, so that a file of this name is whole even
        after a power loss. Without it, a damaged file is recognized all the same; see `sync`.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = beside(path)
    try:
        yield temporary
        put_in_place(temporary, path, check, durable)
    finally:
        temporary.unlink(missing_ok=True)


def put_in_place(written: Path, path: Path, check: bool = True, durable: bool = True) -> None:
    """Give a file that is finished its name, as `whole` does; for files that one job begins and another one ends."""
    if check:
        _write_check(path, written)
    if durable:
        _to_disk(written, os.O_RDONLY)
    os.replace(written, path)
    if durable:
        sync_folder(path.parent)


def beside(path: Path) -> Path:
    """The name of this process for a file that is to be `path`; no other process has it, on whatever machine."""
    return path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.tmp")


def sync(paths: Iterable[Path]) -> None:
    """Bring files that were written with `durable=False` to the disk, and their names."""
    files = list(paths)
    with ThreadPoolExecutor(SYNCS) as pool:
        list(pool.map(lambda path: _to_disk(path, os.O_RDONLY), files))
    for folder in {path.parent for path in files}:
        sync_folder(folder)


def sync_folder(path: Path) -> None:
    """Bring a folder's list of names to the disk, so that it survives a power loss."""
    _to_disk(path, os.O_RDONLY | os.O_DIRECTORY)


def _to_disk(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# -------------------------------------------------------------------------------------------------- check files


def check_file(path: Path) -> Path:
    """Where the hash of a file is kept that cannot hold its own."""
    return path.with_name(f".{path.name}{SUFFIX}")


def _write_check(path: Path, temporary: Path) -> None:
    """Write what `path` will be once `temporary` has its name, and what it is until then: a killed job leaves one of the two."""
    check = check_file(path)
    before = _checks(check)[:1] if path.is_file() else []
    with whole(check, check=False, durable=False) as file:
        file.write_text("".join(f"{line}\n" for line in [_told(temporary), *before]), encoding="ascii")


def _told(path: Path) -> str:
    return f"{path.stat().st_size} {file_hash(path)}"


def _checks(check: Path) -> list[str]:
    return check.read_bytes().decode("ascii", "replace").splitlines() if check.is_file() else []


def fault(path: Path, most_bytes: float = float("inf")) -> str | None:
    """What is wrong with a file that has a check file; None where nothing is, or there is no check file.

    Parameters
    ----------
    most_bytes : of larger files, only the size is held against the check file.
    """
    checks = _checks(check_file(path))
    if not checks:
        return None
    if not path.is_file():
        return "missing"
    size = path.stat().st_size
    if size not in {int(line.split()[0]) for line in checks if re.fullmatch(r"\d+ [0-9a-f]{32}", line)}:
        return f"{size} bytes, not as many as were written"
    if size <= most_bytes and _told(path) not in checks:
        return "its content is not what was written"
    return None


# --------------------------------------------------------------------------------------------------------- JSON


def write_json(path: Path | str, content: Any, sort_keys: bool = True, durable: bool = True) -> None:
    """Write `content` as indented JSON; NaN is refused. An object ends with its own checksum; what is none has a check file."""
    text = json.dumps(content, indent=2, sort_keys=sort_keys, allow_nan=False)
    is_object = isinstance(content, dict)
    if is_object:
        text = text.removesuffix("}").rstrip()
        comma = "," if content else ""
        text += f'{comma}\n  "{CHECKSUM}": "{xxhash.xxh3_64_hexdigest(text.encode())}"\n}}'
    with whole(path, check=not is_object, durable=durable) as temporary:
        temporary.write_text(f"{text}\n", encoding="utf-8")


def read_json(path: Path | str) -> Any:
    """Read a JSON file, without its checksum; one that has none is taken as it is.

    Raises
    ------
    Damaged
        Where it is no JSON, or not what was written.
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
    """What is wrong with a file that has a checksum of its own or a check file; None where nothing is known to be.

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
    """xxh3-128 of a file's bytes, in hexadecimal: tells whether content changed, is no protection against forgery."""
    digest = xxhash.xxh3_128()
    with open(path, "rb") as handle:
        while block := handle.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()
