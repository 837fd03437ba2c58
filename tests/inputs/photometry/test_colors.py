"""Color space: the reference magnitude and adjacent colors, with imputed values and limits."""

from __future__ import annotations

import numpy as np

from zmill.inputs.photometry.batch import Photometry


def rows(mag: np.ndarray, maglim: np.ndarray, reference: int = 1) -> Photometry:
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
        reference=reference,
    )


def test_the_reference_magnitude_and_the_adjacent_colors() -> None:
    gone = np.nan
    mag = np.array([[23, 22, 21.5], [gone, 22, 21.5], [gone, 22, gone]])
    limit = np.array([[gone] * 3, [27, gone, gone], [gone] * 3])
    batch = rows(mag, limit)
    found = batch.summary_features()
    assert np.array_equal(found, [[22, 1, 0.5], [22, 5, 0.5], [22, gone, gone]], equal_nan=True)
    assert batch.feature_names == ["r", "g-r", "r-i"]
    assert rows(mag, limit, reference=2).summary_features()[0, 0] == 21.5
