"""Simulated surveys of spectra as files: spectra with and without noise, their redshifts, and the SEDs that were used.

All spectra of an SED, and of SEDs that are the same within 1 %, have positions in one pixel of HEALPix order 8, and no other spectrum has. A
split by sky blocks is therefore a split by SED: no SED of a test row was seen in training.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pyarrow import csv

from zmill.catalog.files import atomic_write
from zmill.restframe import lines
from zmill.restframe.cells import Cells, line_energy
from zmill.restframe.seds import FEWEST_GROUPS, Rejected, Sed, SedError, groups, mixtures, read_seds
from zmill.sed import LIGHT_SPEED
from zmill.simulate.instrument import UNIT, Instrument
from zmill.workflow.job import Progress, log

Array = NDArray[np.float64]

BLOCK_ORDER, INNER_ORDER = 8, 9
"""HEALPix order of the pixel that a group of SEDs has for itself, and of the part of it that holds the positions."""
FIRST_BLOCK = 300_000
"""The pixel of the first group; those of the others follow."""
MOST_COPIES = 8
"""Largest number of HEALPix orders between `INNER_ORDER` and that of the positions, which are then 1.6 arcsec apart."""
FLOOR = 1e-4
"""Standard deviation that `ivar` states for spectra without noise, in units of the median flux of the spectrum."""
LOGGED = 10
"""SEDs that are not used and whose reasons are logged."""
ROWS = 1024
"""Spectra that are simulated at a time, and the rows of a row group."""


@dataclass(frozen=True)
class Library:
    """SEDs in the rest-frame cells of an instrument, scaled to a flux of about 1.

    names : (s,); group : (s,) number of the group of equal SEDs.
    energy : (s, c) energy in the cells, with emission lines.
    origin : (s,) `own`, `added` or `none`: where emission lines come from.
    rejected : SEDs that are not used.
    """

    names: list[str]
    group: NDArray[np.int64]
    cells: Cells
    energy: Array
    origin: list[str]
    rejected: list[Rejected]

    def table(self) -> pa.Table:
        """A row per SED, used or not."""
        blank = [None] * len(self.rejected)
        return pa.table(
            {
                "sed": self.names + [entry.name for entry in self.rejected],
                "group": pa.array([*self.group.tolist(), *blank], pa.int64()),
                "lines": pa.array([*self.origin, *blank], pa.string()),
                "rejected": pa.array([None] * len(self.names) + [entry.reason for entry in self.rejected], pa.string()),
            }
        )


@dataclass(frozen=True)
class Objects:
    """Galaxies. object_id, ra, dec (degrees), z, magnitude, sed (number of the SED), (n,) each."""

    object_id: NDArray[np.int64]
    ra: Array
    dec: Array
    z: Array
    magnitude: Array
    sed: NDArray[np.int64]


def instrument(name: str) -> Instrument:
    """The instrument of a name in `zmill.simulate.INSTRUMENTS`."""
    found: Instrument = importlib.import_module(f"zmill.simulate.{name}").instrument()
    return found


def library(made_by: Instrument, files: Sequence[Path], seed: int) -> Library:
    """SEDs of files, or mixtures of BPZ's templates without files, as an instrument needs them.

    SEDs without emission lines are given some; SEDs that do not cover the instrument at all of its redshifts are left out.

    Raises
    ------
    SedError
        Where fewer than 20 groups of SEDs are left, or a file cannot be used (`read_seds`).
    """
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(0,)))
    if files:
        found, rejected, counts = read_seds(files)
        log.info("SEDs: %d, of which %s", len(found), ", ".join(f"{number} {what}" for what, number in counts.items()))
    else:
        found, rejected = mixtures(rng), []
    cells = made_by.spectrograph.rest_cells(*made_by.z)
    low, high = cells.range
    names, origin, continua, energies = [], [], [], []
    for one in found:
        strength, dispersion = lines.fluxes(rng, one), lines.velocity_dispersion(rng)
        reason = _unusable(one, low, high, made_by)
        if reason:
            rejected.append(Rejected(one.name, reason))
            continue
        energy = one.integral(cells.edges)
        continua.append(energy.copy())
        own = lines.has_lines(one)
        if not own:
            for line, flux in zip(lines.LINES, strength, strict=True):
                part, added = line_energy(cells, line[1], flux, dispersion)
                energy[part] += added
        names.append(one.name)
        origin.append("own" if own else "added" if strength.any() else "none")
        energies.append(energy / energy.mean())
    for entry in rejected[:LOGGED]:
        log.info("SED %s is not used: %s", entry.name, entry.reason)
    if len(rejected) > LOGGED:
        log.info("%d further SEDs are not used; the reasons are in the table of SEDs", len(rejected) - LOGGED)
    energy = np.array(energies).reshape(len(energies), cells.size)
    # lines that are added differ between SEDs that are the same
    group = groups(np.array(continua)) if names else np.empty(0, np.int64)
    number = int(group.max(initial=-1)) + 1
    log.info(
        "SEDs used: %d in %d groups, %d rejected; emission lines: %s",
        *(len(names), number, len(rejected)),
        ", ".join(f"{origin.count(kind)} {kind}" for kind in ("own", "added", "none")),
    )
    if number < FEWEST_GROUPS:
        why = f"; the first that is not used is {rejected[0].name}: {rejected[0].reason}" if rejected else ""
        raise SedError(
            f"{', '.join(map(str, files))}: {number} different SEDs can be used, and at least {FEWEST_GROUPS} are needed to divide them "
            f"into training and test SEDs{why}"
        )
    return Library(names, group, cells, energy, origin, rejected)


def _unusable(one: Sed, low: float, high: float, made_by: Instrument) -> str:
    """Why an SED cannot be used, as a clause; empty where it can."""
    if one.wave[0] > low or one.wave[-1] < high:
        return (
            f"it covers {one.wave[0]:,.0f} to {one.wave[-1]:,.0f} Angstrom, and redshifts of {made_by.z[0]:g} to {made_by.z[1]:g} need "
            f"{low:,.0f} to {high:,.0f}"
        )
    for z in made_by.z:
        blue, red = (end / (1 + z) for end in made_by.band)
        if not one.mean(blue, red) > 0:
            return f"it has no flux from {blue:,.0f} to {red:,.0f} Angstrom, where its magnitude is measured at redshift {z:g}"
    return ""


def draw(made_by: Instrument, of: Library, number: int, seed: int) -> Objects:
    """Galaxies with equal numbers of each SED, in random order.

    Raises
    ------
    SedError
        Where an SED has more than 65,536 spectra.
    """
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(1,)))
    which = rng.permutation(np.arange(number) % len(of.names))
    z, magnitude = made_by.draw(rng, number)
    ra, dec = positions(of.group[which])
    return Objects(np.arange(1, number + 1, dtype=np.int64), ra, dec, z, magnitude, which)


def positions(group: NDArray[np.int64]) -> tuple[Array, Array]:
    """(ra, dec) in degrees of objects of each group, all different; a group has a HEALPix pixel of order 8 for itself."""
    import cdshealpix

    order = np.argsort(group, kind="stable")
    start = np.searchsorted(group[order], group[order])
    copy = np.empty(len(group), np.int64)
    copy[order] = np.arange(len(group)) - start
    depth = 0
    while 4**depth <= copy.max(initial=0):
        depth += 1
    if depth > MOST_COPIES:
        raise SedError(
            f"found {int(copy.max()) + 1:,} spectra of an SED, expected at most {4**MOST_COPIES:,}: lower demo.spectra, or give more SEDs"
        )
    pixel = ((FIRST_BLOCK + group) << 2 * (INNER_ORDER - BLOCK_ORDER + depth)) + copy
    lon, lat = cdshealpix.healpix_to_lonlat(pixel.astype(np.uint64), np.uint8(INNER_ORDER + depth))
    return np.asarray(lon.deg, np.float64), np.asarray(lat.deg, np.float64)


def scale(made_by: Instrument, of: Library, objects: Objects) -> Array:
    """(n,) factors from the library's SEDs to fluxes in `UNIT` of objects with their magnitudes."""
    cumulative = np.pad(np.cumsum(of.energy, axis=1), ((0, 0), (1, 0)))
    until = []
    for end in made_by.band:
        place = (np.log(end / (1 + objects.z)) - of.cells.start) / of.cells.step
        cell = place.astype(int)
        until.append(cumulative[objects.sed, cell] + (place - cell) * of.energy[objects.sed, cell])
    low, high = made_by.band
    f_nu = (until[1] - until[0]) / (LIGHT_SPEED * (1 / low - 1 / high))
    return np.asarray(10 ** (-0.4 * (objects.magnitude + 48.6)) / f_nu / UNIT)


def spectra(
    made_by: Instrument, of: Library, objects: Objects, seed: int
) -> Iterator[tuple[slice, dict[str, tuple[Array, Array]]]]:
    """Simulate the spectra of some objects at a time.

    Yields
    ------
    The rows, and `clean` and `noisy`, each with fluxes (n, p) in `UNIT` and their inverse variances.
    """
    factor = scale(made_by, of, objects)
    for number, start in enumerate(range(0, len(factor), ROWS)):
        rows = slice(start, min(start + ROWS, len(factor)))
        flux = made_by.spectrograph.observe(of.energy, objects.sed[rows], of.cells, objects.z[rows])
        flux *= factor[rows, None]
        sigma = made_by.sigma(flux)
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(2, number)))
        noisy = flux + sigma * rng.standard_normal(flux.shape)
        floor = FLOOR * np.median(flux, axis=1, keepdims=True)
        yield rows, {"clean": (flux, np.broadcast_to(floor**-2, flux.shape)), "noisy": (noisy, sigma**-2)}


def write(made_by: Instrument, of: Library, objects: Objects, seed: int, clean: Path, noisy: Path) -> None:
    """Write spectra without and with noise; the bytes depend only on the arguments."""
    wavelength = made_by.spectrograph.wavelength
    numbers = pa.list_(pa.float32(), len(wavelength))
    schema = pa.schema(
        [
            *(("object_id", pa.int64()), ("ra", pa.float64()), ("dec", pa.float64()), ("magnitude", pa.float32())),
            ("sed", pa.string()),
            pa.field("flux", numbers, metadata={"unit": f"{UNIT:g} erg / (s cm2 Angstrom)"}),
            pa.field("ivar", numbers, metadata={"unit": f"{UNIT**-2:g} s2 cm4 Angstrom2 / erg2"}),
        ],
        {"wavelength": json.dumps(np.round(wavelength, 4).tolist()), "wavelength_unit": "Angstrom (vacuum)"},
    )
    progress = Progress("simulated spectra", len(objects.z))
    names = np.array(of.names)
    with (
        atomic_write(clean) as clean_file,
        atomic_write(noisy) as noisy_file,
        pq.ParquetWriter(clean_file, schema, use_dictionary=["sed"], compression="zstd") as clean_writer,
        pq.ParquetWriter(noisy_file, schema, use_dictionary=["sed"], compression="zstd") as noisy_writer,
    ):
        for rows, made in spectra(made_by, of, objects, seed):
            common = {
                "object_id": objects.object_id[rows],
                "ra": objects.ra[rows],
                "dec": objects.dec[rows],
                "magnitude": objects.magnitude[rows].astype(np.float32),
                "sed": names[objects.sed[rows]],
            }
            for writer, kind in ((clean_writer, "clean"), (noisy_writer, "noisy")):
                flux, ivar = (
                    pa.FixedSizeListArray.from_arrays(pa.array(part.astype(np.float32).ravel()), type=numbers)
                    for part in made[kind]
                )
                writer.write_table(pa.table({**common, "flux": flux, "ivar": ivar}, schema=schema))
            progress.add(rows.stop - rows.start)
    progress.end()


def simulate(
    name: str, number: int, files: Sequence[Path], seed: int, clean: Path, noisy: Path, redshifts: Path, seds: Path
) -> None:
    """Simulate `number` spectra of an instrument.

    Parameters
    ----------
    name : one of `zmill.simulate.INSTRUMENTS`.
    files : of SEDs (`read_seds`); empty for mixtures of BPZ's templates.
    clean, noisy : files of the spectra.
    redshifts : Parquet file with `object_id`, `ra`, `dec`, `redshift` and `sed`.
    seds : CSV file with a row per SED (`Library.table`).
    """
    made_by = instrument(name)
    of = library(made_by, files, seed)
    objects = draw(made_by, of, number, seed)
    write(made_by, of, objects, seed, clean, noisy)
    labels = pa.table(
        {
            "object_id": objects.object_id,
            "ra": objects.ra,
            "dec": objects.dec,
            "redshift": objects.z,
            "sed": np.array(of.names)[objects.sed],
        }
    )
    with atomic_write(redshifts) as temporary:
        pq.write_table(labels, temporary, compression="zstd")
    with atomic_write(seds) as temporary:
        csv.write_csv(of.table(), temporary)
