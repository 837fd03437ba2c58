"""A trained model as a folder: `tensors.safetensors`, and `model.json`, which is written last. No pickle."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import xxhash
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from torch import Tensor

import zmill
from zmill.catalog.files import file_hash, read_json, whole, write_json
from zmill.models.base import Context
from zmill.models.ood import Domain
from zmill.models.registry import model_class
from zmill.models.trained import ModelError, TrainedModel
from zmill.pdf.calibration import Calibration
from zmill.pdf.conformal import Conformal
from zmill.pdf.grid import Grid

FORMAT = 2
"""Raised when a folder written before can no longer be read."""
TENSORS, DESCRIPTION = "tensors.safetensors", "model.json"


def save(folder: Path, trained: TrainedModel) -> None:
    """Write a trained model; a folder that has a `model.json` is whole."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / DESCRIPTION).unlink(missing_ok=True)
    tensors, facts = trained.model.state()
    domain_tensors, domain_facts = trained.domain.state()
    named = {f"model.{key}": value for key, value in tensors.items()}
    named |= {f"domain.{key}": value for key, value in domain_tensors.items()}
    with whole(folder / TENSORS) as temporary:
        save_file({key: _storable(value) for key, value in named.items()}, temporary)
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
        "facts": trained.facts,
        "versions": {"zmill": zmill.__version__, "torch": torch.__version__},
        "tensors_hash": file_hash(folder / TENSORS),
    }
    write_json(folder / DESCRIPTION, description)


def load(folder: Path, device: torch.device | None = None, bands: tuple[str, ...] | None = None) -> TrainedModel:
    """Read a trained model onto a device (the CPU by default).

    bands : the bands of the photometry it is to be applied to; checked where given.

    Raises
    ------
    ModelError
        If the folder is not whole, was changed, was written in another format, or was trained on other bands.
    """
    description = describe(folder)
    if bands is not None and tuple(description["bands"]) != bands:
        raise ModelError(
            f"{folder}: trained on the bands {', '.join(description['bands'])}, asked to predict from "
            f"{', '.join(bands)}: train it again on this survey"
        )
    tensors = load_file(folder / TENSORS)
    cls = model_class(description["type"])
    try:
        settings = cls.Settings.model_validate(description["settings"])
    except ValidationError as error:
        raise ModelError(
            f"{folder}: its settings do not fit the model type {description['type']} of zmill {zmill.__version__} "
            f"(written by {description['versions']['zmill']}): train it again. {error}"
        ) from None
    context = Context(
        bands=tuple(description["bands"]),
        reference=description["bands"].index(description["reference"]),
        grid=Grid(**description["grid"]),
        seed=description["seed"],
        extra_names=tuple(description["extra_names"]),
        filters=description["filters"],
    )
    model = cls(settings, context)
    model.restore(_part(tensors, "model."), description["state"])
    domain = Domain.restore(_part(tensors, "domain."), description["domain"])
    calibration = Calibration.restore(description["calibration"])
    intervals = Conformal.restore(description["calibration"]["conformal"])
    trained = TrainedModel(
        description["name"], description["type"], model, calibration, intervals, domain, description["facts"]
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
    description: dict[str, Any] = read_json(folder / DESCRIPTION)
    if description.get("format") != FORMAT:
        raise ModelError(
            f"{folder}: model format {description.get('format')}, this zmill ({zmill.__version__}) reads format "
            f"{FORMAT}: train the model again"
        )
    if not (folder / TENSORS).is_file():
        raise ModelError(f"{folder}: {TENSORS} is missing: train the model again")
    found = file_hash(folder / TENSORS)
    if found != description["tensors_hash"]:
        raise ModelError(
            f"{folder}: {TENSORS} has the hash {found}, {DESCRIPTION} says {description['tensors_hash']}: "
            "the folder was changed or copied in part; train the model again or copy it again"
        )
    return description


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def _storable(tensor: Tensor) -> Tensor:
    """A contiguous copy on the CPU that shares memory with no other tensor."""
    return tensor.detach().cpu().clone(memory_format=torch.contiguous_format)


def model_hash(folder: Path) -> str:
    """Hash of all that a model's densities depend on, and of nothing else: training it again the same way keeps it."""
    deciding = {key: value for key, value in describe(folder).items() if key not in ("facts", "versions", "filters")}
    return xxhash.xxh3_128_hexdigest(json.dumps(deciding, sort_keys=True).encode())
