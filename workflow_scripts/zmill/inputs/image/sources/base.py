"""The interface of a source of stamps."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from zmill.inputs.further import Identified, OpenTable
from zmill.inputs.image.settings import ImageSettings
from zmill.sections import Name, Section

FILES = "image.source.files"
"""The setting that names the files of a source."""


class SourceSettings(Section):
    """Keys that every type has."""

    type: Name
    """The file in `zmill/inputs/image/sources/`."""

    @property
    def patterns(self) -> list[str]:
        """The files that an import reads: paths, folders and glob patterns, below `data_dir` unless absolute."""
        return list(getattr(self, "files", []))

    @property
    def by_row_number(self) -> bool:
        """Whether stamps are found by the number of the row."""
        return False


S = TypeVar("S", bound=SourceSettings)


@dataclass(frozen=True)
class Found:
    """The stamps of n rows.

    which : (n,) int64, number of the stamp of each row in `columns`; -1 where there is none.
    columns : column that the section names under flux, ivar, error, mask, psf_fwhm or edge -> its values in k stamps; lists per row.
    marks : fault of `zmill.inputs.image.convert.MARKS` -> (n,) rows that have it.
    """

    which: NDArray[np.int64]
    columns: Mapping[str, pa.Array]
    marks: Mapping[str, NDArray[np.bool_]]


class StampSource(ABC, Generic[S]):
    """Finds the stamps of rows. It is made in each process of the import, and keeps what it needs to find them.

    settings : its own. section : the section `image:`. files : files and folders of `files`, which exist.
    """

    Settings: ClassVar[type[Any]]

    def __init__(self, settings: S, section: ImageSettings, files: tuple[Path, ...], open_table: OpenTable) -> None:
        self.settings, self.section, self.files, self.open_table = settings, section, files, open_table

    @abstractmethod
    def faults(self, columns: Mapping[str, str], rows: int | None) -> list[str]:
        """What is wrong with the files, one sentence each; asked before any job, and by the import.

        columns : column that the section names -> its setting. rows : number of rows of the survey; None where unknown.
        """

    @abstractmethod
    def find(self, rows: Identified, columns: list[str]) -> Found:
        """The stamps of some rows. columns : those that the section names."""

    @property
    def stamps(self) -> int | None:
        """Number of all stamps; None where it is not limited."""
        return None
