"""Tiles asked of a service: few at a time, again where that may help, in parts where one is too much; answers kept."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Annotated, Any

import pyarrow as pa
import requests
from pydantic import Field
from urllib3.exceptions import HTTPError

from zmill.catalog.footprint import Footprint
from zmill.config import Section
from zmill.labels.base import LabelsError, Request, SourceSettings
from zmill.labels.cache import Cache, Piece, parts
from zmill.labels.http import Session, TooSlow, Transient, Unreachable, transient
from zmill.labels.tiles import Tile, cover, wanted
from zmill.workflow.job import Progress, log

LONGEST_BACKOFF_S, LONGEST_WAIT_S = 300.0, 3600.0
"""Longest wait of our own accord, and where the service asks for it."""
PATIENCE = 6
"""After so many tiles without an answer, and none with one between them, the rest is not asked for."""
SLOWER = 2
"""A tile that takes too long is cut so many times."""
SMALLEST_ORDER = 12
"""A tile of this order (51 arcsec) that still holds too much is not cut."""
SHOWN = 5
"""Failed tiles that a message names."""


class Overflow(Exception):
    """More rows than the service gives in one answer."""


class Asking(Section):
    """How a service is asked: the keys that every service has in common."""

    max_age_days: Annotated[float, Field(gt=0, le=36_500)] | None = 30.0
    """Answers older than this are asked for again; null: never."""
    retries: Annotated[int, Field(ge=0, le=20)] = 5
    """How often a tile is asked for again that got no answer."""
    backoff_s: Annotated[float, Field(ge=0, le=300)] = 2.0
    """Wait before the first retry; twice as long before each further one."""
    timeout_s: Annotated[float, Field(gt=0, le=7200)] = 660.0
    """Longest time that a whole answer may take, from the question to its last byte."""
    interval_s: Annotated[float, Field(ge=0, le=600)] = 1.0
    """Shortest time between two questions."""


class ServiceSettings(SourceSettings, Asking):
    """The keys of every source that is asked over the network."""


@dataclass
class Failure:
    """A tile that got no answer, and why."""

    tile: Tile
    why: Transient


@dataclass
class Service:
    """A service as it is asked in one run.

    Attributes
    ----------
    name : the label source's name, for messages.
    ask : takes a tile, gives its rows and facts for the cache; raises `Overflow`, `Transient` or `LabelsError`.
    session : the session that `ask` uses.
    jobs : questions that are asked at the same time.
    ra, dec : columns of the position in the rows.
    """

    name: str
    asking: Asking
    ask: Callable[[Tile], tuple[pa.Table, dict[str, Any]]]
    session: Session
    jobs: int
    ra: str
    dec: str
    _gone: threading.Event = field(default_factory=threading.Event)
    _pace: threading.Lock = field(default_factory=threading.Lock)
    _next: float = 0.0
    _slow_order: int = SMALLEST_ORDER

    def tables(self, request: Request, cache: Cache, coarsest: int, finest: int) -> Iterator[pa.Table]:
        """The rows of the footprint's tiles, tile by tile; nothing of a tile is yielded twice.

        Raises
        ------
        LabelsError
            Where tiles got no answer, with the reasons; the answers of the others are kept.
        """
        area = wanted(request.footprint)
        yield from self.of_tiles(cover(area, coarsest, finest), area, request, cache)

    def of_tiles(self, tiles: list[Tile], area: Footprint, request: Request, cache: Cache) -> Iterator[pa.Table]:
        """The rows of these tiles; parts of them without a share in the area are not asked for."""
        planned = [cache.plan(tile, area) for tile in tiles]
        pieces = [piece for known, _ in planned for piece in known]
        ask = [tile for _, unknown in planned for tile in unknown]
        log.info("%s: %d tiles are cached, %d are asked for", self.name, len(pieces), len(ask))
        answered, failures = self._fetch(ask, area, cache)
        pieces += [Piece(tile, tile) for tile in answered]
        pieces += self._fall_back(failures, pieces, request, cache)
        if pieces:
            request.answers.append((min(cache.asked(piece.asked) for piece in pieces), self.asking.max_age_days))
        rows = 0
        for piece in sorted(pieces, key=lambda piece: piece.wanted.interval()):
            table = cache.read(piece, self.ra, self.dec)
            rows += table.num_rows
            if table.num_rows:
                yield table
        if not rows:
            request.say(f"{self.name}: the service has no row in any of the {len(pieces)} tiles of the footprint")

    def _fetch(self, ask: list[Tile], area: Footprint, cache: Cache) -> tuple[list[Tile], list[Failure]]:
        answered: list[Tile] = []
        failures: list[Failure] = []
        progress = Progress(f"{self.name}: answers")
        refused: Exception | None = None
        left = list(reversed(ask))
        in_a_row = 0
        self._slow_order = max((tile.order for tile in ask), default=0) + SLOWER
        with ThreadPoolExecutor(self.jobs) as pool:
            running: dict[Future[Any], Tile] = {}
            while running or (left and refused is None):
                while left and len(running) < self.jobs and refused is None:
                    tile = left.pop()
                    running[pool.submit(self._patiently, tile)] = tile
                for done in wait(running, return_when=FIRST_COMPLETED).done:
                    tile = running.pop(done)
                    try:
                        table, facts = done.result()
                    except Overflow as error:
                        log.info("%s: %s: %s; asked for in parts", self.name, tile, error)
                        left += reversed(parts(tile, area))
                    except Transient as error:
                        failures.append(Failure(tile, error))
                        log.warning("%s: %s: %s", self.name, tile, error)
                        in_a_row += 1
                        lost = isinstance(error, Unreachable) and not self.session.answered
                        if lost or in_a_row >= PATIENCE:
                            self._gone.set()
                    except Exception as error:
                        refused = error
                        self._gone.set()
                    else:
                        in_a_row = 0
                        cache.write(tile, table, facts)
                        answered.append(tile)
                        progress.add(table.num_rows)
        if refused is not None:
            raise refused
        if ask:
            progress.end()
        return answered, failures

    def _patiently(self, tile: Tile) -> tuple[pa.Table, dict[str, Any]]:
        """Ask until there is an answer, it is too much, or patience ends."""
        attempt = 0
        while True:
            if self._gone.is_set():
                raise Transient("not asked, since the service does not answer")
            self._in_turn()
            try:
                return self._once(tile)
            except Overflow:
                if tile.order >= SMALLEST_ORDER:
                    raise Transient("more rows than the service gives, in the smallest tile") from None
                raise
            except Transient as error:
                if isinstance(error, TooSlow) and attempt >= 1:
                    # Asked a third time it would take as long again: less sky may be quicker, to a limit.
                    if tile.order < min(self._slow_order, SMALLEST_ORDER):
                        raise Overflow(str(error)) from error
                    raise
                if attempt >= self.asking.retries or not error.again or self._gone.is_set():
                    raise
                pause = max(
                    min(self.asking.backoff_s * 2**attempt, LONGEST_BACKOFF_S), min(error.wait_s, LONGEST_WAIT_S)
                )
                log.info("%s: %s: %s; asked again in %.3g s", self.name, tile, error, pause)
                self._gone.wait(pause)
                attempt += 1

    def _once(self, tile: Tile) -> tuple[pa.Table, dict[str, Any]]:
        try:
            return self.ask(tile)
        except (requests.RequestException, HTTPError) as error:
            raise transient(error) from error

    def _in_turn(self) -> None:
        """Wait until the next question may be asked."""
        with self._pace:
            now = time.monotonic()
            self._next = max(self._next, now) + self.asking.interval_s
            pause = self._next - self.asking.interval_s - now
        time.sleep(pause)

    def _fall_back(self, failures: list[Failure], pieces: list[Piece], request: Request, cache: Cache) -> list[Piece]:
        """Older answers of tiles that got none; without a network, what is cached has to do."""
        found = [(failure, cache.older(failure.tile)) for failure in failures]
        used = [piece for _, piece in found if piece is not None]
        missing = [failure for failure, piece in found if piece is None]
        if used:
            first = min(cache.asked(piece.asked) for piece in used)
            request.say(
                f"{self.name}: {len(used)} tiles got no answer ({failures[0].why}): their cached answers are used, the oldest "
                f"of {first:%Y-%m-%d}"
            )
        if not missing:
            return used
        report = self._report(missing)
        if not self.session.answered and (pieces or used):
            request.say(
                f"{self.name}: the service cannot be reached; labels come from the {len(pieces) + len(used)} tiles that are "
                f"cached, and there are none of {report}"
            )
            return used
        raise LabelsError(
            f"labels: {self.name}: no answer for {report}. The answers of {len(pieces) + len(used)} other tiles are kept in "
            f"{cache.folder}: run again, and only the missing tiles are asked for"
        ) from missing[0].why

    def _report(self, failures: list[Failure]) -> str:
        named = "; ".join(f"{failure.tile}: {failure.why}" for failure in failures[:SHOWN])
        more = f"; and {len(failures) - SHOWN} more" if len(failures) > SHOWN else ""
        return f"{len(failures)} tile{'s' if len(failures) > 1 else ''}: {named}{more}"
