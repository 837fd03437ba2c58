"""Snakemake with thousands of jobs: what it need not do again for each of them."""

from __future__ import annotations

import gc
from functools import lru_cache
from typing import Any

import smart_open

OBJECTS = 5_000_000
"""Objects more than at the last look for garbage at which Python looks again. Jobs are there until the end: to look through all of
them again and again is a sixth of a dry run of 4,000 jobs."""


def take_in_stride(*snakemake: Any) -> None:
    """From now on in this process, garbage is looked for less often, and what is known of an address or a function is not found out
    again.

    Snakemake has the address of a job's script taken apart three times a job, for which smart_open makes a class each time, and
    looks up what arguments a function of a rule takes some fifteen times a job.

    Parameters
    ----------
    snakemake : its modules that look functions up.
    """
    gc.set_threshold(OBJECTS)
    for module, name in [(smart_open, "parse_uri"), *((module, "get_function_params") for module in snakemake)]:
        known = getattr(module, name)
        if not hasattr(known, "cache_info"):
            setattr(module, name, lru_cache(maxsize=4096)(known))
