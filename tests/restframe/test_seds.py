"""SEDs from files: integrals, faults of files and of single SEDs, groups, mixtures, emission lines."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulate.seds import WAVE, file, shaped
from zmill.restframe import lines
from zmill.restframe.seds import Sed, SedError, groups, mixtures, read_seds


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.floats(1, 100), st.floats(0, 10)), min_size=2, max_size=30),
    st.lists(st.floats(0, 1), min_size=2, max_size=9),
)
def test_integrals_are_those_of_the_trapezoidal_rule_between_any_edges(points, places):
    wave, flux = (np.array(part) for part in zip(*sorted(points), strict=True))
    if wave[-1] == wave[0]:
        return
    edges = wave[0] + np.sort(places) * (wave[-1] - wave[0])
    found = Sed("a", wave, flux).integral(edges)
    for low, high, value in zip(edges[:-1], edges[1:], found, strict=True):
        # within each step the flux is linear, also next to a wavelength that is there twice
        inside = [
            (a, b, fa, fb) for a, b, fa, fb in zip(wave[:-1], wave[1:], flux[:-1], flux[1:], strict=True) if b > a
        ]
        expected = 0.0
        for a, b, fa, fb in inside:
            x = np.clip([low, high], a, b)
            expected += np.trapezoid(fa + (fb - fa) * (x - a) / (b - a), x)
        assert value == pytest.approx(expected, rel=1e-6, abs=1e-7 * max(flux.max(), 1) * 100)


def test_files_are_read_with_the_names_that_columns_may_have(tmp_path):
    made = [shaped(number) for number in range(3)]
    one = file(tmp_path / "one.parquet", made)
    other = tmp_path / "other.parquet"
    renamed = pq.read_table(one).rename_columns(["name", "wavelength_rest_angstrom", "f_lambda"])
    pq.write_table(renamed.append_column("library", pa.array(["x", "x", "y"])), other)
    found, rejected, counts = read_seds([one, other])
    assert [one.name for one in found] == ["made-0", "made-1", "made-2", "x/made-0", "x/made-1", "y/made-2"]
    assert rejected == []
    assert not any(counts.values())
    np.testing.assert_array_equal(found[0].flux, found[3].flux)


def test_repeated_and_unsorted_wavelengths_and_small_negative_fluxes_are_counted(tmp_path):
    step = Sed("step", np.array([1000.0, 2000.0, 2000.0, 3000.0]), np.array([1.0, 1.0, 5.0, 5.0]))
    mixed = Sed("mixed", step.wave[::-1], step.flux[::-1])
    wave = np.linspace(1000, 3000, 400)
    negative = Sed("negative", wave, np.where(np.arange(400) == 50, -1.0, 1.0))
    found, rejected, counts = read_seds([file(tmp_path / "seds.parquet", [step, mixed, negative])])
    assert rejected == []
    assert counts == {"unsorted": 1, "repeated": 2, "negative": 1}
    assert found[0].integral(np.array([1500.0, 2500.0]))[0] == pytest.approx(500 + 2500)
    assert found[2].flux.min() == 0


@pytest.mark.parametrize(
    ("sed", "reason"),
    [
        (Sed("a", WAVE, np.where(WAVE > 2000, 1.0, np.nan)), "not finite"),
        (Sed("a", WAVE, np.where(WAVE > 30_000, -1.0, 1.0)), "% of its flux is negative"),
        (Sed("a", WAVE, 0 * WAVE), "no flux"),
        (Sed("a", WAVE, WAVE[1:]), "1500 wavelengths and 1499 fluxes"),
        (Sed("a", WAVE[:1], WAVE[:1]), "1 points"),
        (Sed("a", WAVE - 1000, WAVE), "first wavelength is -100"),
    ],
)
def test_an_sed_that_cannot_be_used_is_left_out_with_its_reason(tmp_path, sed, reason):
    found, rejected, _ = read_seds([file(tmp_path / "seds.parquet", [shaped(1), sed])])
    assert [one.name for one in found] == ["made-1"]
    assert rejected[0].name == "a"
    assert reason in rejected[0].reason


def test_files_that_are_no_files_of_seds_are_refused(tmp_path):
    with pytest.raises(SedError, match=r"nothing.parquet: expected a Parquet file of SEDs"):
        read_seds([tmp_path / "nothing.parquet"])
    (tmp_path / "text.parquet").write_text("name,wave,flux\n")
    with pytest.raises(SedError, match=r"text.parquet: expected a Parquet file of SEDs"):
        read_seds([tmp_path / "text.parquet"])
    pq.write_table(pa.table({"name": ["a"], "waves": [[1.0]], "flux": [[1.0]]}), tmp_path / "column.parquet")
    with pytest.raises(SedError, match=r"no column wave or wavelength.*did you mean 'waves'.*it has name, waves, flux"):
        read_seds([tmp_path / "column.parquet"])
    pq.write_table(pa.table({"name": ["a"], "wave": [1.0], "flux": [1.0]}), tmp_path / "long.parquet")
    with pytest.raises(SedError, match=r"column wave: expected a list of numbers per SED, found double"):
        read_seds([tmp_path / "long.parquet"])
    twice = file(tmp_path / "twice.parquet", [shaped(1), shaped(1)])
    with pytest.raises(SedError, match=r"two SEDs have the name 'made-1'"):
        read_seds([twice])


def test_seds_that_are_the_same_are_in_one_group():
    cells = np.exp(np.linspace(np.log(1000), np.log(50_000), 3001))
    distinct = [shaped(number) for number in range(12)]
    energy = np.array([one.integral(cells) for one in distinct])
    copies = np.concatenate([energy, 7.3 * energy[3:5], energy[5:6] * (1 + 0.002 * np.sin(np.arange(3000)))])
    label = groups(copies)
    assert len(set(label[:12])) == 12
    assert label[12:].tolist() == label[[3, 4, 5]].tolist()


def test_mixtures_differ_and_reach_five_micron():
    made = mixtures(np.random.default_rng(1), 60)
    assert len({one.name for one in made}) == 60
    assert all(one.wave[0] == 500 and one.wave[-1] > 52_000 and (one.flux > 0)[-500:].all() for one in made)
    again = mixtures(np.random.default_rng(1), 60)
    np.testing.assert_array_equal(made[7].flux, again[7].flux)
    # no step where the templates are joined with the one that reaches further
    for one in made:
        around = one.flux[np.searchsorted(one.wave, [19_500, 20_500])]
        assert 0.7 < around[1] / around[0] < 1.1


def test_lines_of_a_flat_spectrum_have_the_equivalent_widths_of_the_law():
    flat = Sed("flat", WAVE, WAVE**-2.0)
    strength = np.mean([lines.fluxes(np.random.default_rng(seed), flat) for seed in range(300)], axis=0)
    flux = dict.fromkeys({line[0] for line in lines.LINES}, 0.0)
    for line, value in zip(lines.LINES, strength, strict=True):
        flux[line[0]] += value
    # the mean of 10^x for x of standard deviation s dex is exp((s ln 10)² / 2)
    mean = np.exp((0.2 * np.log(10)) ** 2 / 2)
    assert flux["H alpha"] * 6564.6**2 / mean == pytest.approx(254, rel=0.05)
    assert flux["H alpha"] / flux["H beta"] == pytest.approx(1.77 / 0.61)
    assert not lines.fluxes(np.random.default_rng(1), Sed("red", WAVE[WAVE > 3000], WAVE[WAVE > 3000])).any()


def test_lines_that_are_there_are_found():
    assert not lines.has_lines(shaped(1))
    wave = np.linspace(2000, 9000, 7001)
    assert lines.has_lines(Sed("line", wave, 1 + 5 * np.exp(-(((wave - 6564.6) / 3) ** 2))))
