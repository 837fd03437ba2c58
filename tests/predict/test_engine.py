"""The engine at its contract: one whole partition out per partition in, whatever happens on the way."""

from __future__ import annotations

import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from predict_sky import clean_rows, contents, plain_work, write_clean, write_rows

from zmill.catalog import hats
from zmill.predict import engine, read
from zmill.predict.engine import PredictError, run
from zmill.predict.read import Broken


def same_rows(clean: Path, out: Path) -> None:
    for name in ("photoz", "pdf"):
        for partition in hats.partitions(clean):
            before, after = hats.read_columns(clean, partition), hats.read_columns(out / name, partition)
            for column in read.IDENTITY:
                assert after.column(column).combine_chunks() == before.column(column).combine_chunks()
            total = before.column("mag_g").to_numpy() + before.column("mag_r").to_numpy()
            np.testing.assert_array_equal(after.column("sum").to_numpy(), total * (1 if name == "photoz" else 2))


@pytest.mark.parametrize("rows", [[1000, 0, 1, 299, 300, 301], [1], [0], [777]])
@pytest.mark.parametrize("lanes", [1, 3])
def test_rows_ids_and_order_are_those_of_the_input(tmp_path: Path, rows: list[int], lanes: int) -> None:
    partitions = write_clean(tmp_path / "clean", rows)
    run(plain_work(tmp_path / "clean", tmp_path / "out"), partitions, lanes)
    same_rows(tmp_path / "clean", tmp_path / "out")


def test_ids_that_are_strings_and_paths_with_spaces_and_accents(tmp_path: Path) -> None:
    folder = tmp_path / "a survey, déjà vu ★ [x]"
    partitions = write_clean(folder / "clean", [500, 20], ids=str)
    run(plain_work(folder / "clean", folder / "out put"), partitions)
    same_rows(folder / "clean", folder / "out put")


def test_row_groups_do_not_depend_on_the_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hats, "ROW_GROUP_ROWS", 256)
    partitions = write_clean(tmp_path / "clean", [1000, 90])
    for batch_rows in (64, 100, 1000):
        run(plain_work(tmp_path / "clean", tmp_path / str(batch_rows), batch_rows), partitions)
    assert contents(tmp_path / "64") == contents(tmp_path / "100") == contents(tmp_path / "1000")


def test_complete_partitions_are_skipped(tmp_path: Path) -> None:
    partitions = write_clean(tmp_path / "clean", [400, 400, 400])
    work = plain_work(tmp_path / "clean", tmp_path / "out")
    run(work, partitions)
    first = contents(tmp_path / "out")
    assert work.missing(partitions) == []

    # a new input, a lost file, a truncated file, another model: each is seen, and nothing else is done again
    write_rows(tmp_path / "clean", partitions[0], clean_rows(partitions[0], 400, seed=9))
    assert work.missing(partitions) == partitions[:1]
    partitions[1].file(tmp_path / "out" / "pdf").unlink()
    assert work.missing(partitions) == partitions[:2]
    file = partitions[2].file(tmp_path / "out" / "photoz")
    os.truncate(file, file.stat().st_size - 1)
    assert work.missing(partitions) == partitions
    run(work, partitions)
    again = contents(tmp_path / "out")
    assert work.missing(partitions) == []
    assert {name for name in first if first[name] != again[name]} == {
        str(path.relative_to(tmp_path / "out"))
        for kind in ("photoz", "pdf")
        for path in (partitions[0].file(tmp_path / "out" / kind), partitions[0].sidecar(tmp_path / "out" / kind))
    }
    other = [engine.Output(output.catalog, output.schema, {**output.made, "model": "m2"}) for output in work.outputs]
    assert engine.Work(**{**vars(work), "outputs": tuple(other)}).missing(partitions) == partitions


def test_killed_at_random_moments_the_rerun_gives_the_same_bytes(tmp_path: Path) -> None:
    partitions = write_clean(tmp_path / "clean", [1500, 700, 0, 1, 1200, 900])
    run(plain_work(tmp_path / "clean", tmp_path / "whole"), partitions)
    expected = contents(tmp_path / "whole")
    program = [sys.executable, str(Path(__file__).with_name("predict_sky.py")), str(tmp_path / "clean")]
    chance = random.Random(4)
    killed = 0
    for attempt in range(5):
        out = tmp_path / f"killed {attempt}"
        process = subprocess.Popen([*program, str(out)], stdout=subprocess.PIPE, env=_environment())
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(chance.uniform(0.0, 0.1))
        process.send_signal(signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
        process.stdout.close()
        there = contents(out)
        # whatever has its final name is final; a file whose sidecar is still to come is whole too
        assert all(there[name] == expected[name] for name in there if not name.endswith(".tmp"))
        run(plain_work(tmp_path / "clean", out), partitions)
        assert contents(out) == expected
    assert killed >= 3


def test_a_file_of_a_killed_job_with_an_old_sidecar_counts_as_incomplete(tmp_path: Path) -> None:
    partitions = write_clean(tmp_path / "clean", [50])
    work = plain_work(tmp_path / "clean", tmp_path / "out")
    run(work, partitions)
    photoz = tmp_path / "out" / "photoz"
    schema = hats.read_columns(photoz, partitions[0]).schema

    class Killed(BaseException):
        pass

    def killed_between_file_and_sidecar(*_: object) -> None:
        raise Killed

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(hats, "write_json", killed_between_file_and_sidecar)
        changed = work.outputs[0].__class__(photoz, work.outputs[0].schema, {"model": "m2", "pdf": "compact"})
        run(engine.Work(**{**vars(work), "outputs": (changed, work.outputs[1])}), partitions)
    assert hats.read_columns(photoz, partitions[0]).schema == schema
    assert work.missing(partitions) == partitions


@pytest.mark.parametrize("damage", ["truncated", "flipped", "no file", "no sidecar", "not parquet", "no column"])
def test_a_damaged_partition_is_named_and_the_others_are_written(tmp_path: Path, damage: str) -> None:
    clean = tmp_path / "clean"
    partitions = write_clean(clean, [600, 600, 600, 600])
    bad = partitions[1]
    file = bad.file(clean)
    if damage == "truncated":
        os.truncate(file, file.stat().st_size // 2)
    elif damage == "flipped":
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    elif damage == "no file":
        file.unlink()
    elif damage == "no sidecar":
        bad.sidecar(clean).unlink()
    elif damage == "not parquet":
        file.write_text("ra,dec\n1,2\n")
    else:
        write_rows(clean, bad, clean_rows(bad, 600).drop_columns(["mag_g"]))
    work = plain_work(clean, tmp_path / "out")
    with pytest.raises(PredictError) as error:
        run(work, partitions)
    assert bad.name in str(error.value)
    assert str(error.value).startswith("1 of 4 partitions could not be used; the others are written")
    assert work.missing(partitions) == [bad]
    assert not [name for name in contents(tmp_path / "out") if bad.name in name or name.endswith(".tmp")]

    write_rows(clean, bad, clean_rows(bad, 600))
    run(work, partitions)
    same_rows(clean, tmp_path / "out")


def test_a_partition_that_is_rewritten_while_it_is_read_is_detected(tmp_path: Path) -> None:
    clean = tmp_path / "clean"
    partitions = write_clean(clean, [900, 100])
    events = read.stream(clean, partitions, ["mag_g"], [], 300)
    next(events), next(events)
    write_rows(clean, partitions[0], clean_rows(partitions[0], 900, seed=5))
    rest = list(events)
    broken = [event for event in rest if isinstance(event, Broken)]
    assert [event.partition for event in broken] == partitions[:1]
    assert "written again while it was being read" in broken[0].why


def test_a_model_that_loses_a_row_stops_the_run(tmp_path: Path) -> None:
    partitions = write_clean(tmp_path / "clean", [900])
    work = plain_work(tmp_path / "clean", tmp_path / "out")

    def lossy(batch: pa.RecordBatch) -> Callable[[], engine.Computed]:
        finish = work.infer(batch)
        return lambda: tuple(computed.slice(1) for computed in finish())

    with pytest.raises(hats.CatalogError, match="897 rows predicted of 900"):
        run(engine.Work(**{**vars(work), "infer": lossy}), partitions)
    assert contents(tmp_path / "out") == {}


def test_the_next_batches_are_begun_before_one_is_ended(tmp_path: Path) -> None:
    """A batch that ends only once later ones have begun does not stop the run."""
    partitions = write_clean(tmp_path / "clean", [300] * (engine.BEGUN + 1))
    work = plain_work(tmp_path / "clean", tmp_path / "out")
    begun = threading.Semaphore(0)

    def waiting(batch: pa.RecordBatch) -> Callable[[], engine.Computed]:
        finish, number = work.infer(batch), next(numbers)
        begun.release()

        def all_begun() -> engine.Computed:
            if number == 0:
                assert all(begun.acquire(timeout=10) for _ in range(2))
            return finish()

        return all_begun

    numbers = iter(range(100))
    run(engine.Work(**{**vars(work), "infer": waiting}), partitions)
    same_rows(tmp_path / "clean", tmp_path / "out")


@pytest.mark.parametrize(("late", "lanes"), [(False, 2), (True, 1)])
def test_an_error_of_the_model_ends_the_run_with_nothing_half_written(tmp_path: Path, late: bool, lanes: int) -> None:
    """late : the error comes after a batch has begun, once it is waited for."""
    partitions = write_clean(tmp_path / "clean", [900, 900, 900])
    work = plain_work(tmp_path / "clean", tmp_path / "out")
    numbers = iter(range(100))

    def fail() -> engine.Computed:
        raise RuntimeError("out of memory on the device")

    def failing(batch: pa.RecordBatch) -> Callable[[], engine.Computed]:
        if next(numbers) != 4:
            return work.infer(batch)
        if not late:
            fail()
        return fail

    with pytest.raises(RuntimeError, match="out of memory"):
        run(engine.Work(**{**vars(work), "infer": failing}), partitions, lanes)
    assert not [name for name in contents(tmp_path / "out") if name.endswith(".tmp")]
    run(work, partitions)
    same_rows(tmp_path / "clean", tmp_path / "out")


def test_a_full_disk_is_one_clear_error_and_the_run_resumes(tmp_path: Path) -> None:
    """A limit on the size of a file stands in for the disk: the kernel refuses the write in the same place."""
    partitions = write_clean(tmp_path / "clean", [200, 30_000, 200])
    work = plain_work(tmp_path / "clean", tmp_path / "out")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(PredictError, match=r"the disk is full .* 1 of 3 partitions are complete"):
            run(work, partitions)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not [name for name in contents(tmp_path / "out") if name.endswith(".tmp")]
    run(work, partitions)
    same_rows(tmp_path / "clean", tmp_path / "out")


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_disk_that_fills_up(tmp_path: Path) -> None:
    disk = tmp_path / "small disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600k", "zmill", str(disk)], capture_output=True).returncode:
        pytest.skip("no right to mount here")
    try:
        partitions = write_clean(tmp_path / "clean", [2_000, 30_000])
        work = plain_work(tmp_path / "clean", disk / "out")
        with pytest.raises(PredictError, match="the disk is full"):
            run(work, partitions)
        assert not [name for name in contents(disk) if name.endswith(".tmp")]
        subprocess.run(["mount", "-o", "remount,size=20m", str(disk)], check=True)
        run(work, partitions)
        same_rows(tmp_path / "clean", disk / "out")
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_output_folder_that_may_not_be_written(tmp_path: Path) -> None:
    partitions = write_clean(tmp_path / "clean", [20])
    (tmp_path / "out").mkdir(mode=0o500)
    with pytest.raises(PermissionError, match=r"photoz|pdf"):
        run(plain_work(tmp_path / "clean", tmp_path / "out"), partitions)


def _environment() -> dict[str, str]:
    library = Path(__file__).resolve().parents[2] / "workflow_scripts"
    return {**os.environ, "PYTHONPATH": str(library)}
