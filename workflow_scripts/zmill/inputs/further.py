"""Files that an import reads in addition to the survey's own, such as stamps that are not in its tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


class OpenTable(Protocol):
    """Opens a table in any format, as `zmill.survey.readers.open_table`, which input kinds may not import."""

    def __call__(self, path: Path | str, format: str | None = None, group: str | None = None) -> Any:
        """A `zmill.survey.readers.Table`."""


@dataclass(frozen=True)
class Further:
    """Further files of a survey, which exist.

    files : setting that names them -> files or folders, in the order of the definition.
    """

    files: Mapping[str, tuple[Path, ...]]
    open_table: OpenTable

    @property
    def all(self) -> list[Path]:
        """All files and folders."""
        return [path for paths in self.files.values() for path in paths]


@dataclass(frozen=True)
class Identified:
    """What n rows of a survey are found by in other files.

    ids : (n,) int64 or string. numbers : (n,) int64, number of the row over all files of the survey.
    ra, dec : (n,) float64 in degrees; not finite where unknown.
    """

    ids: pa.Array
    numbers: NDArray[np.int64]
    ra: NDArray[np.float64]
    dec: NDArray[np.float64]
