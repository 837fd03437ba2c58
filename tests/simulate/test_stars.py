"""Stars on their locus and quasars with their colors."""

from __future__ import annotations

import numpy as np
import pytest

from zmill.simulate import stars
from zmill.simulate.field import Field


def test_stars_follow_the_locus_and_the_counts():
    field = Field.of_area(1.0)
    mag = stars.stars(np.random.default_rng(8), field, 24.0)
    u, g, r, i, z, y = mag.T
    assert np.sum(i < 21) == pytest.approx(2600, rel=0.1)
    turn_off = (g - r > 0.25) & (g - r < 0.35)
    # SDSS stars of g - r = 0.3 have u - g = 0.94, r - i = 0.11 and i - z = 0.03; M dwarfs pile up at g - r = 1.4
    assert np.median((u - g)[turn_off]) == pytest.approx(0.96, abs=0.05)
    assert np.median((r - i)[turn_off]) == pytest.approx(0.10, abs=0.03)
    assert np.median((i - z)[turn_off]) == pytest.approx(0.03, abs=0.03)
    assert np.median((g - r)[r - i > 1.0]) == pytest.approx(1.39, abs=0.03)
    assert np.median((z - y)[r - i > 1.0]) > 0.2


def test_quasars_are_blue_until_the_forest_enters_u():
    z, mag = stars.quasars(np.random.default_rng(9), Field.of_area(5.0), 24.0)
    u_g = mag[:, 0] - mag[:, 1]
    assert np.median(u_g[(z > 0.5) & (z < 2.0)]) < 0.5  # Richards et al. 2002: ultraviolet excess to z = 2.2
    assert np.median(u_g[z > 3.0]) > 1.0
    assert 1.2 < np.median(z) < 2.0


def test_composite_spectrum_has_the_equivalent_widths_it_is_made_of():
    wavelength = np.arange(600.0, 12_000.0, 2.0)
    center, width, sigma = stars.LINES[5]
    profile = width * np.exp(-0.5 * ((wavelength - center) / sigma) ** 2) / (sigma * np.sqrt(2 * np.pi))
    assert np.trapezoid(profile, wavelength) == pytest.approx(32.3, rel=1e-3)
