"""The `qp` ensemble of a table of PDFs says what their densities say: two peaks, ends of the grid, no width; ids survive files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import qp as library
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from test_compact import GRID, mixtures

from zmill.pdf import arrow, compact, points, qp
from zmill.pdf.grid import Grid

COARSE = Grid(0.0, 1.6, 161)


def table_of(codes: NDArray[np.uint16], grid: Grid, ids: pa.Array | None = None) -> pa.Table:
    """Compact PDFs as a table of `pdf/`."""
    packed = pa.array([row.astype("<u2").tobytes() for row in codes], pa.binary(64))
    ids = pa.array(np.arange(len(codes))) if ids is None else ids
    schema = pa.schema([pa.field("object_id", ids.type), arrow.field("compact", grid)], arrow.metadata("compact", grid))
    return pa.table([ids, packed], schema)


def of_peaks(peaks: list[tuple[float, float, float]], grid: Grid) -> NDArray[np.uint16]:
    """(1, 32) codes of Gaussians (place and width as parts of the grid's range, share), cut off at its ends."""
    fine = np.linspace(0, 1, 20_001)
    pdf = sum(share * np.exp(-0.5 * ((fine - place) / width) ** 2) / width for place, width, share in peaks)
    cdf = np.cumsum(pdf)
    return np.round(65_535 * np.interp(compact.LEVELS, cdf / cdf[-1], fine)).astype(np.uint16)[None]


def check(codes: NDArray[np.uint16], grid: Grid) -> None:
    """What holds for every PDF, however narrow."""
    ensemble = qp.ensemble(table_of(codes, grid))
    density = arrow.densities(table_of(codes, grid))[0].double()
    fine = np.linspace(grid.z_min, grid.z_max, 40 * (grid.size - 1) + 1)
    np.testing.assert_allclose(ensemble.pdf(grid.z), density.numpy()[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(np.trapezoid(ensemble.pdf(fine), fine), 1, atol=0.01)
    inner = grid.cdf(density).numpy()[0, 1:]  # qp begins with half of the first step
    np.testing.assert_allclose(ensemble.cdf(grid.z[1:]), inner, atol=1e-5)
    locations = codes / 65_535 * (grid.z_max - grid.z_min) + grid.z_min
    levels = np.array(compact.LEVELS)
    below, above = (ensemble.cdf(np.clip(locations[0] + by * grid.step, *grid.z[[0, -1]])) for by in (-1.51, 1.51))
    assert (below <= np.where(locations[0] - 1.51 * grid.step <= grid.z[1], 1, levels + 2e-3)).all()
    assert (above >= levels - 2e-3).all()


place, width = st.floats(0, 1), st.floats(1e-4, 0.3)
peak = st.tuples(place, width, st.floats(0.05, 1))


@given(st.lists(peak, min_size=1, max_size=3))
@settings(max_examples=40, deadline=None)
def test_peaks_of_any_width_anywhere(peaks: list[tuple[float, float, float]]) -> None:
    check(of_peaks(peaks, COARSE), COARSE)


@given(st.lists(st.integers(0, 65_535), min_size=32, max_size=32))
@settings(max_examples=40, deadline=None)
def test_any_quantiles(codes: list[int]) -> None:
    check(np.sort(np.array(codes, np.uint16))[None], COARSE)


@pytest.mark.parametrize("code", [0, 1, 30_000, 65_534, 65_535])
def test_of_no_width(code: int) -> None:
    check(np.full((1, 32), code, np.uint16), COARSE)


@given(st.floats(0.05, 0.95), st.floats(0.05, 0.95), st.floats(0.012, 0.1), st.floats(0.1, 0.9))
@settings(max_examples=40, deadline=None)
def test_the_level_is_reached_at_its_quantile(first: float, second: float, width: float, share: float) -> None:
    codes = of_peaks([(first, width, share), (second, width, 1 - share)], COARSE)
    ensemble = qp.ensemble(table_of(codes, COARSE))
    locations = codes / 65_535 * 1.6
    np.testing.assert_allclose(ensemble.cdf(locations[0]), np.array(compact.LEVELS), atol=0.02)


def test_a_tail_that_ends_with_the_grid() -> None:
    codes = of_peaks([(0.6, 0.1, 1.0)], COARSE)
    codes[0, -1] = round(1.523 / 1.6 * 65_535)
    ensemble = qp.ensemble(table_of(codes, COARSE))
    assert float(ensemble.cdf(1.57)) == pytest.approx(0.9998, abs=1e-4)
    z = np.linspace(0, 1.6, 5000)
    assert np.trapezoid(ensemble.pdf(z), z) == pytest.approx(1, abs=0.01)


def test_moments_are_those_of_the_density() -> None:
    density, _ = mixtures(100, 7)
    table = table_of(compact.encode(density, GRID).numpy(), GRID)
    ensemble, expected = qp.ensemble(table), points.summarize(arrow.densities(table)[0], GRID)
    np.testing.assert_allclose(ensemble.mean().ravel(), expected["z_mean"], atol=5e-3)
    np.testing.assert_allclose(ensemble.std().ravel(), expected["z_std"], atol=5e-3)
    assert ensemble.moment(2).shape[0] == 100


def test_full_pdfs_and_parts_of_a_table() -> None:
    density, _ = mixtures(60, 3)
    schema = pa.schema([pa.field("object_id", pa.int64()), arrow.field("full", GRID)], arrow.metadata("full", GRID))
    table = pa.table([pa.array(np.arange(60)), arrow.column("full", density)], schema)
    ensemble = qp.ensemble(table.slice(50, 7))
    assert ensemble.npdf == 7
    assert np.array_equal(ensemble.ancil["object_id"], np.arange(50, 57))
    np.testing.assert_allclose(ensemble.pdf(GRID.z), arrow.densities(table)[0][50:57], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("suffix", ["hdf5", "fits"])
@pytest.mark.parametrize(
    "ids",
    [
        pa.array(["a", "J0123+45.6 b", "galaxié"]),
        pa.array(["a", "b", "c"], pa.large_string()),
        pa.array([2**63 + 1, 7, 2**64 - 1], pa.uint64()),
        pa.array([-5, 0, 2**62]),
    ],
    ids=["text", "large text", "unsigned", "signed"],
)
def test_identifiers_and_densities_survive_a_file(tmp_path: Path, suffix: str, ids: pa.Array) -> None:
    density, _ = mixtures(3, 9)
    ensemble = qp.ensemble(table_of(compact.encode(density, GRID).numpy(), GRID, ids))
    ensemble.write_to(str(tmp_path / f"a.{suffix}"))
    back = library.read(str(tmp_path / f"a.{suffix}"))
    found = [one.decode() if isinstance(one, bytes) else one for one in np.asarray(back.ancil["object_id"]).tolist()]
    assert found == ids.to_pylist()
    np.testing.assert_allclose(back.pdf(GRID.z), ensemble.pdf(GRID.z), atol=1e-6)
