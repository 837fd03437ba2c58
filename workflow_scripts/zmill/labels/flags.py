"""Quality flags of spectroscopic surveys: the quality of each flag on the common scale from 0 to 4.

4 certain (> 99 %), 3 secure (> 90 %), 2 probable (> 70 %), 1 a guess, 0 no redshift. A word instead of a number is the
reason for which the entry is rejected. A flag that is not listed has quality 0.
"""

from __future__ import annotations

TABLES: dict[str, dict[str, int | str]] = {
    "2dfgrs": {"1": 0, "2": 1, "3": 3, "4": 4, "5": 4},
    "2dflens": {"1": 0, "2": 1, "3": 3, "4": 4, "6": "star"},
    "6dfgs": {"1": 0, "2": 1, "3": 3, "4": 4, "6": "star"},
    "astrodeep": {"-": "photometric", "*": 3},
    "c3r2": {"3": 3, "3.5": 3, "4": 4},
    "elais_s1": {"0": 0, "1": 1, "2": 2, "3": 3, "4": 4, "6": "star"},
    "figs": {"*": 3},
    "fmos": {"0": 0, "1": 1, "2": 2, "3": 3, "4": 4, "-1": "star"},
    "gama": {"1": 1, "2": 2, "3": 3, "4": 4, "5": 4},
    "help": {"1": 0, "2": 1, "3": 3, "4": 4, "5": 4},
    "jades": {"E": 0, "D": 1, "C": 2, "B": 3, "A": 4, "0": 0, "1": 1, "2": 2, "3": 3, "4": 4},
    "mosdef": {"0": 0, "1": 0, "2": 1, "3": 1, "4": 2, "5": 2, "6": 3, "7": 4},
    "ozdes": {"1": 0, "2": 1, "3": 3, "4": 4, "6": "star"},
    "primus": {"-1": 0, "2": 1, "3": 2, "4": 3},
    "swire": {"0": 0, "1": 1, "2": 2, "3": 3, "4": 4, "6": "star"},
    "vimos_goods": {"X": 0, "C": 1, "B": 2, "A": 4, "0": 0, "1": 1, "2": 2, "3": 3, "4": 4},
    "xmm_lss": {"1": 3, "2": 2, "3": 1},
}
"""Quality by flag; `*` stands for every other flag."""

DIGITS: dict[str, dict[int, int]] = {
    "vvds": {1: 1, 2: 2, 3: 3, 4: 4, 9: 2},
    "vuds": {1: 1, 2: 2, 3: 3, 4: 4, 9: 2},
    "deimos10k": {1: 1, 2: 2, 3: 3, 4: 4, 9: 2},
    "desi_deep_pilot": {1: 1, 2: 2, 3: 3, 4: 4},
    "cosmos": {1: 1, 2: 2, 3: 3, 4: 4, 9: 2},
    "vandels": {1: 1, 2: 2, 3: 4, 4: 4, 9: 3},
    "vipers": {1: 1, 2: 3, 3: 4, 4: 4, 9: 3},
}
"""Flags of the VVDS family (Le Fevre et al. 2005): the last digit before the point is the confidence, 9 a single line; 10
is added for broad-line AGN, 20 for objects that were in the slit by chance, 30 for both (also written 210)."""

NED_WORDS: dict[str, int | str] = {
    "": 2,
    ":": 1,
    "?": 1,
    "SPEC": 3,
    "1LIN": 2,
    **dict.fromkeys(("PHOT", "SED"), "photometric"),
    **dict.fromkeys(("EST", "LUM", "MFA", "MOD", "PRED", "TENT", "TOMO", "SN", "FOF", "LENS"), "not_spectroscopic"),
    **dict.fromkeys(("CONT", "PEAK", "PAH", "STAT", "ML", "MULT", "INFD", "UNKN"), "not_spectroscopic"),
}
"""NED's older redshift flags, one word each in capitals (NED, Guide to the Database: "what do the codes following the
redshift mean?"; FAQ of 2015). A blank flag meant "usually a reliable spectroscopic value", which is probable and no more."""
NED_TECHNIQUES: dict[str, int | str] = {"S": 3, "P": "photometric", **dict.fromkeys("MLIU", "not_spectroscopic")}
"""Present flags, first character: spectroscopic, photometric; modelled, several techniques, inferred, unknown."""
NED_METHODS: dict[str, int | str] = {
    "": 3,
    "LS": 4,
    "UN": 3,
    "MU": 3,
    "ST": 3,
    **dict.fromkeys(("1L", "CO", "PA"), 2),
    **dict.fromkeys(("FO", "LE", "LU", "MF", "ML", "SE", "SN", "TO"), "not_spectroscopic"),
}
"""Present flags of technique S, second and third character: several lines, not stated, several methods, an average; a
single line, the continuum, PAH features; and those that are not a spectrum of the galaxy itself."""

NED_STARS = {
    "*",
    "**",
    "*ASS",
    "*CL",
    "C*",
    "FLARE*",
    "NOVA",
    "PN",
    "PSR",
    "SN",
    "SNR",
    "V*",
    "WD*",
    "WR*",
    "BLUE*",
    "RED*",
}
NED_QSOS = {"QSO", "Q_LENS", "QGROUP", "BLAZAR"}
NED_CLUSTERS = {"GCLSTR", "GGROUP", "GPAIR", "GTRPL"}
NED_GALAXIES = {"G", "G_LENS"}
NED_OTHERS = {
    *("", "GAMMAS", "XRAYS", "UVS", "UVES", "VISS", "IRS", "RADIOS", "ABLS", "EMLS", "EMOBJ", "SMMS"),
    *("HII", "POFG", "MCLD", "RFN", "NEB", "OTHER", "GTRPL", "SCLUSTER", "CLG", "BHOLE", "GWE", "DARKNEB"),
}
"""Types of NED (`prefphytype`), in capitals."""

STARS = {"STAR", "STA", "S*", *NED_STARS}
QSOS = {"QSO", "AGN", "BROADLINE", *NED_QSOS}
CLUSTERS = {"CLUSTER", *NED_CLUSTERS}
PHOTOMETRIC = {"PHOTOMETRIC", "PHOT", "P"}
GALAXIES = {"", "GALAXY", "GAL", "SPECTROSCOPIC", "SPEC", "S", *NED_GALAXIES}
"""Classes of any source that are not a galaxy's spectroscopic redshift, in capitals."""
