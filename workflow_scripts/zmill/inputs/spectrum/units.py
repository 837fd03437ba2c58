"""Comparison of what files state of their spectra with the survey definition; texts that are not understood are ignored."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from zmill.inputs.units import UNIT_TOLERANCE, unit_of, wrong_error

if TYPE_CHECKING:
    from zmill.inputs.spectrum.settings import SpectrumSettings

ANGSTROM = {"angstrom": 1.0, "nanometer": 10.0, "micrometer": 1e4}
"""Angstroms in each unit of wavelengths."""
LOWEST, HIGHEST, REDDEST = 900.0, 60_000.0, 3000.0
"""Spectra for redshifts lie between `LOWEST` and `HIGHEST` angstrom, and reach `REDDEST`: from the Lyman limit to JWST's NIRSpec."""


def is_plausible(first: float, last: float) -> bool:
    """Whether a survey of redshifts may have spectra of this range in angstrom."""
    return first >= LOWEST and REDDEST <= last <= HIGHEST


def wrong_range(wavelength: NDArray[np.float64], unit: str) -> str:
    """Why wavelengths (in angstrom) cannot have been in a unit, and what to write; empty where they can."""
    first, last = float(wavelength[0]), float(wavelength[-1])
    if is_plausible(first, last):
        return ""
    raw = [first / ANGSTROM[unit], last / ANGSTROM[unit]]
    with np.errstate(over="ignore"):
        logarithms = {"log10": np.power(10.0, raw), "ln": np.exp(raw)}
    write = [f"unit: {name}" for name, factor in ANGSTROM.items() if is_plausible(raw[0] * factor, raw[1] * factor)]
    write += [
        f"scale: {scale} and unit: angstrom, if these are logarithms"
        for scale, ends in logarithms.items()
        if is_plausible(float(ends[0]), float(ends[1]))
    ]
    what = (
        f"write {', or '.join(write)}"
        if write
        else f"expected {LOWEST:g} to {HIGHEST:g} angstrom: check `unit` and `scale`"
    )
    return (
        f"wavelengths from {raw[0]:.6g} to {raw[1]:.6g} in unit: {unit}; {what}. check_units: false of the survey "
        "definition leaves this check out"
    )


def wrong_units(units: Mapping[str, str], section: SpectrumSettings) -> dict[str, str]:
    """Column -> why what the file states of it contradicts the definition, and the setting to write.

    units : the file's own unit texts by column. That of wavelengths may end with the medium: `Angstrom (vacuum)`.
    """
    found: dict[str, str] = {}
    given = section.wavelength
    if given.column and (wrong := _wrong_wavelength(units.get(given.column, ""), section)):
        found[given.column] = wrong
    for key, names in (("error", section.error), ("ivar", section.ivar)):
        for name, flux in zip(names or [], section.flux, strict=False):
            if wrong := wrong_error("spectrum", key, name, units.get(name, ""), units.get(flux, "")):
                found[name] = wrong
    return found


def _wrong_wavelength(text: str, section: SpectrumSettings) -> str:
    given = section.wavelength
    medium = re.search(r"\b(air|vac(?:uum)?)\b", text, re.IGNORECASE)
    if medium and (medium[1].lower() == "air") != given.air:
        return f"in {text!r}, but spectrum.wavelength.air is {str(given.air).lower()}: write air: {str(not given.air).lower()}"
    plain = re.sub(r"[\s,(\[]*\b(air|vac(?:uum)?)\b[)\]]*", "", text, flags=re.IGNORECASE).strip()
    logarithm = re.fullmatch(r"(log10|log|dex|ln)\s*[(\[]?\s*(.*?)[)\]]?", plain, re.IGNORECASE)
    if logarithm:
        scale = "ln" if logarithm[1].lower() == "ln" else "log10"
        if given.scale != scale and not (logarithm[1].lower() == "log" and given.scale == "ln"):
            return f"in {text!r}, but spectrum.wavelength.scale is {given.scale!r}: write scale: {scale}"
        plain = logarithm[2]
    unit = unit_of(plain)
    if unit is None:
        return ""
    import astropy.units as u

    if not unit.is_equivalent(u.m):
        if not unit.is_equivalent(u.one):
            return f"in {text!r}, which is no wavelength; check spectrum.wavelength.column"
        return ""
    factor = float(unit.to(u.AA))
    if abs(factor / ANGSTROM[given.unit] - 1) < UNIT_TOLERANCE:
        return ""
    fits = [name for name, angstrom in ANGSTROM.items() if abs(factor / angstrom - 1) < UNIT_TOLERANCE]
    write = f"write unit: {fits[0]}" if fits else "convert them to angstrom, nanometer or micrometer"
    return f"in {text!r}, but spectrum.wavelength.unit is {given.unit!r}: {write}"
