"""Compiled passes refuse arrays that are not what they were compiled for, and a loop of no turns does nothing."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest

from zmill.kernels.simd import LANES, Code, Compiled, Value


def doubling() -> Compiled:
    code = Code({"given": (np.float32, ("rows", 2)), "twice": (np.float32, ("rows", 2))}, ("rows",))
    code.loop(0, code.rows, LANES // 2, lambda row: _double(code, row))
    return code.compiled()


def _double(code: Code, row: Value) -> tuple[()]:
    code.store(code.load(code.given, row * 2) * 2, code.twice, row * 2)
    return ()


def test_arrays_are_checked_before_anything_is_written() -> None:
    run, given = doubling(), np.arange(32, dtype=np.float32).reshape(16, 2)
    twice = np.zeros((16, 2), np.float32)
    run(given, twice, 16)
    np.testing.assert_array_equal(twice, 2 * given)
    for wrong in (twice[:15], twice.astype(np.float64), np.zeros((2, 16), np.float32).T, twice[:, :1]):
        with pytest.raises(ValueError, match=r"twice: found .* expected float32 in one piece of 32 elements"):
            run(given, wrong, 16)


def test_a_loop_of_no_turns_does_nothing() -> None:
    run = doubling()
    untouched = np.full((16, 2), 7, np.float32)
    run(untouched, untouched, 0)
    assert (untouched == 7).all()


def test_what_a_loop_of_no_turns_carries_is_what_it_was_given() -> None:
    code = Code({"out": (np.float32, (LANES,))}, ("turns",))
    (total,) = code.loop(0, code.turns, 1, lambda _, so_far: (so_far + 1,), code.constant(5))
    code.store(total, code.out, 0)
    run, out = code.compiled(), np.zeros(LANES, np.float32)
    for turns in (0, 1, 3):
        run(out, turns)
        assert (out == 5 + turns).all()


def test_only_kernels_are_compiled(root: Path) -> None:
    library = root / "workflow_scripts" / "zmill"
    for file in (root / "workflow_scripts").rglob("*.py"):
        if file.parent != library / "kernels":
            text = file.read_text(encoding="utf-8")
            assert "kernels.simd" not in text and "llvmlite" not in text, file


def test_every_pass_says_the_shapes_of_its_arrays(root: Path) -> None:
    """`Code` is given a dictionary everywhere: no pass takes arrays unchecked."""
    for file in (root / "workflow_scripts").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Code":
                assert len(node.args) == 2 and not isinstance(node.args[0], ast.Tuple | ast.List), file
