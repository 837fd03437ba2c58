"""PCA templates: few rest-frame spectra whose linear combinations are the spectra of galaxies or quasars.

They are computed from SEDs, or read from files in the format of redrock (https://github.com/desihub/redrock).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from zmill.catalog.files import atomic_write
from zmill.restframe import lines
from zmill.restframe.cells import FWHM, Cells, line_energy
from zmill.restframe.forest import ABSORPTION
from zmill.restframe.seds import Sed, mixtures, read_seds

Array = NDArray[np.float64]

FEWEST = 20
"""Fewest SEDs that a PCA is made of."""
SEED = 1
"""Seed of the mixtures of BPZ's templates and of the scatter of their emission lines."""
EXTENSION = "BASIS_VECTORS"
SCANNED = {"GALAXY": (-0.005, 1.7), "QSO": (0.05, 6.0)}
"""Redshifts at which redrock looks for objects of a class whose file does not list them."""
OF_SEDS = "Calura12"
"""Absorption of templates that are computed from SEDs, which have none of their own."""
WITHOUT_KEY = {"GALAXY": {"2.6": "Calura12"}, "QSO": {"0.1": "Calura12", "1.0": "Calura12", "1.1": "Kamble20"}}
"""Absorption of the templates that were published, by class and version, before the key RRIGM, as redrock 0.21 has it; stars have none."""


class TemplateError(ValueError):
    """Templates cannot be used; the message says why, and what is expected."""


@dataclass(frozen=True)
class Templates:
    """Templates of one class of objects.

    name : of the class.
    wave : (l,) rest-frame wavelengths, Angstrom, evenly spaced in the logarithm.
    flux : (k, l) f_lambda in any unit.
    scale : (k,) typical size of the coefficient of each template, relative to the other ones.
    z : lowest and highest redshift at which they are fitted.
    absorption : name of the model of the absorption by the intergalactic medium, a key of `zmill.restframe.forest.ABSORPTION`.
    """

    name: str
    wave: Array
    flux: Array
    scale: Array
    z: tuple[float, float] = (-1.0, np.inf)
    absorption: str = "None"

    def on(self, cells: Cells, resolution: float) -> Array:
        """(k, cells) the templates at a resolving power, interpolated; 0 where they have no flux."""
        values = np.array(
            [np.interp(np.log(cells.centers), np.log(self.wave), row, left=0.0, right=0.0) for row in self.flux]
        )
        return smoothed(values, cells, resolution)


def smoothed(values: Array, cells: Cells, resolution: float) -> Array:
    """(n, cells) spectra convolved with a Gaussian of FWHM wavelength / resolution; the end values continue beyond the ends."""
    return np.asarray(gaussian_filter1d(values, 1 / (resolution * FWHM * cells.step), axis=1, mode="nearest"))


def on_cells(files: Sequence[Path], cells: Cells, resolution: float, fewest: int = FEWEST) -> Array:
    """(n, cells) SEDs of files, or mixtures of BPZ's templates without files, with emission lines, in units of their geometric mean.

    SEDs without emission lines are given some. SEDs that do not cover all cells are left out.

    Raises
    ------
    TemplateError
        Where fewer than `fewest` SEDs can be used.
    SedError
        Where a file cannot be read.
    """
    rng = np.random.default_rng(SEED)
    found = read_seds(files)[0] if files else mixtures(rng)
    low, high = cells.range
    used = [one for one in found if one.wave[0] <= low and one.wave[-1] >= high]
    if len(used) < fewest:
        raise TemplateError(
            f"{', '.join(map(str, files)) or 'the templates of BPZ'}: {len(used)} of {len(found)} SEDs cover {low:,.0f} to {high:,.0f} "
            f"Angstrom, the rest-frame wavelengths of the survey at all redshifts of redshift_grid, and at least "
            f"{fewest} are needed"
        )
    flux = smoothed(np.array([_with_lines(one, cells, rng) for one in used]), cells, resolution)
    return np.asarray(
        flux / np.exp(np.log(np.maximum(flux, 1e-3 * flux.mean(1, keepdims=True))).mean(1, keepdims=True))
    )


def of_seds(files: Sequence[Path], cells: Cells, resolution: float, components: int) -> tuple[Templates, int]:
    """PCA of SEDs, as `on_cells` gives and refuses them.

    The PCA is of fluxes in units of their root mean square over all SEDs at each wavelength, without subtraction of a mean, so that the
    first component resembles the mean.

    Returns
    -------
    The templates, and how many SEDs they are made of.
    """
    flux = on_cells(files, cells, resolution, max(FEWEST, components))
    typical = np.sqrt(np.mean(flux**2, axis=0))
    values, vectors = np.linalg.eigh((flux / typical) @ (flux / typical).T)
    chosen = np.argsort(values)[::-1][:components]
    basis = vectors[:, chosen].T @ (flux / typical) / np.sqrt(values[chosen, None])
    basis *= np.sign(basis.sum(1, keepdims=True))
    size = np.sqrt(values[chosen] / len(flux))
    return Templates("galaxies", cells.centers, basis * typical, size, absorption=OF_SEDS), len(flux)


def _with_lines(one: Sed, cells: Cells, rng: np.random.Generator) -> Array:
    """(cells,) mean f_lambda of an SED, with emission lines added where it has none."""
    strength, dispersion = lines.fluxes(rng, one), lines.velocity_dispersion(rng)
    energy = one.integral(cells.edges)
    if not lines.has_lines(one):
        for line, flux in zip(lines.LINES, strength, strict=True):
            part, added = line_energy(cells, line[1], flux, dispersion)
            energy[part] += added
    return energy / np.diff(cells.edges)


def read(path: Path) -> Templates:
    """Read templates in redrock's format: the image `BASIS_VECTORS` (templates, wavelengths) with CRVAL1, CDELT1, LOGLAM, RRTYPE and
    RRIGM (the absorption; known for published versions without it), and optionally the image `REDSHIFTS`.

    Raises
    ------
    TemplateError
        Where the file is not of that format.
    """
    from astropy.io import fits  # takes long to import

    try:
        with fits.open(path, memmap=False) as file:
            header, flux = file[EXTENSION].header, np.asarray(file[EXTENSION].data, np.float64)
            redshifts = np.asarray(file["REDSHIFTS"].data, np.float64) if "REDSHIFTS" in file else None
        wave = header["CRVAL1"] + header["CDELT1"] * np.arange(header["NAXIS1"])
        kind = str(header["RRTYPE"]).strip().upper()
        name = " ".join([kind, str(header.get("RRSUBTYP", "")).strip()]).strip()
    except (OSError, KeyError, TypeError) as error:
        raise TemplateError(
            f"{path}: expected templates in redrock's format, a FITS file with the image {EXTENSION} and the keys CRVAL1, CDELT1, RRTYPE: "
            f"{type(error).__name__}: {error}"
        ) from None
    wave = 10**wave if header.get("LOGLAM") else wave
    if flux.ndim != 2 or not np.isfinite(flux).all() or not flux.any(1).all() or not wave[0] > 0:
        raise TemplateError(f"{path}: {EXTENSION} has a template of zeros, or values that are not finite")
    if redshifts is None and kind not in SCANNED:
        raise TemplateError(
            f"{path}: templates of class {kind} without the image REDSHIFTS; expected GALAXY or QSO, or redshifts"
        )
    published = "None" if kind == "STAR" else WITHOUT_KEY.get(kind, {}).get(str(header.get("VERSION", "")).strip())
    absorption = str(header.get("RRIGM", published or "nothing")).strip()
    if absorption not in ABSORPTION:
        raise TemplateError(
            f"{path}: expected the absorption by the intergalactic medium in the key RRIGM, one of {', '.join(ABSORPTION)}; found {absorption}"
        )
    span = SCANNED[kind] if redshifts is None else (float(redshifts.min()), float(redshifts.max()))
    return Templates(name, wave, flux / np.sqrt((flux**2).mean(1, keepdims=True)), np.ones(len(flux)), span, absorption)


def write(path: Path, templates: Templates, kind: str, redshifts: Array) -> None:
    """Write templates in redrock's format.

    kind : class, `GALAXY` or `QSO`. redshifts : at which redrock looks for objects.
    """
    from astropy.io import fits

    image = fits.ImageHDU(templates.flux, name=EXTENSION)
    places = np.log10(templates.wave)
    image.header.update(
        {"CRVAL1": places[0], "CDELT1": (places[-1] - places[0]) / (len(places) - 1), "LOGLAM": 1, "RRTYPE": kind}
    )
    image.header.update({"RRSUBTYP": "", "VERSION": "1", "RRIGM": templates.absorption})
    with atomic_write(path) as temporary:
        fits.HDUList([fits.PrimaryHDU(), image, fits.ImageHDU(redshifts, name="REDSHIFTS")]).writeto(
            temporary, overwrite=True
        )
