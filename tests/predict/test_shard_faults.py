"""A shard's job, with a real network, when things go wrong: killed, bad input, a place that is full, elsewhere or closed."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from predict_sky import contents, write_sky
from test_shard import made  # noqa: F401 (a fixture)

from disks import small_disk
from zmill.catalog.hats import Partition
from zmill.predict.finish import finish

ROWS = [700, 0, 1, 2500, 1800, 900]
FAULTY = [Partition(4, 7 + 5 * number) for number in range(len(ROWS))]


@pytest.fixture
def results(made: Path, tmp_path: Path) -> Path:  # noqa: F811
    """Results up to the choice of the model, of a few more partitions, in a folder with spaces and accents."""
    folder = Path(shutil.copytree(made, tmp_path / "résultats d'été ★ 1"))
    assert write_sky(folder, ROWS) == FAULTY
    return folder


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own of 2 MB."""
    with small_disk(tmp_path / "a small disk", "2m") as folder:
        yield folder


def job(*arguments: object) -> subprocess.CompletedProcess[str]:
    """The shard's job in a process of its own."""
    library = Path(__file__).resolve().parents[2] / "workflow_scripts"
    return subprocess.run(
        [sys.executable, str(Path(__file__).with_name("shard_job.py")), *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(library)},
        capture_output=True,
        text=True,
    )


def outputs(results: Path) -> dict[str, bytes]:
    """Every file of both catalogues."""
    return {
        f"{place}/{name}": content for place in ("photoz", "pdf") for name, content in contents(results / place).items()
    }


@pytest.mark.slow
def test_killed_eight_times_it_ends_with_the_same_bytes(results: Path) -> None:
    assert job("once", results).returncode == 0
    expected = outputs(results)
    assert len(expected) == 2 * 2 * len(ROWS)
    for place in ("photoz", "pdf", "progress"):
        shutil.rmtree(results / place)
    killed = job("kill", results, 8, 3)
    assert killed.returncode == 0, killed.stderr
    there = outputs(results)
    assert all(there[name] == expected[name] for name in there if not name.endswith(".tmp"))
    again = job("once", results)
    assert again.returncode == 0, again.stderr
    assert outputs(results) == expected


def test_bad_partitions_are_named_the_others_are_done_and_the_status_says_so(results: Path) -> None:
    truncated, corrupt = (FAULTY[number].file(results / "clean") for number in (3, 4))
    good = {file: file.read_bytes() for file in (truncated, corrupt)}
    truncated.write_bytes(good[truncated][: len(good[truncated]) // 2])
    middle = len(good[corrupt]) // 2
    corrupt.write_bytes(good[corrupt][:middle] + b"\0\1\2" + good[corrupt][middle + 3 :])
    ended = job("once", results)
    assert ended.returncode == 1
    last = (results / "logs" / "predict_shard.log").read_text().splitlines()[-4:]
    for bad in FAULTY[3:5]:
        assert any(bad.name in line and "its content is not what its sidecar" in line for line in last)
    assert not (results / "progress").exists()
    written = {partition for partition in FAULTY if partition.file(results / "pdf").is_file()}
    assert written == {*FAULTY[:3], FAULTY[5]}
    for file, content in good.items():
        file.write_bytes(content)
    assert job("once", results).returncode == 0
    assert finish(results, "demo", "compact") == sum(ROWS)


def test_a_disk_that_is_full_and_later_has_space(results: Path, disk: Path) -> None:
    """It is another file system than that of the results."""
    for place in ("photoz", "pdf"):
        (disk / place).mkdir()
        (results / place).symlink_to(disk / place)
    (disk / "someone else's").write_bytes(bytes(1_500_000))
    ended = job("once", results)
    assert ended.returncode == 1
    assert "the disk is full" in ended.stderr.splitlines()[-1]
    left = outputs(results)
    assert not [name for name in left if name.endswith(".tmp")]
    (disk / "someone else's").unlink()
    again = job("once", results)
    assert again.returncode == 0, again.stderr
    assert "partitions are written already" in again.stderr
    assert left.items() <= outputs(results).items()
    assert finish(results, "demo", "compact") == sum(ROWS)


def test_a_read_only_folder(results: Path, disk: Path) -> None:
    (results / "photoz").symlink_to(disk)
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    ended = job("once", results)
    assert ended.returncode == 1
    assert os.strerror(errno.EROFS) in ended.stderr.splitlines()[-1]
    assert str(disk) in ended.stderr.splitlines()[-1] or "photoz" in ended.stderr.splitlines()[-1]
