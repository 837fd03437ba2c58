"""Private operators of torch are used only where they give what public functions give."""

from __future__ import annotations

import ast
import logging
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.nn import functional

from zmill.networks import onednn
from zmill.networks.device import multiplies_int8

PRIVATE = {
    onednn.fuses_relu: "torch.ops.mkldnn",
    onednn.multiplies_integers: "torch.ops.onednn",
}


@pytest.fixture(autouse=True)
def _checked_again() -> Iterator[None]:
    for check in PRIVATE:
        check.cache_clear()
    yield
    for check in PRIVATE:
        check.cache_clear()


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch without oneDNN")
def test_the_installed_torch_has_what_is_used(caplog: pytest.LogCaptureFixture) -> None:
    assert onednn.fuses_relu()
    assert not multiplies_int8(torch.device("cpu")) or onednn.multiplies_integers()
    assert not caplog.records or not multiplies_int8(torch.device("cpu"))


def wrong(*_: Any, **__: Any) -> torch.Tensor:
    return torch.full((8, 16), 7.0)


def changed() -> None:
    """Takes no arguments."""


class Gone:
    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"no operator {name}")


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch without oneDNN")
@pytest.mark.parametrize(
    ("instead", "cause"),
    [
        (Gone(), "no operator"),
        (SimpleNamespace(_linear_pointwise=changed, qlinear_prepack=changed), "positional argument"),
        (SimpleNamespace(_linear_pointwise=wrong), "results differ by"),
    ],
    ids=["absent", "other arguments", "other results"],
)
@pytest.mark.parametrize("check", PRIVATE, ids=lambda check: check.__name__)
def test_an_operator_that_is_absent_or_changed_is_not_used_and_a_warning_says_so(
    check: Any, instead: Any, cause: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if cause == "results differ by" and check is onednn.multiplies_integers:
        monkeypatch.setattr(onednn.QuantizedLayer, "__call__", wrong)
    else:
        monkeypatch.setattr(PRIVATE[check], instead)
    with caplog.at_level(logging.WARNING):
        assert not check() and not check()
    (record,) = caplog.records
    assert cause in record.getMessage() and torch.__version__ in record.getMessage()


def test_without_the_operator_the_layer_is_computed_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.ops.mkldnn", Gone())
    x, weight, bias = torch.randn(5, 3), torch.randn(4, 3), torch.randn(4)
    assert torch.equal(onednn.linear_relu(x, weight, bias), functional.linear(x, weight, bias).relu())


def test_no_other_file_uses_private_operators(root: Path) -> None:
    for file in (root / "workflow_scripts").rglob("*.py"):
        used = {
            ast.unparse(node)
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
            if isinstance(node, ast.Attribute) and ast.unparse(node) == "torch.ops"
        }
        assert not used or file.name == "onednn.py", file
