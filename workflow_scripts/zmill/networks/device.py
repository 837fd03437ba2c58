"""The choice of the device that a job computes on."""

from __future__ import annotations

import os
import stat
import tempfile
import warnings
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
"""Number of threads of a training, fixed because the rounding of sums depends on it. The rules `train_model` and `tune_trial` reserve as
many."""

# The arrays of a batch are those of its table, which are read-only. Nothing writes into them, and copies would cost as much as reading.
warnings.filterwarnings("ignore", "The given NumPy array is not writable", UserWarning)

_held: list[IO[str]] = []
"""Lock files of the GPUs that this process has taken; the locks are released when the process ends."""


def choose() -> torch.device:
    """Choose a visible GPU that no other job of this machine has taken, a shared one if all are taken, or the CPU if there is none.

    SLURM assigns a GPU to each job. Snakemake on one machine only counts GPUs, so that concurrent jobs would all take the
    first. Denormal numbers (below 1e-38), which are frequent in the tails of densities, are also flushed to zero from here
    on, because many processors multiply them fifty times slower than others.
    """
    torch.set_flush_denormal(True)
    if not _held:
        given = os.environ.get(VISIBLE)
        # Counted without initializing the driver, which reads the variable only once.
        names = given.split(",") if given else [str(number) for number in range(torch.cuda.device_count())]
        if len(names) > 1:
            os.environ[VISIBLE] = take(names, own_folder())
    return torch.device("cuda") if torch.cuda.is_available() else torch.device("cpu")


def own_folder() -> Path | None:
    """A folder in the temporary folder that only this user can write to; None if another user made it first.

    In the temporary folder itself, any user could replace a lock file by a link to another file.
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
    """Take the first of several GPUs that is free; share one if none is.

    folder : folder of the lock files of this machine; None: no GPU is locked and one is shared.
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
    """Whether the device is a CPU with instructions for 8-bit integer products, which are several times as fast as float32."""
    there = torch.cpu.get_capabilities()
    return device.type == "cpu" and bool(there.get("avx512_vnni") or there.get("avx_vnni"))


def sent(values: Tensor | NDArray[Any], device: torch.device) -> Tensor:
    """Copy values to a device; to a GPU asynchronously, from pinned memory."""
    values = torch.as_tensor(values)
    return values.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else values.to(device)


@contextmanager
def reproducible() -> Iterator[None]:
    """Make results bit-identical for the same seed and kind of device: deterministic algorithms on a fixed number of threads.

    The number of threads is fixed, not the one that Snakemake assigns, because the rounding of sums depends on it.
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
