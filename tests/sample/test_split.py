"""From matches to the sample: what is used, what is not and why; colors from training rows alone."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from pandas.testing import assert_frame_equal

from clean.small import BANDS, survey, write_matches, write_rows, write_survey
from zmill.catalog import hats
from zmill.catalog.files import read_json, write_json
from zmill.clean.partition import Recipe
from zmill.clean.shard import clean_shard, finish_catalog
from zmill.config import Split, Weights
from zmill.inputs.photometry.kind import PhotometryKind
from zmill.sample import labelled, sample
from zmill.sample.labelled import build_sample
from zmill.sample.sample import LABEL_COLUMNS, SPLITS, SampleError
from zmill.sample.split import fit_imputation, split_matches
from zmill.survey_definition import Survey
from zmill.workflow.warning import collect

CUTS = {"faint": {"column": "mag_r", "max": 22.5}, "galaxy": {"column": "kind", "equals": ["galaxy"]}}
SMALL_BLOCKS = Split(block_order=10)


SURVEY = [PhotometryKind(BANDS, BANDS.index("r"))]


class Sky:
    """A survey, its matches and the stages that follow them."""

    def __init__(self, folder: Path, text_ids: bool = False) -> None:
        self.folder = folder
        self.parts = write_survey(folder / "survey", [2000, 0, 1500, 1], text_ids=text_ids)
        self.matches = write_matches(folder / "matches.parquet", folder / "survey", every=2)

    def split(self, definition: Survey, split: Split = SMALL_BLOCKS, ambiguous: str = "exclude") -> dict:
        folder = self.folder
        return split_matches(
            folder / "matches.parquet", folder / "survey", definition, split, ambiguous, 1, folder / "split.parquet",
            folder / "split.json",
        )  # fmt: skip

    def colors(self) -> bytes:
        fit_imputation(self.folder / "split.parquet", self.folder / "survey", SURVEY, self.folder / "imputation.json")
        return (self.folder / "imputation.json").read_bytes()

    def clean(self, definition: Survey) -> None:
        folder = self.folder
        colors = fit_imputation(folder / "split.parquet", folder / "survey", SURVEY, folder / "imputation.json")
        recipe = Recipe(tuple(SURVEY), definition.cuts, colors)
        clean_shard(folder / "survey", folder / "clean", self.parts, recipe, folder / "progress.json")
        finish_catalog(folder / "survey", folder / "clean", "small")

    def sample(self, settings: Weights, out: str = "sample") -> dict:
        folder = self.folder
        return build_sample(
            folder / "split.parquet", folder / "clean", folder / "split.json", folder / out, SURVEY, settings, 1
        )

    def weights(self, out: str, split: str) -> np.ndarray:
        return pq.read_table(self.folder / out / f"{split}.parquet").column("weight").to_numpy()


@pytest.fixture
def sky(tmp_path: Path) -> Sky:
    return Sky(tmp_path)


def test_every_labelled_row_is_used_or_has_a_reason(sky: Sky) -> None:
    report = sky.split(survey(cuts=CUTS))
    table = pq.read_table(sky.folder / "split.parquet")
    given = [name for name in sky.matches.column_names if name != "redshift_err"]  # NaN equals nothing
    assert table.select(given).equals(sky.matches.select(given))
    reason, side = (np.array(table.column(name).to_pylist()) for name in ("excluded", "split"))
    assert np.array_equal(reason == "", side != "")
    assert np.all(reason[sky.matches.column("ambiguous").to_numpy()] == "ambiguous")
    assert set(reason) == {"", "ambiguous", "no_measurement", "cut:faint", "cut:galaxy"}
    assert report["steps"][0] == {"step": "survey", "rows": 3501}
    assert report["steps"][1] == {"step": "labelled", "rows": sky.matches.num_rows}
    left = report["steps"][-1]["rows"]
    assert left == np.count_nonzero(reason == "") == sum(report["splits"].values())
    assert sum(report["excluded"].values()) == sky.matches.num_rows - left
    for name in SPLITS:
        assert report["splits"][name] == np.count_nonzero(side == name)
        assert report["fractions"][name] == pytest.approx(report["splits"][name] / left, abs=1e-6)
    assert read_json(sky.folder / "split.json") == report


def test_cut_bits_are_those_of_the_survey_row(sky: Sky) -> None:
    sky.split(survey(cuts=CUTS))
    table = pq.read_table(sky.folder / "split.parquet")
    rows = pa.concat_tables([hats.read_columns(sky.folder / "survey", part) for part in sky.parts])
    own = dict(enumerate(rows.select(["mag_r", "kind"]).to_pylist()))
    for number, cut in zip(table.column("object_id").to_pylist(), table.column("cut").to_pylist(), strict=True):
        faint, other = not own[number]["mag_r"] <= 22.5, own[number]["kind"] != "galaxy"
        assert cut == faint + 2 * other


def test_ambiguous_matches_can_be_kept(sky: Sky) -> None:
    report = sky.split(survey(), ambiguous="keep")
    empty = report["excluded"]["no_measurement"]
    assert report["excluded"] == {"beyond_grid": 0, "no_measurement": empty}
    assert 0 < sum(report["splits"].values()) == sky.matches.num_rows - empty


def test_labels_beyond_the_grid_are_counted_apart_and_logged(sky: Sky) -> None:
    z = sky.matches["redshift"].to_numpy()
    top = float(np.quantile(z, 0.7))
    report = sky.split(survey(redshift_grid={"min": 0, "max": top, "points": 101}), ambiguous="keep")
    table = pq.read_table(sky.folder / "split.parquet")
    beyond = np.array(table["excluded"].to_pylist()) == "beyond_grid"
    assert np.array_equal(beyond, z > top) and report["excluded"]["beyond_grid"] == beyond.sum()
    assert set(np.array(table["split"].to_pylist())[beyond]) == {""}
    assert len(report["warnings"]) == 1
    assert f"{beyond.sum():,} of {len(z):,} labelled rows (30" in report["warnings"][0]
    assert "take no part in training, calibration or any metric" in report["warnings"][0]


def test_a_label_or_two_beyond_the_grid_are_counted(sky: Sky) -> None:
    top = float(np.sort(sky.matches["redshift"].to_numpy())[-2])
    report = sky.split(survey(redshift_grid={"min": 0, "max": top, "points": 101}), ambiguous="keep")
    assert report["excluded"]["beyond_grid"] == 1 and report["warnings"] == []


def test_rows_without_any_magnitude_are_not_used(sky: Sky) -> None:
    sky.split(survey())
    table = pq.read_table(sky.folder / "split.parquet")
    rows = pa.concat_tables([hats.read_columns(sky.folder / "survey", part) for part in sky.parts])
    own = rows.filter(pc.is_in(rows.column("object_id"), value_set=table.column("object_id").combine_chunks()))
    empty = np.isnan(np.stack([own.column(f"mag_{band}").to_numpy() for band in BANDS])).all(axis=0)
    ambiguous = table.column("ambiguous").to_numpy()
    assert np.array_equal(np.array(table.column("excluded").to_pylist()) == "no_measurement", empty & ~ambiguous)


def test_other_labels_leave_the_others_where_they_are(sky: Sky) -> None:
    sky.split(survey())
    before = pq.read_table(sky.folder / "split.parquet", columns=["object_id", "split"])
    pq.write_table(sky.matches.slice(100, 1300), sky.folder / "matches.parquet")
    sky.split(survey())
    after = pq.read_table(sky.folder / "split.parquet", columns=["object_id", "split"])
    assert after.equals(before.slice(100, 1300).combine_chunks())


def test_photometry_outside_of_training_does_not_reach_the_colors(sky: Sky) -> None:
    sky.split(survey(cuts=CUTS))
    before = sky.colors()
    table = pq.read_table(sky.folder / "split.parquet")
    train = table.filter(pc.equal(table.column("split"), "train"))
    for part in sky.parts:
        rows = hats.read_columns(sky.folder / "survey", part)
        others = ~np.isin(rows.column("object_id").to_numpy(), train.column("object_id").to_numpy())
        rows = _shift(rows, others)
        write_rows(sky.folder / "survey", part, rows)
    assert sky.colors() == before
    for part in sky.parts:
        rows = hats.read_columns(sky.folder / "survey", part)
        write_rows(sky.folder / "survey", part, _shift(rows, np.ones(rows.num_rows, bool)))
    assert sky.colors() != before


def _shift(rows: pa.Table, those: np.ndarray) -> pa.Table:
    mag = rows.column("mag_r").to_numpy() + np.where(those, 3, 0).astype(np.float32)
    return rows.set_column(rows.schema.get_field_index("mag_r"), "mag_r", pa.array(mag))


@pytest.mark.parametrize("text_ids", [False, True])
def test_the_sample_has_clean_photometry_and_the_label(tmp_path: Path, text_ids: bool) -> None:
    sky, definition = Sky(tmp_path, text_ids), survey(cuts=CUTS)
    counts = sky.split(definition)
    sky.clean(definition)
    report = sky.sample(Weights())
    table = pq.read_table(tmp_path / "split.parquet")
    clean = pa.concat_tables([hats.read_columns(tmp_path / "clean", part) for part in sky.parts])
    seen = []
    for name in SPLITS:
        sample = pq.read_table(tmp_path / "sample" / f"{name}.parquet")
        assert sample.column_names == [*clean.column_names, *LABEL_COLUMNS, "weight"]
        assert sample.num_rows == counts["splits"][name] == report["splits"][name]["rows"]
        assert set(sample.column("cut").to_pylist()) == {0}
        assert sample.column("weight").to_numpy().mean() == pytest.approx(1)
        wanted = table.filter(pc.equal(table.column("split"), name))
        assert sample.column("object_id").to_pylist() == wanted.column("object_id").to_pylist()
        assert sample.column("redshift").to_pylist() == wanted.column("redshift").to_pylist()
        own = clean.filter(pc.is_in(clean.column("object_id"), value_set=wanted.column("object_id").combine_chunks()))
        assert np.array_equal(sample.column("mag_g").to_numpy(), own.column("mag_g").to_numpy(), equal_nan=True)
        seen += sample.column("object_id").to_pylist()
    assert len(seen) == len(set(seen)) == counts["steps"][-1]["rows"]
    assert read_json(tmp_path / "sample" / "sample.json")["steps"] == counts["steps"]


def test_weights_know_the_photometry_and_no_redshift(sky: Sky) -> None:
    definition = survey(cuts=CUTS)
    sky.split(definition)
    sky.clean(definition)
    sky.sample(Weights(), "one")
    told = read_json(sky.folder / "one" / "weights.json")
    assert told["rows"]["survey"] == 3501 and told["rows"]["drawn"] == told["rows"]["wanted"] < 3501
    assert [axis["name"] for axis in told["axes"]] == ["r", "g-r", "r-i", "i-z"]
    table = pq.read_table(sky.folder / "split.parquet")
    other = pa.array(np.random.default_rng(9).uniform(0, 5, table.num_rows))
    table = table.set_column(table.schema.get_field_index("redshift"), table.schema.field("redshift"), other)
    pq.write_table(table, sky.folder / "split.parquet")
    sky.sample(Weights(), "two")
    for name in SPLITS:
        assert np.array_equal(sky.weights("one", name), sky.weights("two", name))
    assert np.std(sky.weights("one", "train")) > 0.05
    assert read_json(sky.folder / "two" / "weights.json") == told


def test_labels_of_test_rows_do_not_reach_the_training_weights(sky: Sky) -> None:
    """Test rows without their labels are rows of the survey still: the training rows weigh the same."""
    definition = survey()
    sky.split(definition)
    sky.clean(definition)
    sky.sample(Weights(), "one")
    table = pq.read_table(sky.folder / "split.parquet")
    side = np.array(table.column("split").to_pylist())
    drop = (side == "test") & (np.random.default_rng(3).random(len(side)) < 0.5)
    pq.write_table(table.filter(pa.array(~drop)), sky.folder / "split.parquet")
    counts = read_json(sky.folder / "split.json")
    counts["splits"]["test"] -= int(drop.sum())
    write_json(sky.folder / "split.json", counts)
    sky.sample(Weights(), "two")
    for name in ("train", "valid", "calib"):
        assert np.array_equal(sky.weights("one", name), sky.weights("two", name))


def test_a_sample_larger_than_memory_is_the_same(sky: Sky, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is read partition by partition, and written in row groups of a few rows."""
    sky.split(survey(cuts=CUTS))
    sky.clean(survey(cuts=CUTS))
    report = sky.sample(Weights(method="lima", neighbors=3))
    monkeypatch.setattr(sample, "GROUP_ROWS", 2)
    monkeypatch.setattr(labelled, "LabelledRows", SimpleNamespace(of=partial(labelled.LabelledRows.of, most_bytes=0)))
    assert sky.sample(Weights(method="lima", neighbors=3), "other") == report
    for name in sample.SPLITS:
        one, other = (sky.folder / out / f"{name}.parquet" for out in ("sample", "other"))
        assert_frame_equal(pq.read_table(one).to_pandas(), pq.read_table(other).to_pandas())
        assert pq.read_metadata(one).num_row_groups == 1 < pq.read_metadata(other).num_row_groups


def test_weights_can_be_left_out(sky: Sky) -> None:
    sky.split(survey())
    sky.clean(survey())
    sky.sample(Weights(method="none"))
    assert all(set(sky.weights("sample", name)) == {1.0} for name in SPLITS)
    assert read_json(sky.folder / "sample" / "weights.json") == {"method": "none"}


def test_matches_of_an_older_survey_are_refused(sky: Sky) -> None:
    write_survey(sky.folder / "survey", [1999, 0, 1500, 1])
    with pytest.raises(SampleError, match="run the stages from crossmatch again"):
        sky.split(survey(cuts=CUTS))


def test_a_split_without_rows_is_refused(sky: Sky) -> None:
    with pytest.raises(SampleError, match=r"needs 5.*1,751 rows have a label.*block_order above 0"):
        sky.split(survey(), Split(block_order=0))
    with pytest.raises(SampleError, match="cut:faint"):
        sky.split(survey(cuts={"faint": {"column": "mag_r", "max": 1}}))
    assert not (sky.folder / "split.parquet").exists()


def test_a_band_that_does_not_vary_is_warned_of(sky: Sky) -> None:
    definition = survey()
    for part in sky.parts:
        rows = hats.read_columns(sky.folder / "survey", part)
        mag = rows.column("mag_r").to_numpy()
        mag = np.where(np.isnan(mag), mag, np.float32(21.5))
        place = rows.schema.get_field_index("mag_r")
        write_rows(sky.folder / "survey", part, rows.set_column(place, "mag_r", pa.array(mag)))
    sky.split(definition)
    sky.clean(definition)
    sky.sample(Weights())
    (text,) = [text for stage, text in collect(sky.folder) if stage == "sample"]
    assert text.startswith("mag_r is 21.5 in all ")
