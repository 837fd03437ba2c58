"""A trained model goes to disk and back; a folder that does not fit is refused with its reason."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from toy_survey import BANDS, CONTEXT, labelled

from zmill.models import registry, store
from zmill.models.trained import ModelError, TrainedModel, fit_and_calibrate

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def trained() -> TrainedModel:
    settings = registry.model_class("trainz").Settings()
    train, valid, calib = labelled(600, 1), labelled(200, 2), labelled(300, 3)
    return fit_and_calibrate("floor", "trainz", settings, CONTEXT, train, valid, calib, CPU, lambda line: None)


def test_a_loaded_model_predicts_the_same(tmp_path: Path, trained: TrainedModel) -> None:
    store.save(tmp_path / "floor", trained)
    loaded = store.load(tmp_path / "floor", bands=BANDS)
    batch = labelled(50, 4).photometry
    assert torch.equal(loaded.predict(batch), trained.predict(batch))
    assert np.array_equal(loaded.ood(batch), trained.ood(batch))
    assert loaded.facts == trained.facts
    assert loaded.context == trained.context
    assert {p.name for p in (tmp_path / "floor").iterdir()} == {"model.json", "tensors.safetensors"}


def test_the_same_model_is_written_as_the_same_bytes(tmp_path: Path, trained: TrainedModel) -> None:
    for name in ("one", "two"):
        store.save(tmp_path / name, trained)
    for file in ("model.json", "tensors.safetensors"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_changed_tensors_are_refused(tmp_path: Path, trained: TrainedModel) -> None:
    store.save(tmp_path, trained)
    path = tmp_path / "tensors.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"hash .* was changed or copied in part"):
        store.load(tmp_path)


@pytest.mark.parametrize("missing", ["model.json", "tensors.safetensors"])
def test_an_unfinished_folder_is_refused(tmp_path: Path, trained: TrainedModel, missing: str) -> None:
    store.save(tmp_path, trained)
    (tmp_path / missing).unlink()
    with pytest.raises(ModelError, match=missing):
        store.load(tmp_path)


def test_other_bands_are_refused(tmp_path: Path, trained: TrainedModel) -> None:
    store.save(tmp_path, trained)
    with pytest.raises(ModelError, match="trained on the bands g, r, i, asked to predict from u, g, r"):
        store.load(tmp_path, bands=("u", "g", "r"))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [("format", 0, "reads format"), ("settings", {"colour": 1}, "settings do not fit"), ("type", "trainy", "trainz")],
)
def test_what_another_version_wrote_is_refused(
    tmp_path: Path, trained: TrainedModel, key: str, value: object, message: str
) -> None:
    store.save(tmp_path, trained)
    path = tmp_path / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(Exception, match=message):
        store.load(tmp_path)
