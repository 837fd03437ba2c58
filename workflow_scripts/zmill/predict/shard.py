"""One shard's job: the assigned model is applied to every row of the shard's partitions, on the available device."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
import xxhash
from threadpoolctl import threadpool_limits

from zmill.catalog import hats
from zmill.catalog.files import write_json
from zmill.catalog.hats import Partition
from zmill.config import Predict
from zmill.inputs.base import InputKind
from zmill.networks.device import choose
from zmill.predict import assign
from zmill.predict.engine import Work, run
from zmill.predict.infer import Inference
from zmill.predict.memory import keep_freed
from zmill.predict.write import Output
from zmill.training import store
from zmill.training.trained import TrainedModel
from zmill.workflow.job import log

THREADS_PER_LANE = 4
"""Threads of inference per reading thread with its writing threads."""


def predict_shard(
    results: Path,
    model_folder: Path,
    shard: int,
    partitions: list[Partition],
    survey: Sequence[InputKind],
    settings: Predict,
    threads: int,
) -> dict[str, Any]:
    """Write `photoz/` and `pdf/` partitions of a shard and `progress/predict/<shard>.json`, which it returns.

    Parameters
    ----------
    results : the survey's results folder.
    model_folder : the model that predicts the shard.
    survey : the input kinds of the survey.

    Raises
    ------
    ModelError
        Where the model cannot be loaded or was trained on other inputs.
    PredictError
        Where not every partition could be predicted.
    """
    device = choose()
    model = store.load(model_folder, device, survey)
    hash_ = store.model_hash(model_folder)
    log.info("model %s (%s) on %s, %d threads, PDFs: %s", model.name, hash_, device, threads, settings.pdf)
    started = time.monotonic()
    with computing(threads, device) as pool:
        work = shard_work(results, model, hash_, settings, pool)
        todo = work.missing(partitions)
        run(work, partitions, max(1, threads // THREADS_PER_LANE))
    sidecars = [hats.sidecar(results / "photoz", partition) for partition in partitions]
    done = {
        "shard": shard,
        "rows": sum(one["rows"] for one in sidecars),
        "predicted": sum(hats.sidecar(results / "photoz", partition)["rows"] for partition in todo),
        "seconds": round(time.monotonic() - started, 3),
        "partitions": len(partitions),
        "model": {"name": model.name, "hash": hash_},
        "pdf": settings.pdf,
        "schema_version": assign.SCHEMA_VERSION,
        "xxh3_128": xxhash.xxh3_128_hexdigest("".join(one["xxh3_128"] for one in sidecars).encode()),
    }
    write_json(results / "progress" / "predict" / f"{shard}.json", done)
    return done


def shard_work(results: Path, model: TrainedModel, hash_: str, settings: Predict, pool: ThreadPoolExecutor) -> Work:
    """The engine's `Work` for a model."""
    context = model.context
    inference = Inference(model, settings.pdf, pool)
    made = {"model": hash_, "pdf": settings.pdf, "schema_version": assign.SCHEMA_VERSION}
    outputs = [Output(results / "photoz", inference.photoz_schema, made)]
    if settings.pdf != "none":
        outputs.append(Output(results / "pdf", inference.pdf_schema, made))
    return Work(
        clean=results / "clean",
        wanted=[*context.columns(), "cut"],
        needed=context.needed(),
        batch_rows=settings.batch_rows,
        infer=inference,
        outputs=tuple(outputs),
    )


@contextmanager
def computing(threads: int, device: torch.device) -> Iterator[ThreadPoolExecutor]:
    """A pool of threads for the inference. Each computes its own rows, and no operation is split among threads.

    The thread counts of torch, Arrow and the libraries below them are set for the block and restored after it.
    """
    keep_freed()
    before, arrow = torch.get_num_threads(), pa.cpu_count()
    torch.set_num_threads(1)
    pa.set_cpu_count(threads)
    workers = threads if device.type == "cpu" else max(1, threads // THREADS_PER_LANE)
    try:
        with threadpool_limits(1), ThreadPoolExecutor(workers, "infer") as pool:
            yield pool
    finally:
        torch.set_num_threads(before)
        pa.set_cpu_count(arrow)
