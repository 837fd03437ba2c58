"""What Snakemake itself costs: `python tests/benchmarks/dag.py [--shards N] [--cores N]`.

A survey of N shards whose import, labels and models are there: the survey's files are those of a small demo sky, what follows from
them is empty, the plan of shards is real, with fifty partitions each. Then the time of a dry run of `predict` (two jobs a shard), and of
`--touch`, which takes every job through the scheduler, with its records, and runs none. Seconds are of processor time: Snakemake sleeps
a tenth of a second per touched job. With as many cores as all jobs may use together, as on a cluster, the scheduler decides about all
jobs but those for a GPU at once; with fewer, after every job. In a run that is none of `--touch`, jobs that wait cost more: docs/performance.md.

`start_s`                                until the rules are read and the configuration is checked
`dry_run_s`, `scheduling_s`, `total_s`   the start included; `jobs`   jobs of the run; `peak_gib`   memory of Snakemake
`job_s`                                  the own process of a job on a cluster, until its script would start; SLURM starts two for a job
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from bench import ROOT, PeakMemory, report

from zmill.catalog import shards
from zmill.catalog.hats import Partition

PROGRAM = """
from snakemake.cli import main
from zmill.workflow import planning

changes = planning.changes
planning.changes = lambda job: changes(job) if job.rule.name in ("demo_data", "clean_shard", "predict_shard") else []
main()
"""
"""Snakemake for which everything but the shards is up to date: what is there has no records, and most of it is empty."""


def snakemake(folder: Path, *arguments: str, cores: int = 2) -> tuple[float, float, str]:
    """Seconds of a processor, memory in GiB and what was said."""
    command = [sys.executable, "-c", PROGRAM, "--snakefile", str(ROOT / "Snakefile"), "--directory", str(folder)]
    command += ["--workflow-profile", str(ROOT / "profiles" / "default"), "--configfile", str(ROOT / "config.yaml")]
    command += ["--cores", str(cores), "--config", "demo={area: 0.4}", *arguments]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with (
        subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process,
        PeakMemory(process.pid) as memory,
    ):
        said = process.communicate()[0]
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{said[-3000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, memory.gib, said


def place(path: Path) -> None:
    """A file, empty where it is not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def prepare(folder: Path, count: int) -> None:
    """Everything that prediction starts from."""
    results = folder / "results" / "demo"
    snakemake(folder, "--", "demo_data")
    while True:
        # Jobs behind the checkpoint are known only once its files are there; one shard is enough to name them.
        summary = snakemake(folder, "--summary", "--", "predict")[2].splitlines()
        files = [
            folder / line.split("\t")[0] for line in summary if "\t" in line and not line.startswith("output_file")
        ]
        absent = [file for file in files if not file.exists()]
        if not absent:
            break
        for file in absent:
            place(file)
        if results / "survey" / "partition_info.csv" in absent:
            plan(results, 1)
    plan(results, count)


def plan(results: Path, count: int) -> None:
    """So many shards of fifty partitions each, all of which are to be cleaned and predicted again."""
    found = {number: [Partition(8, 50 * number + one) for one in range(50)] for number in range(count)}
    shards.write(results / "survey", found, {partition: "" for shard in found.values() for partition in shard})
    for number in found:
        for stage in ("clean", "predict"):
            place(results / "progress" / stage / f"{number}.json")
            # A job writes its log; of a job that has not, Snakemake would make one.
            place(results / "logs" / f"{stage}_shard" / f"{number}.log")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=int, default=2000)
    parser.add_argument("--cores", type=int, default=100_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        prepare(folder, options.shards)
        dry, _, said = snakemake(folder, "--dry-run", "--quiet", "rules", "--", "predict")
        touch, peak, _ = snakemake(
            folder, "--touch", "--no-hooks", "--quiet", "rules", "--", "predict", cores=options.cores
        )
        start = snakemake(folder, "--list-target-rules")[0]
        one = ["--target-jobs", "predict_shard:shard=0", "--allowed-rules", "predict_shard", "--force", "--nolock"]
        job = snakemake(folder, "--mode", "remote", "--dry-run", *one)[0]
    jobs = [line.split()[-1] for line in said.splitlines() if line.startswith("total")]
    report(
        "dag",
        {
            "shards": options.shards,
            "jobs": int(jobs[-1]) if jobs else None,
            "start_s": start,
            "dry_run_s": dry,
            "scheduling_s": touch,
            "total_s": dry + touch,
            "peak_gib": peak,
            "job_s": job,
        },
    )


if __name__ == "__main__":
    main()
