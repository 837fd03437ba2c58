"""Simulated surveys of stamps as files: stamps with noise, catalogue photometry of the same galaxies, their redshifts, and true values.

The sky consists of fields far from each other. A field has its own galaxies, with walls, voids and groups, and its own seeing, noise and dust, and
depends on nothing but the seed and its number: more stamps add fields, and do not change the first ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from dataclasses import fields as dataclass_fields
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from zmill.catalog.files import atomic_write
from zmill.simulate import clustering, galaxies, imaging, morphology
from zmill.simulate.field import Field
from zmill.simulate.imaging import Conditions, Imager
from zmill.simulate.render import BULGE, DISC, Sources, render
from zmill.workflow.job import Progress

Array = NDArray[np.float64]
Image = NDArray[np.float32]

ROWS = 128
"""Stamps that are rendered at a time, and the rows of a row group."""
BEYOND = 6.0
"""Arcsec beyond the edge of a stamp in which galaxies add light to it."""
NOISE_MARGIN = 0.1
"""Galaxies are rendered down to this many magnitudes below the limit, because noise brightens some above it."""
FIRST_ID = 1_000_000_001
LARGEST_RADIUS = 20.0
"""Arcsec: larger half-light radii are set to this."""


@dataclass(frozen=True)
class Patch:
    """The galaxies of a field, down to the faintest neighbors.

    x, y : (n,) degrees from the corner; ra, dec : (n,) degrees.
    sample, structure : their properties; mag : (n, 2, b) magnitudes of bulge and disc, without extinction by the Milky Way.
    radius : (n, 2) arcsec.
    targets : (t,) rows of the galaxies that are selected, in random order; at : conditions at these.
    """

    field: Field
    x: Array
    y: Array
    ra: Array
    dec: Array
    sample: galaxies.Galaxies
    structure: morphology.Structure
    mag: Array
    radius: Array
    targets: NDArray[np.int64]
    at: Conditions


@dataclass(frozen=True)
class Stamps:
    """n stamps of a field.

    rows : (n,) the galaxies' rows in the patch; mag : (n, 2, b) their magnitudes, with extinction; at : conditions.
    image : (n, b, size, size) with noise; alone, expected : the same without noise, of the galaxy alone and with its neighbors.
    flux, error : (n, b) as the catalogue has them.
    neighbors : (n,) number of other galaxies whose light the stamp was given.
    """

    rows: NDArray[np.int64]
    mag: Array
    at: Conditions
    image: Image
    alone: Image
    expected: Image
    flux: Array
    error: Array
    neighbors: NDArray[np.int64]

    def __getitem__(self, rows: NDArray[np.bool_]) -> Stamps:
        return Stamps(**{f.name: getattr(self, f.name)[rows] for f in dataclass_fields(self)})


def imager(name: str) -> Imager:
    """The survey of a name in `zmill.simulate.IMAGERS`."""
    found: Imager = {"images": imaging.sdss, "images_lsst": imaging.lsst}[name]()
    return found


def _stream(seed: int, number: int, part: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(3, number, part)))


def place(made_by: Imager, number: int) -> Field:
    """The field of a number: at the center of a HEALPix pixel near the equator."""
    import cdshealpix

    per_base = 4**made_by.order
    pixel = np.array([4 * per_base + number], np.uint64)
    lon, lat = cdshealpix.healpix_to_lonlat(pixel, np.uint8(made_by.order))
    shape = Field.of_area(made_by.area)
    return Field(shape.width, shape.height, float(lon.deg[0]), float(lat.deg[0]))


def patch(made_by: Imager, number: int, seed: int, size: int) -> Patch:
    """Draw the galaxies of a field.

    Parameters
    ----------
    number : of the field.
    size : pixels on a side of the stamps; galaxies closer than half of it to the edge of the field are not selected.
    """
    rng = _stream(seed, number, 0)
    field = place(made_by, number)
    drawn = galaxies.draw(rng, field, made_by.faintest_i)
    x, y, z, _ = clustering.positions(rng, field, drawn.z, -drawn.mag_abs, drawn.red)
    sample = galaxies.Galaxies(z, drawn.mag_abs, drawn.type, drawn.dust, drawn.log_size, drawn.red)
    structure = morphology.draw(rng, sample)
    mag = morphology.magnitudes(rng, sample, structure, made_by.filters)
    intrinsic = -2.5 * np.log10((10 ** (-0.4 * mag[:, :, made_by.selected_by])).sum(axis=1))
    edge = (made_by.pixel_scale * size / 2 + BEYOND) / 3600
    inside = (np.minimum(x, field.width - x) > edge) & (np.minimum(y, field.height - y) > edge)
    bright = (intrinsic < made_by.limit + NOISE_MARGIN) & (z < made_by.farthest)
    kpc_per_arcsec = galaxies.comoving_distance(z) / (1 + z) * 1e3 * np.radians(1 / 3600)
    radius = np.minimum(structure.radius / kpc_per_arcsec[:, None], LARGEST_RADIUS)
    targets = rng.permutation(np.flatnonzero(inside & bright))
    at = imaging.conditions(rng, made_by, field, x[targets], y[targets])
    return Patch(field, x, y, *field.sky(x, y), sample, structure, mag, radius, targets, at)


def _sources(
    of: Patch, rows: NDArray[np.int64], stamp: NDArray[np.int64], x: Array, y: Array, extinction: Array
) -> Sources:
    """Galaxies of a patch at positions in stamps, with the extinction (n, b) of each stamp."""
    return Sources(
        stamp=stamp,
        x=x,
        y=y,
        flux=imaging.flux(of.mag[rows] + extinction[stamp][:, None]),
        radius=of.radius[rows],
        axis_ratio=of.structure.axis_ratio[rows],
        angle=of.structure.angle[rows],
        index=of.structure.index[rows],
    )


def take(made_by: Imager, of: Patch, chosen: slice, size: int, rng: np.random.Generator) -> Stamps:
    """Render the stamps of some of a patch's targets, add noise, and measure them.

    A galaxy is at the center of its stamp within half a pixel. North is up and east is left.
    """
    rows, at = of.targets[chosen], of.at[chosen]
    n, extinction = len(rows), np.array(made_by.extinction) * at.ebv[:, None]
    dx, dy = rng.uniform(-0.5, 0.5, (2, n)) * made_by.pixel_scale
    sources = _sources(of, rows, np.arange(n), dx, dy, extinction)
    alone = render(sources, n, size, made_by.pixel_scale, at.fwhm)

    plane = np.stack([of.x, of.y], axis=1) * 3600
    reach = made_by.pixel_scale * size / 2 + BEYOND
    near = cKDTree(plane).query_ball_point(plane[rows], reach, p=np.inf)
    stamp = np.repeat(np.arange(n), [len(found) for found in near])
    other = np.concatenate([np.sort(found) for found in near]).astype(np.int64)
    kept = other != rows[stamp]
    stamp, other = stamp[kept], other[kept]
    offset = plane[other] - plane[rows[stamp]]
    others = _sources(of, other, stamp, dx[stamp] - offset[:, 0], dy[stamp] + offset[:, 1], extinction)
    expected = alone + render(others, n, size, made_by.pixel_scale, at.fwhm)

    variances = imaging.variance(made_by, expected, at.noise)
    added = rng.standard_normal(expected.shape, np.float32) * np.sqrt(variances)
    flux, error = imaging.measure(rng, made_by, sources.flux.sum(axis=1), alone, added, variances)
    mag = of.mag[rows] + extinction[:, None]
    neighbors = np.bincount(stamp, minlength=n)
    return Stamps(rows, mag, at, expected + added, alone, expected, flux, error, neighbors)


def fields(made_by: Imager, seed: int, size: int) -> Iterator[tuple[Patch, Stamps]]:
    """Stamps of field after field, some at a time; those that are measured as fainter than the limit are left out."""
    for number in range(4 * 4**made_by.order):
        of = patch(made_by, number, seed, size)
        for chunk, start in enumerate(range(0, len(of.targets), ROWS)):
            made = take(made_by, of, slice(start, start + ROWS), size, _stream(seed, number, 1 + chunk))
            magnitude, _ = imaging.catalogue_magnitudes(made.flux, made.error)
            dereddened = magnitude - np.array(made_by.extinction) * made.at.ebv[:, None]
            yield of, made[dereddened[:, made_by.selected_by] < made_by.limit]


def rows_of(made_by: Imager, of: Patch, made: Stamps, first: int) -> tuple[pa.Table, pa.Table, pa.Table]:
    """Rows of the survey, of the labels, and of the true values; identifiers are numbered from `first`."""
    rows, n = made.rows, len(made.rows)
    magnitude, error = imaging.catalogue_magnitudes(made.flux, made.error)
    place_of = {
        "object_id": np.arange(first, first + n, dtype=np.int64),
        "ra": of.ra[rows],
        "dec": of.dec[rows],
    }
    photometry = {
        f"{what}_{band}": values[:, number].astype(np.float32)
        for number, band in enumerate(made_by.bands)
        for what, values in (("mag", magnitude), ("magerr", error))
    }
    bands, size = made.image.shape[1:3]
    tensor = pa.fixed_shape_tensor(pa.float32(), (bands, size, size))
    pixels = pa.FixedSizeListArray.from_arrays(pa.array(made.image.ravel()), bands * size * size)
    lists = {
        "image_ivar": (made.at.noise**-2).astype(np.float32),
        "image_psf": made.at.fwhm.astype(np.float32),
    }
    survey = pa.table(
        {
            **place_of,
            **photometry,
            "ebv": made.at.ebv.astype(np.float32),
            "image": pa.ExtensionArray.from_storage(tensor, pixels),
            **{
                name: pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), bands)
                for name, values in lists.items()
            },
        }
    )
    labels = pa.table({**place_of, "redshift": of.sample.z[rows]})
    flux = imaging.flux(made.mag)
    total = flux.sum(axis=1)
    true = {
        "object_id": place_of["object_id"],
        "redshift": of.sample.z[rows],
        "type": of.sample.type[rows],
        "dust": of.structure.dust[rows, DISC],
        "red": of.sample.red[rows],
        "bulge_fraction": flux[:, BULGE, made_by.selected_by] / total[:, made_by.selected_by],
        "bulge_radius": of.radius[rows, BULGE],
        "disc_radius": of.radius[rows, DISC],
        "axis_ratio": of.structure.axis_ratio[rows, DISC],
        "index": of.structure.index[rows],
        "neighbors": made.neighbors,
    }
    for number, band in enumerate(made_by.bands):
        true[f"mag_{band}"] = imaging.ZERO_POINT - 2.5 * np.log10(total[:, number])
        true[f"bulge_mag_{band}"] = made.mag[:, BULGE, number]
    return survey, labels, pa.table(true)


def simulate(name: str, number: int, size: int, seed: int, survey: Path, redshifts: Path, truth: Path) -> None:
    """Simulate `number` stamps of `size` pixels on a side; the bytes depend only on the arguments.

    Parameters
    ----------
    name : one of `zmill.simulate.IMAGERS`.
    survey : Parquet file with `object_id`, `ra`, `dec`, `mag_<band>` and `magerr_<band>` (AB, with extinction), `ebv`, and per stamp `image`
        (bands, size, size), `image_ivar` (inverse variance of the sky per pixel, per band) and `image_psf` (FWHM in arcsec, per band).
    redshifts : Parquet file with `object_id`, `ra`, `dec` and `redshift`.
    truth : Parquet file with the true values of each galaxy, which only tests read.
    """
    made_by = imager(name)
    progress = Progress("simulated stamps", number)
    done, labels, true = 0, [], []
    writer: pq.ParquetWriter | None = None
    with atomic_write(survey) as temporary:
        try:
            for of, made in fields(made_by, seed, size):
                parts = [part.slice(0, number - done) for part in rows_of(made_by, of, made, FIRST_ID + done)]
                writer = writer or pq.ParquetWriter(temporary, parts[0].schema, compression="zstd")
                writer.write_table(parts[0])
                labels.append(parts[1])
                true.append(parts[2])
                done += parts[0].num_rows
                progress.add(parts[0].num_rows)
                if done == number:
                    break
        finally:
            if writer:
                writer.close()
        if done < number:
            raise ValueError(f"demo.stamps: found {number:,}, and the simulated sky has {done:,}: lower it")
    progress.end()
    for path, tables in ((redshifts, labels), (truth, true)):
        with atomic_write(path) as temporary:
            pq.write_table(pa.concat_tables(tables), temporary, compression="zstd")
