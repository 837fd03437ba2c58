"""Simulated stamps beside real ones, and what the shapes of simulated galaxies say of their redshifts.

    python tests/benchmarks/realism.py [sky] [information] [speed] [--stamps N] [--data FOLDER]

sky : seeing, noise, colors and sizes of stamps of HSC's ultra-deep survey of COSMOS beside simulated LSST-like stamps, and of active galaxies of the
    Legacy Surveys beside simulated SDSS-like stamps. The samples are selected in other ways: figures need not agree, only be of the same kind.
information : scatter of redshifts that trees estimate of catalogue magnitudes alone, and of magnitudes with true sizes, bulge fractions and the
    colors of bulges.
speed : stamps per minute of processor time, of zmill and of GalSim.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from bench import parser, report, table
from numpy.typing import NDArray
from scipy import ndimage
from sklearn.ensemble import ExtraTreesRegressor

from zmill.simulate import galaxies, image_survey, imaging, profiles
from zmill.simulate.render import BULGE, DISC, Sources, render

Array = NDArray[np.float64]

PARTS = ("sky", "information", "speed")
HSC_SCALE, LEGACY_SCALE = 0.168, 0.262
"""arcsec per pixel."""
FINER = 5
"""Parts of a pixel on a side, where radii are measured."""


def some(name: str, number: int, size: int) -> tuple[NDArray[np.float32], Array, imaging.Imager]:
    """Stamps (n, b, size, size), their true redshifts, and their survey."""
    made_by = image_survey.imager(name)
    image, z, count = [], [], 0
    for of, made in image_survey.fields(made_by, 1, size):
        image.append(made.image)
        z.append(of.sample.z[made.rows])
        count += len(made.rows)
        if count >= number:
            break
    return np.concatenate(image)[:number], np.concatenate(z)[:number], made_by


def radii(plane: Array, scale: float, center: tuple[float, float], radius: float, parts: Sequence[float]) -> Array:
    """Radii in arcsec that hold parts of the flux within `radius` arcsec, on pixels divided by spline interpolation."""
    fine = ndimage.zoom(plane, FINER, order=3, grid_mode=True, mode="nearest")
    y, x = np.mgrid[: fine.shape[0], : fine.shape[1]]
    r = np.hypot(x - FINER * (center[0] + 0.5) + 0.5, y - FINER * (center[1] + 0.5) + 0.5) * scale / FINER
    order = np.argsort(r[r < radius])
    total = np.maximum.accumulate(np.cumsum(fine[r < radius][order]))
    return np.interp(np.array(parts) * total[-1], total, r[r < radius][order])


def growth(stamp: Array, scale: float, center: tuple[float, float], radius: float) -> tuple[Array, float]:
    """Flux in each band (b,) within `radius` arcsec, and the radius in arcsec of half of the flux of all bands there."""
    y, x = np.mgrid[: stamp.shape[1], : stamp.shape[2]]
    inside = np.hypot(x - center[0], y - center[1]) * scale < radius
    return stamp[:, inside].sum(axis=1), float(radii(stamp.sum(axis=0), scale, center, radius, [0.5])[0])


def colors(flux: Array) -> Array:
    """(n, b - 1) AB colors of fluxes (n, b) that are positive."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(-2.5 * np.log10(flux[:, :-1] / flux[:, 1:]))


def spread(values: Array) -> str:
    """The median, and the 16th and 84th percentile."""
    low, middle, high = np.nanpercentile(values, [16, 50, 84])
    return f"{middle:.2f} ({low:.2f}, {high:.2f})"


def noise(stamp: Array, band: int) -> tuple[float, float]:
    """Standard deviation of pixels of a band that are faint in the other bands, by differences between pixels four apart, and that of neighbors in
    units of it."""
    others = np.delete(stamp, band, axis=0).sum(axis=0)
    faint, plane = others < np.percentile(others, 40), stamp[band]
    found = []
    for lag in (4, 1):
        both = faint[:, lag:] & faint[:, :-lag]
        difference = (plane[:, lag:] - plane[:, :-lag])[both]
        found.append(1.4826 * np.median(np.abs(difference)) / np.sqrt(2) if len(difference) > 20 else np.nan)
    return found[0], found[1] / found[0]


def hsc(file: Path) -> Iterator[tuple[Array, Array, Array, Array]]:
    """Images (5, h, w), weights, pixels of the peaks (p, 2) and point-spread functions of each blend."""
    with np.load(file, allow_pickle=False) as content:
        for name in sorted({key.partition("/")[0] for key in content.files}):
            parts = (content[f"{name}/{what}"].astype(np.float64) for what in ("images", "weights", "peaks", "psfs"))
            yield tuple(parts)


def seeing(psf: Array, scale: float) -> tuple[float, float]:
    """FWHM in arcsec, and the radius of 80 % over that of 50 % of the flux within 2.5 arcsec."""
    center = (psf.shape[1] // 2, psf.shape[0] // 2)
    half, most = radii(psf, scale, center, 2.5, [0.5, 0.8])
    fine = ndimage.zoom(psf, FINER, order=3, grid_mode=True, mode="nearest")
    return 2 * scale / FINER * np.sqrt(np.count_nonzero(fine > fine.max() / 2) / np.pi), most / half


def sky(data: Path, number: int) -> dict[str, float | str]:
    """Tables of real and simulated stamps."""
    real_flux, real_half, real_noise, real_seeing = [], [], [], []
    for image, weight, peaks, psfs in hsc(data / "hsc_cosmos_blends/not_matched.npz"):
        i_band = image[2]
        inside = np.clip(np.round(peaks).astype(int), 0, np.array(i_band.shape)[::-1] - 1)
        x, y = peaks[np.argmax(i_band[inside[:, 1], inside[:, 0]])]
        flux, half = growth(image, HSC_SCALE, (x, y), 1.5)
        real_flux.append(flux)
        real_half.append(half)
        sigma, neighbor = noise(image, 2)
        real_noise.append((sigma * np.sqrt(np.median(weight[2][weight[2] > 0])), neighbor))
        real_seeing.append(seeing(psfs[2], HSC_SCALE))
    made, _, lsst = some("images_lsst", number, 64)
    ours = [growth(stamp, lsst.pixel_scale, (31.5, 31.5), 1.5) for stamp in made.astype(np.float64)]
    our_noise = [noise(stamp.astype(np.float64), 3) for stamp in made]
    stated = imaging.sky_noise(lsst)[3]
    one = np.ones(1)
    point = Sources(
        stamp=np.zeros(1, np.int64),
        x=0 * one,
        y=0 * one,
        flux=np.full((1, 2, 1), 0.5),
        radius=np.full((1, 2), 1e-4),
        axis_ratio=np.ones((1, 2)),
        angle=one,
        index=one,
    )
    width = float(np.median([fwhm for fwhm, _ in real_seeing]))
    kolmogorov = seeing(render(point, 1, 41, HSC_SCALE, np.full((1, 1), width))[0, 0].astype(np.float64), HSC_SCALE)
    real_colors, our_colors = colors(np.array(real_flux)), colors(np.array([flux for flux, _ in ours]))[:, 1:]
    names = ("g - r", "r - i", "i - z", "z - y")
    rows = [
        *([name, spread(real_colors[:, k]), spread(our_colors[:, k])] for k, name in enumerate(names)),
        ["half-light radius within 1.5 arcsec", spread(np.array(real_half)), spread(np.array([half for _, half in ours]))],
        ["noise over that of the weights", *(spread(np.array(part)) for part in ([s for s, _ in real_noise], [s / stated for s, _ in our_noise]))],
        ["noise by neighboring pixels over that by distant ones", *(spread(np.array([n for _, n in part])) for part in (real_noise, our_noise))],
        ["FWHM in i", f"{width:.2f}", f"{lsst.seeing[3]:.2f}"],
        ["radius of 80 % over 50 % of a point", spread(np.array([r for _, r in real_seeing])), f"{kolmogorov[1]:.2f}"],
    ]  # fmt: skip
    table(["", "HSC, COSMOS (real)", "LSST-like"], rows)
    figures: dict[str, float | str] = {
        "hsc_neighbor_noise": float(np.nanmedian([n for _, n in real_noise])),
        "lsst_like_neighbor_noise": float(np.nanmedian([n for _, n in our_noise])),
    }
    figures |= {f"hsc_{name.replace(' ', '')}": float(np.nanmedian(real_colors[:, k])) for k, name in enumerate(names)}
    figures |= {
        f"lsst_like_{name.replace(' ', '')}": float(np.nanmedian(our_colors[:, k])) for k, name in enumerate(names)
    }

    with np.load(data / "piczl_ls10_agn/train_images.npz", allow_pickle=False) as content:
        agn = np.moveaxis(content["processed_dered_griz_images"].astype(np.float64), 0, 1)
    real = [growth(stamp, LEGACY_SCALE, (11, 11), 3.0) for stamp in agn]
    made, _, sdss = some("images", number, 32)
    ours = [growth(stamp[1:], sdss.pixel_scale, (15.5, 15.5), 3.0) for stamp in made.astype(np.float64)]
    real_colors, our_colors = (colors(np.array([flux for flux, _ in part])) for part in (real, ours))
    rows = [
        *([name, spread(real_colors[:, k]), spread(our_colors[:, k])] for k, name in enumerate(names[:3])),
        ["r within 3 arcsec", *(spread(imaging.ZERO_POINT - 2.5 * np.log10(np.array([flux[1] for flux, _ in part]))) for part in (real, ours))],
        ["half-light radius within 3 arcsec", *(spread(np.array([half for _, half in part])) for part in (real, ours))],
    ]  # fmt: skip
    table(["", "Legacy Surveys, active galaxies (real)", "SDSS-like"], rows)
    for kind, part in (("legacy", real), ("sdss_like", ours)):
        figures[f"{kind}_half_light_3arcsec"] = float(np.nanmedian([half for _, half in part]))
    return figures


def information(number: int) -> dict[str, float | str]:
    """Scatter of redshifts by trees, with and without what only stamps show; fields are divided into training and test."""
    made_by = image_survey.imager("images")
    found: list[tuple[Array, ...]] = []
    count = 0
    for of, made in image_survey.fields(made_by, 1, 32):
        rows = made.rows
        flux = imaging.flux(of.mag[rows])
        magnitude, _ = imaging.catalogue_magnitudes(made.flux, made.error)
        magnitude = np.minimum(magnitude - np.array(made_by.extinction) * made.at.ebv[:, None], 30)
        size = np.log10(of.radius[rows] * np.sqrt(of.structure.axis_ratio[rows]))
        shape = np.column_stack([size, of.structure.axis_ratio[rows, DISC], of.structure.index[rows]])
        gradient = np.diff(of.mag[rows, DISC] - of.mag[rows, BULGE], axis=1)
        parts = np.column_stack([flux[:, BULGE, 2] / flux[:, :, 2].sum(axis=1), np.clip(gradient, -2, 2)])
        photometry = np.column_stack([magnitude[:, 2], -np.diff(magnitude, axis=1), magnitude[:, 0] - magnitude[:, 2]])
        field = np.full(len(rows), of.field.ra + 1e3 * of.field.dec)
        found.append((photometry, shape, parts, of.sample.z[rows], field))
        count += len(rows)
        if count >= number:
            break
    photometry, shape, parts, z, field = (np.concatenate(part) for part in zip(*found, strict=True))
    test = np.unique(field, return_inverse=True)[1] % 4 == 3
    figures: dict[str, float | str] = {"information_rows": float(len(z))}
    for name, features in {
        "magnitudes": photometry,
        "with_shapes": np.column_stack([photometry, shape]),
        "with_shapes_and_parts": np.column_stack([photometry, shape, parts]),
    }.items():
        trees = ExtraTreesRegressor(200, min_samples_leaf=2, max_features=0.6, random_state=0)
        deviation = (trees.fit(features[~test], z[~test]).predict(features[test]) - z[test]) / (1 + z[test])
        figures[f"sigma_mad_{name}"] = 1.4826 * float(np.median(np.abs(deviation - np.median(deviation))))
        figures[f"eta_005_{name}"] = float(np.mean(np.abs(deviation) > 0.05))
    return figures


def speed(number: int) -> dict[str, float | str]:
    """Stamps per minute of processor time of the survey, and of one band of GalSim for the same bulges and discs."""
    import galsim

    figures: dict[str, float | str] = {}
    galaxies.colors()
    for name, size in itertools.product(("images", "images_lsst"), (32, 64)):
        galaxies.colors(image_survey.imager(name).filters)
        profiles.sersic()
        started = time.process_time()
        some(name, number, size)
        figures[f"{name}_{size}_per_minute_core"] = 60 * number / (time.process_time() - started)
    made_by = image_survey.imager("images")
    of = image_survey.patch(made_by, 0, 1, 64)
    started, drawn = time.process_time(), 20
    for row in of.targets[:drawn]:
        radius, ratio = of.radius[row], of.structure.axis_ratio[row]
        turn = of.structure.angle[row] * galsim.radians
        index = round(2 * of.structure.index[row]) / 2
        bulge = galsim.Sersic(index, half_light_radius=radius[0] * np.sqrt(ratio[0])).shear(q=ratio[0], beta=turn)
        disc = galsim.Exponential(half_light_radius=radius[1] * np.sqrt(ratio[1])).shear(q=ratio[1], beta=turn)
        whole = galsim.Convolve(
            bulge + disc, galsim.Kolmogorov(fwhm=1.3), gsparams=galsim.GSParams(maximum_fft_size=16_384)
        )
        whole.drawImage(nx=64, ny=64, scale=made_by.pixel_scale)
    figures["galsim_64_one_band_per_minute_core"] = 60 * drawn / (time.process_time() - started)
    return figures


def main() -> None:
    options = parser(__doc__)
    options.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all where none is named")
    options.add_argument("--stamps", type=int, default=6_000, help="simulated stamps of `information`")
    arguments = options.parse_args()
    if unknown := set(arguments.parts) - set(PARTS):
        options.error(f"unknown part {', '.join(unknown)}: expected {', '.join(PARTS)}")
    figures: dict[str, float | str | None] = {}
    for part in arguments.parts or PARTS:
        if part == "sky":
            figures |= sky(arguments.data, 400)
        elif part == "information":
            figures |= information(arguments.stamps)
        else:
            figures |= speed(500)
    report("realism", figures)


if __name__ == "__main__":
    main()
