"""Comparison of the units stated in a file with the survey definition.

Unit texts come in many spellings (uJy, microJy, nMgy, 1e-9 Jy, mag(AB), 1/nanomaggy^2). Known spellings are
compared; an unknown one is ignored.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import log10
from typing import Any, Literal

from zmill.inputs.photometry.batch import ZERO_POINTS
from zmill.survey_definition import Survey

ALIKE = 0.02
"""Zero points that differ by less, in magnitudes, count as equal: 31.4 is 3630.78 Jy, but AB is defined by 3631 Jy."""

Kind = Literal["flux", "magnitude", "count", "angle", "ratio", "other"]


@dataclass(frozen=True)
class Unit:
    """The meaning of a unit text.

    kind : `flux` per frequency, `magnitude`, `count` (counts, electrons, ADU, with or without time), `angle`, `ratio`
        (a number without unit), or `other`: known to be none of these.
    power : 1, or -2 of an inverse variance, 2 of a variance.
    zero_point : AB magnitude of a flux of 1, of a flux.
    system : `AB`, `Vega`, `ST` or `asinh` of a magnitude that states it.
    angle : `degree`, `hour`, `radian`, or another unit of angles.
    """

    kind: Kind
    power: int = 1
    zero_point: float = 0.0
    system: str = ""
    angle: str = ""


_COUNT = "zmillcount"
_COUNTS = r"counts?|cts?|adu|dn|electrons?|photons?|e-|e|ph|photoelectrons?|naturalunits?"
_PREFIXES = {
    "nano": "n",
    "micro": "u",
    "milli": "m",
    "n": "n",
    "u": "u",
    "m": "m",
    "\u00b5": "u",
    "\u03bc": "u",
    "": "",
}
_FLUX = re.compile(
    r"(?<![A-Za-z\u00b5\u03bc])(nano|micro|milli|n|u|m|\u00b5|\u03bc)?[ _-]?(jansky|janskys|janskies|jy|maggies|maggy|maggys|mgy|mgys)(?![A-Za-z])",
    re.IGNORECASE,
)
_ANGLES = {
    "degree": "deg|degs|degree|degrees|decimaldegrees|\u00b0",
    "hour": "hourangle|h|hr|hrs|hour|hours",
    "radian": "rad|rads|radian|radians",
    "arc minutes": "arcmin|arcminute|arcminutes|amin|'",
    "arc seconds": 'arcsec|arcsecs|arcsecond|arcseconds|asec|"',
    "milliarcseconds": "mas|milliarcsec|milliarcsecond|milliarcseconds",
    "sexagesimal": r"""["'\[{(]*(h|hh|hms|d|dd|dms)[: ]?(m|mm)[: ]?(s|ss)([.]s+)?["'\]})]*|hms|dms|sexagesimal""",
}


@lru_cache(maxsize=4096)
def understand(text: str) -> Unit | None:
    """The meaning of a unit text; None where it is unknown."""
    plain = text.strip()
    if inner := re.fullmatch(r"angle\[(.+)\]", plain):
        plain = inner[1]
    word = plain.lower().replace(" ", "")
    for name, pattern in _ANGLES.items():
        if re.fullmatch(pattern, word):
            return Unit("angle", angle=name)
    if word in ("", "-", "--", "none", "unitless", "dimensionless", "1"):
        return Unit("ratio") if word else None
    return _magnitude(word) or _linear(plain)


def _magnitude(word: str) -> Unit | None:
    """Magnitudes of any system; their squares are of variances."""
    if "mgy" in word or "magg" in word or not (re.search(r"mag", word) or word in ("ab", "vega", "abnu", "luptitude")):
        return None
    if re.search(r"arcsec|/|pix|per", word) and not re.match(r"1/", word):
        return Unit("other")
    power = 1
    if found := re.search(r"(?:\^|\*\*)?[({]?([-+]?2)[)}]?$", word):
        power = int(found[1])
    if word.startswith("1/"):
        power = -abs(power)
    systems = {"AB": r"ab", "Vega": r"vega", "ST": r"st(?!a)", "asinh": r"asinh|lupt"}
    system = next((name for name, sign in systems.items() if re.search(sign, word.replace("mag", " "))), "")
    return Unit("magnitude", power, system=system)


def _linear(text: str) -> Unit | None:
    """Fluxes per frequency and counts, and squares and inverse squares of them."""
    if re.search(r"(?<![A-Za-z])MJY(?![A-Za-z])", text):
        return None  # millijansky in capitals, or megajansky
    spelled = _FLUX.sub(lambda found: _prefixed(found[1] or "", found[2]), text)
    spelled = re.sub(rf"(?<![A-Za-z0-9])({_COUNTS})(?![A-Za-z-])", "zmillcount", spelled, flags=re.IGNORECASE)
    spelled = re.sub(r"(?<![A-Za-z])ergs(?![A-Za-z])", "erg", spelled, flags=re.IGNORECASE)
    spelled = re.sub(r"(?<![A-Za-z])(sec|seconds?)(?![A-Za-z])", "s", spelled, flags=re.IGNORECASE)
    spelled = re.sub(r"(?<![A-Za-z])(Angstroms?|ang|A)(?![A-Za-z])", "AA", spelled)
    spelled = re.sub(r"(\d)\s*[xX]\s*(?=10)", r"\1 ", spelled)
    import astropy.units as u  # only here: the start of Snakemake, which reads this file, needs it for units alone

    for format in (None, "cds"):
        try:
            with u.add_enabled_units(_own_units()), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of spellings that FITS discourages
                return _kind(u.Unit(spelled, format=format))
        except (ValueError, TypeError, AttributeError):
            continue
    return None


@lru_cache(maxsize=1)
def _own_units() -> list[Any]:
    """Maggies, with prefixes, and counts of any kind."""
    import astropy.units as u

    scales = {"": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
    maggies = [u.def_unit(f"zmill{prefix}maggy", scale * 3631 * u.Jy) for prefix, scale in scales.items()]
    return [*maggies, u.def_unit(_COUNT)]


def _prefixed(prefix: str, word: str) -> str:
    if prefix == "M" and word.lower().startswith("j"):
        return "MJy"
    small = _PREFIXES[prefix.lower()]
    return f"{small}Jy" if word.lower().startswith("j") else f"zmill{small}maggy"


def _kind(unit: Any) -> Unit:
    """The meaning of an astropy unit."""
    import astropy.units as u

    for power in (1, -2, 2):
        base = u.Jy**power
        if unit.is_equivalent(base):
            scale = float(unit.to(base)) ** (1 / power)
            return Unit("flux", power, zero_point=-2.5 * log10(scale / 3631))
    bare = unit.decompose()
    powers = dict(zip(bare.bases, bare.powers, strict=True))
    count = next((powers.pop(base) for base in list(powers) if base.name == _COUNT), 0)
    if count in (1, -2, 2) and set(powers) <= {u.s, u.m}:
        return Unit("count", int(count))
    if not bare.bases:
        return Unit("ratio")
    if unit.is_equivalent(u.rad):
        return Unit("angle", angle=str(unit))
    return Unit("other")


# ------------------------------------------------------------------------------- comparison with the definition


def unit_faults(units: Mapping[str, str], survey: Survey) -> list[str]:
    """One sentence per unit of a file that contradicts the survey definition.

    Parameters
    ----------
    units : the file's own unit texts by column (`Table.units`).
    """
    if not survey.check_units:
        return []
    faults: dict[str, list[str]] = {}
    for band in survey.bands:
        flux, error = survey.column_of("flux", band), survey.column_of("error", band)
        if flux is None:
            continue
        if (text := units.get(flux)) and (wrong := _wrong_value(understand(text), survey, band)):
            faults.setdefault(f"in {text!r}, but {wrong}", []).append(flux)
        if error is None:
            continue
        if wrong := _wrong_error(error, units.get(error, ""), units.get(flux, ""), survey, band):
            faults.setdefault(wrong, []).append(error)
    for axis in (survey.columns.ra, survey.columns.dec):
        if not axis:
            continue
        if wrong := wrong_angle(units.get(axis, ""), survey.columns.angle_unit, axis == survey.columns.dec):
            faults.setdefault(wrong, []).append(axis)
    return [
        f"{_listed(columns)}: {fault}; where the file is wrong about itself, check_units: false leaves this out"
        for fault, columns in faults.items()
    ]


def _listed(columns: list[str]) -> str:
    names = [repr(column) for column in dict.fromkeys(columns)]
    return (
        f"column{'s' if len(names) > 1 else ''} "
        + ", ".join(names[:4])
        + (f" and {len(names) - 4} more" if len(names) > 4 else "")
    )


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


def wrong_angle(text: str, given: str, is_declination: bool, key: str = "columns.angle_unit") -> str:
    """Why a coordinate's unit contradicts the settings, and the setting to write; empty where it does not.

    Parameters
    ----------
    text : the file's own unit text, empty where it states none.
    given : `degree`, `hour` (of right ascension alone) or `radian`, by the setting `key`.
    """
    unit = understand(text)
    if unit is None or unit.kind == "ratio":
        return ""
    expected = "degree" if given == "hour" and is_declination else given
    if unit.kind == "angle" and unit.angle == expected:
        return ""
    stated = f"in {text!r}, but {key} is {given!r}"
    if unit.kind != "angle":
        return f"{stated}: a coordinate is an angle; check columns.ra and columns.dec"
    if unit.angle in ("degree", "radian") or (unit.angle == "hour" and not is_declination):
        return f"{stated}: write angle_unit: {unit.angle}"
    return f"{stated}: positions are to be converted to degrees first"


def is_velocity(text: str) -> bool:
    """Whether a unit text means a velocity."""
    import astropy.units as u

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        unit = u.Unit(text, parse_strict="silent")
    return not isinstance(unit, u.UnrecognizedUnit) and bool(unit.is_equivalent(u.km / u.s))
