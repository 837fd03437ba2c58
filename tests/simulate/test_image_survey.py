"""Simulated surveys of stamps: files, noise, errors, colors, determinism, and what the stamps say of the redshift."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy.stats import kstest, spearmanr

from zmill import config
from zmill.catalog.files import file_hash
from zmill.catalog.sky import at_order, healpix
from zmill.config import MOST_STAMPS
from zmill.inputs.image.settings import ImageSettings
from zmill.simulate import IMAGERS, galaxies, image_survey, imaging, morphology
from zmill.simulate.render import BULGE, DISC

NAMES = ("survey", "redshifts", "truth")


def simulated(folder, name="images", number=150, size=32, seed=3):
    folder.mkdir()
    paths = {kind: folder / f"{kind}.parquet" for kind in NAMES}
    image_survey.simulate(name, number, size, seed, **paths)
    return paths


@pytest.fixture(scope="module")
def survey(tmp_path_factory):
    return simulated(tmp_path_factory.mktemp("survey") / "images")


@pytest.fixture(scope="module")
def sdss():
    """The SDSS-like survey, with small fields."""
    return replace(imaging.sdss(), area=1.0)


@pytest.fixture(scope="module")
def patch(sdss):
    return image_survey.patch(sdss, 0, 5, 32)


@pytest.fixture(scope="module")
def stamps(sdss, patch):
    return image_survey.take(sdss, patch, slice(0, 100), 32, np.random.default_rng(1))


def test_files_are_of_the_same_galaxies(survey):
    table, labels, truth = (pq.read_table(survey[kind]) for kind in NAMES)
    image = table.column("image").combine_chunks().to_numpy_ndarray()
    assert image.shape == (150, 5, 32, 32) and image.dtype == np.float32
    assert np.isfinite(image).all()
    for name in ("image_ivar", "image_psf"):
        values = np.stack(table.column(name).to_numpy())
        assert values.shape == (150, 5) and (values > 0).all()
    assert len(set(table.column("object_id").to_pylist())) == 150
    for name in ("object_id", "ra", "dec"):
        assert table.column(name).equals(labels.column(name))
    assert truth.column("object_id").equals(table.column("object_id"))
    assert not {"redshift", "type", "dust", "bulge_fraction"} & set(table.column_names)
    z = labels.column("redshift").to_numpy()
    assert (z > 0).all() and (z < 0.4).all()
    r = table.column("mag_r").to_numpy() - 2.285 * table.column("ebv").to_numpy()
    assert (r < 17.8).all() and np.median(r) > 16.5


def test_the_same_seed_gives_the_same_bytes_and_more_stamps_keep_the_first(survey, tmp_path):
    again = simulated(tmp_path / "again")
    assert [file_hash(again[kind]) for kind in NAMES] == [file_hash(survey[kind]) for kind in NAMES]
    fewer = pq.read_table(simulated(tmp_path / "fewer", number=100)["survey"])
    assert fewer.equals(pq.read_table(survey["survey"]).slice(0, 100))
    other = pq.read_table(simulated(tmp_path / "other", number=100, seed=4)["survey"])
    assert not other.column("mag_r").equals(fewer.column("mag_r"))


def test_noise_is_that_of_the_sky_and_of_the_photons(sdss, stamps):
    noise = stamps.image - stamps.expected
    deviation = noise / np.sqrt(imaging.variance(sdss, stamps.expected, stamps.at.noise))
    n = deviation[:, 0].size
    assert np.abs(deviation.mean(axis=(0, 2, 3))).max() < 5 / np.sqrt(n)
    np.testing.assert_allclose(deviation.var(axis=(0, 2, 3)), 1, atol=5 * np.sqrt(2 / n))
    border = np.ones((32, 32), bool)
    border[4:-4, 4:-4] = False
    scatter = 1.4826 * np.median(np.abs(noise[..., border]), axis=-1) / stamps.at.noise
    np.testing.assert_allclose(np.median(scatter, axis=0), 1, atol=0.06)
    # the photons of a bright galaxy: its center is noisier than the sky
    bright = np.argmax(stamps.flux[:, 2])
    center = imaging.variance(sdss, stamps.expected, stamps.at.noise)[bright, 2, 16, 16]
    assert center > 1.5 * stamps.at.noise[bright, 2] ** 2


@pytest.mark.parametrize("made_by", [imaging.sdss(), imaging.lsst()], ids=["sdss", "lsst"])
def test_point_sources_at_the_depth_have_five_sigma(made_by):
    """Of the noise in the pixels alone, for the seeing of the survey."""
    from zmill.simulate.render import Sources, render

    one, bands = np.ones(1), len(made_by.bands)
    of = Sources(
        np.zeros(1, np.int64),
        0 * one,
        0 * one,
        np.full((1, 2, bands), 0.5),
        np.full((1, 2), 1e-4),
        np.ones((1, 2)),
        one,
        one,
    )
    profile = render(of, 1, 64, made_by.pixel_scale, np.array([made_by.seeing]))
    flux = imaging.flux(np.array(made_by.depth))
    error = imaging.sky_noise(made_by) / np.sqrt((profile[0] ** 2).sum(axis=(1, 2)))
    np.testing.assert_allclose(flux / error, 5, rtol=0.2)


def test_errors_of_the_catalogue_are_the_scatter_about_the_truth(sdss, patch):
    pulls = []
    for number in range(3):
        made = image_survey.take(sdss, patch, slice(0, 90), 32, np.random.default_rng(number))
        true = imaging.flux(made.mag).sum(axis=1)
        pulls.append((made.flux - true) / made.error)
    pulls = np.concatenate(pulls)
    for band in range(5):
        assert kstest(pulls[:, band], "norm").pvalue > 1e-3, sdss.bands[band]
    assert pulls.std() == pytest.approx(1, abs=0.1)


def test_errors_below_one_sigma_are_limits():
    magnitude, error = imaging.catalogue_magnitudes(np.array([100.0, 0.5, -3.0]), np.array([1.0, 1.0, 1.0]))
    np.testing.assert_allclose(magnitude, [17.5, 99, 99])
    np.testing.assert_allclose(error, [1.0857e-2, 22.5, 22.5], rtol=1e-3)


def test_bulge_and_disc_have_the_type_size_and_light_of_the_galaxy(patch):
    sample, structure = patch.sample, patch.structure
    fraction = structure.bulge_fraction
    mean = fraction * structure.type[:, BULGE] + (1 - fraction) * structure.type[:, DISC]
    free = structure.type[:, DISC] < 7
    np.testing.assert_allclose(mean[free], sample.type[free], atol=1e-9)
    assert free.mean() > 0.99
    # earlier types have larger bulges; bulges are redder and more compact than discs
    assert spearmanr(sample.type, fraction).statistic < -0.6
    assert (structure.type[:, BULGE] <= structure.type[:, DISC] + 1e-9).all()
    color = patch.mag[:, :, 1] - patch.mag[:, :, 2]
    assert np.mean(color[:, BULGE] > color[:, DISC] - 0.05) > 0.9
    assert np.median(structure.radius[:, BULGE] / structure.radius[:, DISC]) < 0.4
    # edge-on blue discs are redder than those seen face-on
    blue = ~sample.red & (sample.mag_abs < -19) & (sample.z < 0.4)
    ratio = structure.axis_ratio[blue, DISC]
    edge, face = color[blue, DISC][ratio < 0.35], color[blue, DISC][ratio > 0.8]
    assert np.median(edge) > np.median(face) + 0.05


def test_photometry_is_that_of_the_demo_sky():
    rng = np.random.default_rng(2)
    field = image_survey.place(imaging.lsst(), 0)
    sample = galaxies.draw(rng, replace(field, width=0.5, height=0.5), 20.5)
    structure = morphology.draw(rng, sample)
    parts = morphology.magnitudes(rng, sample, structure, galaxies.LSST)
    total = -2.5 * np.log10((10 ** (-0.4 * parts)).sum(axis=1))
    difference = total - galaxies.magnitudes(sample)
    color = -np.diff(difference, axis=1)
    assert np.abs(np.median(color, axis=0)).max() < 0.08
    assert np.std(color[:, 1]) < 0.15


def test_nothing_but_light_says_what_the_redshift_is(sdss):
    """Not identifiers, dust of the Milky Way, seeing, noise, nor the position in the field or in the stamp."""
    z, other = [], []
    for number in range(4):
        of = image_survey.patch(replace(sdss, faintest_i=18.5), number, 9, 32)
        rows, count = of.targets, len(of.targets)
        z.append(of.sample.z[rows])
        other.append(
            np.column_stack([np.arange(count), of.x[rows], of.y[rows], of.at.ebv, of.at.fwhm[:, 2], of.at.noise[:, 2]])
        )
    z, other = np.concatenate(z), np.concatenate(other)
    assert len(z) > 300
    for column in other.T:
        assert abs(spearmanr(column, z).statistic) < 0.2


def test_neighbors_are_of_the_same_sky(sdss, patch):
    made = image_survey.take(sdss, patch, slice(0, 60), 64, np.random.default_rng(1))
    assert made.neighbors.sum() > 20
    light = (made.expected - made.alone).sum(axis=(2, 3))
    assert (light[made.neighbors == 0] == 0).all()
    assert (light[made.neighbors > 0].sum(axis=1) > 0).mean() > 0.9
    # a galaxy is at the center of its stamp
    r = made.alone[:, 2]
    y, x = np.mgrid[:64, :64] - 31.5
    for axis in (x, y):
        assert np.abs((r * axis).sum(axis=(1, 2)) / r.sum(axis=(1, 2))).max() < 0.6


def test_the_brightest_pixel_moves_with_the_position_on_the_sky(sdss, patch):
    """North is up and east is left: a neighbor of higher declination is in a higher row, and one of higher right ascension left."""
    found = 0
    size = 64
    made = image_survey.take(sdss, patch, slice(0, 200), size, np.random.default_rng(1))
    light = made.expected[:, 2] - made.alone[:, 2]
    for stamp, row in enumerate(made.rows):
        dx = (patch.ra - patch.ra[row]) * np.cos(np.radians(patch.dec[row])) * 3600
        dy = (patch.dec - patch.dec[row]) * 3600
        near = (np.hypot(dx, dy) < 10) & (np.arange(len(dx)) != row)
        if near.sum() != 1 or made.neighbors[stamp] != 1:
            continue
        found += 1
        peak = np.unravel_index(np.argmax(light[stamp]), (size, size))
        assert peak[0] - 31.5 == pytest.approx(dy[near][0] / 0.396, abs=1.6)
        assert peak[1] - 31.5 == pytest.approx(-dx[near][0] / 0.396, abs=1.6)
    assert found > 5


def test_the_sky_can_be_divided_into_blocks_and_has_room_for_all_stamps(sdss):
    for made_by in (imaging.sdss(), imaging.lsst()):
        of = image_survey.patch(replace(made_by, faintest_i=made_by.limit + 0.5), 0, 1, 32)
        assert len(of.targets) * 4 * 4**made_by.order > 1.3 * MOST_STAMPS
    fields = [image_survey.place(imaging.sdss(), number) for number in range(9)]
    assert len({(field.ra, field.dec) for field in fields}) == 9
    of = image_survey.patch(imaging.sdss(), 0, 1, 32)
    blocks = np.unique(at_order(healpix(of.ra[of.targets], of.dec[of.targets]), 8))
    assert len(blocks) > 50


@pytest.mark.parametrize("name", IMAGERS)
def test_survey_definitions_have_the_columns_and_pixels_of_the_files(root, tmp_path, survey, name):
    paths = survey if name == "images" else simulated(tmp_path / name, name=name, number=20)
    definition = config.load_survey(f"demo_{name}", root / "surveys")
    image = ImageSettings.model_validate(definition.sections["image"])
    made_by = image_survey.imager(name)
    assert image.pixel_scale == made_by.pixel_scale
    assert image.size == config.Config().demo.stamp_size
    assert tuple(image.bands) == tuple(definition.bands) == made_by.bands
    assert tuple(definition.filters[band] for band in made_by.bands) == made_by.filters
    assert [definition.extinction.coefficients[band] for band in made_by.bands] == list(made_by.extinction)
    assert definition.redshift_grid.max >= made_by.farthest
    columns = definition.columns
    named = {columns.object_id, columns.ra, columns.dec, columns.ebv, *image.flux, *image.ivar, image.psf_fwhm}
    named |= {f"{what}_{band}" for what in ("mag", "magerr") for band in made_by.bands}
    assert named == set(pq.read_schema(paths["survey"]).names)
    (label,) = definition.labels
    assert label.files == [f"demo_{name}/redshifts.parquet"]
    assert set(label.model_extra["columns"].values()) <= set(pq.read_schema(paths["redshifts"]).names)
