"""Made-up SEDs for the tests of simulated spectra."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from zmill.restframe.seds import Sed

WAVE = np.geomspace(900, 60_000, 1500)


def shaped(number: int, wave=WAVE) -> Sed:
    """One of many different SEDs: a break of its own and a slope of its own, without emission lines."""
    rng = np.random.default_rng(number)
    flux = (wave / 5000) ** rng.uniform(-2, 1) * (1 + rng.uniform(0, 2) / (1 + np.exp(-(wave - 4000) / 40)))
    return Sed(f"made-{number}", wave, flux * (1 + 0.3 * np.sin(np.log(wave) * rng.uniform(3, 12) + rng.uniform(0, 6))))


def table(seds, **columns) -> pa.Table:
    """A row per SED."""
    made = {"name": [s.name for s in seds], "wave": [s.wave for s in seds], "flux": [s.flux for s in seds]}
    return pa.table(
        {
            name: values
            if not isinstance(values, list)
            else pa.array([v.tolist() if isinstance(v, np.ndarray) else v for v in values])
            for name, values in (made | columns).items()
        }
    )


def file(path: Path, seds, **columns) -> Path:
    """Write SEDs to a file."""
    pq.write_table(table(seds, **columns), path)
    return path
