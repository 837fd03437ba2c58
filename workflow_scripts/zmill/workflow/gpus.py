"""The number of GPUs of this machine, counted without torch, which takes seconds to load."""

from __future__ import annotations

import ctypes
import os

VISIBLE = "CUDA_VISIBLE_DEVICES"
LIBRARY = "libnvidia-ml.so.1"
"""Library of NVIDIA's driver, with which torch counts GPUs, too."""


def count() -> int:
    """Number of GPUs that jobs of this machine may use: those of `CUDA_VISIBLE_DEVICES` if it is set, else all."""
    there = _there()
    given = os.environ.get(VISIBLE)
    if not there or given is None:
        return there
    return len([name for name in map(str.strip, given.split(",")) if name not in ("", "-1")])


def _there() -> int:
    try:
        driver = ctypes.CDLL(LIBRARY)
    except OSError:
        return 0
    number = ctypes.c_uint(0)
    if driver.nvmlInit_v2() != 0:
        return 0
    try:
        return number.value if driver.nvmlDeviceGetCount_v2(ctypes.byref(number)) == 0 else 0
    finally:
        driver.nvmlShutdown()
