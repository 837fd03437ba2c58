"""Comparison of the units stated in a file with the survey definition; unknown units are ignored."""

from __future__ import annotations

from collections.abc import Mapping

from zmill.inputs.registry import of_survey
from zmill.survey_definition import Survey
from zmill.units import understand


def unit_faults(units: Mapping[str, str], survey: Survey) -> list[str]:
    """One sentence per unit of a file that contradicts the survey definition.

    Parameters
    ----------
    units : the file's own unit texts by column (`Table.units`).
    """
    if not survey.check_units:
        return []
    faults: dict[str, list[str]] = {}
    for kind in of_survey(survey):
        for column, wrong in kind.wrong_units(units, survey).items():
            faults.setdefault(wrong, []).append(column)
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
