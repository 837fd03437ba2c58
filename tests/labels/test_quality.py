"""Flags of the sources on one scale, against what their papers and data releases say."""

from __future__ import annotations

import numpy as np
import pytest

from zmill.labels.quality import SCHEMES, Flags, kind_reason, texts


def judge(scheme: str, flag=None, kind=None, error=None, primary=None) -> list[tuple[int, str]]:
    given = next(column for column in (flag, kind, error, primary) if column is not None)
    flags = Flags(
        len(given),
        flag=None if flag is None else texts(np.array(flag)),
        kind=None if kind is None else np.array(kind),
        redshift_err=None if error is None else np.array(error, float),
        primary=None if primary is None else np.array(primary),
    )
    quality, reason = SCHEMES[scheme].judge(flags)
    assert quality.dtype == np.int8
    return list(zip(quality.tolist(), reason.tolist(), strict=True))


@pytest.mark.parametrize(
    ("flag", "expected"),
    [
        (3.5, (3, "")),
        (3.1, (3, "")),
        (4.5, (4, "")),
        (4.1, (4, "")),
        (9.5, (3, "")),
        (9.3, (2, "")),
        (9.1, (1, "")),
        (2.5, (2, "")),
        (2.1, (1, "")),
        (1.5, (1, "")),
        (0.0, (0, "")),
        (18.5, (0, "qso")),
        (13.5, (3, "qso")),
        (14.5, (4, "qso")),
        (23.5, (3, "")),
        (214.5, (4, "qso")),
        (-99.0, (0, "")),
        (np.nan, (0, "")),
    ],
)
def test_zcosmos(flag: float, expected: tuple[int, str]) -> None:
    assert judge("zcosmos", [flag]) == [expected]


def test_vvds_family() -> None:
    flags = [0, 1, 2, 3, 4, 9, 13, 24, 29, 213, 33, -10]
    quality = [0, 1, 2, 3, 4, 2, 3, 4, 2, 3, 3, 0]
    assert [value for value, _ in judge("vvds", flags)] == quality
    assert [reason for _, reason in judge("vvds", flags)] == ["qso" if flag in (13, 213, 33) else "" for flag in flags]
    assert judge("vandels", [3, 9, 2]) == [(4, ""), (3, ""), (2, "")]
    assert judge("vipers", ["2.5", "9.4"]) == [(3, ""), (3, "")]


@pytest.mark.parametrize(
    ("zflag", "expected"),
    [
        ("SLS ", (4, "")),
        ("SLS", (4, "")),
        ("SUN ", (3, "")),
        ("S1L ", (2, "")),
        ("SLS?", (1, "")),
        ("SLS:", (1, "")),
        ("PUN ", (1, "photometric")),
        ("PHOT", (1, "photometric")),
        ("SED", (1, "photometric")),
        ("MOD ", (0, "not_spectroscopic")),
        ("EST", (0, "not_spectroscopic")),
        ("LUM", (0, "not_spectroscopic")),
        ("MFA", (0, "not_spectroscopic")),
        ("1LIN", (2, "")),
        (":", (1, "")),
        ("", (2, "")),
    ],
)
def test_ned_codes_of_both_forms(zflag: str, expected: tuple[int, str]) -> None:
    assert judge("ned", [zflag], ["G"]) == [expected]


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("SPEC", (3, "")),
        ("spec ", (3, "")),
        ("SPEC?", (1, "")),
        ("1LIN:", (1, "")),
        ("?", (1, "")),
        ("??", (1, "")),
        ("S1L", (2, "")),
        ("SSN ", (0, "not_spectroscopic")),
        ("SMF ", (0, "not_spectroscopic")),
        *((word, (0, "not_spectroscopic")) for word in ("SN", "TENT", "TOMO", "PRED", "PEAK", "CONT", "PAH", "UNKN")),
        *((word, (0, "not_spectroscopic")) for word in ("FoF", "MOD", "STAT", "ML", "LENS", "INFD", "MULT", "MFA?")),
        ("MMF ", (0, "not_spectroscopic")),
        ("ULS ", (0, "not_spectroscopic")),
    ],
)
def test_ned_older_words_are_what_ned_says_they_are(word: str, expected: tuple[int, str]) -> None:
    assert judge("ned", [word], ["G"]) == [expected]


@pytest.mark.parametrize("flag", ["WORD", "SPECTRUM", "XLS ", "SQQ ", "4"])
def test_a_flag_that_ned_does_not_have_is_no_spectroscopic_redshift_and_is_named(flag: str) -> None:
    assert judge("ned", [flag], ["G"]) == [(0, "not_spectroscopic")]
    assert SCHEMES["ned"].unknown(Flags(1, np.array([flag]), np.array(["G"]))).tolist() == [f"flag {flag!r}"]


def test_unknown_flags_and_classes_differ_from_known_ones() -> None:
    def unknown(scheme: str, flag: list[str], kind: list[str] | None = None) -> list[str]:
        return (
            SCHEMES[scheme].unknown(Flags(len(flag), np.array(flag), None if kind is None else np.array(kind))).tolist()
        )

    assert unknown("2dfgrs", ["3", "4", "", "A"]) == ["", "", "", "flag 'A'"]
    assert unknown("vvds", ["13", "9", "2.5", "-99", "7", "B"]) == ["", "", "", "", "flag '7'", "flag 'B'"]
    assert unknown("sdss", ["0", "4", "x"], ["GALAXY", "STAR", "STELLAR"]) == ["", "", "flag 'x'"]
    assert unknown("sdss", ["0"], ["STELLAR"]) == ["class 'STELLAR'"]
    assert unknown("probability", ["0.5", "98"]) == ["", "flag '98'"]
    assert unknown("ned", ["SLS", "SPEC", "S1L"], ["G", "!*", "Thing"]) == ["", "", "class 'Thing'"]


def test_ned_wants_a_galaxy() -> None:
    kinds = ["G", "*", "QSO", "GClstr", "GPair", "RadioS", ""]
    expected = ["", "star", "qso", "cluster", "cluster", "not_galaxy", "not_galaxy"]
    assert [reason for _, reason in judge("ned", ["SLS "] * len(kinds), kinds)] == expected


def test_sdss() -> None:
    kind = ["GALAXY", "GALAXY", "STAR", "QSO", "GALAXY", "GALAXY", "GALAXY"]
    flag = [0, 0, 0, 0, 4, 0, 0]
    error = [1e-4, 2e-3, 1e-4, 1e-4, 1e-4, -1, 1e-4]
    primary = [True, True, True, True, True, True, False]
    assert judge("sdss", flag, kind, error, primary) == [
        (4, ""),
        (3, ""),
        (4, "star"),
        (4, "qso"),
        (1, "zwarning"),
        (1, "error_not_positive"),
        (4, "not_primary"),
    ]
    assert judge("sdss", kind=["GALAXY", "STAR"]) == [(3, ""), (3, "star")]


def test_tables_probability_errors_and_grism() -> None:
    assert judge("2dfgrs", [1, 2, 3, 4, 5, 7]) == [(0, ""), (1, ""), (3, ""), (4, ""), (4, ""), (0, "")]
    assert judge("6dfgs", [6, 4]) == [(0, "star"), (4, "")]
    assert judge("astrodeep", ["-", "VUDS_2015"]) == [(0, "photometric"), (3, "")]
    assert judge("c3r2", [3, 3.5, 4.0]) == [(3, ""), (3, ""), (4, "")]
    assert [quality for quality, _ in judge("probability", [0, 0.5, 0.7, 0.95, 0.99, np.nan])] == [0, 1, 2, 3, 4, 0]
    assert [quality for quality, _ in judge("2mrs", error=[0, 5e-4, 2e-3])] == [3, 4, 3]
    assert judge("3dhst", [0, 1, 2, 2, 3], primary=[False, False, True, False, False]) == [
        (0, "star"),
        (3, ""),
        (3, ""),
        (1, ""),
        (0, "photometric"),
    ]


@pytest.mark.parametrize("name", sorted(SCHEMES))
def test_every_scheme_takes_no_rows_and_strange_flags(name: str) -> None:
    for flag in ([], ["??", "nan", "", "1e9"]):
        rows = len(flag)
        quality, reason = SCHEMES[name].judge(
            Flags(rows, np.array(flag, np.str_), np.full(rows, "G"), np.full(rows, 0.1), np.ones(rows, bool))
        )
        assert len(quality) == len(reason) == rows
        assert ((quality >= 0) & (quality <= 4)).all()


def test_flags_of_any_type_are_the_same_text() -> None:
    assert texts(np.array([4.0, 4.5, np.nan])).tolist() == ["4", "4.5", ""]
    assert texts(np.array([4, -1])).tolist() == ["4", "-1"]
    assert texts(np.array(["A ", None, "b"], object)).tolist() == ["A", "", "b"]
    assert kind_reason(np.array(["star", "AGN", "s", "p", "Galaxy"])).tolist() == ["star", "qso", "", "photometric", ""]
