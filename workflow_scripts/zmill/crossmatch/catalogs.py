"""Cross-match of two HATS catalogues on disk; only row groups with possible matches are read.

Candidates of all partitions are resolved together, so that partition edges have no effect on the result.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
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
from zmill.catalog.hats import Partition
from zmill.catalog.sky import HEALPIX_COLUMN
from zmill.crossmatch import alarms, offset
from zmill.crossmatch.chance import expected_false, shifted, shifted_rows
from zmill.crossmatch.copies import first_copies
from zmill.crossmatch.magnitude import costs
from zmill.crossmatch.match import Cells, Discs, Floats, Ints, candidates, cell_order, cells_of, nearest
from zmill.crossmatch.offset import Offset
from zmill.inputs.base import InputKind
from zmill.workflow.job import log
from zmill.workflow.warning import Warnings

FEWEST = 40
"""Fewest matches from which a sample of four splits can be drawn."""

SPECZ_COLUMNS = ["specz_id", "redshift", "redshift_err", "quality", "label_source"]


class CrossmatchError(Exception):
    """Survey and spectra cannot be matched; the message names the cause and what to do."""


def crossmatch(
    survey: Path,
    specz: Path,
    matches: Path,
    counts: Path,
    keep_ambiguous: bool = False,
    threads: int = 1,
    inputs: Sequence[InputKind] = (),
) -> dict[str, Any]:
    """Match two HATS catalogues; write the matches as Parquet and their counts as JSON.

    Parameters
    ----------
    survey, specz, inputs : see `find`.
    keep_ambiguous : whether ambiguous matches count as usable.

    Raises
    ------
    CrossmatchError
        Where too few spectra find an object, or most find an unrelated one.
    """
    table, facts = find(survey, specz, threads, inputs)
    offsets = {name: Offset(**found) for name, found in facts["offsets"].items()}
    if fault := alarms.wrong(facts, offsets, facts["radius_arcsec"]):
        raise CrossmatchError(fault)
    alarms.warn(facts, offsets, facts["radius_arcsec"], facts["warnings"])
    _enough(survey, facts, keep_ambiguous)
    with atomic_write(matches) as temporary:
        pq.write_table(table, temporary, compression="zstd", compression_level=1)
    write_json(counts, facts)
    log.info("%s", json.dumps(facts, sort_keys=True))
    return facts


def find(
    survey: Path, specz: Path, threads: int = 1, inputs: Sequence[InputKind] = ()
) -> tuple[pa.Table, dict[str, Any]]:
    """The matches of two HATS catalogues in the order of the survey, and their counts.

    Parameters
    ----------
    survey : HATS with `object_id`, `ra`, `dec`, sorted by `_healpix_29`.
    specz : HATS as `zmill.labels.build` writes it.
    inputs : input kinds of the survey. The magnitudes of one that has them choose among several candidates, for spectra that have a
        magnitude. Copies of objects are only found with input kinds.
    """
    partitions = hats.partitions(survey)
    rows = sum(hats.sidecar(survey, partition)["rows"] for partition in partitions)
    spectra, discs = read_spectra(specz)
    column = next((name for kind in inputs if (name := kind.magnitude_column()) is not None), None)
    magnitude = read_magnitudes(specz) if column is not None else np.empty(0, np.float32)
    names, source = np.unique(spectra["label_source"].to_numpy().astype(np.str_), return_inverse=True)
    shift = shifted(discs)
    wide, wide_source = offset.around(discs, source)
    area = sum(4 * np.pi / (12 * 4**partition.order) for partition in partitions)
    order = cell_order(float(np.max(discs.radius, initial=1.0)), rows / area)
    wide_order = cell_order(float(np.max(wide.radius, initial=1.0)), rows / area)
    search = partial(
        _search,
        survey,
        discs=discs,
        cells=cells_of(discs, order),
        shift=shift,
        shift_cells=cells_of(shift, order),
        wide=wide,
        wide_cells=cells_of(wide, wide_order),
        magnitude=column,
    )
    with ThreadPoolExecutor(threads) as pool:
        parts = list(pool.map(search, range(len(partitions)), partitions))
    found = pa.concat_tables([part.candidates for part in parts])
    chance_matches = np.unique(np.concatenate([part.chance_matches for part in parts]))
    if column is not None and np.isfinite(magnitude).any() and len(found):
        found = _weigh(found, column, spectra["label_source"], magnitude)
    table, facts = _resolve(found, spectra, discs, partitions, inputs)
    chance = len(chance_matches) / max(len(shift), 1)
    matched = table["disc"].to_numpy()
    separation, radius = table["separation_arcsec"].to_numpy().astype(np.float64), discs.radius[matched]
    shifted_source = source[shifted_rows(discs)]
    false, having = {}, {}
    for number, name in enumerate(names.tolist()):
        of_source, mine = shifted_source[chance_matches] == number, source[matched] == number
        share = float(np.count_nonzero(of_source)) / max(int(np.count_nonzero(shifted_source == number)), 1)
        spectra_of_it = int(np.count_nonzero(source == number))
        false[name] = round(expected_false(share, spectra_of_it, separation[mine], radius[mine]), 1)
        having[name] = spectra_of_it
    facts |= {
        "survey_rows": rows,
        "survey_rows_read": sum(part.rows for part in parts),
        "spectra": len(discs),
        "specz_footprint": describe_positions(discs.ra, discs.dec),
        "shifted_spectra": len(shift),
        "chance_match_fraction": chance,
        "expected_false_matches": round(expected_false(chance, len(discs), separation, radius), 1),
        "expected_false_by_source": false,
        "spectra_by_source": having,
        "offsets": _offsets(names.tolist(), wide, wide_source, [part.around for part in parts]),
        "radius_arcsec": {
            name: round(float(np.median(discs.radius[source == number])), 4)
            for number, name in enumerate(names.tolist())
        },
        "warnings": Warnings(),
    }
    return table.drop_columns(["disc"]), facts


@dataclass(frozen=True)
class Searched:
    """The result of the search in one partition.

    Attributes
    ----------
    candidates : the candidates of each spectrum, with flags for the nearest and the shared ones of each row.
    chance_matches : numbers of the shifted spectra within the radius of a row.
    around : (3, n) number of a spectrum with a wide search radius, and its offset east and north of a row in arcsec.
    rows : number of rows read.
    """

    candidates: pa.Table
    chance_matches: Ints
    around: Floats
    rows: int


def _offsets(names: list[str], wide: Discs, source: Ints, parts: list[Floats]) -> dict[str, dict[str, Any]]:
    """The offsets of the sources for which one can be measured."""
    number, east, north = np.concatenate([np.empty((3, 0)), *parts], axis=1)
    of = source[number.astype(np.int64)]
    found = {}
    for index, name in enumerate(names):
        mine = source == index
        reach = float(np.max(wide.radius[mine], initial=0.0))
        one = offset.measure(east[of == index], north[of == index], int(mine.sum()), reach)
        if one is not None:
            found[name] = {key: round(value, 4) for key, value in asdict(one).items()}
    return found


def read_magnitudes(specz: Path) -> NDArray[np.float32]:
    """Magnitudes of all spectra in the order of the sky, NaN where unknown."""
    tables = [hats.read_columns(specz, partition, ["magnitude"]) for partition in hats.partitions(specz)]
    magnitude: NDArray[np.float32] = pa.concat_tables(tables)["magnitude"].to_numpy()
    return magnitude


def read_spectra(specz: Path) -> tuple[pa.Table, Discs]:
    """All spectra in the order of the sky: the columns that a match keeps, and the discs to search."""
    columns = [HEALPIX_COLUMN, "ra", "dec", "radius_arcsec", *SPECZ_COLUMNS]
    table = pa.concat_tables([hats.read_columns(specz, partition, columns) for partition in hats.partitions(specz)])
    table = table.combine_chunks()
    discs = Discs(
        table[HEALPIX_COLUMN].to_numpy(),
        table["ra"].to_numpy(),
        table["dec"].to_numpy(),
        table["radius_arcsec"].to_numpy().astype(np.float64),
    )
    hats.assert_sorted(discs.healpix29, str(specz))
    return table.select(SPECZ_COLUMNS), discs


def _search(
    survey: Path,
    number: int,
    partition: Partition,
    *,
    discs: Discs,
    cells: Cells,
    shift: Discs,
    shift_cells: Cells,
    wide: Discs,
    wide_cells: Cells,
    magnitude: str | None,
) -> Searched:
    """Candidates of one partition, and the pairs from which chance matches and offsets are measured."""
    tables, chance_matches, around, read = [], [np.empty(0, np.int64)], [np.empty((3, 0))], 0
    with pq.ParquetFile(partition.file(survey)) as file:
        names = file.schema_arrow.names
        for group, first_row in _groups(file, names.index(HEALPIX_COLUMN), cells):
            positions = file.read_row_group(group, columns=[HEALPIX_COLUMN, "ra", "dec"], use_threads=False)
            index, ra, dec = (positions[name].to_numpy() for name in (HEALPIX_COLUMN, "ra", "dec"))
            hats.assert_sorted(index, str(partition.file(survey)))
            read += len(index)
            chance_matches.append(candidates(index, ra, dec, shift, shift_cells).disc)
            far = candidates(index, ra, dec, wide, wide_cells)
            vectors = offset.vectors(ra[far.row], dec[far.row], wide.ra[far.disc], wide.dec[far.disc])
            around.append(np.stack([far.disc.astype(np.float64), *vectors]))
            pairs = candidates(index, ra, dec, discs, cells)
            if not len(pairs.row):
                continue
            best, shared = nearest(pairs.row, pairs.separation, pairs.disc)
            carried = ["object_id", *([magnitude] if magnitude else [])]
            rows = file.read_row_group(group, columns=carried, use_threads=False)
            ids = rows["object_id"]
            extra = {magnitude: rows[magnitude].to_numpy()[pairs.row]} if magnitude else {}
            tables.append(
                pa.table(
                    {
                        "object_id": ids.take(pairs.row),
                        HEALPIX_COLUMN: index[pairs.row],
                        "part": np.full(len(pairs.row), number),
                        "row": pairs.row + first_row,
                        "ra": ra[pairs.row],
                        "dec": dec[pairs.row],
                        "disc": pairs.disc,
                        "separation": pairs.separation,
                        "best": best,
                        "shared": shared,
                        **extra,
                    }
                )
            )
        empty = file.schema_arrow.field("object_id").type
    return Searched(
        pa.concat_tables(tables) if tables else _no_candidates(empty, magnitude),
        np.concatenate(chance_matches),
        np.concatenate(around, axis=1),
        read,
    )


def _weigh(found: pa.Table, column: str, label_source: pa.ChunkedArray, magnitude: NDArray[np.float32]) -> pa.Table:
    """Candidates with their `cost` by separation and magnitude, and `best` of each row by that cost.

    column : of the candidates' magnitudes. magnitude : of all spectra.
    """
    disc, part, row, shared = (found[name].to_numpy() for name in ("disc", "part", "row", "shared"))
    difference = found[column].to_numpy().astype(np.float64) - magnitude[disc]
    source = label_source.combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)[disc]
    alone = ~shared & (np.bincount(disc)[disc] == 1)
    cost = costs(found["separation"].to_numpy(), difference, source, alone)
    same_row = np.unique((part << 40) + row, return_inverse=True)[1].astype(np.int64)
    best, _ = nearest(same_row, cost, disc)
    found = found.set_column(found.column_names.index("best"), "best", pa.array(best))
    return found.append_column("cost", pa.array(cost))


def _resolve(
    found: pa.Table, spectra: pa.Table, discs: Discs, partitions: list[Partition], inputs: Sequence[InputKind]
) -> tuple[pa.Table, dict[str, Any]]:
    """Mutual nearest among the candidates of all partitions, and their counts."""
    with_candidate = len(pc.unique(found["disc"]))
    found, repeated = _without_copies(found, inputs)
    disc, separation, part, row, of_row, row_shared = (
        found[name].to_numpy() for name in ("disc", "separation", "part", "row", "best", "shared")
    )
    row_id = (part << 40) + row
    cost = found["cost"].to_numpy() if "cost" in found.column_names else separation
    of_disc, disc_shared = nearest(disc, cost, row_id)
    chosen = np.flatnonzero(of_row & of_disc)
    chosen = chosen[np.argsort(row_id[chosen], kind="stable")]
    ambiguous = (row_shared | disc_shared)[chosen]
    order = np.array([partition.order for partition in partitions], np.int8)
    pixel = np.array([partition.pixel for partition in partitions], np.int64)
    taken, label = found.take(chosen), spectra.take(disc[chosen])
    table = pa.table(
        {
            "object_id": taken["object_id"],
            HEALPIX_COLUMN: taken[HEALPIX_COLUMN],
            "norder": order[part[chosen]],
            "npix": pixel[part[chosen]],
            **{name: taken[name] for name in ("row", "ra", "dec")},
            **{name: label[name] for name in SPECZ_COLUMNS},
            "separation_arcsec": separation[chosen].astype(np.float32),
            "ambiguous": ambiguous,
            "disc": disc[chosen],
        }
    )
    sources = table["label_source"].value_counts().to_pylist()
    return table, {
        "matched": len(chosen),
        "ambiguous": int(ambiguous.sum()),
        "repeated_objects": repeated,
        "not_mutual": with_candidate - len(chosen),
        "no_object_within_radius": len(discs) - with_candidate,
        "matched_by_source": {entry["values"]: entry["counts"] for entry in sources},
        "median_separation_arcsec": round(float(np.median(separation[chosen])), 4) if len(chosen) else None,
    }


def _without_copies(found: pa.Table, inputs: Sequence[InputKind]) -> tuple[pa.Table, int]:
    """Candidates after removal of the copies of objects, where the survey has input kinds, and the number of objects with copies."""
    if not inputs:
        return found, 0
    row_id = (found["part"].to_numpy() << 40) + found["row"].to_numpy()
    cost = found["cost" if "cost" in found.column_names else "separation"].to_numpy()
    stays, repeated = first_copies(row_id, found, found["disc"].to_numpy(), cost, inputs)
    return found.filter(pa.array(stays)), repeated


def _enough(survey: Path, facts: dict[str, Any], keep_ambiguous: bool) -> None:
    good = facts["matched"] if keep_ambiguous else facts["matched"] - facts["ambiguous"]
    if good >= FEWEST:
        return
    raise CrossmatchError(
        f"{good} spectra have a match that can be used, at least {FEWEST} are needed to train, calibrate and "
        f"test: of {facts['spectra']} spectra {facts['no_object_within_radius']} have no object within the radius, "
        f"{facts['not_mutual']} are not the nearest of their object, {facts['ambiguous']} are ambiguous. "
        f"Survey: {Footprint.read(survey).describe()}. Spectra: {facts['specz_footprint']}. "
        "Check that both are in the same coordinate system, widen crossmatch.radius_arcsec, or add label sources"
    )


def _groups(file: pq.ParquetFile, column: int, cells: Cells) -> Iterator[tuple[int, int]]:
    """Row groups that a cell may touch, each with the number of its first row."""
    first_row = 0
    for group in range(file.metadata.num_row_groups):
        facts = file.metadata.row_group(group)
        if facts.num_rows:
            bounds = facts.column(column).statistics
            touched = cells.between(bounds.min, bounds.max)
            if touched.stop > touched.start:
                yield group, first_row
        first_row += facts.num_rows


def _no_candidates(object_id: pa.DataType, magnitude: str | None) -> pa.Table:
    types = [object_id, pa.int64(), pa.int64(), pa.int64(), pa.float64(), pa.float64(), pa.int64(), pa.float64()]
    names = ["object_id", HEALPIX_COLUMN, "part", "row", "ra", "dec", "disc", "separation", "best", "shared"]
    fields = list(zip(names, [*types, pa.bool_(), pa.bool_()], strict=True))
    return pa.schema([*fields, *([(magnitude, pa.float32())] if magnitude else [])]).empty_table()
