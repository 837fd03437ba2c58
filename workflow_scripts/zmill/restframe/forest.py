"""Mean absorption by the intergalactic medium, in lines of the Lyman series.

Light that is absorbed in a line at the observed wavelength λ meets gas at the redshift λ / λ_line − 1, whatever the redshift of the object behind
it. Between two lines, the transmission is thus a function of the observed wavelength alone: exp(−Σ A (λ / λ_line)^B), where the sum is over
the lines that are at longer rest-frame wavelengths. Continuous absorption below 912 Å is not modeled.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Line:
    """A line of the Lyman series, with an effective optical depth of a (1 + z)^b. wavelength : Angstrom."""

    wavelength: float
    a: float
    b: float


ABSORPTION: dict[str, tuple[Line, ...]] = {
    "None": (),
    "Kamble20": (Line(1215.67, 5.54e-3, 3.182),),
    "Calura12": tuple(
        Line(wavelength, 2.3e-3 / ratio, 3.64)
        for wavelength, ratio in (
            (1215.67, 1.0),
            (1025.72, 5.2615),
            (972.537, 14.356),
            (949.7431, 29.85984),
            (937.8035, 53.36202),
        )
    ),
}
"""Lines by the name of the model, from the longest wavelength to the shortest; names are those of redrock (key RRIGM of its templates).

Kamble20 : Kamble et al. 2020, ApJ 892, 70, abstract: Lyman alpha. Redrock's templates of quasars 1.1 were made with it.
Calura12 : Calura et al. 2012, MNRAS 422, 3019, eq. 5: Lyman alpha; the other lines with ratios of Irsic et al. 2013, JCAP 09, 016, eq. 1.1.
"""


def transmissions(model: str, observed: Array) -> list[tuple[float, Array]]:
    """For each line of a model: its rest-frame wavelength, and the transmission (n,) of light that was emitted at shorter ones, down to
    the next line, at observed wavelengths (n,) in Angstrom."""
    found, depth = [], np.zeros_like(observed)
    for line in ABSORPTION[model]:
        depth = depth + line.a * (observed / line.wavelength) ** line.b
        found.append((line.wavelength, np.exp(-depth)))
    return found
