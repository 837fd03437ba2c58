"""The nearest training spectra of any object of the survey, by a model that keeps embeddings of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from zmill.catalog import hats
from zmill.catalog.files import atomic_write
from zmill.catalog.sizes import BATCH_BYTES
from zmill.chunks import row_chunks
from zmill.inputs.base import InputKind, ModelContext
from zmill.networks.device import choose
from zmill.training import store
from zmill.training.samples import read_samples
from zmill.training.trained import ModelError
from zmill.workflow.job import log

COUNT = 10
"""Number of training spectra of an object."""
ROWS = 65_536
SPLITS = ("train", "valid", "calib")


def retrieve(
    results: Path, model_folder: Path, objects: Sequence[str], survey: Sequence[InputKind], out: Path
) -> pa.Table:
    """Find the nearest training spectra of objects, and write them as a table.

    Parameters
    ----------
    results : the survey's results folder.
    model_folder : a model whose type keeps embeddings of its training rows.
    objects : identifiers of rows of `clean/`, as text.
    survey : the input kinds of the survey.
    out : the Parquet file.

    Returns
    -------
    A row per object, of rank 0, and one per training spectrum, of rank 1 (the nearest), 2, …: `object_id` (of the object),
    `rank`, `neighbor_id` (of the row itself), `split`, `redshift`, `distance`, and `novelty`, the distance in units of that beyond which
    an object is out of distribution; and the model's input columns. An object has no redshift, split and distance.

    Raises
    ------
    ModelError
        If the model keeps no embeddings, or was trained on rows that are no longer in the sample.
    LookupError
        If objects are not in the survey.
    """
    trained = store.load(model_folder, choose(), survey)
    model, context = trained.model, trained.context
    if not model.retrieves:
        raise ModelError(f"{model_folder}: a model of type {trained.type} keeps no embeddings of its training rows")
    columns = context.columns()
    rows = _objects(results / "clean", objects, columns)
    found = model.nearest(context.read(rows), COUNT)
    log.info(
        "%d objects, each with the nearest %d of the training spectra of %s",
        len(objects),
        found.distance.shape[1],
        trained.name,
    )
    spectra, split = _training_rows(results / "sample", found.identities, context, columns)
    tables = []
    for number in range(rows.num_rows):
        own = rows.slice(number, 1)
        near = [spectra[identity] for identity in found.identities[number].tolist()]
        distance = found.distance[number].astype(np.float64)
        table = pa.concat_tables(
            [own.select(["object_id", *columns]), *(one.select(["object_id", *columns]) for one in near)]
        )
        count = len(near) + 1
        tables.append(
            pa.table(
                {
                    "object_id": pa.array(own["object_id"].to_pylist() * count, own["object_id"].type),
                    "rank": np.arange(count, dtype=np.int32),
                    "neighbor_id": table["object_id"],
                    "split": [None, *(split[identity] for identity in found.identities[number].tolist())],
                    "redshift": np.append(np.nan, found.z[number].astype(np.float64)),
                    "distance": np.append(np.nan, distance),
                    "novelty": np.append(np.nan, distance / found.far_distance),
                }
            )
        )
        for name in columns:
            tables[-1] = tables[-1].append_column(table.schema.field(name), table[name])
    found_table = pa.concat_tables(tables)
    with atomic_write(out) as temporary:
        pq.write_table(found_table, temporary)
    return found_table


def _objects(clean: Path, objects: Sequence[str], columns: list[str]) -> pa.Table:
    """The rows of objects, in their order."""
    wanted = pa.array(list(dict.fromkeys(objects)), pa.string())
    parts = []
    for partition in hats.partitions(clean):
        identifiers = hats.read_columns(clean, partition, ["object_id"])["object_id"].cast(pa.string())
        here = pc.is_in(identifiers, wanted)
        if pc.any(here).as_py():
            there = pq.read_schema(partition.file(clean)).names
            names = ["object_id", *(name for name in columns if name in there)]
            parts.append(hats.read_columns(clean, partition, names).filter(here))
    rows = pa.concat_tables(parts) if parts else None
    known = [] if rows is None else rows["object_id"].cast(pa.string()).to_pylist()
    absent = [name for name in wanted.to_pylist() if name not in set(known)]
    if absent or rows is None:
        raise LookupError(
            f"config.yaml: retrieve: {', '.join(absent[:5])}{' and more' if len(absent) > 5 else ''}: no such object in {clean}: give "
            "identifiers as the column object_id has them"
        )
    place = {name: number for number, name in enumerate(known)}
    return rows.take(pa.array([place[name] for name in wanted.to_pylist()])).combine_chunks()


def _training_rows(
    sample: Path, identities: NDArray[np.bytes_], context: ModelContext, columns: list[str]
) -> tuple[dict[bytes, pa.Table], dict[bytes, str]]:
    """Identity -> row and split of the sample."""
    wanted = set(identities.ravel().tolist())
    rows: dict[bytes, pa.Table] = {}
    split: dict[bytes, str] = {}
    tables = {name: sample / f"{name}.parquet" for name in SPLITS}
    for name, read in read_samples(tables, context).items():
        batch, numbers = read.rows.batch, dict[bytes, int]()
        for part in row_chunks(len(read), batch.rows_in(BATCH_BYTES, ROWS)):
            for number, identity in enumerate(batch[part].identities().tolist(), part.start):
                if identity in wanted and identity not in rows:
                    numbers[identity] = number
        there = pq.read_schema(tables[name]).names
        kept = ["object_id", *(column for column in columns if column in there)]
        table = _some_rows(tables[name], sorted(numbers.values()), kept)
        for place, identity in enumerate(sorted(numbers, key=lambda one: numbers[one])):
            rows[identity], split[identity] = table.slice(place, 1), name
    if missing := wanted - set(rows):
        raise ModelError(
            f"{sample}: {len(missing)} of the nearest training spectra are not there any more, because the sample changed after the model "
            "was trained: run snakemake once more, so that the model is trained again"
        )
    return rows, split


def _some_rows(path: Path, numbers: Sequence[int], columns: list[str]) -> pa.Table:
    """Rows of a Parquet file by their ascending numbers; a row group is in memory at a time."""
    parts, first = [], 0
    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            last = first + file.metadata.row_group(group).num_rows
            if here := [number - first for number in numbers if first <= number < last]:
                parts.append(file.read_row_group(group, columns=columns).take(pa.array(here)))
            first = last
        return pa.concat_tables(parts) if parts else file.schema_arrow.empty_table().select(columns)
