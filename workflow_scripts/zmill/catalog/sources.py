"""Which input files of a stage changed since the stage read them, by content.

A stage keeps a manifest: for each file its size and modification time, the hash of its bytes, and a token. The token stays the same
while the content does. Bytes are read only where size or modification time differ from the manifest. A night without new
files therefore reads no content, and a file that was only touched or copied again changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import xxhash

from zmill.catalog.files import file_hash, read_json, write_json

Known = dict[str, dict[str, str]]
"""Path -> `token`, `stamp` (size and modification time) and `content` (hash; empty before a stage has read the file)."""


class SourceChanged(Exception):
    """A file was written to while a stage read it."""


def look(files: Iterable[Path | str], manifest: Path, note: bool = True) -> Known:
    """The present entries of the files, in their order; a folder counts with everything below it.

    A new file counts as a renamed one where the manifest has an entry of equal name and content whose file is no longer listed.

    Parameters
    ----------
    note : update the manifest where a file was only touched or renamed, so that its bytes are not read every night.
    """
    known, found = _known(manifest), Known()
    paths = list(map(str, files))
    elsewhere = {Path(path).name: entry for path, entry in known.items() if path not in paths and entry["content"]}
    for path in paths:
        stamp, before = _stamp(Path(path)), known.get(path, elsewhere.get(Path(path).name))
        if before is None:
            found[path] = {"token": stamp, "stamp": stamp, "content": ""}
        elif before["stamp"] == stamp and path in known:
            found[path] = before
        else:
            content = _content(Path(path))
            same = content == before["content"]
            found[path] = {"token": before["token"] if same else content, "stamp": stamp, "content": content}
    tokens = {entry["token"] for entry in known.values()}
    touched = {path: entry for path, entry in found.items() if entry["token"] in tokens}
    if note and any(known.get(path) != entry for path, entry in touched.items()):
        write_json(manifest, known | touched)
    return found


def digest(files: Iterable[Path | str], manifest: Path, folder: Path | str, note: bool = True) -> str:
    """A parameter of the stage's rule, which changes where a file was added, removed, or changed in content.

    Parameters
    ----------
    folder : `data_dir`; files below it count by their path from there, however the folder itself is named.
    note : as of `look`.
    """
    lines = "\n".join(f"{_name(path, folder)}\t{entry['token']}" for path, entry in look(files, manifest, note).items())
    return xxhash.xxh3_128_hexdigest(lines.encode())


def keep(found: Known, manifest: Path) -> None:
    """Write the manifest of files that a stage has read; files without a hash are hashed now.

    Raises
    ------
    SourceChanged
        Where a file changed since `look`.
    """
    entries = {path: entry | {"content": entry["content"] or _content(Path(path))} for path, entry in found.items()}
    for path, entry in entries.items():
        if _stamp(Path(path)) != entry["stamp"]:
            raise SourceChanged(f"{path}: was written to while it was read; run again once it is complete")
    write_json(manifest, entries)


def _known(manifest: Path) -> Known:
    """The entries of a manifest; none where it is absent or damaged: the stage then reads all files again."""
    try:
        entries = read_json(manifest)
    except (OSError, ValueError):
        return {}
    complete = isinstance(entries, dict) and all(
        isinstance(entry, dict) and {"token", "stamp", "content"} <= entry.keys() for entry in entries.values()
    )
    return entries if complete else {}


def _name(path: str, folder: Path | str) -> str:
    """A path from `folder` on where it is below it."""
    return str(Path(path).relative_to(folder)) if Path(path).is_relative_to(folder) else path


def _files(path: Path) -> list[Path]:
    return sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]


def _stamp(path: Path) -> str:
    if not path.exists():
        return "absent"
    stamps = []
    for file in _files(path):
        there = file.stat()
        stamps.append(f"{file.relative_to(path)}:{there.st_size}:{there.st_mtime_ns}")
    return stamps[0] if not path.is_dir() else xxhash.xxh3_128_hexdigest("\n".join(stamps).encode())


def _content(path: Path) -> str:
    if not path.exists():
        return "absent"
    if not path.is_dir():
        return file_hash(path)
    lines = "\n".join(f"{file.relative_to(path)}:{file_hash(file)}" for file in _files(path))
    return xxhash.xxh3_128_hexdigest(lines.encode())
