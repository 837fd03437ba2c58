"""Incremental import: the partitions whose rows changed since the last import, and the pieces that contain their rows.

The state of the last import is kept until the next one: its pieces, partitions and repeated
identifiers. Before partitions are written, they are recorded as unfinished, so that they are written again
after an interruption, even if the files change meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from zmill.catalog import files, hats
from zmill.catalog.files import Damaged, read_json, write_json
from zmill.catalog.hats import Partition
from zmill.catalog.shards import Shards
from zmill.catalog.sky import HEALPIX_ORDER
from zmill.survey import duplicates
from zmill.survey.pieces import Piece, Work
from zmill.workflow.job import log

STATE = "state.json"
TYPES = "types.json"
Owners = dict[int | str, str]
"""Repeated identifier -> identity of the piece that keeps it."""


@dataclass(frozen=True)
class Before:
    """The state of the last import.

    settings : hash of the import's settings; the state is invalid for other settings.
    pieces : key -> identity. owners : see `Owners`. shards : the plan.
    partitions : content hash of each. unfinished : keys of pieces and partitions that were being written.
    """

    settings: str = ""
    pieces: dict[str, str] = field(default_factory=dict)
    owners: Owners = field(default_factory=dict)
    partitions: dict[Partition, str] = field(default_factory=dict)
    shards: Shards = field(default_factory=dict)
    unfinished_pieces: frozenset[str] = frozenset()
    unfinished: frozenset[Partition] = frozenset()


def read(folder: Path, settings: str) -> Before:
    """The last import's state; an empty one where there is none, or where its settings differ."""
    path = folder / STATE
    try:
        state: dict[str, Any] = read_json(path) if path.is_file() else {}
    except Damaged as error:
        log.warning("%s; the complete survey is imported again", error)
        state = {}
    if state.get("settings") != settings:
        return Before()
    return Before(
        settings=settings,
        pieces=state["pieces"],
        owners=dict(state["owners"]),
        partitions={Partition(order, pixel): digest for order, pixel, digest in state["partitions"]},
        shards={int(number): [Partition(*one) for one in kept] for number, kept in state["shards"].items()},
        unfinished_pieces=frozenset(state["unfinished_pieces"]),
        unfinished=frozenset(Partition(*one) for one in state["unfinished"]),
    )


def write(folder: Path, state: Before) -> None:
    """Write a state."""
    write_json(
        folder / STATE,
        {
            "settings": state.settings,
            "pieces": state.pieces,
            "owners": list(state.owners.items()),
            "partitions": [[one.order, one.pixel, digest] for one, digest in state.partitions.items()],
            "shards": {str(n): [[one.order, one.pixel] for one in kept] for n, kept in state.shards.items()},
            "unfinished_pieces": sorted(state.unfinished_pieces),
            "unfinished": [[one.order, one.pixel] for one in sorted(state.unfinished)],
        },
    )


def keys(found: Sequence[Piece], first_rows: Sequence[int], named: bool) -> dict[str, str]:
    """Key of each piece -> its identity. The key changes when the piece's rows change; it includes the number of the first row
    where the row number is the identifier."""
    return {
        piece.identity if named else f"{piece.identity}@{first}": piece.identity
        for piece, first in zip(found, first_rows, strict=False)
    }


@dataclass(frozen=True)
class Todo:
    """The partitions to write, the pieces to convert for them, and the keys of the changed pieces."""

    partitions: set[Partition]
    pieces: list[Piece]
    changed: frozenset[str]


def todo(
    found: Sequence[Piece],
    now: dict[str, str],
    owners: Owners,
    before: Before,
    work: Work,
    chosen: Sequence[Partition],
    catalog: Path,
) -> Todo:
    """The partitions and pieces to write, from a comparison with the last import.

    Parameters
    ----------
    now : `keys` of the pieces.
    chosen : the partitions of the new catalogue, in the order of the sky.
    """
    changed = {key for key in now if key not in before.pieces} | (before.unfinished_pieces & set(now))
    gone = [identity for key, identity in before.pieces.items() if key not in now]
    changed |= _other_owners(found, now, owners, before, work)
    of = {identity: key for key, identity in now.items()}
    pixels = {piece.identity: _pixels(work, piece.identity) for piece in found}
    touched = [pixels[now[key]] for key in changed] + [_pixels(work, identity) for identity in gone]
    edges = np.array([one.interval() for one in chosen], np.int64)
    hit = {chosen[number] for number in _numbers(touched, edges, work.order)}
    redo = {one for one in chosen if one in hit or not _is_unchanged(one, before, catalog)}
    numbers = {number for number, one in enumerate(chosen) if one in redo}
    needed = [
        piece
        for piece in found
        if of[piece.identity] in changed
        or not work.is_converted(piece)
        or not numbers.isdisjoint(_numbers([pixels[piece.identity]], edges, work.order))
    ]
    return Todo(redo, needed, frozenset(changed))


def _is_unchanged(partition: Partition, before: Before, catalog: Path) -> bool:
    """Whether a partition is unchanged since the last import."""
    recorded_hash = before.partitions.get(partition)
    if recorded_hash is None or partition in before.unfinished:
        return False
    return hats.is_complete(catalog, partition) and bool(hats.sidecar(catalog, partition)["xxh3_128"] == recorded_hash)


def _other_owners(found: Sequence[Piece], now: dict[str, str], owners: Owners, before: Before, work: Work) -> set[str]:
    """Keys of pieces with a repeated identifier whose kept occurrence is now in another piece."""
    differ = {value for value in owners.keys() | before.owners.keys() if owners.get(value) != before.owners.get(value)}
    if not differ:
        return set()
    hashes = np.unique(np.concatenate([duplicates.hashes(pa.array([value])) for value in differ]))
    of = {identity: key for key, identity in now.items()}
    return {of[piece.identity] for piece in found if duplicates.contains_any(work.hashes(piece), hashes)}


def _pixels(work: Work, identity: str) -> NDArray[np.int64]:
    with np.load(work.kept / f"{identity}.counted.npz", allow_pickle=False) as counted:
        return np.asarray(counted["pixels"])


def _numbers(pixels: Iterable[NDArray[np.int64]], edges: NDArray[np.int64], order: int) -> set[int]:
    """Numbers of the partitions that contain the pixels; `edges` are their first and end indices."""
    found: set[int] = set()
    for some in pixels:
        index = some << 2 * (HEALPIX_ORDER - order)
        number = np.searchsorted(edges[:, 0], index, side="right") - 1
        inside = (number >= 0) & (index < edges[number, 1])
        found.update(np.unique(number[inside]).tolist())
    return found


def sync(work: Work, done: Iterable[Piece]) -> None:
    """Write the kept files of pieces to the disk (fsync), all at once, because there may be thousands of small files."""
    names = {piece.identity for piece in done}
    files.sync(path for path in work.kept.iterdir() if _identity(path) in names)


def forget(work: Work, found: Sequence[Piece]) -> None:
    """Remove the kept files of pieces that no longer exist."""
    there = {piece.identity for piece in found}
    for path in work.kept.iterdir():
        if path.name not in (STATE, TYPES) and _identity(path) not in there:
            path.unlink()


def _identity(path: Path) -> str:
    """Identity of the piece of a file or of its check file."""
    return path.name.lstrip(".").split(".")[0]
