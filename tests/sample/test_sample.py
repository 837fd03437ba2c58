"""Assignment to splits: by block or row, stable, in proportion; rows taken back by number."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmill.catalog import hats
from zmill.catalog.hats import Partition
from zmill.catalog.sky import at_order
from zmill.config import Split
from zmill.sample.sample import SPLITS, SampleError, assign, by_partition, check_counts, take, uniform

RNG = np.random.default_rng(3)
SKY = pa.array(RNG.integers(0, 12 << 58, 20_000))
ROW = Split(by="row")
FROZEN_INTEGERS = [0.36818951565166946, 0.9140224628703029, 0.23821634612512388]
FROZEN_TEXTS = [0.8240785955997283, 0.8038680451806716]


def test_a_block_is_on_one_side_only() -> None:
    block = 777 << 2 * (29 - 8)
    inside = pa.array(block + RNG.integers(0, 1 << 2 * (29 - 8), 500))
    assert len(set(assign(inside, Split(), 1))) == 1
    everywhere = assign(SKY, Split(block_order=3), 1)
    blocks = at_order(SKY.to_numpy(), 3)
    for pixel in np.unique(blocks):
        assert len(set(everywhere[blocks == pixel])) == 1
    assert set(everywhere) == set(SPLITS)


@given(st.integers(0, 2**32), st.sets(st.integers(0, 299), min_size=1), st.sampled_from(["sky", "row"]))
def test_a_row_keeps_its_side_whatever_else_is_there(seed: int, rows: set[int], by: str) -> None:
    keys, some = SKY.slice(0, 300), sorted(rows)
    split = Split(by=by)
    assert np.array_equal(assign(keys, split, seed)[some], assign(keys.take(pa.array(some)), split, seed))


@pytest.mark.parametrize("keys", [pa.array(range(20_000)), pa.array([f"J{n}" for n in range(20_000)]), SKY])
def test_proportions_follow_the_configuration(keys: pa.Array) -> None:
    side = assign(keys, ROW, 5)
    for name in SPLITS:
        # five standard deviations of a binomial count
        share = getattr(ROW, name)
        assert abs(np.mean(side == name) - share) < 5 * np.sqrt(share * (1 - share) / len(keys))


def test_without_a_test_part_the_others_keep_their_proportion() -> None:
    side = assign(SKY, ROW, 5, tested=False)
    assert set(side) == {"train", "valid", "calib"}
    assert abs(np.mean(side == "train") - 0.75) < 0.02


def test_another_seed_is_another_split_and_hashes_are_fixed_for_good() -> None:
    assert not np.array_equal(assign(SKY, Split(), 1), assign(SKY, Split(), 2))
    # frozen: a change here would move test rows of surveys that are already split
    np.testing.assert_allclose(uniform(np.array([0, 1, 2**40]), 1), FROZEN_INTEGERS, rtol=0, atol=0)
    np.testing.assert_allclose(uniform(np.array(["a", "J000001"], object), 1), FROZEN_TEXTS, rtol=0, atol=0)


def test_test_rows_stay_when_train_and_valid_are_shared_out_differently() -> None:
    one, other = assign(SKY, Split(), 1), assign(SKY, Split(train=0.5, valid=0.2), 1)
    assert np.array_equal(one == "test", other == "test")
    assert np.array_equal(one == "calib", other == "calib")


def test_uniform_numbers_are_uniform() -> None:
    numbers = uniform(np.arange(100_000), 9)
    assert numbers.min() >= 0 and numbers.max() < 1
    ranks = np.abs(np.sort(numbers) - np.arange(100_000) / 100_000)
    assert ranks.max() < 1.95 / np.sqrt(100_000)  # Kolmogorov–Smirnov, p = 0.001


def test_too_few_labels_say_how_many_and_what_helps() -> None:
    with pytest.raises(
        SampleError, match=r"valid has 2 and needs 5.*142 rows have a label.*ambiguous 10.*block_order above 8"
    ):
        check_counts({"train": 100, "valid": 2, "calib": 20, "test": 10}, Split(), 142, {"ambiguous": 10, "cut:x": 0})
    with pytest.raises(SampleError, match=r"what helps: add labels or relax the cuts$"):
        check_counts({"train": 3, "valid": 0, "calib": 0, "test": 0}, Split(), 3, {})


@pytest.fixture
def catalog(tmp_path: Path) -> tuple[Path, list[Partition]]:
    """Two partitions of different order; the first has two row groups."""
    found = [Partition(5, 40), Partition(4, 11)]
    for number, partition in enumerate(found):
        ids = np.arange(1000) + 1000 * number
        table = pa.table({"object_id": pa.array(ids), "x": pa.array(ids * 0.5)})
        with hats.write_partition(tmp_path, partition, table.schema) as writer:
            writer.write(table.slice(0, 300))
            writer.write(table.slice(300))
    return tmp_path, found


def rows(places: list[tuple[Partition, int]], ids: list[int]) -> pa.Table:
    return pa.table(
        {
            "norder": pa.array([p.order for p, _ in places], pa.int8()),
            "npix": pa.array([p.pixel for p, _ in places]),
            "row": pa.array([row for _, row in places]),
            "object_id": pa.array(ids),
        }
    )


def test_rows_are_taken_by_number_over_row_groups(catalog: tuple[Path, list[Partition]]) -> None:
    folder, (first, second) = catalog
    wanted = rows([(second, 5), (first, 999), (first, 0), (first, 300), (first, 299)], [1005, 999, 0, 300, 299])
    found = [(partition, positions.tolist()) for partition, positions in by_partition(wanted)]
    assert found == [(first, [2, 4, 3, 1]), (second, [0])]
    part = take(folder, first, wanted.take(pa.array([2, 4, 3, 1])), ["x"])
    assert part.column_names == ["x"]
    assert part.column("x").to_pylist() == [0, 149.5, 150, 499.5]
    assert list(by_partition(wanted.slice(0, 0))) == []


@pytest.mark.parametrize("row", [(4, 5), (1000, 0), (-1, 0)])
def test_other_objects_at_these_rows_are_refused(catalog: tuple[Path, list[Partition]], row: tuple[int, int]) -> None:
    folder, (first, _) = catalog
    with pytest.raises(SampleError, match="not the objects that were matched"):
        take(folder, first, rows([(first, row[0])], [row[1]]))
