"""Cells of equal width in ln(wavelength)."""

from __future__ import annotations

import pytest

from zmill.restframe.cells import Cells


def test_cells_cover_what_they_are_asked_to():
    cells = Cells.cover(1000.0, 5000.0, 1e-3)
    assert cells.edges[0] == pytest.approx(1000) and cells.edges[-1] >= 5000
    assert cells.range == pytest.approx((cells.edges[0], cells.edges[-1]))
