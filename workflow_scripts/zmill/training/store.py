"""Storage of trained models: a folder with `tensors.safetensors` and, written last, `model.json`. No pickle.

A checkpoint of a training is one file, `Checkpoint`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

import torch
import xxhash
from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from safetensors.torch import save as serialized  # its `save_file` leaves temporary files where it is killed
from torch import Tensor

import zmill
from zmill.catalog.files import MEND, Damaged, atomic_write, file_hash, read_json, write_json
from zmill.inputs.base import InputKind, LabelledBatch, ModelContext
from zmill.inputs.registry import from_json, kind
from zmill.models.registry import model_class
from zmill.networks.callbacks import Callback, State
from zmill.pdf.calibration import Calibration
from zmill.pdf.conformal import Conformal
from zmill.pdf.grid import Grid
from zmill.pdf.odds import Odds
from zmill.training.out_of_distribution import Detector
from zmill.training.prior import Prior
from zmill.training.trained import ModelError, TrainedModel

FORMAT = 6
"""Version of the format of a model folder; increased when older folders can no longer be read."""
TENSORS, DESCRIPTION = "tensors.safetensors", "model.json"
CHECKPOINT_FORMAT = 1
"""Version of the format of a checkpoint; increased when older checkpoints can no longer be resumed."""
ABOUT = "zmill"
"""Key of the JSON of a checkpoint in the metadata of its file."""


def save(folder: Path, trained: TrainedModel) -> None:
    """Write a trained model; a folder with a `model.json` is complete."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / DESCRIPTION).unlink(missing_ok=True)
    tensors, facts = trained.model.state()
    detector_tensors, detector_facts = trained.detector.state()
    named = {f"model.{key}": value for key, value in tensors.items()}
    prior_tensors, prior_facts = trained.prior.state()
    named |= {f"detector.{key}": value for key, value in detector_tensors.items()}
    named |= {f"prior.{key}": value for key, value in prior_tensors.items()}
    stored = {key: _storable(value) for key, value in named.items()}
    with atomic_write(folder / TENSORS, check=False) as temporary:
        temporary.write_bytes(serialized(stored))
    context = trained.context
    description = {
        "format": FORMAT,
        "name": trained.name,
        "type": trained.type,
        "inputs": {kind.name: kind.to_json() for kind in context.inputs},
        "grid": asdict(context.grid),
        "seed": context.seed,
        "settings": trained.model.settings.model_dump(mode="json"),
        "state": facts,
        "calibration": {**trained.calibration.state(), "conformal": trained.conformal.state()},
        "odds": trained.odds.state(),
        "detector": detector_facts,
        "prior": prior_facts,
        "facts": trained.facts,
        "versions": {"zmill": zmill.__version__, "torch": torch.__version__},
        "tensors": {key: _shape(value) for key, value in stored.items()},
        "tensors_hash": file_hash(folder / TENSORS),
    }
    write_json(folder / DESCRIPTION, description)


def load(folder: Path, device: torch.device | None = None, survey: Sequence[InputKind] | None = None) -> TrainedModel:
    """Read a trained model onto a device (the CPU by default).

    survey : the input kinds of the survey that the model is applied to; compared with those of the model if given.

    Raises
    ------
    ModelError
        If the folder is incomplete or was changed, has another format, or its model was trained on other inputs; or if its
        tensors do not match its description or the model type.
    """
    description = describe(folder)
    try:
        inputs = from_json(description["inputs"])
    except (KeyError, TypeError, ValueError, ModuleNotFoundError) as error:
        raise ModelError(
            f"{folder}: its inputs cannot be read ({type(error).__name__}: {error}): train it again"
        ) from error
    if survey is not None:
        _check_inputs(folder, inputs, survey)
    tensors = _tensors(folder, description["tensors"])
    cls = model_class(description["type"])
    try:
        settings = cls.Settings.model_validate(description["settings"])
    except ValidationError as error:
        raise ModelError(
            f"{folder}: its settings do not fit the model type {description['type']} of zmill {zmill.__version__} "
            f"(written by {description['versions']['zmill']}): train it again. {error}"
        ) from None
    context = ModelContext(inputs, Grid(**description["grid"]), description["seed"])
    model = cls(settings, context)
    try:
        model.restore(_part(tensors, "model."), description["state"])
        detector = Detector.restore(_part(tensors, "detector."), description["detector"])
        prior = Prior.restore(_part(tensors, "prior."), description["prior"])
        calibration = Calibration.restore(description["calibration"])
        intervals = Conformal.restore(description["calibration"]["conformal"])
        odds = Odds.restore(description["odds"])
    except (KeyError, IndexError, TypeError, ValueError, RuntimeError) as error:
        raise ModelError(
            f"{folder}: its content does not make a model of type {description['type']} ({type(error).__name__}: {error}): "
            "train it again"
        ) from error
    trained = TrainedModel(
        description["name"],
        description["type"],
        model,
        calibration,
        intervals,
        odds,
        detector,
        prior,
        description["facts"],
    )
    return trained.to(device or torch.device("cpu"))


def _check_inputs(folder: Path, inputs: Sequence[InputKind], survey: Sequence[InputKind]) -> None:
    """Refuse a model whose inputs the survey does not have, or has otherwise."""
    there = {found.name: found for found in survey}
    for found in inputs:
        if found.name not in there:
            raise ModelError(
                f"{folder}: trained on {found.name}, which the survey does not have: train the model on this survey"
            )
        if differs := found.differs(there[found.name]):
            raise ModelError(f"{folder}: {differs}: train the model on this survey")


def describe(folder: Path) -> dict[str, Any]:
    """Read and check the `model.json` of a folder, without loading its tensors.

    Raises
    ------
    ModelError
        As for `load`.
    """
    if not (folder / DESCRIPTION).is_file():
        raise ModelError(f"{folder}: no {DESCRIPTION}: the training did not finish; train the model again")
    try:
        description: dict[str, Any] = read_json(folder / DESCRIPTION)
    except Damaged as error:
        raise ModelError(str(error)) from None
    if not isinstance(description, dict):
        raise ModelError(f"{folder / DESCRIPTION}: describes no model: train the model again")
    if description.get("format") != FORMAT:
        raise ModelError(
            f"{folder}: model format {description.get('format')}, this zmill ({zmill.__version__}) reads format "
            f"{FORMAT}: train the model again"
        )
    if not (folder / TENSORS).is_file():
        raise ModelError(f"{folder}: {TENSORS} is missing: {MEND}, or copy the model again")
    found = file_hash(folder / TENSORS)
    if found != description["tensors_hash"]:
        raise ModelError(
            f"{folder}: {TENSORS} has the hash {found}, {DESCRIPTION} says {description['tensors_hash']}: "
            f"the folder was changed or copied in part: {MEND}, or copy it again"
        )
    return description


class Checkpoint(Callback):
    """The checkpoint of a training, from which a job resumes a killed one: a safetensors file, written atomically.

    As a context manager, it removes the file when the block ends without an exception, that is, once the model is saved.

    Parameters
    ----------
    path : the file; it must not be an output of the job, because Snakemake removes the outputs of a killed job.
    identity : hash of the training (`identity`); a file with another hash is not used.
    log : function that logs a line.
    every : least time in seconds between two writes.
    """

    def __init__(self, path: Path, identity: str, log: Callable[[str], None], every: float = 60.0) -> None:
        self.path, self.identity, self.log, self.every = path, identity, log, every
        self._phases: dict[str, State] = {}
        self._started = self._written = time.monotonic()
        if path.is_file():
            self._read()

    def save(self, phase: str, state: Callable[[], State], ended: bool = False) -> None:
        overdue = time.monotonic() - self._written >= self.every
        if not overdue and not ended:
            return
        tensors, facts = state()
        self._phases[phase] = {name: _storable(value) for name, value in tensors.items()}, facts
        if overdue:
            self._write()

    def saved(self, phase: str) -> State | None:
        return self._phases.get(phase)

    def remove(self) -> None:
        """Remove the file, and temporary files of killed jobs."""
        for path in (self.path, *self.path.parent.glob(f".{self.path.name}.*.tmp")):
            path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, failed: type[BaseException] | None, *_: object) -> None:
        if failed is None:
            self.remove()

    def _write(self) -> None:
        named = {
            f"{phase}/{name}": value for phase, (found, _) in self._phases.items() for name, value in found.items()
        }
        about = {
            "format": CHECKPOINT_FORMAT,
            "identity": self.identity,
            "seconds": self.earlier_seconds + time.monotonic() - self._started,
            "phases": {phase: facts for phase, (_, facts) in self._phases.items()},
        }
        with atomic_write(self.path, check=False) as temporary:
            temporary.write_bytes(serialized(named, {ABOUT: json.dumps(about)}))
        self._written = time.monotonic()

    def _read(self) -> None:
        try:
            with safe_open(self.path, "pt") as file:
                about = json.loads((file.metadata() or {}).get(ABOUT, "{}"))
                if (about.get("format"), about.get("identity")) != (CHECKPOINT_FORMAT, self.identity):
                    self.log(
                        f"{self.path}: left by a training with other settings, rows or version: starting from the beginning"
                    )
                    return
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except SafetensorError as error:
            self.log(f"{self.path}: cannot be read ({error}): starting from the beginning")
            return
        self._phases = {phase: (_part(tensors, f"{phase}/"), facts) for phase, facts in about["phases"].items()}
        self.earlier_seconds = about["seconds"]


def identity(
    type_: str, settings: BaseModel, context: ModelContext, rows: Iterable[LabelledBatch], device: torch.device
) -> str:
    """Hash of everything that a training depends on: settings, seed, inputs, grid, all rows, versions, kind of device."""
    about = {
        "type": type_,
        "settings": settings.model_dump(mode="json"),
        "context": context.to_json(),
        "rows": [part.content_hash for part in rows],
        "device": device.type,
        "versions": [zmill.__version__, torch.__version__],
    }
    return xxhash.xxh3_128_hexdigest(json.dumps(about, sort_keys=True).encode())


def _shape(tensor: Tensor) -> dict[str, Any]:
    """The entry of a tensor in `model.json`."""
    finite = bool(torch.isfinite(tensor).all()) if tensor.is_floating_point() else True
    return {"dtype": str(tensor.dtype).removeprefix("torch."), "shape": list(tensor.shape), "finite": finite}


def _tensors(folder: Path, expected: dict[str, Any]) -> dict[str, Tensor]:
    """The tensors of a folder, checked against type, shape and finiteness in `model.json`."""
    try:
        tensors = load_file(folder / TENSORS)
    except SafetensorError as error:
        raise ModelError(f"{folder / TENSORS}: cannot be read ({error}): train the model again") from None
    found = {name: _shape(tensor) for name, tensor in tensors.items()}
    for name in sorted(found.keys() | expected.keys()):
        if found.get(name) != expected.get(name):
            raise ModelError(
                f"{folder / TENSORS}: tensor {name} is {found.get(name, 'missing')}, {DESCRIPTION} has "
                f"{expected.get(name, 'no such tensor')}: train the model again or copy it again"
            )
    return tensors


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def _storable(tensor: Tensor) -> Tensor:
    """A contiguous copy on the CPU that shares memory with no other tensor."""
    return tensor.detach().cpu().clone(memory_format=torch.contiguous_format)


def model_hash(folder: Path) -> str:
    """Hash of everything that the densities of a model depend on, and of nothing else; retraining it unchanged keeps the hash."""
    relevant = {key: value for key, value in describe(folder).items() if key not in ("facts", "versions")}
    relevant["inputs"] = {
        name: {key: value for key, value in content.items() if key not in kind(name).training_only}
        for name, content in relevant["inputs"].items()
    }
    return xxhash.xxh3_128_hexdigest(json.dumps(relevant, sort_keys=True).encode())
