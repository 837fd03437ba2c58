"""A model that is ready to be applied: fitted, calibrated, and knowing where its training rows lie and what their n(z) is."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zmill import metrics
from zmill.chunks import row_chunks
from zmill.inputs.base import Context, Labelled
from zmill.inputs.photometry.batch import Photometry
from zmill.inputs.photometry.missing_bands import BandRemoval, Fill
from zmill.models.base import Model
from zmill.models.registry import model_class
from zmill.networks.callbacks import Watch
from zmill.networks.device import sent
from zmill.pdf import calibration_fit, conformal
from zmill.pdf.calibration import Calibration
from zmill.pdf.conformal import Conformal
from zmill.training import out_of_distribution, prior
from zmill.training.prior import Kinds, Prior

BATCH = 65_536
PIT_BINS = 20
"""Bins of the histograms of the PIT before and after calibration."""


class ModelError(Exception):
    """A model cannot be trained, saved or loaded as asked; the message says why and what to do."""


@dataclass
class TrainedModel:
    """A fitted model with its calibration, its intervals of stated coverage, its domain and what is said where it knows little.

    name : the entry of `models:`; type : its file in `zmill/models/`; facts : JSON-ready facts of the training.
    """

    name: str
    type: str
    model: Model
    calibration: Calibration
    conformal: Conformal
    domain: out_of_distribution.Domain
    prior: Prior
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def context(self) -> Context:
        """Bands, grid, seed."""
        return self.model.context

    def predict(self, batch: Photometry) -> Tensor:
        """Calibrated densities, (n, grid.size) float32 on the model's device, each integrating to 1."""
        return self.answer(batch)[0]

    @torch.inference_mode()
    def answer(self, batch: Photometry) -> tuple[Tensor, Tensor, NDArray[np.bool_]]:
        """What is said of a batch; `zmill.predict.infer` says the same in another order of steps.

        Returns
        -------
        (n, grid.size) float32 densities on the model's device, each integrating to 1; (n, 4) levels of the ends of
        intervals of stated coverage; (n,) whether the row is out of distribution.
        """
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
        return density, levels, far | (kinds == self.prior.nothing)

    def calibrated(self, density: Tensor) -> Tensor:
        """Calibrated densities of the model's own, (n, grid.size)."""
        return self.calibration(density.float(), self.context.grid)

    def interval_bins(self, batch: Photometry) -> Tensor:
        """(n,) number of each row's bin of `conformal`, on the model's device."""
        magnitude = torch.from_numpy(batch.mag[:, self.context.reference])
        return sent(self.conformal.bin_of(magnitude), self.model.device)

    def kinds(self, batch: Photometry) -> tuple[NDArray[np.bool_], Kinds]:
        """(n,) True where no training row is near, and (n,) kinds of `prior`."""
        far = self.domain(batch)
        return far, self.prior.kinds(batch, far)

    def ood(self, batch: Photometry) -> NDArray[np.bool_]:
        """(n,) True where no training row is near, which no row without a measured band has: the density is an extrapolation."""
        far, kinds = self.kinds(batch)
        return far | (kinds == self.prior.nothing)

    def to(self, device: torch.device) -> TrainedModel:
        """Move what computes densities to a device."""
        self.model.to(device)
        return self


def fit_and_calibrate(
    name: str,
    type_: str,
    settings: Any,
    context: Context,
    train: Labelled,
    valid: Labelled,
    calib: Labelled,
    device: torch.device,
    say: Callable[[str], None],
    watch: Watch | None = None,
    fill: Fill | None = None,
) -> TrainedModel:
    """Fit a model on `train` (choosing on `valid`), calibrate its densities on `calib`, learn its domain on `train`.

    Parameters
    ----------
    settings : the model type's own `Settings`.
    say : takes a line for the log.
    watch : looks on while networks are trained.
    fill : what fills missing bands in the rows that the model is applied to; None where they stay empty.

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
    there = [len(rows.inside(grid)) for rows in (train, valid, calib)]
    if there[0] < cls.min_train or not all(there):
        raise ModelError(
            f"model {name} ({type_}): the survey's redshift_grid goes from {grid.z_min:g} to {grid.z_max:g}, and of "
            f"{len(train)} training, {len(valid)} validation and {len(calib)} calibration redshifts only {there[0]}, "
            f"{there[1]} and {there[2]} are on it; at least {cls.min_train}, 1 and 1 are needed: set redshift_grid to the "
            f"redshifts of the labels (training rows: {train.z.min():.4g} to {train.z.max():.4g})"
        )
    _check_varies(name, train)
    if (beyond := len(train) - there[0]) > 0:
        say(f"{name}: {beyond:,} training redshifts are beyond redshift_grid ({grid.z_min:g} to {grid.z_max:g})")
    say(f"{name}: fitting {type_} on {len(train):,} rows, choosing on {len(valid):,}, on {device}")
    started = time.monotonic()
    model = cls(settings, context)
    model.watch = watch or model.watch
    fitted = model.fit(train, valid, device, say)
    model.to(device)
    seconds = time.monotonic() - started + model.watch.earlier_seconds
    with torch.inference_mode():
        found, pit = calibration_fit.fit(
            lambda rows: model.predict(calib.photometry[rows]), grid, calib.z, calib.weight
        )
        magnitude = calib.photometry.mag[:, context.reference].astype(np.float64)
        intervals = conformal.fit(pit, magnitude, calib.weight)
        scores = _scores(model, found, valid)
    say(
        f"{name}: fitted in {seconds:.1f} s; calibration: power {found.power:g}, remap of degree "
        f"{max(len(found.remap) - 1, 0)}, {'by row' if found.local else 'the same for all rows'}; "
        f"intervals in {intervals.bins - 1} bins of magnitude"
    )
    domain = out_of_distribution.fit(train.photometry, context.reference, context.seed)
    with torch.inference_mode():
        little = prior.fit(
            lambda batch: found(model.predict(batch).float(), grid),
            *(grid, train, calib, domain(calib.photometry), BandRemoval.of(train.photometry, fill)),
        )
    shares = ", ".join(f"{band} {share:.2g}" for band, share in zip(context.bands, little.shares, strict=False))
    say(
        f"{name}: share of the training rows' n(z): with one band measured: {shares}; out of distribution: {little.shares[-2]:.2g}"
    )
    facts = {
        "fit": fitted,
        "train_seconds": round(seconds, 3),
        "device": str(device),
        "calibration": {"measured_on": "valid", **scores},
        "rows": {"train": len(train), "valid": len(valid), "calib": len(calib)},
    }
    return TrainedModel(name, type_, model, found, intervals, domain, little, facts)


def _check_varies(name: str, train: Labelled) -> None:
    """Refuse photometry that is the same in every row; single bands that are have a warning in `sample.json`."""
    bands, mag = train.photometry.bands, train.photometry.mag
    values = [np.unique(band[np.isfinite(band)]) for band in mag.T]
    if max(map(len, values)) > 1:
        return
    fixed = [f"mag_{band} is {found[0]:g}" for band, found in zip(bands, values, strict=True) if len(found) == 1]
    raise ModelError(
        f"model {name}: the photometry of the {len(train):,} training rows does not vary "
        f"({', '.join(fixed) or 'no band is measured in any row'}), so that no redshift can be told from it: see that "
        "columns.flux of the survey definition names the survey's magnitudes or fluxes, and not a constant"
    )


def refit(trained: TrainedModel, rows: Labelled, say: Callable[[str], None]) -> None:
    """Let a fitted and calibrated model learn again, from all of `rows`: those that chose and calibrated it, too.

    What validation rows chose and calibration rows corrected stays as it is, so that the model is judged and calibrated as
    it was without them; what it knows of redshifts comes from every labelled row but the test rows.
    """
    model, context = trained.model, trained.context
    say(f"{trained.name}: fitting again on all {len(rows):,} labelled rows that are not tested on")
    started = time.monotonic()
    model.refit(rows, model.device, say)
    model.to(model.device)
    trained.domain = out_of_distribution.fit(rows.photometry, context.reference, context.seed)
    trained.prior = trained.prior.of(rows, context.grid)
    trained.facts["rows"]["refit"] = len(rows)
    trained.facts["refit_seconds"] = round(time.monotonic() - started, 3)


def _scores(model: Model, calibration: Calibration, rows: Labelled) -> dict[str, dict[str, Any]]:
    """Metrics of densities `before` and `after` calibration, and how many PITs are in each of 20 bins."""
    grid = model.context.grid
    parts: dict[str, list[metrics.PdfScores]] = {"before": [], "after": []}
    for part in row_chunks(len(rows), BATCH):
        plain = model.predict(rows.photometry[part])
        for when, density in (("before", plain), ("after", calibration(plain, grid))):
            parts[when].append(metrics.pdf_scores(density, grid, rows.z[part]))
    found = {}
    for when, some in parts.items():
        scores = metrics.PdfScores.join(some)
        histogram = np.histogram(scores.pit, PIT_BINS, (0, 1))[0].tolist()
        found[when] = {**metrics.pdf_metrics(scores), "pit_histogram": histogram}
    return found
