"""A survey's files into HATS: rows in = rows out + rows set aside, whatever the format, the pieces and the accidents."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hats.io.validation import is_valid_catalog
from small_survey import BANDS, survey, table, write

from inputs.photometry.test_extinction import write_map
from zmill.catalog import hats, shards
from zmill.catalog.files import read_json
from zmill.catalog.sky import HEALPIX_COLUMN, healpix
from zmill.config import Partitions
from zmill.survey import importer, pieces
from zmill.survey.counts import Counts
from zmill.survey.importer import ImportFailed, import_survey
from zmill.survey.readers import ReadError
from zmill.survey_definition import Survey

SMALL = Partitions(max_rows=200, shard_rows=1000)


def run(folder: Path, files: list[Path], definition: Survey | None = None, **options: Any) -> Counts:
    options = {"partitions": SMALL, **options}
    return import_survey(
        files,
        definition or survey(),
        catalog=folder / "survey",
        rejected=folder / "rejected" / "survey.parquet",
        **options,
    )


def rows(folder: Path) -> pa.Table:
    catalog = folder / "survey"
    return pa.concat_tables([hats.read_columns(catalog, part) for part in hats.partitions(catalog)])


def hashes(folder: Path) -> dict[str, str]:
    catalog = folder / "survey"
    return {part.name: hats.sidecar(catalog, part)["xxh3_128"] for part in hats.partitions(catalog)}


def rejected(folder: Path) -> dict[str, list[str]]:
    found = pq.read_table(folder / "rejected" / "survey.parquet").to_pylist()
    counts = read_json(folder / "rejected" / "survey.json")
    by_reason: dict[str, list[str]] = {}
    for row in found:
        by_reason.setdefault(row["reason"], []).append(row["object_id"])
    assert counts == {reason: len(ids) for reason, ids in by_reason.items()}
    return by_reason


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("imported")
    run(folder, [write(table(1500), folder / "in", "parquet")])
    return folder


def test_catalog_is_hats_and_rows_are_the_input(imported: Path) -> None:
    catalog, data = imported / "survey", table(1500)
    assert is_valid_catalog(catalog, strict=True)
    found = rows(imported)
    assert found.num_rows == 1500
    per_band = [f"{kind}_{band}" for kind in ("mag", "magerr", "maglim") for band in BANDS]
    front = [HEALPIX_COLUMN, "object_id", "ra", "dec"]
    assert found.column_names == [*front, *per_band, "undetected", "unobserved", "ebv", "size", "kind"]
    index = found.column(HEALPIX_COLUMN).to_numpy()
    assert np.array_equal(index, healpix(found.column("ra").to_numpy(), found.column("dec").to_numpy()))
    for part in hats.partitions(catalog):
        inside = hats.read_columns(catalog, part).column(HEALPIX_COLUMN).to_numpy()
        first, behind = part.interval()
        assert np.all(np.diff(inside) >= 0) and first <= inside[0] and inside[-1] < behind and len(inside) <= 200
    back = found.sort_by("object_id")
    for name in ("ra", "dec", "size", "kind"):
        assert back.column(name).to_pylist() == data.column(name).to_pylist()
    for number, band in enumerate(BANDS):
        given, mag = data.column(f"mag_{band}").to_numpy(), back.column(f"mag_{band}").to_numpy()
        undetected = back.column("undetected").to_numpy() >> number & 1 == 1
        unobserved = back.column("unobserved").to_numpy() >> number & 1 == 1
        assert np.array_equal(undetected, given == 99) and np.array_equal(unobserved, given == -99)
        measured = ~undetected & ~unobserved
        assert np.array_equal(mag[measured], given[measured]) and np.isnan(mag[~measured]).all()
        assert np.isnan(back.column(f"magerr_{band}").to_numpy()[~measured]).all()
    planned = [shards.read(shards.file(catalog, number)) for number in shards.numbers(catalog)]
    assert [part for shard in planned for part in shard] == hats.partitions(catalog) and len(planned) > 1
    assert not list(imported.glob(".*")), "the scratch folder is gone"


@pytest.mark.parametrize("format", ["fits", "csv", "votable", "hdf5", "hats"])
def test_every_format_gives_the_same_catalog(imported: Path, tmp_path: Path, format: str) -> None:
    group = "photometry" if format == "hdf5" else None
    run(tmp_path, [write(table(1500), tmp_path / "in", format)], survey(group=group))
    assert hashes(tmp_path) == hashes(imported)


def test_pieces_files_and_processes_do_not_change_a_byte(
    imported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importer, "PIECE_ROWS", 100)
    monkeypatch.setattr(importer, "SMALL_BYTES", 0)
    data = table(1500)
    files = [write(data.slice(start, 500), tmp_path / str(start), "parquet") for start in (0, 500, 1000)]
    run(tmp_path, files, threads=2)
    assert hashes(tmp_path) == hashes(imported)


def bad_table() -> tuple[pa.Table, dict[str, list[str]]]:
    """200 rows, some of them bad in every way there is."""
    data = table(200).to_pydict()
    expected = {
        "position_not_finite": {10: ("ra", np.nan), 11: ("dec", np.inf), 12: ("dec", None)},
        "position_out_of_range": {20: ("dec", 90.5), 21: ("ra", 360.1), 22: ("ra", -999.0)},
        "position_zero": {25: ("ra", 0.0)},
        "duplicate_object_id": {50: ("id", 6), 51: ("id", 6)},
    }
    data["dec"][25] = 0.0
    data["mag_r"][60], data["err_r"][60] = -99.0, -99.0
    data["mag_r"][61], data["err_r"][61] = 99.0, 0.0
    for faults in expected.values():
        for row, (column, value) in faults.items():
            data[column][row] = value
    ids = {reason: [str(data["id"][row]) for row in faults] for reason, faults in expected.items()}
    return pa.table(data, schema=table(1).schema), ids


def test_bad_rows_are_set_aside_with_their_reason(tmp_path: Path) -> None:
    data, expected = bad_table()
    path = write(data, tmp_path / "in", "parquet")
    summary = run(tmp_path, [path])
    assert rejected(tmp_path) == expected
    assert (summary.rows, summary.kept) == (200, 200 - 9)
    assert summary.rejected == {reason: len(ids) for reason, ids in expected.items()} and not summary.faults
    kept = rows(tmp_path)
    assert kept.num_rows == 191 and len(set(kept.column("object_id").to_pylist())) == 191
    table_of_bad = pq.read_table(tmp_path / "rejected" / "survey.parquet")
    where = dict(zip(table_of_bad.column("row").to_pylist(), table_of_bad.column("reason").to_pylist(), strict=True))
    assert where[20] == "position_out_of_range" and where[51] == "duplicate_object_id"
    assert set(table_of_bad.column("file").to_pylist()) == {str(path)}


def test_a_bad_number_of_one_band_costs_the_band_and_is_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = table(200).to_pydict()
    for band in BANDS:
        data[f"mag_{band}"], data[f"err_{band}"] = [20.0] * 200, [0.1] * 200
    bad = {30: ("mag_r", np.inf), 35: ("mag_r", -9999.0), 40: ("err_i", 0.0), 41: ("err_g", -1.0), 42: ("err_g", -1.0)}
    for row, (column, value) in bad.items():
        data[column][row] = value
    data["mag_g"][43], data["ra"][43] = np.inf, np.nan  # a row that is set aside has no bands to count
    counts = run(tmp_path, [write(pa.table(data, schema=table(1).schema), tmp_path / "in", "parquet")])
    expected = {
        "r": {"value_infinite": 1, "magnitude_out_of_range": 1},
        "i": {"error_zero": 1},
        "g": {"error_negative": 2},
    }
    assert counts.kept == 199 and counts.faults == expected and counts.unusable == 0
    assert read_json(tmp_path / "import.json")["faults"] == expected
    assert "error_negative: 2 in g of 200 rows" in caplog.text
    back = rows(tmp_path).sort_by("object_id")
    unobserved = dict(zip(back.column("object_id").to_pylist(), back.column("unobserved").to_pylist(), strict=True))
    assert {row: mask for row, mask in unobserved.items() if mask} == {31: 2, 36: 2, 42: 1, 43: 1}
    assert back.column("mag_i")[40].as_py() == 20.0 and np.isnan(back.column("magerr_i")[40].as_py())


def test_rows_that_are_mostly_of_no_use_stop_the_import(tmp_path: Path) -> None:
    data = table(20).to_pydict()
    for row in range(11):
        for band in BANDS:
            data[f"mag_{band}"][row] = 99.9
    path = write(pa.table(data, schema=table(1).schema), tmp_path / "in", "parquet")
    with pytest.raises(
        ImportFailed, match=r"11 of 20 rows are of no use.*no usable measurement: 11, with magnitude_out_of_range"
    ):
        run(tmp_path, [path])


def test_ebv_that_is_a_sentinel_is_never_used(tmp_path: Path) -> None:
    ebv = np.full(50, 0.02)
    ebv[:5] = -99, 99, np.inf, np.nan, 10.5
    data = table(50).append_column("ebv", pa.array(ebv))
    path = write(data, tmp_path / "in", "parquet")
    coefficients = dict.fromkeys(BANDS, 3.0)
    run(tmp_path / "used", [path], survey(columns={"ebv": "ebv"}, extinction={"coefficients": coefficients}))
    assert rejected(tmp_path / "used") == {"ebv_out_of_range": ["1", "2", "5"], "ebv_not_finite": ["3", "4"]}
    counts = run(tmp_path / "carried", [path], survey(columns={"ebv": "ebv"}))
    assert counts.kept == 50 and counts.faults == {"E(B-V)": {"ebv_out_of_range": 4}}
    back = rows(tmp_path / "carried").sort_by("object_id").column("ebv").to_numpy()
    assert np.isnan(back[:5]).all() and np.isfinite(back[5:]).all()


def test_first_of_repeated_ids_is_kept_over_files_and_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importer, "PIECE_ROWS", 40)
    first, second = table(100, seed=1), table(100, seed=2, first_id=61)
    nowhere = first.to_pydict()
    nowhere["ra"][99] = np.nan  # id 100 is bad in the first file: the one of the second file is the first
    files = [
        write(pa.table(nowhere, schema=first.schema), tmp_path / "a", "parquet"),
        write(second, tmp_path / "b", "parquet"),
    ]
    run(tmp_path, files)
    found = rejected(tmp_path)
    assert sorted(map(int, found["duplicate_object_id"])) == list(range(61, 100))
    assert found["position_not_finite"] == ["100"]
    back = rows(tmp_path).sort_by("object_id")
    assert back.column("object_id").to_pylist() == list(range(1, 161))
    assert back.column("ra").to_pylist()[:99] == first.column("ra").to_pylist()[:99]
    assert back.column("ra")[99].as_py() == second.column("ra")[39].as_py()


def test_an_identifier_that_most_rows_share_is_none(tmp_path: Path) -> None:
    data = table(50).to_pydict()
    data["id"] = [1, 2] * 25
    path = write(pa.table(data, schema=table(1).schema), tmp_path / "in", "parquet")
    with pytest.raises(importer.ImportFailed, match=r"object_id = 'id': 48 of 50 rows repeat .* leave object_id out"):
        run(tmp_path, [path])


def test_text_ids_and_no_ids(tmp_path: Path) -> None:
    data = table(50).to_pydict()
    data["id"] = [f"J{n:03d}" for n in range(49)] + ["J000"]
    path = write(pa.table(data), tmp_path / "in", "parquet")
    run(tmp_path / "text", [path])
    assert sorted(rows(tmp_path / "text").column("object_id").to_pylist()) == data["id"][:49]
    assert rejected(tmp_path / "text") == {"duplicate_object_id": ["J000"]}
    run(tmp_path / "none", [path, path], survey(columns={"object_id": None}))
    assert sorted(rows(tmp_path / "none").column("object_id").to_pylist()) == list(range(100))


def test_ids_that_are_rounded_are_refused(tmp_path: Path) -> None:
    rounded = (pa.array([1.24e18, 1.25e18]), pa.array([1.5, 2.5]), pa.array([16777218.0, 1.0], pa.float32()))
    for values in rounded:
        data = table(2).set_column(0, "id", values)
        with pytest.raises(ReadError, match=r"s\.parquet: column 'id' \(object_id\).*no exact integers"):
            run(tmp_path, [write(data, tmp_path / "in", "parquet")])
    data = table(2).set_column(0, "id", pa.array(["1.2376619e+18", "1.2376620e+18"]))
    with pytest.raises(ReadError, match=r"s\.csv: column 'id' \(object_id\).*no exact integers"):
        run(tmp_path, [write(data, tmp_path / "in", "csv")])


def test_ids_keep_every_digit_whatever_their_type(tmp_path: Path) -> None:
    several = (
        (pa.array([2**63 + 1, 5], pa.uint64()), ["9223372036854775809", "5"]),
        (pa.array([2**63 - 1, None], pa.uint64()), [2**63 - 1]),
        (pa.array([10957, 10958], pa.int32()).cast(pa.date32()), ["2000-01-01", "2000-01-02"]),
        (pa.array(["007", "7"]), ["007", "7"]),
        (pa.array([5.0, None]), [5]),
    )
    for number, (values, expected) in enumerate(several):
        folder = tmp_path / str(number)
        run(folder, [write(table(2).set_column(0, "id", values), folder / "in", "parquet")])
        assert sorted(rows(folder).column("object_id").to_pylist()) == sorted(expected)


def test_column_that_does_not_identify(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importer, "MOST_REPEATED", 10)
    data = pa.concat_tables([table(50), table(50)])
    with pytest.raises(ImportFailed, match="50 identifiers of 100 rows occur more than once"):
        run(tmp_path, [write(data, tmp_path / "in", "parquet")])


def test_one_row_empty_file_and_one_partition(tmp_path: Path) -> None:
    empty = write(table(5).slice(0, 0), tmp_path / "empty", "csv")
    one = write(table(1), tmp_path / "one", "csv")
    run(tmp_path, [empty, one, write(table(0), tmp_path / "zero", "parquet")])
    assert rows(tmp_path).num_rows == 1 and is_valid_catalog(tmp_path / "survey", strict=True)
    many = write(table(300), tmp_path / "many", "parquet")
    here = survey(columns={"ra": "size", "dec": "size"})
    run(tmp_path, [many], here, partitions=Partitions(max_rows=1000))
    assert rows(tmp_path).num_rows == 300 and len(hats.partitions(tmp_path / "survey")) == 1
    with pytest.raises(ImportFailed, match="there is no row"):
        run(tmp_path, [empty])


def test_partition_of_the_highest_order_keeps_all_of_its_rows(tmp_path: Path) -> None:
    here = survey(columns={"ra": "size", "dec": "size"})
    path = write(table(300), tmp_path / "in", "parquet")
    run(tmp_path, [path], here, partitions=Partitions(max_rows=10, max_order=3))
    found = rows(tmp_path)
    assert found.num_rows == 300 and {part.order for part in hats.partitions(tmp_path / "survey")} == {3}
    keys = list(zip(found.column(HEALPIX_COLUMN).to_pylist(), found.column("object_id").to_pylist(), strict=True))
    assert keys == sorted(keys), "rows at the same place are in the order of their identifiers"


def test_no_usable_row_says_what_was_looked_at(tmp_path: Path) -> None:
    data = table(20).set_column(2, "dec", pa.array([np.nan] * 20))
    with pytest.raises(ImportFailed, match=r"none of the 20 rows has a usable position: columns\.ra = 'ra'"):
        run(tmp_path, [write(data, tmp_path / "in", "parquet")])


@pytest.mark.parametrize("unit", ["hour", "radian"])
def test_angle_units_and_negative_right_ascension(tmp_path: Path, unit: str) -> None:
    data = table(40)
    ra, dec = data.column("ra").to_numpy(), data.column("dec").to_numpy()
    other = {"hour": (ra / 15, dec), "radian": (np.radians(np.where(ra > 180, ra - 360, ra)), np.radians(dec))}[unit]
    changed = data.set_column(1, "ra", pa.array(other[0])).set_column(2, "dec", pa.array(other[1]))
    path = write(changed, tmp_path / "in", "parquet")
    run(tmp_path, [path], survey(columns={"angle_unit": unit}))
    back = rows(tmp_path).sort_by("object_id")
    assert back.column("ra").to_pylist() == pytest.approx(ra.tolist())
    assert back.column("dec").to_pylist() == pytest.approx(dec.tolist())


def test_extinction_from_a_column_and_from_a_map(tmp_path: Path) -> None:
    coefficients = {"g": 3.0, "r": 2.0, "i": 1.0}
    ebv = np.linspace(0.0, 0.5, 100)
    data = table(100).append_column("ebv", pa.array(ebv))
    data = data.set_column(data.column_names.index("ebv"), "ebv", pa.array([*ebv[:99], np.nan]))
    for band in BANDS:  # an undetected band has its limit there
        error = np.where(data.column(f"mag_{band}").to_numpy() == 99, 26.5, data.column(f"err_{band}").to_numpy())
        data = data.set_column(data.column_names.index(f"err_{band}"), f"err_{band}", pa.array(error))
    path = write(data, tmp_path / "in", "parquet")
    limits = {"undetected": [99.0], "unobserved": [-99.0], "limit_in_error": True}
    definition = survey(columns={"ebv": "ebv"}, extinction={"coefficients": coefficients}, sentinels=limits)
    run(tmp_path / "column", [path], definition)
    assert rejected(tmp_path / "column") == {"ebv_not_finite": ["100"]}
    back = rows(tmp_path / "column").sort_by("object_id")
    for band, coefficient in coefficients.items():
        given, error = data.column(f"mag_{band}").to_numpy()[:99], data.column(f"err_{band}").to_numpy()[:99]
        mag, limit = back.column(f"mag_{band}").to_numpy(), back.column(f"maglim_{band}").to_numpy()
        measured, undetected = (given > 0) & (given < 90), given == 99
        assert mag[measured] == pytest.approx((given - coefficient * ebv[:99])[measured], abs=1e-5)
        assert limit[undetected] == pytest.approx((error - coefficient * ebv[:99])[undetected], abs=1e-5)

    (tmp_path / "maps").mkdir()
    write_map(tmp_path / "maps" / "ebv.fits", np.full(768, 0.25), ORDERING="NESTED", COORDSYS="G")
    definition = survey(extinction={"coefficients": coefficients, "map": "maps/ebv.fits"})
    run(tmp_path / "map", [path], definition, data_dir=tmp_path)
    back = rows(tmp_path / "map").sort_by("object_id")
    assert set(back.column("ebv").to_pylist()) == {0.25} and back.num_rows == 100
    given, mag = data.column("mag_g").to_numpy(), back.column("mag_g").to_numpy()
    assert mag[np.isfinite(mag)] == pytest.approx(given[np.isfinite(mag)] - 0.75, abs=1e-5)


class Killed(BaseException):
    """As if the process ended here."""


@pytest.mark.parametrize("stage", ["count", "group", "write"])
@pytest.mark.parametrize("after", [0, 2])
def test_interrupted_import_goes_on_where_it_stopped(
    imported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str, after: int
) -> None:
    monkeypatch.setattr(importer, "PIECE_ROWS", 250)
    path = write(table(1500), tmp_path / "in", "parquet")
    task, done = getattr(pieces, stage), []

    def dies(*arguments: Any) -> Any:
        if len(done) == after:
            raise Killed
        done.append(arguments)
        return task(*arguments)

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(pieces, stage, dies)
        run(tmp_path, [path])
    assert not (tmp_path / "survey" / "partition_info.csv").exists()
    calls = []
    with monkeypatch.context() as patched:
        patched.setattr(pieces, stage, lambda *arguments: calls.append(arguments) or task(*arguments))
        run(tmp_path, [path])
    key = 1 if stage == "write" else 0
    assert not {call[key] for call in calls} & {call[key] for call in done}, "nothing is done twice"
    assert hashes(tmp_path) == hashes(imported)


def test_changed_input_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(table(300), tmp_path / "in", "parquet")
    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(pieces, "write", lambda *_: (_ for _ in ()).throw(Killed))
        run(tmp_path, [path])
    write(table(400, seed=5), tmp_path / "in", "parquet")
    assert run(tmp_path, [path]).kept == 400


def test_partitions_of_an_earlier_import_are_removed(imported: Path, tmp_path: Path) -> None:
    run(tmp_path, [write(table(1000, seed=9), tmp_path / "old", "parquet")], partitions=Partitions(max_rows=50))
    run(tmp_path, [write(table(1500), tmp_path / "in", "parquet")])
    assert hashes(tmp_path) == hashes(imported)
    files = list((tmp_path / "survey" / "dataset").rglob("*.parquet"))
    sidecars = list((tmp_path / "survey" / "sidecars").rglob("*.json"))
    assert len(files) == len(sidecars) == len(hats.partitions(tmp_path / "survey"))


def test_damaged_file_is_named(tmp_path: Path) -> None:
    good = write(table(200), tmp_path / "a", "parquet")
    bad = write(table(3000, first_id=1000), tmp_path / "b", "fits")
    content = bytearray((good).read_bytes())
    content[50:400] = bytes(350)
    good.write_bytes(bytes(content))
    with pytest.raises(ReadError, match=r"a/s\.parquet"):
        run(tmp_path, [good, bad])


def test_kinds_of_columns_must_agree(tmp_path: Path) -> None:
    first, second = table(10), table(10, first_id=50)
    texts = pa.array([str(v) for v in second.column("id").to_pylist()])
    files = [
        write(first, tmp_path / "a", "parquet"),
        write(second.set_column(0, "id", texts), tmp_path / "b", "parquet"),
    ]
    with pytest.raises(ReadError, match=r"b/s\.parquet: column 'id' \(object_id\) is text in some files and a number"):
        run(tmp_path, files)
