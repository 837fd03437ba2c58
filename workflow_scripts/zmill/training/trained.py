"""A model ready for inference: fitted and calibrated, with its out-of-distribution detector and prior."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zmill import metrics
from zmill.catalog.sizes import BATCH_BYTES
from zmill.chunks import evenly, row_chunks
from zmill.inputs.base import FULL, Batch, LabelledBatch, ModelContext
from zmill.models.base import Model
from zmill.models.registry import model_class
from zmill.networks.callbacks import Callback
from zmill.networks.device import sent
from zmill.pdf import calibration_fit, conformal, odds, points
from zmill.pdf.calibration import Calibration
from zmill.pdf.conformal import Conformal
from zmill.pdf.odds import Odds
from zmill.pdf.scores import pdf_scores
from zmill.training import out_of_distribution, prior
from zmill.training.prior import Kinds, Prior

BATCH = 65_536
PIT_BINS = 20
"""Bins of the histograms of the PIT before and after calibration."""


class Densities(NamedTuple):
    """Predictions of n rows.

    density : (n, grid.size) float32 densities on the model's device, each integrating to 1.
    levels : (n, 4) cumulative probabilities of the ends of the conformal intervals.
    ood : (n,) whether the row is out of distribution.
    own : (n,) whether the density is the model's own, without n(z); the odds of such rows are to be calibrated (`TrainedModel.odds`).
    """

    density: Tensor
    levels: Tensor
    ood: NDArray[np.bool_]
    own: NDArray[np.bool_]


class ModelError(Exception):
    """A model cannot be trained, saved or loaded; the message gives the cause and the remedy."""


@dataclass
class TrainedModel:
    """A fitted model with its calibration, conformal intervals, odds, out-of-distribution detector and prior.

    name : name of the entry of `models:`.
    type : model type, the name of its file in `zmill/models/`.
    facts : JSON-ready facts of the training.
    """

    name: str
    type: str
    model: Model
    calibration: Calibration
    conformal: Conformal
    odds: Odds
    detector: out_of_distribution.Detector
    prior: Prior
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def context(self) -> ModelContext:
        """The context of the model: inputs, grid, seed."""
        return self.model.context

    def predict(self, batch: Batch) -> Tensor:
        """Calibrated densities, (n, grid.size) float32 on the model's device, each integrating to 1."""
        return self.predict_all(batch).density

    @torch.inference_mode()
    def predict_all(self, batch: Batch) -> Densities:
        """Predict a batch; `zmill.predict.infer` computes the same in another order of steps."""
        device = self.model.device
        density = self.calibrated(self.model.predict(batch))
        far, kinds = self.kinds(batch)
        kinds = np.where(~torch.isfinite(density.sum(1)).cpu().numpy(), np.int32(self.prior.nothing), kinds)
        levels = self.conformal.levels(device)[self.interval_bins(batch)]
        few = np.flatnonzero(kinds >= 0)
        if len(few):
            at, kind = torch.from_numpy(few).to(device), torch.from_numpy(kinds[few]).to(device)
            density, levels = density.clone(), levels.clone()
            density[at] = self.prior.mixed(density[at], kind)
            levels[at] = self.prior.levels(device)[kind.long()]
        return Densities(density, levels, far | (kinds == self.prior.nothing), kinds < 0)

    def calibrated(self, density: Tensor) -> Tensor:
        """(n, grid.size) calibrated densities, without the prior."""
        return self.calibration(density.float(), self.context.grid)

    def interval_bins(self, batch: Batch) -> Tensor:
        """(n,) number of the bin of `conformal` of each row, on the model's device."""
        return sent(self.conformal.bin_of(torch.from_numpy(batch.brightness())), self.model.device)

    def kinds(self, batch: Batch) -> tuple[NDArray[np.bool_], Kinds]:
        """(n,) whether no training row is near the row, and (n,) kinds of `prior`."""
        far = _far(self.model, self.detector, batch)
        return far, self.prior.kinds(batch, far)

    def ood(self, batch: Batch) -> NDArray[np.bool_]:
        """(n,) whether the row is out of distribution, which includes all rows without any information."""
        far, kinds = self.kinds(batch)
        return far | (kinds == self.prior.nothing)

    def to(self, device: torch.device) -> TrainedModel:
        """Move the model to a device."""
        self.model.to(device)
        return self


def fit_and_calibrate(
    name: str,
    type_: str,
    settings: Any,
    context: ModelContext,
    train: LabelledBatch,
    valid: LabelledBatch,
    calib: LabelledBatch,
    device: torch.device,
    log: Callable[[str], None],
    callback: Callback | None = None,
    learned: Mapping[str, Any] | None = None,
    odds_width: float = odds.WIDTH,
) -> TrainedModel:
    """Fit a model on `train` with early stopping and selection on `valid`, calibrate it on `calib`, fit its detector on `train`.

    Parameters
    ----------
    settings : the model type's own `Settings`.
    log : function that logs a line.
    callback : callback of the training of networks.
    learned : name of the input kind -> facts with which the clean stage fills missing values; kinds that are left out keep them.
    odds_width : width of the odds (`zmill.pdf.odds`).

    Raises
    ------
    ModelError
        With fewer training rows than the model needs, or no validation or calibration rows.
    """
    cls = model_class(type_)
    if len(train) < cls.min_train or not len(valid) or not len(calib):
        raise ModelError(
            f"model {name} ({type_}) needs at least {cls.min_train} training rows and one each to validate and to "
            f"calibrate; found {len(train)}, {len(valid)} and {len(calib)}: relax survey.cuts or labels.min_quality, "
            "widen crossmatch.radius_arcsec, give more spectroscopic redshifts, or leave this model out"
        )
    grid = context.grid
    on_grid = [len(rows.inside(grid)) for rows in (train, valid, calib)]
    if on_grid[0] < cls.min_train or not all(on_grid):
        raise ModelError(
            f"model {name} ({type_}): the survey's redshift_grid goes from {grid.z_min:g} to {grid.z_max:g}, and of "
            f"{len(train)} training, {len(valid)} validation and {len(calib)} calibration redshifts only {on_grid[0]}, "
            f"{on_grid[1]} and {on_grid[2]} are on it; at least {cls.min_train}, 1 and 1 are needed: set redshift_grid to the "
            f"redshifts of the labels (training rows: {train.z.min():.4g} to {train.z.max():.4g})"
        )
    _check_varies(name, train)
    if (beyond := len(train) - on_grid[0]) > 0:
        log(f"{name}: {beyond:,} training redshifts are beyond redshift_grid ({grid.z_min:g} to {grid.z_max:g})")
    log(f"{name}: fitting {type_} on {len(train):,} rows, selecting on {len(valid):,}, on {device}")
    started = time.monotonic()
    model = cls(settings, context)
    model.callback = callback or model.callback
    fitted = model.fit(train, valid, device, log)
    model.to(device)
    seconds = time.monotonic() - started + model.callback.earlier_seconds
    with torch.inference_mode():
        found, pit = calibration_fit.fit(lambda rows: _densities(model, calib.batch, rows), grid, calib.z, calib.weight)
        intervals = conformal.fit(pit, calib.batch.brightness().astype(np.float64), calib.weight)
        scores = _scores(model, found, valid)
    log(
        f"{name}: fitted in {seconds:.1f} s; calibration: power {found.power:g}, remap of degree "
        f"{max(len(found.remap) - 1, 0)}, {'by row' if found.local else 'the same for all rows'}; "
        f"intervals in {intervals.bins - 1} bins of brightness"
    )
    detector = out_of_distribution.fit(train.batch, context.seed)
    degradation = context.degradation(train.batch, learned or {})
    far = _far(model, detector, calib.batch)
    with torch.inference_mode():
        fitted_odds = _fit_odds(model, found, calib, far, odds_width)
        fitted_prior = prior.fit(
            lambda batch: found(model.predict(batch).float(), grid),
            *(grid, train, calib, far, degradation),
        )
    classes = [pattern.name for pattern, _ in degradation.least(calib.batch[:1])]
    weights = zip([*classes, "out of distribution"], fitted_prior.weights, strict=False)
    log(
        f"{name}: prior weight of the training rows' n(z): "
        + "; ".join(f"{class_} {weight:.2g}" for class_, weight in weights)
    )
    facts = {
        "fit": fitted,
        "train_seconds": round(seconds, 3),
        "device": str(device),
        "calibration": {"measured_on": "valid", **scores},
        "rows": {"train": len(train), "valid": len(valid), "calib": len(calib)},
    }
    return TrainedModel(name, type_, model, found, intervals, fitted_odds, detector, fitted_prior, facts)


def _far(model: Model, detector: out_of_distribution.Detector, batch: Batch) -> NDArray[np.bool_]:
    """(n,) whether no training row is near, by the model's own measure where it has one."""
    own = model.far(batch)
    return detector(batch) if own is None else own


def _fit_odds(
    model: Model, calibration: Calibration, calib: LabelledBatch, far: NDArray[np.bool_], width: float
) -> Odds:
    """Calibrate the odds on calibration rows whose densities are the model's own. far : (n,) whether they are out of distribution."""
    grid = model.context.grid
    rows = np.flatnonzero(~far & (calib.batch.information() == FULL))
    rows = rows[evenly(len(rows), calibration_fit.MAX_ROWS)] if len(rows) else rows
    modes, masses = [], []
    for part in row_chunks(max(len(rows), 1), calibration_fit.CHUNK):
        density = calibration(_densities(model, calib.batch, rows[part]).float(), grid)
        peak = points.mode(density, grid)
        modes.append(peak.cpu().numpy())
        masses.append(points.mass_near(density, grid.cdf(density), grid, peak, width).double().cpu().numpy())
    mass, weight = np.concatenate(masses), calib.weight[rows]
    right = Odds(width).right(np.concatenate(modes), calib.z[rows])
    known = np.isfinite(mass)
    return odds.fit(mass[known], right[known], weight[known], width)


def _densities(model: Model, batch: Batch, rows: NDArray[np.int64]) -> Tensor:
    """(k, grid.size) densities of rows of given numbers."""
    parts = row_chunks(max(len(rows), 1), batch.rows_in(BATCH_BYTES, BATCH))
    return torch.cat([model.predict(batch[rows[part]]) for part in parts])


def _check_varies(name: str, train: LabelledBatch) -> None:
    """Refuse inputs that are constant over all rows; for single constant parts, `sample.json` has a warning."""
    features = train.batch.summary_features()
    values = [np.unique(column[np.isfinite(column)]) for column in features.T]
    if max(map(len, values), default=0) > 1:
        return
    fixed = [f"{part} is {value:g}" for part, (value, _) in train.batch.constants().items()]
    raise ModelError(
        f"model {name}: the inputs of the {len(train):,} training rows do not vary ({', '.join(fixed) or 'nothing is measured in any row'}), "
        "so that they have no information on redshift: check that the columns of the survey definition (columns.flux) name what the "
        "survey measured, and not a constant"
    )


def refit(trained: TrainedModel, rows: LabelledBatch, log: Callable[[str], None]) -> None:
    """Refit a calibrated model on all of `rows`, which include the validation and calibration rows.

    The settings selected on validation rows and the calibration are kept.
    """
    model, context = trained.model, trained.context
    log(f"{trained.name}: refitting on all {len(rows):,} labelled rows but the test rows")
    started = time.monotonic()
    model.refit(rows, model.device, log)
    model.to(model.device)
    trained.detector = out_of_distribution.fit(rows.batch, context.seed)
    trained.prior = trained.prior.of(rows, context.grid)
    trained.facts["rows"]["refit"] = len(rows)
    trained.facts["refit_seconds"] = round(time.monotonic() - started, 3)


def _scores(model: Model, calibration: Calibration, rows: LabelledBatch) -> dict[str, dict[str, Any]]:
    """Metrics of densities `before` and `after` calibration, and how many PITs are in each of 20 bins."""
    grid = model.context.grid
    parts: dict[str, list[metrics.PdfScores]] = {"before": [], "after": []}
    for part in row_chunks(len(rows), rows.batch.rows_in(BATCH_BYTES, BATCH)):
        plain = model.predict(rows.batch[part])
        for when, density in (("before", plain), ("after", calibration(plain, grid))):
            parts[when].append(pdf_scores(density, grid, rows.z[part]))
    found = {}
    for when, some in parts.items():
        scores = metrics.PdfScores.join(some)
        histogram = np.histogram(scores.pit, PIT_BINS, (0, 1))[0].tolist()
        found[when] = {**metrics.pdf_metrics(scores), "pit_histogram": histogram}
    return found
