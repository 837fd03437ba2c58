"""Match of two HATS catalogues on disk: only row groups that can match are read.

Candidates of all partitions are resolved together, so that partition edges do not exist for the result.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from zmill.catalog import hats
from zmill.catalog.files import whole, write_json
from zmill.catalog.footprint import Footprint, describe_positions
from zmill.catalog.hats import Partition
from zmill.catalog.sky import HEALPIX_COLUMN
from zmill.crossmatch.chance import expected_false, shifted
from zmill.crossmatch.magnitude import costs
from zmill.crossmatch.match import Cells, Discs, Ints, candidates, cell_order, cells_of, nearest
from zmill.job import log

FEWEST = 40
"""Matches without which no sample of four parts can be drawn."""

SPECZ_COLUMNS = ["specz_id", "redshift", "redshift_err", "quality", "label_source"]


class CrossmatchError(Exception):
    """Survey and spectra cannot be matched: the message says what was found and what to do."""


def crossmatch(
    survey: Path,
    specz: Path,
    matches: Path,
    counts: Path,
    keep_ambiguous: bool = False,
    threads: int = 1,
    band: str | None = None,
) -> dict[str, Any]:
    """Match two HATS catalogues; write the matches as Parquet and what was counted as JSON.

    Parameters
    ----------
    survey, specz, band : see `find`.
    keep_ambiguous : ambiguous matches will be used, and count.

    Raises
    ------
    CrossmatchError
        Where too few spectra find an object.
    """
    table, facts = find(survey, specz, threads, band)
    _enough(survey, facts, keep_ambiguous)
    with whole(matches) as temporary:
        pq.write_table(table, temporary, compression="zstd", compression_level=1)
    write_json(counts, facts)
    log.info("%s", json.dumps(facts, sort_keys=True))
    return facts


def find(survey: Path, specz: Path, threads: int = 1, band: str | None = None) -> tuple[pa.Table, dict[str, Any]]:
    """The matches of two HATS catalogues in the order of the survey, and what was counted.

    Parameters
    ----------
    survey : HATS with `object_id`, `ra`, `dec`, sorted by `_healpix_29`.
    specz : HATS as `zmill.labels.merge` writes it.
    band : band of the survey whose magnitudes tell between several candidates, for spectra that come with a magnitude.
    """
    partitions = hats.partitions(survey)
    rows = sum(hats.sidecar(survey, partition)["rows"] for partition in partitions)
    spectra, discs = read_spectra(specz)
    magnitude = read_magnitudes(specz) if band is not None else np.empty(0, np.float32)
    column = f"mag_{band}" if np.isfinite(magnitude).any() else None
    shift = shifted(discs)
    area = sum(4 * np.pi / (12 * 4**partition.order) for partition in partitions)
    order = cell_order(float(np.max(discs.radius, initial=1.0)), rows / area)
    search = partial(
        _search,
        survey,
        discs=discs,
        cells=cells_of(discs, order),
        shift=shift,
        shift_cells=cells_of(shift, order),
        magnitude=column,
    )
    with ThreadPoolExecutor(threads) as pool:
        parts = list(pool.map(search, range(len(partitions)), partitions))
    found = pa.concat_tables([table for table, _, _ in parts])
    lucky = np.unique(np.concatenate([chance for _, chance, _ in parts]))
    if column is not None and len(found):
        found = _weigh(found, spectra["label_source"], magnitude)
    table, facts = _resolve(found, spectra, discs, partitions)
    chance = len(lucky) / max(len(shift), 1)
    radius = discs.radius[table["disc"].to_numpy()]
    facts |= {
        "survey_rows": rows,
        "survey_rows_read": sum(read for _, _, read in parts),
        "spectra": len(discs),
        "specz_footprint": describe_positions(discs.ra, discs.dec),
        "shifted_spectra": len(shift),
        "chance_match_fraction": chance,
        "expected_false_matches": round(
            expected_false(chance, len(discs), table["separation_arcsec"].to_numpy().astype(np.float64), radius), 1
        ),
    }
    return table.drop_columns(["disc"]), facts


def read_magnitudes(specz: Path) -> NDArray[np.float32]:
    """Magnitudes of all spectra in the order of the sky, NaN where unknown."""
    tables = [hats.read_columns(specz, partition, ["magnitude"]) for partition in hats.partitions(specz)]
    magnitude: NDArray[np.float32] = pa.concat_tables(tables)["magnitude"].to_numpy()
    return magnitude


def read_spectra(specz: Path) -> tuple[pa.Table, Discs]:
    """All spectra in the order of the sky: the columns that a match carries, and the discs to search."""
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
    magnitude: str | None,
) -> tuple[pa.Table, Ints, int]:
    """Candidates of one partition, with what the row side alone decides; the shifted discs that found a row; rows read."""
    tables, lucky, read = [], [np.empty(0, np.int64)], 0
    with pq.ParquetFile(partition.file(survey)) as file:
        names = file.schema_arrow.names
        for group, first_row in _groups(file, names.index(HEALPIX_COLUMN), cells):
            positions = file.read_row_group(group, columns=[HEALPIX_COLUMN, "ra", "dec"], use_threads=False)
            index, ra, dec = (positions[name].to_numpy() for name in (HEALPIX_COLUMN, "ra", "dec"))
            hats.assert_sorted(index, str(partition.file(survey)))
            read += len(index)
            lucky.append(candidates(index, ra, dec, shift, shift_cells).disc)
            pairs = candidates(index, ra, dec, discs, cells)
            if not len(pairs.row):
                continue
            best, shared = nearest(pairs.row, pairs.separation, pairs.disc)
            carried = ["object_id", *([magnitude] if magnitude else [])]
            rows = file.read_row_group(group, columns=carried, use_threads=False)
            ids = rows["object_id"]
            extra = {"magnitude": rows[magnitude].to_numpy()[pairs.row]} if magnitude else {}
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
    return (
        pa.concat_tables(tables) if tables else _no_candidates(empty, magnitude is not None),
        np.concatenate(lucky),
        read,
    )


def _weigh(found: pa.Table, label_source: pa.ChunkedArray, magnitude: NDArray[np.float32]) -> pa.Table:
    """Candidates with their `cost` by separation and magnitude, and what is best of each row's by that."""
    disc, part, row, shared = (found[name].to_numpy() for name in ("disc", "part", "row", "shared"))
    difference = found["magnitude"].to_numpy().astype(np.float64) - magnitude[disc]
    source = label_source.combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)[disc]
    alone = ~shared & (np.bincount(disc)[disc] == 1)
    cost = costs(found["separation"].to_numpy(), difference, source, alone)
    same_row = np.unique((part << 40) + row, return_inverse=True)[1].astype(np.int64)
    best, _ = nearest(same_row, cost, disc)
    found = found.set_column(found.column_names.index("best"), "best", pa.array(best))
    return found.append_column("cost", pa.array(cost))


def _resolve(
    found: pa.Table, spectra: pa.Table, discs: Discs, partitions: list[Partition]
) -> tuple[pa.Table, dict[str, Any]]:
    """Mutual nearest among the candidates of all partitions, and what was counted."""
    disc, separation, part, row, of_row, row_shared = (
        found[name].to_numpy() for name in ("disc", "separation", "part", "row", "best", "shared")
    )
    place = (part << 40) + row
    cost = found["cost"].to_numpy() if "cost" in found.column_names else separation
    of_disc, disc_shared = nearest(disc, cost, place)
    chosen = np.flatnonzero(of_row & of_disc)
    chosen = chosen[np.argsort(place[chosen], kind="stable")]
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
    with_candidate = int(np.count_nonzero(np.bincount(disc, minlength=len(discs)))) if len(disc) else 0
    sources = table["label_source"].value_counts().to_pylist()
    return table, {
        "matched": len(chosen),
        "ambiguous": int(ambiguous.sum()),
        "not_mutual": with_candidate - len(chosen),
        "no_object_within_radius": len(discs) - with_candidate,
        "matched_by_source": {entry["values"]: entry["counts"] for entry in sources},
        "median_separation_arcsec": round(float(np.median(separation[chosen])), 4) if len(chosen) else None,
    }


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


def _no_candidates(object_id: pa.DataType, magnitude: bool) -> pa.Table:
    types = [object_id, pa.int64(), pa.int64(), pa.int64(), pa.float64(), pa.float64(), pa.int64(), pa.float64()]
    names = ["object_id", HEALPIX_COLUMN, "part", "row", "ra", "dec", "disc", "separation", "best", "shared"]
    fields = list(zip(names, [*types, pa.bool_(), pa.bool_()], strict=True))
    return pa.schema([*fields, *([("magnitude", pa.float32())] if magnitude else [])]).empty_table()
