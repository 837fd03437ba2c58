"""Stamps on disk: `python tests/benchmarks/images.py [--rows N] [--parts PART …] [--peers ENV]`.

read     stamps of `--bands` x `--size` x `--size` pixels as zmill stores them, fixed-shape tensors in Parquet (zstd, row groups of 128 MiB),
         compared with Zarr beside the partition, of the same compression, in chunks of 64 stamps and of 1 (with `--peers`: an environment
         with zarr and numpy)

`parquet_bytes`, `zarr<chunk>_bytes`             bytes on disk / bytes of the pixels
`parquet_read`, `zarr<chunk>_read`               all stamps in the order of the file, processor time / that of reading the pixels from a plain file
`parquet_row_ms`, `zarr<chunk>_row_ms`           processor milliseconds for one stamp, of rows in random order
`stored_row_ms`                                  the same, from the decoded rows on disk from which models are trained (`zmill.inputs.stored`)

Files are in the memory of the system when they are read.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from bench import cpu_seconds, report

from zmill.catalog import hats
from zmill.catalog.hats import Partition
from zmill.catalog.sky import HEALPIX_COLUMN
from zmill.columns import lists
from zmill.inputs.base import ModelContext
from zmill.inputs.image.kind import ImageKind
from zmill.inputs.stored import Stored
from zmill.pdf.grid import Grid

RANDOM = 200
"""Rows that are read in random order."""


def stamps(rows: int, bands: int, size: int) -> np.ndarray:
    """Galaxies in noise: (rows, bands, size, size) float32."""
    rng = np.random.default_rng(1)
    offset = np.arange(size) - (size - 1) / 2
    found = rng.standard_normal((rows, bands, size, size), np.float32)
    radius, flux = rng.uniform(1, 4, rows), rng.lognormal(2, 1, rows)
    for row in range(rows):
        found[row] += np.float32(flux[row]) * np.exp(-np.hypot(offset[:, None], offset) / radius[row]).astype(
            np.float32
        )
    return found


def parquet(folder: Path, cube: np.ndarray) -> Path:
    """The stamps as one partition of a catalogue."""
    rows, shape = len(cube), cube.shape[1:]
    kind = pa.fixed_shape_tensor(pa.float32(), shape)
    unknown = np.ones(rows, np.float32)
    table = pa.table(
        {
            HEALPIX_COLUMN: np.arange(rows),
            "object_id": np.arange(rows),
            "image": pa.ExtensionArray.from_storage(kind, lists(cube.reshape(rows, -1))),
            "image_ivar": lists(np.ones((rows, shape[0]), np.float32)),
            "image_psf": lists(np.ones((rows, shape[0]), np.float32)),
            "image_sn": unknown,
            "image_good": unknown,
            "image_edge": unknown > 1,
        }
    )
    partition = Partition(0, 0)
    with hats.write_partition(folder, partition, table.schema) as writer:
        writer.write(table)
    return partition.file(folder)


def read_all(path: Path) -> int:
    """Every stamp as an array, row group by row group."""
    total = 0
    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            found = file.read_row_group(group, ["image"], use_threads=False).column(0).combine_chunks()
            total += len(found.to_numpy_ndarray())
    return total


def read_row(path: Path, row: int) -> np.ndarray:
    """One stamp; its row group is read."""
    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            count = file.metadata.row_group(group).num_rows
            if row < count:
                found = file.read_row_group(group, ["image"], use_threads=False).column(0).combine_chunks()
                return np.asarray(found.storage[row].values)
            row -= count
    raise IndexError(row)


def part_read(options: argparse.Namespace, folder: Path) -> dict[str, float]:
    """Parquet beside Zarr."""
    cube = stamps(options.rows, options.bands, options.size)
    plain, path = folder / "plain.npy", parquet(folder / "catalog", cube)
    np.save(plain, cube)
    unit = cpu_seconds(lambda: np.load(plain), 3)
    order = np.random.default_rng(2).permutation(options.rows)[:RANDOM]
    some = order[: max(2, RANDOM // 20)]
    kind = ImageKind(tuple(f"b{number}" for number in range(options.bands)), options.size, 0.4)
    stored = Stored.of(path, ModelContext((kind,), Grid(0, 1, 11), 1))
    assert all(np.array_equal(read_row(path, row), cube[row].ravel()) for row in some[:2].tolist())
    found = {
        "plain_s": unit,
        "parquet_bytes": path.stat().st_size / cube.nbytes,
        "parquet_read": cpu_seconds(lambda: read_all(path), 3) / unit,
        "parquet_row_ms": cpu_seconds(lambda: [read_row(path, row) for row in some.tolist()], 1) / len(some) * 1e3,
        "stored_row_ms": cpu_seconds(lambda: [stored[np.array([row])] for row in order], 1) / len(order) * 1e3,
    }
    for chunk in (64, 1) if options.peers else ():
        command = [str(options.peers / "bin/python"), str(Path(__file__).with_name("images_zarr.py"))]
        answer = subprocess.run(
            [*command, str(plain), str(folder / f"zarr{chunk}"), str(chunk), str(RANDOM)],
            capture_output=True,
            text=True,
            check=True,
        )
        peer = json.loads(answer.stdout)
        found[f"zarr{chunk}_bytes"] = peer["bytes"] / cube.nbytes
        found[f"zarr{chunk}_read"] = peer["read_s"] / unit
        found[f"zarr{chunk}_row_ms"] = peer["row_s"] * 1e3
        found[f"zarr{chunk}_files"] = peer["files"]
    return found


PARTS = {"read": part_read}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rows", type=int, default=10_000)
    options.add_argument("--bands", type=int, default=5)
    options.add_argument("--size", type=int, default=32)
    options.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    options.add_argument("--peers", type=Path, help="environment with zarr")
    given = options.parse_args()
    figures: dict[str, float] = {}
    for part in given.parts:
        with tempfile.TemporaryDirectory() as folder:
            figures |= PARTS[part](given, Path(folder))
    report("images", figures)


if __name__ == "__main__":
    main()
