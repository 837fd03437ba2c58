"""Which device a job computes on."""

from __future__ import annotations

import torch


def choose() -> torch.device:
    """The first GPU that the job may see (`CUDA_VISIBLE_DEVICES` is the scheduler's), else the CPU."""
    return torch.device("cuda") if torch.cuda.is_available() else torch.device("cpu")
