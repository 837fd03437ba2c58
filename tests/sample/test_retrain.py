"""The retrain check: when models are retrained."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zmill.catalog.files import read_json, write_json
from zmill.config import Refresh
from zmill.sample.retrain import changed, check_retraining
from zmill.workflow.dates import period

SIDES = ("train", "valid", "calib", "test")


def labels(folder: Path, rows: list[tuple[int, str, float, str]]) -> None:
    names = ("object_id", "split", "redshift", "excluded")
    pq.write_table(
        pa.table(dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))), folder / "split.parquet"
    )


def learn(folder: Path) -> None:
    """Write the sample of the labels there are, as the rule `sample` does when models are retrained."""
    rows = pq.read_table(folder / "split.parquet").to_pylist()
    (folder / "sample").mkdir(exist_ok=True)
    for side in SIDES:
        mine = [row for row in rows if row["split"] == side and not row["excluded"]]
        table = pa.table({name: [row[name] for row in mine] for name in ("object_id", "redshift")})
        pq.write_table(table, folder / "sample" / f"{side}.parquet")


def retrained(folder: Path, split_settings: Any = 1, period: int = 0, **refresh: Any) -> bool:
    """Whether the content of `training.json`, which later rules depend on, changed."""
    path = folder / "training.json"
    before = path.read_bytes() if path.is_file() else b""
    path.unlink(missing_ok=True)
    check_retraining(
        folder / "split.parquet", folder / "sample", folder / "kept.json", path, {"s": split_settings},
        Refresh.model_validate(refresh), period,
    )  # fmt: skip
    return path.read_bytes() != before


def days(state: dict[str, Any]) -> float:
    return (datetime.fromisoformat(state["until"]) - datetime.fromisoformat(state["when"])).days


def base(count: int = 100) -> list[tuple[int, str, float, str]]:
    return [(key, SIDES[key % 4], key / 100, "") for key in range(count)]


def test_nothing_new_leaves_the_models(tmp_path: Path) -> None:
    labels(tmp_path, base())
    assert retrained(tmp_path) and read_json(tmp_path / "training.json")["why"] == "there was no sample yet"
    learn(tmp_path)
    assert not retrained(tmp_path)
    labels(tmp_path, [*base(), (500, "train", 0.3, "ambiguous")])
    assert not retrained(tmp_path), "labels that are not used do not count"


def test_labels_that_come_go_or_change_count_until_models_have_learned_them(tmp_path: Path) -> None:
    labels(tmp_path, base())
    retrained(tmp_path)
    learn(tmp_path)
    labels(tmp_path, [*base(), (200, "train", 0.1, ""), (201, "train", 0.1, "")])
    assert not retrained(tmp_path)
    labels(tmp_path, [*base()[2:], (200, "train", 0.1, ""), (201, "train", 0.1, "")])
    assert not retrained(tmp_path), "four of a hundred"
    other = [(key, side, z + 0.5 if key in (10, 11) else z, no) for key, side, z, no in base()[2:]]
    labels(tmp_path, [*other, (200, "train", 0.1, ""), (201, "train", 0.1, "")])
    assert retrained(tmp_path), "six of a hundred"
    assert retrained(tmp_path) is False
    learn(tmp_path)
    assert not retrained(tmp_path)


def test_time_and_settings(tmp_path: Path) -> None:
    labels(tmp_path, base())
    retrained(tmp_path, period=5)
    learn(tmp_path)
    assert retrained(tmp_path, period=6) and not retrained(tmp_path, period=6)
    assert not retrained(tmp_path, period=9, every=None)
    assert retrained(tmp_path, period=9, split_settings=2, every=None)


def test_days_are_counted_from_when_models_were_learned(tmp_path: Path) -> None:
    """Whatever made them learn; a night that changes nothing does not put it off."""
    labels(tmp_path, base())
    retrained(tmp_path, period=3, every=30)
    learn(tmp_path)
    kept = tmp_path / "kept.json"
    first = read_json(kept)
    assert days(first) == 30 and period(kept) == 3
    assert not retrained(tmp_path, period=3, every=30) and read_json(kept) == first
    assert not retrained(tmp_path, period=3, every=10) and days(read_json(kept)) == 10
    assert not retrained(tmp_path, period=3, every=None) and read_json(kept)["until"] is None
    assert not retrained(tmp_path, period=3, every=30) and read_json(kept) == first
    write_json(kept, first | {"until": "2020-01-01T00:00:00+00:00"})
    assert period(kept) == 4
    assert retrained(tmp_path, period=4, every=30) and period(kept) == 4, "once"
    write_json(kept, read_json(kept) | {"until": "2020-01-01T00:00:00+00:00"})
    labels(tmp_path, base(50))
    assert retrained(tmp_path, period=4, every=30) and period(kept) == 4, (
        "labels changed: the days are counted from the change"
    )


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_the_share_is_that_of_labels_that_are_not_the_same(data: st.DataObject) -> None:
    keys = data.draw(st.sampled_from([st.integers(-5, 15), st.text("ab", max_size=3)]))
    label = st.tuples(st.sampled_from(SIDES), st.sampled_from([0.1, 0.2, 3.0]))
    before, now = (data.draw(st.dictionaries(keys, label, max_size=12)) for _ in range(2))
    kind = pa.string() if any(isinstance(key, str) for key in (*before, *now)) else pa.int64()
    tables = [
        pa.table(
            {
                "object_id": pa.array(list(those), kind),
                "split": pa.array([side for side, _ in those.values()], pa.string()),
                "redshift": pa.array([z for _, z in those.values()], pa.float64()),
            }
        )
        for those in (before, now)
    ]
    different = sum(before.get(key) != now.get(key) for key in before | now)
    assert changed(*tables) == pytest.approx(different / max(len(before), 1))


def test_identifiers_of_another_type_are_other_labels() -> None:
    numbers = pa.table({"object_id": [1, 2], "split": ["train"] * 2, "redshift": [0.1, 0.2]})
    names = numbers.set_column(0, "object_id", pa.array(["1", "2"]))
    assert changed(numbers, numbers) == 0
    assert changed(numbers, names) == 2


def test_the_order_of_labels_is_nothing_new(tmp_path: Path) -> None:
    hashes = []
    for name, rows in (("one", base()), ("other", base()[::-1]), ("third", base()[1:])):
        (tmp_path / name).mkdir()
        labels(tmp_path / name, rows)
        retrained(tmp_path / name)
        hashes.append(read_json(tmp_path / name / "training.json")["hash"])
    assert hashes[0] == hashes[1] != hashes[2]
