"""Magnitudes tell which of several detections a spectrum belongs to, and change nothing where they say nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from zmill.catalog import hats
from zmill.catalog.hats import Partition
from zmill.catalog.sky import HEALPIX_COLUMN, at_order, healpix
from zmill.crossmatch.catalogs import find
from zmill.crossmatch.magnitude import FEWEST, LARGEST, costs
from zmill.inputs.photometry.kind import PhotometryKind

FIELD = 150.0, 2.0
PHOTOMETRY = [PhotometryKind(("i",), 0)]


def write(catalog: Path, order: int, columns: dict) -> None:
    index = healpix(columns["ra"], columns["dec"])
    by_sky = np.argsort(index, kind="stable")
    table = pa.table({HEALPIX_COLUMN: index, **columns}).take(by_sky)
    pixel = at_order(index[by_sky], order)
    made = [Partition(order, int(value)) for value in np.unique(pixel)]
    for partition in made:
        with hats.write_partition(catalog, partition, table.schema) as writer:
            writer.write(table.filter(pa.array(pixel == partition.pixel)))
    hats.finish(catalog, catalog.name, made)


def sky(folder: Path, seed: int, known: str, offset: float = 0.0, order: int = 4) -> np.ndarray:
    """A field of 400 galaxies with spectra; a fifth is split, and the piece, fainter by 2 magnitudes, is the nearer one.

    `known`: which spectra come with a magnitude (`all`, `none`, `few`). Returns the ids of the galaxies.
    """
    rng = np.random.default_rng(seed)
    n = 400
    ra, dec = FIELD[0] + (np.arange(n) % 20) * 0.01, FIELD[1] + (np.arange(n) // 20) * 0.01
    magnitude = rng.uniform(18, 23, n)
    split = np.arange(n) % 5 == 0
    spectrum = rng.normal(0, 0.1, (2, n)) / 3600
    beside = rng.normal(0, 0.02, (2, n)) / 3600
    survey_ra = np.concatenate([ra + 0.2 / 3600 * split, ra[split] + (spectrum + beside)[0, split]])
    survey_dec = np.concatenate([dec, dec[split] + (spectrum + beside)[1, split]])
    write(
        folder / "survey",
        order,
        {
            "object_id": np.concatenate([np.arange(n), 10_000 + np.flatnonzero(split)]),
            "ra": survey_ra,
            "dec": survey_dec,
            "mag_i": np.concatenate([magnitude, magnitude[split] + 2]).astype(np.float32),
        },
    )
    given_magnitude = magnitude + rng.normal(offset, 0.1, n)
    if known == "none":
        given_magnitude[:] = np.nan
    if known == "few":
        given_magnitude[FEWEST // 2 :] = np.nan
    write(
        folder / "specz",
        0,
        {
            "ra": ra + spectrum[0],
            "dec": dec + spectrum[1],
            "specz_id": [f"s{number}" for number in range(n)],
            "redshift": np.linspace(0.1, 1, n),
            "redshift_err": np.full(n, np.nan, np.float32),
            "quality": np.full(n, 4, np.int8),
            "label_source": ["field"] * n,
            "radius_arcsec": np.full(n, 1.0, np.float32),
            "magnitude": given_magnitude.astype(np.float32),
        },
    )
    return np.arange(n)


def object_of(folder: Path, band: str | None) -> np.ndarray:
    """The object of each spectrum, in the order of the spectra's names; -1 for none."""
    table, facts = find(folder / "survey", folder / "specz", inputs=PHOTOMETRY if band else ())
    number = np.array([int(name[1:]) for name in table["specz_id"].to_pylist()])
    found = np.full(400, -1)
    found[number] = table["object_id"].to_numpy()
    assert facts["matched"] == len(number) == len(np.unique(table["object_id"].to_numpy()))
    return found


@pytest.mark.parametrize("offset", [0.0, 1.3])
def test_the_galaxy_is_chosen_and_not_its_piece(tmp_path: Path, offset: float) -> None:
    """Also where the spectra's magnitudes are of another band: their offset is learned."""
    galaxies = sky(tmp_path, 1, "all", offset)
    by_position, by_both = object_of(tmp_path, None), object_of(tmp_path, "i")
    split = galaxies % 5 == 0
    assert (by_position == galaxies)[split].mean() < 0.2
    assert (by_both == galaxies)[split].mean() > 0.97
    assert (by_both == galaxies)[~split].all()


@pytest.mark.parametrize("known", ["none", "few"])
def test_without_magnitudes_the_nearest_is_taken(tmp_path: Path, known: str) -> None:
    sky(tmp_path, 2, known)
    assert np.array_equal(object_of(tmp_path, "i"), object_of(tmp_path, None))


@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10**6), order=st.sampled_from([9, 12]))
def test_partitions_do_not_change_the_matches_and_ambiguity_is_what_it_was(tmp_path_factory, seed, order) -> None:
    one, cut = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("cut")
    sky(one, seed, "all", order=0)
    sky(cut, seed, "all", order=order)
    whole, _ = find(one / "survey", one / "specz", inputs=PHOTOMETRY)
    parts, _ = find(cut / "survey", cut / "specz", inputs=PHOTOMETRY, threads=2)
    for name in ("object_id", "specz_id", "ambiguous", "separation_arcsec"):
        assert whole[name].to_pylist() == parts[name].to_pylist()
    plain, _ = find(one / "survey", one / "specz")
    unsure = dict(zip(plain["specz_id"].to_pylist(), plain["ambiguous"].to_pylist(), strict=True))
    for name, ambiguous in zip(whole["specz_id"].to_pylist(), whole["ambiguous"].to_pylist(), strict=True):
        assert unsure.get(name, True) == ambiguous


@given(st.integers(0, 2**32))
def test_costs_rise_with_separation_and_with_disagreement_up_to_a_bound(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = 60
    separation, difference = rng.rayleigh(0.2, n), rng.normal(0.5, 0.2, n)
    alone = np.arange(n) < 50
    source = np.zeros(n, np.int64)
    base = costs(separation, difference, source, alone)
    assert (base >= 0).all() and np.isfinite(base).all()
    farther = np.where(alone, separation, separation + 0.1)
    assert (costs(farther, difference, source, alone)[~alone] > base[~alone]).all()
    worse = np.where(alone, difference, 99.0)
    position = base - costs(separation, np.full(n, np.nan), source, alone) + 1
    assert np.allclose(costs(separation, worse, source, alone)[~alone] - base[~alone] + position[~alone], LARGEST**2)
