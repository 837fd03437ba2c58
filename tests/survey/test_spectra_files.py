"""Files of spectra in the layouts of DESI, SDSS and Gaia, from a small file of each to spectra on one grid."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table

from zmill.config import ConfigError
from zmill.inputs.base import Converted
from zmill.inputs.spectrum.kind import SpectrumKind
from zmill.survey.check import check_columns
from zmill.survey.readers import ReadError, open_table
from zmill.survey.rows import array_columns, input_columns, numeric_columns
from zmill.survey_definition import Survey

ROWS = 5
RNG = np.random.default_rng(1)


def survey(format_: str | None, columns: dict[str, str], **section: Any) -> Survey:
    content = {"files": ["x"], "columns": columns, "spectrum": section}
    return Survey.model_validate(content | ({"format": format_} if format_ else {}))


def converted(path: Path, definition: Survey, batch_rows: int = 2) -> tuple[list[Converted], list[Any]]:
    """The spectra of a file, by batches, and the identifiers."""
    check_columns([path], definition)
    table = open_table(path, definition.format)
    names = list(input_columns(definition))
    batches = list(
        table.batches(names, batch_rows, None, numeric_columns(definition), arrays=array_columns(definition))
    )
    ids = [value for batch in batches for value in batch.column(definition.columns.object_id).to_pylist()]
    return [SpectrumKind.convert(batch, definition, np.full(batch.num_rows, np.nan)) for batch in batches], ids


def pixels(found: list[Converted], name: str) -> np.ndarray:
    parts = [np.asarray(one.columns[name].flatten()).reshape(len(one.empty), -1) for one in found]
    return np.concatenate(parts)


# ------------------------------------------------------------------------------------------------------- DESI

ARMS = {"B": (3600.0, 60), "R": (3640.0, 60), "Z": (3680.0, 60)}  # each one overlaps the next by ten pixels
STEP = 0.8


def write_desi(path: Path, shift: float = 0.0, ending: str = "") -> dict[str, np.ndarray]:
    objects = Table(
        {
            "TARGETID": np.arange(ROWS) + 39_627_000_000_000_000,
            "TARGET_RA": np.linspace(10, 11, ROWS),
            "TARGET_DEC": np.linspace(-1, 1, ROWS),
            "OBJTYPE": ["TGT", "TGT", "SKY", "TGT", "TGT"],
        }
    )
    hdus = [fits.PrimaryHDU(), fits.BinTableHDU(objects, name="FIBERMAP")]
    found = {}
    for arm, (start, count) in ARMS.items():
        wave = start + STEP * np.arange(count) + (shift if arm == "R" else 0)
        flux, ivar = RNG.normal(3, 1, (ROWS, count)), RNG.uniform(1, 2, (ROWS, count))
        mask = (RNG.uniform(size=(ROWS, count)) < 0.1).astype(np.uint32) * 4
        found |= {f"{arm}_WAVELENGTH": wave, f"{arm}_FLUX": flux, f"{arm}_IVAR": ivar, f"{arm}_MASK": mask}
        for what in ("WAVELENGTH", "FLUX", "IVAR", "MASK"):
            name = f"{arm}_{what}"
            kind = {"WAVELENGTH": np.float64, "MASK": np.uint32}.get(what, np.float32)
            hdu = fits.ImageHDU(found[name].astype(kind), name=name)
            if what == "WAVELENGTH":
                hdu.header["BUNIT"] = "Angstrom"
            hdus.append(hdu)
    fits.HDUList(hdus).writeto(path.with_name(path.name + ending))
    return found


DESI = {"object_id": "TARGETID", "ra": "TARGET_RA", "dec": "TARGET_DEC"}
DESI_SPECTRUM = {
    "flux": "flux",
    "ivar": "ivar",
    "mask": "mask",
    "wavelength": {"column": "wavelength", "unit": "angstrom", "air": False},
    "grid": {"start": 3600, "stop": 3600 + STEP * 159, "pixels": 160, "scale": "linear"},
    "sky": {"column": "OBJTYPE", "equals": ["SKY"]},
}


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_arms_of_desi_are_combined(tmp_path: Path, ending: str) -> None:
    path = tmp_path / "coadd-main-dark-1.fits"
    arms = write_desi(path, ending=ending)
    found, ids = converted(path.with_name(path.name + ending), survey("desi", DESI, **DESI_SPECTRUM))
    assert ids == (np.arange(ROWS) + 39_627_000_000_000_000).tolist()
    weight, sums = np.zeros((ROWS, 160)), np.zeros((ROWS, 160))
    for arm, (start, count) in ARMS.items():
        first = round((start - 3600) / STEP)
        good = arms[f"{arm}_IVAR"] * (arms[f"{arm}_MASK"] == 0)
        weight[:, first : first + count] += good
        sums[:, first : first + count] += good * arms[f"{arm}_FLUX"]
    assert pixels(found, "ivar") == pytest.approx(weight, rel=1e-4)
    expected = np.divide(sums, weight, out=np.zeros_like(sums), where=weight > 0)
    assert pixels(found, "flux") == pytest.approx(expected, rel=1e-4, abs=1e-5)
    assert [sky for one in found for sky in one.rejected["sky_fiber"].tolist()] == [False, False, True, False, False]


def test_arms_that_do_not_coincide_are_refused(tmp_path: Path) -> None:
    write_desi(tmp_path / "coadd.fits", shift=0.3)
    with pytest.raises(ReadError, match="wavelengths of R are not on one linear grid"):
        open_table(tmp_path / "coadd.fits", "desi")


def test_air_is_refused_for_a_file_in_vacuum(tmp_path: Path) -> None:
    write_desi(tmp_path / "coadd.fits")
    in_air = DESI_SPECTRUM | {"wavelength": {"column": "wavelength", "unit": "angstrom", "air": True}}
    with pytest.raises(
        ConfigError, match=r"'Angstrom \(vacuum\)', but spectrum.wavelength.air is true: write air: false"
    ):
        check_columns([tmp_path / "coadd.fits"], survey("desi", DESI, **in_air))
    in_nm = DESI_SPECTRUM | {"wavelength": {"column": "wavelength", "unit": "nanometer", "air": False}}
    with pytest.raises(ConfigError, match="write unit: angstrom"):
        check_columns([tmp_path / "coadd.fits"], survey("desi", DESI, **in_nm))


# ------------------------------------------------------------------------------------------------------- SDSS

PIXELS = 200
SDSS_SPECTRUM = {
    "flux": "flux",
    "ivar": "ivar",
    "mask": "and_mask",
    "mask_bits": [24],
    "wavelength": {"column": "loglam", "scale": "log10", "unit": "angstrom", "air": False},
    "grid": {"start": 10**3.6, "stop": 10 ** (3.6 + 1e-3 * (PIXELS - 1)), "pixels": PIXELS},
    "sky": {"column": "OBJTYPE", "equals": ["SKY"]},
}


def test_plates(tmp_path: Path) -> None:
    flux, ivar = RNG.normal(3, 1, (ROWS, PIXELS)), RNG.uniform(1, 2, (ROWS, PIXELS))
    mask = np.zeros((ROWS, PIXELS), np.int32)
    mask[1, 5], mask[1, 6] = 1 << 24, 1 << 23
    fibers = Table({"FIBERID": np.arange(1, ROWS + 1), "RA": np.linspace(1, 2, ROWS), "DEC": np.zeros(ROWS)})
    fibers["OBJTYPE"] = ["GALAXY", "SKY", "QSO", "GALAXY", "NA"]
    primary = fits.PrimaryHDU(flux.astype(np.float32))
    primary.header.update({"COEFF0": 3.6, "COEFF1": 1e-3, "PLATEID": 266, "MJD": 51602, "VACUUM": True})
    others = [ivar.astype(np.float32), mask, mask, np.zeros_like(flux, np.float32)]
    hdus = [primary, *map(fits.ImageHDU, others), fits.BinTableHDU(fibers, name="PLUGMAP")]
    fits.HDUList([*hdus, fits.ImageHDU(flux)]).writeto(tmp_path / "spPlate-0266-51602.fits")
    definition = survey("spplate", {"object_id": "spec", "ra": "RA", "dec": "DEC"}, **SDSS_SPECTRUM)
    found, ids = converted(tmp_path / "spPlate-0266-51602.fits", definition)
    assert ids == [f"0266-51602-{fiber:04d}" for fiber in range(1, ROWS + 1)]
    ivar[1, 5] = 0
    assert pixels(found, "ivar") == pytest.approx(ivar, rel=1e-4)
    assert pixels(found, "flux") == pytest.approx(np.where(ivar > 0, flux, 0), rel=1e-4, abs=1e-5)
    assert sum(one.rejected["sky_fiber"].sum() for one in found) == 1
    with pytest.raises(ReadError, match="no plate of SDSS"):
        write_desi(tmp_path / "coadd.fits")
        open_table(tmp_path / "coadd.fits", "spplate")


def test_files_of_one_spectrum_each(tmp_path: Path) -> None:
    definition = survey("sdss_spec", {"object_id": "spec", "ra": "PLUG_RA", "dec": "PLUG_DEC"}, **SDSS_SPECTRUM)
    for fiber, first in ((1, 0), (2, 20)):
        loglam = 3.6 + 1e-3 * np.arange(first, PIXELS - first)
        flux, ivar = RNG.normal(3, 1, len(loglam)), RNG.uniform(1, 2, len(loglam))
        mask = np.zeros(len(loglam), np.int32)
        coadd = Table({"flux": flux, "loglam": loglam, "ivar": ivar, "and_mask": mask, "model": flux})
        about = {"PLATE": [4055], "MJD": [55359], "FIBERID": [fiber], "PLUG_RA": [1.5], "PLUG_DEC": [0.5], "Z": [0.3]}
        about["OBJTYPE"] = ["GALAXY          "]
        hdus = [
            fits.PrimaryHDU(),
            fits.BinTableHDU(coadd, name="COADD"),
            fits.BinTableHDU(Table(about), name="SPECOBJ"),
        ]
        fits.HDUList(hdus).writeto(tmp_path / f"spec-{fiber}.fits")
        found, ids = converted(tmp_path / f"spec-{fiber}.fits", definition)
        assert ids == [f"4055-55359-{fiber:04d}"] and found[0].faults == {}
        inside = slice(first, PIXELS - first)
        assert pixels(found, "flux")[0, inside] == pytest.approx(flux, rel=1e-4)
        assert (pixels(found, "ivar")[0] > 0).sum() == len(loglam)
    fits.BinTableHDU(coadd).writeto(tmp_path / "other.fits")
    with pytest.raises(ReadError, match="no spectrum of SDSS"):
        open_table(tmp_path / "other.fits", "sdss_spec")
    with pytest.raises(ReadError, match="is fits by its content, not csv"):
        open_table(tmp_path / "other.fits", "csv")


# ------------------------------------------------------------------------------------------------------- Gaia


def array_text(values: np.ndarray, brackets: str = "()") -> str:
    return f'"{brackets[0]}{", ".join(f"{value:.6e}" for value in values)}{brackets[1]}"'


@pytest.mark.parametrize("brackets", ["()", "[]"])
def test_sampled_spectra_of_gaia(tmp_path: Path, brackets: str) -> None:
    """The archive's CSV: 343 fluxes from 336 to 1020 nm in W/m2/nm, whose variances are beyond 32-bit numbers."""
    flux = RNG.uniform(1, 2, (ROWS, 343)) * 1e-17
    lines = ["source_id,ra,dec,flux,flux_error"]
    lines += [
        f"{2**62 + row},{row + 0.5},1.5,{array_text(flux[row], brackets)},{array_text(flux[row] / 100, brackets)}"
        for row in range(ROWS)
    ]
    (tmp_path / "xp.csv").write_text("\n".join(lines) + "\n")
    wavelength = {"start": 336, "step": 2, "pixels": 343, "unit": "nanometer", "air": False}
    section = {"flux": "flux", "error": "flux_error", "wavelength": wavelength}
    columns = {"object_id": "source_id", "ra": "ra", "dec": "dec"}
    found, ids = converted(tmp_path / "xp.csv", survey(None, columns, **section, flux_unit=1e-17))
    assert [int(value) for value in ids] == [2**62 + row for row in range(ROWS)]
    assert pixels(found, "flux") == pytest.approx(flux * 1e17, rel=1e-5)
    assert pixels(found, "ivar") == pytest.approx((flux * 1e15) ** -2, rel=1e-4)


def test_bp_and_rp_of_gaia_are_trimmed_and_joined(tmp_path: Path) -> None:
    bp, rp = RNG.uniform(1, 2, (2, ROWS, 120))
    lines = ["source_id,ra,dec,bp,rp"]
    lines += [f"{row},{row + 0.5},1.5,{array_text(bp[row])},{array_text(rp[row])}" for row in range(ROWS)]
    (tmp_path / "bprp.csv").write_text("\n".join(lines) + "\n")
    wavelength = {"start": 366, "step": 630 / 185, "pixels": 186, "unit": "nanometer", "air": False}
    definition = survey(
        None,
        {"object_id": "source_id", "ra": "ra", "dec": "dec"},
        flux=["bp", "rp"],
        trim=[[34, 6], [4, 10]],
        wavelength=wavelength,
    )
    found, _ = converted(tmp_path / "bprp.csv", definition)
    assert pixels(found, "flux") == pytest.approx(np.hstack([bp[:, 34:-6], rp[:, 4:-10]]), rel=1e-5)


def test_lists_in_text(tmp_path: Path) -> None:
    path = tmp_path / "lists.csv"
    path.write_text('id,a,b\n1,"(1, 2.5, null)","[1] of (2)"\n2,"(-3e-2, nan, 7)",x\n3,,y\n')
    table = open_table(path)
    (batch,) = table.batches(["a", "b", "a[1]"], 10, arrays=["a"])
    assert batch.column(0).to_pylist()[0] == [1, 2.5, None] and batch.column(0).to_pylist()[2] is None
    assert batch.column(0).to_pylist()[1][::2] == [-0.03, 7]
    assert batch.column(1).to_pylist() == ["[1] of (2)", "x", "y"]
    assert batch.column(2).to_pylist() == [2.5, None, None]
    assert "is a column of lists of numbers" in table.lacks("a")
    path.write_text("id,a\n" + '1,"(1, 2)"\n' * 60_000 + '1,"(1, two)"\n')
    with pytest.raises(ReadError, match=r"'\(1, two\)', expected a list of numbers"):
        list(open_table(path).batches(["a"], 1000, arrays=["a"]))


def write_coefficients(path: Path, rows: int = 3) -> np.ndarray:
    """Rows of the archive's continuous spectra; the last has no RP. Returns the coefficients of BP."""
    names = ["coefficients", "coefficient_errors", "coefficient_correlations"]
    lines = [
        ",".join(
            [
                "source_id",
                "ra",
                "dec",
                *(f"{b}_{n}" for b in ("bp", "rp") for n in ("n_parameters", "standard_deviation", *names)),
            ]
        )
    ]
    kept = []
    for row in range(rows):
        values: list[Any] = [4295806720 + row, 45.0 + row, 1.5]
        for band in ("bp", "rp"):
            coefficients = np.r_[100.0 + 50 * row, RNG.normal(0, 5, 54)]
            kept.append(coefficients)
            if band == "rp" and row == rows - 1:
                values += ["", "", "", "", ""]
            else:
                values += [55, 1.2, *map(array_text, (coefficients, np.full(55, 0.5), np.zeros(55 * 54 // 2)))]
        lines.append(",".join(map(str, values)))
    path.write_text("\n".join(lines) + "\n")
    return np.array(kept[::2])


GAIA = {
    "flux": "flux",
    "error": "flux_error",
    "flux_unit": 1e-17,
    "wavelength": {"start": 336, "step": 2, "pixels": 343, "unit": "nanometer", "air": False},
}


def test_coefficients_of_gaia_need_gaiaxpy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_coefficients(tmp_path / "xp.csv")
    monkeypatch.setattr("zmill.survey.readers.gaia_xp_coefficients_format.find_spec", lambda name: None)
    with pytest.raises(ReadError, match="needs the package gaiaxpy"):
        open_table(tmp_path / "xp.csv", "gaia_xp_coefficients")


def test_coefficients_of_gaia_are_sampled(tmp_path: Path) -> None:
    gaiaxpy = pytest.importorskip("gaiaxpy")
    write_coefficients(tmp_path / "xp.csv")
    definition = survey("gaia_xp_coefficients", {"object_id": "source_id", "ra": "ra", "dec": "dec"}, **GAIA)
    found, ids = converted(tmp_path / "xp.csv", definition)
    assert [int(value) for value in ids] == [4295806720, 4295806721, 4295806722]
    assert [empty for one in found for empty in one.empty.tolist()] == [False, False, True]
    write_coefficients(tmp_path / "two.csv", 2)
    lines = (tmp_path / "xp.csv").read_text().splitlines()[:3]
    (tmp_path / "two.csv").write_text("\n".join(lines) + "\n")
    expected, positions = gaiaxpy.calibrate(tmp_path / "two.csv", save_file=False)
    assert len(positions) == 343
    assert pixels(found, "flux")[:2] == pytest.approx(np.stack(expected["flux"]) * 1e17, rel=1e-5)
    assert 1 / np.sqrt(pixels(found, "ivar")[:2]) == pytest.approx(np.stack(expected["flux_error"]) * 1e17, rel=1e-4)
    write_desi(tmp_path / "other.fits")
    with pytest.raises(ReadError, match=r"holds .* tables|source_id"):
        open_table(tmp_path / "other.fits", "gaia_xp_coefficients")
