"""Alarms of the cross-match: offsets, chance matches and objects that are there twice are measured, and act."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_catalogs import write

from zmill.catalog.files import read_json
from zmill.crossmatch.catalogs import CrossmatchError, crossmatch
from zmill.crossmatch.copies import first_copies
from zmill.crossmatch.offset import measure
from zmill.inputs.photometry.kind import PhotometryKind

N = 600


def field(seed: int = 1, rows: int = N, width: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    """A field far from a pole and from RA 0."""
    rng = np.random.default_rng(seed)
    return 150 + rng.uniform(0, width, rows), 30 + rng.uniform(0, width, rows)


def write_survey(folder: Path, ra: np.ndarray, dec: np.ndarray, magnitude: np.ndarray | None = None) -> None:
    magnitude = np.random.default_rng(3).uniform(18, 24, len(ra)) if magnitude is None else magnitude
    columns = {"object_id": np.arange(len(ra)), "mag_r": magnitude.astype(np.float32)}
    write(folder / "survey", 6, ra, dec, columns)


def write_specz(folder: Path, *sources: tuple[str, np.ndarray, np.ndarray]) -> None:
    ra, dec = (np.concatenate([source[place] for source in sources]) for place in (1, 2))
    names = [name for name, east, _ in sources for _ in east]
    n = len(ra)
    columns = {
        "specz_id": [f"s{number}" for number in range(n)],
        "redshift": np.linspace(0.1, 1, n),
        "redshift_err": np.full(n, np.nan, np.float32),
        "quality": np.full(n, 4, np.int8),
        "label_source": names,
        "radius_arcsec": np.full(n, 1.0, np.float32),
        "magnitude": np.full(n, np.nan, np.float32),
    }
    write(folder / "specz", 0, ra, dec, columns)


def run(folder: Path) -> dict:
    files = folder / "survey", folder / "specz", folder / "matches.parquet", folder / "matches.json"
    return crossmatch(*files, inputs=[PhotometryKind(("r",), 0)])


def test_good_labels_are_not_warned_of(tmp_path: Path) -> None:
    ra, dec = field()
    write_survey(tmp_path, ra, dec)
    write_specz(tmp_path, ("good", ra, dec + 0.1 / 3600))
    facts = run(tmp_path)
    assert facts["warnings"] == [] and facts == read_json(tmp_path / "matches.json")
    assert facts["offsets"]["good"]["north"] == pytest.approx(0.1, abs=0.01) and facts["repeated_objects"] == 0


@pytest.mark.parametrize(("east", "north"), [(0, 4.2), (-2.5, 0), (1.5, -6)])
def test_labels_with_an_offset_from_their_objects_stop_the_run(tmp_path: Path, east: float, north: float) -> None:
    """Also where so many unrelated objects are near that a model could be trained."""
    ra, dec = field(rows=20_000)
    write_survey(tmp_path, ra, dec)
    moved = ra + east / 3600 / np.cos(np.radians(dec)), dec + north / 3600
    write_specz(tmp_path, ("good", ra[:200], dec[:200]), ("moved", moved[0][200:4000], moved[1][200:4000]))
    with pytest.raises(
        CrossmatchError, match=rf'labels: moved: its positions lie {int(np.hypot(east, north))}\.\d\d" from'
    ) as error:
        run(tmp_path)
    assert ("north" if north >= 0 else "south") in str(error.value)
    assert not (tmp_path / "matches.parquet").exists()


def test_a_smaller_offset_is_warned_of_with_its_value(tmp_path: Path) -> None:
    ra, dec = field()
    write_survey(tmp_path, ra, dec)
    write_specz(tmp_path, ("moved", ra, dec - 0.6 / 3600))
    facts = run(tmp_path)
    assert facts["matched"] > 590 and len(facts["warnings"]) == 1
    assert 'moved: its positions lie 0.60" from their objects on median (0.00" ' in facts["warnings"][0]
    assert '0.60" south; measured on 600 of 600 spectra' in facts["warnings"][0]


def test_labels_of_another_sky_that_match_by_chance_stop_the_run(tmp_path: Path) -> None:
    ra, dec = field(rows=40_000)
    write_survey(tmp_path, ra, dec)
    write_specz(tmp_path, ("good", ra[:300], dec[:300]), ("chance", *field(seed=9, rows=5_000)))
    with pytest.raises(
        CrossmatchError, match=r"labels: chance: .* of its .* matches are expected to be with an unrelated"
    ):
        run(tmp_path)


def test_many_chance_matches_are_warned_of(tmp_path: Path) -> None:
    ra, dec = field(rows=40_000)
    write_survey(tmp_path, ra, dec)
    other = field(seed=9, rows=2_000)
    write_specz(tmp_path, ("mixed", np.concatenate([ra[:800], other[0]]), np.concatenate([dec[:800], other[1]])))
    facts = run(tmp_path)
    assert len(facts["warnings"]) == 1 and "are expected to be with an unrelated object" in facts["warnings"][0]
    false = facts["expected_false_by_source"]["mixed"]
    assert false == pytest.approx(facts["expected_false_matches"], abs=0.2) and 0.05 < false / facts["matched"] < 0.5
    assert false == pytest.approx(facts["matched"] - 800, rel=0.5)


@pytest.mark.parametrize("rows", [600, 20_000])
@pytest.mark.parametrize("north", [15, 40, 300])
def test_a_source_far_from_its_objects_warns_or_stops_the_run(tmp_path: Path, rows: int, north: float) -> None:
    """Farther than offsets are looked for: what shows it is that no more spectra find an object than by chance."""
    ra, dec = field(rows=rows)
    write_survey(tmp_path, ra, dec)
    inside = dec < 30.35
    far = ra[inside][200:1200], dec[inside][200:1200] + north / 3600
    write_specz(tmp_path, ("good", ra[:200], dec[:200]), ("far", *far))
    if rows > 600:
        with pytest.raises(
            CrossmatchError, match=r"labels: far: .* of its .* matches are expected to be with an unrel"
        ):
            run(tmp_path)
        return
    facts = run(tmp_path)
    (warning,) = facts["warnings"]
    assert (
        f"labels: far: {facts['matched_by_source'].get('far', 0)} of its {len(far[0])} spectra have an object"
        in warning
    )
    assert "hardly any finds its own" in warning and facts["spectra_by_source"] == {"far": len(far[0]), "good": 200}


def test_a_source_of_which_the_survey_has_few_objects_is_not_warned_of(tmp_path: Path) -> None:
    """Spectra that are deeper than the survey."""
    ra, dec = field()
    write_survey(tmp_path, ra, dec)
    deep = field(seed=9, rows=1000)
    write_specz(tmp_path, ("deep", np.concatenate([ra[:60], deep[0]]), np.concatenate([dec[:60], deep[1]])))
    assert run(tmp_path)["warnings"] == []


@pytest.mark.parametrize("apart", [0.0, 0.07, 0.3])
def test_an_object_in_two_overlapping_tiles_keeps_its_label(tmp_path: Path, apart: float) -> None:
    ra, dec = field()
    magnitude = np.random.default_rng(3).uniform(18, 24, N)
    magnitude[::7] = np.nan
    half = slice(None, N // 2)
    copies = magnitude[half] + np.random.default_rng(4).normal(0, 0.1, N // 2)
    write_survey(
        tmp_path,
        np.concatenate([ra, ra[half]]),
        np.concatenate([dec, dec[half] + apart / 3600]),
        np.concatenate([magnitude, copies]),
    )
    write_specz(tmp_path, ("good", ra, dec - 0.01 / 3600))
    facts = run(tmp_path)
    assert facts["matched"] == N and facts["ambiguous"] == 0 and facts["repeated_objects"] == N // 2
    assert (
        len(facts["warnings"]) == 1
        and "300 objects near the 600 spectra are in the survey more than once" in facts["warnings"][0]
    )
    assert len(set(pq.read_table(tmp_path / "matches.parquet")["object_id"].to_pylist())) == N


def test_a_neighbor_or_a_piece_is_no_copy(tmp_path: Path) -> None:
    ra, dec = field()
    magnitude = np.random.default_rng(3).uniform(18, 22, N)
    write_survey(
        tmp_path,
        np.concatenate([ra, ra[:200], ra[200:300]]),
        np.concatenate([dec, dec[:200] + 0.3 / 3600, dec[200:300] + 0.7 / 3600]),
        np.concatenate([magnitude, magnitude[:200] + 2, magnitude[200:300]]),
    )
    write_specz(tmp_path, ("good", ra, dec))
    facts = run(tmp_path)
    assert facts["repeated_objects"] == 0 and facts["ambiguous"] == 300
    assert len(facts["warnings"]) == 1 and "300 of 600 matches are ambiguous" in facts["warnings"][0]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    size=st.floats(0, 8),
    angle=st.floats(0, 2 * np.pi),
    objects=st.integers(60, 800),
    unrelated=st.integers(0, 3000),
    scatter=st.floats(0.01, 0.3),
)
def test_a_common_offset_is_found_among_unrelated_objects(seed, size, angle, objects, unrelated, scatter) -> None:
    rng = np.random.default_rng(seed)
    reach, spectra = 10.0, objects + 200
    r, phi = reach * np.sqrt(rng.random(unrelated)), 2 * np.pi * rng.random(unrelated)
    east = np.concatenate([size * np.cos(angle) + rng.normal(0, scatter, objects), r * np.cos(phi)])
    north = np.concatenate([size * np.sin(angle) + rng.normal(0, scatter, objects), r * np.sin(phi)])
    found = measure(east, north, spectra, reach)
    if objects < 150 and unrelated > 1000 and found is None:
        return  # too few above chance
    assert found is not None
    assert np.hypot(found.east - size * np.cos(angle), found.north - size * np.sin(angle)) < 0.15


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), pairs=st.integers(0, 6000))
def test_unrelated_objects_alone_have_no_offset(seed, pairs) -> None:
    rng = np.random.default_rng(seed)
    r, phi = 10 * np.sqrt(rng.random(pairs)), 2 * np.pi * rng.random(pairs)
    assert measure(r * np.cos(phi), r * np.sin(phi), 1000, 10.0) is None


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), objects=st.integers(1, 40))
def test_one_row_stands_for_all_copies_whatever_their_order(seed, objects) -> None:
    rng = np.random.default_rng(seed)
    copies = rng.integers(1, 4, objects)
    of = np.repeat(np.arange(objects), copies)
    ra = 150 + 0.01 * of + rng.normal(0, 0.05, len(of)) / 3600
    dec = np.full(len(of), 30.0)
    magnitude = (20 + rng.normal(0, 0.05, len(of))).astype(np.float32)
    cost = rng.random(len(of))
    order = rng.permutation(len(of))
    place = np.arange(len(of))
    rows = pa.table({"ra": ra, "dec": dec, "mag_r": magnitude}).take(pa.array(order))
    stays, repeated = first_copies(place[order], rows, of[order], cost[order], [PhotometryKind(("r",), 0)])
    assert repeated == np.count_nonzero(copies > 1)
    kept = np.sort(place[order][stays])
    best = [place[of == one][np.argmin(cost[of == one])] for one in range(objects)]
    assert kept.tolist() == sorted(best)
