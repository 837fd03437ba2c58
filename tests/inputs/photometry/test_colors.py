"""Color space: the reference magnitude and adjacent colors, with imputed values and limits."""

from __future__ import annotations

import numpy as np

from zmill.inputs.photometry.batch import Photometry
from zmill.inputs.photometry.colors import color_space, names


def rows(mag: np.ndarray, maglim: np.ndarray) -> Photometry:
    none = np.zeros(len(mag), np.int32)
    return Photometry(
        bands=("g", "r", "i"),
        mag=mag.astype(np.float32),
        magerr=np.full(mag.shape, np.nan, np.float32),
        maglim=maglim.astype(np.float32),
        undetected=none,
        unobserved=none,
        imputed=none,
        ebv=np.full(len(mag), np.nan, np.float32),
        extra=np.zeros((len(mag), 0), np.float32),
    )


def test_the_reference_magnitude_and_the_adjacent_colors() -> None:
    gone = np.nan
    mag = np.array([[23, 22, 21.5], [gone, 22, 21.5], [gone, 22, gone]])
    limit = np.array([[gone] * 3, [27, gone, gone], [gone] * 3])
    found = color_space(rows(mag, limit), 1)
    assert np.array_equal(found, [[22, 1, 0.5], [22, 5, 0.5], [22, gone, gone]], equal_nan=True)
    assert names(("g", "r", "i"), 1) == ["r", "g-r", "r-i"]
    assert color_space(rows(mag, limit), 2)[0, 0] == 21.5
