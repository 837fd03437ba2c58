"""A trained model as a folder: `tensors.safetensors`, and `model.json`, which is written last. No pickle.

A training that may be killed is one file, `Checkpoint`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
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
from zmill.inputs.base import Context, Labelled
from zmill.models.registry import model_class
from zmill.networks.callbacks import State, Watch
from zmill.pdf.calibration import Calibration
from zmill.pdf.conformal import Conformal
from zmill.training.out_of_distribution import Domain
from zmill.training.prior import Prior
from zmill.training.trained import ModelError, TrainedModel

FORMAT = 3
"""Raised when a folder written before can no longer be read."""
TENSORS, DESCRIPTION = "tensors.safetensors", "model.json"
CHECKPOINT_FORMAT = 1
"""Raised when a checkpoint written before can no longer be gone on from."""
ABOUT = "zmill"
"""Where a checkpoint's JSON is in the metadata of its file."""


def save(folder: Path, trained: TrainedModel) -> None:
    """Write a trained model; a folder that has a `model.json` is whole."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / DESCRIPTION).unlink(missing_ok=True)
    tensors, facts = trained.model.state()
    domain_tensors, domain_facts = trained.domain.state()
    named = {f"model.{key}": value for key, value in tensors.items()}
    prior_tensors, prior_facts = trained.prior.state()
    named |= {f"domain.{key}": value for key, value in domain_tensors.items()}
    named |= {f"prior.{key}": value for key, value in prior_tensors.items()}
    stored = {key: _storable(value) for key, value in named.items()}
    with atomic_write(folder / TENSORS, check=False) as temporary:
        temporary.write_bytes(serialized(stored))
    context = trained.context
    description = {
        "format": FORMAT,
        "name": trained.name,
        "type": trained.type,
        "kind": trained.model.kind,
        "bands": list(context.bands),
        "extra_names": list(context.extra_names),
        "reference": context.bands[context.reference],
        "grid": asdict(context.grid),
        "filters": context.filters,
        "seed": context.seed,
        "settings": trained.model.settings.model_dump(mode="json"),
        "state": facts,
        "calibration": {**trained.calibration.state(), "conformal": trained.conformal.state()},
        "domain": domain_facts,
        "prior": prior_facts,
        "facts": trained.facts,
        "versions": {"zmill": zmill.__version__, "torch": torch.__version__},
        "tensors": {key: _shape(value) for key, value in stored.items()},
        "tensors_hash": file_hash(folder / TENSORS),
    }
    write_json(folder / DESCRIPTION, description)


def load(folder: Path, device: torch.device | None = None, bands: tuple[str, ...] | None = None) -> TrainedModel:
    """Read a trained model onto a device (the CPU by default).

    bands : the bands of the photometry it is to be applied to; checked where given.

    Raises
    ------
    ModelError
        If the folder is not whole, was changed, was written in another format, or was trained on other bands; or if its
        tensors are not those of its description or do not fit the model type.
    """
    description = describe(folder)
    if bands is not None and tuple(description["bands"]) != bands:
        raise ModelError(
            f"{folder}: trained on the bands {', '.join(description['bands'])}, asked to predict from "
            f"{', '.join(bands)}: train it again on this survey"
        )
    tensors = _tensors(folder, description["tensors"])
    cls = model_class(description["type"])
    try:
        settings = cls.Settings.model_validate(description["settings"])
    except ValidationError as error:
        raise ModelError(
            f"{folder}: its settings do not fit the model type {description['type']} of zmill {zmill.__version__} "
            f"(written by {description['versions']['zmill']}): train it again. {error}"
        ) from None
    keys = ("bands", "reference", "grid", "seed", "extra_names", "filters")
    context = Context.named(**{key: description[key] for key in keys})
    model = cls(settings, context)
    try:
        model.restore(_part(tensors, "model."), description["state"])
        domain = Domain.restore(_part(tensors, "domain."), description["domain"])
        prior = Prior.restore(_part(tensors, "prior."), description["prior"])
        calibration = Calibration.restore(description["calibration"])
        intervals = Conformal.restore(description["calibration"]["conformal"])
    except (KeyError, IndexError, TypeError, ValueError, RuntimeError) as error:
        raise ModelError(
            f"{folder}: what is in it does not make a model of type {description['type']} ({type(error).__name__}: {error}): "
            "train it again"
        ) from error
    trained = TrainedModel(
        description["name"], description["type"], model, calibration, intervals, domain, prior, description["facts"]
    )
    return trained.to(device or torch.device("cpu"))


def describe(folder: Path) -> dict[str, Any]:
    """The checked `model.json` of a folder, without its tensors in memory.

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


class Checkpoint(Watch):
    """A training on disk, for a job to go on from where a killed one stopped: one safetensors file, replaced whole.

    Used as a context: the file is removed when the block ends well, that is, once the model is saved.

    Parameters
    ----------
    path : the file; it must be no output of the job, or Snakemake removes it with what a killed job left.
    identity : of what is trained (`identity`); what is on disk of anything else is not used.
    say : takes a line for the log.
    every : seconds between two writings, at least.
    """

    def __init__(self, path: Path, identity: str, say: Callable[[str], None], every: float = 60.0) -> None:
        self.path, self.identity, self.say, self.every = path, identity, say, every
        self._phases: dict[str, State] = {}
        self._started = self._written = time.monotonic()
        if path.is_file():
            self._read()

    def keep(self, phase: str, state: Callable[[], State], ended: bool = False) -> None:
        due = time.monotonic() - self._written >= self.every
        if not due and not ended:
            return
        tensors, facts = state()
        self._phases[phase] = {name: _storable(value) for name, value in tensors.items()}, facts
        if due:
            self._write()

    def kept(self, phase: str) -> State | None:
        return self._phases.get(phase)

    def remove(self) -> None:
        """Leave nothing behind, neither of this job nor of killed ones."""
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
                    self.say(f"{self.path}: left by a training with other settings, rows or version: starting afresh")
                    return
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except SafetensorError as error:
            self.say(f"{self.path}: cannot be read ({error}): starting afresh")
            return
        self._phases = {phase: (_part(tensors, f"{phase}/"), facts) for phase, facts in about["phases"].items()}
        self.earlier_seconds = about["seconds"]


def identity(type_: str, settings: BaseModel, context: Context, rows: Iterable[Labelled], device: torch.device) -> str:
    """Hash of all that a training depends on: settings, seed, bands, grid, every row, the versions, the kind of device."""
    about = {
        "type": type_,
        "settings": settings.model_dump(mode="json"),
        "context": asdict(context),
        "rows": [part.content_hash for part in rows],
        "device": device.type,
        "versions": [zmill.__version__, torch.__version__],
    }
    return xxhash.xxh3_128_hexdigest(json.dumps(about, sort_keys=True).encode())


def _shape(tensor: Tensor) -> dict[str, Any]:
    """What `model.json` says of a tensor."""
    finite = bool(torch.isfinite(tensor).all()) if tensor.is_floating_point() else True
    return {"dtype": str(tensor.dtype).removeprefix("torch."), "shape": list(tensor.shape), "finite": finite}


def _tensors(folder: Path, told: dict[str, Any]) -> dict[str, Tensor]:
    """The tensors of a folder, each of the type and shape that `model.json` says, and finite where it says so."""
    try:
        tensors = load_file(folder / TENSORS)
    except SafetensorError as error:
        raise ModelError(f"{folder / TENSORS}: cannot be read ({error}): train the model again") from None
    found = {name: _shape(tensor) for name, tensor in tensors.items()}
    for name in sorted(found.keys() | told.keys()):
        if found.get(name) != told.get(name):
            raise ModelError(
                f"{folder / TENSORS}: tensor {name} is {found.get(name, 'missing')}, {DESCRIPTION} says "
                f"{told.get(name, 'nothing of it')}: train the model again or copy it again"
            )
    return tensors


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def _storable(tensor: Tensor) -> Tensor:
    """A contiguous copy on the CPU that shares memory with no other tensor."""
    return tensor.detach().cpu().clone(memory_format=torch.contiguous_format)


def model_hash(folder: Path) -> str:
    """Hash of all that a model's densities depend on, and of nothing else: training it again the same way keeps it."""
    deciding = {key: value for key, value in describe(folder).items() if key not in ("facts", "versions", "filters")}
    return xxhash.xxh3_128_hexdigest(json.dumps(deciding, sort_keys=True).encode())
