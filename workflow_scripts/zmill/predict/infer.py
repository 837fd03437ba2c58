"""Inference: point estimates, flags and PDFs of a batch of clean rows, computed on the device."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from zmill.inputs.base import FAILS_CUT, GRID_EDGE, NO_REDSHIFT, OOD, Batch
from zmill.kernels.fused import Fused
from zmill.kernels.table import Table
from zmill.models.base import LocationScaleModel
from zmill.networks.device import sent
from zmill.pdf import arrow, compact, conformal, points
from zmill.pdf.calibration import Calibration
from zmill.pdf.grid import Grid
from zmill.predict.read import IDENTITY
from zmill.training.prior import Kinds
from zmill.training.trained import TrainedModel

Stored = Literal["none"] | arrow.Kind
"""Format of the stored PDFs: `predict.pdf`."""

COLUMNS = (*points.COLUMNS, *conformal.COLUMNS)
"""Numeric columns of `photoz/`."""
ODDS = points.COLUMNS.index("odds")

NO_REDSHIFT_ODDS = 0.5
"""Odds below which the flag `NO_REDSHIFT` is set."""
CPU_ROWS, CPU_DENSITIES = 65_536, 8192
"""Rows that a thread computes at a time, with densities from a table and with computed densities: enough that operations
cost more than their calls, in which threads wait for each other, and few enough for densities to fit the cache."""


class Inference:
    """Applies a model to record batches; see `zmill.predict.engine.Infer`.

    Parameters
    ----------
    kind : `predict.pdf`: none, compact or full.
    pool : the threads that compute where there is no GPU.
    """

    def __init__(self, model: TrainedModel, kind: Stored, pool: ThreadPoolExecutor) -> None:
        self.model, self.kind, self.pool = model, kind, pool
        self.grid, self.device = model.context.grid, model.model.device
        # A density on the whole grid must be computed all the same where it is to be stored.
        self._location_scale = model.model if isinstance(model.model, LocationScaleModel) and kind != "full" else None
        self._levels, self._prior_levels = model.conformal.levels(self.device), model.prior.levels(self.device)
        fused, own = kind != "full" and self.device.type == "cpu", self._levels.shape[1]
        self._fused = self._compiled(model.calibration, own) if fused else None
        self._plain_fused = self._compiled(Calibration(), own) if fused else None
        self._table = None if self._location_scale is None else self._tabulate(self._location_scale)
        self._at_once = CPU_DENSITIES if self._location_scale is None else CPU_ROWS
        self._lane = threading.local()
        with torch.inference_mode():
            nothing = model.prior.density[None].to(self.device)
            self._nothing = self._described(nothing, self._prior_levels[-1:])

    def photoz_schema(self, clean: pa.Schema) -> pa.Schema:
        """Columns of `photoz/`."""
        floats = [pa.field(name, pa.float32()) for name in COLUMNS]
        floats[ODDS] = floats[ODDS].with_metadata({"width": f"{self.model.odds.width:g}"})
        return pa.schema([*_identity(clean), *floats, pa.field("ood", pa.bool_()), pa.field("flags", pa.int32())])

    def pdf_schema(self, clean: pa.Schema) -> pa.Schema:
        """Columns of `pdf/`; its metadata contain the kind and the grid."""
        assert self.kind != "none", "no pdf/ is written"
        return pa.schema([*_identity(clean), arrow.field(self.kind, self.grid)], arrow.metadata(self.kind, self.grid))

    def __call__(self, batch: pa.RecordBatch) -> Callable[[], tuple[pa.RecordBatch, ...]]:
        """Begin; the returned function waits and returns the batch of `photoz/` and, unless PDFs are off, that of `pdf/`."""
        finish = self._on_gpu(batch) if self.device.type == "cuda" else self._on_cpu(batch)
        return lambda: self._written(batch, finish())

    def _written(self, batch: pa.RecordBatch, found: _Found) -> tuple[pa.RecordBatch, ...]:
        identity = [batch.column(name) for name in IDENTITY]
        computed = [pa.array(column) for column in (*found.points, found.ood, found.flags)]
        photoz = pa.record_batch([*identity, *computed], schema=self.photoz_schema(batch.schema))
        if found.pdf is None or self.kind == "none":
            return (photoz,)
        column = arrow.column(self.kind, torch.from_numpy(found.pdf))
        return photoz, pa.record_batch([*identity, column], schema=self.pdf_schema(batch.schema))

    def _on_cpu(self, batch: pa.RecordBatch) -> Callable[[], _Found]:
        """Compute piece by piece, each on one thread from Arrow's columns to the output."""
        found = _Found.empty(batch.num_rows, self._pdf_width, self._pdf_type)

        def compute(start: int) -> None:
            piece, part = slice(start, start + self._at_once), batch.slice(start, self._at_once)
            rows = self.model.context.read(part)
            few = _Few.of(self.model, rows)
            estimates, pdf, lost = self._compute(rows, lambda: few)
            found.points[:, piece] = estimates.numpy()
            found.ood[piece] = ood = few.far | lost.numpy()
            found.flags[piece] = _flags(part, rows, found.points[:, piece], ood, lost.numpy(), self.grid)
            if found.pdf is not None and pdf is not None:
                found.pdf[piece] = pdf.numpy()

        pieces = [self.pool.submit(compute, start) for start in range(0, batch.num_rows, self._at_once)]

        def finish() -> _Found:
            for piece in pieces:
                piece.result()
            return found

        return finish

    def _on_gpu(self, batch: pa.RecordBatch) -> Callable[[], _Found]:
        """Compute the batch at once on this lane's own stream, into pinned memory; this thread continues meanwhile."""
        rows = self.model.context.read(batch)
        if not hasattr(self._lane, "stream"):
            self._lane.stream = torch.cuda.Stream()
        with torch.cuda.stream(self._lane.stream):
            known: list[_Few] = []

            def few() -> _Few:  # once most of the work is under way
                known.append(_Few.of(self.model, rows))
                return known[0]

            pinned = [None if found is None else _to_pinned(found) for found in self._compute(rows, few)]
            end = self._lane.stream.record_event()

        def finish() -> _Found:
            end.synchronize()
            # copied from pinned memory, which another batch reuses
            points, pdf, lost = (None if found is None else found.numpy().copy() for found in pinned)
            assert points is not None and lost is not None
            far = known[0].far | lost
            return _Found(points, far, _flags(batch, rows, points, far, lost, self.grid), pdf)

        return finish

    @torch.inference_mode()
    def _compute(self, rows: Batch, few: Callable[[], _Few]) -> tuple[Tensor, Tensor | None, Tensor]:
        """(14, n) numbers and (n, width) PDF of rows, and (n,) whether a row has no information and gets the training rows' n(z).

        Work on a GPU is queued without waiting, except for the few rows that are in no table.
        few : finds the rows with little information.
        """
        bins = self.model.interval_bins(rows)
        if self._location_scale is not None and self._table is not None:
            family = self._location_scale
            loc, log_scale = family.loc_scale(rows)
            numbers = self._table(loc, log_scale, bins)
            lost = ~torch.isfinite(loc + log_scale)
            of_points, quantiles, ends = numbers.tensor_split([len(points.COLUMNS), -len(conformal.COLUMNS)])
            found = self._with_odds(torch.cat([of_points, ends]))
            pdf = compact.pack(quantiles.T, self.grid) if self.kind == "compact" else None
            return self._completed(found, pdf, lost, few(), lambda at: family.density_at(loc[at], log_scale[at]))
        if self._fused is not None:
            logs = self.model.model.log_density(rows)
            found, pdf, lost = self._fused(logs, self._levels[bins])
            return self._completed(self._with_odds(found), pdf, lost, few(), lambda at: self._density_of(logs[at]))
        own = self.model.model.predict(rows)
        density, lost = self._answered(self.model.calibrated(own))
        found, pdf = self._summarize(density, self._levels[bins])
        return self._completed(self._with_odds(found), pdf, lost, few(), lambda at: own[at])

    def _with_odds(self, found: Tensor) -> Tensor:
        """Numbers (14, n) with calibrated odds, in place."""
        found[ODDS] = self.model.odds(found[ODDS])
        return found

    def _completed(
        self, found: Tensor, pdf: Tensor | None, lost: Tensor, few: _Few, density_of: Callable[[Tensor], Tensor]
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """The result of `_compute`, with n(z) mixed in for rows with little information.

        found, pdf, lost : of the model alone. density_of : the model's own densities of rows of given numbers.
        """
        prior = self.model.prior
        some = np.flatnonzero((few.kinds >= 0) & (few.kinds < prior.nothing))
        if len(some):
            at, kinds = (sent(values, self.device) for values in (some, few.kinds[some]))
            density, _ = self._answered(prior.mixed(self.model.calibrated(density_of(at)), kinds))
            numbers, stored = self._described(density, self._prior_levels[kinds.long()])
            found[:, at] = numbers
            if pdf is not None and stored is not None:
                _plain(pdf)[at] = _plain(stored)
        lost = lost | sent(few.kinds == prior.nothing, self.device)
        if self.device.type != "cpu" or bool(lost.any()):  # reading a value from another device waits for it
            numbers, stored = self._nothing
            found = torch.where(lost, numbers, found)
            if pdf is not None and stored is not None:
                pdf = torch.where(lost[:, None], _plain(stored), _plain(pdf)).view(pdf.dtype)
        return found, pdf, lost

    def _described(self, density: Tensor, levels: Tensor) -> tuple[Tensor, Tensor | None]:
        """Numbers and PDFs of calibrated densities, with each row's own levels of the ends of intervals."""
        if self._plain_fused is None:
            return self._summarize(density, levels)
        return self._plain_fused(density.log(), levels)[:2]

    def _density_of(self, logs: Tensor) -> Tensor:
        """Densities of logarithms of any scale."""
        return self.grid.normalize((logs - logs.amax(1, keepdim=True)).exp())

    def _answered(self, density: Tensor) -> tuple[Tensor, Tensor]:
        """Densities (n, grid.size), flat where they are no numbers, and (n,) where that is."""
        lost = ~torch.isfinite(density.sum(1))
        return torch.where(lost[:, None], 1 / (self.grid.z_max - self.grid.z_min), density), lost

    def _summarize(self, density: Tensor, own: Tensor) -> tuple[Tensor, Tensor | None]:
        """(10 + k, n) points and quantiles at each row's own levels (n, k), and (n, width) PDF of densities."""
        width = self.model.odds.width
        columns, z = points.summarize_with(density, self.grid, self._quantile_levels, own, width)
        of_points = torch.stack([columns[name] for name in points.COLUMNS])
        pdf = None
        if self.kind == "compact":
            pdf = compact.pack(z[:, : len(compact.LEVELS)], self.grid)
        if self.kind == "full":
            pdf = density.half()
        return torch.cat([of_points, z[:, len(self._quantile_levels) :].T]), pdf

    def _compiled(self, calibration: Calibration, own: int) -> Fused:
        """Calibration and summary in one pass, with `own` levels of each row's own."""
        return Fused(calibration, self.grid, self.kind == "compact", own, self.model.odds.width)

    def _tabulate(self, model: LocationScaleModel) -> Table:
        """Points, for compact PDFs quantiles as redshifts, and ends of intervals: those of a row's bin, or, at the nodes of the
        table, of all bins one after the other."""
        own, bins = self._levels.shape[1], len(self._levels)
        of_nodes = None if self._fused is None else self._compiled(self.model.calibration, own * bins)

        @torch.inference_mode()
        def describe(loc: Tensor, log_scale: Tensor, of_rows: Tensor | None) -> Tensor:
            density = model.density_at(loc, log_scale)
            levels = self._levels.flatten().expand(len(density), -1) if of_rows is None else self._levels[of_rows]
            fused = of_nodes if of_rows is None else self._fused
            if fused is not None:
                found, codes, _ = fused(density.log(), levels)
            else:
                calibrated, _ = self._answered(self.model.calibration(density, self.grid))
                found, codes = self._summarize(calibrated, levels)
            of_points, ends = found.T.tensor_split([len(points.COLUMNS)], 1)
            between = [] if codes is None else [compact.unpack(codes, self.grid)]
            return torch.cat([of_points, *between, ends], 1)

        return Table.build(describe, self.grid, own, bins, self.device, self.pool)

    @property
    def _quantile_levels(self) -> tuple[float, ...]:
        """Levels of the quantiles that are computed for every row; those of compact PDFs first."""
        return compact.WITH_POINTS if self.kind == "compact" else points.LEVELS

    @property
    def _pdf_width(self) -> int:
        return {"none": 0, "compact": len(compact.LEVELS), "full": self.grid.size}[self.kind]

    @property
    def _pdf_type(self) -> type:
        return np.float16 if self.kind == "full" else np.uint16


@dataclass(frozen=True)
class _Found:
    """points : (14, n) float32; ood : (n,) bool; flags : (n,) int32; pdf : (n, width) or None."""

    points: NDArray[np.float32]
    ood: NDArray[np.bool_]
    flags: NDArray[np.int32]
    pdf: NDArray[Any] | None

    @classmethod
    def empty(cls, n: int, width: int, pdf_type: type) -> _Found:
        pdf: NDArray[Any] | None = np.empty((n, width), pdf_type) if width else None
        return cls(np.empty((len(COLUMNS), n), np.float32), np.empty(n, np.bool_), np.empty(n, np.int32), pdf)


@dataclass(frozen=True)
class _Few:
    """far : (n,) whether no training row is near; kinds : (n,) of `Prior`."""

    far: NDArray[np.bool_]
    kinds: Kinds

    @classmethod
    def of(cls, model: TrainedModel, rows: Batch) -> _Few:
        return cls(*model.kinds(rows))


def _identity(clean: pa.Schema) -> list[pa.Field]:
    return [clean.field(name) for name in IDENTITY]


def _flags(
    batch: pa.RecordBatch,
    rows: Batch,
    numbers: NDArray[np.float32],
    ood: NDArray[np.bool_],
    lost: NDArray[np.bool_],
    grid: Grid,
) -> NDArray[np.int32]:
    """(n,) flags. numbers : (14, n) in the order of `COLUMNS`; lost : (n,) rows without any information."""
    flags, mode = rows.flags(), numbers[0]
    cut = [(FAILS_CUT, batch.column("cut").to_numpy() != 0)] if "cut" in batch.schema.names else []
    edge = (mode < np.float32(grid.z_min + grid.step)) | (mode > np.float32(grid.z_max - grid.step))
    none = lost | (numbers[ODDS] < NO_REDSHIFT_ODDS)
    for bit, holds in (*cut, (OOD, ood), (GRID_EDGE, edge), (NO_REDSHIFT, none)):
        flags |= np.int32(bit) * holds
    return flags


def _plain(values: Tensor) -> Tensor:
    """View unsigned 16-bit codes as signed integers, because not every device can index unsigned ones."""
    return values.view(torch.int16) if values.dtype == torch.uint16 else values


def _to_pinned(values: Tensor) -> Tensor:
    return torch.empty(values.shape, dtype=values.dtype, pin_memory=True).copy_(values, non_blocking=True)
