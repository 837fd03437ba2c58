"""The contract of a model, for the types that have no tests of their own: a new file in `zmill/models/` is found here by itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from models import contract
from zmill.models.registry import model_class, types

UNTESTED = [type_ for type_ in types() if not Path(__file__).with_name(f"test_{type_}.py").exists()]


@pytest.mark.parametrize("type_", UNTESTED)
def test_it_is_saved_and_repeatable(type_: str, tmp_path: Path) -> None:
    contract.is_saved_and_repeatable(type_, contract.QUICK[type_], tmp_path)


@pytest.mark.parametrize("type_", [type_ for type_ in UNTESTED if type_ in contract.PHOTOMETRIC])
def test_it_predicts_rows_with_missing_bands(type_: str) -> None:
    contract.predicts_rows_with_missing_bands(type_, contract.QUICK[type_])


@pytest.mark.parametrize("type_", [type_ for type_ in types() if model_class(type_).streams])
def test_it_learns_the_same_from_rows_on_disk(type_: str, tmp_path: Path) -> None:
    contract.streams(type_, contract.QUICK[type_], tmp_path)
