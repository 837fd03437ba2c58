"""Tables without positions: the same states, with redshifts, in the order of the files."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_survey import BANDS, survey, table, write

from zmill.survey.counts import Counts
from zmill.survey.readers import ReadError
from zmill.survey.tables import read_tables


def test_order_states_and_bad_rows(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first, second = table(30), table(20, seed=3, first_id=100)
    magnitudes = np.asarray(first.column("mag_g").to_numpy()).copy()
    magnitudes[7] = np.inf
    first = first.set_column(first.column_names.index("mag_g"), "mag_g", pa.array(magnitudes))
    ebv = np.full(30, 0.02)
    ebv[4] = -99
    first = first.append_column("ebv", pa.array(ebv))
    second = second.append_column("ebv", pa.array(np.zeros(20)))
    files = [write(first, tmp_path / "a", "csv"), write(second, tmp_path / "b", "fits")]
    columns = {"ra": None, "dec": None, "redshift": "size", "extra": [], "ebv": "ebv"}
    coefficients = {"coefficients": dict.fromkeys(BANDS, 1.0)}
    definition = survey(files=[], tables={"train": ["x"], "test": ["y"]}, columns=columns, extinction=coefficients)
    with caplog.at_level(logging.WARNING, "zmill"):
        counts = Counts()
        found = read_tables(files, definition, tmp_path / "bad.parquet", counts)
    ids = [*range(1, 5), *range(6, 31), *range(100, 120)]
    assert found.column("object_id").to_pylist() == ids
    assert "set aside: ebv_out_of_range" in caplog.text and "value_infinite: 1 in g of 50 rows" in caplog.text
    bad = pq.read_table(tmp_path / "bad.parquet").to_pylist()
    assert bad == [{"object_id": "5", "reason": "ebv_out_of_range", "file": str(files[0]), "row": 4}]
    assert counts.rows == 50 and counts.faults == {"g": {"value_infinite": 1}}
    assert Counts.of_json(json.loads(json.dumps(counts.json()))) == counts
    assert found.column("redshift").to_pylist()[-1] == second.column("size")[-1].as_py()
    assert not {"ra", "dec", "_healpix_29"} & set(found.column_names)


def test_a_band_without_a_column_was_never_observed(tmp_path: Path) -> None:
    """Whatever the survey says of NaN elsewhere; a band that loses its errors alone keeps its magnitudes."""
    path = write(table(30).drop_columns(["mag_g", "err_g"]), tmp_path / "a", "csv")
    columns = {"ra": None, "dec": None, "redshift": "size", "extra": []}
    columns["overrides"] = {"flux_g": None, "error_i": None}
    definition = survey(
        files=[], tables={"train": ["x"], "test": ["y"]}, columns=columns, sentinels={"nonfinite": "undetected"}
    )
    found = read_tables([path], definition)
    assert all(mask & 1 for mask in found.column("unobserved").to_pylist())
    assert not any(mask & 1 for mask in found.column("undetected").to_pylist())
    for name in ("mag_g", "magerr_g", "maglim_g", "magerr_i"):
        assert np.isnan(found.column(name).to_numpy()).all(), name
    assert np.isfinite(found.column("mag_i").to_numpy()).any()


def test_no_row(tmp_path: Path) -> None:
    path = write(table(3).slice(0, 0), tmp_path, "csv")
    definition = survey(
        files=[], tables={"train": ["x"], "test": ["y"]}, columns={"ra": None, "dec": None, "redshift": "size"}
    )
    with pytest.raises(ReadError, match="no row that can be used, of 0 there are"):
        read_tables([path], definition)
