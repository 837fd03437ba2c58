"""Build one catalogue of spectroscopic redshifts from all label sources of a survey, and account for every entry."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from zmill.catalog import hats
from zmill.catalog.files import atomic_write, write_json
from zmill.catalog.footprint import Footprint, describe_positions
from zmill.catalog.sky import HEALPIX_COLUMN, at_order, healpix
from zmill.config import Labels, Partitions
from zmill.labels.base import ENTRY, LabelsError, Request, source_of
from zmill.labels.merge import Merged, groups, resolve
from zmill.survey.partitioning import choose, histogram, partition_numbers
from zmill.survey_definition import LabelSource
from zmill.workflow.dates import term
from zmill.workflow.job import Progress, log

JUDGED = ENTRY.append(pa.field("label_source", pa.string()))
"""An entry with the name of its source and the final reason of its rejection (empty where it is accepted)."""
SPECZ = pa.schema(
    [
        (HEALPIX_COLUMN, pa.int64()),
        ("specz_id", pa.string()),
        ("ra", pa.float64()),
        ("dec", pa.float64()),
        ("redshift", pa.float64()),
        ("redshift_err", pa.float32()),
        ("quality", pa.int8()),
        ("label_source", pa.string()),
        ("source_flag", pa.string()),
        ("entries", pa.int16()),
        ("radius_arcsec", pa.float32()),
        ("magnitude", pa.float32()),
    ]
)
HOURS = 24.0
FEWEST = 20
"""Fewest entries in conflict that are warned of."""
FLAGS, SHOWN = 1000, 8
"""Largest number of different flags that are counted for a source, and that a warning names."""
CONFLICTS, DISAGREE = 0.05, 0.2
"""Largest fraction of entries in conflict without a warning: of all accepted entries, and of the accepted entries of objects
with several."""


@dataclass
class _Source:
    """Counts of the entries of a source."""

    entries: int = 0
    accepted: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    flags: Counter[str] = field(default_factory=Counter)
    unknown: Counter[str] = field(default_factory=Counter)
    near: int = 0
    near_if_hours: int = 0
    highest_ra: float = 0.0
    seen: str = "no position"


def build(
    sources: list[LabelSource],
    labels: Labels,
    partitions: Partitions,
    radius_arcsec: float,
    data_dir: Path,
    results: Path,
) -> dict[str, Any]:
    """Read, judge and merge all sources; write `specz/`, `rejected/specz.parquet` and `rejected/specz_conflicts.parquet`.

    Parameters
    ----------
    sources : the survey's `labels:`, in the order of their priority.
    radius_arcsec : match radius of sources that name none.
    results : the survey's results folder, with the imported `survey/`.

    Returns
    -------
    The content of `specz/labels.json`; entries = merged_entries + rejected + conflicts.

    Raises
    ------
    LabelsError
        Where no label is left; the message counts the reasons and names both footprints.
    """
    footprint = Footprint.read(results / "survey")
    request = Request(data_dir, footprint, results / "labels_cache")
    counted: dict[str, _Source] = {}
    accepted: list[pa.Table] = []
    with (
        atomic_write(results / "rejected" / "specz.parquet") as temporary,
        pq.ParquetWriter(temporary, JUDGED, compression="zstd") as rejected,
    ):
        for judged in _judged(sources, labels, request, counted):
            good = pc.equal(judged["reason"], "")
            accepted.append(judged.filter(good))
            rejected.write_table(judged.filter(pc.invert(good)))
    table = pa.concat_tables(accepted).combine_chunks()
    merged = _merge(table, [label.name for label in sources], labels)
    conflicts = table.append_column("object", pa.array(merged.group)).filter(pa.array(merged.conflict))
    reason = pa.array(["conflict"] * len(conflicts), pa.string())
    conflicts = conflicts.set_column(conflicts.column_names.index("reason"), "reason", reason)
    with atomic_write(results / "rejected" / "specz_conflicts.parquet") as temporary:
        pq.write_table(conflicts.sort_by("object"), temporary, compression="zstd")
    if not len(merged.chosen):
        raise LabelsError(
            f"no label is left: all {len(table)} accepted entries are in conflict, which means within "
            f"{labels.merge_radius_arcsec:g} arcsec (labels.merge_radius_arcsec) of another whose redshift differs by more than "
            f"{labels.conflict:g} (1 + z) (labels.conflict); they are in {results / 'rejected' / 'specz_conflicts.parquet'}: "
            "check the columns ra, dec and redshift of the sources"
        )
    _warn_of_conflicts(conflicts, merged, request)
    radii = {label.name: label.radius_arcsec or radius_arcsec for label in sources}
    objects = write_specz(results / "specz", table, merged, radii, partitions)
    facts = {
        **_facts(counted, merged, objects, footprint),
        "warnings": request.notes,
        "answers": _first_to_end(request.answers),
    }
    write_json(results / "specz" / "labels.json", facts)
    log.info("%d entries: %d objects, %d in conflict, rejected %s", *_summary(facts))
    return facts


def _first_to_end(answers: list[tuple[datetime, float | None]]) -> dict[str, Any]:
    """Of the answer that expires first: the time when it was given (`when`) and when it expires (`until`)."""
    terms = [term(when, days) for when, days in answers if days is not None]
    return min(terms, key=lambda one: one["until"], default=term(None, None))


def accepted_entries(sources: list[LabelSource], labels: Labels, footprint: Footprint, data_dir: Path) -> int:
    """Number of entries of files that `build` would accept; nothing is written.

    Raises
    ------
    LabelsError
        As `build`.
    """
    counted: dict[str, _Source] = {}
    for _ in _judged(sources, labels, Request(data_dir, footprint, Path()), counted):
        pass
    return sum(counts.accepted for counts in counted.values())


def _judged(
    sources: list[LabelSource], labels: Labels, request: Request, counted: dict[str, _Source]
) -> Iterator[pa.Table]:
    """All entries of all sources as `JUDGED`; sources with wrong units or without accepted entries are refused."""
    for label in sources:
        source, settings = source_of(label)
        counts = counted[label.name] = _Source()
        progress = Progress(f"labels of {label.name}")
        for entries in source.entries(settings, request):
            judged = judge(entries, labels, request.footprint, counts).append_column(
                JUDGED.field("label_source"), pa.array([label.name] * entries.num_rows, pa.string())
            )
            counts.accepted += pc.sum(pc.equal(judged["reason"], "")).as_py() or 0
            progress.add(entries.num_rows)
            yield judged
        progress.end()
        _refuse_hours(label.name, counts, request.footprint)
        _warn_of_flags(label.name, counts, request)
    _refuse_nothing(counted, request.footprint)


def judge(entries: pa.Table, labels: Labels, footprint: Footprint, counts: _Source) -> pa.Table:
    """The entries with right ascension within 0 to 360, and `reason` filled for each that is rejected."""
    ra, dec, redshift = (entries[name].to_numpy() for name in ("ra", "dec", "redshift"))
    finite = np.isfinite(ra) & np.isfinite(dec)
    inside = finite & (np.abs(np.where(finite, dec, 0)) <= 90) & (np.abs(np.where(finite, ra, 0)) <= 360)
    ra = np.where(inside, ra % 360, ra)
    near = np.zeros(len(ra), bool)
    near[inside] = footprint.near(healpix(ra[inside], dec[inside]))
    reason = np.select(
        [~finite, ~inside, ~near, entries["reason"].to_numpy() != "", redshift <= labels.min_redshift],
        [
            "position_not_finite",
            "position_out_of_range",
            "outside_footprint",
            entries["reason"].to_numpy().astype(np.str_),
            "low_redshift",
        ],
        np.where(entries["quality"].to_numpy() < labels.min_quality, "low_quality", ""),
    )
    names, numbers = np.unique(reason[reason != ""], return_counts=True)
    counts.rejected.update(dict(zip(names.tolist(), numbers.tolist(), strict=True)))
    _count_flags(entries, counts)
    _look_for_hours(ra[inside], dec[inside], near[inside], footprint, counts)
    counts.entries += len(ra)
    table = entries.set_column(entries.column_names.index("ra"), "ra", pa.array(ra))
    return table.set_column(table.column_names.index("reason"), "reason", pa.array(reason, pa.string()))


def write_specz(catalog: Path, table: pa.Table, merged: Merged, radii: dict[str, float], settings: Partitions) -> int:
    """Write the objects as HATS; the number of objects."""
    objects = table.take(pa.array(merged.chosen))
    index = healpix(objects["ra"].to_numpy(), objects["dec"].to_numpy())
    source = objects["label_source"].to_pylist()
    columns = {
        **{name: objects[name] for name in SPECZ.names if name in objects.column_names},
        HEALPIX_COLUMN: pa.array(index),
        "entries": pa.array(np.minimum(merged.entries, np.iinfo(np.int16).max).astype(np.int16)),
        "radius_arcsec": pa.array([radii[name] for name in source], pa.float32()),
    }
    order = np.argsort(index, kind="stable")
    rows = pa.table({name: columns[name] for name in SPECZ.names}, schema=SPECZ).take(pa.array(order))
    index = index[order]
    found = choose(histogram(at_order(index, settings.max_order)), settings.max_order, settings.max_rows)
    starts = np.array([partition.interval()[0] for partition in found], np.int64)
    edges = np.searchsorted(partition_numbers(index, starts), np.arange(len(found) + 1))
    (catalog / "partition_info.csv").unlink(missing_ok=True)
    for partition, first, last in zip(found, edges[:-1], edges[1:], strict=True):
        with hats.write_partition(catalog, partition, SPECZ) as writer:
            writer.write(rows.slice(int(first), int(last - first)))
    return hats.finish(catalog, "specz", found)


def _merge(table: pa.Table, names: list[str], labels: Labels) -> Merged:
    priority = {name: number for number, name in enumerate(names)}
    return resolve(
        groups(table["ra"].to_numpy(), table["dec"].to_numpy(), labels.merge_radius_arcsec),
        table["redshift"].to_numpy(),
        table["quality"].to_numpy(),
        table["redshift_err"].to_numpy(),
        np.array([priority[name] for name in table["label_source"].to_pylist()], np.int64),
        labels.conflict,
    )


def _facts(counted: dict[str, _Source], merged: Merged, objects: int, footprint: Footprint) -> dict[str, Any]:
    rejected: Counter[str] = Counter()
    for counts in counted.values():
        rejected.update(counts.rejected)
    entries, merged_entries = sum(counts.entries for counts in counted.values()), int(merged.entries.sum())
    conflicts = int(merged.conflict.sum())
    if merged_entries + conflicts + sum(rejected.values()) != entries or objects != len(merged.chosen):
        raise LabelsError(
            f"of {entries} entries {merged_entries} were merged into {len(merged.chosen)} objects ({objects} written), "
            f"{conflicts} are in conflict and {sum(rejected.values())} were rejected: some are not accounted for"
        )
    return {
        "entries": entries,
        "objects": objects,
        "merged_entries": merged_entries,
        "conflicts": conflicts,
        "rejected": dict(rejected),
        "sources": {
            name: {"entries": counts.entries, "accepted": counts.accepted, "rejected": dict(counts.rejected)}
            for name, counts in counted.items()
        },
        "survey_footprint": footprint.describe(),
    }


def _summary(facts: dict[str, Any]) -> tuple[int, int, int, dict[str, int]]:
    return facts["entries"], facts["objects"], facts["conflicts"], facts["rejected"]


def _look_for_hours(
    ra: NDArray[np.float64], dec: NDArray[np.float64], near: NDArray[np.bool_], footprint: Footprint, counts: _Source
) -> None:
    counts.near += int(near.sum())
    counts.highest_ra = max(counts.highest_ra, float(np.max(ra, initial=0)))
    if counts.highest_ra <= HOURS:
        counts.near_if_hours += int(footprint.near(healpix(ra * 15 % 360, dec)).sum())
    if len(ra):
        counts.seen = describe_positions(ra, dec)


def _refuse_hours(name: str, counts: _Source, footprint: Footprint) -> None:
    if counts.highest_ra <= HOURS and counts.near_if_hours > counts.entries / 2 and counts.near < counts.entries / 20:
        raise LabelsError(
            f"labels: {name}: {counts.near} of {counts.entries} positions lie in the survey's footprint, but "
            f"{counts.near_if_hours} would if right ascension were in hours (it reaches {counts.highest_ra:g}); set "
            f"angle_unit: hour. Survey: {footprint.describe()}. Labels: {counts.seen}"
        )


def _count_flags(entries: pa.Table, counts: _Source) -> None:
    """Count the flags of a source, up to `FLAGS` different ones, and the unknown flags."""
    for column, counter in (("source_flag", counts.flags), ("unknown", counts.unknown)):
        if len(counter) < FLAGS:
            found = pc.value_counts(entries[column].combine_chunks()).to_pylist()
            counter.update({one["values"]: one["counts"] for one in found[:FLAGS] if one["values"]})


def _warn_of_flags(name: str, counts: _Source, request: Request) -> None:
    if counts.entries and not counts.accepted:
        request.warn(
            f"labels: {name}: none of its {counts.entries:,} entries is accepted; rejected: {_counted(counts.rejected)}"
            f"{_flags_of(counts)}. Check the columns and the scheme or quality.map of this source"
        )
    if counts.unknown:
        request.warn(
            f"labels: {name}: {sum(counts.unknown.values()):,} of {counts.entries:,} entries have a flag or class that the "
            f"scheme or quality.map does not know: {_counted(counts.unknown)}. An unknown flag is worth quality 0 (or the map's "
            "default) and an unknown class counts as a galaxy, except under the schemes sdss, desi and ned; name the flags "
            "in quality.map, or choose another scheme"
        )


def _warn_of_conflicts(conflicts: pa.Table, merged: Merged, request: Request) -> None:
    """Warn where many entries contradict each other: one of the sources may have wrong redshifts or positions."""
    found, accepted = conflicts.num_rows, len(merged.group)
    repeated = int(np.count_nonzero(np.bincount(merged.group)[merged.group] > 1))
    if found > CONFLICTS * accepted or (found >= FEWEST and found > DISAGREE * repeated):
        of = Counter(conflicts["label_source"].to_pylist())
        request.warn(
            f"labels: {found:,} of {accepted:,} accepted entries are in conflict, which is {100 * found / repeated:.0f} % of "
            f"those that share their object with another one: {_counted(of)}. They are no labels "
            "(rejected/specz_conflicts.parquet). Check the redshifts, flags and positions of these sources"
        )


def _flags_of(counts: _Source) -> str:
    return f"; its flags: {_counted(counts.flags)}" if counts.flags else ""


def _counted(counter: Counter[str]) -> str:
    """The most frequent entries of a counter, with their numbers."""
    more = len(counter) - SHOWN
    named = ", ".join(f"{value} {number:,}" for value, number in counter.most_common(SHOWN))
    return f"{named} and {more} more" if more > 0 else named


def _refuse_nothing(counted: dict[str, _Source], footprint: Footprint) -> None:
    if any(counts.accepted for counts in counted.values()):
        return
    lines = "; ".join(
        f"{name}: {counts.entries} entries at {counts.seen}, rejected: "
        f"{_counted(counts.rejected) or 'none'}{_flags_of(counts)}"
        for name, counts in counted.items()
    )
    if any(counts.near for counts in counted.values()):
        raise LabelsError(
            f"no label is left of all sources. {lines}. Lower labels.min_quality, or check the columns and the scheme"
        )
    raise LabelsError(
        f"survey and labels do not overlap. Survey: {footprint.describe()}. Labels: {lines}. "
        "Check columns.ra, columns.dec and angle_unit of both, or name a source that covers the survey"
    )
