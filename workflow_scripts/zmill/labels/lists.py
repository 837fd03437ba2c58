"""Lists of positions in files, for services that are queried by positions instead of a footprint."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import xxhash
from numpy.typing import NDArray
from pydantic import Field

from zmill.catalog.footprint import Footprint
from zmill.catalog.sky import at_order, healpix
from zmill.config import ConfigError, Section
from zmill.labels.base import LabelsError, Request
from zmill.labels.fetch import ServiceSettings
from zmill.labels.tiles import Tile
from zmill.sections import PathText, Text
from zmill.survey.check import column_faults
from zmill.survey.partitioning import choose, histogram
from zmill.survey.readers import open_table
from zmill.workflow.input_files import resolve

FINEST = 12
BATCH_ROWS = 200_000


class Positions(Section):
    """Columns of the list."""

    ra: Text = "ra"
    """Right ascension in degrees."""
    dec: Text = "dec"
    """Declination in degrees."""


class ListSettings(ServiceSettings):
    """The keys of every source that is queried by a list of positions."""

    files: Annotated[list[PathText], Field(min_length=1)]
    """The list: paths or glob patterns, in any format that the survey import reads."""
    positions: Positions = Positions()

    def check(self, files: Collection[Path]) -> None:
        """Open the list's files and look for the columns.

        Raises
        ------
        ConfigError
            Where a file is not a table, or a column is missing.
        """
        named = [("positions", name) for name in (self.positions.ra, self.positions.dec)]
        faults = column_faults(files, named, numeric=[name for _, name in named])
        if faults:
            raise ConfigError("\n".join(f"labels: {self.name}: {fault}" for fault in faults))


@dataclass(frozen=True)
class PositionList:
    """Positions in the order of their HEALPix index.

    Attributes
    ----------
    ra, dec : (n,) degrees.
    index : (n,) HEALPix index of order 29, sorted.
    """

    ra: NDArray[np.float64]
    dec: NDArray[np.float64]
    index: NDArray[np.int64]

    def within(self, tile: Tile) -> slice:
        """The positions of a tile."""
        first, last = np.searchsorted(self.index, tile.interval())
        return slice(int(first), int(last))

    def fingerprint(self, tile: Tile) -> str:
        """Hash of the positions of a tile, by which an answer to other positions is recognized."""
        part = self.within(tile)
        return xxhash.xxh3_64_hexdigest(self.ra[part].tobytes() + self.dec[part].tobytes())

    def tiles(self, rows: int) -> list[Tile]:
        """Tiles of at most `rows` positions, down to the order `FINEST`."""
        parts = choose(histogram(at_order(self.index, FINEST)), FINEST, rows)
        return [Tile(part.order, part.pixel) for part in parts]

    def area(self) -> Footprint:
        """The footprint of the positions."""
        return Footprint.of_positions(self.index, FINEST)


def read(settings: ListSettings, request: Request) -> PositionList:
    """The list's positions that lie in the footprint.

    Raises
    ------
    LabelsError
        Where there is none.
    """
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
    index = healpix(ra, dec)
    order = np.argsort(index, kind="stable")
    return PositionList(ra[order], dec[order], index[order])
