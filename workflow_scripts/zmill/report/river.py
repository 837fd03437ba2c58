"""Processing of the rows: sections on import, labels, matches, sample, prediction, time and provenance."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from zmill.inputs.base import ROW_FLAGS
from zmill.inputs.registry import kinds
from zmill.redact import redact
from zmill.release.provenance import code_revision, versions
from zmill.report import figures
from zmill.report.accuracy import Tested
from zmill.report.binned import Floats
from zmill.report.blocks import (
    Block,
    Cell,
    Details,
    Note,
    Section,
    Table,
    count,
    duration,
    fraction_rows,
    number,
    percent,
    picture,
    text,
)
from zmill.report.sources import Predicted, Sources

SPLITS = {
    "train": "fits the models",
    "valid": "chooses among them",
    "calib": "calibrates their PDFs",
    "test": "measures their accuracy",
}
FLAGS = dict(sorted({**ROW_FLAGS, **{bit: text for kind in kinds() for bit, text in kind.flag_bits.items()}}.items()))
"""Bits of `flags` of the predicted rows, and what they mean."""
REJECTED = {
    "survey": "Rows of the survey that could not be used",
    "train": "Rows of the training tables that could not be used",
    "test": "Rows of the test tables that could not be used",
    "labels": "Rows of the training and test tables whose redshift cannot be used, or that stand for an object twice",
    "specz": "Entries of redshift catalogues that could not be used",
    "specz_conflicts": "Entries of one object that disagree",
}
"""Tables of `rejected/`, and what they hold."""


def distribution_section(sources: Sources, tested: Tested, predicted: Predicted | None, edges: Floats) -> Section:
    """n(z) of all rows from points and from stacked PDFs, compared with that of the spectra."""
    curves = {}
    notes = []
    width = np.diff(edges)
    stack = sources.stacked() if predicted else None
    if stack:
        grid, density, rows = stack
        curves["stacked PDFs, all rows"] = (grid.z, density)
        if predicted and rows < predicted.rows:
            notes.append(f"PDFs were stacked of {rows:,} rows spread over the sky.")
    if predicted:
        total = max(int(predicted.z_median.sum()), 1)
        curves["medians, all rows"] = (edges, predicted.z_median / total / width)
    curves["spectra, test rows"] = (edges, np.histogram(tested.z_spec, bins=edges)[0] / len(tested.z_spec) / width)
    if not predicted:
        curves["medians, test rows"] = (edges, np.histogram(tested.z_phot, bins=edges)[0] / len(tested.z_phot) / width)
        notes.append(
            "This survey is given as tables without positions: no catalogue was predicted, only the test rows."
        )
    names = ", ".join(curves)
    section = Section("distribution", "Redshift distribution n(z)", "n(z)")
    section.blocks.append(
        Note(
            "Spectra are usually of brighter galaxies than the survey, so that its n(z) reaches further than theirs; stacked PDFs "
            "are an estimate of n(z) only where the training rows cover the survey. " + " ".join(notes)
        )
    )
    shown = float(np.max([_reach(z, density) for z, density in curves.values()]))
    section.blocks.append(
        picture(
            "nz",
            f"Normalised redshift distributions: {names}.",
            f"Curves of {names} up to redshift {shown:.2g}.",
            lambda: figures.redshift_distributions(curves, shown),
        )
    )
    return section


def rows_section(predicted: Predicted | None) -> Section | None:
    """Flags of the predicted rows."""
    if predicted is None:
        return None
    rows = [
        [Cell(str(bit), float(bit)), text(FLAGS.get(bit, "")), count(n), percent(n / predicted.rows)]
        for bit, n in sorted(predicted.flags.items())
    ]
    rows.append(
        [
            Cell("0", 0.0),
            text("none of these"),
            count(predicted.unflagged),
            percent(predicted.unflagged / predicted.rows),
        ]
    )
    section = Section("rows", "Every predicted row", "Flags")
    section.blocks += [
        Note(
            f"All {predicted.rows:,} rows of the survey have a photo-z; the column flags describes their reliability."
        ),
        Table("Bits of flags; a row may have several", ["bit", "meaning", "rows", "share"], rows),
    ]
    return section


def removed_section(sources: Sources) -> Section:
    """Rows that each stage rejected, from the survey's files to the sample."""
    section = Section("removed", "From catalogue to sample", "What was removed")
    rejected = sources.rejected()
    for name, reasons in sorted(rejected.items(), key=lambda item: list({**REJECTED, **rejected}).index(item[0])):
        total = sum(reasons.values())
        title = REJECTED.get(name, name)
        rows = fraction_rows(sorted(reasons.items(), key=lambda item: -item[1]), total)
        section.blocks.append(
            Table(f"{title} ({total:,}; rejected/{name}.parquet)", ["reason", "rows", "share"], rows)
            if total
            else Note(f"{title}: none.")
        )
    section.blocks += _faults(sources)
    labels = sources.json("specz/labels.json")
    if labels:
        section.blocks += _facts(
            "Spectroscopic redshifts", {key: value for key, value in labels.items() if key != "rejected"}
        )
    matches = sources.json("matches.json")
    if matches is None:
        section.blocks.append(Note("Labels came with the tables: there was nothing to match on the sky."))
    else:
        section.blocks += _facts("Cross-match of spectra and survey", matches)
        section.blocks += _separations(sources)
    split = sources.json("split.json")
    if split:
        steps, before = [], None
        for step in split["steps"]:
            lost = Cell("") if before is None else count(before - step["rows"])
            steps.append([text(step["step"]), count(step["rows"]), lost])
            before = step["rows"]
        section.blocks.append(
            Table("What each step leaves of the labelled rows", ["step", "rows left", "removed"], steps)
        )
    return section


def _faults(sources: Sources) -> list[Block]:
    """Faults of parts of rows, such as bands, of rows that were kept."""
    found = sources.json("import.json") or {"faults": {}}
    rows = [
        [text(part), text(fault), count(number), percent(number / found["kept"])]
        for part, faults in found["faults"].items()
        for fault, number in faults.items()
    ]
    if not rows:
        return [Note("No kept row has a fault.")]
    title = "Faults of a part of a row, which is lost without the row (docs/bring-your-own-survey.md)"
    return [Table(title, ["part", "fault", "rows", "share"], rows)]


def sample_section(sources: Sources) -> Section:
    """The labelled rows of each split."""
    section = Section("sample", "The labelled sample", "Sample")
    sample = sources.json("sample/sample.json") or {"splits": {}}
    levels = ("min", "q25", "median", "q75", "max")
    rows = []
    by_source: dict[str, dict[str, int]] = {}
    splits = sorted(sample["splits"], key=[*SPLITS, *sample["splits"]].index)
    for name in splits:
        split = sample["splits"][name]
        redshift = split.get("redshift", {})
        rows.append(
            [
                text(name),
                text(SPLITS.get(name, "")),
                count(split["rows"]),
                *(number(redshift.get(level)) for level in levels),
            ]
        )
        for source, n in split.get("label_source", {}).items():
            by_source.setdefault(source, {})[name] = n
    section.blocks.append(
        Table("Rows and their redshifts", ["split", "use", "rows", *(f"z {level}" for level in levels)], rows)
    )
    if by_source:
        table = [
            [text(source), *(count(counts.get(split, 0)) for split in splits)]
            for source, counts in sorted(by_source.items(), key=lambda item: -sum(item[1].values()))
        ]
        section.blocks.append(Table("Where the redshifts come from", ["label_source", *splits], table))
    section.blocks += _weights(sources)
    imputation = sources.json("imputation.json")
    if imputation and imputation["learned"]:
        section.blocks.append(
            Details("What missing values are filled with, from the training rows", _pretty(imputation))
        )
    return section


def _weights(sources: Sources) -> list[Block]:
    """Weights of the labelled rows that make them represent the survey, and the agreement that they reach."""
    weights = sources.json("sample/weights.json")
    if weights is None:
        return [
            Note("This survey is given as tables: there is no catalogue to weigh labelled rows to, and all weigh 1.")
        ]
    if weights["method"] == "none":
        return [Note("Labelled rows are not weighed (weights.method: none): all weigh 1.")]
    splits = [
        [
            text(name),
            count(weighted["rows"]),
            count(weighted["effective_rows"]),
            number(weighted["largest"]),
            count(weighted["clipped"]),
        ]
        for name, weighted in sorted(weights["splits"].items(), key=lambda item: list(SPLITS).index(item[0]))
    ]
    axes = weights["axes"]
    names = ", ".join(axis["name"] for axis in axes)
    near = [[text(axis["name"]), number(axis["ks"]), number(axis["ks_weighted"])] for axis in axes]
    curves = {"survey": "survey", "labelled": "training rows", "weighted": "weighed"}
    return [
        Note(
            f"Labelled rows are weighed by the density of the survey's rows over their own, in {names} "
            f"(Lima et al. 2008, {weights['neighbors']} neighbors, {weights['rows']['drawn']:,} rows of the survey that pass "
            f"its cuts). {percent(weights['far']).text} of the survey's rows are far from every training row: no weight makes "
            "training rows stand for those."
        ),
        Table(
            "Weights; effective rows are (Σw)² / Σw²",
            ["split", "rows", "effective rows", "largest weight", "clipped"],
            splits,
        ),
        Table(
            "Largest difference of the cumulative distributions of training rows and survey",
            ["", "training rows", "weighed"],
            near,
        ),
        picture(
            "weights",
            "Distributions of the survey's rows, of the training rows, and of the training rows with their weights.",
            f"Histograms of {names} of the survey, the training rows and the weighed training rows; the largest "
            f"difference of any is {number(max(axis['ks'] for axis in axes)).text} without weights and "
            f"{number(max(axis['ks_weighted'] for axis in axes)).text} with them.",
            lambda: figures.distributions(axes, curves),
        ),
    ]


def time_section(sources: Sources) -> Section | None:
    """Time and memory of each rule."""
    work = sources.work()
    if not work:
        return None
    total = sum(one.seconds for one in work)
    rows = [
        [text(one.rule), count(one.jobs), duration(one.seconds), Cell(f"{one.memory_mb:,.0f} MB", one.memory_mb)]
        for one in work
    ]
    section = Section("time", "Time", "Time")
    section.blocks += [
        Note(
            f"{duration(total).text} of jobs, counted one after the other; the rules that write this page and the release come later."
        ),
        Table("By rule", ["rule", "jobs", "time", "most memory of a job"], rows),
    ]
    return section


def provenance_section(sources: Sources, config: dict[str, Any], survey: dict[str, Any]) -> Section:
    """Provenance: software, code and settings."""
    revision = code_revision()
    code = (
        "not a git checkout"
        if revision is None
        else revision["commit"] + (" with edited files" if revision["edited"] else "")
    )
    rows = [[text("code"), text(code)], [text("seed"), text(config.get("seed", ""))]]
    rows += [[text(name), text(version)] for name, version in versions().items()]
    described = sources.models().get(sources.chosen, {})
    if "tensors_hash" in described:
        rows.append([text(f"hash of the model {sources.chosen}"), text(described["tensors_hash"])])
    section = Section("provenance", "Provenance", "Provenance")
    section.blocks += [
        Table("Made with", ["what", "which"], rows),
        Details("config.yaml, with defaults", _pretty(config)),
        Details("survey definition", _pretty(survey)),
    ]
    return section


def _facts(caption: str, facts: dict[str, Any]) -> list[Block]:
    """Counts as one table and, below it, a table for each group of counts by name."""
    plain = [[text(_words(name)), _fact(value)] for name, value in facts.items() if not isinstance(value, dict | list)]
    blocks: list[Block] = [Table(caption, ["what", "found"], plain)] if plain else []
    for name, group in facts.items():
        if not isinstance(group, dict) or not group:
            continue
        if all(isinstance(value, dict) for value in group.values()):
            inner = list(dict.fromkeys(key for value in group.values() for key in value))
            rows = [[text(key), *(_fact(value.get(column, "")) for column in inner)] for key, value in group.items()]
            blocks.append(Table(f"{caption}: {_words(name)}", ["", *(_words(column) for column in inner)], rows))
        else:
            blocks.append(
                Table(f"{caption}: {_words(name)}", ["", "found"], [[text(k), _fact(v)] for k, v in group.items()])
            )
    return blocks


def _fact(value: Any) -> Cell:
    if isinstance(value, bool) or value is None:
        return text({True: "yes", False: "no", None: "–"}[value])
    if isinstance(value, int):
        return count(value)
    if isinstance(value, float):
        return number(value)
    if isinstance(value, dict):
        return text("; ".join(f"{_words(key)} {_fact(found).text}" for key, found in value.items()))
    return text(value)


def _separations(sources: Sources) -> list[Block]:
    table = sources.table("matches.parquet", ["separation_arcsec", "ambiguous"])
    if table is None or not table.num_rows:
        return []
    distance = np.asarray(table.column("separation_arcsec").to_numpy(), np.float64)
    ambiguous = table.column("ambiguous").to_numpy()
    return [
        picture(
            "separations",
            "Separation of each spectrum and its object in the survey. True matches gather near zero; a rise towards the radius "
            "would be chance.",
            f"Histogram of match separations: median {np.median(distance):.3f} arcsec, 99 % within "
            f"{np.quantile(distance, 0.99):.2f} arcsec, {int(ambiguous.sum()):,} of {len(distance):,} ambiguous.",
            lambda: figures.separations(distance[~ambiguous], distance[ambiguous]),
        )
    ]


def _reach(z: Floats, density: Floats) -> float:
    """Redshift somewhat above the one below which nearly all of a distribution lies."""
    middle = z if len(z) == len(density) else z[1:]
    width = np.gradient(z) if len(z) == len(density) else np.diff(z)
    cumulative = np.cumsum(density * width)
    return float(middle[min(int(np.searchsorted(cumulative, 0.997 * cumulative[-1])), len(middle) - 1)] * 1.08)


def _words(name: str) -> str:
    return name.replace("_", " ")


def _pretty(value: Any) -> str:
    return redact(json.dumps(value, indent=2, ensure_ascii=False))
