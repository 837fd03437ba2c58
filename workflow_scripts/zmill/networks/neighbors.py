"""The nearest of many vectors: an index of faiss that is stored as a tensor.

Up to `EXACT` vectors are searched one by one. More are divided into lists around centers (inverted lists), of which those with the
nearest centers are searched. Both return Euclidean distances, exact to rounding, of the neighbors that they find.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

EXACT = 50_000
"""Largest number of vectors that are all compared."""
PER_LIST = 64
"""Vectors per center that the centers are found from."""
PROBES = 20
"""One in so many lists is searched, and at least `LEAST_PROBES`."""
LEAST_PROBES = 16

Floats = NDArray[np.float32]


class VectorIndex:
    """Vectors (n, d) that nearest neighbors are searched among.

    Parameters
    ----------
    index : the faiss index.
    """

    def __init__(self, index: Any) -> None:
        self._index = index

    @classmethod
    def of(cls, vectors: Floats) -> VectorIndex:
        """Index vectors (n, d), which may not be changed afterwards."""
        import faiss  # only here: other models do without

        rows, width = vectors.shape
        index: Any = faiss.IndexFlatL2(width)
        if rows > EXACT:
            lists = round(4 * rows**0.5)
            index = faiss.IndexIVFFlat(index, width, lists)
            index.cp.max_points_per_centroid, index.cp.seed = PER_LIST, 1
            index.nprobe = max(LEAST_PROBES, lists // PROBES)
            index.train(vectors)
        index.add(np.ascontiguousarray(vectors, np.float32))
        return cls(index)

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def search(self, vectors: Floats, k: int) -> tuple[Floats, NDArray[np.int64]]:
        """Distances (n, k), nearest first, and numbers (n, k) of the nearest to each of the vectors (n, d); k is at most `len`.

        Distances from a vector that is not finite are NaN.
        """
        finite: NDArray[np.bool_] = np.asarray(np.isfinite(vectors).all(axis=1))
        vectors = np.ascontiguousarray(np.where(finite[:, None], vectors, 0), np.float32)
        squared, numbers = self._index.search(vectors, k)
        few = np.flatnonzero((numbers < 0).any(1))
        if len(few):  # the lists that were searched have less than k vectors
            import faiss

            everywhere: Any = faiss.SearchParametersIVF()
            everywhere.nprobe = self._index.nlist
            squared[few], numbers[few] = self._index.search(vectors[few], k, params=everywhere)
        return np.where(finite[:, None], np.sqrt(np.maximum(squared, 0)), np.float32(np.nan)), numbers

    def tensor(self) -> Tensor:
        """The index as bytes (uint8)."""
        import faiss

        return torch.from_numpy(faiss.serialize_index(self._index))

    @classmethod
    def restore(cls, tensor: Tensor) -> VectorIndex:
        """The reverse of `tensor`.

        Raises
        ------
        ValueError
            If the bytes are no such index.
        """
        import faiss

        try:
            return cls(faiss.deserialize_index(tensor.numpy()))
        except RuntimeError as error:
            raise ValueError(f"the index of neighbors cannot be read: {str(error).splitlines()[-1]}") from None
