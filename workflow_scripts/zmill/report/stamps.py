"""Stamps of test rows with their PDFs: a section of the report, for surveys with images."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from zmill.catalog.sky import HEALPIX_COLUMN
from zmill.inputs.image.kind import FLUX, GOOD
from zmill.report import figures
from zmill.report.binned import Floats
from zmill.report.blocks import Note, Section, picture
from zmill.report.figures import Stamp
from zmill.report.sources import Sources

SHOWN = 4
"""Stamps of a kind."""
COLORS = 3
"""Bands of a color picture."""


def stamps_section(sources: Sources, bands: Sequence[str]) -> Section | None:
    """The best and the worst predictions of test rows that have a stamp, and rows that are out of distribution; None without images.

    bands : bands of the stamps.
    """
    sample = sources.table("sample/test.parquet", ["object_id", HEALPIX_COLUMN, GOOD]) if bands else None
    if sample is None or not sample.num_rows:
        return None
    there = sample.filter(pa.compute.greater(sample[GOOD], 0))
    found = sources.predictions(sources.chosen, "test").join(there, "object_id", join_type="inner").sort_by("object_id")
    if not found.num_rows:
        return None
    section = Section("stamps", "What the images show", "Images")
    shown = color_bands(bands)
    section.blocks.append(
        Note(
            f"Test rows with a stamp: {found.num_rows:,} of {sample.num_rows:,}. Red, green and blue are {', '.join(shown)}, each in units of its "
            "noise and compressed. Below each stamp are its PDF, a line at its spectroscopic redshift, and z_mode as a number."
        )
    )
    for kind, title, rows in chosen(found):
        if len(rows):
            drawn = _stamps(sources, found.take(pa.array(rows)), [list(bands).index(band) for band in shown])
            caption = f"{title}: " + ", ".join(f"{one.name} (z = {one.z:.3g})" for one in drawn)
            section.blocks.append(picture(f"stamps-{kind}", caption, caption, partial(figures.stamps, drawn, SHOWN)))
    return section


def chosen(rows: pa.Table) -> list[tuple[str, str, NDArray[np.int64]]]:
    """Name, title and numbers of the rows of each kind that are shown. rows : predictions of test rows."""
    z, z_mode = (rows[name].to_numpy() for name in ("redshift", "z_mode"))
    error = np.abs(z_mode - z) / (1 + z)
    ood = np.flatnonzero(rows["ood"].to_numpy(zero_copy_only=False) > 0)
    by_error = np.argsort(error, kind="stable")
    return [
        ("best", "Best predictions", by_error[np.argsort(-rows["log_score"].to_numpy()[by_error], kind="stable")][:SHOWN]),
        ("worst", "Largest errors", by_error[::-1][:SHOWN]),
        ("ood", "Out of distribution", ood[np.argsort(-error[ood], kind="stable")][:SHOWN]),
    ]  # fmt: skip


def color_bands(bands: Sequence[str]) -> list[str]:
    """The bands that are shown as red, green and blue; of more than three, the first and the last are left out."""
    inner = bands[1:-1] if len(bands) > COLORS else bands
    return [inner[number] for number in np.linspace(len(inner) - 1, 0, COLORS).round().astype(int)]


def _stamps(sources: Sources, rows: pa.Table, bands: Sequence[int]) -> list[Stamp]:
    """The rows with their pixels and PDFs."""
    ids = rows["object_id"].combine_chunks()
    pixels = sources.rows("sample/test.parquet", ["object_id", FLUX], "object_id", ids)
    number = {identity: place for place, identity in enumerate(pixels["object_id"].to_pylist())}
    flux = pixels[FLUX].combine_chunks()
    shape = (len(flux), *flux.type.shape)
    values = np.asarray(flux.storage.flatten(), np.float64).reshape(shape)
    densities = sources.densities(ids, rows[HEALPIX_COLUMN].to_numpy())
    drawn = []
    for row in rows.select(["object_id", "redshift", "z_mode"]).to_pylist():
        image = values[number[row["object_id"]]][list(bands)]
        drawn.append(
            Stamp(
                str(row["object_id"]), colored(image), row["redshift"], row["z_mode"], densities.get(row["object_id"])
            )
        )
    return drawn


def colored(planes: Floats) -> Floats:
    """(N, N, 3) colors between 0 and 1 of three planes (3, N, N), each in units of the scatter at its border (Lupton et al. 2004)."""
    border = np.concatenate([planes[:, 0], planes[:, -1], planes[:, :, 0], planes[:, :, -1]], axis=1)
    middle = np.median(border, axis=1)[:, None, None]
    scatter = 1.4826 * np.median(np.abs(border[:, None] - middle), axis=2)[:, :, None]
    x = planes / np.where(scatter > 0, scatter, 1)
    mean = x.mean(axis=0)
    top = max(float(mean.max()), 1.0)
    compressed = np.arcsinh(10 * np.maximum(mean, 0) / top) / np.arcsinh(10)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = x * np.where(mean > 0, compressed / mean, 0)
    return np.asarray(np.clip(found, 0, 1).transpose(1, 2, 0))
