"""Spectra of a survey's files on the survey's grid: every kind of bad spectrum is counted, and no pixel of it is used."""

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
from zmill.inputs.spectrum.kind import SpectrumKind
from zmill.survey_definition import Survey

PIXELS = 60
WAVE = np.linspace(4000.0, 9000.0, PIXELS)
SHARED = {"start": 4000, "step": 5000 / (PIXELS - 1), "pixels": PIXELS, "unit": "angstrom", "air": False}
OWN = {"column": "wave", "unit": "angstrom", "air": False}
GRID = {"start": 4000, "stop": 9000, "pixels": PIXELS, "scale": "linear"}


def survey(check_units: bool = True, **section: Any) -> Survey:
    section = {"flux": "flux", "ivar": "ivar", "wavelength": SHARED} | section
    columns = {"object_id": "id", "ra": "ra", "dec": "dec"}
    return Survey.model_validate(
        {"files": ["s.parquet"], "columns": columns, "spectrum": section, "check_units": check_units}
    )


def lists(rows: Any, fixed: bool = False, kind: pa.DataType | None = None) -> pa.Array:
    kind = kind or pa.float32()
    rows = [None if row is None else list(row) for row in rows]
    return pa.array(rows, pa.list_(kind, len(rows[0])) if fixed else pa.list_(kind))


def converted(definition: Survey, **columns: pa.Array) -> Converted:
    batch = pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))
    return SpectrumKind.convert(batch, definition, np.full(batch.num_rows, np.nan))


def pixels(found: Converted, name: str) -> np.ndarray:
    return np.asarray(found.columns[name].flatten()).reshape(-1, PIXELS)


def fault_rows(found: Converted) -> dict[str, list[int]]:
    return {name: np.flatnonzero(rows).tolist() for name, rows in found.faults.get("spectrum", {}).items()}


def spectra(rows: int) -> np.ndarray:
    return np.random.default_rng(rows).normal(5, 1, (rows, PIXELS)).astype(np.float32)


@pytest.mark.parametrize("fixed", [False, True])
def test_spectra_on_their_own_grid_are_kept_exactly(fixed: bool) -> None:
    flux = spectra(3)
    ivar = np.full(flux.shape, 4.0, np.float32)
    ivar[1, 10:40] = 0
    found = converted(survey(), flux=lists(flux, fixed), ivar=lists(ivar, fixed))
    assert found.faults == {} and not found.empty.any()
    assert np.array_equal(pixels(found, "ivar"), ivar)
    assert np.array_equal(pixels(found, "flux"), np.where(ivar > 0, flux, 0))
    assert found.columns["sn_median"][0] == pytest.approx(np.median(flux[0] * 2))
    assert found.columns["good_fraction"].tolist() == pytest.approx([1, 0.5, 1])
    assert found.columns["flux"].type == SpectrumKind.schema(survey())[0].type


def test_slices_of_batches_are_read_at_their_rows() -> None:
    flux = spectra(6)
    for fixed in (False, True):
        batch = pa.RecordBatch.from_arrays([lists(flux, fixed), lists(flux * 0 + 1, fixed)], names=["flux", "ivar"])
        found = SpectrumKind.convert(batch.slice(2, 3), survey(), np.full(3, np.nan))
        assert np.array_equal(pixels(found, "flux"), flux[2:5])


def test_faults_of_single_spectra() -> None:
    flux, ivar = list(spectra(8)), [np.ones(PIXELS, np.float32) for _ in range(8)]
    flux[1] = flux[1][:-1]  # flux and ivar differ
    flux[2], ivar[2] = flux[2][:50], ivar[2][:50]  # another length than the grid
    flux[3] = None  # type: ignore[call-overload]
    ivar[4] = ivar[4] * 0
    flux[5] = flux[5] * np.nan
    ivar[6][:3] = [-1, np.inf, np.nan]
    flux[7][0] = np.inf
    found = converted(survey(), flux=lists(flux), ivar=lists(ivar))
    assert fault_rows(found) == {
        "spectrum_wrong_length": [1, 2],
        "spectrum_missing": [3],
        "ivar_impossible": [6],
        "flux_infinite": [7],
        "spectrum_masked": [4, 5],
    }
    assert np.flatnonzero(found.empty).tolist() == [1, 2, 3, 4, 5]
    assert np.isnan(found.columns["sn_median"][found.empty]).all()
    assert (pixels(found, "ivar")[6, :3] == 0).all() and (pixels(found, "ivar")[6, 3:] == 1).all()
    assert pixels(found, "ivar")[7, 0] == 0
    assert np.isfinite(pixels(found, "flux")).all() and (pixels(found, "ivar") >= 0).all()
    assert set(found.faults["spectrum"]) <= set(SpectrumKind.faults)


def test_faults_of_wavelengths() -> None:
    flux = spectra(8)
    wave = np.tile(WAVE, (8, 1))
    wave[1, 10] = wave[1, 9]
    wave[2, 5] = np.nan
    wave[3] = wave[3][::-1]
    wave[4] /= 10  # nanometers among angstroms
    wave[5] += 20_000
    wave[6, 50:] = 0  # filled up
    columns = {"flux": lists(flux), "ivar": lists(flux * 0 + 1), "wave": lists(wave, kind=pa.float64())}
    found = converted(survey(wavelength=OWN, grid=GRID), **columns)
    assert fault_rows(found) == {
        "wavelengths_unsorted": [1, 2],
        "wavelengths_implausible": [4],
        "wavelengths_outside_grid": [5],
    }
    stored = pixels(found, "flux")
    assert stored[0] == pytest.approx(flux[0], rel=1e-5)
    assert stored[3] == pytest.approx(flux[3][::-1], rel=1e-5), "decreasing wavelengths are reversed"
    assert stored[6, :50] == pytest.approx(flux[6, :50], rel=1e-5)
    assert (pixels(found, "ivar")[6, 51:] == 0).all()
    kept = converted(survey(False, wavelength=OWN, grid=GRID), **columns)
    assert fault_rows(kept)["wavelengths_outside_grid"] == [4, 5], (
        "check_units: false leaves the range to the definition"
    )


def test_a_definition_that_fits_no_spectrum_is_refused() -> None:
    flux, wave = spectra(30), np.tile(WAVE, (30, 1))
    with pytest.raises(ReadError, match=r"has 60 values per row, but spectrum\.wavelength has 61"):
        converted(survey(wavelength=SHARED | {"pixels": 61}), flux=lists(flux), ivar=lists(flux))
    with pytest.raises(ReadError, match=r"has 60 values per row, but spectrum\.wavelength has 61"):
        converted(survey(wavelength=SHARED | {"pixels": 61}), flux=lists(flux[:2], True), ivar=lists(flux[:2], True))
    for unit, numbers, write in (
        ("angstrom", wave / 10, "unit: nanometer"),
        ("nanometer", wave, "unit: angstrom"),
        ("angstrom", wave / 1e4, "unit: micrometer"),
        ("angstrom", np.log10(wave), "scale: log10"),
        ("angstrom", np.log(wave), "scale: ln"),
    ):
        with pytest.raises(ReadError, match=write):
            converted(
                survey(wavelength=OWN | {"unit": unit}, grid=GRID),
                flux=lists(flux),
                ivar=lists(flux),
                wave=lists(numbers, kind=pa.float64()),
            )
    with pytest.raises(ConfigError, match="write unit: nanometer"):
        SpectrumKind.of(survey(wavelength=SHARED | {"start": 400, "step": 10}))
    with pytest.raises(ConfigError, match="no wavelength in common"):
        SpectrumKind.of(survey(grid=GRID | {"start": 10_000, "stop": 20_000}))


def test_errors_and_masks() -> None:
    flux = spectra(2)
    error, mask = np.full(flux.shape, 0.5), np.zeros(flux.shape, int)
    error[0, 0], mask[0, 1], mask[0, 2] = 0, 4, 2
    columns = {"flux": lists(flux), "error": lists(error), "mask": lists(mask, kind=pa.int32())}
    found = converted(survey(ivar=None, error="error", mask="mask"), **columns)
    assert np.flatnonzero(pixels(found, "ivar")[0] == 0).tolist() == [0, 1, 2]
    assert (pixels(found, "ivar")[1] == 4).all()
    bits = converted(survey(ivar=None, error="error", mask="mask", mask_bits=[2]), **columns)
    assert np.flatnonzero(pixels(bits, "ivar")[0] == 0).tolist() == [0, 1]
    good = converted(survey(ivar=None, error="error", mask="mask", mask_means="good"), **columns)
    assert np.flatnonzero(pixels(good, "ivar")[0]).tolist() == [1, 2]


def test_errors_are_estimated_where_the_survey_has_none() -> None:
    rng = np.random.default_rng(3)
    grid = {"start": 4000, "step": 1, "pixels": 3000, "unit": "angstrom", "air": False}
    flux = np.linspace(3, 9, 3000) + rng.normal(0, [[0.2], [1.5]], (2, 3000))
    found = converted(survey(ivar=None, wavelength=grid), flux=lists(flux))
    sigma = 1 / np.sqrt(np.asarray(found.columns["ivar"].flatten()).reshape(2, -1)[:, 0])
    assert sigma == pytest.approx([0.2, 1.5], rel=0.1)


def test_air_and_units_of_wavelengths() -> None:
    in_air = SpectrumKind.of(survey(wavelength=SHARED | {"air": True}))
    in_nm = SpectrumKind.of(
        survey(wavelength=SHARED | {"start": 400, "step": SHARED["step"] / 10, "unit": "nanometer"})
    )
    assert in_air is not None and in_nm is not None
    assert in_nm.grid.wavelength == pytest.approx(WAVE)
    assert in_air.grid.wavelength == pytest.approx(WAVE * 1.00028, rel=1e-5)
    assert "air" in in_air.differs(in_nm) or "trained on spectra of" in in_air.differs(in_nm)


def test_columns_are_trimmed_and_joined() -> None:
    """Gaia's BP and RP, of which the ends are dropped."""
    bp, rp = np.arange(120.0), 1000 + np.arange(120.0)
    grid = {"start": 366, "step": 630 / 185, "pixels": 186, "unit": "nanometer", "air": False}
    names = {"flux": ["bp", "rp"], "error": ["bp_error", "rp_error"], "ivar": None, "trim": [[34, 6], [4, 10]]}
    columns = {"bp": bp, "rp": rp, "bp_error": bp * 0 + 1, "rp_error": rp * 0 + 2}
    found = converted(survey(wavelength=grid, **names), **{key: lists([row, row]) for key, row in columns.items()})
    flux = np.asarray(found.columns["flux"].flatten()).reshape(2, 186)
    assert flux[1].tolist() == [*bp[34:-6], *rp[4:-10]]
    assert np.asarray(found.columns["ivar"].flatten())[[0, 80]].tolist() == [1, 0.25]


def test_columns_that_are_shorter_than_their_trim_are_no_spectra() -> None:
    wavelength = {"start": 4000, "step": 100, "pixels": 30, "unit": "angstrom", "air": False}
    definition = survey(flux=["a", "b"], ivar=None, trim=[[5, 5], [0, 0]], wavelength=wavelength)
    found = converted(definition, a=lists([np.ones(20), np.ones(4)]), b=lists([np.arange(20), np.ones(36)]))
    assert fault_rows(found) == {"spectrum_wrong_length": [1]}


def test_a_mask_without_a_value_masks() -> None:
    flux, mask = spectra(1), np.ones((1, PIXELS))
    mask[0, 3] = np.nan
    for means, bad in (("good", [3]), ("bad", list(range(PIXELS)))):
        columns = {"flux": lists(flux), "ivar": lists(flux * 0 + 1), "mask": lists(mask)}
        found = converted(survey(mask="mask", mask_means=means), **columns)
        assert np.flatnonzero(pixels(found, "ivar")[0] == 0).tolist() == bad


def test_numbers_beyond_32_bits_need_a_unit() -> None:
    flux = spectra(30).astype(np.float64) * 1e-21
    columns = {"flux": lists(flux, kind=pa.float64()), "error": lists(flux * 0 + 1e-21, kind=pa.float64())}
    with pytest.raises(ReadError, match="flux_unit: 1e-21"):
        converted(survey(ivar=None, error="error"), **columns)
    few = converted(survey(ivar=None, error="error"), **{name: column[:3] for name, column in columns.items()})
    assert fault_rows(few) == {"ivar_impossible": [0, 1, 2], "spectrum_masked": [0, 1, 2]}
    found = converted(survey(ivar=None, error="error", flux_unit=1e-21), **columns)
    assert pixels(found, "flux") == pytest.approx(flux * 1e21) and pixels(found, "ivar") == pytest.approx(1)


def test_sky_fibers_are_set_aside() -> None:
    flux = lists(spectra(3))
    types = pa.array(["TGT", "SKY  ", None])
    found = converted(survey(sky={"column": "type", "equals": ["SKY"]}), flux=flux, ivar=flux, type=types)
    assert found.rejected["sky_fiber"].tolist() == [False, True, False]
    numbers = converted(survey(sky={"column": "type", "equals": [4]}), flux=flux, ivar=flux, type=pa.array([4, 0, 4]))
    assert numbers.rejected["sky_fiber"].tolist() == [True, False, True]


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"wavelength": {"column": "wave", "unit": "angstrom", "air": False}}, "grid"),
        ({"wavelength": {"column": "wave", "unit": "angstrom"}, "grid": GRID}, "air"),
        ({"wavelength": {"column": "wave", "air": False}, "grid": GRID}, "unit"),
        ({"wavelength": {"unit": "angstrom", "air": False}}, "give one of"),
        ({"wavelength": OWN | {"start": 3}}, "give one of"),
        ({"error": "error"}, "not both"),
        ({"mask_bits": [1]}, "need `mask`"),
        ({"fluxes": "f"}, "nearest|did you mean|flux"),
        ({"trim": [[1, 2], [3, 4]]}, "trim"),
        ({"wavelength": SHARED | {"values": [3.0, 2.0] * 8}}, "values"),
        ({"grid": GRID | {"stop": 3000}}, "above start"),
    ],
)
def test_wrong_sections_are_refused(section: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SpectrumKind.of(survey(**section))


@pytest.mark.parametrize(
    ("units", "section", "message"),
    [
        ({"wave": "nm"}, {}, "unit: nanometer"),
        ({"wave": "Angstrom (air)"}, {}, "air: true"),
        ({"wave": "log10(Angstrom)"}, {}, "scale: log10"),
        ({"wave": "GHz"}, {}, "no wavelength"),
        ({"wave": "Angstroms"}, {}, ""),
        ({"wave": "Angstrom (vacuum)"}, {}, ""),
        ({"wave": "gibberish"}, {}, ""),
        ({"flux": "erg/s/cm2/AA", "ivar": "erg/s/cm2/AA"}, {}, "write error: ivar"),
        ({"flux": "1e-17 erg/s/cm2/AA", "ivar": "1e+34 s2 cm4 AA2 / erg2"}, {}, ""),
        ({"flux": "W/m2/nm", "sigma": "erg/s/cm2/AA"}, {"ivar": None, "error": "sigma"}, "in one unit"),
        ({}, {"ivar": "flux_error"}, "write error: flux_error"),
        ({}, {"ivar": None, "error": "FLUX_IVAR"}, "write ivar: FLUX_IVAR"),
    ],
)
def test_what_files_state_is_held_against_the_definition(
    units: dict[str, str], section: dict[str, Any], message: str
) -> None:
    found = SpectrumKind.wrong_units(units, survey(**{"wavelength": OWN, "grid": GRID} | section))
    assert bool(found) == bool(message), found
    assert message in " ".join(found.values())


NUMBERS = st.one_of(
    st.none(), st.sampled_from([0.0, -1.0, np.nan, np.inf, -np.inf, 1e39, 1e-42, 5000.0]), st.floats(1, 9000)
)
ROWS = st.lists(
    st.one_of(st.none(), st.lists(NUMBERS, max_size=20), st.just(list(np.linspace(4000.0, 9000.0, 16)))),
    min_size=1,
    max_size=4,
)


@settings(max_examples=150, deadline=None)
@given(ROWS, ROWS, ROWS, st.booleans(), st.booleans(), st.booleans())
def test_no_spectrum_is_lost_or_used_in_silence(
    flux: list[Any], noise: list[Any], wave: list[Any], own: bool, error: bool, masked: bool
) -> None:
    """Whatever lists a file has: pixels are finite, and a spectrum without a good pixel has a fault."""
    rows = min(len(flux), len(noise), len(wave))
    key = "error" if error else "ivar"
    grid = {"start": 4000, "step": 5000 / 15, "pixels": 16, "unit": "angstrom", "air": False}
    section: dict[str, Any] = {"ivar": None, key: "noise", "wavelength": OWN if own else grid}
    section |= {"grid": {"start": 4000, "stop": 9000, "pixels": 16}} if own else {}
    section |= {"mask": "mask", "mask_bits": [0]} if masked else {}
    kind = pa.float64()
    columns = {"flux": lists(flux[:rows], kind=kind), "noise": lists(noise[:rows], kind=kind)}
    columns |= {"wave": lists(wave[:rows], kind=kind), "mask": lists(noise[:rows], kind=kind)}
    found = converted(survey(**section), **columns)
    pixels = {name: np.asarray(found.columns[name].flatten()) for name in ("flux", "ivar")}
    assert len(pixels["flux"]) == len(pixels["ivar"]) == rows * 16
    assert np.isfinite(pixels["flux"]).all() and np.isfinite(pixels["ivar"]).all() and (pixels["ivar"] >= 0).all()
    assert (pixels["flux"][pixels["ivar"] == 0] == 0).all()
    faulty = np.logical_or.reduce([np.zeros(rows, bool), *found.faults.get("spectrum", {}).values()])
    assert not (found.empty & ~faulty).any()
    assert np.array_equal(found.empty, ~(pixels["ivar"].reshape(rows, 16) > 0).any(axis=1))
