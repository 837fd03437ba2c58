"""What keeps a night from being published."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from release_sky import PHOTOZ, PLACE, SKY

from zmill.catalog import hats
from zmill.catalog.files import read_json, write_json
from zmill.config import Gates
from zmill.inputs.photometry.kind import PhotometryKind
from zmill.release import gates, store
from zmill.release.gates import distance, judge
from zmill.release.publish import publish
from zmill.release.store import ReleaseError

SETTINGS = {"seed": 1}
DIRECTION = {"crps": -1, "r2": 1, "bias": 0}
SURVEY = pa.schema([*PLACE, ("mag_i", pa.float32())])


def night(
    results: Path, rows: int = 400, shift: float = 0.0, z: float = 0.5, missing: float = 0.1, model: str = "m"
) -> None:
    """A survey and its photo-z in which something is other than the night before."""
    for partition in SKY:
        rng = np.random.default_rng(partition.pixel)
        place: dict[str, Any] = {
            "_healpix_29": np.sort(rng.integers(*partition.interval(), rows)),
            "object_id": np.arange(rows) + partition.pixel * 1000,
            **{"ra": rng.uniform(0, 360, rows), "dec": rng.uniform(-90, 90, rows)},
        }
        mag = (rng.normal(23, 1, rows) + shift).astype(np.float32)
        mag[: int(missing * rows)] = np.nan
        redshift = np.abs(rng.normal(z, 0.3, rows)).astype(np.float32)
        told = place | {"z_mode": redshift, "z_median": redshift, "flags": np.zeros(rows, np.int32)}
        for catalog, schema, columns in (("survey", SURVEY, place | {"mag_i": mag}), ("photoz", PHOTOZ, told)):
            with hats.write_partition(results / catalog, partition, schema, {"model": model}) as out:
                out.write(pa.table(columns, schema=schema))
    for catalog in ("survey", "photoz"):
        hats.finish(results / catalog, catalog, SKY)
    (results / "pdf" / "partition_info.csv").unlink(missing_ok=True)
    write_json(
        results / "champion.json", {"model": "knn", "hash": "ab12", "test": {"crps": 0.08, "r2": 0.7, "bias": -0.02}}
    )


def release(results: Path, settings: dict[str, Any] = SETTINGS, **limits: Any) -> dict[str, Any]:
    judge(results, Gates(**limits), [PhotometryKind(("i",), 0)], settings, DIRECTION)
    return publish(results, 5, {}, lambda line: None)


@pytest.mark.parametrize(
    ("change", "gate"),
    [
        ({"rows": 380}, "rows_lost: 0.05 is beyond its limit of 0.001"),
        ({"shift": 0.5}, r"magnitudes\.i: 0\.5\d* is beyond its limit of 0\.1"),
        ({"missing": 0.3}, r"measured\.i: 0\.2\d* is beyond"),
        ({"z": 0.8}, r"n_of_z: 0\.\d+ is beyond its limit of 0\.05"),
    ],
)
def test_drift_is_not_published_and_the_old_release_stays(results: Path, change: dict[str, Any], gate: str) -> None:
    night(results)
    first = release(results)
    night(results, **change)
    with pytest.raises(ReleaseError, match=f"not published: {gate}"):
        release(results)
    assert store.current(results) == first
    assert not read_json(results / "gates.json")["passed"]
    release(results, settings={"seed": 2})  # other settings


def test_another_model_may_move_the_redshifts_further_but_not_anywhere_and_not_the_magnitudes(results: Path) -> None:
    night(results)
    release(results)
    night(results, z=0.6)
    with pytest.raises(ReleaseError, match="not published: n_of_z:"):
        release(results)
    night(results, z=0.6, model="n")
    checks = {check["gate"]: check["found"] for check in release(results)["gates"]["checks"]}
    assert 0.05 < checks["n_of_z_new_model"] < 0.2 and "n_of_z" not in checks
    night(results, z=1.2, model="o")
    with pytest.raises(ReleaseError, match=r"not published: n_of_z_new_model: .* beyond its limit of 0\.2"):
        release(results)
    night(results, z=0.6, shift=0.5, model="o")
    with pytest.raises(ReleaseError, match="not published: magnitudes"):
        release(results)


def test_small_changes_are_published(results: Path) -> None:
    night(results)
    release(results)
    night(results, rows=402, shift=0.01, z=0.505)
    record = release(results)
    assert [check["gate"] for check in record["gates"]["checks"]] == [
        "rows_lost",
        "magnitudes.i",
        "measured.i",
        "n_of_z",
    ]


@pytest.mark.parametrize("metrics", [{"crps": 0.07}, {"r2": 0.8}, {"bias": 0.01}])
def test_a_metric_beyond_its_limit_is_not_published(results: Path, metrics: dict[str, float]) -> None:
    night(results)
    with pytest.raises(ReleaseError, match=rf"not published: metrics\.{next(iter(metrics))}"):
        release(results, metrics=metrics)
    assert store.current(results) is None
    release(results, metrics={"crps": 0.09, "r2": 0.6, "bias": 0.03})


def test_gates_that_an_earlier_version_did_not_measure_are_left_out_with_a_warning(
    results: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    night(results)
    first = release(results)
    del first["gates"]["measured"]["inputs"]
    monkeypatch.setattr(store, "current", lambda folder: first)
    with caplog.at_level("WARNING"):
        found = judge(results, Gates(), [PhotometryKind(("i",), 0)], SETTINGS, DIRECTION)
    assert {check["gate"] for check in found["checks"]} >= {"rows_lost", "n_of_z"}
    assert (
        f"(magnitudes, measured) are left out once: an earlier version of zmill made release {first['release']}"
        in caplog.text
    )


def test_distance_of_distributions() -> None:
    one = np.linspace(0, 1, 65)
    assert distance(one, one) == 0
    assert distance(one, one + 0.25) == pytest.approx(0.25, abs=0.01)
    assert distance(np.zeros(65), np.ones(65)) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("most", [2, 5, 256])
def test_a_large_survey_is_measured_by_row_groups_spread_over_its_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    """Nine of ten rows are in the first partition; no more files are opened than groups are wanted."""
    monkeypatch.setattr(gates, "MOST_GROUPS", most)
    monkeypatch.setattr(hats, "ROW_GROUP_ROWS", 100)
    for partition, rows in zip(SKY, (1800, 100, 100), strict=True):
        place = {"_healpix_29": np.sort(np.random.default_rng(1).integers(*partition.interval(), rows))}
        number = np.arange(rows) + 10_000 * SKY.index(partition)
        table = pa.table(place | {"number": number.astype(np.float32)})
        with hats.write_partition(tmp_path / "photoz", partition, table.schema) as out:
            out.write(table)
    hats.finish(tmp_path / "photoz", "photoz", SKY)
    found = gates._sampled(tmp_path / "photoz", ["number"])["number"].to_numpy()
    assert len(found) == min(most * 100, 2000) and len(set(found.tolist())) == len(found)
    assert np.mean(found < 10_000) == pytest.approx(0.9, abs=0.1)
