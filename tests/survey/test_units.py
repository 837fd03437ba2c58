"""What a file says of its units, in any spelling, against what the definition says: a contradiction is refused, both named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.table import Table
from hypothesis import given, settings
from hypothesis import strategies as st
from small_survey import BANDS, survey, table

from zmill.config import ConfigError
from zmill.inputs.photometry.batch import ZERO_POINTS
from zmill.survey.check import check_columns
from zmill.survey.units import unit_faults
from zmill.survey_definition import Survey
from zmill.units import understand

FLUXES = {
    31.4: ["nJy", "nanoJy", "nanojansky", "NJY", "1e-9 Jy", "10**-9 Jy", "10^-9 Jy", "10-9Jy"],
    23.9: ["uJy", "microJy", "microjansky", "micro-jansky", "\u00b5Jy", "\u03bcJy", "UJY", "1E-29 erg/s/cm2/Hz"],
    16.4: ["mJy", "millijansky", "1e-26 erg s-1 cm-2 Hz-1"],
    8.9: ["Jy", "jansky", "JY"],
    22.5: ["nmgy", "nMgy", "nanomaggy", "nanomaggies", "NANOMAGGIES", "nanomgy", "3.631 uJy", "3.631e-6 Jy"],
    0.0: ["mgy", "Mgy", "maggy", "maggies"],
    -48.6: ["erg/s/cm^2/Hz", "ergs/s/cm**2/Hz", "erg s-1 cm-2 Hz-1"],
}
SPELLED = [(text, zero) for zero, texts in FLUXES.items() for text in texts]
INVERSE = ["1/nanomaggy^2", "nanomaggy^-2", "nanomaggies**-2", "1/nmgy2", "nanomaggy-2", "nanomaggy^(-2)"]


@pytest.mark.parametrize(("text", "zero_point"), SPELLED)
def test_fluxes_in_many_spellings(text: str, zero_point: float) -> None:
    unit = understand(text)
    assert unit is not None and (unit.kind, unit.power) == ("flux", 1)
    assert unit.zero_point == pytest.approx(zero_point, abs=1e-3)


@pytest.mark.parametrize("text", INVERSE)
def test_inverse_variances_in_many_spellings(text: str) -> None:
    unit = understand(text)
    assert unit is not None and (unit.kind, unit.power) == ("flux", -2) and unit.zero_point == pytest.approx(22.5)


@pytest.mark.parametrize(
    ("text", "system"),
    [
        *[(text, "") for text in ("mag", "Mag", "mags", "magnitude", "magnitudes")],
        *[(text, "AB") for text in ("mag(AB)", "mag (AB)", "ABmag", "AB mag", "mag_ab", "AB")],
        *[(text, "Vega") for text in ("mag(Vega)", "Vegamag", "Vega mag")],
        *[("mag(ST)", "ST"), ("STmag", "ST"), ("luptitude", "asinh"), ("mag(asinh)", "asinh")],
    ],
)
def test_magnitudes_in_many_spellings(text: str, system: str) -> None:
    unit = understand(text)
    assert unit is not None and (unit.kind, unit.power, unit.system) == ("magnitude", 1, system)


@pytest.mark.parametrize(
    ("text", "angle"),
    [
        *[(text, "degree") for text in ("deg", "DEG", "degree", "degrees", "Degrees", "angle[deg]")],
        *[(text, "radian") for text in ("rad", "radian", "radians")],
        *[(text, "hour") for text in ("hourangle", "h", "hr", "hour", "hours")],
        *[("arcsec", "arc seconds"), ('"h:m:s"', "sexagesimal"), ("mas", "milliarcseconds")],
    ],
)
def test_angles_in_many_spellings(text: str, angle: str) -> None:
    unit = understand(text)
    assert unit is not None and (unit.kind, unit.angle) == ("angle", angle)


@settings(deadline=None)
@given(st.text(max_size=20))
def test_any_text_is_understood_or_not_and_nothing_else(text: str) -> None:
    unit = understand(text)
    assert unit is None or unit.kind in ("flux", "magnitude", "count", "angle", "ratio", "other")


def faults(units: dict[str, str], **changes: Any) -> str:
    return "\n".join(unit_faults(units, survey(**changes)))


@pytest.mark.parametrize("photometry", sorted(ZERO_POINTS))
@pytest.mark.parametrize(("text", "zero_point"), SPELLED)
def test_a_flux_unit_is_the_one_that_is_configured_or_refused(text: str, zero_point: float, photometry: str) -> None:
    units = {f"{kind}_{band}": text for band in BANDS for kind in ("mag", "err")}
    found = faults(units, photometry=photometry)
    if abs(ZERO_POINTS[photometry] - zero_point) < 0.01:
        assert not found
    else:
        assert f"in {text!r}, but photometry is {photometry!r}" in found and "write photometry: " in found
        assert not faults(units, photometry=photometry, check_units=False)
    assert not faults(units, photometry="flux", zero_point=zero_point)
    assert "magnitudes off" in faults(units, photometry="flux", zero_point=zero_point + 1)
    assert not faults(units, photometry="flux", zero_point="zp_{band}")


@pytest.mark.parametrize(
    ("units", "changes", "expected"),
    [
        ({"mag_g": "uJy"}, {}, "write photometry: microjansky"),
        ({"mag_g": "1e-20 erg/s/cm2/Hz"}, {}, "write photometry: flux, and zero_point: 1.400"),
        ({"mag_g": "mag"}, {"photometry": "nanojansky"}, "write photometry: ab_magnitude"),
        ({"mag_g": "mag(AB)"}, {"photometry": "vega_magnitude", "vega_to_ab": dict.fromkeys(BANDS, 0.0)}, "write photometry: ab_m"),
        ({"mag_g": "mag(Vega)"}, {}, "write photometry: vega_magnitude"),
        ({"mag_g": "mag(ST)"}, {}, "converted to AB first"),
        ({"mag_g": "erg/s/cm2/AA"}, {"photometry": "nanojansky"}, "fluxes per wavelength are to be converted"),
        ({"mag_g": "count/s"}, {"photometry": "nanojansky"}, "write photometry: flux, and zero_point"),
        ({"mag_g": "mag/arcsec2"}, {}, "expected magnitudes or fluxes"),
        ({"mag_g": "nanomaggy-2"}, {"photometry": "nanomaggy"}, "inverse variance is no flux"),
        ({"err_g": "1/nanomaggy^2"}, {"photometry": "nanomaggy"}, "write errors: inverse_variance"),
        ({"err_g": "nmgy"}, {"photometry": "nanomaggy", "errors": "inverse_variance"}, "write errors: sigma"),
        ({"err_g": "mag"}, {"photometry": "nanojansky"}, "errors and fluxes are to be in one unit"),
        ({"mag_g": "nJy", "err_g": "uJy"}, {"photometry": "nanojansky"}, "of fluxes in 'nJy'"),
        ({"mag_g": "mag", "err_g": "uJy"}, {}, "of fluxes in 'mag'"),
        ({"err_g": "uJy"}, {"photometry": "nanojansky"}, "errors and fluxes are to be in one unit"),
        ({"err_g": "uJy^2"}, {"photometry": "microjansky"}, "variances are to be converted"),
        ({"err_g": "uJy"}, {"photometry": "microjansky", "errors": "signal_to_noise"}, "has no unit: write errors: sigma"),
        ({"ra": "rad"}, {}, "columns 'ra': in 'rad', but columns.angle_unit is 'degree': write angle_unit: radian"),
        ({"ra": "hourangle"}, {}, "write angle_unit: hour"),
        ({"dec": "deg"}, {"columns": {"angle_unit": "radian"}}, "write angle_unit: degree"),
        ({"ra": "arcsec"}, {}, "converted to degrees first"),
        ({"ra": "mag"}, {}, "a coordinate is an angle"),
    ],
)  # fmt: skip
def test_contradictions_name_both_and_what_to_write(
    units: dict[str, str], changes: dict[str, Any], expected: str
) -> None:
    assert expected.replace("columns 'ra'", "column 'ra'") in faults(units, **changes)


@pytest.mark.parametrize(
    ("units", "changes"),
    [
        ({"mag_g": "mag", "err_g": "mag"}, {}),
        ({"mag_g": "mag(AB)"}, {"photometry": "luptitude", "softening": dict.fromkeys(BANDS, 1e-10)}),
        ({"mag_g": "count/s", "err_g": "count/s"}, {"photometry": "flux", "zero_point": 25}),
        ({"mag_g": "ADU", "err_g": "ADU-2"}, {"photometry": "flux", "zero_point": 25, "errors": "inverse_variance"}),
        ({"mag_g": "nmgy", "err_g": "nanomaggies^-2"}, {"photometry": "nanomaggy", "errors": "inverse_variance"}),
        ({"mag_g": "uJy", "err_g": ""}, {"photometry": "microjansky", "errors": "signal_to_noise"}),
        ({"mag_g": "no idea", "ra": "somewhere", "err_g": "???"}, {}),
        ({"ra": "deg", "dec": "degrees"}, {}),
        ({"ra": "h", "dec": "deg"}, {"columns": {"angle_unit": "hour"}}),
        ({"ra": "rad", "dec": "rad"}, {"columns": {"angle_unit": "radian"}}),
        ({"size": "Angstrom", "id": "mag"}, {}),
    ],
)
def test_what_agrees_or_is_not_understood_is_let_pass(units: dict[str, str], changes: dict[str, Any]) -> None:
    assert not faults(units, **changes)


@pytest.mark.parametrize(
    ("name", "errors", "wanted"),
    [
        ("FLUX_IVAR_{band}", "sigma", "inverse_variance"),
        ("{band}_ivar", "sigma", "inverse_variance"),
        ("invvar_{band}", "signal_to_noise", "inverse_variance"),
        ("{band}_snr", "sigma", "signal_to_noise"),
        ("s2n_{band}", "inverse_variance", "signal_to_noise"),
        ("err_{band}", "sigma", None),
        ("err_{band}", "inverse_variance", None),
        ("fluxerr_{band}_arrival", "sigma", None),
        ("e_{band}_survey", "sigma", None),
    ],
)
def test_names_of_error_columns_say_their_kind(name: str, errors: str, wanted: str | None) -> None:
    found = faults({}, photometry="nanojansky", errors=errors, columns={"error": name})
    assert (f"write errors: {wanted}" in found) if wanted else not found


def written(folder: Path, definition: Survey, units: dict[str, str]) -> Path:
    """A FITS table of fluxes with units."""
    columns = table(50).to_pydict()
    rows = Table({name: np.asarray(values) for name, values in columns.items() if name != "kind"})
    for name, unit in units.items():
        rows[name].unit = unit
    rows.write(folder / "s.fits")
    return folder / "s.fits"


def test_micro_jansky_is_not_read_as_nano(tmp_path: Path) -> None:
    definition = survey(files=["s.fits"], photometry="nanojansky", columns={"extra": []})
    path = written(tmp_path, definition, {f"mag_{band}": "uJy" for band in BANDS})
    with pytest.raises(
        ConfigError, match=r"s\.fits: columns 'mag_g', 'mag_r', 'mag_i': in 'uJy', but photometry is 'nanojansky'"
    ):
        check_columns([path], definition)
    check_columns([path], survey(files=["s.fits"], photometry="microjansky", columns={"extra": []}))


def test_radians_of_a_fits_table_are_not_read_as_degrees(tmp_path: Path) -> None:
    definition = survey(files=["s.fits"], columns={"extra": []})
    path = written(tmp_path, definition, {"ra": "rad", "dec": "rad"})
    with pytest.raises(
        ConfigError, match=r"s\.fits: columns 'ra', 'dec': in 'rad', but columns\.angle_unit is 'degree'"
    ):
        check_columns([path], definition)
    check_columns([path], survey(files=["s.fits"], columns={"extra": [], "angle_unit": "radian"}))
