"""The nearest training spectra of the objects that `snakemake retrieve` was asked for: a section of the report."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa

from zmill.inputs.spectrum.grid import WavelengthGrid
from zmill.inputs.spectrum.kind import FLUX, IVAR, WAVELENGTH
from zmill.report import figures
from zmill.report.binned import Floats
from zmill.report.blocks import Block, Note, Section, Table, count, number, picture, text
from zmill.report.sources import Sources

OBJECTS = 6
"""Largest number of objects on the page."""
DRAWN = 3
"""Training spectra that are drawn of each."""


def retrieved_section(sources: Sources) -> Section | None:
    """Spectra of the objects and of the training rows that are nearest to them; None where nothing was retrieved."""
    table = sources.table("retrieve.parquet")
    if table is None:
        return None
    section = Section("retrieved", "Nearest training spectra", "Neighbors")
    first = np.flatnonzero(table["rank"].to_numpy() == 0)
    ends = [*first[1:].tolist(), table.num_rows]
    section.blocks.append(
        Note(
            f"{len(first):,} objects were looked up (snakemake retrieve). The spread of the neighbors' redshifts is what the training spectra do not "
            "tell apart. A novelty above 1, the mean distance in units of that beyond which an object is out of distribution, says that there "
            "are no such training spectra."
        )
    )
    if len(first) > OBJECTS:
        section.blocks.append(
            Note(f"The first {OBJECTS} are shown; results/<survey>/retrieve.parquet has all of them.")
        )
    for place, (start, end) in enumerate(zip(first.tolist(), ends, strict=True)):
        if place < OBJECTS:
            section.blocks += _object(place, table.slice(start, end - start))
    return section


def _object(place: int, rows: pa.Table) -> list[Block]:
    """A picture and a table of an object and its neighbors."""
    name = str(rows["object_id"][0].as_py())
    z, novelty = (rows[column].to_numpy()[1:] for column in ("redshift", "novelty"))
    title = f"{name}: redshifts {np.mean(z):.4g} ± {np.std(z):.2g}, novelty {np.mean(novelty):.3g}"
    cells = [
        [
            count(row["rank"]),
            text(row["neighbor_id"]),
            text(row["split"]),
            number(row["redshift"], 4),
            number(row["distance"]),
            number(row["novelty"]),
        ]
        for row in rows.select(["rank", "neighbor_id", "split", "redshift", "distance", "novelty"]).to_pylist()
        if row["rank"]
    ]
    table = Table(
        f"Nearest training spectra of {name}",
        ["rank", "training row", "split", "redshift", "distance", "novelty"],
        cells,
    )
    grid = WavelengthGrid.from_json(json.loads(rows.schema.field(FLUX).metadata[WAVELENGTH]))
    labels = [name, *(f"{rank}. {cell[1].text}, z = {cell[3].text}" for rank, cell in enumerate(cells[:DRAWN], 1))]
    drawn = [(label, _flux(rows, number_)) for number_, label in enumerate(labels)]
    return [
        picture(
            f"retrieved{place}",
            title,
            f"Spectrum of {name} above the {len(drawn) - 1} nearest training spectra, whose redshifts are {np.mean(z):.4g} ± {np.std(z):.2g}.",
            lambda: figures.spectra(grid.wavelength, drawn),
        ),
        table,
    ]


def _flux(rows: pa.Table, row: int) -> Floats:
    """Fluxes of a row, NaN in masked pixels."""
    flux, ivar = (rows[name].slice(row, 1).combine_chunks().flatten().to_numpy() for name in (FLUX, IVAR))
    return np.where(ivar > 0, flux, np.nan).astype(np.float64)
