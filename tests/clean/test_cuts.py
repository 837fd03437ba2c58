"""Cuts as bit masks, and the refusal of those that cannot be made."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clean.small import survey
from zmill.clean.cuts import check_cuts, columns, failed, first_failed
from zmill.config import ConfigError
from zmill.survey_definition import Cut


def cut(**values: object) -> Cut:
    return Cut.model_validate(values)


ROWS = pa.table(
    {
        "mag_r": pa.array(np.array([17, 18, 24, 25, np.nan], np.float32)),
        "size": pa.array(np.array([0.1, 0.2, 0.3, np.nan, 0.1], np.float32)),
        "kind": pa.array(["star", "galaxy", "galaxy", None, "qso"]),
    }
)


def test_bits_follow_the_order_of_the_cuts_and_missing_values_fail() -> None:
    named = {
        "bright": cut(column="mag_r", min=18),
        "faint": cut(column="mag_r", max=24),
        "galaxy": cut(column="kind", equals=["galaxy", "qso"]),
        "size": cut(column="size", equals=[0.1, 0.3]),
    }
    mask = failed(ROWS, named)
    assert mask.dtype == np.int32
    assert mask.tolist() == [0b0101, 0b1000, 0b0000, 0b1110, 0b0011]
    assert first_failed(mask, named).tolist() == ["bright", "size", "", "faint", "bright"]
    assert columns(named) == ["mag_r", "kind", "size"]


@given(st.lists(st.floats(width=32), max_size=40), st.floats(-1e3, 1e3), st.floats(-1e3, 1e3))
def test_agrees_with_a_plain_comparison(values: list[float], low: float, high: float) -> None:
    low, high = np.float32(min(low, high)), np.float32(max(low, high))
    rows = pa.table({"x": pa.array(values, pa.float32())})
    mask = failed(rows, {"x": cut(column="x", min=float(low), max=float(high))})
    assert mask.tolist() == [0 if low <= value <= high else 1 for value in values]


def test_batches_and_tables_give_the_same() -> None:
    named = {"galaxy": cut(column="kind", equals=["galaxy"]), "bright": cut(column="mag_r", min=18)}
    batch = ROWS.combine_chunks().to_batches()[0]
    assert np.array_equal(failed(batch, named), failed(ROWS, named))
    assert failed(ROWS.slice(0, 0), named).tolist() == []
    assert failed(ROWS, {}).tolist() == [0] * 5


@pytest.mark.parametrize("values", [{"column": "kind", "min": 1}, {"column": "kind", "equals": [1]}])
def test_numeric_cuts_on_text(values: dict) -> None:
    with pytest.raises(ConfigError, match="'kind' holds text"):
        failed(ROWS, {"odd": cut(**values)})


def test_text_cuts_on_numbers() -> None:
    with pytest.raises(ConfigError, match="'size' holds numbers"):
        failed(ROWS, {"odd": cut(column="size", equals=["large"])})


def test_a_cut_on_an_unknown_column_names_the_nearest() -> None:
    with pytest.raises(
        ConfigError, match=r"surveys/x.yaml: cuts.bright: there is no column 'mag_rr'; did you mean 'mag_r'"
    ):
        check_cuts(survey(cuts={"bright": {"column": "mag_rr", "min": 1}}), "x")


def test_a_cut_on_ebv_needs_ebv() -> None:
    with pytest.raises(ConfigError, match="no column 'ebv'"):
        check_cuts(survey(cuts={"dust": {"column": "ebv", "max": 0.3}}), "x")


def test_too_many_cuts() -> None:
    with pytest.raises(ConfigError, match="found 32 cuts"):
        check_cuts(survey(cuts={f"c{n}": {"column": "mag_r", "min": n} for n in range(32)}), "x")


def test_good_cuts_pass() -> None:
    check_cuts(
        survey(cuts={"r": {"column": "mag_r", "max": 24}, "kind": {"column": "kind", "equals": ["galaxy"]}}), "x"
    )
