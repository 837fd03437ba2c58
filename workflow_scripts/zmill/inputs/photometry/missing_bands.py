"""What becomes of a model where bands are missing, for every subset that matters and not only those in the sample.

Nature's patterns are those of the labelled rows' own states. Where nature gives none, bands are taken away from rows that
have them, as the survey would have written such rows and as the clean stage would have filled them.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zmill import metrics
from zmill.inputs.photometry.batch import FloatArray, MaskArray, Photometry, bits, mask_of

Fill = Callable[[Sequence[FloatArray]], tuple[list[FloatArray], MaskArray]]
"""Fills bands of NaN: (n,) magnitudes per band to the same filled, and the (n,) mask of the bands that were filled."""
STATES = ("undetected", "unobserved", "imputed")
COLUMNS = ("model", "split", "kind", "pattern", "n", *metrics.ALL)
SPLITS = ("valid", "test")
AS_OBSERVED = "as observed"


@dataclass(frozen=True)
class Pattern:
    """Bands (by number) that are taken away: never looked at, or looked at in vain."""

    name: str
    unobserved: tuple[int, ...] = ()
    undetected: tuple[int, ...] = ()


def made(bands: tuple[str, ...], reference: int) -> list[Pattern]:
    """The patterns that are made, each once: rows as they are, each band lost, ends of the spectrum lost, few bands left.

    reference : index of the reference band; the band beside it, on the blue side where there is one, makes its pair.
    """
    every = range(len(bands))

    def only(kept: Sequence[int]) -> Pattern:
        return Pattern("only " + " ".join(bands[b] for b in kept), tuple(b for b in every if b not in kept))

    def without(lost: Sequence[int]) -> Pattern:
        return Pattern("without " + " ".join(bands[b] for b in lost), tuple(lost))

    beside = reference - 1 if reference else min(1, len(bands) - 1)
    found = [
        Pattern(AS_OBSERVED),
        *(without([band]) for band in every),
        without(every[:2]),
        without(every[-2:]),
        only(sorted({beside, reference})),
        only([reference]),
        *(Pattern(f"{bands[band]} undetected", undetected=(band,)) for band in every),
    ]
    once: dict[Any, Pattern] = {}
    for pattern in found:
        once.setdefault((pattern.unobserved, pattern.undetected), pattern)
    return list(once.values())


@dataclass(frozen=True)
class Gaps:
    """How rows of a survey lose bands.

    limits : (bands,) limiting magnitude of a band that is made undetected; NaN where the survey gives none.
    fill : what fills missing bands, or None where they stay empty.
    """

    limits: FloatArray
    fill: Fill | None

    @classmethod
    def of(cls, train: Photometry, fill: Fill | None) -> Gaps:
        """Limits are the medians of the training rows that are undetected in the band."""
        limits = np.full(len(train.bands), np.nan, np.float32)
        for band, values in enumerate(train.maglim.T):
            known = values[np.isfinite(values)]
            limits[band] = np.median(known) if len(known) else np.nan
        return cls(limits, fill)

    def concerns(self, rows: Photometry, pattern: Pattern) -> NDArray[np.bool_]:
        """(n,) rows that the pattern changes and that keep a measured band; as they are, all."""
        bands = len(rows.bands)
        if pattern.name == AS_OBSERVED:
            return np.ones(len(rows), bool)
        seen = ~bits(rows.unobserved, bands)
        changed = seen[:, pattern.unobserved].any(1) | rows.measured[:, pattern.undetected].any(1)
        kept = rows.measured.copy()
        kept[:, [*pattern.unobserved, *pattern.undetected]] = False
        return np.asarray(changed & kept.any(1))

    def apply(self, rows: Photometry, pattern: Pattern) -> Photometry:
        """The rows as they would have come out of the clean stage had the bands been lost.

        A band to be undetected that a row has no measurement in stays as it is.
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


def name_of(states: dict[str, list[str]]) -> str:
    """What a pattern of nature is called: the bands in each state; those that are not named are measured."""
    told = "; ".join(f"{state} {' '.join(states[state])}" for state in STATES if states[state])
    return told or "all bands measured"


def table(evaluations: dict[str, dict[str, Any]]) -> str:
    """`patterns.csv`: a row per split, pattern and model; empty where undefined.

    evaluations : model -> content of its `metrics.json`.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for split in SPLITS:
        by_pattern: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for model in sorted(evaluations):
            found = evaluations[model]["splits"][split]
            named = [("natural", name_of(entry), entry) for entry in found.get("patterns", [])]
            named += [("made", entry["pattern"], entry) for entry in found.get("made", [])]
            for kind, name, entry in named:
                board = {key: "" if value is None else f"{value:.6g}" for key, value in (entry["board"] or {}).items()}
                row = {"model": model, "split": split, "kind": kind, "pattern": name, "n": entry["n"], **board}
                by_pattern.setdefault((kind, name), []).append(row)
        for rows in by_pattern.values():
            writer.writerows(rows)
    return text.getvalue()
