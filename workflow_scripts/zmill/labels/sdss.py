"""Spectroscopic redshifts of SDSS, from SQL queries to SkyServer for tiles of the survey's footprint."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import requests
from pydantic import Field

from zmill.labels.arrow import arrow, empty, refuse_missing
from zmill.labels.base import LabelsError, Request
from zmill.labels.cache import Cache
from zmill.labels.fetch import Overflow, Service, ServiceSettings
from zmill.labels.http import Session, TooSlow, Transient
from zmill.labels.quality import SCHEMES
from zmill.labels.rows import rows
from zmill.labels.tiles import Tile
from zmill.redact import expand
from zmill.sections import Url

COLUMNS = {
    "id": "specObjID",
    "ra": "ra",
    "dec": "dec",
    "redshift": "z",
    "redshift_err": "zErr",
    "flag": "zWarning",
    "kind": "class",
    "primary": "sciencePrimary",
}
"""Keys of zmill -> columns of `SpecObjAll`."""
TOTAL = "total_rows"
"""Last column of every row: the total number of rows, so that a truncated answer is recognized."""
SCHEMA = pa.schema(
    [
        (name, pa.string() if key in ("id", "kind") else pa.int64() if key in ("flag", "primary") else pa.float64())
        for key, name in COLUMNS.items()
    ]
)
COARSEST, FINEST = 5, 8
"""HEALPix orders of the first tiles: 1.8 degrees to 14 arcmin wide; tiles that overflow are split further."""


class Settings(ServiceSettings):
    """An entry of `labels:` with `source: sdss`."""

    url: Url = "https://skyserver.sdss.org"
    """SkyServer, or a mirror of it."""
    data_release: Annotated[int, Field(ge=12, le=99)] = 17
    """SDSS data release."""
    jobs: Annotated[int, Field(ge=1, le=4)] = 2
    """Number of parallel requests."""


def entries(settings: Settings, request: Request) -> Iterator[pa.Table]:
    """All spectra of the footprint's tiles, of every class and quality, with their judged quality.

    Raises
    ------
    LabelsError
        Where tiles got no answer, or the service lacks columns.
    """
    from astroquery import cache_conf
    from astroquery.sdss import SDSSClass, conf

    session = Session(settings.timeout_s)
    session.hooks["response"].insert(0, look)
    client = SDSSClass()
    client._session = session
    where = f"labels: {settings.name}"

    def query_tile(tile: Tile) -> tuple[pa.Table, dict[str, Any]]:
        query = sql(tile)
        try:
            answer = client.query_sql(
                query, timeout=settings.timeout_s, data_release=settings.data_release, cache=False
            )
        except LabelsError as error:
            raise LabelsError(f"{where}: {error}") from None
        except (ValueError, IndexError, TypeError) as error:
            raise Transient(f"an answer that is no table ({error})") from error
        table = empty(SCHEMA) if answer is None else complete_table(answer)
        kept = table.filter(pa.array(tile.holds(table["ra"].to_numpy(), table["dec"].to_numpy())))
        return kept, {"query": query, "url": settings.url, "service": f"DR{settings.data_release} {session.server}"}

    question = {"source": "sdss", "url": settings.url, "release": settings.data_release, "columns": SCHEMA.names}
    cache = Cache(request.cache, question, settings.max_age_days)
    service = Service(settings.name, settings, query_tile, session, settings.jobs, "ra", "dec")
    with (
        conf.set_temp("skyserver_baseurl", expand(settings.url).rstrip("/")),
        cache_conf.set_temp("cache_active", False),
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("ignore", message="OverflowError converting to IntType")  # the client corrects it
        for table in service.tables(request, cache, COARSEST, FINEST):
            yield rows({key: table[name].to_numpy() for key, name in COLUMNS.items()}, SCHEMES["sdss"])


def sql(tile: Tile) -> str:
    """The query for a tile's box."""
    ranges, (south, north) = tile.box()
    east_west = " OR ".join(f"s.ra BETWEEN {west:.8f} AND {east:.8f}" for west, east in ranges)
    columns = ", ".join(f"s.{name}" for name in COLUMNS.values())
    return (
        f"SELECT {columns}, COUNT(*) OVER() AS {TOTAL} FROM SpecObjAll AS s "
        f"WHERE s.dec BETWEEN {south:.8f} AND {north:.8f} AND ({east_west})"
    )


def complete_table(answer: Any) -> pa.Table:
    """The answer as a table, if it has as many rows as its column `TOTAL` states.

    Raises
    ------
    Overflow, Transient
        Where it has fewer rows, or where the column `TOTAL` is invalid.
    """
    total = answer[TOTAL]
    if np.ma.is_masked(total) or total.dtype.kind not in "iu" or len(np.unique(total)) != 1:
        raise Transient("a truncated answer")
    if int(total[0]) > len(answer):
        raise Overflow(f"{len(answer)} of {int(total[0])} rows")
    if int(total[0]) < len(answer):
        raise Transient(f"a malformed answer: {len(answer)} rows, but {TOTAL} is {int(total[0])}")
    return arrow(answer, SCHEMA)


def look(response: requests.Response, **_: Any) -> None:
    """Refuse answers that are no CSV table of the requested columns.

    Raises
    ------
    LabelsError
        The message names the columns that the service lacks.
    Transient
        Where the answer is no table.
    """
    text = response.text
    lines = [line for line in text[:2000].splitlines() if line.strip() and not line.startswith("#")]
    header = [name.strip() for name in lines[0].split(",")] if lines else []
    if response.ok and (SCHEMA.names[0] in header or len(header) > len(SCHEMA.names) / 2):
        refuse_missing("SkyServer", [*SCHEMA.names, TOTAL], header)
        return
    unknown = re.findall(r"Invalid (?:column|object) name '([^']+)'", text)
    if unknown:
        raise LabelsError(
            f"SkyServer does not know {', '.join(dict.fromkeys(unknown))} any more: choose a data_release whose SpecObjAll "
            f"has {', '.join(SCHEMA.names)}"
        )
    if not response.ok:
        return
    message = " ".join(re.sub(r"<[^>]+>", " ", text[:2000]).split())[:200]
    if re.search(r"timeout|timed out|time limit", message, re.IGNORECASE):
        raise TooSlow(f"the service ran out of time: {message}")
    raise Transient(f"an answer that is no table: {message or 'nothing'}")
