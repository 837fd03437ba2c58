"""The flagship for images: stamps and photometry together, and each where the other says little."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from models import contract
from models.toy_images import without
from models.toy_images_photometry import CONTEXT, GRID, labelled
from zmill.inputs.base import Joint
from zmill.models.image_resnet import ImageResNet, ImageResNetSettings
from zmill.networks.losses import mean_crps

QUICK = ImageResNet.quick


@pytest.fixture(scope="module")
def model() -> ImageResNet:
    found, _ = contract.fitted("image_resnet", QUICK, labelled(1500, 1), labelled(300, 2))
    assert isinstance(found, ImageResNet)
    return found


def changed(batch: Joint, **kinds: object) -> Joint:
    return Joint({**batch.kinds, **kinds})  # type: ignore[dict-item]


def test_both_inputs_count(model: ImageResNet) -> None:
    """Rows without a stamp, or without photometry, have wider densities that are still centered on the redshift."""
    test = labelled(500, 3)
    z = torch.as_tensor(test.z, dtype=torch.float32)
    photometry = test.batch.kinds["photometry"]
    nothing = replace(photometry, mag=np.full_like(photometry.mag, np.nan), unobserved=np.full(500, 7, np.int32))
    both = model.predict(test.batch)
    no_stamp = model.predict(changed(test.batch, image=without(test.batch.kinds["image"])))
    no_photometry = model.predict(changed(test.batch, photometry=nothing))
    torch.testing.assert_close(GRID.integral(both), torch.ones(500), rtol=1e-3, atol=1e-3)
    crps = [mean_crps(density, z, GRID) for density in (both, no_stamp, no_photometry)]
    assert crps[0] < min(crps[1:])
    assert max(crps) < 0.04  # 0.056 with the n(z) alone


def test_it_is_saved_and_repeatable(tmp_path: Path) -> None:
    contract.is_saved_and_repeatable("image_resnet", {**QUICK, "epochs": 2}, tmp_path)


def test_the_student_reproduces_its_teachers() -> None:
    settings = {**QUICK, "distill": True, "members": 2, "distilled": {"width": 8, "blocks": 0, "epochs": 8, "ema": 0.9, "batch": 64}}  # fmt: skip
    found, facts = contract.fitted("image_resnet", settings, labelled(800, 1), labelled(200, 2))
    assert facts["distilled"]["best_score"] < 1.3 * facts["distilled"]["teachers_score"]
    again = ImageResNet(found.settings, CONTEXT)
    again.restore(*found.state())
    batch = labelled(20, 4).batch
    assert torch.equal(again.predict(batch), found.predict(batch))
    assert not any(name.startswith("network") for name in found.state()[0]), "only the student is saved"


def test_a_refit_learns() -> None:
    contract.refit_learns("image_resnet", QUICK)


def test_turned_stamps_give_nearly_the_same_density(model: ImageResNet) -> None:
    batch = labelled(100, 5).batch
    image = batch.kinds["image"]
    turned = image.with_pixels(np.ascontiguousarray(np.rot90(image.flux, 1, (2, 3))), image.ivar)
    model.settings = model.settings.model_copy(update={"rotations": 8})
    one, other = model.predict(batch), model.predict(changed(batch, image=turned))
    model.settings = model.settings.model_copy(update={"rotations": 1})
    torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)


def test_a_shift_that_is_too_large_is_refused() -> None:
    inputs = {kind.name: kind for kind in CONTEXT.inputs}
    assert ImageResNet.unsuitable(ImageResNetSettings.model_validate({}), inputs) == ""
    assert "eighth" in ImageResNet.unsuitable(ImageResNetSettings.model_validate({"shift": 3}), inputs)
