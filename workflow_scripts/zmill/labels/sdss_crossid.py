"""Spectroscopic redshifts of SDSS for a short list of positions, by SkyServer's cross-identification.

For each position the service finds the nearest *primary photometric* object within a radius, and the spectra of that object.
"Primary" refers to the photometry here: one object may have several spectra. An entry counts as primary only
where the flag of the spectrum itself (`sciencePrimary`) is set. Its position is that of the photometric object.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import requests
from pydantic import Field

from zmill.labels.arrow import empty
from zmill.labels.base import LabelsError, Request
from zmill.labels.cache import Cache
from zmill.labels.fetch import Service
from zmill.labels.http import Session, Transient
from zmill.labels.lists import ListSettings, read
from zmill.labels.quality import SCHEMES
from zmill.labels.rows import rows
from zmill.labels.sdss import COLUMNS, SCHEMA, TOTAL, complete_table, look
from zmill.labels.tiles import Tile
from zmill.redact import expand
from zmill.sections import Url

POSITION = (COLUMNS["ra"], COLUMNS["dec"])
"""Columns of `PhotoObjAll`; the others are of `SpecObjAll`."""


class Settings(ListSettings):
    """An entry of `labels:` with `source: sdss_crossid`."""

    distance_arcsec: Annotated[float, Field(gt=0, le=180)] = 2.0
    """Search radius for the photometric object around a position; the service allows 3 arcmin."""
    rows_per_request: Annotated[int, Field(ge=1, le=10**7)] = 300
    """Positions per request; the service has a limit."""
    max_positions: Annotated[int, Field(ge=1, le=10**9)] = 10_000
    """A list with more positions than this in the survey is refused."""
    url: Url = "https://skyserver.sdss.org"
    """SkyServer, or a mirror of it."""
    data_release: Annotated[int, Field(ge=12, le=99)] = 17
    """SDSS data release."""


def entries(settings: Settings, request: Request) -> Iterator[pa.Table]:
    """All spectra of the objects nearest to the positions in the footprint, each once, with their judged quality.

    Raises
    ------
    LabelsError
        Where the list is too long, parts of it got no answer, or the service lacks columns.
    """
    from astropy import units as u
    from astropy.coordinates import SkyCoord
    from astroquery import cache_conf
    from astroquery.sdss import SDSSClass, conf

    where = f"labels: {settings.name}"
    positions = read(settings, request)
    if len(positions.ra) > settings.max_positions:
        raise LabelsError(
            f"{where}: {len(positions.ra):,} positions of the list lie in the survey, more than max_positions "
            f"({settings.max_positions:,}): cross-identification is for short lists. Use source: sdss, which requests all "
            "spectra of the footprint, or raise max_positions"
        )
    session = Session(settings.timeout_s)
    session.hooks["response"].insert(0, _look)
    client = SDSSClass()
    client._session = session
    spectroscopic = [name for name in SCHEMA.names if name not in POSITION]
    spectroscopic[-1] += f", COUNT(*) OVER() AS {TOTAL}"  # the client puts the names into the query as they are

    def query_tile(tile: Tile) -> tuple[pa.Table, dict[str, Any]]:
        part = positions.within(tile)
        sent = SkyCoord(positions.ra[part], positions.dec[part], unit="deg")
        try:
            answer = client.query_crossid(
                sent,
                radius=settings.distance_arcsec * u.arcsec,
                photoobj_fields=list(POSITION),
                specobj_fields=spectroscopic,
                timeout=settings.timeout_s,
                data_release=settings.data_release,
                cache=False,
            )
        except LabelsError as error:
            raise LabelsError(f"{where}: {error}") from None
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise Transient(f"an answer that is no table ({error})") from error
        table = empty(SCHEMA) if answer is None else complete_table(answer)
        query = f"{len(sent)} positions within {settings.distance_arcsec:g} arcsec"
        return table, {"query": query, "url": settings.url, "service": f"DR{settings.data_release} {session.server}"}

    query_settings = {"url": settings.url, "release": settings.data_release, "distance": settings.distance_arcsec}
    question = {"source": "sdss_crossid", **query_settings, "columns": SCHEMA.names}
    cache = Cache(request.cache, question, settings.max_age_days, positions.fingerprint)
    service = Service(settings.name, settings, query_tile, session, 1, *POSITION)
    with (
        conf.set_temp("skyserver_baseurl", expand(settings.url).rstrip("/")),
        cache_conf.set_temp("cache_active", False),
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("ignore", message="OverflowError converting to IntType")  # the client corrects it
        warnings.filterwarnings("ignore", message="Field info are not available")  # the answer's columns are checked
        tiles = positions.tiles(settings.rows_per_request)
        answers = list(service.of_tiles(tiles, positions.area(), request, cache))
    if answers:
        found = pa.concat_tables(answers)
        _, first = np.unique(found[COLUMNS["id"]].to_numpy().astype(np.str_), return_index=True)
        once = found.take(pa.array(np.sort(first)))
        yield rows({key: once[name].to_numpy() for key, name in COLUMNS.items()}, SCHEMES["sdss"])


def _look(response: requests.Response, **keys: Any) -> None:
    """As `look`, but only for POST: before its query the client requests the list of columns by GET, in JSON."""
    if response.request.method == "POST":
        look(response, **keys)
