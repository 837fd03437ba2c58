"""The lock of a run: two real runs, at several stages, and one that is killed while it has it."""

from __future__ import annotations

import os
import signal
import time

import psutil
import pytest
from night_sky import Sky, record

from zmill.catalog.lock import Locked, hold

pytestmark = [pytest.mark.workflow, pytest.mark.slow]

STAGES = ["import_survey", "clean_shard", "predict_shard", "report"]


def test_a_second_run_refuses_at_every_stage_of_the_first(sky: Sky) -> None:
    sky.change(sky.tiles[3])
    first = sky.start()
    for stage in STAGES:
        assert sky.reach(first, stage), (sky.folder / "run.log").read_text()[-4000:]
        with pytest.raises(Locked, match=f"^{first.pid} on "):
            hold(sky.results / ".lock")
        if stage in (STAGES[0], STAGES[2]):  # a start of Snakemake takes long
            second = sky.refresh()
            still = first.poll() is None
            assert not still or second.code == 1, second.text[-2000:]
            assert not still or f"another run is active (process {first.pid} on " in second.text
            assert not second.jobs
    assert first.wait() == 0, (sky.folder / "run.log").read_text()[-4000:]
    hold(sky.results / ".lock").close()
    record(sky)


def test_dry_runs_and_concurrent_targets_do_not_need_the_lock(sky: Sky) -> None:
    sky.change(sky.tiles[3])
    with hold(sky.results / ".lock"):
        assert sky.refresh("--dry-run").code == 0
        assert sky.refresh(target="verify").jobs == {"verify": 1}
        refused = sky.refresh()
        assert refused.code == 1 and f"another run is active (process {os.getpid()} on " in refused.text


@pytest.mark.parametrize("stage", [STAGES[0], pytest.param(STAGES[2], marks=pytest.mark.long)])
def test_the_lock_of_a_run_that_is_killed_is_free_though_its_jobs_go_on(sky: Sky, stage: str) -> None:
    sky.change(sky.tiles[3])
    run = sky.start()
    assert sky.reach(run, stage)
    job: list[psutil.Process] = []
    while not job and run.poll() is None:
        job = psutil.Process(run.pid).children(recursive=True)
        time.sleep(0.02)
    os.kill(run.pid, signal.SIGKILL)  # Snakemake alone: the job that it has started goes on
    run.wait()
    hold(sky.results / ".lock").close()
    assert job and all(process.is_running() for process in job)
    night = sky.refresh()
    assert night.code == 0, night.text[-4000:]
    assert sky.refresh().jobs == {}
    record(sky)
