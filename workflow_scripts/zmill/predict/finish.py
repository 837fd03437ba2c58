"""Completion of the output catalogues after all shards have written their partitions."""

from __future__ import annotations

import shutil
from collections.abc import Container
from pathlib import Path

from zmill.catalog import hats
from zmill.catalog.files import MEND, write_json
from zmill.catalog.hats import CatalogError, Partition
from zmill.pdf import arrow
from zmill.pdf.grid import Grid
from zmill.predict import assign, champion
from zmill.predict.infer import Stored
from zmill.training import store
from zmill.workflow.job import log

SHOWN = 5
"""Partitions named in a message; the rest are counted."""


def finish(results: Path, name: str, kind: Stored) -> int:
    """Check that every row of the survey has its redshift and make `photoz/` and `pdf/` HATS catalogues.

    Parameters
    ----------
    results : the survey's results folder.
    name : the survey.
    kind : `predict.pdf`: none, compact or full.

    Returns
    -------
    The number of rows.

    Raises
    ------
    CatalogError
        Where a partition is missing, was predicted from another input or by a model that is no champion, or has another number of rows.
    """
    survey, clean, pdf = results / "survey", results / "clean", results / "pdf"
    model = assign.current(results)
    by = champion.known(results)
    partitions = hats.partitions(survey)
    if partitions != hats.partitions(clean):
        raise CatalogError(f"{clean}: its partitions are not those of {survey}: clean the survey again")
    catalogs = [results / "photoz"] + ([] if kind == "none" else [pdf])
    for catalog in catalogs:
        # The file that marks a complete catalogue is absent until all partitions are checked.
        (catalog / "partition_info.csv").unlink(missing_ok=True)
        faults = [fault for one in partitions if (fault := _fault(survey, clean, catalog, one, kind, by))]
        if faults:
            more = f"\n  and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
            raise CatalogError(
                f"{catalog}: {len(faults)} of {len(partitions)} partitions are not what they should be: {MEND}:\n"
                + "\n".join(f"  {fault}" for fault in faults[:SHOWN])
                + more
            )
    rows = hats.rows(survey)
    if kind != "none":
        described = store.describe(model)
        about, grid = {"name": described["name"], "hash": model.name}, Grid(**described["grid"])
        write_json(pdf / "pdf.json", {**arrow.description(kind, grid), "model": about, "rows": rows})
    elif pdf.exists():
        log.warning("%s: removed, its PDFs are of an earlier run and predict.pdf is none", pdf)
        shutil.rmtree(pdf)
    champion.forget(results, partitions)
    for catalog in catalogs:
        count = hats.finish(catalog, f"{name}_{catalog.name}", partitions)
        log.info("%s: %s rows in %d partitions", catalog, f"{count:,}", len(partitions))
    return rows


def _fault(
    survey: Path, clean: Path, catalog: Path, partition: Partition, kind: Stored, by: Container[str]
) -> str | None:
    """What is wrong with a partition of an output, or None."""
    file = partition.file(catalog)
    if not hats.is_complete(catalog, partition):
        return f"{file}: missing or damaged"
    sidecar = hats.sidecar(catalog, partition)
    expected = {
        "rows": hats.sidecar(survey, partition)["rows"],
        "input": hats.sidecar(clean, partition)["xxh3_128"],
        "pdf": kind,
        "schema_version": assign.SCHEMA_VERSION,
    }
    wrong = [
        f"{key} is {sidecar.get(key)}, expected {value}" for key, value in expected.items() if sidecar.get(key) != value
    ]
    if sidecar.get("model") not in by:
        wrong.append(f"model is {sidecar.get('model')}, which is in no folder of {catalog.parent / 'champion'}")
    return f"{file}: {'; '.join(wrong)}" if wrong else None
