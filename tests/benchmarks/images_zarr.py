"""Writing and reading stamps with Zarr, for `images.py`: `python images_zarr.py PLAIN.npy FOLDER CHUNK RANDOM`; runs in an environment with zarr."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
import zarr
from zarr.codecs import ZstdCodec


def main() -> None:
    plain, folder, chunk, random = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    cube = np.load(plain)
    array = zarr.create_array(
        store=str(folder),
        shape=cube.shape,
        chunks=(chunk, *cube.shape[1:]),
        dtype=cube.dtype,
        compressors=ZstdCodec(level=1),
    )
    array[:] = cube
    array = zarr.open_array(str(folder), mode="r")
    start = time.process_time()
    assert np.array_equal(array[:], cube)
    read = time.process_time() - start
    rows = np.random.default_rng(2).permutation(len(cube))[:random]
    start = time.process_time()
    for row in rows:
        array[int(row)]
    one = (time.process_time() - start) / random
    files = [path for path in folder.rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files)
    print(json.dumps({"bytes": size, "files": len(files), "read_s": read, "row_s": one}))


if __name__ == "__main__":
    main()
