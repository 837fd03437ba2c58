"""What the river and a model may ask of a row, whatever it is made of: input kinds, batches, labelled rows.

An input kind (photometry, a spectrum, an image) is a file or folder of this folder whose `KIND` names its `InputKind`. The
import, the clean stage, the sample, the training and the inference use only what is declared here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self, TypeAlias, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from zmill.config import parse
from zmill.inputs.batch import FULL, Batch, Joint, LabelledBatch
from zmill.inputs.degradation import Degradation
from zmill.inputs.further import Further, Identified
from zmill.sections import Section
from zmill.survey_definition import Survey

if TYPE_CHECKING:
    from zmill.pdf.grid import Grid  # which imports torch: the import of a survey does without

__all__ = [
    "FULL",
    "Batch",
    "Converted",
    "InputKind",
    "Inspection",
    "Joint",
    "LabelledBatch",
    "Learner",
    "ModelContext",
]

FAILS_CUT, OOD, GRID_EDGE, NO_REDSHIFT = 1, 16, 64, 512
ROW_FLAGS = {
    FAILS_CUT: "fails a cut of the training sample",
    OOD: "far from every training row (the PDF is an extrapolation)",
    GRID_EDGE: "mode at the edge of the redshift grid",
    NO_REDSHIFT: "no redshift (the mode is more probably wrong than right, or nothing is measured)",
}
"""Bits of the column `flags` that a row of any input may have, and their meanings; `InputKind.flag_bits` has the others."""
Rows: TypeAlias = pa.Table | pa.RecordBatch


@dataclass(frozen=True)
class Converted:
    """A batch of n rows of a kind in the columns of the imported survey, bad rows included.

    columns : name -> (n, …) array, or Arrow array.
    faults : part of the row -> fault -> (n,) rows that have it; a key of `InputKind.faults` each.
    empty : (n,) rows of which nothing can be used.
    rejected : reason -> (n,) rows that are set aside; a key of `InputKind.reasons` each.
    """

    columns: dict[str, Any]
    empty: NDArray[np.bool_]
    faults: dict[str, dict[str, NDArray[np.bool_]]] = field(default_factory=dict)
    rejected: dict[str, NDArray[np.bool_]] = field(default_factory=dict)


class InputKind(ABC):
    """A kind of input. An instance holds what a model must know of the survey to read its rows, and is saved with the model."""

    name: ClassVar[str]
    """Name of its file or folder, of its section in the survey definition, and in `Model.inputs`."""
    Settings: ClassVar[type[Section] | None] = None
    """Its section of the survey definition; None for the kind whose keys stand at the top."""
    flag_bits: ClassVar[Mapping[int, str]] = {}
    """Bit of the column `flags` -> its meaning; no other kind has the same bit."""
    faults: ClassVar[Mapping[str, str]] = {}
    """Fault -> its meaning, for the log."""
    quiet_faults: ClassVar[tuple[str, ...]] = ()
    """Those of `faults` that good data have, too: the import counts them, and the checks before any job do not warn of them."""
    training_only: ClassVar[tuple[str, ...]] = ()
    """Keys of `to_json` that matter to training alone, and not to what a model predicts."""
    source: ClassVar[str] = ""
    """The setting that names the columns that are measured, for messages."""
    measured: ClassVar[str] = "measurements"
    """What a row of the kind holds, in the plural, for messages: `magnitudes`."""
    parts: ClassVar[str] = ""
    """What `Batch.parts` are, in the plural, for the report: `bands`; empty where rows have no parts."""
    reasons: ClassVar[tuple[str, ...]] = ()
    """Reasons for which `convert` rejects rows."""
    models: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Default models of surveys whose first kind it is: name -> entry of `models:`."""
    noisier: ClassVar[bool] = False
    """Whether noise can be added to its rows (`Batch.noisier`)."""

    # ------------------------------------------------------------------ import and clean stage, by the survey definition

    @classmethod
    @abstractmethod
    def of(cls, survey: Survey) -> Self | None:
        """The kind of a survey; None where the survey does not have it."""

    @classmethod
    @abstractmethod
    def source_columns(cls, survey: Survey) -> dict[str, str]:
        """Columns that the survey's files must have -> the setting that names each."""

    @classmethod
    @abstractmethod
    def numeric_columns(cls, survey: Survey) -> set[str]:
        """Those of `source_columns` that hold one number per row."""

    @classmethod
    def array_columns(cls, survey: Survey) -> set[str]:
        """Those of `source_columns` that hold several values per row: vectors of FITS, lists of Parquet, 2-D datasets of HDF5."""
        return set()

    @classmethod
    def wrong_units(cls, units: Mapping[str, str], survey: Survey) -> dict[str, str]:
        """Column -> why the unit that a file states for it contradicts the survey definition, and the setting to write.

        units : the file's own unit texts by column.
        """
        return {}

    @classmethod
    def wrong_shapes(cls, shapes: Mapping[str, tuple[int, ...]], survey: Survey) -> dict[str, str]:
        """Column -> why the shape that a file states for it contradicts the survey definition, and the setting to write.

        shapes : shape of the values in a row by column, for the columns whose rows have one shape.
        """
        return {}

    @classmethod
    def section(cls, survey: Survey) -> Any:
        """Its validated section of the survey definition; None where the survey has none.

        Raises
        ------
        ConfigError
            For unknown keys and wrong values.
        """
        given = survey.sections.get(cls.name)
        return (
            None
            if given is None or cls.Settings is None
            else parse(cls.Settings, given, f"survey definition: {cls.name}")
        )

    @classmethod
    @abstractmethod
    def schema(cls, survey: Survey) -> list[pa.Field]:
        """Columns that it writes into `survey/`."""

    @classmethod
    @abstractmethod
    def convert(cls, batch: pa.RecordBatch, survey: Survey, ebv: NDArray[np.floating]) -> Converted:
        """Convert a batch of the survey's columns. ebv : (n,) E(B-V) in magnitudes; NaN where unknown.

        Before any job, the batch lacks the columns of further files.
        """

    @classmethod
    def further_files(cls, survey: Survey) -> dict[str, list[str]]:
        """Setting -> paths, folders and glob patterns of files that `complete` reads, below `data_dir` unless absolute.

        Their content counts as a setting of the import.
        """
        return {}

    @classmethod
    def by_row_number(cls, survey: Survey) -> bool:
        """Whether `complete` finds measurements by the number of the row over all files of the survey."""
        return False

    @classmethod
    def further_faults(cls, survey: Survey, further: Further, rows: int | None) -> list[str]:
        """What is wrong with further files, one sentence each. rows : number of rows of the survey; None where unknown."""
        return []

    @classmethod
    def complete(cls, batch: pa.RecordBatch, survey: Survey, rows: Identified, further: Further) -> pa.RecordBatch:
        """A batch of the survey's columns with columns of further files, for `convert`. rows : of the batch."""
        return batch

    @classmethod
    def further_warnings(cls, survey: Survey, further: Further, kept: int, faults: Mapping[str, int]) -> list[str]:
        """Measurements in further files that no row has, one sentence each.

        kept : number of rows that were imported. faults : number of those with each fault of the kind.

        Raises
        ------
        ReadError
            Where no row has any: the files do not belong together.
        """
        return []

    @classmethod
    def inspection(cls, survey: Survey) -> Inspection | None:
        """What checks whether the first rows of the survey's files are plausible, before any job; None where nothing is checked."""
        return None

    @classmethod
    def empty(cls, rows: Rows, survey: Survey) -> NDArray[np.bool_]:
        """(n,) whether rows of `survey/` have no measurement of this kind."""
        return np.zeros(rows.num_rows, np.bool_)

    @classmethod
    def empty_columns(cls, survey: Survey) -> list[str]:
        """Columns that `empty` reads."""
        return []

    @classmethod
    def cut_columns(cls, survey: Survey) -> list[str]:
        """Columns of `schema` that a cut may name."""
        return []

    def agree(self, one: Rows, other: Rows) -> NDArray[np.bool_]:
        """(n,) whether pairs of rows of `survey/` at the same position may be measurements of one object.

        one, other : n rows each, with all columns of the kind or some of them.
        """
        return np.ones(one.num_rows, np.bool_)

    def magnitude_column(self) -> str | None:
        """Column of `survey/` that is compared with the magnitudes of spectra, where a spectrum has several candidates."""
        return None

    def drift_columns(self) -> list[str]:
        """Columns of `survey/` that `drift` reads; of large rows, only a few numbers of each."""
        return []

    def drift(self, rows: Rows) -> dict[str, dict[str, float | None]]:
        """Key of `gates:` -> part of the row -> a number of which the change since the last release is limited by that key; None if unknown.

        rows : a part of `survey/`, spread evenly over the sky, with the columns of `drift_columns`.
        """
        return {}

    def learner(self) -> Learner | None:
        """What computes, from training rows, the facts that `clean` needs; None where it needs none."""
        return None

    def added(self) -> list[pa.Field]:
        """Columns that `clean` adds."""
        return []

    def clean(self, rows: Rows, learned: Any) -> tuple[Rows, dict[str, Any]]:
        """Rows of `survey/` as rows of `clean/`, and counts: name -> number, or name -> part -> number.

        learned : result of the learner; None where the stage is switched off.
        """
        return rows, {}

    def log_counts(self, counts: Mapping[str, Any]) -> None:
        """Log the counts of `clean` over all rows, and warn of rows without any measurement."""
        return

    # ------------------------------------------------------------------------------------------------------ models

    def with_extra(self, names: Sequence[str]) -> Self:
        """The kind with further columns of the survey, which the model takes as inputs."""
        return self

    @abstractmethod
    def columns(self) -> list[str]:
        """The columns that `read` reads where a table has them."""

    @abstractmethod
    def needed(self) -> list[str]:
        """Those of them without which a table cannot be used."""

    @abstractmethod
    def read(self, rows: Rows) -> Batch:
        """Rows of a survey or clean catalogue, or of a sample table."""

    def degradation(self, train: Any, learned: Any) -> Degradation:
        """Removal of parts of the data. train : batch of the training rows; learned : as in `clean`."""
        return Degradation()

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """The kind as plain values, for `model.json`."""

    @classmethod
    @abstractmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """The reverse of `to_json`."""

    @property
    @abstractmethod
    def brightness(self) -> str:
        """Name and unit of `Batch.brightness`, for the axes of figures."""

    def differs(self, survey: Self) -> str:
        """Why a model of this kind cannot be applied to a survey, as a clause; empty where it can."""
        return ""


class Inspection(ABC):
    """Collects values of the first rows of a survey's files, and warns of values that are probably faults."""

    @abstractmethod
    def add(
        self,
        batch: pa.RecordBatch,
        columns: Mapping[str, Any],
        faults: Mapping[str, Mapping[str, NDArray[np.bool_]]],
        good: NDArray[np.bool_],
    ) -> None:
        """Add a batch of n rows.

        batch : the survey's columns. columns, faults : as `Converted` has them, of all kinds. good : (n,) rows that are not rejected.
        """

    @abstractmethod
    def warnings(self, of: str) -> list[str]:
        """One sentence per probable fault, with counts and the setting to write. of : `of the first 200 rows`, for the counts."""


class Learner(Protocol):
    """Facts computed from training rows, added table by table."""

    @property
    def names(self) -> Sequence[str]:
        """The columns that `add` reads."""

    def add(self, rows: Rows) -> None:
        """Add rows of `survey/`."""

    def result(self) -> dict[str, Any]:
        """The facts of all rows added so far, as plain values."""

    def log(self) -> None:
        """Log the facts, and warn of values that cannot be filled."""


K = TypeVar("K", bound=InputKind)


@dataclass(frozen=True)
class ModelContext:
    """What a model is given in addition to its settings.

    inputs : the kinds that its type asks for (`Model.inputs`), in that order.
    """

    inputs: tuple[InputKind, ...]
    grid: Grid
    seed: int

    def to_json(self) -> dict[str, Any]:
        """The context as plain values."""
        inputs = {kind.name: kind.to_json() for kind in self.inputs}
        return {"inputs": inputs, "grid": asdict(self.grid), "seed": self.seed}

    def of(self, kind: type[K]) -> K:
        """The input of a kind."""
        return next(found for found in self.inputs if isinstance(found, kind))

    def read(self, rows: Rows) -> Batch:
        """The rows as the model's batch: that of its only kind, or a `Joint`."""
        if len(self.inputs) == 1:
            return self.inputs[0].read(rows)
        return Joint({kind.name: kind.read(rows) for kind in self.inputs})

    def columns(self) -> list[str]:
        """The columns that `read` reads, each once."""
        return list(dict.fromkeys(name for kind in self.inputs for name in kind.columns()))

    def needed(self) -> list[str]:
        """The columns without which a table cannot be used, each once."""
        return list(dict.fromkeys(name for kind in self.inputs for name in kind.needed()))

    def degradation(self, train: Batch, learned: Mapping[str, Any]) -> Degradation:
        """Removal of parts of the data; nothing is removed from rows of several kinds. learned : name of the kind -> result of its learner."""
        first = self.inputs[0]
        return first.degradation(train.excerpt(), learned.get(first.name)) if len(self.inputs) == 1 else Degradation()

    def labelled(self, sample: pa.Table, weighted: bool = True) -> LabelledBatch:
        """Rows of `sample/<split>.parquet`, each of weight 1 if not `weighted`."""
        z, weight = (sample.column(name).to_numpy().astype(np.float64) for name in ("redshift", "weight"))
        return LabelledBatch(self.read(sample), z, weight if weighted else np.ones(len(z)), label_errors(sample))


def label_errors(sample: pa.Table) -> NDArray[np.float64] | None:
    """(n,) errors of the redshifts of a table of the sample, NaN where unknown; None where all are."""
    if "redshift_err" not in sample.schema.names:
        return None
    found = sample.column("redshift_err").to_numpy().astype(np.float64)
    found = np.where(found > 0, found, np.nan)
    return found if np.isfinite(found).any() else None
