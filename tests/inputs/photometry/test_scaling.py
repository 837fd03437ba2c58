"""Scalers do what their names say, and a column without spread stays finite."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.preprocessing import MinMaxScaler, RobustScaler, StandardScaler

from zmill.inputs.photometry import scaling


@pytest.mark.parametrize(
    ("kind", "reference"), [("minmax", MinMaxScaler()), ("standard", StandardScaler()), ("robust", RobustScaler())]
)
def test_equals_scikit_learn(kind: scaling.Kind, reference: StandardScaler) -> None:
    x = np.random.default_rng(1).gamma(2.0, 3.0, (500, 4)).astype(np.float32)
    scaled = scaling.fit(kind, torch.from_numpy(x))(torch.from_numpy(x))
    np.testing.assert_allclose(scaled.numpy(), reference.fit_transform(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["none", "minmax", "standard", "robust"])
def test_a_constant_column_stays_finite(kind: scaling.Kind) -> None:
    x = torch.tensor([[1.0, 25.1], [2.0, 25.1], [3.0, 25.1]])
    assert torch.isfinite(scaling.fit(kind, x)(x)).all()
