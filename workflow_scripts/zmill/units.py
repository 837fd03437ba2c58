"""The meaning of unit texts, which come in many spellings (uJy, microJy, nMgy, 1e-9 Jy, mag(AB), 1/nanomaggy^2)."""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from functools import lru_cache
from math import log10
from typing import Any, Literal

LIGHT_SPEED_KM_S = 299_792.458
"""Speed of light, in km/s."""
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


def is_velocity(text: str) -> bool:
    """Whether a unit text means a velocity."""
    import astropy.units as u

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        unit = u.Unit(text, parse_strict="silent")
    return not isinstance(unit, u.UnrecognizedUnit) and bool(unit.is_equivalent(u.km / u.s))
