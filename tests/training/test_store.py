"""A trained model goes to disk and back; a folder that does not fit is refused with its reason."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from models.toy_survey import CONTEXT, labelled
from zmill.catalog.files import file_hash, read_json, write_json
from zmill.inputs.photometry.kind import PhotometryKind
from zmill.models import registry
from zmill.training import store
from zmill.training.trained import ModelError, TrainedModel, fit_and_calibrate

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def trained() -> TrainedModel:
    settings = registry.model_class("trainz").Settings()
    train, valid, calib = labelled(600, 1), labelled(200, 2), labelled(300, 3)
    return fit_and_calibrate("floor", "trainz", settings, CONTEXT, train, valid, calib, CPU, lambda line: None)


def test_a_loaded_model_predicts_the_same(tmp_path: Path, trained: TrainedModel) -> None:
    store.save(tmp_path / "floor", trained)
    loaded = store.load(tmp_path / "floor", survey=CONTEXT.inputs)
    batch = labelled(50, 4).batch
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
    with pytest.raises(ModelError, match="trained on the bands g, r, i, but the photometry has u, g, r"):
        store.load(tmp_path, survey=[PhotometryKind(("u", "g", "r"), 1)])


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [("format", 0, "reads format"), ("settings", {"colour": 1}, "settings do not fit"), ("type", "trainy", "trainz")],
)
def test_what_another_version_wrote_is_refused(
    tmp_path: Path, trained: TrainedModel, key: str, value: object, message: str
) -> None:
    store.save(tmp_path, trained)
    path = tmp_path / "model.json"
    write_json(path, read_json(path) | {key: value})
    with pytest.raises(Exception, match=message):
        store.load(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda one: one[:-1], r"shape"),
        (lambda one: one.double(), r"float64"),
        (lambda one: torch.full_like(one, torch.nan), r"'finite': False"),
        (None, "missing"),
    ],
)
def test_tensors_that_are_not_as_described_are_refused(
    tmp_path: Path, trained: TrainedModel, change: Callable[[torch.Tensor], torch.Tensor] | None, message: str
) -> None:
    """A folder put together by hand, with the right hash of the wrong tensors."""
    store.save(tmp_path, trained)
    tensors = load_file(tmp_path / "tensors.safetensors")
    name = next(key for key, value in sorted(tensors.items()) if value.dtype == torch.float32 and value.ndim)
    if change is None:
        del tensors[name]
    else:
        tensors[name] = change(tensors[name]).contiguous()
    save_file(tensors, tmp_path / "tensors.safetensors")
    told = read_json(tmp_path / "model.json") | {"tensors_hash": file_hash(tmp_path / "tensors.safetensors")}
    write_json(tmp_path / "model.json", told)
    with pytest.raises(ModelError, match=rf"tensor {name} .*{message}"):
        store.load(tmp_path)


@pytest.mark.parametrize("key", ["calibration", "detector"])
def test_a_description_that_makes_no_model_is_refused(tmp_path: Path, trained: TrainedModel, key: str) -> None:
    store.save(tmp_path, trained)
    write_json(tmp_path / "model.json", read_json(tmp_path / "model.json") | {key: {"strange": 1}})
    with pytest.raises(ModelError, match="train it again"):
        store.load(tmp_path)
