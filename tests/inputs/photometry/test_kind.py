"""What photometry logs: values that stay missing are warned of."""

from __future__ import annotations

import logging

import numpy as np
import pyarrow as pa
import pytest

from zmill.inputs.photometry.kind import PhotometryKind

KIND = PhotometryKind(("g", "r"), 1)


def rows(g: list[float | None], r: list[float | None]) -> pa.Table:
    return pa.table({"mag_g": pa.array(g, pa.float32()), "mag_r": pa.array(r, pa.float32())})


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


def test_bands_that_are_never_measured_together_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    learner = KIND.learner()
    learner.add(rows([20, np.nan], [np.nan, 21]))
    with caplog.at_level(logging.INFO):
        learner.log()
    assert warnings(caplog) == [
        "mean color g-r: the two bands are never measured together; nothing is filled across them"
    ]


def test_rows_without_any_magnitude_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    learner = KIND.learner()
    learner.add(rows([20], [19]))
    _, counts = KIND.clean(rows([np.nan, np.nan, 20], [22, np.nan, 19]), learner.result())
    with caplog.at_level(logging.INFO):
        KIND.log_counts(counts)
    assert warnings(caplog) == ["1 rows have no magnitude in any band"]
    assert "g: 1 rows imputed, 1 stay without a magnitude" in caplog.text
