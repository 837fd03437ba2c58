"""The SLURM that the tests of this folder run on."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest

from slurm.cluster import Cluster, install


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A running SLURM; skipped where it could not be installed (not root, no apt-get)."""
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        pytest.skip("installing and starting a SLURM takes root on Debian or Ubuntu")
    install()
    with Cluster(tmp_path_factory.mktemp("slurm")) as cluster:
        yield cluster
