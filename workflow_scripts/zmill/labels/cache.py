"""A cache on disk of a service's answers, one file per tile, each with its query, its time and the server's description."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from zmill.catalog.files import atomic_write, write_json
from zmill.catalog.footprint import Footprint
from zmill.labels.tiles import Tile
from zmill.redact import redact

FACTS = b"zmill.answer"
"""Key of the schema's metadata that holds an answer's facts."""


@dataclass(frozen=True)
class Piece:
    """A part of a cached answer: the tile that was requested, and the tile whose rows are taken from it."""

    requested: Tile
    wanted: Tile


class Cache:
    """The answers to one query.

    Parameters
    ----------
    folder : the cache folder of all services.
    question : all parameters of the query except the tile; each question has its own folder.
    max_age_days : older answers are requested again; None: never.
    fingerprint : hash of the listed positions in a tile, for queries about a list of positions; answers with another
        fingerprint are not used.
    """

    def __init__(
        self,
        folder: Path,
        question: dict[str, Any],
        max_age_days: float | None,
        fingerprint: Callable[[Tile], str] | None = None,
    ) -> None:
        text = json.dumps(question, sort_keys=True)
        self.folder = folder / f"{question['source']}-{xxhash.xxh3_64_hexdigest(text.encode())}"
        self.fingerprint = fingerprint
        self._oldest = None if max_age_days is None else datetime.now(UTC) - timedelta(days=max_age_days)
        self._times: dict[Tile, datetime] = {}
        for path in sorted(self.folder.glob("Norder=*/Npix=*.parquet")):
            tile = Tile(int(path.parent.name.partition("=")[2]), int(path.stem.partition("=")[2]))
            facts = facts_of(path)
            # An answer without a time, from an older version of zmill, is requested again.
            if "received" in facts and (fingerprint is None or facts["fingerprint"] == fingerprint(tile)):
                self._times[tile] = datetime.fromisoformat(facts["received"])
        self._split = {above for tile in self._times for above in tile.ancestors()}
        self._question = question

    def plan(self, tile: Tile, area: Footprint) -> tuple[list[Piece], list[Tile]]:
        """The cached pieces of a tile, and the tiles that must be requested.

        A tile that was requested in parts, because it overflowed or because the footprint was smaller, stays in parts.
        """
        if self._fresh(tile):
            return [Piece(tile, tile)], []
        if self.fingerprint is None:
            for above in tile.ancestors():
                if self._fresh(above):
                    return [Piece(above, tile)], []
        if tile not in self._split:
            return [], [tile]
        pieces: list[Piece] = []
        missing: list[Tile] = []
        for child in parts(tile, area):
            known, unknown = self.plan(child, area)
            pieces += known
            missing += unknown
        return pieces, missing

    def older(self, tile: Tile) -> Piece | None:
        """A cached answer of any age that contains the tile; None where there is none."""
        holding = [tile, *tile.ancestors()] if self.fingerprint is None else [tile]
        return next((Piece(one, tile) for one in holding if one in self._times), None)

    def time(self, tile: Tile) -> datetime:
        """The time when the answer of a tile was received."""
        return self._times[tile]

    def read(self, piece: Piece, ra: str, dec: str) -> pa.Table:
        """The rows of the wanted tile; `ra` and `dec` name the columns of the position."""
        table = pq.read_table(self._path(piece.requested))
        if piece.requested == piece.wanted:
            return table
        return table.filter(pa.array(piece.wanted.holds(table[ra].to_numpy(), table[dec].to_numpy())))

    def write(self, tile: Tile, table: pa.Table, facts: dict[str, Any]) -> None:
        """Store an answer with its facts."""
        now = datetime.now(UTC)
        every = {
            **{name: redact(value) if isinstance(value, str) else value for name, value in facts.items()},
            "received": now.isoformat(),
            "rows": table.num_rows,
            "fingerprint": self.fingerprint(tile) if self.fingerprint else "",
        }
        if not self._times:
            write_json(self.folder / "question.json", self._question)
        with atomic_write(self._path(tile)) as temporary:
            kept = table.replace_schema_metadata({FACTS: json.dumps(every).encode()})
            pq.write_table(kept, temporary, compression="zstd")
        self._times[tile] = now

    def _fresh(self, tile: Tile) -> bool:
        return tile in self._times and (self._oldest is None or self._times[tile] >= self._oldest)

    def _path(self, tile: Tile) -> Path:
        return self.folder / f"Norder={tile.order}" / f"Npix={tile.pixel}.parquet"


def parts(tile: Tile, area: Footprint) -> list[Tile]:
    """The quarters of a tile that share sky with an area."""
    edges = np.array([child.interval() for child in tile.children()], np.int64)
    return [child for child, in_area in zip(tile.children(), area.overlaps(*edges.T), strict=True) if in_area]


def facts_of(path: Path) -> dict[str, Any]:
    """The facts of an answer's file: query, time, rows, service."""
    facts: dict[str, Any] = json.loads(pq.read_schema(path).metadata[FACTS])
    return facts
