"""Answers of services as tables: what is masked is never a value that means something."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from astropy.table import Table

from zmill.labels.arrow import arrow

SCHEMA = pa.schema([("id", pa.string()), ("zWarning", pa.int64()), ("z", pa.float64())])


def test_masked_values_are_no_values() -> None:
    big = 5_000_000_000_000_000_447
    answer = Table(
        {
            "ID": np.ma.array([big, 1], mask=[False, True]),
            "zwarning": np.ma.array([0, 0], mask=[False, True]),
            "Z": np.ma.array([0.5, 0.0], mask=[False, True]),
        }
    )
    found = arrow(answer, SCHEMA).to_pydict()
    assert found["id"] == [str(big), ""] and found["zWarning"] == [0, -1]
    assert found["z"][0] == 0.5 and np.isnan(found["z"][1])
