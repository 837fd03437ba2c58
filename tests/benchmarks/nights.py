"""Ten nights on a small sky: what came, which jobs ran, what was written, and how long it took.

    python tests/benchmarks/nights.py [--folder DIR] [--out FILE]

A survey of some twenty files, simulated, goes through `snakemake refresh` ten times, with another change before each.
Bytes are those of files below `results/` that are new or were written anew; a file that a release links is counted once.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "workflow_scripts"), str(ROOT / "tests"), str(ROOT / "tests" / "nightly")]

from night_sky import Sky, later_labels, make  # noqa: E402

from zmill.catalog.files import write_json  # noqa: E402

PER_PARTITION = ("clean_shard", "predict_shard")


def files(folder: Path) -> dict[tuple[int, int], int]:
    """Bytes of every file, by what changes when it is written anew."""
    there = [path.lstat() for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    return {(one.st_ino, one.st_mtime_ns): one.st_size for one in there}


def nights(sky: Sky) -> list[tuple[str, Callable[[], int]]]:
    """What happens before each night, in words and in deed; the deed gives the number of rows it concerns."""
    late, base = later_labels(sky), sky.tiles
    held = sky.folder / "held.parquet"

    def nothing() -> int:
        return 0

    def touch() -> int:
        for tile in sky.tiles:
            tile.touch()
        return 0

    def change() -> int:
        sky.change(base[5])
        return pq.read_metadata(base[5]).num_rows

    def comes() -> int:
        held.rename(base[9])
        return pq.read_metadata(base[9]).num_rows

    def goes() -> int:
        base[12].rename(held)
        return pq.read_metadata(held).num_rows

    def back() -> int:
        held.rename(base[12])
        return pq.read_metadata(base[12]).num_rows

    def labels(first: int, behind: int) -> Callable[[], int]:
        def arrive() -> int:
            sky.write_labels(pa.concat_tables([sky.labels(), late.slice(first, behind - first)]))
            return behind - first

        return arrive

    def killed() -> int:
        rows = change()
        sky.killed_after(20)
        return rows

    base[9].rename(held)
    return [
        ("the first night", lambda: sum(pq.read_metadata(tile).num_rows for tile in sky.tiles)),
        ("nothing", nothing),
        ("every file is touched", touch),
        ("a file has other magnitudes", change),
        ("a file comes, and with it more than 5 % new labels", comes),
        ("a file goes", goes),
        ("it is back", back),
        ("1 % new labels", labels(0, 10)),
        ("40 % new labels", labels(10, len(late))),
        ("a file changes; `kill -9` after 20 s; again", killed),
    ]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--folder", type=Path, help="where to work (default: a temporary folder)")
    options.add_argument("--out", type=Path, default=ROOT / "results" / "benchmarks" / "nights.json")
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        sky = make(
            (given.folder or Path(temporary)) / "sky", refresh={"labels_changed": 0.05, "every": None, "margin": 0}
        )
        print(f"{len(sky.tiles)} files\n")
        print("| night | before it | rows | jobs | of these clean, predict | MB written | seconds | released |")
        print("|---|---|---|---|---|---|---|---|")
        figures: dict[str, Any] = {}
        for number, (words, happens) in enumerate(nights(sky), 1):
            rows, before = happens(), files(sky.results)
            night = sky.refresh()
            after = files(sky.results)
            written = sum(size for key, size in after.items() if key not in before) / 1e6
            jobs = {rule: count for rule, count in night.jobs.items() if rule != "refresh"}
            shards = ", ".join(str(jobs.get(rule, 0)) for rule in PER_PARTITION)
            outcome = released(sky, night.code)
            print(
                f"| {number} | {words} | {rows:,} | {sum(jobs.values())} | {shards} | {written:.2f} | {night.seconds:.0f} | {outcome} |",
                flush=True,
            )
            figures |= {f"night_{number}_jobs": sum(jobs.values()), f"night_{number}_mb": round(written, 3)}
            figures[f"night_{number}_seconds"] = round(night.seconds, 1)
        decisions = json.loads((sky.results / "champion.json").read_text())["history"]
        print("\n" + "\n".join(f"{one['challenger']}: {one['why']}" for one in reversed(decisions)))
    write_json(given.out, figures)


def released(sky: Sky, code: int) -> str:
    """What is current after a night."""
    record = json.loads((sky.results / "current" / "release.json").read_text())
    if code:
        return "no: " + "; ".join(
            check["gate"]
            for check in json.loads((sky.results / "gates.json").read_text())["checks"]
            if not check["passed"]
        )
    return record["release"][-12:]


if __name__ == "__main__":
    main()
