"""Stamps of one object a file (FITS), found by the name of the file or by the WCS in it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field, model_validator

from zmill.catalog.files import ReadError
from zmill.inputs.further import Identified
from zmill.inputs.image.convert import MARKS
from zmill.inputs.image.match import by_position
from zmill.inputs.image.plausible import wrong_shapes, wrong_units
from zmill.inputs.image.sources.base import Found, SourceSettings, StampSource
from zmill.sections import PathText, Radius, Text

FORMAT = "fits_stamp"
"""The reader of a file."""
ENDINGS = (".fits", ".fit", ".fits.gz", ".fits.fz")
LOOKED = 20
"""Files that are looked at before any job, spread over all of them."""
SCALE = 0.05
"""Relative difference of the width of a pixel from `image.pixel_scale` that is another width."""


class StampSettings(SourceSettings):
    """`image.source` of type `stamps`. `flux`, `ivar`, … of the section `image:` are names of extensions: `image` is the image without a
    name; where the keyword BANDS names its planes, each one has its own name, too."""

    type: Literal["stamps"]
    """Stamps in FITS files, one object each."""
    files: list[PathText] = Field(min_length=1)
    """Folders, with everything below them, paths or glob patterns, below `data_dir` unless absolute."""
    name: Text | None = None
    """Name of the file of a row, from its folder on: `{object_id}.fits`. Left out, the stamp is the one whose center is nearest to the row,
    by the WCS of the files, which are all opened for it."""
    radius_arcsec: Radius = 1.0
    """Largest distance of a row from the center of its stamp, where `name` is left out."""

    @model_validator(mode="after")
    def _identifier(self) -> StampSettings:
        if self.name is not None and "{object_id}" not in self.name:
            raise ValueError("name: expected a name with {object_id}, such as '{object_id}.fits'")
        return self


class Source(StampSource[StampSettings]):
    """Stamps in FITS files."""

    Settings = StampSettings

    @cached_property
    def _files(self) -> list[tuple[str, Path]]:
        """Name from its folder on, and path, of each stamp."""
        found = []
        for path in self.files:
            inside = (
                sorted(file for file in path.rglob("*") if file.name.lower().endswith(ENDINGS)) if path.is_dir() else []
            )
            found += (
                [(file.relative_to(path).as_posix(), file) for file in inside] if path.is_dir() else [(path.name, path)]
            )
        return found

    @property
    def stamps(self) -> int:
        return len(self._files)

    def faults(self, columns: Mapping[str, str], rows: int | None) -> list[str]:
        folders = ", ".join(map(str, self.files))
        if not self._files:
            return [f"{folders}: there is no FITS file"]
        looked = self._files[:: max(1, len(self._files) // LOOKED)][:LOOKED]
        faults: dict[str, list[Path]] = {}
        for _, path in looked:
            for fault in self._faults_of(path, columns):
                faults.setdefault(fault, []).append(path)
        # Single bad stamps are counted by the import.
        return [
            f"{paths[0]}: {fault} (and the same in all of {len(looked)} files that were looked at)"
            for fault, paths in faults.items()
            if len(paths) == len(looked)
        ]

    def _faults_of(self, path: Path, columns: Mapping[str, str]) -> list[str]:
        try:
            table = self.open_table(path, FORMAT)
        except ReadError as error:
            return [str(error).removeprefix(f"{path}: ")]
        lacks = [table.lacks(name, key, True) for name, key in columns.items()]
        wrong = {**wrong_shapes(table.shapes, self.section), **wrong_units(table.units, self.section)}
        found = [lack for lack in lacks if lack] + [f"extension {name!r} {why}" for name, why in wrong.items()]
        scale = _one(table, "pixel_scale")
        if scale is not None and abs(scale / self.section.pixel_scale - 1) > SCALE:
            found.append(
                f"its pixels are {scale:.4g} arcsec wide, by its WCS, but image.pixel_scale is {self.section.pixel_scale:g}"
            )
        if self.settings.name is None and _one(table, "ra") is None:
            found.append(
                "it has no WCS, by which rows find their stamps: give image.source.name, a name of files with {object_id}"
            )
        return found

    @cached_property
    def _by_name(self) -> dict[str, list[Path]]:
        found: dict[str, list[Path]] = {}
        for name, path in self._files:
            found.setdefault(name, []).append(path)
        return found

    @cached_property
    def _by_position(self) -> Any:
        positions = np.full((len(self._files), 2), np.nan)
        for number, (_, path) in enumerate(self._files):
            try:
                table = self.open_table(path, FORMAT)
            except ReadError:
                continue  # a file that cannot be read is the stamp of no row
            if _one(table, "ra") is not None:
                positions[number] = _one(table, "ra"), _one(table, "dec")
        return by_position(positions[:, 0], positions[:, 1], self.settings.radius_arcsec)

    def find(self, rows: Identified, columns: list[str]) -> Found:
        count = len(rows.numbers)
        marks = {name: np.zeros(count, bool) for name in MARKS}
        which = np.full(count, -1, np.int64)
        stamps: list[dict[str, pa.Array]] = []
        for row, path in self._paths(rows, marks["image_repeated"]):
            try:
                table = self.open_table(path, FORMAT)
                named = [name for name in columns if name in table.types]
                batches = list(table.batches(named, 1, arrays=set(named))) if named else []
            except ReadError as error:
                raise ReadError(f"{error} (the stamp of {rows.ids[row].as_py()})") from None
            scale = _one(table, "pixel_scale")
            if scale is not None:
                marks["image_other_scale"][row] = abs(scale / self.section.pixel_scale - 1) > SCALE
                marks["image_flipped"][row] = _one(table, "flipped")
                marks["image_elsewhere"][row] = self._is_elsewhere(table, rows.ra[row], rows.dec[row])
            which[row] = len(stamps)
            stamps.append({name: batch.column(name) for batch in batches for name in named})
        return Found(which, {name: _joined([stamp.get(name) for stamp in stamps]) for name in columns}, marks)

    def _paths(self, rows: Identified, repeated: NDArray[np.bool_]) -> list[tuple[int, Path]]:
        """Row and file of each row that has a stamp; marks rows that have several."""
        if self.settings.name is None:
            number = self._by_position(rows.ra, rows.dec)
            return [(int(row), self._files[number[row]][1]) for row in np.flatnonzero(number >= 0)]
        found = []
        for row, identifier in enumerate(rows.ids.to_pylist()):
            paths = self._by_name.get(self.settings.name.replace("{object_id}", str(identifier)), [])
            repeated[row] = len(paths) > 1
            found += [(row, path) for path in paths[:1]]
        return found

    def _is_elsewhere(self, table: Any, ra: float, dec: float) -> bool:
        """Whether a position is outside of the stamp."""
        if not (np.isfinite(ra) and np.isfinite(dec)):
            return False
        north = dec - _one(table, "dec")
        east = ((ra - _one(table, "ra") + 180) % 360 - 180) * np.cos(np.radians(dec))
        return bool(np.hypot(north, east) * 3600 > self.section.size * self.section.pixel_scale / np.sqrt(2))


def _one(table: Any, name: str) -> Any:
    """The value of a column of a stamp."""
    (batch,) = table.read([name], 1, None, ())
    return batch.column(0)[0].as_py()


def _joined(parts: list[pa.Array | None]) -> pa.Array:
    """Arrays of one row each, of any length, as lists; null where there is none."""
    lengths = [0 if part is None else len(part.flatten()) for part in parts]
    values = [np.asarray(part.flatten()) for part in parts if part is not None]
    numbers = pa.array(np.concatenate(values)) if values else pa.array([], pa.float32())
    return pa.ListArray.from_arrays(pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32()), numbers)
