"""Nights that are killed at any moment, and the night after, which has changes of its own.

It always ends, does not train a model without cause, and what it publishes is what a first run from the same files gives.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import night_sky
import pyarrow as pa
import pytest
from night_sky import CATALOGS, Sky, fresh, hashes, later_labels, record

from zmill.catalog.files import read_json

pytestmark = [pytest.mark.workflow, pytest.mark.slow]

Tally = Callable[[str], AbstractContextManager[None]]
STAGES = (
    *(
        "import_survey",
        "labels",
        "crossmatch",
        "split",
        "retrain_check",
        "clean_shard",
        "clean_catalog",
        "predict_shard",
    ),
    *("photoz_catalog", "gates", "report", "release"),
)
TRAINING = ("sample", "train_model", "evaluate_model", "select_model", "champion")
OPEN = {"rows_lost": 1, "magnitudes": 100, "n_of_z": 1, "n_of_z_new_model": 1, "measured": 1}
"""Gates that let everything through."""


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Sky:
    """The first night of a small sky on which a few labels more or less are no reason to train."""
    refresh = {"labels_changed": 0.3, "every": None, "margin": 0}
    sky = night_sky.copy(night_sky.first_night(tmp_path_factory), tmp_path_factory.mktemp("kills") / "sky")
    night = sky.refresh(refresh=refresh, gates=OPEN)
    assert night.code == 0, night.text[-4000:]
    return sky


@dataclass
class Chance:
    """What happens to a sky, drawn from a seed."""

    sky: Sky
    draw: random.Random
    away: dict[Path, bytes] = field(default_factory=dict)
    labels: int = 0

    def happens(self) -> None:
        """Something changes in the files of the survey or of its labels."""
        sky, draw = self.sky, self.draw
        match draw.choice(["change", "change", "goes", "comes", "labels"]):
            case "change":
                sky.change(draw.choice(sky.tiles), by=draw.uniform(-0.03, 0.03))
            case "goes" if not self.away:
                tile = draw.choice(sky.tiles)
                self.away[tile] = tile.read_bytes()
                tile.unlink()
            case "labels" if self.labels < 20:
                sky.write_labels(pa.concat_tables([sky.labels(), later_labels(sky).slice(self.labels, 4)]))
                self.labels += 4
            case _:
                for tile, content in self.away.items():
                    tile.write_bytes(content)
                self.away.clear()

    def many_labels(self) -> None:
        """So many labels come that models are due."""
        self.sky.write_labels(pa.concat_tables([self.sky.labels(), later_labels(self.sky).slice(self.labels)]))


def as_from_the_first(sky: Sky) -> None:
    """What there is and what is released are what a first run from the same files gives."""
    shutil.rmtree(sky.folder / "fresh", ignore_errors=True)
    anew = fresh(sky)
    assert anew == {name: hashes(sky, name) for name in CATALOGS}
    for name, told in record(sky)["catalogs"].items():
        released = {int(key.partition("Npix=")[2]): entry["xxh3_128"] for key, entry in told["partitions"].items()}
        assert released == anew[name], name


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(2, 16))])
def test_nights_that_are_killed_and_nights_after(first: Sky, tmp_path: Path, tally: Tally, seed: int) -> None:
    sky = night_sky.copy(first, tmp_path / "sky")
    chance = Chance(sky, random.Random(seed))
    champion = read_json(sky.results / "champion.json")["hash"]
    rounds, kills = (1, (1, 3)) if seed == 1 else (3, (4, 8))
    for _ in range(rounds):
        with ExitStack() as survived:
            killed = []
            for _ in range(chance.draw.randint(*kills)):
                chance.happens()
                stage, jobs_too = chance.draw.choice(STAGES), chance.draw.random() < 0.7
                if sky.killed_at(stage, chance.draw.uniform(0, 1.5), jobs_too):
                    killed.append(stage)
                    survived.enter_context(tally(f"kill -9 of a night{'' if jobs_too else ', its jobs go on'}"))
                assert record(sky)["rows"] > 0, "the earlier release stays"
            chance.happens()
            night = sky.refresh()
            assert night.code == 0, f"killed at {killed}: {night.text[-4000:]}"
            assert not set(TRAINING) & set(night.jobs), f"killed at {killed}, trained without cause: {night.jobs}"
            assert read_json(sky.results / "champion.json")["hash"] == champion
            as_from_the_first(sky)
    assert sky.refresh().jobs == {}


@pytest.mark.long
@pytest.mark.parametrize("stage", TRAINING)
def test_a_night_that_is_killed_while_models_are_trained(first: Sky, tmp_path: Path, tally: Tally, stage: str) -> None:
    sky = night_sky.copy(first, tmp_path / "sky")
    chance = Chance(sky, random.Random(stage))
    chance.many_labels()
    with tally("kill -9 of a night that trains"):
        sky.killed_at(stage, chance.draw.uniform(0, 1.5))
        sky.change(sky.tiles[3])
        night = sky.refresh()
        assert night.code == 0, night.text[-4000:]
        as_from_the_first(sky)
        assert not set(TRAINING) & set(sky.refresh().jobs)
    sky.change(sky.tiles[4])
    assert not set(TRAINING) & set(sky.refresh().jobs)


def test_one_shard_is_killed_and_a_file_of_another_changes(first: Sky, tmp_path: Path, tally: Tally) -> None:
    """The case that once let every later night fail: the progress of one shard absent, another one new."""
    sky = night_sky.copy(first, tmp_path / "sky")
    shards = {number: (sky.results / "survey" / "shards" / f"{number}.csv").read_text() for number in (0, 2)}
    (sky.results / "progress" / "clean" / "0.json").unlink()
    (sky.results / "progress" / "records" / "clean_shard" / "0.json").unlink()
    tile = next(tile for tile in sky.tiles if f",{tile.stem.removeprefix('tile-')}," in shards[2])
    sky.change(tile)
    with tally("one shard of a killed job absent, another one changed"):
        night = sky.refresh()
        assert night.code == 0, night.text[-4000:]
        assert night.jobs["clean_shard"] == 2 and not set(TRAINING) & set(night.jobs)
        as_from_the_first(sky)
        assert sky.refresh().jobs == {}
