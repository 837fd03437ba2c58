"""Bands that do not vary."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from zmill.inputs.photometry.kind import PhotometryKind
from zmill.sample.constant import warn_of_constants
from zmill.workflow.warning import Warnings


@pytest.mark.parametrize(
    ("mag", "imputed", "expected"),
    [
        ([21.5, 21.5, np.nan], [0, 0, 0], 1),
        ([21.5, 21.5, 23.0], [0, 0, 1], 1),  # a value that was filled in is no measurement
        ([21.5, 21.5, 21.6], [0, 0, 0], 0),
        ([21.5, np.nan, np.nan], [0, 0, 0], 0),  # one row does not tell
        ([np.nan, np.nan, np.nan], [0, 0, 0], 0),
    ],
)
def test_measured_values_alone_count(mag: list[float], imputed: list[int], expected: int) -> None:
    table = pa.table({"mag_r": pa.array(mag, pa.float32()), "imputed": pa.array(imputed, pa.int32())})
    warnings = Warnings()
    warn_of_constants([PhotometryKind(("r",), 0)], table, warnings)
    assert len(warnings) == expected
