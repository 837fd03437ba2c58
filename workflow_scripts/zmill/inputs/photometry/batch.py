"""Batches of photometry in memory, the input of every model, and the names of their columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
MaskArray = NDArray[np.int32]

ZERO_POINTS = {
    "nanojansky": 31.4,
    "microjansky": 23.9,
    "millijansky": 16.4,
    "jansky": 8.9,
    "nanomaggy": 22.5,
    "maggy": 0.0,
}
"""AB magnitude of a flux of 1 in each unit of the survey key `photometry` (Oke & Gunn 1983: 3631 Jy is magnitude 0)."""
ZERO_POINT = ZERO_POINTS["nanojansky"]
"""AB magnitude of 1 nJy, the unit of fluxes inside zmill."""
MAGNITUDES = 2.5 / np.log(10)
"""The change in magnitude for a factor e in flux."""
MASKS = ("undetected", "unobserved", "imputed")
"""Columns of bit masks: bit b is band number b of the survey (from 0, blue to red)."""


@dataclass(frozen=True)
class Photometry:
    """A batch of rows.

    mag : (n, bands) AB magnitudes, dereddened where configured; NaN where the band is neither measured nor imputed.
    magerr : (n, bands) magnitudes; NaN where not measured or unknown.
    maglim : (n, bands) limiting magnitude of an undetected band; NaN where unknown or detected.
    undetected, unobserved, imputed : (n,) bit masks.
    ebv : (n,) E(B-V); NaN where unknown.
    extra : (n, len(extra_names)) further numeric columns of the survey.
    """

    bands: tuple[str, ...]
    mag: FloatArray
    magerr: FloatArray
    maglim: FloatArray
    undetected: MaskArray
    unobserved: MaskArray
    imputed: MaskArray
    ebv: FloatArray
    extra: FloatArray
    extra_names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.mag)

    def __getitem__(self, rows: slice | NDArray[np.int64] | NDArray[np.bool_]) -> Photometry:
        """A subset of the rows."""
        arrays = {f.name: getattr(self, f.name)[rows] for f in fields(self) if f.name not in ("bands", "extra_names")}
        return replace(self, **arrays)

    @classmethod
    def join(cls, parts: Sequence[Photometry]) -> Photometry:
        """Concatenate batches that have the same bands."""
        names = [f.name for f in fields(cls) if f.name not in ("bands", "extra_names")]
        arrays: dict[str, Any] = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
        return replace(parts[0], **arrays)

    @property
    def measured(self) -> NDArray[np.bool_]:
        """(n, bands): whether the band has a measured magnitude (not imputed, undetected or unobserved)."""
        return ~bits(self.undetected | self.unobserved | self.imputed, len(self.bands)) & np.isfinite(self.mag)

    @classmethod
    def from_arrow(
        cls, table: pa.Table | pa.RecordBatch, bands: tuple[str, ...], extra_names: tuple[str, ...] = ()
    ) -> Photometry:
        """Read rows of a survey or clean catalogue or of a sample table; absent columns become NaN or 0."""
        n, names = table.num_rows, set(table.schema.names)

        def matrix(columns: list[str]) -> FloatArray:
            out = np.full((n, len(columns)), np.nan, np.float32)
            for number, column in enumerate(columns):
                if column in names:
                    out[:, number] = table.column(column).to_numpy(zero_copy_only=False)
            return out

        def mask(column: str) -> MaskArray:
            if column not in names:
                return np.zeros(n, np.int32)
            return np.asarray(table.column(column).to_numpy(zero_copy_only=False), dtype=np.int32)

        return cls(
            bands=bands,
            mag=matrix([f"mag_{band}" for band in bands]),
            magerr=matrix([f"magerr_{band}" for band in bands]),
            maglim=matrix([f"maglim_{band}" for band in bands]),
            undetected=mask("undetected"),
            unobserved=mask("unobserved"),
            imputed=mask("imputed"),
            ebv=matrix(["ebv"])[:, 0],
            extra=matrix(list(extra_names)),
            extra_names=extra_names,
        )


def columns(bands: tuple[str, ...], extra_names: tuple[str, ...] = ()) -> list[str]:
    """The columns that `Photometry.from_arrow` reads."""
    per_band = [f"{kind}_{band}" for kind in ("mag", "magerr", "maglim") for band in bands]
    return [*per_band, *MASKS, "ebv", *extra_names]


def bits(mask: MaskArray, number: int) -> NDArray[np.bool_]:
    """(n, number) booleans of a bit mask."""
    return (mask[:, None] >> np.arange(number, dtype=np.int32)) & 1 == 1


def mask_of(flags: NDArray[np.bool_]) -> MaskArray:
    """Bit mask of (n, bands) booleans."""
    return np.bitwise_or.reduce(flags.astype(np.int32) << np.arange(flags.shape[1], dtype=np.int32), axis=1)
