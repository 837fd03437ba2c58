"""All sources into one catalogue: every entry merged, rejected with a reason, or in conflict."""

from __future__ import annotations

from pathlib import Path

import cdshealpix
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.table import Table, vstack
from hats.io.validation import is_valid_catalog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from zmill.catalog import hats
from zmill.catalog.files import read_json
from zmill.catalog.hats import Partition
from zmill.catalog.sky import HEALPIX_COLUMN, healpix
from zmill.config import Labels, Partitions
from zmill.labels.base import LabelsError
from zmill.labels.build import SPECZ, build
from zmill.labels.quality import SCHEMES
from zmill.survey_definition import Survey

ORDER = 5


def make_survey(results: Path, ra: float = 150.0, dec: float = 2.0) -> Partition:
    """A survey that fills the pixel of 1.8 degrees around a place."""
    pixel = int(healpix(np.array([ra]), np.array([dec]), ORDER)[0])
    cells = np.arange(pixel << 12, (pixel + 1) << 12, dtype=np.uint64)
    lon, lat = cdshealpix.healpix_to_lonlat(cells, ORDER + 6)
    write_survey(results, lon.deg, lat.deg)
    return Partition(ORDER, pixel)


def write_survey(results: Path, ra: np.ndarray, dec: np.ndarray) -> None:
    """A survey in partitions of order 0."""
    index = np.sort(healpix(ra, dec))
    pixels = np.unique(index >> 58)
    for pixel in pixels:
        rows = pa.table({HEALPIX_COLUMN: index[index >> 58 == pixel]})
        with hats.write_partition(results / "survey", Partition(0, int(pixel)), rows.schema) as writer:
            writer.write(rows)
    hats.finish(results / "survey", "survey", [Partition(0, int(pixel)) for pixel in pixels])


def definition(*labels: dict) -> Survey:
    common = {
        "columns": {"ra": "ra", "dec": "dec", "redshift": "z", "flag": "q", "redshift_err": "e"},
        "scheme": "2dfgrs",
    }
    columns = {"ra": "ra", "dec": "dec", "flux": "m_{band}"}
    return Survey.model_validate(
        {"files": ["x"], "columns": columns, "bands": ["r"], "labels": [{**common, **label} for label in labels]}
    )


def entries(rows: list[tuple[float, float, float, int, float]]) -> Table:
    """(arcsec east, arcsec north, z, flag, error) around the survey's place."""
    east, north, z, flag, error = (np.array(column, float) for column in zip(*rows, strict=True))
    return Table({"ra": 150 + east / 3600, "dec": 2 + north / 3600, "z": z, "q": flag.astype(int), "e": error})


def run(folder: Path, survey: Survey, **changes) -> dict:
    return build(survey.labels, Labels(**changes), Partitions(max_rows=20), 1.0, folder, folder / "results")


def specz(folder: Path) -> pa.Table:
    catalog = folder / "results" / "specz"
    return pa.concat_tables([hats.read_columns(catalog, partition) for partition in hats.partitions(catalog)])


def test_two_sources_become_one_catalogue(tmp_path: Path) -> None:
    make_survey(tmp_path / "results")
    entries([(0, 0, 0.5, 3, 1e-4), (30, 0, 0.2, 4, 1e-4), (60, 0, 0.7, 4, 1e-4), (90, 0, 0.0002, 4, 1e-4)]).write(tmp_path / "a.csv")  # fmt: skip
    far = Table({"ra": [10.0, np.nan, 150.0], "dec": [2.0, 2, 95], "z": [0.3] * 3, "q": [4] * 3, "e": [1e-4] * 3})
    near = entries([(0.3, 0, 0.5001, 4, 1e-3), (60.2, 0, 0.9, 4, 1e-4), (120, 0, 0.4, 2, 1e-4)])
    vstack([near, far]).write(tmp_path / "b.fits")
    facts = run(
        tmp_path, definition({"name": "a", "files": ["a.csv"]}, {"name": "b", "files": ["b.fits"], "radius_arcsec": 2})
    )
    assert facts["entries"] == 10 and facts["objects"] == 2 and facts["merged_entries"] == 3 and facts["conflicts"] == 2
    assert facts["rejected"] == {"low_redshift": 1, "low_quality": 1, "outside_footprint": 1, "position_not_finite": 1, "position_out_of_range": 1}  # fmt: skip
    assert facts["sources"]["b"]["entries"] == 6 and facts["sources"]["b"]["accepted"] == 2
    assert facts == read_json(tmp_path / "results" / "specz" / "labels.json")
    table = specz(tmp_path).sort_by("ra")
    assert table.schema.remove_metadata().equals(SPECZ)
    assert table["label_source"].to_pylist() == ["b", "a"]
    assert table["entries"].to_pylist() == [2, 1] and table["radius_arcsec"].to_pylist() == [2, 1]
    rejected = pq.read_table(tmp_path / "results" / "rejected" / "specz.parquet")
    assert rejected.num_rows == 5 and sorted(rejected["label_source"].to_pylist()) == ["a", "b", "b", "b", "b"]
    conflicts = pq.read_table(tmp_path / "results" / "rejected" / "specz_conflicts.parquet")
    assert sorted(conflicts["redshift"].to_pylist()) == [0.7, 0.9]
    assert conflicts["reason"].to_pylist() == ["conflict", "conflict"]


def test_the_catalogue_is_valid_hats_cut_by_size_and_sorted(tmp_path: Path) -> None:
    make_survey(tmp_path / "results")
    random = np.random.default_rng(1)
    entries([(x, y, 0.5, 4, 1e-4) for x, y in random.uniform(-900, 900, (100, 2))]).write(tmp_path / "a.csv")
    survey = definition({"name": "a", "files": ["a.csv"]})
    run(tmp_path, survey)
    catalog = tmp_path / "results" / "specz"
    assert is_valid_catalog(catalog, strict=True)
    assert all(hats.sidecar(catalog, partition)["rows"] <= 20 for partition in hats.partitions(catalog))
    index = specz(tmp_path)[HEALPIX_COLUMN].to_numpy()
    assert len(index) == 100 and (np.diff(index) >= 0).all()
    first = {path: path.read_bytes() for path in catalog.rglob("*.parquet")}
    build(survey.labels, Labels(), Partitions(max_rows=50), 1.0, tmp_path, tmp_path / "results")
    assert is_valid_catalog(catalog, strict=True) and len(list(catalog.rglob("Npix=*.parquet"))) < len(first)
    assert specz(tmp_path).num_rows == 100


def test_spectra_just_outside_of_the_footprint_are_kept(tmp_path: Path) -> None:
    partition = make_survey(tmp_path / "results")
    first, _ = partition.interval()
    lon, lat = cdshealpix.healpix_to_lonlat(np.array([first], np.uint64), 29)  # the pixel's southern corner
    rows = Table(
        {
            "ra": [lon.deg[0]] * 2,
            "dec": [lat.deg[0] - 2 / 3600, lat.deg[0] - 0.5],
            "z": [0.5] * 2,
            "q": [4] * 2,
            "e": [0.1] * 2,
        }
    )
    rows.write(tmp_path / "a.csv")
    facts = run(tmp_path, definition({"name": "a", "files": ["a.csv"]}))
    assert facts["objects"] == 1 and facts["rejected"] == {"outside_footprint": 1}


def test_no_overlap_prints_both_footprints(tmp_path: Path) -> None:
    make_survey(tmp_path / "results")
    Table({"ra": [30.0, 32.0], "dec": [-5.0, -4.0], "z": [0.5] * 2, "q": [4] * 2, "e": [0.1] * 2}).write(
        tmp_path / "a.csv"
    )
    with pytest.raises(
        LabelsError,
        match=r"do not overlap. Survey: ra 14\d.* to 15\d.* 1024 HEALPix pixels of order 10 \(3.357 deg2\).*ra 30 to 32, dec -5 to -4",
    ):
        run(tmp_path, definition({"name": "a", "files": ["a.csv"]}))
    assert not (tmp_path / "results" / "specz" / "partition_info.csv").exists()


def test_right_ascension_in_hours_is_detected_by_the_footprint(tmp_path: Path) -> None:
    make_survey(tmp_path / "results")
    Table({"ra": [10.0, 10.001], "dec": [2.0, 2.0], "z": [0.5] * 2, "q": [4] * 2, "e": [0.1] * 2}).write(
        tmp_path / "a.csv"
    )
    with pytest.raises(LabelsError, match=r"2 would if right ascension were in hours.*set angle_unit: hour"):
        run(tmp_path, definition({"name": "a", "files": ["a.csv"]}))


def test_nothing_accepted_says_why(tmp_path: Path) -> None:
    make_survey(tmp_path / "results")
    entries([(0, 0, 0.5, 1, 1e-4), (30, 0, 0.2, 2, 1e-4)]).write(tmp_path / "a.csv")
    with pytest.raises(LabelsError, match=r"no label is left.*low_quality 2"):
        run(tmp_path, definition({"name": "a", "files": ["a.csv"]}))


def test_labels_that_all_contradict_each_other_say_so(tmp_path: Path) -> None:
    make_survey(tmp_path / "results")
    entries([(0, 0, 0.5, 4, 1e-4), (0.1, 0, 0.2, 4, 1e-4)]).write(tmp_path / "a.csv")
    with pytest.raises(LabelsError, match=r"all 2 accepted entries are in conflict.*0\.5 arcsec.*specz_conflicts"):
        run(tmp_path, definition({"name": "a", "files": ["a.csv"]}))


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(
        st.tuples(st.integers(0, 40), st.integers(0, 3), st.sampled_from([0.0, 0.3, 0.3001, 0.6, -9.0]), st.integers(0, 6), st.just(1e-4)),
        min_size=1,
        max_size=60,
    )
)  # fmt: skip
def test_entries_in_are_merged_rejected_or_in_conflict(tmp_path_factory, rows) -> None:
    tmp_path = tmp_path_factory.mktemp("conserved")
    make_survey(tmp_path / "results")
    entries([*rows, (300, 0, 0.4, 4, 1e-4)]).write(tmp_path / "a.csv")
    facts = run(tmp_path, definition({"name": "a", "files": ["a.csv"]}, {"name": "b", "files": ["a.csv"]}))
    rejected = pq.read_table(tmp_path / "results" / "rejected" / "specz.parquet").num_rows
    conflicts = pq.read_table(tmp_path / "results" / "rejected" / "specz_conflicts.parquet").num_rows
    table = specz(tmp_path)
    assert rejected == sum(facts["rejected"].values()) and conflicts == facts["conflicts"]
    assert table["entries"].to_numpy().sum() + rejected + conflicts == facts["entries"] == 2 * (len(rows) + 1)


SAMPLES = {
    "2dfgrs_final_release": ("2dfgrs", {"ra": "ra_j2000_deg", "dec": "dec_j2000_deg", "redshift": "z", "flag": "quality"}),
    "2dflens_final_release": ("2dflens", {"ra": "RA", "dec": "Dec", "redshift": "z", "flag": "qual"}),
    "2mrs_v240": ("2mrs", {"ra": "RA", "dec": "DEC", "redshift": "redshift", "redshift_err": "redshift_err"}),
    "3dhst_v4.1.5": ("3dhst", {"ra": "ra", "dec": "dec", "redshift": "z_best", "flag": "z_best_s", "primary": "use_zgrism"}),
    "6dfgs_dr3": ("6dfgs", {"ra": "RA_deg", "dec": "DEC_deg", "redshift": "Z", "flag": "QUALITY"}),
    "astrodeep-gs43": ("astrodeep", {"ra": "RA", "dec": "DEC", "redshift": "z_best", "flag": "zspec_survey"}),
    "astrodeep_jwst": (3, {"ra": "RA", "dec": "DEC", "redshift": "zspec"}),
    "desi_dr1_in_lsst_dp1_fields": ("desi", {"ra": "TARGET_RA", "dec": "TARGET_DEC", "redshift": "Z", "redshift_err": "ZERR", "flag": "ZWARN", "class": "SPECTYPE", "primary": "ZCAT_PRIMARY"}),
    "jades_dr3": ("jades", {"ra": "RA_TARG", "dec": "Dec_TARG", "redshift": "z_Spec", "flag": "z_Spec_flag"}),
    "mosdef_final_release": ("mosdef", {"ra": "RA", "dec": "DEC", "redshift": "Z_MOSFIRE", "flag": "Z_QUAL"}),
    "ozdes_dr2": ("ozdes", {"ra": "Alpha_J2000", "dec": "Delta_J2000", "redshift": "z", "flag": "qop"}),
    "primus_dr1": ("primus", {"ra": "RA", "dec": "DEC", "redshift": "Z", "flag": "ZQUALITY", "class": "CLASS"}),
    "vandels_dr4": ("vandels", {"ra": "alpha", "dec": "delta", "redshift": "zspec", "flag": "zflg"}),
    "vlt_vimos_v2.0.1": ("vimos_goods", {"ra": "RAJ2000_WFI", "dec": "DEJ2000_WFI", "redshift": "SPEC_Z", "flag": "QF"}),
    "vuds_dr1": ("vuds", {"ra": "alpha", "dec": "delta", "redshift": "z_spec", "flag": "zflags"}),
    "vvds_final_release": ("vvds", {"ra": "ALPHA", "dec": "DELTA", "redshift": "Z", "flag": "ZFLAGS"}),
    "z_cat_CANDELS_clean_sitcomtn-154": ("probability", {"ra": "RA", "dec": "DEC", "redshift": "redshift", "flag": "quality", "class": "type"}),
    "z_cat_NED_clean_sitcomtn-154": ("probability", {"ra": "RA", "dec": "DEC", "redshift": "redshift", "flag": "quality", "class": "type"}),
}  # fmt: skip


def test_the_public_samples_merge_and_every_class_of_rejects_is_counted(tmp_path: Path, real_data: Path) -> None:
    labels = []
    for number, (file, (scheme, columns)) in enumerate(SAMPLES.items()):
        judged = {"scheme": scheme, "quality": None} if isinstance(scheme, str) else {"scheme": None, "quality": scheme}
        files = [str(real_data / "specz_samples" / f"{file}.parquet")]
        labels.append({"name": f"s{number}", "files": files, "columns": columns, **judged})
    survey = definition(*labels)
    positions = [
        pq.read_table(label["files"][0], columns=[label["columns"][axis] for axis in ("ra", "dec")])
        .to_pandas()
        .to_numpy()
        for label in labels
    ]
    write_survey(tmp_path / "results", *np.concatenate(positions).astype(float).T)
    facts = build(survey.labels, Labels(), Partitions(), 1.0, tmp_path, tmp_path / "results")
    expected = sum(pq.ParquetFile(label["files"][0]).metadata.num_rows for label in labels)
    assert facts["entries"] == expected == 17_698
    by_name = dict(zip(SAMPLES, facts["sources"].values(), strict=True))
    assert by_name["z_cat_CANDELS_clean_sitcomtn-154"]["rejected"]["photometric"] == 923
    assert by_name["astrodeep-gs43"]["rejected"]["photometric"] == 873
    assert by_name["desi_dr1_in_lsst_dp1_fields"]["rejected"]["star"] == 100
    assert by_name["vlt_vimos_v2.0.1"]["rejected"]["no_redshift"] == 364
    assert by_name["vvds_final_release"]["rejected"]["qso"] == 13
    assert facts["objects"] > 7000


def test_zcosmos_keeps_its_secure_classes(tmp_path: Path, real_data: Path) -> None:
    make_survey(tmp_path / "results", 150.1, 2.2)
    columns = {"ra": "alpha", "dec": "delta", "redshift": "zpec", "flag": "cc", "id": "id_zcosmos"}
    file = str(real_data / "zcosmos" / "zcosmos_bright20k.csv")
    run(tmp_path, definition({"name": "zcosmos", "files": [file], "columns": columns, "scheme": "zcosmos"}))
    flags = specz(tmp_path)["source_flag"].to_numpy().astype(float)
    assert set(np.unique(flags)) == {3.1, 3.4, 3.5, 4.1, 4.4, 4.5, 9.5}


def test_every_scheme_has_a_line_in_the_docs(root: Path) -> None:
    text = (root / "docs" / "labels.md").read_text(encoding="utf-8")
    assert [name for name in SCHEMES if f"`{name}`" not in text] == []


MANY = [(10 * number, 0.0, 0.3 + 0.001 * number, 4, 1e-4) for number in range(60)]


def test_a_source_of_which_nothing_is_accepted_is_warned_of_with_its_flags(tmp_path: Path) -> None:
    make_survey(tmp_path / "results")
    entries(MANY).write(tmp_path / "a.csv")
    entries([(east + 5, 0, z, 2, error) for east, _, z, _, error in MANY[:30]]).write(tmp_path / "b.csv")
    facts = run(tmp_path, definition({"name": "a", "files": ["a.csv"]}, {"name": "b", "files": ["b.csv"]}))
    assert facts["objects"] == 60 and len(facts["warnings"]) == 1
    assert (
        "labels: b: none of its 30 entries is accepted; rejected: low_quality 30; its flags: 2 30"
        in facts["warnings"][0]
    )


def test_flags_and_classes_that_are_not_known_are_warned_of_with_their_counts(tmp_path: Path) -> None:
    make_survey(tmp_path / "results")
    table = entries(MANY)
    table["q"] = ["4"] * 50 + ["A"] * 7 + ["B"] * 3
    table["kind"] = ["G"] * 45 + ["STELLAR"] * 15
    table.write(tmp_path / "a.csv")
    columns = {"ra": "ra", "dec": "dec", "redshift": "z", "flag": "q", "class": "kind"}
    facts = run(tmp_path, definition({"name": "a", "files": ["a.csv"], "columns": columns}))
    assert len(facts["warnings"]) == 1
    assert "15 of 60 entries have a flag or class" in facts["warnings"][0]
    assert "flag 'A' 7, class 'STELLAR' 5, flag 'B' 3" in facts["warnings"][0]
    by_map = {"name": "a", "files": ["a.csv"], "columns": columns, "scheme": None}
    named = run(tmp_path, definition(by_map | {"quality": {"map": {"4": 4, "A": 3}}}))
    assert "class 'STELLAR' 12, flag 'B' 3" in named["warnings"][0]
    for default in (by_map | {"quality": {"map": {"4": 4}, "default": 3}}, by_map | {"quality": 4}):
        without = default | {"columns": {key: name for key, name in columns.items() if key != "class"}}
        assert run(tmp_path, definition(without))["warnings"] == []


def test_many_conflicts_are_warned_of_and_few_are_not(tmp_path: Path) -> None:
    make_survey(tmp_path / "results")
    entries(MANY).write(tmp_path / "a.csv")
    for wrong, warned in ((2, False), (30, True)):
        shift = dict.fromkeys(range(wrong), 0.1)
        other = [(east, 0.1, z + shift.get(number, 0), 4, error) for number, (east, _, z, _, error) in enumerate(MANY)]
        entries(other).write(tmp_path / "b.csv", overwrite=True)
        facts = run(tmp_path, definition({"name": "a", "files": ["a.csv"]}, {"name": "b", "files": ["b.csv"]}))
        assert facts["conflicts"] == 2 * wrong
        assert bool(facts["warnings"]) is warned
    assert "60 of 120 accepted entries are in conflict, which is 50 % of those" in facts["warnings"][0]
    assert "a 30, b 30" in facts["warnings"][0]
