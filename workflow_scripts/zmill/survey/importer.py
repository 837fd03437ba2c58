"""Import: a survey's files, of any size and number, into a HATS catalogue.

Three passes, each parallel over pieces of the input or partitions of the output:
1. positions and identifiers are read: rows per pixel, hence the partitions; identifiers that occur twice;
2. every piece is converted and written to a scratch folder, rows of a partition together;
3. every partition is brought together, sorted and written.

Memory per process is that of a block of rows or of a partition, whichever is larger. Finished work is kept until the end:
an interrupted import continues where it stopped. The results of the first pass are kept for the next import, which reads only
changed files and those that share partitions with them, and writes only these partitions (`zmill.survey.night`).
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from zmill import __version__
from zmill.catalog import hats, shards, sources
from zmill.catalog.files import Damaged, atomic_write, read_json, write_json
from zmill.catalog.hats import Partition
from zmill.catalog.sizes import rows_of
from zmill.config import Partitions
from zmill.inputs.further import Further
from zmill.inputs.registry import of_survey
from zmill.survey import duplicates, night, pieces
from zmill.survey.check import Header, further_faults, further_of, read_headers, types_over
from zmill.survey.copies import warn_of_copies
from zmill.survey.counts import Counts
from zmill.survey.kinds import TypeChanged
from zmill.survey.partitioning import choose, merge
from zmill.survey.pieces import Piece, Work
from zmill.survey.plausible import look
from zmill.survey.readers import ReadError
from zmill.survey.rows import REJECTED, Layout, layout_of
from zmill.survey_definition import Survey
from zmill.workflow.job import Progress, log
from zmill.workflow.processes import workers
from zmill.workflow.warning import Warnings

PIECE_ROWS, PIECE_BYTES = 1_000_000, 1 << 30
"""Approximate number of rows in a piece of the input, for formats that can be read from the middle, and its largest size in bytes."""
PARTITION_BYTES = 1 << 30
"""Largest size of a partition in memory in bytes, where `partitions.max_rows` does not make it smaller."""
SMALL_BYTES = 256 << 20
"""Inputs smaller than this are imported in one process, which is faster than starting several."""
MOST_REPEATED = 2_000_000
"""More repeated identifiers than this mean that the column is no identifier."""


class ImportFailed(Exception):
    """An import failed; the message names the cause and what to do."""


def import_survey(
    files: Sequence[Path],
    survey: Survey,
    partitions: Partitions,
    catalog: Path,
    rejected: Path,
    threads: int = 1,
    data_dir: Path = Path(),
) -> Counts:
    """Write a survey's files as the HATS catalogue `catalog` with its shards, and its bad rows to `rejected`.

    Parameters
    ----------
    files : in this order rows are numbered and the first of repeated identifiers is kept.
    catalog : folder of the catalogue; a scratch folder in the same parent folder exists until the import is done.
    rejected : Parquet file of the bad rows. A file with the ending `.json` has their number by reason; `import.json`, in the
        parent folder of the catalogue, has these and the faults of single bands (`Counts.json`).
    threads : parallel processes.
    data_dir : folder that relative paths of further files start from, such as `extinction.map`.

    Raises
    ------
    ReadError
        Where a file cannot be read.
    ImportFailed
        Where most rows are unusable, `object_id` is not unique, or rows were lost.
    """
    catalog, scratch = Path(catalog), Path(catalog).with_name(f".{Path(catalog).name}.scratch")
    kept = kept_folder(catalog.parent)
    for folder in (scratch, kept):
        folder.mkdir(parents=True, exist_ok=True)
    (catalog / "partition_info.csv").unlink(missing_ok=True)
    further = further_of(survey, data_dir)
    looked = sources.look([*files, *further.all], manifest(catalog.parent))
    warnings = Warnings()
    heads, layout = _headers(files, survey, warnings)
    if faults := further_faults(survey, further, heads):
        raise ReadError("\n".join(faults))
    for warning in look([Path(file) for file in files], survey).warnings:
        warnings.add(warning)
    for change in _changes(kept, looked):
        layout = layout.changed(change)
    while True:
        found = split(heads, survey, partitions.max_order, looked, layout, further)
        work = Work(layout=layout, scratch=scratch, kept=kept, order=partitions.max_order, further=further)
        try:
            return _import(files, found, work, partitions, catalog, rejected, threads, looked, warnings)
        except TypeChanged as change:
            log.info("%s: %s holds a value that is no %s: read as %s", change.file, change.column, _type_of(layout, change.column), change.kind)  # fmt: skip
            layout = layout.changed(change)
            _keep_change(kept, looked, change)


def _import(
    files: Sequence[Path],
    found: list[Piece],
    work: Work,
    partitions: Partitions,
    catalog: Path,
    rejected: Path,
    threads: int,
    looked: sources.Known,
    warnings: Warnings,
) -> Counts:
    """Import with a given layout; raises `TypeChanged` where a value does not fit it."""
    scratch, kept, survey = work.scratch, work.kept, work.survey
    before = night.read(kept, _settings_hash(work, partitions, looked))
    small = sum(_bytes(Path(file)) for file in [*files, *work.further.all]) < SMALL_BYTES
    with workers(1 if small else threads) as run:
        plan, starts, owners, first_rows, chosen, kept_by = _plan(found, work, partitions, run)
        numbered = survey.columns.object_id is None or any(kind.by_row_number(survey) for kind in of_survey(survey))
        now = night.keys(found, first_rows, not numbered)
        todo = night.todo(found, now, kept_by, before, work, chosen, catalog)
        if before.settings:
            log.info("%d of %d partitions are written, from %d of %d pieces", len(todo.partitions), len(chosen), len(todo.pieces), len(found))  # fmt: skip
        unfinished = before.unfinished | todo.partitions
        night.write(kept, replace(before, unfinished=unfinished, unfinished_pieces=todo.changed))
        _do(
            "rows sorted into partitions",
            [p for p in todo.pieces if not _grouped(p, work, plan)],
            lambda p: (pieces.group, p, work, first_rows[p.number], starts, owners, plan),
            run,
        )
        counts, written_rows = _write(found, work, plan, chosen, todo, catalog, run, warnings)
    total = first_rows[-1]
    if (counts.rows, counts.kept) != (total, written_rows):
        raise ImportFailed(
            f"{total} rows were read, but {written_rows} are in {catalog} and {counts.rejected.total()} were set "
            "aside: the input changed while it was imported; run the import again"
        )
    _write_rejected(found, work, rejected)
    write_json(rejected.with_suffix(".json"), dict(sorted(counts.rejected.items())))
    hats.finish(catalog, catalog.parent.name, chosen)
    plan_of_shards = shards.plan(catalog, partitions.shard_rows, before.shards)
    written = {partition: hats.sidecar(catalog, partition)["xxh3_128"] for partition in chosen}
    shards.write(catalog, plan_of_shards, written)
    sources.keep(looked, manifest(catalog.parent))
    settings = _settings_hash(work, partitions, looked)
    night.sync(work, todo.pieces)
    night.write(kept, night.Before(settings, now, kept_by, written, plan_of_shards))
    night.forget(work, found)
    shutil.rmtree(scratch)
    for reason, number in sorted(counts.rejected.items()):
        log.warning("%s: %d rows set aside in %s", reason, number, rejected)
    for line in counts.lines():
        log.warning("%s", line)
    warn_of_copies(catalog, chosen, of_survey(survey), warnings)
    write_json(catalog.with_name("import.json"), {**counts.json(), "warnings": warnings})
    log.info("%d rows of %d are in %d partitions", counts.kept, total, len(chosen))
    return counts


def kept_folder(results: Path) -> Path:
    """Folder of an import's state, which the next import starts from."""
    return results / "progress" / "import"


def manifest(results: Path) -> Path:
    """Path of the manifest of the files that an import has read."""
    return results / "progress" / "sources" / "survey.json"


def _settings_hash(work: Work, partitions: Partitions, looked: sources.Known) -> str:
    """Hash of all settings that the content of the partitions depends on."""
    tokens = _tokens(work.further, looked)
    settings = [import_settings(work.survey), partitions.model_dump(), str(work.layout.schema), tokens, __version__]
    return xxhash.xxh3_128_hexdigest(json.dumps(settings, sort_keys=True).encode())


def _tokens(further: Further, looked: sources.Known) -> dict[str, list[str]]:
    """What the content of further files is known by."""
    return {key: [looked[str(path)]["token"] for path in paths] for key, paths in further.files.items()}


def import_settings(survey: Survey) -> dict[str, Any]:
    """The part of a survey definition that the import depends on; itself a survey definition."""
    others = {"description", "filters", "reference_band", "cuts", "labels", "redshift_grid", "odds_width"}
    if not survey.sections:  # of photometry, only the checks before any job depend on it
        others.add("check_units")
    return survey.model_dump(mode="json", exclude=others)


def _headers(files: Sequence[Path], survey: Survey, warnings: Warnings) -> tuple[list[Header], Layout]:
    """The headers of the files, and the layout of the output."""
    fields = pa.schema([field for kind in of_survey(survey) for field in kind.schema(survey)])
    headers = read_headers([Path(file) for file in files], survey, rows_of(PIECE_BYTES, fields, PIECE_ROWS))
    types, differences = types_over(headers, survey)
    for fault in [*(fault for header in headers for fault in header.faults), *differences]:
        raise ReadError(fault)
    for warning in (warning for header in headers for warning in header.warnings):
        warnings.add(warning)
    return headers, layout_of(survey, types)


def split(
    heads: Sequence[Header], survey: Survey, order: int, looked: sources.Known, layout: Layout, further: Further
) -> list[Piece]:
    """The pieces of the input, in the order of the files, each with its identity."""
    of_further = _tokens(further, looked)
    settings = json.dumps(
        [import_settings(survey), order, __version__, PIECE_ROWS, str(layout.schema), of_further], sort_keys=True
    )
    found: list[Piece] = []
    times: Counter[Path] = Counter()
    for head in heads:
        key = [settings, str(head.path.absolute()), looked[str(head.path)]["token"], times[head.path]]
        times[head.path] += 1
        for span in head.spans:
            number = len(found)
            identity = xxhash.xxh3_128_hexdigest(json.dumps([*key, span]).encode())
            found.append(Piece(number, head.path, head.format, span, identity))
    if not found:
        raise ImportFailed(
            f"{', '.join(dict.fromkeys(str(head.path) for head in heads)) or 'the survey files'}: there is no row"
        )
    return found


def _changes(kept: Path, looked: sources.Known) -> list[TypeChanged]:
    """Types of columns that earlier imports widened after the first rows, for unchanged files."""
    path = kept / night.TYPES
    recorded = read_json(path) if path.is_file() else []
    return [
        TypeChanged(column, kind, file)
        for column, kind, file, token in recorded
        if file in looked and looked[file]["token"] == token
    ]


def _keep_change(kept: Path, looked: sources.Known, change: TypeChanged) -> None:
    changes = [*_changes(kept, looked), change]
    write_json(kept / night.TYPES, [[one.column, one.kind, one.file, looked[one.file]["token"]] for one in changes])


def _type_of(layout: Layout, column: str) -> pa.DataType:
    types = zip(layout.survey.columns.extra, layout.extra_types, strict=True)
    return layout.id_type if column == layout.survey.columns.object_id else dict(types)[column]


# ------------------------------------------------------------------------------------------------- first pass


def _plan(
    found: list[Piece], work: Work, partitions: Partitions, run: Any
) -> tuple[str, Path, Path, list[int], list[Partition], night.Owners]:
    """Count rows, choose the partitions and find repeated identifiers.

    Returns
    -------
    The plan's name; files of the partitions' starts and of the repeated identifiers' owners; the first row of each piece
    and, last, the number of all rows; the partitions; and the repeated identifiers with the piece that keeps each.
    """
    todo = [p for p in found if not work.is_counted(p)]
    _do("positions read", todo, lambda p: (pieces.count, p, work), run)
    histograms, first_rows = [], [0]
    for piece in found:
        with np.load(work.counted(piece), allow_pickle=False) as counted:
            first_rows.append(first_rows[-1] + int(counted["rows"]))
            histograms.append((counted["pixels"], counted["counts"]))
        if len(histograms) == 256:
            histograms = [merge(histograms)]
    if not first_rows[-1]:
        raise ImportFailed(f"{', '.join(dict.fromkeys(str(piece.path) for piece in found))}: there is no row")
    counted_pixels = merge(histograms)
    chosen = choose(counted_pixels, work.order, rows_of(PARTITION_BYTES, work.layout.schema, partitions.max_rows))
    if not chosen:
        raise ImportFailed(
            f"none of the {first_rows[-1]} rows has a usable position: columns.ra = {work.survey.columns.ra!r} and "
            f"columns.dec = {work.survey.columns.dec!r} in {work.survey.columns.angle_unit}; check columns and angle_unit"
        )
    first_piece = _repeated(found, work, first_rows[-1], run) if work.survey.columns.object_id else {}
    key = [[p.identity for p in found], [[c.order, c.pixel] for c in chosen]]
    plan = xxhash.xxh3_64_hexdigest(json.dumps(key).encode())
    starts, owners = work.scratch / f"{plan}.starts.npy", work.scratch / f"{plan}.owners.json"
    with atomic_write(starts, check=False, durable=False) as path, open(path, "wb") as file:
        np.save(file, np.array([c.interval()[0] for c in chosen], np.int64))
    write_json(owners, {"object_ids": list(first_piece), "pieces": list(first_piece.values())}, durable=False)
    kept_by = {value: found[number].identity for value, number in first_piece.items()}
    return plan, starts, owners, first_rows, chosen, kept_by


def _repeated(found: list[Piece], work: Work, rows: int, run: Any) -> dict[int | str, int]:
    """Identifiers that occur more than once, and the piece with the first occurrence of each."""
    files = [work.hashes(p) for p in found]
    parts = list(run([(duplicates.repeated, files, first, last) for first, last in duplicates.ranges(rows)]))
    suspects = np.concatenate([part for _, part in parts])
    column = work.survey.columns.object_id
    if len(suspects) > MOST_REPEATED:
        raise ImportFailed(
            f"columns.object_id = {column!r}: {len(suspects)} identifiers of {rows} rows occur more than once: it does not "
            "identify objects; name another column, or leave object_id out to use the row number"
        )
    if not len(suspects):
        return {}
    suspects.sort()
    holding = [p for p, file in zip(found, files, strict=True) if duplicates.contains_any(file, suspects)]
    first_piece: dict[int | str, int] = {}
    times: dict[int | str, int] = {}
    looked_up = run([(pieces.identifiers, piece, work, suspects) for piece in holding])
    for index, counts in looked_up:
        number = holding[index].number
        for value, count in counts.items():
            first_piece[value] = min(number, first_piece.get(value, number))
            times[value] = times.get(value, 0) + count
    return {value: first_piece[value] for value in sorted(times) if times[value] > 1}


# ------------------------------------------------------------------------------------ second and third pass


def _grouped(piece: Piece, work: Work, plan: str) -> bool:
    """Whether the second pass has done a piece."""
    try:
        return bool(work.grouped(piece, plan).stat().st_size == read_json(work.index(piece, plan))["bytes"])
    except (FileNotFoundError, Damaged):
        return False


def _write(
    found: list[Piece],
    work: Work,
    plan: str,
    chosen: list[Partition],
    todo: night.Todo,
    catalog: Path,
    run: Any,
    warnings: Warnings,
) -> tuple[Counts, int]:
    """Write every partition of `todo` that is not written yet, and remove partitions without rows from `chosen`.

    Returns
    -------
    The counts of the rows, and the number of rows in the catalogue.
    """
    sources: list[list[tuple[Path, list[int]]]] = [[] for _ in chosen]
    counts = Counts()
    for piece in found:
        counts.add(Counts.of_json(read_json(work.counts(piece))))
    for piece in todo.pieces:
        for number, batches in read_json(work.index(piece, plan))["batches"].items():
            sources[int(number)].append((work.grouped(piece, plan), batches))
    repeated = counts.rejected["duplicate_object_id"]
    if repeated > counts.rows / 2:
        raise ImportFailed(
            f"columns.object_id = {work.survey.columns.object_id!r}: {repeated} of {counts.rows} rows repeat the identifier of "
            "an earlier one: it does not identify objects; name another column, or leave object_id out to use the row number"
        )
    if refusal := counts.refusal():
        raise ImportFailed(refusal)
    for kind in of_survey(work.survey):
        of_kind = counts.faults.get(kind.name, Counter())
        for warning in kind.further_warnings(work.survey, work.further, counts.kept, of_kind):
            warnings.add(warning)
    filled = [(p, source) for p, source in zip(chosen, sources, strict=True) if source and p in todo.partitions]
    chosen[:] = [p for p, source in zip(chosen, sources, strict=True) if source or p not in todo.partitions]
    markers = {p: work.scratch / f"{plan}.{p.order}.{p.pixel}.written.json" for p in todo.partitions}
    left = [(p, source) for p, source in filled if not _is_written(catalog, p, markers[p])]
    progress = Progress("partitions written")
    for index, rows in run([(pieces.write, catalog, p, source, work.layout) for p, source in left]):
        partition = left[index][0]
        write_json(markers[partition], hats.sidecar(catalog, partition), durable=False)
        progress.add(rows)
    progress.end()
    return counts, sum(hats.sidecar(catalog, p)["rows"] for p in chosen)


def _is_written(catalog: Path, partition: Partition, marker: Path) -> bool:
    """Whether this plan has written the partition, and no other process has since."""
    try:
        return hats.is_complete(catalog, partition) and bool(read_json(marker) == hats.sidecar(catalog, partition))
    except (FileNotFoundError, Damaged):
        return False


def _write_rejected(found: list[Piece], work: Work, path: Path) -> None:
    """One table of the bad rows of all pieces, in the order of the files."""
    with atomic_write(path) as temporary, pq.ParquetWriter(temporary, REJECTED, compression="zstd") as writer:
        for piece in found:
            table = pq.read_table(work.rejected(piece))
            if table.num_rows:
                writer.write_table(table)


# -------------------------------------------------------------------------------------------------- workers


def _do(what: str, todo: list[Piece], task: Callable[[Piece], tuple[Any, ...]], run: Any) -> None:
    """Run one task per piece, with progress."""
    progress = Progress(what)
    for _, rows in run([task(piece) for piece in todo]):
        progress.add(rows)
    progress.end()


def _bytes(path: Path) -> int:
    return sum(p.stat().st_size for p in path.rglob("*") if p.is_file()) if path.is_dir() else path.stat().st_size
