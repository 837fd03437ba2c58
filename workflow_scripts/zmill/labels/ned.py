"""Redshifts of NED: its object directory through TAP for tiles of the footprint, or its older cone search."""

from __future__ import annotations

import re
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
import requests
from pydantic import Field

from zmill.labels.arrow import arrow, empty, refuse_missing
from zmill.labels.base import LabelsError, Request
from zmill.labels.cache import Cache
from zmill.labels.fetch import Overflow, Service, ServiceSettings
from zmill.labels.http import Session, TooSlow, Transient, transient
from zmill.labels.quality import SCHEMES
from zmill.labels.rows import rows
from zmill.labels.tiles import Tile
from zmill.redact import expand
from zmill.sections import Text, Url

COLUMNS = {
    "id": "prefname",
    "ra": "ra",
    "dec": "dec",
    "redshift": "z",
    "redshift_err": "zunc",
    "flag": "zflag",
    "kind": "prefphytype",
}
"""Keys of zmill -> columns of the object directory."""
SCHEMA = pa.schema(
    [(name, pa.string() if key in ("id", "flag", "kind") else pa.float64()) for key, name in COLUMNS.items()]
)
CONE_COLUMNS = {
    "prefname": ("Object Name",),
    "ra": ("RA", "RA(deg)"),
    "dec": ("DEC", "DEC(deg)"),
    "z": ("Redshift",),
    "zflag": ("Redshift Flag",),
    "prefphytype": ("Type",),
}
"""Names of the same columns in answers of the older service, the present ones first; it has no errors."""
TILES = {"tap": (4, 7), "cone": (8, 9)}
"""Coarsest and finest order of the tiles: 3.7 degrees to 27 arcmin, and 14 to 7 arcmin."""
FIRST_LOOK_S, LONGEST_LOOK_S = 0.05, 10.0
SERVICE_CHARACTERS = 300
"""Length to which the service's description of itself is cut."""
NOTHING = re.compile(r"\bno (object|source|match)", re.IGNORECASE)


class Settings(ServiceSettings):
    """An entry of `labels:` with `source: ned`."""

    interface: Literal["tap", "cone"] = "tap"
    """`tap`: the object directory, for surveys of any size; `cone`: the older service, for a few square arcminutes."""
    url: Url | None = None
    """The service, or a mirror of it; NED's own when left out."""
    table: Text = "NEDTAP.objdir"
    """The directory's table."""
    max_rows: Annotated[int, Field(ge=1, le=2**31 - 1)] = 500_000
    """Largest number of rows of one answer (MAXREC); a tile with more rows is requested in parts."""
    jobs: Annotated[int, Field(ge=1, le=4)] = 2
    """Number of parallel requests."""

    @property
    def service_url(self) -> str:
        """Address of the service."""
        default = (
            "https://ned.ipac.caltech.edu/tap" if self.interface == "tap" else "https://ned.ipac.caltech.edu/cgi-bin"
        )
        return (self.url or default).rstrip("/")


def entries(settings: Settings, request: Request) -> Iterator[pa.Table]:
    """All objects with a redshift in the footprint's tiles, of every type and flag, with their judged quality.

    Raises
    ------
    LabelsError
        Where tiles got no answer, or the service lacks columns.
    """
    from astroquery import cache_conf

    session = Session(settings.timeout_s)
    query_tile = (_tap if settings.interface == "tap" else _cones)(settings, session)
    question = {
        "source": "ned",
        "interface": settings.interface,
        "url": settings.service_url,
        "table": settings.table,
        "columns": SCHEMA.names,
    }
    cache = Cache(request.cache, question, settings.max_age_days)
    service = Service(settings.name, settings, query_tile, session, settings.jobs, "ra", "dec")
    with cache_conf.set_temp("cache_active", False), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of overflows, which are detected below, and of small faults of VOTables
        for table in service.tables(request, cache, *TILES[settings.interface]):
            columns = {key: table[name].to_numpy(zero_copy_only=False) for key, name in COLUMNS.items()}
            yield rows(columns, SCHEMES["ned"])


def adql(tile: Tile, table: str) -> str:
    """The query for a tile's circle."""
    ra, dec, radius = tile.circle()
    return (
        f"SELECT {', '.join(COLUMNS.values())} FROM {table} WHERE CONTAINS(POINT('J2000', ra, dec), "
        f"CIRCLE('J2000', {ra:.8f}, {dec:.8f}, {radius:.8f})) = 1 AND z IS NOT NULL"
    )


QueryTile = Callable[[Tile], tuple[pa.Table, dict[str, Any]]]


def _tap(settings: Settings, session: Session) -> QueryTile:
    from pyvo.dal import DALFormatError, DALQueryError, DALServiceError, TAPService

    service = TAPService(expand(settings.service_url), session=session)

    def query_tile(tile: Tile) -> tuple[pa.Table, dict[str, Any]]:
        query = adql(tile, settings.table)
        try:
            result = _run(service, query, settings.max_rows, settings.timeout_s)
        except DALQueryError as error:
            _refuse_columns(settings, service)
            raise Transient(f"the service refused the query: {error.reason}") from error
        except DALServiceError as error:
            raise _transient(error.cause or error) from error
        except (DALFormatError, ValueError, IndexError, KeyError, TypeError, OSError, SyntaxError) as error:
            raise Transient(f"a malformed or truncated answer ({error})") from error
        refuse_missing(f"labels: {settings.name}: {settings.table}", SCHEMA.names, list(result.fieldnames))
        if result.status[0].upper() == "OVERFLOW" or len(result) >= settings.max_rows:
            raise Overflow(f"more than {len(result)} rows")
        infos = [*result.votable.infos, *(info for resource in result.votable.resources for info in resource.infos)]
        description = {f"{info.name}={info.value}": None for info in infos if info.name.upper() != "QUERY_STATUS"}
        return _kept(arrow(result.to_table(), SCHEMA), tile), {
            "query": query,
            "url": settings.service_url,
            "service": " ".join([session.server, *description])[:SERVICE_CHARACTERS].strip(),
        }

    return query_tile


def _run(service: Any, query: str, max_rows: int, timeout_s: float) -> Any:
    """Run an asynchronous job to its end and delete it."""
    deadline, pause = time.monotonic() + timeout_s, FIRST_LOOK_S
    with service.submit_job(query, maxrec=max_rows) as job:
        job.run()
        while (phase := job.phase) not in ("COMPLETED", "ERROR", "ABORTED"):
            if time.monotonic() > deadline:
                raise TooSlow(f"the job was still {phase} after {timeout_s:g} s")
            time.sleep(pause)
            pause = min(1.5 * pause, LONGEST_LOOK_S)
        if phase == "ABORTED":
            raise TooSlow("the service ended the job before it was done")
        job.raise_if_error()
        return job.fetch_result()


def _refuse_columns(settings: Settings, service: Any) -> None:
    """After a refused query, raise with the missing columns, if the table lacks any."""
    from pyvo.dal import DALAccessError

    _, _, name = settings.table.rpartition(".")
    wheres = " OR ".join(f"table_name = '{one}'" for one in dict.fromkeys([settings.table, name]))
    try:
        names = service.run_sync(f"SELECT column_name FROM TAP_SCHEMA.columns WHERE {wheres}").to_table()
    except DALAccessError as error:
        raise Transient(f"the service refused a query, and then to name its columns: {error}") from error
    columns = [str(column) for column in names["column_name"]]
    if not columns:
        raise LabelsError(f"labels: {settings.name}: the service {settings.service_url} has no table {settings.table}")
    refuse_missing(f"labels: {settings.name}: {settings.table}", SCHEMA.names, columns)


def _cones(settings: Settings, session: Session) -> QueryTile:
    from xml.parsers.expat import ExpatError

    import astropy.units as u
    from astropy.coordinates import SkyCoord
    from astroquery.exceptions import RemoteServiceError, TableParseError
    from astroquery.ipac.ned import Ned, NedClass

    client = NedClass()
    client._session = session
    type(Ned).OBJ_SEARCH_URL = f"{expand(settings.service_url)}/objsearch"  # the client takes it from its class alone
    type(Ned).TIMEOUT = settings.timeout_s

    def query_tile(tile: Tile) -> tuple[pa.Table, dict[str, Any]]:
        ra, dec, radius = tile.circle()
        try:
            answer = client.query_region(SkyCoord(ra, dec, unit="deg"), radius=radius * u.deg)
        except RemoteServiceError as error:
            if not NOTHING.search(str(error)):
                raise Transient(f"the service refused: {error}") from error
            table = empty(SCHEMA)
        except (TableParseError, ExpatError, ValueError, SyntaxError, IndexError) as error:
            raise Transient(f"a malformed or truncated answer ({error})") from error
        else:
            table = _of_cone(answer, f"labels: {settings.name}: {settings.service_url}")
        facts = {
            "query": f"cone {ra:.8f} {dec:.8f} {radius:.8f}",
            "url": settings.service_url,
            "service": session.server,
        }
        return _kept(table, tile), facts

    return query_tile


def _of_cone(answer: Any, where: str) -> pa.Table:
    """The older service's columns under the directory's names; rows without a redshift are left out."""
    names = {}
    for name, known in CONE_COLUMNS.items():
        found = [column for column in known if column in answer.colnames]
        if not found:
            refuse_missing(where, [known[0]], list(answer.colnames))
        names[name] = found[0]
    plain = answer[list(names.values())]
    plain.rename_columns(list(names.values()), list(names))
    plain["zunc"] = float("nan")
    table = arrow(plain, SCHEMA)
    return table.filter(pc.is_finite(table["z"]))


def _kept(table: pa.Table, tile: Tile) -> pa.Table:
    return table.filter(pa.array(tile.holds(table["ra"].to_numpy(), table["dec"].to_numpy())))


def _transient(error: Any) -> Transient:
    return transient(error) if isinstance(error, requests.RequestException) else Transient(str(error))
