"""The real surveys of `surveys/`, imported, with the numbers that are known of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from zmill.catalog import hats
from zmill.config import Partitions, load_survey
from zmill.inputs.image.batch import Images
from zmill.inputs.image.kind import ImageKind
from zmill.inputs.registry import further_files, of_survey
from zmill.inputs.spectrum.batch import Spectra
from zmill.inputs.spectrum.continuum import normalize
from zmill.survey.counts import Counts
from zmill.survey.importer import import_survey
from zmill.survey.readers import open_table
from zmill.survey.tables import read_tables
from zmill.survey_definition import Survey
from zmill.workflow.input_files import find


def bring_in(name: str, root: Path, data: Path, out: Path) -> tuple[Survey, Counts, pa.Table]:
    survey = load_survey(name, root / "surveys")
    catalog = out / name / "survey"
    summary = import_survey(
        [Path(file) for file in find(survey, data).survey],
        survey,
        Partitions(max_rows=4000),
        catalog,
        out / name / "rejected.parquet",
        data_dir=data,
    )
    return survey, summary, pa.concat_tables([hats.read_columns(catalog, p) for p in hats.partitions(catalog)])


def bit(rows: pa.Table, mask: str, survey: Survey, band: str) -> np.ndarray:
    return rows.column(mask).to_numpy() >> survey.bands.index(band) & 1 == 1


def test_zcosmos(root: Path, real_data: Path, tmp_path: Path) -> None:
    survey, summary, rows = bring_in("zcosmos", root, real_data, tmp_path)
    assert (summary.rows, summary.kept, summary.faults) == (17358, 17358, {"u": {"error_negative": 1}})
    assert bit(rows, "unobserved", survey, "i").sum() == 713 + 202
    assert bit(rows, "unobserved", survey, "u").sum() == 29 + 202 + 1
    for band in survey.bands:
        mag = rows.column(f"mag_{band}").to_numpy()
        assert np.nanmin(mag) > 14 and np.nanmax(mag) < 30
        assert np.array_equal(np.isnan(mag), bit(rows, "unobserved", survey, band))


def test_sdss_dr14_luptitudes(root: Path, real_data: Path, tmp_path: Path) -> None:
    survey, summary, rows = bring_in("sdss_dr14", root, real_data, tmp_path)
    assert (summary.rows, summary.kept, summary.faults) == (10000, 10000, {})
    assert bit(rows, "undetected", survey, "i").sum() == 1 and bit(rows, "undetected", survey, "z").sum() == 1
    assert sorted(rows.column("object_id").to_pylist()) == list(range(10000))
    assert np.isnan(rows.column("magerr_r").to_numpy()).all()


def test_des_band_that_was_never_observed(root: Path, real_data: Path, tmp_path: Path) -> None:
    survey, summary, rows = bring_in("des_dr2", root, real_data, tmp_path)
    assert (summary.rows, summary.kept) == (2956 + 118, 2956 + 118) and not summary.faults
    assert bit(rows, "unobserved", survey, "u").all() and not bit(rows, "undetected", survey, "u").any()
    assert bit(rows, "undetected", survey, "g").sum() == 6 and bit(rows, "undetected", survey, "y").sum() == 24


def test_lsst_dc2_limits(root: Path, real_data: Path) -> None:
    survey = load_survey("lsst_dc2", root / "surveys")
    found = find(survey, real_data)
    train, test = (read_tables([Path(file) for file in files], survey) for files in (found.train, found.test))
    assert (train.num_rows, test.num_rows) == (10225, 20449)
    undetected = bit(train, "undetected", survey, "u")
    assert undetected.sum() == 714 and np.isnan(train.column("mag_u").to_numpy()[undetected]).all()
    assert train.column("maglim_u").to_numpy()[undetected] == pytest.approx(26.620825)
    assert "ra" not in train.column_names and train.schema.field("redshift").type == pa.float64()


def test_sdss_edr_failed_measurements(root: Path, real_data: Path) -> None:
    survey = load_survey("sdss_edr", root / "surveys")
    found = find(survey, real_data)
    train, test = (read_tables([Path(file) for file in files], survey) for files in (found.train, found.test))
    assert train.num_rows == test.num_rows == 6000
    for rows in (train, test):
        for band in survey.bands:
            assert np.nanmax(rows.column(f"mag_{band}").to_numpy()) < 25
    assert bit(train, "unobserved", survey, "g").sum() == 4


def test_cosmos2020_upper_limits_in_the_error_column(real_data: Path) -> None:
    """CIGALE's convention: mJy, NaN where not observed, negative errors where the flux is the upper limit."""
    path = real_data / "cosmos2020_highz" / "cosmos_specz_compilation_for_cigale_z2.5-9.parquet"
    bands = {"u": "cfht.megacam.u", "g": "subaru.suprime.g", "r": "subaru.suprime.r", "i": "subaru.suprime.i"}
    survey = Survey.model_validate(
        {
            "tables": {"train": [str(path)], "test": [str(path)]},
            "columns": {
                "object_id": "id",
                "redshift": "redshift",
                "flux": "{band}",
                "error": "{band}_err",
                "overrides": {
                    **{f"flux_{band}": name for band, name in bands.items()},
                    **{f"error_{band}": f"{name}_err" for band, name in bands.items()},
                },
            },
            "bands": list(bands),
            "photometry": "millijansky",
            "sentinels": {"error": {"upper_limit": [{"max": 0}]}},
        }
    )
    rows = read_tables([path], survey)
    given = pq.read_table(path)
    assert rows.num_rows == given.num_rows == 5314
    for band, name in bands.items():
        flux, error = given.column(name).to_numpy(), given.column(f"{name}_err").to_numpy()
        assert np.array_equal(bit(rows, "undetected", survey, band), (error <= 0) | (flux <= 0) | (flux < error))
        assert np.array_equal(bit(rows, "unobserved", survey, band), np.isnan(flux))
    limited = given.column("cfht.megacam.u_err").to_numpy() < 0
    expected = 16.4 - 2.5 * np.log10(given.column("cfht.megacam.u").to_numpy()[limited])
    assert rows.column("maglim_u").to_numpy()[limited] == pytest.approx(expected, abs=1e-4)


def test_boss_spectra_stacked_in_the_rest_frame(root: Path, real_data: Path, tmp_path: Path) -> None:
    """Calcium K and [O II] of 150 galaxies lie at their vacuum wavelengths."""
    survey, summary, rows = bring_in("boss", root, real_data, tmp_path)
    assert (summary.rows, summary.kept, dict(summary.rejected)) == (359, 336, {"sky_fiber": 23})
    assert summary.faults == {"spectrum": {"spectrum_masked": 1}}
    (kind,) = of_survey(survey)
    batch = kind.read(rows)
    assert isinstance(batch, Spectra)
    assert np.corrcoef(np.nan_to_num(batch.sn), rows["SN_MEDIAN_ALL"].to_numpy())[0, 1] > 0.999
    given = pq.read_table(find(survey, real_data).survey[0], columns=["spec", "Z", "ZWARNING", "CLASS"]).to_pylist()
    redshift = {row["spec"]: row["Z"] for row in given if row["CLASS"] == "GALAXY" and row["ZWARNING"] == 0}
    z = np.array([redshift.get(name, np.nan) for name in rows["object_id"].to_pylist()])
    used = (z > 0.05) & (z < 0.9)
    normalized = normalize(batch.flux[used], batch.ivar[used])
    rest = np.log10(batch.grid.wavelength) - np.log10(1 + z[used])[:, None]
    edges = np.log10(3650.0) + np.arange(1, 500) * batch.grid.step
    sums, counts = (
        np.histogram(rest, edges, weights=weights)[0]
        for weights in (normalized.values, (normalized.ivar > 0).astype(float))
    )
    stack, wavelength = sums / counts, 10 ** ((edges[1:] + edges[:-1]) / 2)

    def at(center: float, extreme: int) -> float:
        near = np.abs(wavelength - center) < 12
        smooth = np.convolve(stack, np.ones(5) / 5, "same")
        return float(wavelength[near][np.argmax(extreme * smooth[near])])

    assert used.sum() > 150
    assert at(3728.8, 1) == pytest.approx(3728.8, abs=2.0)
    assert at(3934.8, -1) == pytest.approx(3934.8, abs=2.5)


def test_fors2_spectra_without_errors(real_data: Path) -> None:
    section = {
        "flux": "flux",
        "mask": "mask",
        "wavelength": {"column": "wavelength_angstrom", "unit": "angstrom", "air": True},
        "grid": {"start": 4460, "stop": 9240, "pixels": 1424},
    }
    columns = {"object_id": "name", "redshift": "redshift"}
    tables = {"train": ["fors2.parquet"], "test": ["other.parquet"]}
    survey = Survey.model_validate({"tables": tables, "columns": columns, "spectrum": section})
    rows = read_tables([real_data / "fors2_spectra" / "spectra.parquet"], survey)
    (kind,) = of_survey(survey)
    batch = kind.read(rows)
    assert isinstance(batch, Spectra) and len(batch) == 594
    assert 3 < np.median(batch.sn) < 10 and batch.good.min() > 0.3


def test_piczl(root: Path, real_data: Path, tmp_path: Path) -> None:
    """Stamps with photometry, joined by row: pixel by pixel those of the files."""
    survey, summary, rows = bring_in("piczl", root, real_data, tmp_path)
    assert (summary.rows, summary.kept, summary.unusable) == (100, 100, 0) and "image" not in summary.faults
    photometry, images = (kind.read(rows) for kind in of_survey(survey))
    assert isinstance(images, Images) and (images.good == 1).all() and not images.flags().any()
    folder = real_data / "piczl_ls10_agn"
    cubes, names = [], []
    for part in ("train", "run"):
        with np.load(folder / f"{part}_images.npz", allow_pickle=False) as archive:
            cubes.append(np.moveaxis(archive["processed_dered_griz_images"], 0, 1))
        table = open_table(folder / f"{part}_catalog.fits")
        names += [name for batch in table.batches(["FULLID"], 100) for name in batch.column(0).to_pylist()]
    place = [names.index(name) for name in rows["object_id"].to_pylist()]
    assert np.array_equal(images.flux, np.concatenate(cubes)[place])
    bright = images.sn > 200
    color = np.array([photometry.mag[bright, 0] - photometry.mag[bright, 1], images.summary_features()[bright, 0]])
    assert bright.sum() > 40 and np.nanmedian(np.abs(np.diff(color, axis=0))) < 0.15, "the colors of the catalog"


def test_missing_colors_of_piczl(root: Path, real_data: Path, tmp_path: Path) -> None:
    """Pixels of -99 in an image of two colors are not measured."""
    content = load_survey("piczl", root / "surveys").model_dump(mode="json")
    planes = [f"aperture_images_LS10_colours[{number}]" for number in range(2)]
    content["sections"]["image"] |= {"bands": ["gr", "gi"], "flux": planes, "noise": "pixel"}
    for missing in ([-99], []):
        content["sections"]["image"]["missing"] = missing
        survey = Survey.model_validate(content)
        files = [Path(file) for file in find(survey, real_data, further=further_files(survey)).survey]
        out = tmp_path / str(len(missing))
        found = import_survey(files, survey, Partitions(), out / "survey", out / "bad.parquet", 1, real_data)
        rows = pa.concat_tables([hats.read_columns(out / "survey", p) for p in hats.partitions(out / "survey")])
        kind = ImageKind.of(survey)
        assert kind is not None
        images = kind.read(rows)
        fault = "pixel_not_finite" if missing else "image_constant"
        assert found.faults["image"][fault] == 12 and not (images.flux == -99).any(), "complete planes are missing"
        assert (images.good < 1).any()
