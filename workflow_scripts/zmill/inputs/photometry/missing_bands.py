"""Missing-band tests: how well a model predicts rows without some of the bands.

A natural pattern is the set of missing bands of the labelled rows as they were observed. Other patterns are made: bands are
removed from rows that have them, and the rows are then written and imputed as the survey and the clean stage would do it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zmill.inputs.degradation import AS_OBSERVED, Degradation
from zmill.inputs.photometry.batch import FloatArray, MaskArray, Photometry, bits, mask_of

Fill = Callable[[Sequence[FloatArray]], tuple[list[FloatArray], MaskArray]]
"""Imputation: takes (n,) magnitudes per band with NaN; returns them filled, and the (n,) bit mask of the filled bands."""


@dataclass(frozen=True)
class MissingPattern:
    """A set of bands (by number) that are removed: made unobserved, or made undetected."""

    name: str
    unobserved: tuple[int, ...] = ()
    undetected: tuple[int, ...] = ()


def missing_band_tests(bands: tuple[str, ...], reference: int) -> list[MissingPattern]:
    """The patterns of the missing-band tests, without duplicates.

    They are: rows as observed, without each band, without the two bluest or reddest bands, with the reference band and its
    neighbor only, with the reference band only, and with each band undetected.

    reference : index of the reference band; its neighbor is the next bluer band, or the next redder one of the bluest band.
    """
    every = range(len(bands))

    def only(kept: Sequence[int]) -> MissingPattern:
        return MissingPattern("only " + " ".join(bands[b] for b in kept), tuple(b for b in every if b not in kept))

    def without(lost: Sequence[int]) -> MissingPattern:
        return MissingPattern("without " + " ".join(bands[b] for b in lost), tuple(lost))

    neighbor = reference - 1 if reference else min(1, len(bands) - 1)
    found = [
        MissingPattern(AS_OBSERVED),
        *(without([band]) for band in every),
        without(every[:2]),
        without(every[-2:]),
        only(sorted({neighbor, reference})),
        only([reference]),
        *(MissingPattern(f"{bands[band]} undetected", undetected=(band,)) for band in every),
    ]
    once: dict[Any, MissingPattern] = {}
    for pattern in found:
        once.setdefault((pattern.unobserved, pattern.undetected), pattern)
    return list(once.values())


@dataclass(frozen=True)
class BandRemoval(Degradation):
    """Removal of bands from rows, as the survey would have written rows without them.

    limits : (bands,) limiting magnitude of a band that is made undetected; NaN where the survey has none.
    fill : imputation of missing bands, or None where they stay empty.
    """

    limits: FloatArray
    fill: Fill | None

    @classmethod
    def of(cls, train: Photometry, fill: Fill | None) -> BandRemoval:
        """Take as limits the medians over training rows that are undetected in the band."""
        limits = np.full(len(train.bands), np.nan, np.float32)
        for band, values in enumerate(train.maglim.T):
            known = values[np.isfinite(values)]
            limits[band] = np.median(known) if len(known) else np.nan
        return cls(limits, fill)

    def tests(self, rows: Photometry) -> list[MissingPattern]:  # type: ignore[override]
        return missing_band_tests(rows.bands, rows.reference)

    def least(self, rows: Photometry) -> list[tuple[MissingPattern, NDArray[np.bool_]]]:  # type: ignore[override]
        """Each band alone, of rows in which it is measured; nothing in a survey of one band."""
        every, measured = range(len(rows.bands)), rows.measured
        return [
            (
                MissingPattern(f"only {rows.bands[band]}", tuple(other for other in every if other != band)),
                measured[:, band],
            )
            for band in every
        ]

    def concerns(self, rows: Photometry, pattern: MissingPattern) -> NDArray[np.bool_]:
        """(n,) whether the pattern changes the row and leaves a measured band; True for all rows of the pattern as observed."""
        bands = len(rows.bands)
        if pattern.name == AS_OBSERVED:
            return np.ones(len(rows), bool)
        seen = ~bits(rows.unobserved, bands)
        changed = seen[:, pattern.unobserved].any(1) | rows.measured[:, pattern.undetected].any(1)
        kept = rows.measured.copy()
        kept[:, [*pattern.unobserved, *pattern.undetected]] = False
        return np.asarray(changed & kept.any(1))

    def apply(self, rows: Photometry, pattern: MissingPattern) -> Photometry:
        """The rows as the clean stage would have written them without the bands.

        A band that is to become undetected is unchanged in rows without a measurement of it.
        """
        bands = len(rows.bands)
        unobserved = bits(rows.unobserved, bands)
        undetected = bits(rows.undetected, bands)
        unobserved[:, pattern.unobserved] = True
        undetected[:, pattern.unobserved] = False
        failed = np.zeros_like(undetected)
        failed[:, pattern.undetected] = rows.measured[:, pattern.undetected]
        undetected |= failed
        gone = unobserved | undetected
        mag = np.where(gone | bits(rows.imputed, bands), np.float32(np.nan), rows.mag)
        imputed = np.zeros(len(rows), np.int32)
        if self.fill is not None:
            filled, imputed = self.fill([np.ascontiguousarray(band) for band in mag.T])
            mag = np.stack(filled, axis=1)
        return replace(
            rows,
            mag=mag,
            magerr=np.where(gone, np.float32(np.nan), rows.magerr),
            maglim=np.where(unobserved, np.float32(np.nan), np.where(failed, self.limits, rows.maglim)),
            undetected=mask_of(undetected),
            unobserved=mask_of(unobserved),
            imputed=imputed,
        )
