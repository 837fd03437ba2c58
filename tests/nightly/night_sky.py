"""A small survey in many files with a catalogue of spectra, and what happens to both from night to night."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import yaml

from tiny import ROOT, prepare
from zmill.catalog import hats
from zmill.catalog.lock import hold
from zmill.catalog.sky import healpix
from zmill.clean.shard import clean_shard, recipe
from zmill.config import load
from zmill.inputs.registry import of_survey
from zmill.labels.build import build
from zmill.predict import assign
from zmill.predict.shard import predict_shard
from zmill.release import store
from zmill.release.verify import verify
from zmill.simulate.demo import simulate
from zmill.survey.importer import import_survey

CATALOGS = ("survey", "specz", "clean", "photoz", "pdf")
ORDER = 9
"""A file holds a HEALPix pixel of this order, and so does a partition."""
SETTINGS: dict[str, Any] = {
    "survey": "night",
    "data_dir": "data",
    "partitions": {"max_rows": 1, "max_order": ORDER, "shard_rows": 8000},
    "split": {"by": "sky", "block_order": 11, "train": 0.5, "valid": 0.15, "calib": 0.15, "test": 0.2},
    "models": {"knn": {"k": [11], "weights": "uniform"}},
    "weights": {"method": "none"},
    "refresh": {"labels_changed": 0.05, "every": None, "margin": 0.01},
}


@dataclass(frozen=True)
class Night:
    """What a run of the workflow did."""

    code: int
    jobs: dict[str, int]
    seconds: float
    text: str


@dataclass(frozen=True)
class Sky:
    """A working folder: `data/tile-*.parquet`, `data/spectra.csv`, and the workflow's results."""

    folder: Path

    @property
    def results(self) -> Path:
        return self.folder / "results" / "night"

    @property
    def files(self) -> list[Path]:
        """Files of the survey."""
        return sorted((self.folder / "data").glob("tile-*.parquet"))

    @property
    def tiles(self) -> list[Path]:
        """Files of the survey, without those of one row, which may be set aside."""
        return [path for path in self.files if pq.ParquetFile(path).metadata.num_rows > 1]

    @property
    def spectra(self) -> Path:
        return self.folder / "data" / "spectra.csv"

    def command(self, *arguments: str, target: str = "refresh") -> list[str]:
        named = ["--snakefile", str(ROOT / "Snakefile"), "--directory", str(self.folder), "--cores", "2"]
        return [sys.executable, "-m", "snakemake", *named, target, *arguments]

    def refresh(self, *arguments: str, target: str = "refresh", **settings: Any) -> Night:
        """Run the workflow, from now on with other settings where there are any."""
        path = self.folder / "config.yaml"
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
        for key, values in settings.items():
            config[key] = config[key] | values
        path.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
        started = time.monotonic()
        command = self.command(*arguments, target=target)
        done = subprocess.run(command, capture_output=True, text=True, cwd=self.folder, timeout=3000, check=False)
        text = done.stdout + done.stderr
        return Night(done.returncode, jobs(text), time.monotonic() - started, text)

    def killed_after(self, seconds: float) -> int:
        """Run the workflow and end it, and every process it started, by `kill -9`."""
        process = subprocess.Popen(
            self.command(),
            cwd=self.folder,
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return process.wait()

    def start(self) -> subprocess.Popen[bytes]:
        """Begin a run of the workflow, whose logs are of this run alone; what it prints goes to `run.log`."""
        shutil.rmtree(self.results / "logs", ignore_errors=True)
        with open(self.folder / "run.log", "wb") as log:
            return subprocess.Popen(self.command(), cwd=self.folder, stdout=log, stderr=log, start_new_session=True)

    def reach(self, run: subprocess.Popen[bytes], stage: str) -> bool:
        """Wait until a job of a rule has begun; whether it has before the run ended."""
        while run.poll() is None:
            if (self.results / "logs" / stage).exists() or (self.results / "logs" / f"{stage}.log").exists():
                return True
            time.sleep(0.02)
        return False

    def killed_at(self, stage: str, delay: float, jobs_too: bool = True) -> bool:
        """Run the workflow and end it by `kill -9` so many seconds after a job of a rule has begun; whether that was so.

        Parameters
        ----------
        jobs_too : end its jobs as well, which otherwise go on.
        """
        run = self.start()
        if not self.reach(run, stage):
            return False
        time.sleep(delay)
        (os.killpg if jobs_too else os.kill)(run.pid, signal.SIGKILL)
        return run.wait() == -signal.SIGKILL

    def change(self, tile: Path, by: float = 0.02) -> None:
        """Other magnitudes in a file."""
        table = pq.read_table(tile)
        place = table.schema.get_field_index("mag_i")
        pq.write_table(table.set_column(place, "mag_i", pa.array(table["mag_i"].to_numpy() + np.float32(by))), tile)

    def labels(self) -> pa.Table:
        return pyarrow.csv.read_csv(self.spectra)

    def write_labels(self, table: pa.Table) -> None:
        pyarrow.csv.write_csv(table, self.spectra)


def jobs(text: str) -> dict[str, int]:
    """Jobs that ended well, by rule."""
    found: dict[str, int] = {}
    for rule in re.findall(r"^Finished jobid: \d+ \(Rule: (\w+)\)", text, re.MULTILINE):
        found[rule] = found.get(rule, 0) + 1
    return found


def make(folder: Path, area: float = 0.2, order: int = ORDER, **changes: Any) -> Sky:
    """A sky of about so many square degrees, a file for each pixel, and three of ten spectra held back for later nights."""
    demo = simulate(3, area)
    rows = pa.concat_tables(demo.tracts)
    ra, dec = rows["coord_ra"].to_numpy(), rows["coord_dec"].to_numpy()
    good = np.isfinite(ra) & np.isfinite(dec) & (np.abs(dec) <= 90)
    rows, pixel = rows.filter(pa.array(good)), healpix(ra[good], dec[good], order)
    (folder / "data").mkdir(parents=True)
    for one in np.unique(pixel):
        pq.write_table(rows.filter(pa.array(pixel == one)), folder / "data" / f"tile-{one}.parquet")
    truth = demo.objects
    drawn = np.random.default_rng(5).random(len(truth)) < 0.35
    seen = truth.filter(pa.array(drawn & (truth["mag_i"].to_numpy() < 22.5) & ~truth["is_star"].to_numpy()))
    spectra = pa.table({"ra": seen["ra"], "dec": seen["dec"], "z": seen["z_true"]})
    kept = int(0.7 * len(spectra))
    pyarrow.csv.write_csv(spectra.slice(0, kept), folder / "data" / "spectra.csv")
    pyarrow.csv.write_csv(spectra.slice(kept), folder / "later.csv")
    definition = yaml.safe_load((ROOT / "surveys" / "demo.yaml").read_text(encoding="utf-8"))
    label = {"name": "spectra", "source": "file", "files": ["spectra.csv"], "quality": 4}
    label["columns"] = {"ra": "ra", "dec": "dec", "redshift": "z"}
    definition |= {"files": ["tile-*.parquet"], "labels": [label]}
    (folder / "surveys").mkdir()
    (folder / "surveys" / "night.yaml").write_text(yaml.safe_dump(definition, sort_keys=False), encoding="utf-8")
    partitions = SETTINGS["partitions"] | {"max_order": order}
    prepare(folder, **SETTINGS | {"partitions": partitions} | changes)
    return Sky(folder)


def first_night(factory: pytest.TempPathFactory) -> Sky:
    """A sky after its first night, made once for all processes of a run of pytest: tests change copies of it."""
    folder = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:  # each process has a folder of its own in the common one
        folder = folder.parent
    sky, done = Sky(folder / "first night" / "sky"), folder / "first night" / "done"
    with hold(done.with_name("lock"), lambda holder: None):
        if not done.exists():
            shutil.rmtree(sky.folder, ignore_errors=True)
            make(sky.folder)
            night = sky.refresh()
            assert night.code == 0, night.text[-4000:]
            done.touch()
    return sky


def later_labels(sky: Sky) -> pa.Table:
    """Spectra that no night has had yet."""
    return pyarrow.csv.read_csv(sky.folder / "later.csv")


def copy(sky: Sky, target: Path) -> Sky:
    """A copy with its times, which Snakemake goes by."""
    subprocess.run(["cp", "-a", sky.folder, target], check=True)
    return Sky(target)


def hashes(sky: Sky, catalog: str) -> dict[int, str]:
    found = hats.partitions(sky.results / catalog)
    return {partition.pixel: hats.sidecar(sky.results / catalog, partition)["xxh3_128"] for partition in found}


def record(sky: Sky) -> dict[str, Any]:
    """The current release, verified."""
    found = store.current(sky.results)
    assert found is not None
    verify(store.folder(sky.results, found["release"]), found)
    return found


def fresh(sky: Sky) -> dict[str, dict[int, str]]:
    """Content hashes of everything made anew from the files as they are, by the model and the colors that there are."""
    settings, survey = load(yaml.safe_load((sky.folder / "config.yaml").read_text()), sky.folder / "surveys")
    new, here = Sky(sky.folder / "fresh"), Path.cwd()
    results = new.results
    results.mkdir(parents=True)
    os.chdir(sky.folder)
    try:
        files = [Path("data", tile.name) for tile in sky.files]
        import_survey(files, survey, settings.partitions, results / "survey", results / "rejected" / "survey.parquet")
        build(
            survey.labels,
            settings.labels,
            settings.partitions,
            settings.crossmatch.radius_arcsec,
            Path("data"),
            results,
        )
    finally:
        os.chdir(here)
    partitions = hats.partitions(results / "survey")
    how = recipe(survey, settings.clean.impute, sky.results / "imputation.json")
    clean_shard(results / "survey", results / "clean", partitions, how, results / "progress" / "clean" / "0.json")
    model = assign.current(sky.results)
    predict_shard(results, model, 0, partitions, of_survey(survey), settings.predict, threads=2)
    for name in ("clean", "photoz", "pdf"):
        hats.finish(results / name, name, partitions)
    return {name: hashes(new, name) for name in CATALOGS}
