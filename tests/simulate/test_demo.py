"""The demo sky as files: the same seed gives the same bytes, the definition fits them, and redshifts can be learned."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest
from astropy.table import Table
from scipy.spatial import cKDTree

from zmill import config
from zmill.catalog.files import file_hash
from zmill.simulate import demo


def written(sky: demo.Demo, folder):
    tracts = [folder / f"survey/part-{number}.parquet" for number in range(demo.TRACTS)]
    spectra = [folder / "specz" / name for name in ("sdss.fits", "ned.vot", "deep.csv")]
    truth = [folder / "truth" / name for name in ("truth.parquet", "specz.parquet")]
    demo.write(sky, tracts, *spectra, truth)
    return [*tracts, *spectra, *truth]


def test_same_seed_same_bytes(small_sky, tmp_path):
    first = written(small_sky, tmp_path / "first")
    again = written(demo.simulate(seed=3, area=0.08), tmp_path / "again")
    other = written(demo.simulate(seed=4, area=0.08), tmp_path / "other")
    assert [file_hash(path) for path in first] == [file_hash(path) for path in again]
    assert all(file_hash(a) != file_hash(b) for a, b in zip(first, other, strict=True))


def test_files_have_what_the_survey_definition_names(small_sky, tmp_path, root):
    survey = config.load_survey("demo", root / "surveys")
    files = written(small_sky, tmp_path / "demo")
    names = set(pq.read_schema(files[0]).names)
    columns = survey.columns
    per_band = [template.format(band=b) for b in survey.bands for template in (columns.flux, columns.error)]
    assert {columns.object_id, columns.ra, columns.dec, columns.ebv, *columns.extra, *per_band} <= names
    for label in survey.labels:
        keys = label.model_extra
        table = Table.read(tmp_path / label.files[0], format="ascii.csv" if label.name == "deep" else None)
        assert set(keys["columns"].values()) <= set(table.colnames), label.name


def test_tables_read_back(small_sky, tmp_path):
    files = written(small_sky, tmp_path)
    ned = Table.read(files[5])
    assert np.ma.is_masked(ned["z"])
    assert np.allclose(ned["ra"], small_sky.ned["ra"], rtol=0, atol=0)
    assert len(Table.read(files[4])) == len(small_sky.sdss)


def test_truth_knows_every_row_and_every_entry(small_sky):
    ids = np.concatenate([tract.column("objectId").to_numpy() for tract in small_sky.tracts])
    assert set(ids) == set(small_sky.objects.column("object_id").to_pylist())
    entries = small_sky.entries.to_pandas()
    assert set(entries.object_id) <= set(ids)
    assert set(entries.source) == {"sdss", "ned", "deep"}


def test_tracts_divide_the_sky(small_sky):
    centers = []
    for tract in small_sky.tracts:
        ra, dec = tract.column("coord_ra").to_numpy(), tract.column("coord_dec").to_numpy()
        centers.append((np.nanmedian(np.mod(ra + 180, 360)), np.nanmedian(dec)))
    assert len(np.unique(np.round(centers, 2), axis=0)) == demo.TRACTS


def test_neighbours_in_color_have_similar_redshifts(small_sky):
    truth = small_sky.objects.to_pandas()
    galaxies = truth[~truth.is_star & ~truth.is_quasar & (truth.mag_i < 23.5)]
    mag = galaxies[[f"mag_{band}" for band in "ugrizy"]].to_numpy()
    space = np.concatenate([-np.diff(mag, axis=1), 0.2 * mag[:, 3:4]], axis=1)
    z = galaxies.z_true.to_numpy()
    train = np.arange(len(z)) % 2 == 0
    _, near = cKDTree(space[train]).query(space[~train], k=5)
    delta = (np.median(z[train][near], axis=1) - z[~train]) / (1 + z[~train])
    assert 1.4826 * np.median(np.abs(delta)) < 0.05
    shuffled = np.random.default_rng(1).permutation(z[train])
    chance = (np.median(shuffled[near], axis=1) - z[~train]) / (1 + z[~train])
    assert np.median(np.abs(chance)) > 3 * np.median(np.abs(delta))


@pytest.mark.parametrize("area", [0.01, 0.02])
def test_tiny_skies_work(area):
    sky = demo.simulate(seed=1, area=area)
    assert sum(tract.num_rows for tract in sky.tracts) > 100
