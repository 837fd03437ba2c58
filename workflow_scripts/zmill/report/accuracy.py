"""Accuracy of the chosen model on the test rows: sections of the report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from zmill.metrics import COVERAGES, FEWEST_BLOCKS, INTERVALS, badness
from zmill.report import figures
from zmill.report.binned import Floats, trend
from zmill.report.blocks import Cell, Note, Picture, Section, Table, count, number, percent, picture, text
from zmill.report.sources import Sources

HEADLINE = {
    "sigma_mad": "scatter σ_MAD",
    "eta_015": "outliers, |Δz| > 0.15",
    "bias": "bias, mean Δz",
    "crps": "CRPS of the PDFs",
    "coverage_68": "truth in the central 68 %",
}
"""Metrics at the top of the page, and their names there."""
FEWEST = 10
"""Least number of rows for metrics of a subset."""
HIDDEN = {
    "point",
    "weighted",
    "effective_rows",
    *INTERVALS,
}
"""Columns of the leaderboard that the page shows elsewhere."""
SHARES = ("eta_005", "eta_015", "eta_050", "eta_5sigma", "outlier_rail")


@dataclass(frozen=True)
class Tested:
    """The chosen model's predictions of the test rows."""

    table: pa.Table
    z_min: float
    z_max: float
    """Ends of the redshift grid."""
    brightness: str
    """Name and unit of the brightness of a row."""

    @cached_property
    def z_spec(self) -> Floats:
        """Spectroscopic redshifts."""
        return self.column("redshift")

    @cached_property
    def z_phot(self) -> Floats:
        """The point estimate whose errors are shown."""
        return self.column("z_median")

    @cached_property
    def blocks(self) -> NDArray[np.int64]:
        """Block of sky of each row; without positions each row is its own."""
        return np.asarray(self.table.column("block").to_numpy())

    def column(self, name: str) -> Floats:
        """A column as float64."""
        return np.asarray(self.table.column(name).to_numpy(), np.float64)


def headline(split: dict[str, Any]) -> list[dict[str, str]]:
    """The key metrics of the chosen model on the test rows: name, value, interval."""
    intervals = split["intervals"]
    cards = []
    for name, label in HEADLINE.items():
        write = percent if name.startswith(("eta", "coverage")) else number
        value = split["board"].get(name)
        low, high = intervals["metrics"][name]
        spread = f"68 %: {write(low).text} to {write(high).text}"
        if low is None:
            spread = f"no interval from {intervals['blocks']} block(s) of sky"
        cards.append({"name": label, "value": write(value).text, "interval": spread if value is not None else ""})
    return cards


def accuracy_section(tested: Tested) -> Section:
    """Redshift against redshift, and errors by redshift and brightness."""
    z_max = min(tested.z_max, float(np.quantile(tested.z_spec, 0.999)) * 1.15 + 0.05)
    dz = (tested.z_phot - tested.z_spec) / (1 + tested.z_spec)
    outliers = float(np.mean(np.abs(dz) > 0.15))
    width = float(np.clip(8 * 1.4826 * np.median(np.abs(dz)), 0.02, 0.5))
    section = Section("accuracy", "Predicted against spectroscopic redshift", "Accuracy")
    section.blocks += [
        Note(
            f"{len(dz):,} test rows that took no part in training, choosing or calibrating. Δz = (z_median − z_spec) / "
            "(1 + z_spec), with the median of each PDF as z_median. Intervals are 68 %, from drawing blocks of sky, of which "
            f"there are {len(np.unique(tested.blocks)):,}; at least {FEWEST_BLOCKS} are needed."
        ),
        picture(
            "plane",
            f"z_median and z_spec of the test rows. Dashed: |Δz| = 0.15; {percent(outliers).text} lie beyond.",
            f"Two-dimensional histogram of photometric against spectroscopic redshift of {len(dz):,} rows up to z = {z_max:.2g}; "
            f"{percent(outliers).text} of the rows are outside the outlier lines.",
            lambda: figures.redshift_plane(tested.z_spec, tested.z_phot, tested.z_min, z_max),
        ),
        picture(
            "errors",
            f"Distribution of Δz within ±{width:.2g}; what lies beyond is counted at the edges.",
            f"Histogram of the redshift error: median {np.median(dz):.4f}, middle half from {np.quantile(dz, 0.25):.4f} to "
            f"{np.quantile(dz, 0.75):.4f}.",
            lambda: figures.error_histogram(dz, width),
        ),
    ]
    along = {
        "spectroscopic redshift": tested.z_spec,
        "predicted redshift": tested.z_phot,
        tested.brightness: tested.column("brightness"),
    }
    for index, (label, values) in enumerate(along.items()):
        found = trend(values, tested.z_phot, tested.z_spec, tested.blocks)
        if found is None:
            section.blocks.append(Note(f"Too few test rows for errors by {label}."))
            continue
        worst = int(np.argmax(found.values["sigma_mad"]))
        section.blocks.append(
            picture(
                f"trend{index}",
                f"Bias, scatter and outliers (|Δz| > 0.15) by {label}; bins hold the same number of rows. Bars: 68 %, where a "
                f"bin has {FEWEST_BLOCKS} blocks of sky or more.",
                f"Bias, scatter and outlier fraction in {len(found.center)} bins of {label}; scatter is largest, "
                f"{found.values['sigma_mad'][worst]:.3g}, at {found.center[worst]:.3g}.",
                partial(figures.error_trend, found, label),
            )
        )
    return section


def pdf_section(
    pits: dict[str, Floats], split: dict[str, Any], models: dict[str, dict[str, Any]], brightness: str
) -> Section:
    """Calibration of the PDFs, before and after recalibration.

    pits : PIT of the test rows by model, the chosen one first; split : metrics of the chosen model on the test rows;
    models : `model.json` by name; brightness : its name and unit.
    """
    section = Section("pdfs", "Are the PDFs calibrated?", "PDFs")
    board = split["board"]
    rows = [
        [text(f"central {level} %"), percent(level / 100), percent(board.get(f"coverage_{level}"))]
        for level in COVERAGES
    ]
    chosen, pit = next(iter(pits.items()))
    calibrated = {name: models[name]["facts"]["calibration"] for name in pits}
    counts = {
        f"{chosen}, {when} calibration": np.array(calibrated[chosen][when]["pit_histogram"], np.float64)
        for when in ("before", "after")
    }
    section.blocks += [
        Note(
            "The PIT is the probability that a PDF puts below the true redshift. Over many galaxies it is uniform if the PDFs "
            "are calibrated: a hump in the middle means PDFs too wide, horns at the ends too narrow, a slope biased."
        ),
        picture(
            "pit",
            "Histogram of the PIT. Grey: two standard deviations of a uniform sample of this size.",
            f"Histogram of the probability integral transform of {len(pit):,} rows; by {chosen} "
            f"{percent(float(np.mean(pit < 0.05))).text} lie below 0.05 and {percent(float(np.mean(pit > 0.95))).text} above 0.95.",
            lambda: figures.pit_histogram(pits),
        ),
        picture(
            "qq",
            "Quantiles of the PIT against those of a uniform distribution; above, their difference.",
            f"Quantile-quantile plot of the PIT; the distance of {chosen} from uniform (Kolmogorov–Smirnov) is "
            f"{number(board.get('pit_ks')).text}.",
            lambda: figures.pit_quantiles(pits),
        ),
        picture(
            "calibrated",
            f"PIT of the validation rows by {chosen}, before and after calibration.",
            f"Histogram of the probability integral transform by {chosen} of {sum(calibrated[chosen]['after']['pit_histogram']):,} validation rows; its "
            f"distance from uniform is {number(calibrated[chosen]['before']['pit_ks']).text} before and "
            f"{number(calibrated[chosen]['after']['pit_ks']).text} after calibration.",
            lambda: figures.pit_counts(counts),
        ),
        Table(f"How often the true redshift lies in an interval of {chosen}", ["interval", "expected", "found"], rows),
        _stated_table(split["stated_coverage"], brightness.partition(" (")[0]),
        _calibration_table(calibrated, models),
    ]
    return section


def _stated_table(entries: list[dict[str, Any]], brightness: str) -> Table:
    """Measured coverage of the intervals."""
    named = [key for key in entries[0] if key.endswith("%")]
    rows = []
    for entry in entries:
        if not entry["n"]:
            continue
        found = [cell for name in named for cell in _stated_cells(entry.get(name))]
        rows.append([text(_bin(entry, brightness)), count(entry["n"]), *found])
    headers = [header for name in named for header in (f"stated {name}: found", "median width in z")]
    caption = "Intervals z_c025 to z_c975 and z_c160 to z_c840: how often they hold the true redshift, with the standard error of that share"
    return Table(caption, ["test rows", "number", *headers], rows)


def _stated_cells(found: dict[str, Any] | None) -> list[Cell]:
    if found is None:
        return [text("–"), text("–")]
    return [
        Cell(f"{percent(found['found']).text} ± {percent(found['error']).text}", found["found"]),
        number(found["width"]),
    ]


def _bin(entry: dict[str, Any], brightness: str) -> str:
    low, high = entry["low"], entry["high"]
    if entry["rows"] != "bin":
        return str(entry["rows"])
    if low is None and high is None:
        return f"any {brightness}"
    if low is None:
        return f"{brightness} < {high:.2f}"
    return f"{brightness} ≥ {low:.2f}" if high is None else f"{low:.2f} ≤ {brightness} < {high:.2f}"


def _calibration_table(calibrated: dict[str, dict[str, Any]], models: dict[str, dict[str, Any]]) -> Table:
    """Effect of the calibration on every model's PDFs, on the validation rows."""
    shown: dict[str, Callable[[Any], Cell]] = {
        **dict.fromkeys(("crps", "log_score", "cde_loss", "pit_ks"), number),
        "coverage_68": percent,
    }
    rows = []
    for name, scores in calibrated.items():
        taken = models[name]["calibration"]
        steps = [f"power {taken['power']:g}"] if taken["power"] != 1 else []
        steps += ["remap of the PIT" + (" by row" if taken["local"] else "")] if taken["remap"] else []
        pairs = [
            Cell(" → ".join(write(scores[when][metric]).text for when in ("before", "after")), scores["after"][metric])
            for metric, write in shown.items()
        ]
        rows.append([text(name), text(", ".join(steps) or "none: nothing helped"), *pairs])
    headers = ["model", "calibration", *(name if name != "coverage_68" else "in central 68 %" for name in shown)]
    return Table("Calibration: scores of the validation rows before → after", headers, rows)


def kinds_section(sources: Sources, split: dict[str, Any], part: str, metric: str) -> Section:
    """Metrics by the states of a row's parts, and by whether training rows are near.

    split : the test rows in the chosen model's `metrics.json`.
    part : what `Batch.parts` are, such as bands; empty where rows have no parts.
    metric : what the model was chosen by.
    """
    section = Section("kinds", "By what was measured", "By what was measured")
    names = ("sigma_mad", "eta_015", "bias", "crps")
    headers = ["rows", *(HEADLINE[name] for name in names)]
    patterns: dict[str, dict[str, dict[str, str]]] = {}
    for row in sources.patterns:
        if row["split"] == "test":
            patterns.setdefault(row["pattern"], {})[row["model"]] = row
    natural = {
        name: found[sources.chosen]
        for name, found in patterns.items()
        if sources.chosen in found and _any(found)["kind"] == "natural"
    }
    states = [
        [text(name), *_some({"n": int(row["n"]), "board": {key: _float(row[key]) for key in names}}, names)]
        for name, row in natural.items()
    ]
    domains = {"inside": "training rows are near", "outside": "far from every training row"}
    near = [[text(domains.get(name, name)), *_some(entry, names)] for name, entry in split["ood"].items() if entry["n"]]
    enough = {name: found for name, found in patterns.items() if int(_any(found)["n"]) >= FEWEST}
    near_table = Table("Test rows inside and outside of the training domain", ["domain", *headers], near)
    if not part:
        section.blocks.append(near_table)
        return section
    section.blocks += [
        Table(f"Test rows by the state of their {part}, the commonest first", [part, *headers], states),
        near_table,
        Note(
            f"The tables above are of {sources.chosen}, those below of every model, the best in bold. Below the patterns of the "
            f"test rows themselves are patterns that were made: {part} taken away from rows that have them, or made as uncertain "
            "as the name says (undetected: at the survey's usual limit, however bright the row is there)."
        ),
        *(
            _pattern_table(enough, sources.names, part, name)
            for name in dict.fromkeys((metric, "sigma_mad", "eta_015"))
            if enough
        ),
    ]
    return section


def _any(found: dict[str, dict[str, str]]) -> dict[str, str]:
    """One of the rows of a pattern, whose description is the same for all models."""
    return next(iter(found.values()))


def _pattern_table(patterns: dict[str, dict[str, dict[str, str]]], models: list[str], part: str, metric: str) -> Table:
    """One metric of every model in every pattern of bands, or other parts of a row.

    patterns : pattern -> model -> its row of `patterns.csv`. Models that take different inputs do not have the same patterns.
    """
    rows = []
    for name, found in patterns.items():
        values = [_float(found[model][metric]) if model in found else None for model in models]
        badnesses = [badness(metric, value) if isinstance(value, float) else np.inf for value in values]
        cells = [
            replace(_metric(metric, value), best=bad == min(badnesses) < np.inf)
            for value, bad in zip(values, badnesses, strict=True)
        ]
        rows.append([text(name), count(int(_any(found)["n"])), *cells])
    return Table(f"{HEADLINE.get(metric, metric)} of every model by pattern of {part}", [part, "rows", *models], rows)


def _metric(name: str, value: Any) -> Cell:
    return (percent if name in SHARES or name.startswith("coverage") else number)(value)


def _some(entry: dict[str, Any], names: tuple[str, ...]) -> list[Cell]:
    board = entry["board"] if entry["n"] >= FEWEST else {}
    return [count(entry["n"]), *(_metric(name, board.get(name)) for name in names)]


def leaderboard_section(sources: Sources, metric: str) -> Section:
    """Comparison of all models, and their training."""
    section = Section("models", "Models side by side", "Models")
    rows = [row for row in sources.leaderboard if row["weighted"] == "no"]
    shown = [name for name in (rows[0] if rows else ()) if name not in HIDDEN]
    order = [name for name in ("model", "split", "n", metric) if name in shown]
    headers = order + [name for name in shown if name not in order]
    rank = {"test": 0, "valid": 1}
    ranked = sorted(rows, key=lambda row: (rank.get(row["split"], 2), row["model"] != sources.chosen, row["model"]))
    table = [[_leader_cell(name, row[name]) for name in headers] for row in ranked]
    section.blocks += [
        Note(
            f"{sources.chosen} was chosen: {sources.best['why']}. Metrics of Δz are of the median, those of z (mse, mae, rms, r2) of the "
            "mean. A click on a header sorts the table."
        ),
        Table("Every model on every split", headers, table, marked=0 if table else None),
        *_weighted(sources, metric),
    ]
    for name, described in sources.models().items():
        section.blocks += _training(name, described)
    return section


def _weighted(sources: Sources, metric: str) -> list[Note | Table]:
    """Metrics of labelled rows, unweighted and weighted to represent the survey."""
    names = list(dict.fromkeys((metric, "sigma_mad", "eta_015", "bias")))
    rows = []
    for split in ("test", "valid"):
        for model in sources.names:
            found = sources.metrics(model)["splits"][split]
            if "weighted" not in found:
                continue
            cells = [_with_interval(part, name) for name in names for part in (found, found["weighted"])]
            rows.append([text(model), text(split), count(found["weighted"]["effective_rows"]), *cells])
    if not rows:
        return [Note("Labelled rows are not weighed: all metrics are of the labelled rows as they are.")]
    headers = [f"{HEADLINE.get(name, name)}, {how}" for name in names for how in ("as they are", "weighed")]
    return [
        Note(
            "Labelled rows are brighter and nearer than the survey. Weighed, they stand for its rows in the features that weights are "
            "computed from, and a metric predicts the accuracy on the catalogue better, with the statistics of the effective number of rows."
        ),
        Table(
            "Labelled rows as they are, and weighed to stand for the survey; in brackets 68 % intervals",
            ["model", "split", "effective rows", *headers],
            rows,
        ),
    ]


def _with_interval(part: dict[str, Any], name: str) -> Cell:
    """A metric with the ends of its interval where there is one."""
    cell, (low, high) = _metric(name, part["board"][name]), part["intervals"]["metrics"][name]
    if low is None:
        return cell
    return replace(cell, text=f"{cell.text} ({_metric(name, low).text} to {_metric(name, high).text})")


def _training(name: str, described: dict[str, Any]) -> list[Any]:
    """Curves of a model's training, where it has recorded any."""
    fit = described.get("facts", {}).get("fit") or {}
    phases = {name: fit} | {f"{name}, {key}": part for key, part in fit.items() if isinstance(part, dict)}
    found = [_learning(name, part) for name, part in phases.items() if len(part.get("history", [])) > 1]
    curve = [entry for entry in fit.get("curve", []) if "k" in entry]
    if len(curve) > 1:
        x = np.array([entry["k"] for entry in curve], np.float64)
        names = [key for key in curve[0] if key not in ("k", "width")][:3]
        series = _series(curve, {key: key for key in names})
        found.append(
            picture(
                f"curve-{name}",
                f"{name}: scores on the validation rows by number of neighbours K.",
                f"Validation scores of {name} for {len(x)} values of K; chosen was K = {fit.get('k')}.",
                lambda: figures.model_curve(x, series, "K", fit.get("k"), log=True),
            )
        )
    return found


def _learning(name: str, phase: dict[str, Any]) -> Picture:
    """Learning curve of one phase of a model's training."""
    x = np.array([entry["epoch"] for entry in phase["history"]], np.float64)
    series = _series(phase["history"], {"loss": "training loss", "score": "validation score"})
    best = phase["best_epoch"]
    return picture(
        f"history-{name}",
        f"{name}: training loss and validation score (lower is better) by epoch.",
        f"Learning curve of {name} over {int(x[-1])} epochs; the chosen epoch is {best}.",
        lambda: figures.model_curve(x, series, "epoch", best),
    )


def _series(entries: list[dict[str, Any]], names: dict[str, str]) -> dict[str, Floats]:
    return {
        label: np.array([np.nan if entry[key] is None else entry[key] for entry in entries], np.float64)
        for key, label in names.items()
        if all(isinstance(entry.get(key), int | float | None) for entry in entries)
    }


def _float(value: str) -> Any:
    try:
        return float(value)
    except ValueError:
        return value


def _leader_cell(name: str, value: str) -> Cell:
    found = _float(value)
    if not isinstance(found, float):
        return text(value)
    if name == "n" or name == "rows_per_s":
        return Cell(f"{found:,.0f}" if np.isfinite(found) else "–", found)
    return _metric(name, found)
