"""Rest-frame SEDs that spectra are simulated from: mixtures of BPZ's templates, or those of the user's files.

Wavelengths are in Angstrom and taken as vacuum; fluxes are f_lambda in any unit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from zmill import sed
from zmill.sections import nearest

Array = NDArray[np.float64]

COLUMNS = {
    "name": ("name",),
    "wave": ("wave", "wavelength", "wavelength_rest_angstrom"),
    "flux": ("flux", "f_lambda"),
}
"""Columns of a file of SEDs, and the names that each may have."""
MIXTURES = 400
"""Number of SEDs made of BPZ's templates."""
RED_FRACTION = 0.25
"""Fraction of the mixtures that lie between the templates El and Sbc."""
JOINED, CONTINUED_BY, CONTINUED_TO = 20_000.0, "ssp_25Myr_z008", 60_000.0
"""Angstrom from which all mixtures have the shape of one template, its name, and the last wavelength that is used of it."""
NEGATIVE = 0.01
"""Largest fraction of an SED's flux that may be negative; such fluxes are set to 0."""
SAME = 0.01
"""Two SEDs whose fluxes differ by less than this (root mean square of the ratio) are in one group."""
FEWEST_GROUPS = 20
"""Fewest groups of SEDs that can be divided into training, validation, calibration and test rows."""


class SedError(ValueError):
    """The SEDs cannot be used; the message says which, and what is expected."""


@dataclass(frozen=True)
class Sed:
    """An SED. wave, flux : (n,) ascending; a wavelength that is there twice is a step of the flux."""

    name: str
    wave: Array
    flux: Array

    def integral(self, edges: Array) -> Array:
        """(n - 1,) integrals of the flux, linear between its points, from each edge to the next."""
        steps = np.diff(self.wave)
        cumulative = np.concatenate([[0.0], np.cumsum(steps * (self.flux[1:] + self.flux[:-1]) / 2)])
        at = np.clip(np.searchsorted(self.wave, edges, side="right") - 1, 0, len(self.wave) - 2)
        step = np.where(steps[at] > 0, steps[at], 1.0)
        along = edges - self.wave[at]
        slope = (self.flux[at + 1] - self.flux[at]) / step
        return np.diff(cumulative[at] + along * (self.flux[at] + slope * along / 2))

    def mean(self, low: float, high: float) -> float:
        """Mean flux between two wavelengths; NaN where the SED does not cover them."""
        if self.wave[0] > low or self.wave[-1] < high:
            return np.nan
        return float(self.integral(np.array([low, high]))[0] / (high - low))


@dataclass(frozen=True)
class Rejected:
    """An SED that is not used. reason : a clause."""

    name: str
    reason: str


def read_seds(files: Sequence[Path]) -> tuple[list[Sed], list[Rejected], dict[str, int]]:
    """Read SEDs from Parquet files with a row per SED: its name, and its wavelengths and fluxes as lists.

    Where a file has a column `library`, the name of the SED is `<library>/<name>`. Wavelengths are sorted, and negative fluxes set to 0
    if they are at most 1 % of the flux.

    Returns
    -------
    The SEDs; those that are not used; and counts of SEDs with `unsorted` or `repeated` wavelengths and `negative` fluxes.

    Raises
    ------
    SedError
        Where a file is not Parquet, a column is missing or has no lists of numbers, or two SEDs have the same name.
    """
    found: list[Sed] = []
    rejected: list[Rejected] = []
    counts = {"unsorted": 0, "repeated": 0, "negative": 0}
    first: dict[str, Path] = {}
    for path in files:
        for name, wave, flux in _rows(path):
            if name in first:
                where = str(path) if first[name] == path else f"{first[name]} and {path}"
                raise SedError(
                    f"{where}: two SEDs have the name {name!r}: each needs its own, because SEDs are divided by name; rename "
                    "one, or add a column `library` that tells them apart"
                )
            first[name] = path
            kept = _checked(name, wave, flux, counts)
            (rejected if isinstance(kept, Rejected) else found).append(kept)  # type: ignore[arg-type]
    return found, rejected, counts


def _rows(path: Path) -> Iterator[tuple[str, Array, Array]]:
    try:
        table = pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise SedError(f"{path}: expected a Parquet file of SEDs: {str(error).splitlines()[0]}") from None
    columns = {}
    for what, names in COLUMNS.items():
        known = [name for name in names if name in table.column_names]
        if not known:
            raise SedError(
                f"{path}: there is no column {' or '.join(names)}{nearest(names[0], table.column_names)}; it has "
                f"{', '.join(table.column_names)}"
            )
        columns[what] = table.column(known[0])
        if what != "name":
            kind = columns[what].type
            lists = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
            if not lists or not (pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type)):
                raise SedError(f"{path}: column {known[0]}: expected a list of numbers per SED, found {kind}")
    library = table.column("library").to_pylist() if "library" in table.column_names else [None] * table.num_rows
    for row, folder in enumerate(library):
        name, wave, flux = (columns[what][row] for what in ("name", "wave", "flux"))
        if name.as_py() is None:
            raise SedError(f"{path}: row {row} has no name: each SED needs one")
        numbers = [
            np.array([] if values.values is None else values.values.to_numpy(zero_copy_only=False), np.float64)
            for values in (wave, flux)
        ]
        yield f"{folder}/{name}" if folder is not None else str(name), numbers[0], numbers[1]


def _checked(name: str, wave: Array, flux: Array, counts: dict[str, int]) -> Sed | Rejected:
    """The SED in order, or why it cannot be used."""
    if len(wave) != len(flux):
        return Rejected(name, f"it has {len(wave)} wavelengths and {len(flux)} fluxes")
    if len(wave) < 2:
        return Rejected(name, f"it has {len(wave)} points")
    if bad := int(np.count_nonzero(~np.isfinite(wave) | ~np.isfinite(flux))):
        return Rejected(name, f"{bad} of its values are not finite")
    if (np.diff(wave) < 0).any():
        order = np.argsort(wave, kind="stable")
        wave, flux = wave[order], flux[order]
        counts["unsorted"] += 1
    if wave[0] < 0:
        return Rejected(name, f"its first wavelength is {wave[0]:g}")
    counts["repeated"] += bool((np.diff(wave) == 0).any())
    if (flux < 0).any():
        total = np.trapezoid(np.abs(flux), wave)
        part = np.trapezoid(np.maximum(-flux, 0), wave) / total if total > 0 else 1.0
        if part > NEGATIVE:
            return Rejected(name, f"{100 * part:.1f} % of its flux is negative")
        counts["negative"] += 1
        flux = np.maximum(flux, 0.0)
    if not (flux > 0).any():
        return Rejected(name, "it has no flux")
    return Sed(name, wave, flux)


def mixtures(rng: np.random.Generator, number: int = MIXTURES) -> list[Sed]:
    """SEDs made of BPZ's eight templates: mixtures of neighbors between red and blue, behind dust of Calzetti's law.

    A quarter of them lies between El and Sbc with little dust, E(B-V) of mean 0.02; the others are uniform from Sbc to the
    youngest, with mean 0.15. Six templates end at 2.56 micron, with unphysical slopes beyond 2.2: from 2 micron on, all have
    the shape of the 25 Myr old population, which is starlight without dust emission.
    """
    (visual,) = sed.load_filters(["bessell-V"])
    templates = sed.normalized(sed.load_templates(), visual)
    wave, continued = _continued(templates)
    red = np.arange(number) < round(RED_FRACTION * number)
    position = np.where(red, rng.uniform(0, 1, number), rng.uniform(1, len(templates) - 1, number))
    ebv = np.minimum(rng.exponential(np.where(red, 0.02, 0.15)), 0.6)
    low = np.minimum(position.astype(int), len(templates) - 2)
    part = (position - low)[:, None]
    flux = (1 - part) * continued[low] + part * continued[low + 1]
    flux *= 10 ** (-0.4 * ebv[:, None] * sed.calzetti(wave))
    return [
        Sed(f"bpz-{n:04d}-type{place:.3f}-ebv{dust:.3f}", wave, row)
        for n, (place, dust, row) in enumerate(zip(position, ebv, flux, strict=True))
    ]


def _continued(templates: sed.Spectra) -> tuple[Array, Array]:
    """Wavelengths (w,) and fluxes (t, w) of BPZ's templates, from 500 Angstrom to 6 micron."""
    longer = sed.load_templates([CONTINUED_BY], CONTINUED_TO)
    kept, beyond = templates.wavelength <= JOINED, longer.wavelength > JOINED
    wave, flux = templates.wavelength[kept], templates.f_lambda[:, kept]
    shape = longer.f_lambda[0, beyond] / np.interp(wave[-1], longer.wavelength, longer.f_lambda[0])
    return np.append(wave, longer.wavelength[beyond]), np.hstack([flux, flux[:, -1:] * shape])


def groups(energy: Array) -> NDArray[np.int64]:
    """(n,) number of the group of SEDs that each belongs to: SEDs that are the same within `SAME`, directly or through others.

    Parameters
    ----------
    energy : (n, c) fluxes integrated over cells of equal width.
    """
    n, cells = energy.shape
    bins = np.linspace(0, cells, min(cells, 200) + 1).astype(int)[:-1]
    coarse = np.add.reduceat(energy, bins, axis=1)
    coarse = coarse / np.maximum(np.linalg.norm(coarse, axis=1, keepdims=True), 1e-300)
    # |a - b|² of unit vectors: the mean square of the difference in units of the mean square of the flux
    square = np.maximum(2 - 2 * coarse @ coarse.T, 0)
    one, other = np.nonzero(square < SAME**2)
    _, label = connected_components(coo_array((np.ones(len(one)), (one, other)), shape=(n, n)), directed=False)
    return np.asarray(label, np.int64)
