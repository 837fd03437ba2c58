"""Making HATS catalogues of the partitions that all shards have written, once nothing is missing."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from zmill.catalog import hats
from zmill.catalog.files import read_json, write_json
from zmill.catalog.hats import CatalogError, Partition
from zmill.job import log

SHOWN = 5
"""Partitions named in a message; the rest are counted."""


def finish(results: Path, name: str, pdf: dict[str, Any] | None, model: dict[str, str]) -> int:
    """Check that every row of the survey has its redshift and make `photoz/` and `pdf/` HATS catalogues.

    Parameters
    ----------
    results : the survey's folder of results.
    name : the survey.
    pdf : what `pdf/pdf.json` says about the PDFs (kind, grid); None where none are written.
    model : name and hash of the model that every partition must have been made with.

    Returns
    -------
    The number of rows.

    Raises
    ------
    CatalogError
        Where a partition is missing, was made from another input or by another model, or has lost or gained rows.
    """
    survey, clean = results / "survey", results / "clean"
    kind = pdf["kind"] if pdf else "none"
    partitions = hats.partitions(survey)
    if partitions != hats.partitions(clean):
        raise CatalogError(f"{clean}: its partitions are not those of {survey}: clean the survey again")
    catalogs = [results / "photoz"] + ([results / "pdf"] if pdf else [])
    for catalog in catalogs:
        # Until all is checked nothing says that the catalogue is whole.
        (catalog / "partition_info.csv").unlink(missing_ok=True)
        made = {"model": model["hash"], "pdf": kind}
        faults = [fault for one in partitions if (fault := _fault(survey, clean, catalog, one, made))]
        if faults:
            more = f"\n  and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
            raise CatalogError(
                f"{catalog}: {len(faults)} of {len(partitions)} partitions are not what they should be; predict them "
                "again:\n" + "\n".join(f"  {fault}" for fault in faults[:SHOWN]) + more
            )
        _remove_others(catalog, partitions)
    rows = hats.rows(survey)
    if pdf:
        write_json(results / "pdf" / "pdf.json", {**pdf, "model": model, "rows": rows})
    elif (results / "pdf").exists():
        log.warning("%s: removed, its PDFs are of an earlier run and predict.pdf is none", results / "pdf")
        shutil.rmtree(results / "pdf")
    for catalog in catalogs:
        count = hats.finish(catalog, f"{name}_{catalog.name}", partitions)
        log.info("%s: %s rows in %d partitions", catalog, f"{count:,}", len(partitions))
    return rows


def _fault(survey: Path, clean: Path, catalog: Path, partition: Partition, made: dict[str, str]) -> str | None:
    """What is wrong with a partition of an output, or None."""
    file = partition.file(catalog)
    if not file.is_file() or not partition.sidecar(catalog).is_file():
        return f"{file}: missing"
    said = read_json(partition.sidecar(catalog))
    expected = {
        "rows": hats.sidecar(survey, partition)["rows"],
        "bytes": file.stat().st_size,
        "input": hats.sidecar(clean, partition)["xxh3_128"],
        **made,
    }
    wrong = [f"{key} is {said.get(key)}, expected {value}" for key, value in expected.items() if said.get(key) != value]
    return f"{file}: {'; '.join(wrong)}" if wrong else None


def _remove_others(catalog: Path, partitions: list[Partition]) -> None:
    """Remove partitions of an earlier import that the survey no longer has."""
    keep = {partition.file(catalog) for partition in partitions} | {one.sidecar(catalog) for one in partitions}
    found = [*(catalog / "dataset").glob("Norder=*/Dir=*/*"), *(catalog / "sidecars").glob("*/*/*")]
    for file in found:
        if file not in keep:
            log.warning("%s: removed, the survey has no such partition", file)
            file.unlink()
