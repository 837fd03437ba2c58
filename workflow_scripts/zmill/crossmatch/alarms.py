"""Checks of a cross-match's counts: an error where most matches are wrong, a warning where many are."""

from __future__ import annotations

from math import sqrt
from typing import Any

from zmill.crossmatch.offset import Offset
from zmill.inputs.copies import SEPARATION
from zmill.workflow.warning import Warnings

MOST, NOTABLE = 0.5, 0.05
"""Fractions of matches expected to be with unrelated objects: the first stops the run, the second gives a warning."""
FEWEST_MATCHES, FEWEST_FALSE = 20, 5.0
"""Matches of a source, and expected false ones among them, below which there is neither error nor warning."""
FAR = 0.25
"""Offset, in units of the match radius, that gives a warning; an offset beyond the radius stops the run."""
FEWEST_SPECTRA, FEW = 50, 0.01
"""Least number of spectra of a source for a warning that hardly any has an object, and the fraction of true matches below
which it is given."""
AMBIGUOUS = 0.2
"""Fraction of ambiguous matches that gives a warning."""


def wrong(facts: dict[str, Any], offsets: dict[str, Offset], radii: dict[str, float]) -> str | None:
    """The reason why a cross-match cannot be used, or None.

    Parameters
    ----------
    facts : the content of `matches.json`.
    offsets : the measured offset of each source that has one. radii : match radius of each source, arcsec.
    """
    for name, offset in offsets.items():
        if offset.size > radii[name]:
            return (
                f'labels: {name}: its positions lie {offset}, farther than the match radius of {radii[name]:g}": most of its '
                "labels miss their object and the others find another one. Correct the positions of the file or of the survey "
                "(equinox, proper motion, columns.ra and columns.dec), or widen radius_arcsec of this source"
            )
    for name, (matched, false) in _by_source(facts).items():
        if matched >= FEWEST_MATCHES and false >= MOST * matched:
            return (
                f"labels: {name}: {false:,.0f} of its {matched:,} matches are expected to be with an unrelated object (spectra "
                f"at shifted positions match as many): its labels would be wrong. {_advice(name, offsets)}"
            )
    return None


def warn(facts: dict[str, Any], offsets: dict[str, Offset], radii: dict[str, float], warnings: Warnings) -> None:
    """Warn of faults that make labels less reliable or fewer."""
    for name, offset in offsets.items():
        if offset.size > FAR * radii[name]:
            warnings.add(
                f'labels: {name}: its positions lie {offset}; the match radius is {radii[name]:g}". Labels at the far side are '
                "lost, and neighbors are nearer than they should be: correct the positions, or widen radius_arcsec of this source"
            )
    for name, (matched, false) in _by_source(facts).items():
        spectra = facts["spectra_by_source"][name]
        if spectra >= FEWEST_SPECTRA and matched - false < max(FEW * spectra, 3 * sqrt(false + 1)):
            warnings.add(
                f'labels: {name}: {matched:,} of its {spectra:,} spectra have an object within {radii[name]:g}", and {false:,.0f} of '
                f"these are expected to be with an unrelated object: hardly any finds its own, though all lie where the survey has "
                f"objects. If the survey should have them, its positions are wrong. {_advice(name, offsets)}"
            )
        elif false >= max(FEWEST_FALSE, NOTABLE * matched):
            warnings.add(
                f"labels: {name}: {false:,.0f} of its {matched:,} matches ({100 * false / matched:.0f} %) are expected to be with "
                f"an unrelated object, and their redshifts to be wrong. {_advice(name, offsets)}"
            )
    if facts["repeated_objects"]:
        warnings.add(
            f"{facts['repeated_objects']:,} objects near the {facts['spectra']:,} spectra are in the survey more than once (rows "
            f'within {SEPARATION:g}" of each other whose measurements agree), as in the overlap of two tiles: each label goes to the nearest '
            "of these rows, and the others have none. All of the rows are in the output: leave the overlap out of one of "
            "the files if every object should be there once"
        )
    if facts["ambiguous"] > AMBIGUOUS * max(facts["matched"], 1):
        warnings.add(
            f"{facts['ambiguous']:,} of {facts['matched']:,} matches are ambiguous, since another object or spectrum lies within the "
            "match radius: they are left out unless crossmatch.ambiguous is keep. Narrow crossmatch.radius_arcsec, or look for "
            "objects that are in the survey more than once"
        )


def _by_source(facts: dict[str, Any]) -> dict[str, tuple[int, float]]:
    """The matches of each source, and how many of them are expected to be with an unrelated object."""
    matched = facts["matched_by_source"]
    return {name: (matched.get(name, 0), false) for name, false in facts["expected_false_by_source"].items()}


def _advice(name: str, offsets: dict[str, Offset]) -> str:
    if name in offsets:
        return f"Its positions lie {offsets[name]}. Narrow radius_arcsec of this source, or leave it out"
    return (
        'No common offset of its positions was found within 10": check its equinox, columns.ra and columns.dec, narrow its '
        "radius_arcsec, or leave the source out"
    )
