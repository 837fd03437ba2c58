"""A toy label source, one file as `docs/develop/add-a-label-source.md` describes: lines of right ascension, declination and redshift."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from zmill.config import ConfigError
from zmill.labels.base import Request, SourceSettings, entry_table
from zmill.sections import PathText


class Settings(SourceSettings):
    """The keys of the source."""

    files: list[PathText]
    """Files of the lists."""

    def check(self, files: Sequence[Path]) -> None:
        """Refuse files that are empty."""
        for path in files:
            if not path.stat().st_size:
                raise ConfigError(f"labels: {self.name}: {path}: is empty")


def entries(settings: Settings, request: Request) -> Iterator[pa.Table]:
    """Every line as a certain redshift."""
    for name in settings.files:
        ra, dec, z = np.loadtxt(request.data_dir / name, unpack=True, ndmin=2)
        ids = np.array([f"{name}:{row}" for row in range(len(z))])
        quality, empty = np.full(len(z), 4, np.int8), np.full(len(z), "")
        yield entry_table({"specz_id": ids, "ra": ra, "dec": dec, "redshift": z, "quality": quality, "reason": empty})
