"""Conversion of every source's quality flags to one scale from 0 to 4, and the reasons for which flags reject an entry.

A scheme takes the flag columns of a source and returns `quality` (n,) int8 and `reason` (n,) text, empty where the flags
do not reject. A rejected entry keeps its quality, so that a person can audit it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zmill.labels.flags import (
    CLUSTERS,
    DIGITS,
    GALAXIES,
    NED_CLUSTERS,
    NED_GALAXIES,
    NED_METHODS,
    NED_OTHERS,
    NED_QSOS,
    NED_STARS,
    NED_TECHNIQUES,
    NED_WORDS,
    PHOTOMETRIC,
    QSOS,
    STARS,
    TABLES,
)

Texts = NDArray[np.str_]
Judged = tuple[NDArray[np.int8], Texts]

PRECISE = 0.001
"""A redshift error below which a pipeline's secure redshift counts as certain."""


@dataclass(frozen=True)
class Flags:
    """The flag columns of some rows of a source; a column that the source does not have is None.

    Attributes
    ----------
    flag : (n,) text as `texts` makes it.
    kind : (n,) text, the object class, in capitals.
    redshift_err : (n,) float64.
    primary : (n,) bool, the best of several spectra of one object.
    """

    rows: int
    flag: Texts | None = None
    kind: Texts | None = None
    redshift_err: NDArray[np.float64] | None = None
    primary: NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class Scheme:
    """The rules by which one source's flags are judged.

    Attributes
    ----------
    judge : quality and reason of rows with these flags.
    needs : the columns that it requires (keys of `columns:`).
    knows : whether the scheme's survey uses a flag.
    kinds : the classes that the survey uses, in capitals.
    """

    judge: Callable[[Flags], Judged]
    needs: tuple[str, ...] = ("flag",)
    knows: Callable[[str], bool] = lambda flag: True
    kinds: frozenset[str] = frozenset()

    def unknown(self, flags: Flags) -> Texts:
        """(n,) the flag or class that the scheme does not know, as `flag 'X'` or `class 'X'`; empty where it knows both."""
        return unknown(flags, self.knows, self.kinds or KINDS)


def texts(values: NDArray[Any]) -> Texts:
    """Flags as text: `4`, `4.0` and `'4 '` are all `4`; NaN and null are empty.

    Only trailing blanks are removed, because they are padding. NED's codes have blanks inside, which have a meaning.
    """
    if values.dtype.kind == "f":
        integral = np.isfinite(values) & (values == np.trunc(values)) & (np.abs(values) < 2**53)
        out = np.array([f"{value:.10g}" for value in values.tolist()], dtype=np.str_)
        out[integral] = values[integral].astype(np.int64).astype(np.str_)
        out[~np.isfinite(values)] = ""
        return out if len(out) else np.empty(0, np.str_)
    if values.dtype.kind == "O":
        values = np.array(["" if value is None else str(value) for value in values], dtype=np.str_)
    return np.char.rstrip(values.astype(np.str_)) if len(values) else np.empty(0, np.str_)


def numbers(flag: Texts) -> NDArray[np.float64]:
    """Flags as numbers; NaN where they are none."""
    values, which = np.unique(flag, return_inverse=True)
    return np.array([_number(value) for value in values.tolist()], np.float64)[which] if len(flag) else np.empty(0)


def by_table(table: dict[str, int | str], flag: Texts, default: int = 0) -> Judged:
    """Quality from a table of flags; a word instead of a quality is a reason.

    Blanks around a flag are ignored, and so is its case unless the table contains the flag as written.
    """
    table = {**{plain_flag(key): quality for key, quality in table.items()}, **table}
    values, which = np.unique(flag, return_inverse=True)
    found = [
        table.get(value.strip(), table.get(plain_flag(value), table.get("*", default))) for value in values.tolist()
    ]
    quality = np.array([0 if isinstance(one, str) else one for one in found], np.int8)
    reason = np.array([one if isinstance(one, str) else "" for one in found], np.str_)
    return (quality[which], reason[which]) if len(flag) else nothing(0)


def plain_flag(flag: str) -> str:
    """The form in which flags are compared: without blanks and case; `4.0` and `4` are equal."""
    text = flag.strip().casefold()
    if re.fullmatch(r"[+-]?\d+\.\d*", text):
        return text.rstrip("0").rstrip(".")
    return text


def by_digit(digits: dict[int, int], flag: Texts) -> Judged:
    """Quality by the last digit before the point; 10 is added for a broad-line AGN (Le Fevre et al. 2005)."""
    value = numbers(flag)
    code = np.where(np.isfinite(value) & (value >= 0), np.trunc(value), 0).astype(np.int64)
    quality = np.zeros(10, np.int8)
    quality[list(digits)] = list(digits.values())
    return quality[code % 10], np.where(code // 10 % 2 == 1, "qso", "")


def zcosmos(flags: Flags) -> Judged:
    """zCOSMOS-bright confidence classes (Lilly et al. 2009, table 1): `class.agreement`.

    The decimal shows whether the photometric redshift agrees (5 yes, 4 within its error, 3 there is none, 1 no). Classes 3
    and 4 are secure for any decimal, a single line (9) only where it agrees; 2 is probable where it agrees; 10 is added for
    broad-line AGN, 20 for secondary targets.
    """
    value = numbers(_column(flags.flag))
    known = np.isfinite(value) & (value >= 0)
    tenths = np.where(known, np.rint(np.where(known, value, 0) * 10), 0).astype(np.int64)
    code, agreement = tenths // 10, tenths % 10
    digit = code % 10
    quality = np.select(
        [digit == 4, digit == 3, (digit == 9) & (agreement == 5), (digit == 2) & (agreement >= 4), digit == 9],
        [4, 3, 3, 2, np.where(agreement == 3, 2, 1)],
        np.where((digit == 1) | (digit == 2), 1, 0),
    ).astype(np.int8)
    return quality, np.where(code // 10 % 2 == 1, "qso", "")


def sdss(flags: Flags) -> Judged:
    """SDSS and DESI: class GALAXY, no warning, a positive error, the primary spectrum of its object.

    A table without a warning, error or primary column counts as already selected by that column; without errors no entry
    is certain.
    """
    kind = _column(flags.kind)
    nowhere = np.zeros(flags.rows, bool)
    warned = nowhere if flags.flag is None else numbers(flags.flag) != 0
    broken = nowhere if flags.redshift_err is None else ~(flags.redshift_err > 0)
    precise = nowhere if flags.redshift_err is None else flags.redshift_err < PRECISE
    secondary = nowhere if flags.primary is None else ~flags.primary
    quality = np.where(warned | broken, 1, np.where(precise, 4, 3)).astype(np.int8)
    reason = np.select(
        [kind == "STAR", kind == "QSO", kind != "GALAXY", secondary, warned, broken],
        ["star", "qso", "not_galaxy", "not_primary", "zwarning", "error_not_positive"],
        "",
    )
    return quality, reason


def ned(flags: Flags) -> Judged:
    """NED: `zflag` in its present form and the older one, and `prefphytype`.

    Present form: technique (S spectroscopic, P photometric, others modelled), two characters of method (`LS` several
    lines, `1L` one line), and quality (blank good, `?` and `:` doubtful): `SLS `. Older: one word, of which `SPEC` and
    `1LIN` are spectroscopic (`zmill.labels.flags.NED_WORDS`). Source: NED, Guide to the Database, redshift codes.
    """
    flag = _column(flags.flag)
    values, which = np.unique(flag, return_inverse=True)
    judged = [_ned_flag(value) or (0, "not_spectroscopic") for value in values.tolist()]
    quality = np.array([quality for quality, _ in judged], np.int8)[which] if len(flag) else np.empty(0, np.int8)
    reason = np.array([reason for _, reason in judged], np.str_)[which] if len(flag) else np.empty(0, np.str_)
    kind = np.char.upper(np.char.strip(_column(flags.kind))) if flags.rows else np.empty(0, np.str_)
    of_kind = np.select(
        [np.isin(kind, list(group)) for group in (NED_GALAXIES, NED_STARS, NED_QSOS, NED_CLUSTERS)],
        ["", "star", "qso", "cluster"],
        "not_galaxy",
    )
    return quality, np.where(of_kind != "", of_kind, reason)


def probability(flags: Flags) -> Judged:
    """A flag that is the probability of being right."""
    return np.digitize(np.nan_to_num(numbers(_column(flags.flag))), [1e-9, 0.7, 0.9, 0.99]).astype(np.int8), _none(
        flags.rows
    )


def by_error(flags: Flags) -> Judged:
    """A survey without flags whose entries are all secure, certain where the error is known to be small (2MRS)."""
    error = _column(flags.redshift_err)
    return np.where((error > 0) & (error < PRECISE), 4, 3).astype(np.int8), _none(flags.rows)


def hst_grism(flags: Flags) -> Judged:
    """3D-HST `z_best_s`: 0 star, 1 ground-based spectrum, 2 grism (`primary` is `use_zgrism`), 3 photometric."""
    flag = _column(flags.flag)
    usable = np.zeros(flags.rows, bool) if flags.primary is None else flags.primary
    quality = np.where((flag == "1") | ((flag == "2") & usable), 3, np.where(flag == "2", 1, 0)).astype(np.int8)
    return quality, np.select([flag == "0", flag == "3"], ["star", "photometric"], "")


def unknown(flags: Flags, knows: Callable[[str], bool], kinds: frozenset[str]) -> Texts:
    """(n,) the flag or class that is not known, as `flag 'X'` or `class 'X'`; empty where both are. Blank ones are known."""
    found = _none(flags.rows)
    for what, values, known in (
        ("class", flags.kind, lambda value: value.strip().strip("!").upper() in kinds),
        ("flag", flags.flag, knows),
    ):
        if values is not None and len(values):
            one, which = np.unique(values, return_inverse=True)
            names = np.array(
                ["" if not value.strip() or known(value) else f"{what} {value!r}" for value in one.tolist()]
            )[which]
            found = np.where(names != "", names, found)
    return found


def kind_reason(kind: Texts) -> Texts:
    """Reason by class alone: star, qso, cluster or photometric."""
    if not len(kind):
        return _none(0)
    kind = np.char.upper(np.char.strip(kind))
    groups = {"star": STARS, "qso": QSOS, "cluster": CLUSTERS, "photometric": PHOTOMETRIC}
    return np.select([np.isin(kind, list(group)) for group in groups.values()], list(groups), "")


def nothing(rows: int, quality: int = 0) -> Judged:
    """The same quality for every row, and no reason."""
    return np.full(rows, quality, np.int8), _none(rows)


def _table_scheme(table: dict[str, int | str]) -> Scheme:
    named = {plain_flag(flag) for flag in table}
    return Scheme(
        lambda flags: by_table(table, _column(flags.flag)), knows=lambda flag: "*" in named or plain_flag(flag) in named
    )


def _digit_scheme(digits: dict[int, int]) -> Scheme:
    return Scheme(lambda flags: by_digit(digits, _column(flags.flag)), knows=lambda flag: _a_digit(flag, {0, *digits}))


def _a_digit(flag: str, digits: set[int]) -> bool:
    """Whether a flag's last digit before the point is one of these; a negative number means that there is no flag."""
    value = _number(flag)
    return value < 0 or (np.isfinite(value) and int(value) % 10 in digits)


KINDS = frozenset(GALAXIES | STARS | QSOS | CLUSTERS | PHOTOMETRIC)
"""The classes that any source may have; others count as galaxies."""
SCHEMES: dict[str, Scheme] = {
    **{name: _table_scheme(table) for name, table in TABLES.items()},
    **{name: _digit_scheme(digits) for name, digits in DIGITS.items()},
    **dict.fromkeys(
        ("sdss", "desi"),
        Scheme(sdss, ("class",), lambda flag: _number(flag) >= 0, frozenset({"GALAXY", "STAR", "QSO"})),
    ),
    "ned": Scheme(
        ned,
        ("flag", "class"),
        lambda flag: _ned_flag(flag) is not None,
        frozenset(NED_GALAXIES | NED_STARS | NED_QSOS | NED_CLUSTERS | NED_OTHERS),
    ),
    "zcosmos": Scheme(zcosmos, knows=lambda flag: _a_digit(flag, {0, 1, 2, 3, 4, 9})),
    "probability": Scheme(probability, knows=lambda flag: 0 <= _number(flag) <= 1),
    "2mrs": Scheme(by_error, ("redshift_err",)),
    "3dhst": Scheme(hst_grism, ("flag", "primary"), lambda flag: _number(flag) in (0, 1, 2, 3)),
}
"""Every scheme by the name that `scheme:` takes."""


def _ned_flag(flag: str) -> tuple[int, str] | None:
    """Quality and reason of a NED flag, or None where NED has no such flag."""
    code = flag.strip().upper()
    word = code.rstrip(":?") or code[:1]
    doubt = code[len(word) :]
    found = NED_WORDS.get(word)
    if found is None:
        technique, method, doubt = NED_TECHNIQUES.get(code[0]), code[1:3].strip(), code[3:].strip()
        if technique is None or method not in NED_METHODS:
            return None
        found = NED_METHODS[method] if technique == 3 else technique
    if isinstance(found, str):
        return int(found == "photometric"), found
    return (min(found, 1) if doubt else found), ""


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


def _column(values: Any) -> Any:
    if values is None:
        raise TypeError("a scheme was given rows without a column that it needs")
    return values


def _none(rows: int) -> Texts:
    return np.full(rows, "", np.str_)
