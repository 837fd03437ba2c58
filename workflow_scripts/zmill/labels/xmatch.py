"""A list of positions cross-matched with a catalogue of redshifts at CDS: for lists of up to about a million."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import xxhash
from numpy.typing import NDArray
from pydantic import Field

from zmill.catalog.footprint import Footprint
from zmill.catalog.sky import at_order, healpix
from zmill.config import ConfigError, Section, nearest
from zmill.labels.arrow import arrow, refuse_missing
from zmill.labels.base import LabelsError, Request
from zmill.labels.cache import Cache
from zmill.labels.fetch import Service, ServiceSettings
from zmill.labels.http import Session, Transient
from zmill.labels.judging import Judging
from zmill.labels.rows import rows
from zmill.labels.tiles import Tile
from zmill.survey.check import resolve
from zmill.survey.partitioning import choose, histogram
from zmill.survey.readers import ReadError, open_table

FINEST = 12
BATCH_ROWS = 200_000
TEXT = ("flag", "kind", "id", "primary")
SENT = ("zmill_ra", "zmill_dec")


class Positions(Section):
    """Columns of the list."""

    ra: str = "ra"
    """Right ascension in degrees."""
    dec: str = "dec"
    """Declination in degrees."""


class Settings(Judging, ServiceSettings):
    """An entry of `labels:` with `source: xmatch`; `columns`, `scheme` and `quality` are of the catalogue at CDS."""

    files: Annotated[list[str], Field(min_length=1)]
    """The list: paths or patterns, in any format that the survey import reads."""
    positions: Positions = Positions()
    catalog: str
    """The catalogue, as CDS names it: `vizier:V/154/sdss16`."""
    distance_arcsec: Annotated[float, Field(gt=0, le=180)] = 2.0
    """Spectra within this of a position are taken."""
    rows_per_request: Annotated[int, Field(ge=1)] = 100_000
    """Positions that are sent at a time."""
    url: str = "http://cdsxmatch.u-strasbg.fr/xmatch/api/v1/sync"
    """The service, or a mirror of it. It forbids parallel jobs."""


def inputs(settings: Settings, data_dir: Path, made: Collection[Path]) -> list[Path]:
    """The list's files, each opened and its columns checked.

    Raises
    ------
    ConfigError
        Where a file or a column is missing.
    """
    where = f"labels: {settings.name}"
    files = resolve(settings.files, data_dir, f"{where}: files", made)
    for path in (path for path in files if path.exists()):
        try:
            columns = open_table(path).columns
        except ReadError as error:
            raise ConfigError(f"{where}: {error}") from None
        for name in (settings.positions.ra, settings.positions.dec):
            if name not in columns:
                raise ConfigError(f"{where}: {path}: there is no column {name!r} (positions){nearest(name, columns)}")
    return files


def entries(settings: Settings, request: Request) -> Iterator[pa.Table]:
    """Every spectrum of the catalogue near one of the positions in the footprint, once, judged.

    Raises
    ------
    LabelsError
        Where parts of the list got no answer, or the catalogue's columns are others.
    """
    import astropy.units as u
    from astropy.table import Table
    from astroquery import cache_conf
    from astroquery.exceptions import InvalidQueryError
    from astroquery.xmatch import XMatchClass

    where = f"labels: {settings.name}"
    ra, dec = _positions(settings, request)
    index = healpix(ra, dec)
    order = np.argsort(index, kind="stable")
    ra, dec, index = ra[order], dec[order], index[order]
    schema = _schema(settings)
    session = Session(settings.timeout_s)

    class Client(XMatchClass):
        """Takes the catalogue on trust in place of downloading the list of all; a wrong one is refused all the same."""

        URL, TIMEOUT = settings.url.rstrip("/"), settings.timeout_s

        def is_table_available(self, table_id: Any) -> bool:
            return isinstance(table_id, str)

    client = Client()
    client._session = session

    def within(tile: Tile) -> slice:
        first, last = np.searchsorted(index, tile.interval())
        return slice(int(first), int(last))

    def fingerprint(tile: Tile) -> str:
        part = within(tile)
        return xxhash.xxh3_64_hexdigest(ra[part].tobytes() + dec[part].tobytes())

    def ask(tile: Tile) -> tuple[pa.Table, dict[str, Any]]:
        part = within(tile)
        sent = Table(dict(zip(SENT, (ra[part], dec[part]), strict=True)))
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

    tiles = [
        Tile(part.order, part.pixel)
        for part in choose(histogram(at_order(index, FINEST)), FINEST, settings.rows_per_request)
    ]
    asked = {"url": settings.url, "catalog": settings.catalog, "distance": settings.distance_arcsec}
    cache = Cache(
        request.cache, {"source": "xmatch", **asked, "columns": schema.names}, settings.max_age_days, fingerprint
    )
    columns = settings.columns
    service = Service(settings.name, settings, ask, session, 1, columns.ra, columns.dec)
    with cache_conf.set_temp("cache_active", False):
        answers = list(service.of_tiles(tiles, Footprint.of_positions(index, FINEST), request, cache))
    if answers:
        found = pa.concat_tables(answers)
        once = found.group_by(found.column_names, use_threads=False).aggregate([])
        yield rows({key: _numpy(once[name]) for key, name in settings.named().items()}, settings.judge)


def _positions(settings: Settings, request: Request) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The list's positions that lie in the footprint."""
    names = [settings.positions.ra, settings.positions.dec]
    kept = []
    for path in resolve(settings.files, request.data_dir, f"labels: {settings.name}: files"):
        for batch in open_table(path).batches(names, BATCH_ROWS, numeric=names):
            ra, dec = (batch[name].to_numpy(zero_copy_only=False).astype(np.float64) for name in names)
            good = np.isfinite(ra) & np.isfinite(dec) & (np.abs(np.nan_to_num(dec)) <= 90)
            ra, dec = ra[good] % 360, dec[good]
            kept.append(np.stack([ra, dec])[:, request.footprint.near(healpix(ra, dec))])
    ra, dec = np.concatenate([np.empty((2, 0)), *kept], axis=1)
    if not len(ra):
        raise LabelsError(
            f"labels: {settings.name}: none of the list's positions lies in the survey ({request.footprint.describe()})"
        )
    return ra, dec


def _schema(settings: Settings) -> pa.Schema:
    kinds = {name: pa.string() if key in TEXT else pa.float64() for key, name in settings.named().items()}
    return pa.schema(list(kinds.items()))


def _numpy(column: pa.ChunkedArray) -> NDArray[Any]:
    array: NDArray[Any] = column.to_numpy()
    return array
