"""What an import has to do again: the partitions that other rows fall into than last time, and the pieces that hold them.

The state of the last import is kept until the next one: which pieces there were, the partitions and the repeated
identifiers. Before anything is written, what will be written is noted as unfinished, so that after an interruption it
is done again, whatever the files have become by then.
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

    settings : of what everything depends on; with others, nothing of this holds.
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
    """The last import's state; an empty one where there was none, or one with other settings."""
    path = folder / STATE
    try:
        said: dict[str, Any] = read_json(path) if path.is_file() else {}
    except Damaged as error:
        log.warning("%s; the whole survey is imported again", error)
        said = {}
    if said.get("settings") != settings:
        return Before()
    return Before(
        settings=settings,
        pieces=said["pieces"],
        owners=dict(said["owners"]),
        partitions={Partition(order, pixel): told for order, pixel, told in said["partitions"]},
        shards={int(number): [Partition(*one) for one in kept] for number, kept in said["shards"].items()},
        unfinished_pieces=frozenset(said["unfinished_pieces"]),
        unfinished=frozenset(Partition(*one) for one in said["unfinished"]),
    )


def write(folder: Path, state: Before) -> None:
    """Keep a state."""
    write_json(
        folder / STATE,
        {
            "settings": state.settings,
            "pieces": state.pieces,
            "owners": list(state.owners.items()),
            "partitions": [[one.order, one.pixel, told] for one, told in state.partitions.items()],
            "shards": {str(n): [[one.order, one.pixel] for one in kept] for n, kept in state.shards.items()},
            "unfinished_pieces": sorted(state.unfinished_pieces),
            "unfinished": [[one.order, one.pixel] for one in sorted(state.unfinished)],
        },
    )


def keys(found: Sequence[Piece], first_rows: Sequence[int], named: bool) -> dict[str, str]:
    """What tells whether a piece's rows are as they were -> its identity: the number of its first row counts where rows
    have no identifier but their number."""
    return {
        piece.identity if named else f"{piece.identity}@{first}": piece.identity
        for piece, first in zip(found, first_rows, strict=False)
    }


@dataclass(frozen=True)
class Todo:
    """What is to be written: partitions; pieces that are converted for it, of which `changed` are not as they were."""

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
    """Compare with the last import.

    Parameters
    ----------
    now : `keys` of the pieces.
    chosen : the partitions that there are to be, in the order of the sky.
    """
    changed = {key for key in now if key not in before.pieces} | (before.unfinished_pieces & set(now))
    gone = [identity for key, identity in before.pieces.items() if key not in now]
    changed |= _other_owners(found, now, owners, before, work)
    of = {identity: key for key, identity in now.items()}
    pixels = {piece.identity: _pixels(work, piece.identity) for piece in found}
    touched = [pixels[now[key]] for key in changed] + [_pixels(work, identity) for identity in gone]
    edges = np.array([one.interval() for one in chosen], np.int64)
    hit = {chosen[number] for number in _numbers(touched, edges, work.order)}
    redo = {one for one in chosen if one in hit or not _stands(one, before, catalog)}
    numbers = {number for number, one in enumerate(chosen) if one in redo}
    needed = [
        piece
        for piece in found
        if of[piece.identity] in changed
        or not work.is_converted(piece)
        or not numbers.isdisjoint(_numbers([pixels[piece.identity]], edges, work.order))
    ]
    return Todo(redo, needed, frozenset(changed))


def _stands(partition: Partition, before: Before, catalog: Path) -> bool:
    """Whether a partition is there as the last import left it."""
    told = before.partitions.get(partition)
    if told is None or partition in before.unfinished:
        return False
    return hats.is_complete(catalog, partition) and bool(hats.sidecar(catalog, partition)["xxh3_128"] == told)


def _other_owners(found: Sequence[Piece], now: dict[str, str], owners: Owners, before: Before, work: Work) -> set[str]:
    """Keys of pieces with an identifier that was repeated, or is, and is kept from another place than before."""
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
    """Numbers of the partitions, of which `edges` are the first index and the one behind the last, that pixels lie in."""
    found: set[int] = set()
    for some in pixels:
        index = some << 2 * (HEALPIX_ORDER - order)
        number = np.searchsorted(edges[:, 0], index, side="right") - 1
        inside = (number >= 0) & (index < edges[number, 1])
        found.update(np.unique(number[inside]).tolist())
    return found


def sync(work: Work, done: Iterable[Piece]) -> None:
    """Bring what is kept of pieces to the disk, all of it at a time: there may be thousands of small files."""
    names = {piece.identity for piece in done}
    files.sync(path for path in work.kept.iterdir() if _identity(path) in names)


def forget(work: Work, found: Sequence[Piece]) -> None:
    """Remove what is kept of pieces that are no more."""
    there = {piece.identity for piece in found}
    for path in work.kept.iterdir():
        if path.name not in (STATE, TYPES) and _identity(path) not in there:
            path.unlink()


def _identity(path: Path) -> str:
    """The piece that a file is of, or its check file."""
    return path.name.lstrip(".").split(".")[0]
