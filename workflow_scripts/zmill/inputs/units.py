"""Units that files state of arrays and of their errors; texts that are not understood are ignored."""

from __future__ import annotations

import re
import warnings
from typing import Any

UNIT_TOLERANCE = 0.01
"""Relative difference of two units that are taken as equal."""
_NAMED_IVAR = re.compile(r"i_?var|inv.*var|invvar|weight", re.IGNORECASE)
_NAMED_ERROR = re.compile(r"(^|_)(e|err|error|errors|sig|sigma|std|unc|noise)($|_)|_?error$", re.IGNORECASE)


def wrong_error(section: str, key: str, name: str, text: str, flux_text: str) -> str:
    """Why a column of errors contradicts its name or the units of the file, and what to write; empty where it does not.

    section : `spectrum` or `image`. key : `error` or `ivar`, by which the column `name` is given.
    text, flux_text : the unit texts of the file, of the column and of its fluxes.
    """
    other = {"error": "ivar", "ivar": "error"}[key]
    if {"error": _NAMED_IVAR, "ivar": _NAMED_ERROR}[key].search(name):
        return f"named as {other}, but given as {section}.{key}: write {other}: {name}"
    unit, flux = unit_of(text), unit_of(flux_text)
    if unit is None or flux is None or not flux.bases:
        return ""
    powers = {"error": flux, "ivar": flux**-2}
    if unit.is_equivalent(powers[key]):
        ratio = float(unit.to(powers[key]))
        return (
            ""
            if abs(ratio - 1) < UNIT_TOLERANCE
            else f"in {text!r} of fluxes in {flux_text!r}: they are to be in one unit"
        )
    if unit.is_equivalent(powers[other]):
        return f"in {text!r} of fluxes in {flux_text!r}, but given as {section}.{key}: write {other}: {name}"
    return f"in {text!r} of fluxes in {flux_text!r}: they are to be in one unit"


def unit_of(text: str) -> Any:
    """The astropy unit of a text; None where it is not understood."""
    import astropy.units as u  # takes long to import

    spelled = re.sub(r"(?<![A-Za-z])(Angstroms?|\u00c5|\u212b|ang|A)(?![A-Za-z])", "AA", text, flags=re.IGNORECASE)
    spelled = re.sub(
        r"(?<![A-Za-z])(microns?|micrometers?|\u00b5m|\u03bcm)(?![A-Za-z])", "um", spelled, flags=re.IGNORECASE
    )
    spelled = re.sub(r"(?<![A-Za-z])ergs(?![A-Za-z])", "erg", spelled)
    if not spelled.strip():
        return None
    for form in (None, "fits", "cds"):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return u.Unit(spelled, format=form)
        except (ValueError, TypeError, AttributeError):
            continue
    return None
