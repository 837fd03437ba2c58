"""Nearest vectors: exact for few, nearly all found for many, and the same after they were stored."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from zmill.networks import neighbors
from zmill.networks.neighbors import VectorIndex


def vectors(rows: int, seed: int = 1, width: int = 24) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(rows, 6)) @ np.random.default_rng(0).normal(size=(6, width))).astype(np.float32)


def nearest(points: np.ndarray, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    distance = np.sqrt(((queries[:, None].astype(float) - points[None].astype(float)) ** 2).sum(2))
    order = np.argsort(distance, 1)[:, :k]
    return np.take_along_axis(distance, order, 1), order


def test_few_vectors_are_searched_exactly() -> None:
    points, queries = vectors(500), vectors(40, 2)
    distance, number = VectorIndex.of(points).search(queries, 7)
    expected, order = nearest(points, queries, 7)
    np.testing.assert_allclose(distance, expected, rtol=1e-3)
    assert (number == order).mean() > 0.99
    itself = VectorIndex.of(points).search(points, 1)
    assert (itself[1][:, 0] == np.arange(500)).all() and itself[0].max() < 1e-2


def test_of_many_vectors_nearly_all_neighbors_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbors, "EXACT", 1000)
    points, queries = vectors(5000), vectors(100, 2)
    distance, number = VectorIndex.of(points).search(queries, 10)
    _, order = nearest(points, queries, 10)
    assert np.mean([len(set(a) & set(b)) / 10 for a, b in zip(number, order, strict=True)]) > 0.9
    found = np.sqrt(((queries[:, None] - points[number]) ** 2).sum(2))
    np.testing.assert_allclose(distance, found, rtol=1e-3, atol=1e-3)
    assert (np.diff(distance, axis=1) >= 0).all()


@pytest.mark.parametrize("exact", [100, 10_000])
def test_nothing_is_near_a_vector_that_is_not_finite(monkeypatch: pytest.MonkeyPatch, exact: int) -> None:
    monkeypatch.setattr(neighbors, "EXACT", exact)
    queries = vectors(3, 2)
    queries[1, 5] = np.nan
    distance, number = VectorIndex.of(vectors(3000)).search(queries, 4)
    assert np.isnan(distance[1]).all() and np.isfinite(distance[[0, 2]]).all()
    assert (number >= 0).all()


def test_there_are_as_many_neighbors_as_were_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbors, "EXACT", 100)
    monkeypatch.setattr(neighbors, "LEAST_PROBES", 1)
    points = vectors(3000)
    distance, number = VectorIndex.of(points).search(points[:50] + 100, 200)
    assert (number >= 0).all() and np.isfinite(distance).all()
    assert all(len(set(row)) == 200 for row in number.tolist())


@pytest.mark.parametrize("exact", [100, 10_000])
def test_it_is_stored_as_bytes(monkeypatch: pytest.MonkeyPatch, exact: int) -> None:
    monkeypatch.setattr(neighbors, "EXACT", exact)
    index, queries = VectorIndex.of(vectors(2000)), vectors(30, 2)
    tensor = index.tensor()
    assert tensor.dtype == torch.uint8 and torch.equal(tensor, VectorIndex.of(vectors(2000)).tensor())
    again = VectorIndex.restore(tensor)
    assert len(again) == 2000
    for one, other in zip(index.search(queries, 9), again.search(queries, 9), strict=True):
        np.testing.assert_array_equal(one, other)


def test_bytes_that_are_no_index_are_refused() -> None:
    tensor = VectorIndex.of(vectors(200)).tensor()
    for wrong in (tensor[:40], torch.zeros(100, dtype=torch.uint8)):
        with pytest.raises(ValueError, match="the index of neighbors cannot be read"):
            VectorIndex.restore(wrong)
