"""Several GPUs on one machine: jobs side by side take different ones. No GPU is needed for it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from zmill.networks import device

TAKE = """
import sys
from pathlib import Path
from zmill.networks.device import take
print(take(sys.argv[2:], Path(sys.argv[1])), flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def _free(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No GPU is kept beyond a test."""
    monkeypatch.setattr(device, "_held", held := [])
    yield
    for file in held:
        file.close()


def job(folder: Path, *names: str) -> tuple[subprocess.Popen[str], str]:
    """Another job that takes a GPU and keeps it, and which one."""
    library = str(Path(device.__file__).parents[2])
    process = subprocess.Popen(
        [sys.executable, "-c", TAKE, str(folder), *names],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": library},
    )
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


def test_jobs_side_by_side_take_different_gpus_and_a_killed_one_gives_its_own_back(tmp_path: Path) -> None:
    first, name = job(tmp_path, "0", "1")
    assert name == "0"
    assert device.take(["0", "1"], tmp_path) == "1"
    assert device.take(["0", "1"], tmp_path) in ("0", "1")  # none is free: shared
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert device.take(["0", "1"], tmp_path) == "0"


def test_no_lock_is_where_somebody_else_could_put_a_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device.tempfile, "gettempdir", lambda: str(tmp_path))
    own = tmp_path / f"zmill-{os.getuid()}"
    victim = tmp_path / "victim"
    victim.mkdir()
    own.symlink_to(victim)
    assert device.own_folder() is None
    assert device.take(["0", "1"], device.own_folder()) in ("0", "1")
    assert not list(victim.iterdir())
    own.unlink()
    assert device.own_folder() == own and device.own_folder() == own
    assert own.stat().st_mode & 0o777 == 0o700
    own.chmod(0o777)
    assert device.own_folder() is None


def test_of_several_visible_gpus_one_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a, GPU-b")
    folder = device.own_folder()
    assert folder is not None
    other, taken = job(folder, "GPU-a")
    for _ in range(2):
        device.choose()
        assert (taken, os.environ["CUDA_VISIBLE_DEVICES"]) == ("GPU-a", "GPU-b")
    other.communicate()


@pytest.mark.parametrize("given", ["0", "3", ""])
def test_the_schedulers_own_choice_is_kept(given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    device.choose()
    assert os.environ["CUDA_VISIBLE_DEVICES"] == given
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert device.choose() == torch.device("cpu")
    assert "CUDA_VISIBLE_DEVICES" not in os.environ


def test_a_training_has_the_same_number_of_threads_whatever_it_is_given() -> None:
    before = torch.get_num_threads()
    for given in (1, 3):
        torch.set_num_threads(given)
        try:
            with device.reproducible():
                assert torch.get_num_threads() == device.TRAINING_THREADS
                assert torch.are_deterministic_algorithms_enabled()
            assert torch.get_num_threads() == given
        finally:
            torch.set_num_threads(before)


@pytest.mark.parametrize("rule", ["train.smk", "tune.smk"])
def test_the_rules_ask_for_as_many_threads_as_a_training_takes(root: Path, rule: str) -> None:
    text = (root / "rules" / rule).read_text(encoding="utf-8")
    assert re.search(rf"^    threads: (.* else )?{device.TRAINING_THREADS}$", text, re.MULTILINE)
