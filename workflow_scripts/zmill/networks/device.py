"""Which device a job computes on."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits
from torch import Tensor

from zmill.catalog.lock import Locked, hold
from zmill.workflow.gpus import VISIBLE

TRAINING_THREADS = 2
"""Threads of a training, whatever `--cores`: a model's bits depend on it. The rules `train_model` and `tune_trial` ask for as many."""

_held: list[IO[str]] = []
"""Locked files of the GPUs that this process has taken: they stay locked until it ends, however it ends."""


def choose() -> torch.device:
    """A GPU of those that the job may see, one that no other job of this machine has taken if there is one; else the CPU.

    SLURM gives a job its own GPU. Snakemake on one machine counts GPUs but hands none out: jobs side by side would all take
    the first. From here on the process takes numbers below 1e-38, which the tails of densities are full of, for zero: many
    processors multiply them fifty times slower than others.
    """
    torch.set_flush_denormal(True)
    if not _held:
        given = os.environ.get(VISIBLE)
        # Counted without a word to the driver, which reads the variable once.
        names = given.split(",") if given else [str(number) for number in range(torch.cuda.device_count())]
        if len(names) > 1:
            os.environ[VISIBLE] = take(names, own_folder())
    return torch.device("cuda") if torch.cuda.is_available() else torch.device("cpu")


def own_folder() -> Path | None:
    """A folder of the temporary one that this user alone can write to; None where somebody else made it first.

    In the temporary folder itself anyone may put a link in the place of a file that is locked, written and cut.
    """
    folder = Path(tempfile.gettempdir(), f"zmill-{os.getuid()}")
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
            return None
    return folder


def take(names: Sequence[str], folder: Path | None) -> str:
    """The first of several GPUs that is free, now taken by this process; one that is shared if none is.

    folder : where the files are that jobs of this machine lock; without one, no GPU is taken and any is shared.
    """
    for name in map(str.strip, names if folder else ()):
        assert folder is not None
        try:
            _held.append(hold(folder / f"gpu-{name}.lock"))
        except Locked:
            continue
        return name
    return names[os.getpid() % len(names)].strip()


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether the device has instructions for products of bfloat16."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    there = torch.cpu.get_capabilities()
    return bool(there.get("avx512_bf16") or there.get("amx_bf16"))


def multiplies_int8(device: torch.device) -> bool:
    """Whether products of 8-bit integers are several times as fast as those of float32: on a CPU with instructions for them."""
    there = torch.cpu.get_capabilities()
    fast = there.get("avx512_vnni") or there.get("avx_vnni")
    return device.type == "cpu" and bool(fast) and torch.backends.mkldnn.is_available()


def sent(values: Tensor | NDArray[Any], device: torch.device) -> Tensor:
    """On a device; to a GPU by way of pinned memory, so that nobody waits for it."""
    values = torch.as_tensor(values)
    return values.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else values.to(device)


@contextmanager
def reproducible() -> Iterator[None]:
    """Same seed, same kind of device, same bits: deterministic algorithms wherever there are any, on a fixed number of threads.

    Sums that threads share are rounded otherwise for each number of them, so that it may not be what Snakemake has left.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before, threads = torch.are_deterministic_algorithms_enabled(), torch.get_num_threads()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with threadpool_limits(TRAINING_THREADS):
            torch.set_num_threads(TRAINING_THREADS)
            yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(before)
