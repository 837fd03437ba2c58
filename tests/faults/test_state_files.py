"""Every kind of file that a run leaves, damaged in five ways: it is made again as it was, or put back, or one message names the
file and the command. Kinds are found in the results of a run, so that a new one is covered as it comes."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase as fnmatch
from pathlib import Path
from typing import TYPE_CHECKING

import night_sky
import pytest
from night_sky import Sky, record

from zmill.catalog import hats
from zmill.catalog.files import file_hash
from zmill.mend import mend
from zmill.release.store import ReleaseError

if TYPE_CHECKING:
    from conftest import Tally  # several folders of tests have a conftest

pytestmark = [pytest.mark.workflow, pytest.mark.slow]


def flip(content: bytes) -> bytes:
    """Another bit in the middle."""
    changed = bytearray(content)
    changed[len(changed) // 2] ^= 4
    return bytes(changed)


DAMAGES: dict[str, Callable[[bytes], bytes | None]] = {
    "truncated": lambda content: content[: 9 * len(content) // 10],
    "emptied": lambda content: b"",
    "half-written": lambda content: content[: len(content) // 2] + bytes(len(content) - len(content) // 2),
    "bit-flipped": flip,
    "deleted": lambda content: None,
}
MADE_WHEN_NEEDED = ("progress/import/", "progress/sources/", "progress/training.json", "progress/records/")
"""What the next import, labels or training does without, and records, without which their job runs again."""
NO_STATE = {"logs", "benchmarks"}
"""What a person reads, and nothing goes on from."""
DETERMINISTIC = (".parquet", ".safetensors", ".csv", "imputation.json", "hats.properties")


def kind(name: str) -> str:
    """A file's name without what tells it from others of its kind."""
    name = re.sub(r"releases/[^/]+/", "releases/ID/", name)
    name = re.sub(r"[0-9a-f]{16,32}", "HASH", name)
    return re.sub(r"(?<=[/=.])\d+(?=[/.])", "N", name)


def state(results: Path) -> Iterator[str]:
    """Files of state, relative to the results."""
    for path in sorted(results.rglob("*")):
        name = path.relative_to(results)
        if (
            path.is_file()
            and not path.is_symlink()
            and name.parts[0] not in ({"current"} | NO_STATE)
            and path.name != ".lock"
        ):
            yield str(name)


def kinds(results: Path) -> dict[str, str]:
    """A file of each kind."""
    return {kind(name): name for name in state(results)}


def documented(root: Path) -> list[str]:
    """Patterns of paths in the tables of the page on state."""
    page = (root / "docs" / "develop" / "state.md").read_text(encoding="utf-8")
    cells = [line.split("|")[1] for line in page.splitlines() if line.startswith("| `")]
    return [pattern for cell in cells for pattern in re.findall(r"`([^`]+)`", cell)]


def undocumented(results: Path, root: Path) -> list[str]:
    """Kinds of files that no pattern fits; a check file counts as the file that it is of."""
    patterns = documented(root)
    names = [re.sub(r"(^|/)\.([^/]+)\.xxh3$", r"\1\2", name) for name in kinds(results)]
    return [name for name in names if not any(fnmatch(name, pattern) for pattern in patterns)]


def damage(path: Path, how: str) -> None:
    """Damage a file where it is: every name of it has the damage."""
    content = DAMAGES[how](path.read_bytes())
    if content is None:
        path.unlink()
        return
    mode = path.stat().st_mode
    path.chmod(0o644)
    with open(path, "r+b") as file:
        file.truncate(0)
        file.write(content)
    path.chmod(mode)


def content(results: Path) -> dict[str, str]:
    """Hashes of the files whose bytes depend on the survey, its labels and the settings alone: not on times or on the folder."""
    return {
        name: file_hash(results / name)
        for name in state(results)
        if name.endswith(DETERMINISTIC) and not name.startswith(("releases/", "progress/import/", "evaluation/"))
    }


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Sky:
    """A finished run on a very small sky; `ZMILL_FAULTS_BASE` names the folder of one that was made before."""
    made = os.environ.get("ZMILL_FAULTS_BASE")
    if made:
        return Sky(Path(made))
    sky = night_sky.make(tmp_path_factory.mktemp("faults") / "sky", area=0.1, order=8)
    night = sky.refresh()
    assert night.code == 0, night.text[-4000:]
    return sky


@pytest.fixture
def sky(base: Sky, tmp_path: Path) -> Sky:
    return night_sky.copy(base, tmp_path / "sky")


def outputs(sky: Sky) -> set[str]:
    """Outputs of rules, relative to the results: a run finds each of them missing."""
    summary = sky.refresh("--summary")
    names = [line.split("\t")[0] for line in summary.text.splitlines() if "\t" in line]
    prefix = f"{sky.results.relative_to(sky.folder)}/"
    return {name.removeprefix(prefix) for name in names if name.startswith(prefix)}


def way_out(base: Sky, made: set[str], folder: Path, name: str, how: str) -> str | None:
    """What is wrong with what a run does about a damaged file before it decides which jobs are due; None where nothing is."""
    results = night_sky.copy(base, folder).results
    before = (results / name).read_bytes()
    damage(results / name, how)
    found = [*mend(results), *mend(results, every_byte=True)]
    path = results / name
    back = path.is_file() and path.read_bytes() == before
    absent = any(not (results / output).exists() for output in made)
    unused = not path.exists() and name.startswith(MADE_WHEN_NEEDED)
    harmless = path.name.startswith(".") or path.name == "verified.json"
    again = [line for line in mend(results, every_byte=True) if not line.endswith("the next run replaces the release")]
    shutil.rmtree(folder)
    if again:
        return f"found again: {again}"
    if not (back or absent or unused or harmless):
        return f"neither back nor made again: {found}"
    return None


def survive(base: Sky, tmp_path: Path, tally: Tally, damages: Callable[[int], list[str]]) -> None:
    made, stuck = outputs(base), []
    assert {"survey/partition_info.csv", "champion.json", "progress/release.json", "report.html"} <= made
    for number, (one, name) in enumerate(kinds(base.results).items()):
        for how in damages(number):
            wrong = way_out(base, made, tmp_path / "sky", name, how)
            try:
                with tally(f"state files, {how}"):
                    assert wrong is None
            except AssertionError:
                stuck.append(f"{one} {how}: {wrong}")
    assert not stuck, "\n".join(stuck)


def test_each_kind_of_file_is_on_the_page_of_state(base: Sky, root: Path) -> None:
    assert not undocumented(base.results, root)


def test_damage_of_each_kind_of_file_has_a_way_out(base: Sky, tmp_path: Path, tally: Tally) -> None:
    survive(base, tmp_path, tally, lambda number: [list(DAMAGES)[number % len(DAMAGES)]])


@pytest.mark.long
def test_every_damage_of_each_kind_of_file_has_a_way_out(base: Sky, tmp_path: Path, tally: Tally) -> None:
    survive(base, tmp_path, tally, lambda number: list(DAMAGES))


def made_good(sky: Sky, base: Sky) -> None:
    """Whatever was damaged is as a run from the beginning makes it, and a whole release is current."""
    night = sky.refresh()
    if night.code:
        night = sky.refresh("--nolock", target="mend")
        assert night.code == 0, night.text[-3000:]
        night = sky.refresh()
    assert night.code == 0, night.text[-4000:]
    assert content(sky.results) == content(base.results)
    assert record(sky)["content_hash"] == record(base)["content_hash"]
    assert sky.refresh().jobs == {}


SAMPLE = [
    ("survey/sidecars/*/*/*.json", "emptied"),
    ("clean/dataset/Norder=*/Dir=*/*.parquet", "truncated"),
    ("progress/import/state.json", "half-written"),
    ("progress/predict/0.json", "truncated"),
    ("matches.parquet", "bit-flipped"),
    ("rejected/survey.parquet", "deleted"),
    ("models/knn/tensors.safetensors", "bit-flipped"),
    ("champion/champion.json", "half-written"),
    ("champion/*/tensors.safetensors", "bit-flipped"),
    ("evaluation/leaderboard.csv", "bit-flipped"),
    ("report.html", "truncated"),
    ("gates.json", "bit-flipped"),
]


def test_many_damaged_files_at_once_are_made_good_by_the_next_night(sky: Sky, base: Sky, tally: Tally) -> None:
    for pattern, how in SAMPLE:
        damage(next(sky.results.glob(pattern)), how)
    with tally("state files, many at once"):
        made_good(sky, base)


def test_a_byte_that_a_release_shares_is_found_mended_and_released(sky: Sky, base: Sky, tally: Tally) -> None:
    """`verify` names the file and the command; after `mend` the next run predicts the partition again and mends the release."""
    partition = hats.partitions(sky.results / "photoz")[0]
    path = partition.file(sky.results / "photoz")
    assert path.samefile(partition.file(sky.results / "current" / "photoz"))
    damage(path, "bit-flipped")
    with tally("state files, shared with a release"):
        night = sky.refresh(target="verify")
        assert night.code == 1 and partition.name in night.text and "snakemake --cores 2 mend" in night.text
        assert sky.refresh(target="mend").code == 0
        made_good(sky, base)


@pytest.mark.long
@pytest.mark.parametrize("how", DAMAGES)
def test_each_kind_of_file_damaged_alone_is_made_good(base: Sky, tmp_path: Path, tally: Tally, how: str) -> None:
    stuck = []
    for one, name in kinds(base.results).items():
        sky = night_sky.copy(base, tmp_path / "sky")
        damage(sky.results / name, how)
        try:
            with tally(f"state files run again, {how}"):
                made_good(sky, base)
        except (AssertionError, ReleaseError) as error:
            stuck.append(f"{one}: {str(error)[:300]}")
        shutil.rmtree(sky.folder)
    assert not stuck, "\n".join(stuck)
