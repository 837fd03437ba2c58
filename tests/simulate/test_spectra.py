"""The spectroscopic world: its columns, its selection, and the faults that real catalogues have."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from zmill.catalog.sky import unit_vectors
from zmill.simulate import deep, ned, sdss, sky, survey
from zmill.simulate.field import Field
from zmill.simulate.spectra import Targets, mistaken

FIELD = Field.of_area(0.6)


@pytest.fixture(scope="module")
def targets() -> Targets:
    rng = np.random.default_rng(12)
    seen, rows = survey.observe(rng, FIELD, sky.make(rng, FIELD, 24.5), 24.5)
    return Targets(seen, rows.column("objectId").to_numpy())


@pytest.fixture(scope="module")
def objects(targets) -> pd.DataFrame:
    s = targets.sky
    return pd.DataFrame(
        {"object_id": targets.object_id, "true_ra": s.ra, "true_dec": s.dec, "i": s.mag[:, 3], "r": s.mag[:, 2], "kind": s.kind}
    )  # fmt: skip


@pytest.fixture(scope="module")
def deep_entries(targets, objects) -> pd.DataFrame:
    table, truth = deep.catalogue(np.random.default_rng(13), FIELD, targets)
    joined = table.to_pandas().merge(truth.to_pandas(), left_on="num", right_on="entry", validate="1:1")
    return joined.merge(objects, on="object_id", validate="1:1")


@pytest.fixture(scope="module")
def sdss_entries(targets, objects) -> pd.DataFrame:
    table, truth = sdss.catalogue(np.random.default_rng(14), targets)
    joined = table.to_pandas().merge(truth.to_pandas(), left_on="SPECOBJID", right_on="entry", validate="1:1")
    return joined.merge(objects, on="object_id")


@pytest.fixture(scope="module")
def ned_table(targets):
    return ned.catalogue(np.random.default_rng(15), targets)


def separation(ra, dec, true_ra, true_dec) -> np.ndarray:
    chord = unit_vectors(np.asarray(ra), np.asarray(dec)) - unit_vectors(np.asarray(true_ra), np.asarray(true_dec))
    return np.degrees(np.linalg.norm(chord, axis=1)) * 3600


def test_wrong_redshifts_are_mostly_other_lines():
    z = np.full(20_000, 0.7)
    wrong = mistaken(np.random.default_rng(1), z)
    assert (wrong > 0).all()
    assert np.mean(np.abs(wrong - z) > 0.005 * 1.7) > 0.99
    h_alpha_as_oiii = 1.7 * 6564.6 / 5008.2 - 1
    assert np.mean(np.isclose(wrong, h_alpha_as_oiii, atol=1e-6)) > 0.02


def test_deep_flags_are_as_reliable_as_real_ones(deep_entries):
    correct = deep_entries.groupby("zflag").correct.mean()
    for flag in (1, 2, 3, 4, 9):
        assert correct[flag] == pytest.approx(1 - deep.WRONG[flag], abs=0.06), flag
    assert (deep_entries.z[deep_entries.zflag == 0] == deep.NO_REDSHIFT).all()
    assert not deep_entries.correct[deep_entries.zflag == 0].any()


def test_deep_success_falls_with_magnitude_and_in_the_desert(deep_entries):
    secure = deep_entries.zflag.isin([3, 4])
    bright, faint = deep_entries.i < 22, deep_entries.i > 23.5
    assert secure[bright].mean() > 0.8
    assert secure[faint].mean() < 0.4
    depth = (deep_entries.i > 22.8) & (deep_entries.i < 23.8)
    desert = (deep_entries.z_true > 1.45) & (deep_entries.z_true < 2.1)
    easy = (deep_entries.z_true > 0.3) & (deep_entries.z_true < 0.9)
    assert secure[depth & desert].mean() < 0.7 * secure[depth & easy].mean()


def test_deep_covers_complete_pointings_only(deep_entries, targets):
    inside = np.isin(targets.object_id, deep_entries.object_id)
    nx, ny = round(FIELD.width / deep.POINTING), round(FIELD.height / deep.POINTING)
    column = np.clip((targets.sky.x / FIELD.width * nx).astype(int), 0, nx - 1)
    row = np.clip((targets.sky.y / FIELD.height * ny).astype(int), 0, ny - 1)
    per_pointing = np.bincount((row * nx + column)[inside], minlength=nx * ny)
    assert (per_pointing > 0).sum() == round(deep.COVERED * nx * ny)


def test_broad_lines_and_chance_slits_are_marked(deep_entries):
    tens = deep_entries.zflag // 10
    assert (deep_entries.kind[tens % 2 == 1] == sky.QUASAR).all()
    assert 0.005 < (tens >= 2).mean() < 0.04


@pytest.mark.parametrize(
    "name, sigma, shift",
    [("deep", deep.ASTROMETRY, deep.SHIFT), ("sdss", sdss.ASTROMETRY, sdss.SHIFT)],
)
def test_positions_are_off_by_a_realistic_amount(request, name, sigma, shift):
    entries = request.getfixturevalue(f"{name}_entries")
    ra, dec = ("alpha", "delta") if name == "deep" else ("PLUG_RA", "PLUG_DEC")
    off = separation(entries[ra], entries[dec], entries.true_ra, entries.true_dec)
    assert np.sqrt(np.mean(off**2)) == pytest.approx(np.sqrt(2 * sigma**2 + np.hypot(*shift) ** 2), rel=0.1)


def test_sdss_is_bright_with_its_own_columns_and_faults(sdss_entries):
    assert {"PLUG_RA", "PLUG_DEC", "Z", "Z_ERR", "ZWARNING", "CLASS", "SUBCLASS", "SPECPRIMARY"} <= set(sdss_entries)
    assert set(sdss_entries.CLASS) == {"GALAXY", "STAR", "QSO"}
    assert sdss_entries.r[sdss_entries.kind == sky.GALAXY].max() < 22.5
    galaxies = sdss_entries[(sdss_entries.kind == sky.GALAXY)]
    assert galaxies.correct[galaxies.ZWARNING == 0].mean() > 0.98
    assert galaxies.correct[galaxies.ZWARNING > 0].mean() < 0.9
    assert (sdss_entries.Z_ERR[sdss_entries.ZWARNING == 128] < 0).all()
    secondary = sdss_entries.SPECPRIMARY == 0
    assert 0.03 < secondary.mean() < 0.15
    assert set(sdss_entries.object_id[secondary]) <= set(sdss_entries.object_id[~secondary])


def test_ned_has_every_kind_of_entry(ned_table):
    table = ned_table[0]
    assert table.colnames == ["prefname", "ra", "dec", "z", "zunc", "zflag", "prefphytype", "velocity"]
    flags = {str(flag).rstrip() for flag in table["zflag"]}
    assert {"SLS", "S1L", "SUN", "SLS?", "SLS:", "PHOT", "PUN", "SED", "EST", ""} <= flags
    assert {"G", "*", "GClstr", "GGroup"} <= set(table["prefphytype"])
    assert 0.01 < table["z"].mask.mean() < 0.06
    assert 0 < (table["z"].mask & ~table["velocity"].mask).sum() < table["z"].mask.sum()
    assert table["zunc"].mask.sum() > table["z"].mask.sum()


def test_ned_photometric_redshifts_are_poor_and_secure_ones_are_good(ned_table, objects):
    table, truth = ned_table
    joined = table.to_pandas().merge(truth.to_pandas(), left_on="prefname", right_on="entry", validate="1:1")
    correct = joined.assign(zflag=joined.zflag.str.rstrip()).groupby("zflag").correct.mean()
    assert correct["SLS"] > 0.97
    assert correct["PHOT"] < 0.4
    assert joined.object_id.duplicated().sum() > 0.05 * len(joined)


def test_clusters_stand_on_groups_and_have_no_object(ned_table):
    table, truth = ned_table
    clusters = table[np.isin(table["prefphytype"], ["GClstr", "GGroup"])]
    assert len(clusters) > 3
    assert not set(clusters["prefname"]) & set(truth.column("entry").to_pylist())
