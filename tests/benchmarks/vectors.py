"""Vector stores for the embeddings of training spectra: `python tests/benchmarks/vectors.py [--rows N …] [--width D]`.

Embeddings are made: points on a curved surface of 12 dimensions in a space of D = 192, as many as the flagship has, with noise. 2,000
others of the same kind are looked up, 10 neighbors each, on one thread. Of each store: processor seconds to build it, its size, the
milliseconds of a look-up, in batches of 1,000 and one by one, and its recall, the fraction of the true 10 neighbors that it finds.

Stores: faiss, exact (`flat`), with inverted lists (`ivf`, what zmill uses for many rows), and with a graph (`hnsw`); and, where it is
installed (`pip install lancedb`), LanceDB without an index, with inverted lists and with product quantization, its default.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
from bench import report
from numpy.typing import NDArray

K, QUERIES = 10, 2000
Floats = NDArray[np.float32]
Search = Callable[[Floats], NDArray[np.int64]]


def embeddings(rows: int, width: int) -> tuple[Floats, Floats]:
    """Embeddings of training spectra, and of others."""
    rng = np.random.default_rng(1)
    first, second = rng.normal(size=(12, 96)) / 3, rng.normal(size=(96, width)) / 10
    latent = rng.normal(size=(rows + QUERIES, 12))
    found = np.maximum(np.maximum(latent @ first, 0) @ second, 0) + rng.normal(0, 0.02, (len(latent), width))
    return found[:rows].astype(np.float32), found[rows:].astype(np.float32)


def of_faiss(vectors: Floats, kind: str) -> tuple[Search, int]:
    """A faiss index, and its size in bytes."""
    width, lists = vectors.shape[1], round(4 * len(vectors) ** 0.5)
    if kind == "flat":
        index: Any = faiss.IndexFlatL2(width)
    elif kind == "hnsw":
        index = faiss.IndexHNSWFlat(width, 32)
        index.hnsw.efSearch = 64
    else:
        index = faiss.IndexIVFFlat(faiss.IndexFlatL2(width), width, lists)
        index.cp.max_points_per_centroid, index.nprobe = 64, max(16, lists // 20)
        index.train(vectors)
    index.add(vectors)
    return lambda queries: index.search(queries, K)[1], len(faiss.serialize_index(index))


def of_lance(vectors: Floats, kind: str, folder: Path) -> tuple[Search, int]:
    """A table of LanceDB, and its size on disk."""
    import lancedb

    flat = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
    table = lancedb.connect(folder).create_table(
        "vectors", pa.table({"vector": flat, "number": np.arange(len(vectors))})
    )
    if kind != "none":
        lists = max(1, round(len(vectors) ** 0.5))
        table.create_index(metric="l2", index_type=kind, num_partitions=lists)

    def search(queries: Floats) -> NDArray[np.int64]:
        found = []
        for query in queries:
            wanted = table.search(query).limit(K).select(["number", "_distance"])
            wanted = wanted if kind == "none" else wanted.nprobes(max(16, lists // 10)).refine_factor(4)
            found.append(wanted.to_arrow()["number"].to_numpy())
        return np.array(found)

    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    return search, size


def stores(vectors: Floats, folder: Path) -> Iterator[tuple[str, Callable[[], tuple[Search, int]]]]:
    for kind in ("flat", "ivf", "hnsw"):
        yield f"faiss_{kind}", lambda kind=kind: of_faiss(vectors, kind)  # type: ignore[misc]
    try:
        import lancedb  # noqa: F401
    except ImportError:
        return
    for kind in ("none", "IVF_FLAT", "IVF_PQ"):
        yield f"lancedb_{kind.lower()}", lambda kind=kind: of_lance(vectors, kind, folder / kind)  # type: ignore[misc]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000])
    options.add_argument("--width", type=int, default=192)
    arguments = options.parse_args()
    faiss.omp_set_num_threads(1)
    figures: dict[str, float | str | None] = {}
    for rows in arguments.rows:
        vectors, queries = embeddings(rows, arguments.width)
        exact = faiss.IndexFlatL2(arguments.width)
        exact.add(vectors)
        truth = exact.search(queries, K)[1]
        with tempfile.TemporaryDirectory() as folder:
            for name, build in stores(vectors, Path(folder)):
                started = time.process_time()
                search, size = build()
                built = time.process_time()
                found = np.concatenate([search(queries[start : start + 1000]) for start in range(0, QUERIES, 1000)])
                looked_up = time.process_time()
                for query in queries[:200]:
                    search(query[None])
                ended = time.process_time()
                recall = np.mean([len(set(a) & set(b)) / K for a, b in zip(found, truth, strict=True)])
                figures |= {
                    f"{name}_{rows}_build_s": built - started,
                    f"{name}_{rows}_mib": size / 2**20,
                    f"{name}_{rows}_ms": 1000 * (looked_up - built) / QUERIES,
                    f"{name}_{rows}_ms_alone": 1000 * (ended - looked_up) / 200,
                    f"{name}_{rows}_recall": float(recall),
                }
    report("vectors", figures)


if __name__ == "__main__":
    main()
