"""Simulated surveys of spectra: files, noise, determinism, and the split by SED."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy import units as u
from pyarrow import csv

from simulate.seds import file, shaped
from zmill import config
from zmill.catalog.files import file_hash
from zmill.catalog.sky import at_order, healpix
from zmill.config import Split
from zmill.inputs.registry import of_survey
from zmill.restframe.seds import SedError, read_seds
from zmill.sample.sample import SPLITS, assign
from zmill.sed import LIGHT_SPEED
from zmill.simulate import INSTRUMENTS, spectral_survey

NAMES = ("clean", "noisy", "redshifts", "seds")


def simulated(folder, name="spherex", number=600, files=(), seed=3):
    folder.mkdir()
    paths = {kind: folder / f"{kind}.{'csv' if kind == 'seds' else 'parquet'}" for kind in NAMES}
    spectral_survey.simulate(name, number, files, seed, **paths)
    return paths


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """40 SEDs, three of which are copies of others, and one that ends at 3 micron."""
    made = [shaped(number) for number in range(36)]
    copies = [type(one)(f"copy-{one.name}", one.wave, 5 * one.flux) for one in made[:3]]
    short = type(made[0])("short", made[0].wave[made[0].wave < 30_000], made[0].flux[made[0].wave < 30_000])
    return file(tmp_path_factory.mktemp("seds") / "seds.parquet", [*made, *copies, short])


@pytest.fixture(scope="module")
def survey(tmp_path_factory, library):
    """600 SPHEREx spectra of `library`."""
    return simulated(tmp_path_factory.mktemp("survey") / "spherex", files=[library])


def arrays(path):
    table = pq.read_table(path)
    return table, *(np.stack(table.column(name).to_numpy()).astype(np.float64) for name in ("flux", "ivar"))


def test_files_have_spectra_of_the_same_objects(survey):
    clean, noisy, labels = (pq.read_table(survey[kind]) for kind in ("clean", "noisy", "redshifts"))
    assert clean.schema.field("flux").type == pa.list_(pa.float32(), 102)
    assert clean.schema.equals(noisy.schema)
    assert len(np.frombuffer(clean.schema.metadata[b"wavelength"], "S1")) > 102
    for name in ("object_id", "ra", "dec", "sed"):
        assert clean.column(name).equals(noisy.column(name))
        assert clean.column(name).to_pylist() == labels.column(name).to_pylist()
    assert len(set(clean.column("object_id").to_pylist())) == 600
    assert "redshift" not in clean.column_names


def test_noise_has_the_variance_that_the_file_states(survey):
    _, flux, clean_ivar = arrays(survey["clean"])
    _, noisy, ivar = arrays(survey["noisy"])
    pull = (noisy - flux) * np.sqrt(ivar)
    n = pull.size
    assert abs(pull.mean()) < 5 / np.sqrt(n)
    assert pull.var() == pytest.approx(1, abs=5 * np.sqrt(2 / n))
    assert abs(np.mean(pull[:, 1:] * pull[:, :-1])) < 5 / np.sqrt(n)
    np.testing.assert_allclose(np.median(flux, axis=1) * np.sqrt(clean_ivar[:, 0]), 1e4, rtol=1e-5)


def test_magnitudes_are_those_of_the_spectra(survey):
    table, flux, _ = arrays(survey["clean"])
    wave = spectral_survey.instrument("spherex").spectrograph.wavelength[:17]
    # 17 channels of equal width in ln(wavelength) over the band of the magnitude
    f_nu = np.sum(flux[:, :17] * wave, axis=1) / np.sum(LIGHT_SPEED / wave) * 1e-17
    difference = -2.5 * np.log10(f_nu) - 48.6 - table.column("magnitude").to_numpy()
    assert np.abs(difference).max() < 0.03


def test_the_same_seed_gives_the_same_bytes(survey, library, tmp_path):
    again = simulated(tmp_path / "again", files=[library])
    other = simulated(tmp_path / "other", files=[library], seed=4)
    for kind in NAMES:
        assert file_hash(survey[kind]) == file_hash(again[kind])
    assert file_hash(survey["noisy"]) != file_hash(other["noisy"])


@pytest.mark.parametrize("order", [5, 8, 9])
def test_no_sed_is_in_two_splits(survey, order):
    table = pq.read_table(survey["noisy"])
    keys = healpix(table.column("ra").to_numpy(), table.column("dec").to_numpy())
    side = assign(pa.array(keys), Split(block_order=order), 1)
    splits: dict[str, set[str]] = {}
    for name, part in zip(table.column("sed").to_pylist(), side, strict=True):
        splits.setdefault(name.removeprefix("copy-"), set()).add(part)
    assert len(splits) == 36
    assert all(len(parts) == 1 for parts in splits.values())
    if order == 8:
        assert {next(iter(parts)) for parts in splits.values()} == set(SPLITS)
        assert len(np.unique(at_order(keys, 8))) == 36


def test_every_sed_has_as_many_spectra_and_all_have_their_own_position(survey):
    table = pq.read_table(survey["clean"])
    count = np.unique(table.column("sed").to_numpy(), return_counts=True)[1]
    assert count.max() - count.min() <= 1
    place = np.unique(healpix(table.column("ra").to_numpy(), table.column("dec").to_numpy(), 17))
    assert len(place) == 600  # 1.6 arcsec


def test_the_table_of_seds_has_the_used_and_the_rejected(survey):
    table = csv.read_csv(survey["seds"]).to_pandas()
    assert len(table) == 40
    short = table[table.sed == "short"].iloc[0]
    assert "it covers 900 to 29,9" in short.rejected and "redshifts of 0 to 2" in short.rejected
    assert table.group.nunique() == 36
    assert set(table.lines[table.rejected.isna() | (table.rejected == "")]) == {"added"}


def test_too_few_seds_and_too_many_spectra_are_refused(tmp_path):
    few = file(tmp_path / "few.parquet", [shaped(number) for number in range(19)])
    with pytest.raises(SedError, match=r"few.parquet: 19 different SEDs can be used, and at least 20 are needed"):
        simulated(tmp_path / "few", files=[few])
    wave = np.linspace(3000, 4000, 50)
    short = file(tmp_path / "short.parquet", [type(shaped(1))(f"s{n}", wave, wave) for n in range(30)])
    with pytest.raises(SedError, match=r"0 different SEDs.*first that is not used is s0: it covers 3,000 to 4,000"):
        simulated(tmp_path / "short", files=[short])
    with pytest.raises(SedError, match=r"found 65,537 spectra of an SED, expected at most 65,536.*demo.spectra"):
        spectral_survey.positions(np.zeros(65_537, np.int64))


@pytest.mark.parametrize("name", INSTRUMENTS)
def test_survey_definitions_have_the_wavelengths_and_columns_of_the_files(root, survey, name):
    definition = config.load_survey(f"demo_{name}", root / "surveys")
    (kind,) = of_survey(definition)
    made = spectral_survey.instrument(name)
    np.testing.assert_allclose(kind.grid.wavelength, made.spectrograph.wavelength, atol=0.006)
    assert definition.redshift_grid.min <= made.z[0] and definition.redshift_grid.max >= made.z[1]
    schema = pq.read_schema(survey["noisy"])
    columns = definition.columns
    assert {columns.object_id, columns.ra, columns.dec, *columns.extra, *kind.source_columns(definition)} <= set(
        schema.names
    )
    units = {name: schema.field(name).metadata[b"unit"].decode() for name in ("flux", "ivar")}
    assert type(kind).wrong_units(units, definition) == {}
    assert u.Unit(units["flux"]) ** -2 == u.Unit(units["ivar"])
    (label,) = definition.labels
    assert label.files == [f"demo_{name}/redshifts.parquet"]
    assert set(label.model_extra["columns"].values()) <= set(pq.read_schema(survey["redshifts"]).names)


def test_the_libraries_of_seds_can_be_used(real_data):
    """Also those with repeated wavelengths; what is left out is counted."""
    found, rejected, counts = read_seds(
        [real_data / "sed_library/sed_templates.parquet", real_data / "brown2014_seds/seds.parquet"]
    )
    assert len(found) == 959 + 129
    assert [entry.name for entry in rejected] == ["lephare_QSO_POLLETTA/QSO_Netzer.sed"]
    assert counts == {"unsorted": 0, "repeated": 266, "negative": 18}


@pytest.mark.parametrize("name", ["gaia", "euclid"])
def test_other_instruments_and_mixtures_of_templates(tmp_path, library, name):
    paths = simulated(tmp_path / name, name=name, number=50, files=[library] if name == "euclid" else ())
    _, flux, ivar = arrays(paths["noisy"])
    assert flux.shape == (50, {"gaia": 186, "euclid": 1780}[name])
    assert np.isfinite(flux).all() and np.isfinite(ivar).all() and (ivar > 0).all()
    _, clean, _ = arrays(paths["clean"])
    assert (clean > 0).all()
