"""redrock on spectra, in a process of its own with the Python of its environment (`sh tests/benchmarks/peers.sh FOLDER redrock.txt`)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from peers import ONE_THREAD

PROGRAM = Path(__file__).with_name("redrock_peer.py")


@dataclass(frozen=True)
class Fits:
    """Best fits. z, warned (n,): redshifts, and whether ZWARN is set. seconds : of the processor, for all spectra."""

    z: NDArray[np.float64]
    warned: NDArray[np.bool_]
    seconds: float


def redrock(
    environment: Path,
    wave: NDArray[np.float64],
    flux: NDArray[np.float32],
    ivar: NDArray[np.float32],
    templates: Sequence[Path],
) -> Fits:
    """Fit spectra (n, p) at vacuum wavelengths (p,) with files of templates in redrock's format, on one thread."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "templates").mkdir()
        for number, file in enumerate(templates):
            shutil.copy(file, folder / "templates" / f"rrtemplate-{number}.fits")
        np.savez(folder / "job.npz", wave=wave, flux=flux, ivar=ivar)
        command = [str(environment / "bin" / "python"), "-P", str(PROGRAM), "job.npz", "templates", "out.json"]
        done = subprocess.run(
            command, cwd=folder, env=os.environ | ONE_THREAD, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
        found = json.loads((folder / "out.json").read_text(encoding="utf-8"))
    return Fits(np.array(found["z"]), np.array(found["zwarn"]) != 0, float(found["seconds"]))
