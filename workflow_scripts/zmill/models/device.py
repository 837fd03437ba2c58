"""Which device a job computes on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def choose() -> torch.device:
    """The first GPU that the job may see (`CUDA_VISIBLE_DEVICES` is the scheduler's), else the CPU."""
    return torch.device("cuda") if torch.cuda.is_available() else torch.device("cpu")


@contextmanager
def reproducible() -> Iterator[None]:
    """Same seed, same device, same numbers: deterministic algorithms wherever the device has them."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
