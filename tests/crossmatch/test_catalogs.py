"""Matching of catalogues on disk: partition edges do not exist for the result."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from in_memory import match

from zmill.catalog import hats
from zmill.catalog.files import read_json
from zmill.catalog.hats import Partition
from zmill.catalog.sky import HEALPIX_COLUMN, at_order, healpix
from zmill.crossmatch.catalogs import CrossmatchError, crossmatch, find, read_spectra


def write(catalog: Path, order: int, ra, dec, columns: dict, partitions: list[Partition] | None = None) -> None:
    ra, dec = np.asarray(ra, float), np.asarray(dec, float)
    index = healpix(ra, dec)
    by_sky = np.argsort(index, kind="stable")
    table = pa.table({HEALPIX_COLUMN: index, "ra": ra, "dec": dec, **columns}).take(by_sky)
    pixel = at_order(index[by_sky], order)
    made = []
    for value in np.unique(pixel):
        made.append(Partition(order, int(value)))
        with hats.write_partition(catalog, made[-1], table.schema) as writer:
            writer.write(table.filter(pa.array(pixel == value)))
    for partition in set(partitions or []) - set(made):
        made.append(partition)
        with hats.write_partition(catalog, partition, table.schema) as writer:
            writer.write(table.slice(0, 0))
    hats.finish(catalog, catalog.name, made)


def write_survey(catalog: Path, order: int, ra, dec, **more) -> None:
    write(catalog, order, ra, dec, {"object_id": np.arange(len(ra)) + 10**15}, **more)


def write_specz(catalog: Path, ra, dec, radius: float = 1.0, order: int = 0) -> None:
    n = len(ra)
    columns = {
        "specz_id": [f"s{i}" for i in range(n)],
        "redshift": np.linspace(0.1, 1, n),
        "redshift_err": np.full(n, np.nan, np.float32),
        "quality": np.full(n, 4, np.int8),
        "label_source": ["field"] * n,
        "radius_arcsec": np.full(n, radius, np.float32),
    }
    write(catalog, order, ra, dec, columns)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 10**6),
    order=st.sampled_from([0, 3, 8, 12, 15]),
    center=st.sampled_from([(0.0, 90.0), (0.0, 0.0), (45.0, 41.8103149), (150.1, 2.2)]),
    rows=st.sampled_from([1, 2, 300]),
)
def test_partitions_do_not_change_the_matches(tmp_path_factory, seed, order, center, rows) -> None:
    """The survey cut into pixels as small as 6 arcsec gives what one piece in memory gives."""
    tmp_path = tmp_path_factory.mktemp("edges")
    random = np.random.default_rng(seed)
    dec = center[1] - random.uniform(0, 40, rows) / 3600
    ra = (center[0] + (random.uniform(0, 360, rows) if center[1] == 90 else random.uniform(-20, 20, rows) / 3600)) % 360
    pick = random.integers(0, rows, 60)
    dec2 = np.clip(dec[pick] + random.normal(0, 0.7, 60) / 3600, -90, 90)
    ra2 = (ra[pick] + random.normal(0, 0.7, 60) / 3600) % 360
    write_survey(tmp_path / "survey", order, ra, dec)
    write_specz(tmp_path / "specz", ra2, dec2, order=2)
    table, facts = find(tmp_path / "survey", tmp_path / "specz", threads=2)

    index = healpix(ra, dec)
    by_sky = np.argsort(index, kind="stable")
    spectra, discs = read_spectra(tmp_path / "specz")
    pairs, ambiguous = match(index[by_sky], ra[by_sky], dec[by_sky], discs)
    assert table["object_id"].to_pylist() == (by_sky[pairs.row] + 10**15).tolist()
    assert table["specz_id"].to_pylist() == spectra["specz_id"].take(pairs.disc).to_pylist()
    assert table["ambiguous"].to_pylist() == ambiguous.tolist()
    assert facts["matched"] == len(pairs.row)
    assert facts["matched"] + facts["not_mutual"] + facts["no_object_within_radius"] == facts["spectra"] == 60
    for entry in table.to_pylist():
        partition = Partition(entry["norder"], entry["npix"])
        row = hats.read_columns(tmp_path / "survey", partition).slice(entry["row"], 1).to_pylist()[0]
        assert (row["object_id"], row["ra"], row["dec"]) == (entry["object_id"], entry["ra"], entry["dec"])


def field(rows: int = 400) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(8)
    return random.uniform(10, 14, rows), random.uniform(-3, 3, rows)


def test_files_say_what_was_matched(tmp_path: Path) -> None:
    ra, dec = field()
    write_survey(tmp_path / "survey", 6, ra, dec, partitions=[Partition(6, 0)])
    write_specz(tmp_path / "specz", ra[:100], dec[:100] + 0.3 / 3600)
    crossmatch(tmp_path / "survey", tmp_path / "specz", tmp_path / "matches.parquet", tmp_path / "matches.json")
    table, facts = pq.read_table(tmp_path / "matches.parquet"), read_json(tmp_path / "matches.json")
    assert table.column_names == [
        *("object_id", HEALPIX_COLUMN, "norder", "npix", "row", "ra", "dec", "specz_id", "redshift", "redshift_err"),
        *("quality", "label_source", "separation_arcsec", "ambiguous"),
    ]
    assert table.schema.field("norder").type == pa.int8()
    assert table.schema.field("separation_arcsec").type == pa.float32()
    assert np.allclose(table["separation_arcsec"], 0.3, atol=1e-4)
    assert facts["matched"] == facts["spectra"] == 100 and facts["survey_rows"] == 400
    assert facts["expected_false_matches"] < 1


def test_row_groups_without_spectra_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hats, "ROW_GROUP_ROWS", 50)
    ra, dec = field(2000)
    write_survey(tmp_path / "survey", 0, ra, dec)
    near = np.argsort(np.hypot(ra - 12, dec))[:50]
    write_specz(tmp_path / "specz", ra[near], dec[near])
    table, facts = find(tmp_path / "survey", tmp_path / "specz")
    assert table.num_rows == 50
    assert facts["survey_rows_read"] < 1000


def test_too_few_matches_stop_with_both_footprints(tmp_path: Path) -> None:
    ra, dec = field()
    write_survey(tmp_path / "survey", 4, ra, dec)
    write_specz(tmp_path / "specz", ra + 100, dec)
    with pytest.raises(
        CrossmatchError, match=r"0 spectra have a match.*at least 40.*ra (9.9|10).* to 1[34].*ra 110.* to 113"
    ):
        crossmatch(tmp_path / "survey", tmp_path / "specz", tmp_path / "m.parquet", tmp_path / "m.json")
    assert not (tmp_path / "m.parquet").exists()


def test_text_object_ids_are_kept(tmp_path: Path) -> None:
    ra, dec = field(60)
    write(tmp_path / "survey", 2, ra, dec, {"object_id": [f"J{i:03d}" for i in range(60)]})
    write_specz(tmp_path / "specz", ra, dec)
    table, _ = find(tmp_path / "survey", tmp_path / "specz")
    assert sorted(table["object_id"].to_pylist()) == [f"J{i:03d}" for i in range(60)]
