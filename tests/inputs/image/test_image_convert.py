"""Stamps of a survey's files in one shape: every kind of bad stamp is counted, and no pixel of it is used."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zmill.catalog.files import ReadError
from zmill.config import ConfigError
from zmill.inputs.base import Converted
from zmill.inputs.image.kind import ImageKind
from zmill.survey_definition import Survey

BANDS, SIZE = ["g", "r", "i"], 12
SHAPE = (len(BANDS), SIZE, SIZE)


def survey(**section: Any) -> Survey:
    section = {"bands": BANDS, "size": SIZE, "pixel_scale": 0.4, "flux": "image", "ivar": "ivar"} | section
    columns = {"object_id": "id", "ra": "ra", "dec": "dec"}
    return Survey.model_validate({"files": ["s.parquet"], "columns": columns, "image": section})


def lists(rows: Any, fixed: bool = False, kind: pa.DataType | None = None) -> pa.Array:
    kind = kind or pa.float32()
    rows = [None if row is None else np.ravel(row).tolist() for row in rows]
    return pa.array(rows, pa.list_(kind, len(rows[0])) if fixed else pa.list_(kind))


def converted(definition: Survey, **columns: pa.Array) -> Converted:
    batch = pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))
    return ImageKind.convert(batch, definition, np.full(batch.num_rows, np.nan))


def values(found: Converted, name: str) -> np.ndarray:
    column = found.columns[name]
    storage = column.storage if isinstance(column, pa.ExtensionArray) else column
    flat = np.asarray(storage.flatten()).reshape(len(found.empty), -1)
    return flat.reshape(-1, *SHAPE) if flat.shape[1] == np.prod(SHAPE) else flat


def fault_rows(found: Converted) -> dict[str, list[int]]:
    return {name: np.flatnonzero(rows).tolist() for name, rows in found.faults.get("image", {}).items()}


def stamps(rows: int) -> np.ndarray:
    """A galaxy in noise of standard deviation 1."""
    rng = np.random.default_rng(rows)
    offset = np.arange(SIZE) - (SIZE - 1) / 2
    shape = np.exp(-0.5 * (offset[:, None] ** 2 + offset**2) / 2**2)
    return (rng.normal(0, 1, (rows, *SHAPE)) + 30 * shape).astype(np.float32)


@pytest.mark.parametrize("fixed", [False, True])
def test_stamps_are_kept_exactly(fixed: bool) -> None:
    flux, ivar = stamps(3), np.array([[4.0, 1.0, 0.0]] * 3, np.float32)
    found = converted(survey(), image=lists(flux, fixed), ivar=lists(ivar))
    flux[:, 2] = 0
    assert np.array_equal(values(found, "image"), flux) and np.array_equal(values(found, "image_ivar"), ivar)
    assert found.faults == {} and not found.empty.any() and not found.columns["image_edge"].any()
    assert found.columns["image_good"].tolist() == pytest.approx([2 / 3] * 3)
    assert [field.type for field in ImageKind.schema(survey())][:2] == [
        found.columns["image"].type,
        found.columns["image_ivar"].type,
    ]
    assert np.isnan(values(found, "image_psf")).all()


def test_orders_of_the_axes_and_columns_of_bands() -> None:
    flux, ivar = stamps(4), np.ones((4, 3))
    expected = values(converted(survey(), image=lists(flux), ivar=lists(ivar)), "image")
    last = converted(survey(order="bands_last"), image=lists(flux.transpose(0, 2, 3, 1)), ivar=lists(ivar))
    planes = {f"image_{band}": lists(flux[:, number]) for number, band in enumerate(BANDS)}
    apart = converted(survey(flux="image_{band}"), ivar=lists(ivar), **planes)
    named = converted(survey(flux=["image_g", "image_r", "image_i"]), ivar=lists(ivar), **planes)
    for found in (last, apart, named):
        assert np.array_equal(values(found, "image"), expected)


def test_slices_of_batches_are_read_at_their_rows() -> None:
    flux = stamps(6)
    for fixed in (False, True):
        batch = pa.RecordBatch.from_arrays([lists(flux, fixed), lists(np.ones((6, 3)), fixed)], names=["image", "ivar"])
        found = ImageKind.convert(batch.slice(2, 3), survey(), np.full(3, np.nan))
        assert np.array_equal(values(found, "image"), flux[2:5])


def test_faults_of_single_stamps() -> None:
    flux, ivar = list(stamps(9)), [np.ones(3) for _ in range(9)]
    flux[1] = flux[1][:, :-1]  # another shape
    flux[2] = None  # type: ignore[call-overload]
    flux[3][0, 4:6, 5] = [np.nan, np.inf]
    flux[4][1] = 7.0  # constant
    ivar[5] = np.array([-1, np.inf, 1])
    flux[6][:] = np.nan
    flux[7][:, :, :3] = np.nan  # reaches beyond the edge
    flux[8][:] = 3.0
    found = converted(survey(), image=lists(flux), ivar=lists(ivar))
    assert fault_rows(found) == {
        "image_wrong_shape": [1],
        "image_missing": [2],
        "pixel_not_finite": [3, 6, 7],
        "image_constant": [4, 8],
        "image_ivar_impossible": [5],
        "image_masked": [6],
    }
    assert np.flatnonzero(found.empty).tolist() == [1, 2, 6, 8]
    assert found.columns["image_edge"].tolist() == [False] * 7 + [True, False]
    assert np.isnan(found.columns["image_sn"][found.empty]).all()
    pixels, noise = values(found, "image"), values(found, "image_ivar")
    assert np.isfinite(pixels).all() and (pixels[3, 0, 4:6, 5] == 0).all() and (pixels[4, 1] == 0).all()
    assert noise[4].tolist() == [1, 0, 1] and noise[5].tolist() == [0, 0, 1] and (noise[found.empty] == 0).all()
    assert set(fault_rows(found)) <= set(ImageKind.faults)


def test_a_missing_band_is_masked() -> None:
    flux = stamps(3)
    planes: dict[str, Any] = {band: list(flux[:, number]) for number, band in enumerate(BANDS)}
    planes["r"][1] = None
    found = converted(survey(flux="{band}"), ivar=lists(np.ones((3, 3))), **{b: lists(p) for b, p in planes.items()})
    assert fault_rows(found) == {"image_band_missing": [1]}
    assert (values(found, "image")[1, 1] == 0).all() and values(found, "image_ivar")[1].tolist() == [1, 0, 1]


def test_noise_per_pixel_masks_and_missing_values() -> None:
    flux, error = stamps(2), np.full((2, *SHAPE), 0.5)
    mask = np.zeros((2, *SHAPE), np.int32)
    error[0, 0, 0, 0], mask[0, 1, 2, 3], mask[0, 2, 2, 3], flux[0, 0, 5, 5] = 0, 4, 2, -99
    columns = {"image": lists(flux), "error": lists(error), "mask": lists(mask, kind=pa.int32())}
    section = {"ivar": None, "error": "error", "noise": "pixel", "missing": [-99]}
    found = converted(survey(**section, mask="mask"), **columns)
    bad = [tuple(place) for place in np.argwhere(values(found, "image_ivar")[0] == 0).tolist()]
    assert bad == [(0, 0, 0), (0, 5, 5), (1, 2, 3), (2, 2, 3)]
    assert (values(found, "image_ivar")[1] == 4).all()
    bits = converted(survey(**section, mask="mask", mask_bits=[2]), **columns)
    assert np.count_nonzero(values(bits, "image_ivar")[0] == 0) == 3
    good = converted(survey(**section, mask="mask", mask_means="good"), **columns)
    assert np.count_nonzero(values(good, "image_ivar")) == 2
    per_band = converted(survey(noise="pixel"), image=lists(flux), ivar=lists(np.full((2, 3), 9.0)))
    assert (values(per_band, "image_ivar") == 9).all(), "one number per band may be stored for each pixel"
    with pytest.raises(ReadError, match=r"'error' \(image.error\) has a value per pixel.*write noise: pixel"):
        converted(survey(ivar=None, error="error"), **columns)


def test_errors_are_estimated_where_the_survey_has_none() -> None:
    rng = np.random.default_rng(3)
    sigma = rng.uniform(0.2, 5, (200, 3, 1, 1))
    flux = stamps(200) * 0 + rng.normal(0, 1, (200, *SHAPE)) * sigma
    flux[0, 0, :3], flux[1, 1] = np.nan, 0.0
    found = converted(survey(ivar=None), image=lists(flux))
    noise = values(found, "image_ivar")
    assert noise[1, 1] == 0
    ratio = 1 / np.sqrt(np.where(noise > 0, noise, np.nan)) / sigma[:, :, 0, 0]
    assert np.nanmedian(ratio) == pytest.approx(1, abs=0.05) and np.nanstd(ratio) < 0.2


def test_padding_is_masked_where_the_files_do_not_mask() -> None:
    flux = stamps(3)
    flux[0, :, :, -2:] = 0
    flux[1, :, :4, :] = -7
    flux[1, :, :, 0] = -7
    found = converted(survey(ivar=None), image=lists(flux))
    assert fault_rows(found) == {"image_padded": [0, 1]}
    assert found.columns["image_edge"].tolist() == [True, True, False]
    assert found.columns["image_good"].tolist() == pytest.approx([10 / 12, 8 * 11 / 144, 1])
    assert (values(found, "image")[1, :, :4] == 0).all()
    given = converted(survey(), image=lists(flux), ivar=lists(np.ones((3, 3))))
    assert given.faults == {}, "files with inverse variances say themselves which pixels are bad"


def test_definitions_that_fit_no_stamp_are_refused() -> None:
    flux, ivar = stamps(30), np.ones((30, 3))
    with pytest.raises(
        ReadError, match=r"has 432 values per row, but image.bands and image.size make stamps of 3 x 16 x 16 = 768"
    ):
        converted(survey(size=16), image=lists(flux), ivar=lists(ivar))
    with pytest.raises(ReadError, match="has 432 values per row"):
        converted(survey(bands=["g", "r"]), image=lists(flux[:2], True), ivar=lists(ivar[:2]))
    with pytest.raises(ReadError, match=r"\(image.ivar\) has 4 values per row: expected one per band \(3\)"):
        converted(survey(), image=lists(flux), ivar=lists(np.ones((30, 4))))
    with pytest.raises(ReadError, match=r"flux_unit: 1e-20"):
        converted(survey(), image=lists(flux * 1e-20), ivar=lists(ivar * 1e40, kind=pa.float64()))
    tiny = converted(survey(flux_unit=1e-20), image=lists(flux * 1e-20), ivar=lists(ivar * 1e40, kind=pa.float64()))
    assert values(tiny, "image") == pytest.approx(flux, rel=1e-5) and values(tiny, "image_ivar") == pytest.approx(
        1, rel=1e-5
    )


def test_units_per_band_and_psf() -> None:
    flux, ivar = stamps(2), np.ones((2, 3))
    section = {"flux_unit": {"g": 1, "r": 2, "i": 4}, "psf_fwhm": {"g": 1.2, "r": 1.1, "i": 1.0}}
    found = converted(survey(**section), image=lists(flux), ivar=lists(ivar))
    assert values(found, "image")[:, 2] == pytest.approx(flux[:, 2] / 4)
    assert values(found, "image_ivar").tolist() == [[1, 4, 16]] * 2
    assert values(found, "image_psf")[0].tolist() == pytest.approx([1.2, 1.1, 1.0])
    column = converted(
        survey(psf_fwhm="psf"), image=lists(flux), ivar=lists(ivar), psf=lists([[1, 0, np.nan], [1, 2, 3]])
    )
    assert np.isnan(values(column, "image_psf")[0]).tolist() == [False, True, True]
    bands = {f"psf_{band}": pa.array([1.0, 2.0]) for band in BANDS}
    apart = converted(survey(psf_fwhm="psf_{band}"), image=lists(flux), ivar=lists(ivar), **bands)
    assert values(apart, "image_psf").tolist() == [[1, 1, 1], [2, 2, 2]]
    assert ImageKind.numeric_columns(survey(psf_fwhm="psf_{band}")) == set(bands)
    assert "psf" in ImageKind.array_columns(survey(psf_fwhm="psf"))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"bands": ["g", "g"]}, "name each band once"),
        ({"flux": ["a", "b"]}, "expected one column, or one for each of 3 bands"),
        ({"error": "e"}, "give `ivar` or `error`"),
        ({"mask_bits": [1]}, "need `mask`"),
        ({"flux_unit": {"g": 1}}, "one number for each of g, r, i"),
        ({"size": 1024}, "at most 1,048,576 pixels"),
        ({"noise": "none"}, "expected 'band' or 'pixel'"),
        ({"fluxx": "a"}, "unknown key; did you mean 'flux'"),
    ],
)
def test_wrong_settings_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ImageKind.of(survey(**wrong))


NUMBERS = st.one_of(
    st.none(), st.sampled_from([0.0, -1.0, np.nan, np.inf, -np.inf, 1e39, 1e-42, -99.0]), st.floats(-9, 9000)
)
ROWS = st.lists(
    st.one_of(st.none(), st.lists(NUMBERS, max_size=4), st.lists(NUMBERS, min_size=32, max_size=32)),
    min_size=1,
    max_size=4,
)


@settings(max_examples=150, deadline=None)
@given(ROWS, ROWS, st.sampled_from([None, "ivar", "error"]), st.booleans(), st.booleans())
def test_no_stamp_is_lost_or_used_in_silence(
    flux: list[Any], noise: list[Any], key: str | None, masked: bool, last: bool
) -> None:
    """Whatever lists a file has: pixels are finite, and a stamp without a good pixel has a fault."""
    rows = min(len(flux), len(noise))
    kind = pa.float64()
    section: dict[str, Any] = {"bands": ["g", "r"], "size": 4, "ivar": None, "noise": "pixel", "missing": [-99]}
    section |= {key: "noise"} if key else {}
    section |= {"mask": "mask", "mask_bits": [0]} if masked else {}
    section |= {"order": "bands_last"} if last else {}
    columns = {
        name: pa.array(some[:rows], pa.list_(kind))
        for name, some in (("image", flux), ("noise", noise), ("mask", noise))
    }
    try:
        found = converted(survey(**section), **columns)
    except ReadError as error:
        assert "values per row" in str(error)
        return
    pixels, ivar = (
        np.asarray(found.columns[name].storage.flatten()).reshape(rows, 32) for name in ("image", "image_ivar")
    )
    assert np.isfinite(pixels).all() and np.isfinite(ivar).all() and (ivar >= 0).all()
    assert (pixels[ivar == 0] == 0).all() and not (pixels == -99).any()
    faulty = np.logical_or.reduce([np.zeros(rows, bool), *found.faults.get("image", {}).values()])
    assert not (found.empty & ~faulty).any()
    assert np.array_equal(found.empty, ~(ivar > 0).any(axis=1))
    assert found.columns["image_good"] == pytest.approx((ivar > 0).mean(axis=1))
