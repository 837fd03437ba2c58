"""Snakemake with thousands of jobs: what it need not do again for each of them."""

from __future__ import annotations

import gc
from functools import lru_cache

import smart_open

OBJECTS = 5_000_000
"""Objects more than at the last look for garbage at which Python looks again. Jobs are there until the end: to look through all of
them again and again is a sixth of a dry run of 4,000 jobs."""


def take_in_stride() -> None:
    """From now on in this process, garbage is looked for less often, and an address that is known is not taken apart again.

    Snakemake has the address of a job's script taken apart four times a job, and each time smart_open makes a class for the
    answer.
    """
    gc.set_threshold(OBJECTS)
    if not hasattr(smart_open.parse_uri, "cache_info"):
        smart_open.parse_uri = lru_cache(maxsize=1024)(smart_open.parse_uri)
