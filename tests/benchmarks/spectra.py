"""Speed and memory of spectra: `python tests/benchmarks/spectra.py [--survey NAME] [--rows N] [--models NAME …] [--parts PART …] [--peers ENV]`.

Spectra like those of an instrument are simulated. Each measurement runs in a process of its own.

import     of their file, compared with reading and rewriting it with pyarrow
train      every model, on `--train` rows, on `--device`
predict    every model: the shard's job, and a pass that reads the same columns and writes the same output with pyarrow
redrock    the template fit to spectra of BOSS's 4,587 pixels with the same templates of galaxies, both on one thread (with `--peers`)
memory     cleaning, and prediction by a small network, of each number of spectra of `--memory` (hard links of one partition)

`import_ratio`, `<model>_ratio`           our processor time / that of the pass; `…_wall_ratio`: of wall time
`<model>_rows_per_s`                      wall time, loading of the model included
`<model>_train_rows_per_s`                training rows times epochs / seconds of the fit; of processor time, on a GPU of wall time
`redrock_ratio`                           spectra per processor second, ours / redrock's
`clean_gib_<rows>`, `predict_gib_<rows>`  peaks; `…_flat`: the highest / the lowest

`--settings '{"name": {"type": "spectrum_resnet", …}}'` adds models and changes their settings.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from bench import ROOT, PeakMemory, report
from memory import replicate
from redrock_runs import redrock
from train import Clock

import predict
from zmill.catalog import hats
from zmill.catalog.hats import Partition
from zmill.clean.partition import Recipe
from zmill.clean.shard import clean_shard
from zmill.columns import lists
from zmill.config import ModelSettings, Partitions, Predict, load_survey
from zmill.inputs.base import LabelledBatch, ModelContext
from zmill.inputs.spectrum.batch import Spectra
from zmill.inputs.spectrum.grid import WavelengthGrid
from zmill.inputs.spectrum.kind import SpectrumKind
from zmill.models import registry
from zmill.models.spectrum_template import SpectrumTemplate, SpectrumTemplateSettings
from zmill.pdf.grid import Grid
from zmill.predict.read import IDENTITY
from zmill.predict.shard import predict_shard
from zmill.restframe import pca
from zmill.simulate import spectral_survey
from zmill.simulate.instrument import Instrument
from zmill.survey.importer import import_survey
from zmill.training import store
from zmill.training.trained import fit_and_calibrate

PARTS = ("import", "train", "predict", "redrock", "memory")
SMALL: dict[str, Any] = {
    "small": {"type": "spectrum_cnn", "convolutions": [{"filters": 8, "kernel": 5}], "dense": [32], "epochs": 1}
}
"""A network that is fast enough for the part `memory`."""
BRIEF: dict[str, dict[str, Any]] = {"spectrum_cnn": {"epochs": 1}, "spectrum_resnet": {"epochs": 1}}
"""Speed does not depend on how long a network was trained."""
PARTITION_ROWS = 10_000
BOSS = WavelengthGrid("log10", start=float(np.log10(3600)), step=1e-4, pixels=4587)
CPU = torch.device("cpu")


def context_of(survey: str) -> ModelContext:
    """What models know of a survey of `surveys/`."""
    known = load_survey(survey, ROOT / "surveys")
    kind = SpectrumKind.of(known)
    assert kind is not None
    return ModelContext(
        (kind,), Grid(known.redshift_grid.min, known.redshift_grid.max, known.redshift_grid.points), seed=1
    )


@cache
def simulated(survey: str) -> tuple[Instrument, spectral_survey.Library]:
    """The instrument of a simulated survey, and its SEDs."""
    instrument = spectral_survey.instrument(survey.removeprefix("demo_"))
    return instrument, spectral_survey.library(instrument, [], 1)


def rows_of(survey: str, number: int, seed: int) -> LabelledBatch:
    """Simulated spectra with noise."""
    instrument, library = simulated(survey)
    objects = spectral_survey.draw(instrument, library, number, seed)
    parts = [made["noisy"] for _, made in spectral_survey.spectra(instrument, library, objects, seed)]
    flux, ivar = (np.concatenate([part[n] for part in parts]).astype(np.float32) for n in (0, 1))
    grid = context_of(survey).of(SpectrumKind).grid
    return LabelledBatch(Spectra.of(flux, ivar, grid), objects.z, np.ones(number))


def write_catalog(catalog: Path, survey: str, rows: int, extra: dict[str, Any]) -> list[Partition]:
    """A catalogue of simulated spectra: one partition of at most 10,000, and hard links of it. extra : further columns."""
    n = min(rows, PARTITION_ROWS)
    batch = rows_of(survey, n, 1).batch
    partition = Partition(6, 5000)
    start, stop = partition.interval()
    rng = np.random.default_rng(1)
    columns: dict[str, Any] = {
        "_healpix_29": np.sort(rng.integers(start, stop, n)),
        "object_id": np.arange(n),
        "ra": rng.uniform(10, 11, n),
        "dec": rng.uniform(-30, -29, n),
        "flux": lists(batch.flux),
        "ivar": lists(batch.ivar),
        "sn_median": batch.sn,
        "good_fraction": batch.good,
    }
    content = pa.table(columns | {name: np.full(n, value) for name, value in extra.items()})
    with hats.write_partition(catalog, partition, content.schema) as writer:
        for piece in content.to_batches(max_chunksize=1000):
            writer.write(piece)
    return replicate(catalog, rows, n)


# ------------------------------------------------------------------------------------------------ what runs alone


def import_file(folder: Path, survey: str, threads: int) -> None:
    """Import as the workflow does."""
    known = load_survey(survey, ROOT / "surveys")
    results = folder / "imported"
    import_survey(
        [folder / "noisy.parquet"], known, Partitions(), results / "survey", results / "rejected.parquet", threads
    )


def rewrite_file(folder: Path) -> None:
    """Read and rewrite the file with pyarrow."""
    source = pq.ParquetFile(folder / "noisy.parquet")
    with pq.ParquetWriter(
        folder / "copy.parquet", source.schema_arrow, compression="zstd", compression_level=1
    ) as sink:
        for batch in source.iter_batches(4096):
            sink.write_batch(batch)


def predict_models(folder: Path, survey: str, model: str, threads: int) -> None:
    """The shard's job."""
    kinds = list(context_of(survey).inputs)
    partitions = hats.partitions(folder / "clean")
    predict_shard(folder, folder / "models" / model, 0, partitions, kinds, Predict(pdf="compact"), threads)


def clean(folder: Path, survey: str, threads: int) -> None:
    """Clean as `workflow_scripts/clean_shard.py` does."""
    source, target = folder / "survey", folder / "clean"
    clean_shard(
        source,
        target,
        hats.partitions(source),
        Recipe(context_of(survey).inputs, {}, {}),
        folder / "clean.json",
        threads,
    )
    hats.finish(target, "benchmark", hats.partitions(source))


def work(name: str, options: argparse.Namespace) -> None:
    """Do one of them in this process."""
    folder, survey, threads = options.folder, options.survey, options.threads
    if name == "import":
        import_file(folder, survey, threads)
    elif name == "rewrite":
        rewrite_file(folder)
    elif name == "clean":
        clean(folder, survey, threads)
    elif name == "pass":
        columns = [*IDENTITY, *context_of(survey).columns(), "cut"]
        predict.pyarrow_pass(folder, ["photoz", "pdf"], columns, threads)
    else:
        predict_models(folder, survey, name, threads)


def alone(name: str, options: argparse.Namespace, folder: Path) -> dict[str, float]:
    """Do one of them in a process of its own: seconds of the wall and of the processor, without imports, and peak memory."""
    command = [sys.executable, __file__, "--alone", name, "--folder", str(folder), "--survey", options.survey]
    command += ["--threads", str(options.threads)]
    os.sync()
    pipe = subprocess.PIPE
    with (
        subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as process,
        PeakMemory(process.pid) as memory,
    ):
        output, errors = process.communicate()
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{errors[-4000:]}")
    return {**json.loads(output.splitlines()[-1]), "gib": memory.gib}


# ------------------------------------------------------------------------------------------------ parts


def measure_import(options: argparse.Namespace, folder: Path) -> dict[str, float]:
    """Import, compared with pyarrow."""
    names = [folder / name for name in ("clean.parquet", "noisy.parquet", "redshifts.parquet", "seds.csv")]
    spectral_survey.simulate(options.survey.removeprefix("demo_"), options.rows, [], 1, *names)
    ours, plain = (alone(name, options, folder) for name in ("import", "rewrite"))
    return {
        "import_ratio": ours["cpu_seconds"] / plain["cpu_seconds"],
        "import_wall_ratio": ours["seconds"] / plain["seconds"],
        "import_rows_per_s": options.rows / ours["seconds"],
        "import_gib": ours["gib"],
    }


def entries(options: argparse.Namespace) -> dict[str, ModelSettings]:
    """Models by name, with their settings."""
    given = json.loads(options.settings)
    return {
        name: ModelSettings.model_validate(BRIEF.get(name, {}) | given.get(name, {}))
        for name in [*options.models, *(name for name in given if name not in options.models)]
    }


def train(name: str, entry: ModelSettings, options: argparse.Namespace, folder: Path) -> dict[str, float]:
    """Train, calibrate and save a model."""
    settings = registry.check_models({name: entry})[name][1]
    fitted, valid, calib = (rows_of(options.survey, n, seed) for n, seed in ((options.train, 2), (1000, 3), (1000, 4)))
    device = torch.device(options.device)
    clock = Clock(options.device)
    trained = fit_and_calibrate(
        name, entry.type or name, settings, context_of(options.survey), fitted, valid, calib, device, lambda line: None
    )
    seconds = clock.seconds()
    store.save(folder / "models" / name, trained)
    epochs = getattr(settings, "epochs", 1)
    return {f"{name}_train_seconds": seconds, f"{name}_train_rows_per_s": options.train * epochs / seconds}


def measure_predict(options: argparse.Namespace, folder: Path, names: list[str]) -> dict[str, float]:
    """Prediction by every model, compared with pyarrow."""
    write_catalog(folder / "clean", options.survey, options.rows, {"cut": np.int32(0)})
    figures: dict[str, float] = {}
    for name in names:
        for output in ("photoz", "pdf", "pass"):
            shutil.rmtree(folder / output, ignore_errors=True)
        ours = alone(name, options, folder)
        plain = alone("pass", options, folder)
        figures |= {
            f"{name}_ratio": ours["cpu_seconds"] / plain["cpu_seconds"],
            f"{name}_wall_ratio": ours["seconds"] / plain["seconds"],
            f"{name}_rows_per_s": options.rows / ours["seconds"],
            f"{name}_us_per_row": 1e6 * ours["cpu_seconds"] / options.rows,
            f"{name}_gib": ours["gib"],
        }
    return figures


def measure_redrock(options: argparse.Namespace, folder: Path) -> dict[str, float]:
    """The template fit to spectra of BOSS's size, and redrock with the same templates at the redshifts at which it looks for galaxies."""
    grid = Grid(0.001, 1.7, 1700)
    model = SpectrumTemplate(
        SpectrumTemplateSettings.model_validate({"prior": "flat", "floor": 0.01}),
        ModelContext((SpectrumKind(BOSS),), grid, 1),
    )
    templates, _ = pca.of_seds([], model.axis.rest, model.resolution, model.settings.components)
    rng = np.random.default_rng(1)
    n, pixels = options.fitted, len(BOSS)
    first = rng.integers(0, model.axis.shifts, n)
    galaxies = templates.scale[:, None] * templates.flux
    flux = np.array([rng.normal(1, 0.3, len(galaxies)) @ galaxies[:, start : start + pixels] for start in first])
    flux /= np.median(np.abs(flux), axis=1, keepdims=True)
    flux = (flux + 0.3 * rng.normal(size=flux.shape)).astype(np.float32)
    z = (1 + grid.z_min) * np.exp(model.axis.step * (model.axis.shifts - 1 - first)) - 1
    rows = LabelledBatch(Spectra.of(flux, np.full(flux.shape, 1 / 0.09, np.float32), BOSS), z, np.ones(n))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    model.fit(rows, rows, CPU, lambda line: None)
    started = time.process_time()
    density = model.predict(rows.batch)
    seconds = time.process_time() - started
    torch.set_num_threads(threads)
    figures = {
        "template_spectra_per_s_core": n / seconds,
        "template_right": float(np.mean(np.abs(grid.z[density.argmax(1).numpy()] - z) < 0.003 * (1 + z))),
    }
    if options.peers:
        file = folder / "galaxies.fits"
        pca.write(file, templates, "GALAXY", 10 ** np.arange(np.log10(1.001), np.log10(2.7), 3e-4) - 1)
        some = slice(0, options.peer_rows)
        peer = redrock(options.peers, BOSS.wavelength, rows.batch.flux[some], rows.batch.ivar[some], [file])
        count = len(peer.z)
        figures |= {
            "redrock_spectra_per_s_core": count / peer.seconds,
            "redrock_right": float(np.mean(np.abs(peer.z - z[some]) < 0.003 * (1 + z[some]))),
            "redrock_ratio": (n / seconds) / (count / peer.seconds),
        }
    return figures


def measure_memory(options: argparse.Namespace, folder: Path) -> dict[str, float]:
    """Peaks for each number of rows."""
    figures: dict[str, float] = {}
    peaks: dict[str, list[float]] = {"clean": [], "predict": []}
    train("small", ModelSettings.model_validate(SMALL["small"]), options, folder)
    for rows in options.memory:
        for name in ("survey", "clean", "photoz", "pdf", "progress"):
            shutil.rmtree(folder / name, ignore_errors=True)
        write_catalog(folder / "survey", options.survey, rows, {})
        for name, task in (("clean", "clean"), ("predict", "small")):
            found = alone(task, options, folder)
            peaks[name].append(found["gib"])
            figures |= {f"{name}_gib_{rows}": found["gib"], f"{name}_rows_per_s_{rows}": rows / found["seconds"]}
    return figures | {f"{name}_flat": max(found) / min(found) for name, found in peaks.items()}


def parse() -> argparse.Namespace:
    """Options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--survey", choices=("demo_gaia", "demo_euclid", "demo_spherex"), default="demo_gaia")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--train", type=int, default=2000, help="training rows")
    parser.add_argument("--models", nargs="*", default=["spectrum_cnn", "spectrum_resnet", "spectrum_template"])
    parser.add_argument("--settings", default="{}", help="settings of models by name, as JSON")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--memory", nargs="+", type=int, default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--fitted", type=int, default=200, help="spectra of the part redrock")
    parser.add_argument("--peer-rows", type=int, default=20, help="spectra of it that redrock gets")
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument(
        "--device", choices=("cpu", "cuda"), default="cpu", help="of training; prediction uses a GPU if there is one"
    )
    parser.add_argument("--peers", type=Path, help="environment of redrock, made by peers.sh")
    parser.add_argument("--folder", type=Path, help="where catalogues are written and removed again")
    parser.add_argument("--alone", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    options = parse()
    if options.alone:
        clocks = time.perf_counter(), processor_seconds()
        work(options.alone, options)
        print(json.dumps({"seconds": time.perf_counter() - clocks[0], "cpu_seconds": processor_seconds() - clocks[1]}))
        return
    figures: dict[str, Any] = {"survey": options.survey, "rows": options.rows, "threads": options.threads}
    if options.device == "cuda":
        figures["gpu"] = torch.cuda.get_device_name()
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
        folder = Path(temporary)
        if "import" in options.parts:
            figures |= measure_import(options, folder)
        if {"train", "predict"} & set(options.parts):
            models = entries(options)
            for name, entry in models.items():
                figures |= train(name, entry, options, folder)
            if "predict" in options.parts:
                figures |= measure_predict(options, folder, list(models))
        if "redrock" in options.parts:
            figures |= measure_redrock(options, folder)
        if "memory" in options.parts:
            figures |= measure_memory(options, folder)
    report("spectra", figures)


def processor_seconds() -> float:
    """Processor seconds of this process and its ended children."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in used)


if __name__ == "__main__":
    main()
