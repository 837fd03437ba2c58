"""Merging of the entries of an object, from one or several sources, into one label."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from zmill.catalog.sky import unit_vectors


@dataclass(frozen=True)
class Merged:
    """The result of merging accepted entries.

    Attributes
    ----------
    chosen : (objects,) index of the best entry of each object.
    entries : (objects,) how many entries were merged into it.
    conflict : (n,) bool, entries of objects whose accepted entries disagree.
    group : (n,) int64, the object of each entry.
    """

    chosen: NDArray[np.int64]
    entries: NDArray[np.int64]
    conflict: NDArray[np.bool_]
    group: NDArray[np.int64]


def groups(ra: NDArray[np.float64], dec: NDArray[np.float64], radius_arcsec: float) -> NDArray[np.int64]:
    """Object number of each position: positions closer than the radius are connected (friends of friends).

    Parameters
    ----------
    ra, dec : (n,) degrees.
    """
    if not len(ra):
        return np.empty(0, np.int64)
    chord = 2 * np.sin(0.5 * np.radians(radius_arcsec / 3600))
    pairs = cKDTree(unit_vectors(ra, dec)).query_pairs(chord, output_type="ndarray")
    links = coo_array((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=(len(ra), len(ra)))
    return connected_components(links, directed=False)[1].astype(np.int64)


def resolve(
    group: NDArray[np.int64],
    redshift: NDArray[np.float64],
    quality: NDArray[np.int8],
    redshift_err: NDArray[np.float32],
    priority: NDArray[np.int64],
    conflict: float,
) -> Merged:
    """The best entry of each object: highest quality, then smallest error, then first source, then first entry.

    Parameters
    ----------
    group : (n,) from 0, every number used.
    redshift_err : NaN where unknown, which is worse than any error.
    priority : (n,) rank of the entry's source in the configuration, from 0.
    conflict : objects whose entries differ by more than this times (1 + z) are left out.
    """
    count = np.bincount(group) if len(group) else np.empty(0, np.int64)
    lowest, highest = np.full(len(count), np.inf), np.full(len(count), -np.inf)
    np.minimum.at(lowest, group, redshift)
    np.maximum.at(highest, group, redshift)
    disagree = highest - lowest > conflict * (1 + lowest)
    error = np.where(np.isfinite(redshift_err), redshift_err, np.inf)
    order = np.lexsort((np.arange(len(group)), priority, error, -quality.astype(np.int64), group))
    first = order[np.flatnonzero(np.diff(group[order], prepend=-1))]
    kept = ~disagree[group[first]]
    return Merged(first[kept], count[~disagree], disagree[group], group)
