"""Evaluation: one prediction per labelled row, every metric of every split, JSON without NaN."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from models import toy_survey
from models.toy_survey import BANDS, CONTEXT, GRID, labelled
from zmill import metrics
from zmill.inputs.degradation import AS_OBSERVED
from zmill.inputs.photometry.missing_bands import BandRemoval
from zmill.models import registry
from zmill.pdf import conformal, points
from zmill.training import evaluate
from zmill.training.samples import Sample
from zmill.training.trained import TrainedModel, fit_and_calibrate

REMOVAL = BandRemoval.of(labelled(50, 1).batch, None)


def sample_table(*given: Any, **more: Any) -> Sample:
    """Rows of the toy survey as a model reads them."""
    return Sample.of(toy_survey.sample_table(*given, **more), CONTEXT)


@pytest.fixture(scope="module")
def trained() -> TrainedModel:
    settings = registry.model_class("trainz").Settings()
    rows = labelled(2000, 1), labelled(100, 2), labelled(500, 3)
    return fit_and_calibrate("floor", "trainz", settings, CONTEXT, *rows, torch.device("cpu"), lambda line: None)


@pytest.fixture(scope="module")
def evaluation(trained: TrainedModel) -> tuple[pa.Table, dict, dict[str, Sample]]:
    samples = {"valid": sample_table(300, 5), "calib": sample_table(200, 6), "test": sample_table(400, 7)}
    return *evaluate.evaluate(trained, trained, samples, 1, 1, REMOVAL), samples


def test_every_labelled_row_is_predicted_in_its_order(evaluation: tuple) -> None:
    predictions, _, samples = evaluation
    for split, sample in samples.items():
        mine = predictions.filter(pa.compute.equal(predictions.column("split"), split))
        assert mine.column("object_id").equals(sample.labels.column("object_id"))
        assert mine.column("redshift").equals(sample.labels.column("redshift"))
    assert set(points.COLUMNS) | set(conformal.COLUMNS) | {"pit", "ood", "brightness", "block"} <= set(
        predictions.schema.names
    )
    assert predictions.schema.field("z_mode").type == pa.float32()
    assert predictions.schema.field("ood").type == pa.bool_()


def test_the_metrics_are_those_of_the_predictions(evaluation: tuple) -> None:
    predictions, found, _ = evaluation
    test = predictions.filter(pa.compute.equal(predictions.column("split"), "test"))
    z = test.column("redshift").to_numpy()
    median = metrics.point_metrics(test.column("z_median").to_numpy(), z)
    mean = metrics.point_metrics(test.column("z_mean").to_numpy(), z)
    board = found["splits"]["test"]["board"]
    assert set(board) == set(metrics.ALL)
    assert board["sigma_nmad"] == pytest.approx(median["sigma_nmad"])
    assert board["rms"] == pytest.approx(mean["rms"])
    assert board["crps"] == pytest.approx(test.column("crps").to_numpy().mean())
    low, high = found["splits"]["test"]["intervals"]["metrics"]["crps"]
    assert low < board["crps"] < high
    assert found["splits"]["test"]["intervals"]["blocks"] <= 48


def test_intervals_hold_the_truth_as_often_as_they_state(evaluation: tuple, trained: TrainedModel) -> None:
    predictions, found, samples = evaluation
    for split, sample in samples.items():
        mine = predictions.filter(pa.compute.equal(predictions.column("split"), split))
        everything, *bins, far = found["splits"][split]["stated_coverage"]
        assert far["rows"] == "out of distribution" and far["n"] == pa.compute.sum(mine.column("ood")).as_py()
        assert everything["rows"] == "all" and everything["n"] == len(sample) == sum(bin_["n"] for bin_ in bins)
        assert bins[0]["low"] is None and bins[-2]["high"] is None
        assert [bin_["high"] for bin_ in bins[:-2]] == list(trained.conformal.edges)
        for coverage in conformal.COVERAGES:
            low, high = (mine.column(name).to_numpy() for name in conformal.ends(coverage))
            z = mine.column("redshift").to_numpy()
            measured = everything[f"{coverage:.0%}"]
            assert measured["found"] == pytest.approx(np.mean((low <= z) & (z <= high)), abs=0.006)
            assert measured["error"] == pytest.approx(np.sqrt(measured["found"] * (1 - measured["found"]) / len(z)))
            # 500 calibration rows in five bins, and 200 to 400 rows to measure on
            assert measured["found"] == pytest.approx(coverage, abs=0.08)


def test_parts_hold_every_row(evaluation: tuple) -> None:
    _, found, samples = evaluation
    for split, measured in found["splits"].items():
        n = len(samples[split])
        assert measured["n"] == n
        for bins in measured["binned"].values():
            assert sum(bin_["n"] for bin_ in bins) == n
            assert all((bin_["board"] is None) == (bin_["n"] == 0) for bin_ in bins)
        assert sum(pattern["n"] for pattern in measured["patterns"]) == n
        assert measured["patterns"][1]["imputed"] == [BANDS[0]]
        for bin_ in (bin_ for bins in measured["binned"].values() for bin_ in bins if bin_["n"] > 5):
            assert set(bin_["intervals"]) == {"bias", "sigma_mad", "eta_015", "crps"}
            assert 5 <= bin_["blocks"] <= min(48, bin_["n"])
            low, high = bin_["intervals"]["crps"]
            assert low <= high and low < 1.2 * bin_["board"]["crps"] and high > 0.8 * bin_["board"]["crps"]
        assert measured["ood"]["inside"]["n"] + measured["ood"]["outside"]["n"] == n
        stacked = np.array(measured["n_of_z"]["stacked"])
        assert np.trapezoid(stacked, GRID.z) == pytest.approx(1, abs=1e-3)


def test_bands_are_taken_away_from_the_rows_of_valid_and_test(trained: TrainedModel, evaluation: tuple) -> None:
    _, found, samples = evaluation
    assert "made" not in found["splits"]["calib"]
    for split in ("valid", "test"):
        measured = found["splits"][split]
        made = {entry["pattern"]: entry for entry in measured["made"]}
        assert made[AS_OBSERVED]["n"] == measured["n"] == len(samples[split])
        assert made[AS_OBSERVED]["board"] == pytest.approx(measured["board"])
        assert made[f"without {BANDS[1]}"]["board"] == pytest.approx(measured["board"])  # trainz knows no photometry
        assert made[f"{BANDS[0]} undetected"]["n"] == 0.9 * measured["n"]


def test_bands_are_taken_away_from_a_bounded_number_of_rows(
    trained: TrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate, "TEST_ROWS", 50)
    sample = sample_table(120, 12)
    one, other = (evaluate.missing_data_metrics(trained, sample, REMOVAL, 1) for _ in range(2))
    assert one == other
    assert max(entry["n"] for entry in one) == 50
    assert evaluate.missing_data_metrics(trained, sample, REMOVAL, 2) != one


def test_the_json_holds_no_nan(evaluation: tuple) -> None:
    text = json.dumps(evaluation[1], allow_nan=False)
    assert json.loads(text)["model"] == "floor"
    assert evaluate.jsonable({"a": np.nan, "b": [np.float32(1), -np.inf], "c": np.int64(3)}) == {
        "a": None,
        "b": [1.0, None],
        "c": 3,
    }


def test_the_same_rows_give_the_same_metrics(trained: TrainedModel, evaluation: tuple) -> None:
    _, found, samples = evaluation
    again = evaluate.evaluate(trained, trained, samples, 1, 1, REMOVAL)[1]
    assert again["splits"] == found["splits"]


def test_tables_without_positions_are_blocks_row_by_row(trained: TrainedModel) -> None:
    table, _, _ = evaluate.predict_sample(trained, sample_table(30, 8, positions=False), "test", 8)
    assert len(set(table.column("block").to_pylist())) == 30


def test_few_blocks_of_sky_give_no_intervals(trained: TrainedModel) -> None:
    table = toy_survey.sample_table(300, 5)
    sky = pa.array(np.sort(np.arange(300) % 3) << 58)
    table = table.set_column(table.schema.get_field_index("_healpix_29"), "_healpix_29", sky)
    sample = Sample.of(table, CONTEXT)
    found = evaluate.evaluate(trained, trained, {"valid": sample, "test": sample}, 1, 1, REMOVAL)[1]["splits"]["test"]
    assert found["intervals"]["blocks"] == 3
    assert found["intervals"]["metrics"]["crps"] == [None, None]
    for bin_ in found["binned"]["brightness"]:
        assert 1 <= bin_["blocks"] <= 3 and bin_["intervals"]["crps"] == [None, None]


def test_weights_give_metrics_of_their_own(trained: TrainedModel) -> None:
    weight = np.where(np.arange(200) < 100, 1.0, 3.0)
    samples = {split: sample_table(200, 9, weight=weight) for split in ("valid", "test")}
    found = evaluate.evaluate(trained, trained, samples, 4, 1, REMOVAL)[1]["splits"]["test"]
    assert found["weighted"]["effective_rows"] == pytest.approx(160)
    assert found["weighted"]["board"]["crps"] != found["board"]["crps"]
    intervals = found["weighted"]["intervals"]
    assert intervals["blocks"] == found["intervals"]["blocks"] and intervals["draws"] == found["intervals"]["draws"]
    low, high = intervals["metrics"]["crps"]
    assert low < found["weighted"]["board"]["crps"] < high
    assert intervals["metrics"]["crps"] != found["intervals"]["metrics"]["crps"]


def test_a_split_of_one_row(trained: TrainedModel) -> None:
    samples = {"valid": sample_table(40, 10), "test": sample_table(1, 11)}
    found = evaluate.evaluate(trained, trained, samples, 4, 1, REMOVAL)[1]["splits"]["test"]
    assert found["n"] == 1
    assert found["board"]["r2"] is None
