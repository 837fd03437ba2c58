"""The input kind image at its contract: batches, degradations, and a survey from its file to the clean catalogue."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash

from zmill.catalog import hats
from zmill.clean.partition import Recipe
from zmill.clean.shard import clean_shard, finish_catalog
from zmill.config import ConfigError, Partitions
from zmill.inputs import registry
from zmill.inputs.image.batch import AT_EDGE, FEW_GOOD_PIXELS, NO_IMAGE, Images, aperture
from zmill.inputs.image.degradation import ImageDegradation
from zmill.inputs.image.kind import ImageKind
from zmill.inputs.image.settings import ImageSettings
from zmill.survey.check import check_columns
from zmill.survey.importer import import_survey
from zmill.survey.plausible import look
from zmill.survey_definition import Survey

BANDS, SIZE = ("g", "r", "i"), 16
SHAPE = (len(BANDS), SIZE, SIZE)


def batch(rows: int = 6, per_pixel: bool = False) -> Images:
    """Galaxies of different brightness, size and color in noise of standard deviation 1."""
    rng = np.random.default_rng(rows)
    offset = np.arange(SIZE) - (SIZE - 1) / 2
    radius = rng.uniform(1.2, 3, (rows, 1, 1, 1))
    shape = np.exp(-0.5 * (offset[:, None] ** 2 + offset**2) / radius**2)
    flux = rng.uniform(5, 60, (rows, 1, 1, 1)) * rng.uniform(0.5, 2, (rows, 3, 1, 1)) * shape
    flux = (flux + rng.normal(0, 1, flux.shape)).astype(np.float32)
    ivar = np.ones((rows, *SHAPE) if per_pixel else (rows, 3, 1, 1), np.float32)
    unknown = np.full(rows, np.nan, np.float32)
    psf = np.full((rows, 3), 1.1, np.float32)
    return Images(flux, ivar, psf, unknown, unknown, np.zeros(rows, np.bool_), unknown, BANDS, SIZE, 0.4).with_pixels(
        flux, ivar
    )


def hashed(rows: Images) -> str:
    digest = xxhash.xxh3_128()
    rows.update(digest)
    return digest.hexdigest()


def stored(rows: Images) -> pa.Table:
    """The rows as columns of a catalogue."""
    per_pixel = rows.ivar.shape[2] > 1
    kind = pa.fixed_shape_tensor(pa.float32(), SHAPE)

    def column(array: np.ndarray, tensor: bool) -> pa.Array:
        flat = pa.FixedSizeListArray.from_arrays(pa.array(array.reshape(-1)), array[0].size)
        return pa.ExtensionArray.from_storage(kind, flat) if tensor else flat

    columns = {
        "image": column(rows.flux, True),
        "image_ivar": column(rows.ivar, per_pixel),
        "image_psf": column(rows.psf, False),
    }
    columns |= {f"image_{name}": getattr(rows, name) for name in ("sn", "good", "edge")}
    return pa.table(columns | {"ebv": rows.ebv})


@pytest.mark.parametrize("per_pixel", [False, True])
def test_batches_are_cut_joined_and_read(per_pixel: bool) -> None:
    rows = batch(per_pixel=per_pixel)
    assert hashed(Images.join([rows[:2], rows[2:]])) == hashed(rows)
    assert hashed(rows[np.array([1, 0, 2, 3, 4, 5])]) != hashed(rows)
    kind = ImageKind(BANDS, SIZE, 0.4)
    table = stored(rows)
    assert hashed(kind.read(table)) == hashed(rows)
    assert hashed(kind.read(pa.concat_tables([table.slice(0, 2), table.slice(2)]))) == hashed(rows)
    assert len(kind.read(table.schema.empty_table())) == 0
    with pytest.raises(ValueError, match="stamps of 3 x 20 x 20 pixels were expected"):
        ImageKind(BANDS, 20, 0.4).read(table)
    again = ImageKind.from_json(json.loads(json.dumps(kind.to_json())))
    assert again == kind and kind.differs(again) == ""
    assert "stamps of 16 x 16 pixels of 0.2 arcsec" in kind.differs(ImageKind(BANDS, SIZE, 0.2))


@pytest.mark.parametrize("per_pixel", [False, True])
def test_apertures(per_pixel: bool) -> None:
    rows = batch(40, per_pixel)
    offset = np.arange(SIZE) - (SIZE - 1) / 2
    disk = np.hypot(offset[:, None], offset) <= SIZE / 4
    found = aperture(rows.flux, rows.ivar)
    assert found.flux == pytest.approx(rows.flux[:, :, disk].sum(axis=2), rel=1e-5)
    assert found.variance == pytest.approx(float(disk.sum()))
    assert rows.sn == pytest.approx(rows.flux[:, :, disk].sum(axis=(1, 2)) / np.sqrt(3 * disk.sum()), rel=1e-4)


@pytest.mark.parametrize("per_pixel", [False, True])
def test_rows_without_good_pixels(per_pixel: bool) -> None:
    rows = batch(per_pixel=per_pixel)
    ivar, flux = rows.ivar.copy(), rows.flux.copy()
    ivar[0], ivar[1, :2] = 0, 0
    rows = rows.with_pixels(flux, ivar)
    rows = rows.with_arrays(rows.arrays | {"edge": np.array([True, False, True, False, False, False])})
    assert rows.flags()[:4].tolist() == [NO_IMAGE | FEW_GOOD_PIXELS, FEW_GOOD_PIXELS, AT_EDGE, 0]
    assert rows.information()[:3].tolist() == [rows.classes, -1, -1]
    assert np.isnan(rows.brightness()[0]) and np.isfinite(rows.brightness()[1:]).all()
    features = rows.summary_features()
    assert features.shape == (6, len(rows.feature_names)) and np.isnan(features[0]).all()
    assert np.isnan(features[1, :2]).all() and np.isfinite(features[1, 2:]).all() and np.isfinite(features[2:]).all()
    assert rows.states()["masked"][:3].tolist() == [7, 3, 0] and rows.parts == BANDS
    assert (rows.flux[0] == 0).all() and rows.identities()[0] == b"" and len(set(rows.identities())) == 6


def test_features_are_colors_that_do_not_depend_on_the_unit() -> None:
    rows = batch(30)
    scaled = rows.with_pixels(rows.flux * np.float32(1e-6), rows.ivar * np.float32(1e12))
    assert scaled.summary_features() == pytest.approx(rows.summary_features(), rel=1e-3, abs=1e-3)
    found = aperture(rows.flux, rows.ivar).flux
    bright = (found[:, :2] > 300).all(axis=1)
    color = -2.5 * np.log10(found[bright, 0] / found[bright, 1])
    assert bright.sum() > 10 and rows.summary_features()[bright, 0] == pytest.approx(color, abs=0.05)


@pytest.mark.parametrize("per_pixel", [False, True])
def test_degradations_take_parts_away(per_pixel: bool) -> None:
    rows, degradation = batch(40, per_pixel), ImageDegradation()
    patterns = degradation.tests(rows)
    assert [pattern.name for pattern in patterns] == [
        "as observed",
        "without g",
        "without r",
        "without i",
        "twice the noise",
    ]
    for pattern in patterns:
        concerned = degradation.concerns(rows, pattern)
        changed = degradation.apply(rows, pattern)
        assert concerned.all() and len(changed) == 40
        if pattern.band is not None:
            assert (changed.flux[:, pattern.band] == 0).all() and (
                changed.states()["masked"] == 1 << pattern.band
            ).all()
            assert not degradation.concerns(changed, pattern).any()
        elif pattern.noise > 1:
            assert changed.sn == pytest.approx(rows.sn / 2, rel=0.3)
            assert np.array_equal(changed.flux, degradation.apply(rows, pattern).flux)
            assert (changed.flux - rows.flux).std() == pytest.approx(np.sqrt(3), rel=0.05)


def test_two_stamps_of_one_object_have_one_flux() -> None:
    kind, rows = ImageKind(BANDS, SIZE, 0.4), batch(30)
    fainter = rows.with_pixels(rows.flux / np.array([1, 1.2, 9] * 10, np.float32)[:, None, None, None], rows.ivar)
    assert kind.agree(stored(rows), stored(fainter)).tolist() == [True, True, False] * 10
    empty = stored(rows.with_pixels(rows.flux, rows.ivar * 0))
    assert kind.agree(stored(rows), empty).all() and len(kind.agree(empty.slice(0, 0), empty.slice(0, 0))) == 0


def test_identical_images_are_constant() -> None:
    rows = batch(4)
    assert rows.constants() == {}
    assert rows[np.zeros(4, int)].constants()["the image in g"][1] == 4


# ------------------------------------------------------------------------------------------------------ river


def definition(**more: Any) -> Survey:
    section = {"bands": list(BANDS), "size": SIZE, "pixel_scale": 0.4, "flux": "image", "ivar": "ivar", "psf_fwhm": 1.1}
    section |= more.pop("section", {})
    columns = {"object_id": "id", "ra": "ra", "dec": "dec"}
    return Survey.model_validate({"files": ["s.parquet"], "columns": columns, "image": section} | more)


def write(path: Path, rows: int = 250, shape: tuple[int, ...] = SHAPE, **columns: Any) -> Images:
    images, rng = batch(rows), np.random.default_rng(5)
    flux = images.flux.copy()
    flux[7] = np.nan
    flat = pa.FixedSizeListArray.from_arrays(pa.array(flux.reshape(-1)), flux[0].size)
    table = {
        "id": np.arange(rows),
        "ra": rng.uniform(10, 12, rows),
        "dec": rng.uniform(-1, 1, rows),
        "image": pa.ExtensionArray.from_storage(pa.fixed_shape_tensor(pa.float32(), shape), flat),
        "ivar": pa.array(images.ivar.reshape(rows, 3).tolist(), pa.list_(pa.float32())),
    }
    pq.write_table(pa.table(table | columns), path, row_group_size=100)
    ivar = images.ivar.copy()
    ivar[7] = 0
    return images.with_pixels(np.nan_to_num(flux), ivar)


def test_a_survey_of_images_from_its_file_to_the_clean_catalogue(tmp_path: Path) -> None:
    images, survey = write(tmp_path / "s.parquet"), definition(cuts={"bright": {"column": "image_sn", "min": 5.0}})
    files = [tmp_path / "s.parquet"]
    check_columns(files, survey)
    found = look(files, survey)
    assert found.refusal is None and found.warnings == [
        f"image_masked: 1 in image of 250 rows ({ImageKind.faults['image_masked']})"
    ]
    counts = import_survey(files, survey, Partitions(max_rows=100), tmp_path / "survey", tmp_path / "bad.parquet")
    assert (counts.rows, counts.kept, counts.unusable) == (250, 250, 1)
    assert counts.json()["faults"] == {"image": {"image_masked": 1, "pixel_not_finite": 1}}
    partitions = hats.partitions(tmp_path / "survey")
    recipe = Recipe(tuple(registry.of_survey(survey)), survey.cuts, {})
    clean_shard(tmp_path / "survey", tmp_path / "clean", partitions, recipe, tmp_path / "progress.json")
    finish_catalog(tmp_path / "survey", tmp_path / "clean", "test")
    tables = [hats.read_columns(tmp_path / "clean", one) for one in partitions]
    (kind,) = registry.from_json(json.loads(json.dumps(registry.settings_of(survey))))
    rows = kind.read(pa.concat_tables(tables))
    assert isinstance(rows, Images) and len(partitions) > 1
    ids = pa.concat_tables(tables)["object_id"].to_numpy()
    assert hashed(rows) == hashed(images[ids])
    hats_check = pytest.importorskip("hats.io.validation")
    assert hats_check.is_valid_catalog(str(tmp_path / "clean"), strict=True)
    lsdb = pytest.importorskip("lsdb")
    opened = lsdb.open_catalog(str(tmp_path / "clean"), columns=["object_id", "image"]).compute()
    assert np.array_equal(np.array(opened["image"].iloc[0]), images.flux[opened["object_id"].iloc[0]])


def test_files_that_contradict_the_definition_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.parquet"
    write(path, size=np.ones(250))
    for section, message in {
        "flux: imag": r"no column 'imag' \(image.flux\).*image",
        "flux: size": r"'size' \(image.flux\) holds double and not several numbers per row",
        "size: 20": r"column 'image' \(image.flux\) has the shape 3 x 16 x 16, but image.bands and image.size make it 3 x 20 x 20",
        "order: bands_last": r"has the shape 3 x 16 x 16, but image.order is bands_last: write order: bands_first",
    }.items():
        key, _, value = section.partition(": ")
        with pytest.raises(ConfigError, match=message):
            check_columns([path], definition(section={key: int(value) if value.isdigit() else value}))
    write(path, shape=(SIZE, SIZE, 3))
    with pytest.raises(
        ConfigError, match=r"has the shape 16 x 16 x 3, but image.order is bands_first: write order: bands_last"
    ):
        check_columns([path], definition())


def test_units_that_contradict_the_definition_are_refused() -> None:
    section = {"flux": "flux_{band}", "error": "noise_{band}", "ivar": None, "noise": "pixel"}
    fluxes = {f"flux_{band}": "nJy" for band in BANDS}
    assert ImageKind.wrong_units(fluxes | {"noise_g": "nJy"}, definition(section=section)) == {}
    for units, column, message in (
        (fluxes | {"noise_g": "1/nJy^2"}, "noise_g", "write ivar: noise_g"),
        (fluxes | {"flux_g": "uJy"}, "flux_r", "give image.flux_unit for each band"),
        (fluxes | {"flux_g": "mag"}, "flux_g", "no magnitudes"),
    ):
        assert message in ImageKind.wrong_units(units, definition(section=section))[column]


def test_implausible_stamps_give_warnings(tmp_path: Path) -> None:
    path = tmp_path / "s.parquet"

    def warned(of: str, survey: Survey, flux: np.ndarray, **columns: Any) -> bool:
        write(path, image=pa.array(flux.reshape(250, -1).tolist(), pa.list_(pa.float32())), **columns)
        return any(of in line for line in look([path], survey).warnings)

    flux = batch(250).flux
    marked = flux.copy()
    marked[:, :, ::8] = -99
    assert warned("one value, -99, stands in 12.5% of the pixels", definition(), marked)
    assert not warned("one value", definition(section={"missing": [-99]}), marked)
    assert warned("write image: {order: bands_last}", definition(), flux.transpose(0, 2, 3, 1))
    assert not warned("order", definition(section={"order": "bands_last"}), flux.transpose(0, 2, 3, 1))
    assert warned("the sky is not subtracted", definition(), flux + 100)
    assert not warned("sky", definition(), flux)
    bright = pa.array([[1e12] * 3] * 250, pa.list_(pa.float32()))
    assert warned("signal-to-noise ratio of the aperture of 250 rows", definition(), flux, ivar=bright)


def test_most_stamps_without_a_good_pixel_refuse_the_files(tmp_path: Path) -> None:
    write(tmp_path / "s.parquet", ivar=pa.array([[0.0] * 3] * 250, pa.list_(pa.float32())))
    found = look([tmp_path / "s.parquet"], definition())
    assert found.refusal is not None and "image_masked" in found.refusal


def test_the_schema_of_the_section_is_documented() -> None:
    root = Path(__file__).resolve().parents[3]
    assert json.loads((root / "docs/schema/image.json").read_text()) == ImageSettings.model_json_schema()
