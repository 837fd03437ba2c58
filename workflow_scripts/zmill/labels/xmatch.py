"""Cross-match of a list of positions with a catalogue of redshifts at CDS, for up to about a million positions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field

from zmill.labels.arrow import arrow, refuse_missing
from zmill.labels.base import LabelsError, Request
from zmill.labels.cache import Cache
from zmill.labels.fetch import Service
from zmill.labels.http import Session, Transient
from zmill.labels.judging import Judging
from zmill.labels.lists import ListSettings, read
from zmill.labels.rows import rows
from zmill.labels.tiles import Tile
from zmill.redact import expand
from zmill.sections import Text, Url

TEXT = ("flag", "kind", "id", "primary")
SENT = ("zmill_ra", "zmill_dec")


class Settings(Judging, ListSettings):
    """An entry of `labels:` with `source: xmatch`; `columns`, `scheme` and `quality` are of the catalogue at CDS."""

    catalog: Text
    """Name of the catalogue at CDS, such as `vizier:V/154/sdss16`."""
    distance_arcsec: Annotated[float, Field(gt=0, le=180)] = 2.0
    """Search radius around a position."""
    rows_per_request: Annotated[int, Field(ge=1, le=10**7)] = 100_000
    """Positions per request."""
    url: Url = "http://cdsxmatch.u-strasbg.fr/xmatch/api/v1/sync"
    """The service, or a mirror of it. It forbids parallel jobs."""


def entries(settings: Settings, request: Request) -> Iterator[pa.Table]:
    """All spectra of the catalogue near one of the positions in the footprint, each once, with their judged quality.

    Raises
    ------
    LabelsError
        Where parts of the list got no answer, or the catalogue lacks columns.
    """
    import astropy.units as u
    from astropy.table import Table
    from astroquery import cache_conf
    from astroquery.exceptions import InvalidQueryError
    from astroquery.xmatch import XMatchClass

    where = f"labels: {settings.name}"
    positions = read(settings, request)
    schema = _schema(settings)
    session = Session(settings.timeout_s)

    class Client(XMatchClass):
        """Does not download the list of all catalogues to check the name; the service itself refuses an unknown name."""

        URL, TIMEOUT = expand(settings.url).rstrip("/"), settings.timeout_s

        def is_table_available(self, table_id: Any) -> bool:
            return isinstance(table_id, str)

    client = Client()
    client._session = session

    def query_tile(tile: Tile) -> tuple[pa.Table, dict[str, Any]]:
        part = positions.within(tile)
        sent = Table(dict(zip(SENT, (positions.ra[part], positions.dec[part]), strict=True)))
        try:
            answer = client.query(
                sent,
                settings.catalog,
                settings.distance_arcsec * u.arcsec,
                colRA1=SENT[0],
                colDec1=SENT[1],
                cache=False,
            )
        except InvalidQueryError as error:
            raise LabelsError(f"{where}: the service refused {settings.catalog}: {error}") from None
        except (ValueError, IndexError, SyntaxError, AttributeError) as error:
            raise Transient(f"a malformed or truncated answer ({error})") from error
        refuse_missing(f"{where}: {settings.catalog}", schema.names, list(answer.colnames))
        query = f"{len(sent)} positions within {settings.distance_arcsec:g} arcsec of {settings.catalog}"
        return arrow(answer, schema), {"query": query, "url": settings.url, "service": session.server}

    query_settings = {"url": settings.url, "catalog": settings.catalog, "distance": settings.distance_arcsec}
    question = {"source": "xmatch", **query_settings, "columns": schema.names}
    cache = Cache(request.cache, question, settings.max_age_days, positions.fingerprint)
    columns = settings.columns
    service = Service(settings.name, settings, query_tile, session, 1, columns.ra, columns.dec)
    with cache_conf.set_temp("cache_active", False):
        tiles = positions.tiles(settings.rows_per_request)
        answers = list(service.of_tiles(tiles, positions.area(), request, cache))
    if answers:
        found = pa.concat_tables(answers)
        once = found.group_by(found.column_names, use_threads=False).aggregate([])
        yield rows({key: _numpy(once[name]) for key, name in settings.named().items()}, settings)


def _schema(settings: Settings) -> pa.Schema:
    kinds = {name: pa.string() if key in TEXT else pa.float64() for key, name in settings.named().items()}
    return pa.schema(list(kinds.items()))


def _numpy(column: pa.ChunkedArray) -> NDArray[Any]:
    array: NDArray[Any] = column.to_numpy()
    return array
