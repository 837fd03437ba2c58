"""Comparison of the units that a file states for fluxes and errors with the survey definition; unknown units are ignored."""

from __future__ import annotations

import re
from collections.abc import Mapping

from zmill.inputs.photometry.batch import ZERO_POINTS
from zmill.survey_definition import Survey
from zmill.units import Unit, understand

ALIKE = 0.02
"""Zero points that differ by less, in magnitudes, count as equal: 31.4 is 3630.78 Jy, but AB is defined by 3631 Jy."""


def wrong_units(units: Mapping[str, str], survey: Survey) -> dict[str, str]:
    """Column -> why the unit that the file states for it contradicts the survey definition, and the setting to write.

    units : the file's own unit texts by column.
    """
    found: dict[str, str] = {}
    for band in survey.bands:
        flux, error = survey.column_of("flux", band), survey.column_of("error", band)
        if flux is None:
            continue
        if (text := units.get(flux)) and (wrong := _wrong_value(understand(text), survey, band)):
            found.setdefault(flux, f"in {text!r}, but {wrong}")
        if error is not None and (
            wrong := _wrong_error(error, units.get(error, ""), units.get(flux, ""), survey, band)
        ):
            found.setdefault(error, wrong)
    return found


def _settings_text(survey: Survey, band: str) -> str:
    if survey.photometry == "flux":
        return f"photometry is 'flux' with zero_point {survey.zero_point_of(band)}"
    return f"photometry is {survey.photometry!r}"


def _wrong_value(unit: Unit | None, survey: Survey, band: str) -> str:
    """Why a flux column cannot be in this unit, and the setting to write; empty where it can."""
    if unit is None or unit.kind in ("ratio", "angle"):
        return ""
    stated, photometry = _settings_text(survey, band), survey.photometry
    magnitudes = photometry in ("ab_magnitude", "vega_magnitude", "luptitude")
    if unit.power != 1:
        return f"{stated}: a {'variance' if unit.power == 2 else 'inverse variance'} is no flux; check columns.flux"
    if unit.kind == "other":
        return (
            f"{stated}: expected magnitudes or fluxes per frequency (fluxes per wavelength are to be converted first)"
        )
    if unit.kind == "magnitude":
        systems = {"AB": "ab_magnitude", "Vega": "vega_magnitude", "asinh": "luptitude"}
        if not magnitudes:
            return f"{stated}: write photometry: {systems.get(unit.system, 'ab_magnitude')}"
        if unit.system == "ST":
            return f"{stated}: ST magnitudes are to be converted to AB first"
        # Luptitudes are on the AB system, so that a file may call them either.
        alike = {"ab_magnitude": ("AB",), "vega_magnitude": ("Vega",), "luptitude": ("AB", "asinh")}[photometry]
        return f"{stated}: write photometry: {systems[unit.system]}" if unit.system and unit.system not in alike else ""
    if unit.kind == "count":
        fits = photometry == "flux"
        return "" if fits else f"{stated}: write photometry: flux, and zero_point, the AB magnitude of a flux of 1"
    zero_point = ZERO_POINTS.get(photometry, survey.zero_point_of(band))
    if isinstance(zero_point, str) or (zero_point is not None and abs(zero_point - unit.zero_point) < ALIKE):
        return ""
    named = [name for name, zero in ZERO_POINTS.items() if abs(zero - unit.zero_point) < ALIKE]
    write = named[0] if named else f"flux, and zero_point: {unit.zero_point:.3f}"
    if zero_point is None:
        return f"{stated}: write photometry: {write}"
    return f"{stated}, {abs(zero_point - unit.zero_point):.2f} magnitudes off: write photometry: {write}"


_NAMES = {
    "inverse_variance": re.compile(
        r"(?:^|[^a-z])(?:i(?:nv(?:erse)?)?_?var(?:iance)?|ivar)|ivar(?:[^a-z]|$)", re.IGNORECASE
    ),
    "signal_to_noise": re.compile(
        r"(?:^|[^a-z])(?:snr|s2n|s_?to_?n|sig(?:nal)?_?to_?noise)(?:[^a-z]|$)|signaltonoise", re.IGNORECASE
    ),
}
"""Patterns of column names that state the kind of error."""


def _wrong_error(column: str, text: str, flux_text: str, survey: Survey, band: str) -> str:
    """Why an error column contradicts `errors`, and the setting to write; empty where it does not."""
    errors = survey.errors
    for kind, name in _NAMES.items():
        if name.search(column) and errors != kind:
            hint = (
                ", and photometry: nanomaggy if these are Legacy Surveys or SDSS sweeps"
                if kind == "inverse_variance"
                else ""
            )
            return f"named as {kind}, but errors is {errors!r}: write errors: {kind}{hint}"
    unit = understand(text) if text else None
    if unit is None or unit.kind == "angle":
        return ""
    stated = f"in {text!r}, but errors is {errors!r}"
    if unit.kind == "ratio":
        # A number without unit may be a ratio, or an error of a number without unit.
        return f"{stated} of {flux_text!r}" if errors != "signal_to_noise" and flux_text and text == "%" else ""
    if errors == "signal_to_noise":
        return f"{stated}, which has no unit: write errors: {'inverse_variance' if unit.power == -2 else 'sigma'}"
    wanted = -2 if errors == "inverse_variance" else 1
    if unit.power == 2:
        return f"{stated}: variances are to be converted to errors first"
    if unit.power != wanted:
        return f"{stated}: write errors: {'inverse_variance' if unit.power == -2 else 'sigma'}"
    given = understand(flux_text) if flux_text else None
    if given is None or given.kind not in ("flux", "magnitude", "count"):
        return _wrong_value(Unit(unit.kind, 1, unit.zero_point), survey, band) and (
            f"{stated} of {survey.photometry}: errors and fluxes are to be in one unit"
        )
    if given.kind != unit.kind:
        return f"{stated} of fluxes in {flux_text!r}: errors and fluxes are to be in one unit"
    off = abs(given.zero_point - unit.zero_point) if unit.kind == "flux" else 0.0
    return f"{stated} of fluxes in {flux_text!r}: errors and fluxes are to be in one unit" if off > ALIKE else ""
