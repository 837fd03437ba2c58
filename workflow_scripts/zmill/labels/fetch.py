"""Requests for tiles to a service: few in parallel, with retries, in parts where a tile is too large; answers are cached."""

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
"""Longest wait before a retry, and where the service requires a wait."""
MOST_FAILURES = 6
"""After this many consecutive tiles without an answer, the remaining tiles are not requested."""
SLOWER = 2
"""How often a tile that takes too long is split."""
SMALLEST_ORDER = 12
"""Order of the smallest tile (51 arcsec), which is not split."""
SHOWN = 5
"""Failed tiles that a message names."""


class Overflow(Exception):
    """The tile has more rows than the service returns in one answer."""


class RequestSettings(Section):
    """Settings of requests that all services share."""

    max_age_days: Annotated[float, Field(gt=0, le=36_500)] | None = 30.0
    """Answers older than this are requested again; null: never."""
    retries: Annotated[int, Field(ge=0, le=20)] = 5
    """Number of retries for a tile without an answer."""
    backoff_s: Annotated[float, Field(ge=0, le=300)] = 2.0
    """Wait before the first retry; twice as long before each further one."""
    timeout_s: Annotated[float, Field(gt=0, le=7200)] = 660.0
    """Longest time of an answer, from the request to its last byte."""
    interval_s: Annotated[float, Field(ge=0, le=600)] = 1.0
    """Shortest time between two requests."""


class ServiceSettings(SourceSettings, RequestSettings):
    """The keys of every source that is queried over the network."""


@dataclass
class Failure:
    """A tile that got no answer, and why."""

    tile: Tile
    why: Transient


@dataclass
class Service:
    """The requests of one label source to its service in one run.

    Attributes
    ----------
    name : the label source's name, for messages.
    settings : limits of time and retries.
    query_tile : returns the rows of a tile and facts for the cache; raises `Overflow`, `Transient` or `LabelsError`.
    session : the session that `query_tile` uses.
    jobs : number of parallel requests.
    ra, dec : columns of the position in the rows.
    """

    name: str
    settings: RequestSettings
    query_tile: Callable[[Tile], tuple[pa.Table, dict[str, Any]]]
    session: Session
    jobs: int
    ra: str
    dec: str
    _stopped: threading.Event = field(default_factory=threading.Event)
    _pace: threading.Lock = field(default_factory=threading.Lock)
    _next: float = 0.0
    _slow_order: int = SMALLEST_ORDER

    def tables(self, request: Request, cache: Cache, coarsest: int, finest: int) -> Iterator[pa.Table]:
        """The rows of the footprint's tiles, tile by tile, each row once.

        Raises
        ------
        LabelsError
            Where tiles got no answer; the message has the reasons. The other answers stay in the cache.
        """
        area = wanted(request.footprint)
        yield from self.of_tiles(cover(area, coarsest, finest), area, request, cache)

    def of_tiles(self, tiles: list[Tile], area: Footprint, request: Request, cache: Cache) -> Iterator[pa.Table]:
        """The rows of these tiles; parts of them outside the area are not requested."""
        planned = [cache.plan(tile, area) for tile in tiles]
        pieces = [piece for known, _ in planned for piece in known]
        missing = [tile for _, unknown in planned for tile in unknown]
        log.info("%s: %d tiles are cached, %d are requested", self.name, len(pieces), len(missing))
        answered, failures = self._fetch(missing, area, cache)
        pieces += [Piece(tile, tile) for tile in answered]
        pieces += self._fall_back(failures, pieces, request, cache)
        if pieces:
            request.answers.append((min(cache.time(piece.requested) for piece in pieces), self.settings.max_age_days))
        rows = 0
        for piece in sorted(pieces, key=lambda piece: piece.wanted.interval()):
            table = cache.read(piece, self.ra, self.dec)
            rows += table.num_rows
            if table.num_rows:
                yield table
        if not rows:
            request.warn(f"{self.name}: the service has no row in any of the {len(pieces)} tiles of the footprint")

    def _fetch(self, missing: list[Tile], area: Footprint, cache: Cache) -> tuple[list[Tile], list[Failure]]:
        answered: list[Tile] = []
        failures: list[Failure] = []
        progress = Progress(f"{self.name}: answers")
        refused: Exception | None = None
        left = list(reversed(missing))
        in_a_row = 0
        self._slow_order = max((tile.order for tile in missing), default=0) + SLOWER
        with ThreadPoolExecutor(self.jobs) as pool:
            running: dict[Future[Any], Tile] = {}
            while running or (left and refused is None):
                while left and len(running) < self.jobs and refused is None:
                    tile = left.pop()
                    running[pool.submit(self._with_retries, tile)] = tile
                for done in wait(running, return_when=FIRST_COMPLETED).done:
                    tile = running.pop(done)
                    try:
                        table, facts = done.result()
                    except Overflow as error:
                        log.info("%s: %s: %s; requested in parts", self.name, tile, error)
                        left += reversed(parts(tile, area))
                    except Transient as error:
                        failures.append(Failure(tile, error))
                        log.warning("%s: %s: %s", self.name, tile, error)
                        in_a_row += 1
                        lost = isinstance(error, Unreachable) and not self.session.answered
                        if lost or in_a_row >= MOST_FAILURES:
                            self._stopped.set()
                    except Exception as error:
                        refused = error
                        self._stopped.set()
                    else:
                        in_a_row = 0
                        cache.write(tile, table, facts)
                        answered.append(tile)
                        progress.add(table.num_rows)
        if refused is not None:
            raise refused
        if missing:
            progress.end()
        return answered, failures

    def _with_retries(self, tile: Tile) -> tuple[pa.Table, dict[str, Any]]:
        """Request a tile, with retries, until there is an answer, an overflow, or no retry is left."""
        attempt = 0
        while True:
            if self._stopped.is_set():
                raise Transient("not requested, since the service does not answer")
            self._wait_for_turn()
            try:
                return self._once(tile)
            except Overflow:
                if tile.order >= SMALLEST_ORDER:
                    raise Transient("more rows than the service returns, in the smallest tile") from None
                raise
            except Transient as error:
                if isinstance(error, TooSlow) and attempt >= 1:
                    # A third request would take as long: a request for less sky may be faster, down to a limit.
                    if tile.order < min(self._slow_order, SMALLEST_ORDER):
                        raise Overflow(str(error)) from error
                    raise
                if attempt >= self.settings.retries or not error.retry or self._stopped.is_set():
                    raise
                pause = max(
                    min(self.settings.backoff_s * 2**attempt, LONGEST_BACKOFF_S), min(error.wait_s, LONGEST_WAIT_S)
                )
                log.info("%s: %s: %s; next try in %.3g s", self.name, tile, error, pause)
                self._stopped.wait(pause)
                attempt += 1

    def _once(self, tile: Tile) -> tuple[pa.Table, dict[str, Any]]:
        try:
            return self.query_tile(tile)
        except (requests.RequestException, HTTPError) as error:
            raise transient(error) from error

    def _wait_for_turn(self) -> None:
        """Wait until the next request is allowed."""
        with self._pace:
            now = time.monotonic()
            self._next = max(self._next, now) + self.settings.interval_s
            pause = self._next - self.settings.interval_s - now
        time.sleep(pause)

    def _fall_back(self, failures: list[Failure], pieces: list[Piece], request: Request, cache: Cache) -> list[Piece]:
        """Older cached answers for tiles without a new one; without a network, the cached tiles must suffice."""
        found = [(failure, cache.older(failure.tile)) for failure in failures]
        used = [piece for _, piece in found if piece is not None]
        missing = [failure for failure, piece in found if piece is None]
        if used:
            first = min(cache.time(piece.requested) for piece in used)
            request.warn(
                f"{self.name}: {len(used)} tiles got no answer ({failures[0].why}): their cached answers are used, the oldest "
                f"of {first:%Y-%m-%d}"
            )
        if not missing:
            return used
        report = self._report(missing)
        if not self.session.answered and (pieces or used):
            request.warn(
                f"{self.name}: the service cannot be reached; labels come from the {len(pieces) + len(used)} tiles that are "
                f"cached, and there are none of {report}"
            )
            return used
        raise LabelsError(
            f"labels: {self.name}: no answer for {report}. The answers of {len(pieces) + len(used)} other tiles are kept in "
            f"{cache.folder}: run again, and only the missing tiles are requested"
        ) from missing[0].why

    def _report(self, failures: list[Failure]) -> str:
        named = "; ".join(f"{failure.tile}: {failure.why}" for failure in failures[:SHOWN])
        more = f"; and {len(failures) - SHOWN} more" if len(failures) > SHOWN else ""
        return f"{len(failures)} tile{'s' if len(failures) > 1 else ''}: {named}{more}"
