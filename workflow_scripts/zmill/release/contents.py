"""The contents of a release, gathered from the results folder, and their hash."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import xxhash

from zmill.catalog.files import MEND, Damaged, check_file, file_hash, problem, read_json
from zmill.catalog.hats import CatalogError, Partition, partitions, sidecar
from zmill.release.gates import sentence
from zmill.release.store import ReleaseError

CATALOGS = ("photoz", "pdf")
"""The catalogues of a release; `pdf` is absent where none is stored."""
CATALOG_FILES = {
    name: ("partition_info.csv", "hats.properties", "properties", "content.json", "dataset/_common_metadata", *more)
    for name, more in {"photoz": (), "pdf": ("pdf.json",)}.items()
}
"""Released files of a catalogue besides its partitions."""
MODEL_FILES = ("model.json", "tensors.safetensors")

Sidecars = dict[Partition, dict[str, Any]]


@dataclass(frozen=True)
class Contents:
    """A candidate for release."""

    model: str
    """Name of the deployed model."""
    gates: dict[str, Any]
    """The content of `gates.json`: measurements and checks."""
    catalogs: dict[str, Sidecars]
    """Per catalogue, each partition's rows, bytes and content hash."""
    files: dict[str, Path]
    """All files that are not partitions: path inside the release -> present path."""
    hashes: dict[str, str]
    """Content hash of each of `files`."""
    foreign: list[Path] = field(default_factory=list)
    """Other files in the released folders; they are neither changed nor released."""

    @property
    def rows(self) -> int:
        """Rows of the survey."""
        return sum(entry["rows"] for entry in self.catalogs["photoz"].values())

    @property
    def content_hash(self) -> str:
        """Hash of the released data: partitions, the format of PDFs, and the model's tensors.

        The report, the leaderboard and the `.json` and `.properties` files contain times and versions, which
        change from run to run for the same data: they are released, but do not cause a new release.
        """
        partition_lines = [
            f"{catalog}/{partition.name} {entry['xxh3_128']}"
            for catalog, entries in self.catalogs.items()
            for partition, entry in entries.items()
        ]
        model_lines = [
            f"{path} {value}"
            for path, value in self.hashes.items()
            if path == "pdf/pdf.json" or (path.startswith("model/") and not path.endswith(".json"))
        ]
        return xxhash.xxh3_128("\n".join(sorted(partition_lines + model_lines)).encode()).hexdigest()


def gather(results: Path) -> Contents:
    """Find the contents of a release in `results`, and compare the row counts with the survey's.

    Raises
    ------
    ReleaseError
        Where something is missing, or a catalogue has other partitions or row counts than the survey.
    """
    champion, gates = _json(results / "champion.json"), _json(results / "gates.json")
    if not gates["passed"]:
        beyond = "; ".join(sentence(check) for check in gates["checks"] if not check["passed"])
        raise ReleaseError(
            f"not published: {beyond} (gates of config.yaml, compared with release {gates['since']}); if the change is intended, "
            "widen the gate for one run: snakemake refresh --config 'gates={...}'"
        )
    model = results / "champion" / champion["hash"]
    if not (model / "model.json").is_file():
        raise ReleaseError(f"{model / 'model.json'}: missing; champion.json names this model: {MEND}")
    survey = _sidecars(results / "survey")
    found = [name for name in CATALOGS if (results / name / "partition_info.csv").is_file()]
    if "photoz" not in found:
        raise ReleaseError(f"{results / 'photoz'}: not a finished catalogue; predict the survey before releasing it")
    catalogs = {name: _sidecars(results / name) for name in found}
    for name, entries in catalogs.items():
        faults = _row_faults(survey, entries)
        if faults:
            raise ReleaseError(_listed(f"{results / name}: its rows are not those of the survey", faults))
    files = {
        "report.html": results / "report.html",
        "leaderboard.csv": results / "evaluation" / "leaderboard.csv",
        "best.json": results / "evaluation" / "best.json",
        "champion.json": results / "champion.json",
        "imputation.json": results / "imputation.json",
        **{f"model/{name}": model / name for name in MODEL_FILES},
    }
    for name in found:
        files |= {f"{name}/{path}": results / name / path for path in CATALOG_FILES[name]}
    missing = [str(path) for path in files.values() if not path.is_file()]
    if missing:
        raise ReleaseError(f"missing: {', '.join(missing)}: {MEND}")
    damaged = [f"{path} ({why})" for path in files.values() if (why := problem(path))]
    if damaged:
        raise ReleaseError(f"damaged: {', '.join(damaged)}: {MEND}")
    files = dict(sorted(files.items()))
    hashes = {name: file_hash(path) for name, path in files.items()}
    return Contents(champion["model"], gates, catalogs, files, hashes, _foreign(results, catalogs, files))


def _foreign(results: Path, catalogs: dict[str, Sidecars], files: dict[str, Path]) -> list[Path]:
    ours = {path for name, entries in catalogs.items() for path in (one.file(results / name) for one in entries)}
    ours |= set(files.values()) | {check_file(path) for path in files.values()}
    folders = [results / name for name in catalogs]
    found = [path for folder in folders for path in (*folder.iterdir(), *folder.glob("dataset/**/*")) if path.is_file()]
    return sorted(set(found) - ours)


def _sidecars(catalog: Path) -> Sidecars:
    try:
        return {partition: sidecar(catalog, partition) for partition in partitions(catalog)}
    except CatalogError as error:
        raise ReleaseError(str(error)) from error


def _row_faults(survey: Sidecars, catalog: Sidecars) -> list[str]:
    faults = [f"{p.name}: in the survey ({survey[p]['rows']} rows) and not here" for p in survey if p not in catalog]
    faults += [f"{p.name}: here ({catalog[p]['rows']} rows) and not in the survey" for p in catalog if p not in survey]
    return faults + [
        f"{p.name}: {catalog[p]['rows']} rows, the survey has {survey[p]['rows']}"
        for p in survey
        if p in catalog and catalog[p]["rows"] != survey[p]["rows"]
    ]


def _listed(head: str, faults: list[str]) -> str:
    more = f"; and {len(faults) - 10} more" if len(faults) > 10 else ""
    return f"{head}: {'; '.join(faults[:10])}{more}; nothing is released"


def _json(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = read_json(path)
    except FileNotFoundError:
        raise ReleaseError(f"{path}: missing; run again") from None
    except Damaged as error:
        raise ReleaseError(str(error)) from None
    return content
