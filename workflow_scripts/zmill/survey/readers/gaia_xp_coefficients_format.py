"""Gaia XP spectra as coefficients (`xp_continuous_mean_spectrum`), sampled by gaiaxpy while they are read; in a table of any format."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Collection, Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pyarrow as pa

from zmill.catalog.files import ReadError
from zmill.survey.readers.base import Span, Table

ENDINGS = ()
CONTENT = ("csv", "ecsv", "fits", "votable", "parquet", "hdf5")
"""Formats that the table may have."""
SAMPLING = np.arange(336.0, 1020.1, 2.0)
"""Wavelengths of the archive's sampled spectra, nanometer, in vacuum."""
ARRAYS = tuple(
    f"{band}_{name}"
    for band in ("bp", "rp")
    for name in ("coefficients", "coefficient_errors", "coefficient_correlations")
)
NUMBERS = tuple(f"{band}_{name}" for band in ("bp", "rp") for name in ("n_parameters", "standard_deviation"))
SOURCE = "source_id"


class Reader(Table):
    """A table with the coefficients of each source, read as `flux` and `flux_error` of 343 values in W/m2/nm, and its other columns.

    The sampled spectra are those of `gaiaxpy.calibrate` with its default sampling, that of the archive.

    Raises
    ------
    ReadError
        Where gaiaxpy is not installed, or columns are missing.
    """

    def __init__(self, path: Path, group: str | None) -> None:
        from zmill.survey.readers import open_table  # which imports this file

        if find_spec("gaiaxpy") is None:
            raise ReadError(
                f"{path}: format: gaia_xp_coefficients needs the package gaiaxpy: pip install gaiaxpy (the extra `gaia` of zmill), or use the "
                "sampled spectra of the archive (xp_sampled_mean_spectrum)"
            )
        self.path = path
        self._table = open_table(path, None, group)
        faults = [self._table.lacks(name, array=name in ARRAYS) for name in (SOURCE, *NUMBERS, *ARRAYS)]
        if fault := next(filter(None, faults), ""):
            raise ReadError(f"{path}: {fault}: expected the columns of Gaia's xp_continuous_mean_spectrum")
        self.rows = self._table.rows
        own = {name: kind for name, kind in self._table.types.items() if name not in ARRAYS}
        spectra = dict.fromkeys(("flux", "flux_error"), pa.list_(pa.float64(), len(SAMPLING)))
        self.describe({**own, **spectra}, self._table.unreadable)
        self.describe_units({**self._table.units, **dict.fromkeys(spectra, "W / (m2 nm)")})

    def spans(self, rows: int) -> list[Span]:
        """Those of the table."""
        return self._table.spans(rows)

    def read(
        self, columns: list[str], batch_rows: int, span: Span, numeric: Collection[str]
    ) -> Iterator[pa.RecordBatch]:
        own = [name for name in columns if name not in ("flux", "flux_error")]
        sampled = len(own) < len(columns)
        wanted = list(dict.fromkeys([*own, *((SOURCE, *NUMBERS, *ARRAYS) if sampled else ())]))
        numbers = {*numeric, *(NUMBERS if sampled else ())}
        for batch in self._table.batches(wanted, batch_rows, span, numbers, arrays=ARRAYS if sampled else ()):
            found = dict(zip(wanted, batch.columns, strict=True))
            if sampled:
                found |= _sampled(batch)
            yield pa.RecordBatch.from_arrays([found[name] for name in columns], names=columns)


def _sampled(batch: pa.RecordBatch) -> dict[str, pa.Array]:
    """Fluxes and their errors; null in rows without the coefficients of BP or RP."""
    import pandas as pd

    calibrate = import_module("gaiaxpy").calibrate  # an extra, which environments may lack
    arrays = {name: batch.column(name).to_pylist() for name in ARRAYS}
    usable = [all(row) for row in zip(*arrays.values(), strict=True)]
    rows = [number for number, has_both in enumerate(usable) if has_both]
    values: dict[str, list[np.ndarray | None]] = {name: [None] * batch.num_rows for name in ("flux", "flux_error")}
    if rows:
        frame = pd.DataFrame({name: [np.array(arrays[name][row], np.float64) for row in rows] for name in ARRAYS})
        for name in NUMBERS:
            column = batch.column(name).to_numpy(zero_copy_only=False)[rows]
            frame[name] = column.astype(np.int64) if name.endswith("n_parameters") else column
        frame[SOURCE] = np.arange(len(rows))
        with contextlib.redirect_stdout(io.StringIO()):  # its progress, of each batch
            sampled, positions = calibrate(frame, save_file=False)
        if not np.allclose(positions, SAMPLING):
            raise ReadError(f"gaiaxpy sampled at {positions[0]:g} to {positions[-1]:g} nm, expected 336 to 1020 nm")
        for name, found in values.items():
            for row, spectrum in zip(rows, sampled[name], strict=True):
                found[row] = np.asarray(spectrum, np.float64)
    kind = pa.list_(pa.float64(), len(SAMPLING))
    return {name: pa.array(found, kind) for name, found in values.items()}
