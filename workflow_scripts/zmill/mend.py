"""Repair of damaged files in a survey's results: what is removed or restored before a run, so that the run rebuilds the rest.

Every file that outlives a run has a checksum: JSON files end with one, other files have a check file
(`zmill.catalog.files`), partitions have sidecars, releases have records. A run that starts compares names, sizes and the content of
small files with these; `snakemake mend` reads every byte. A damaged file is renamed to `NAME.damaged`, and
the rule that writes it finds its output missing. A file that is no output of a rule is restored from a copy, or an output of
the rule that writes it is removed.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from zmill.catalog import hats, shards
from zmill.catalog.files import SUFFIX, Damaged, atomic_write, check_file, file_hash, problem, read_json
from zmill.catalog.hats import CatalogError, Partition
from zmill.release import mend as releases
from zmill.release.store import ReleaseError

SMALL_BYTES = 64 << 20
"""Larger files are compared with their check files by size alone when a run starts."""
ASIDE = ".damaged"
STAGES = {"clean": "clean", "photoz": "predict", "pdf": "predict"}
"""Catalogues that are written shard by shard -> the stage whose progress file marks a shard as done."""
CATALOGS = ("survey", "specz", *STAGES)
FOLDERS = {*CATALOGS, "rejected", "sample", "models", "evaluation", "champion", "progress", "labels_cache", "tune", ""}
"""Folders of zmill's files, `""` for the results themselves; others are ignored."""
MADE_WITH = {
    "survey": "survey/partition_info.csv",
    "specz": "specz/partition_info.csv",
    "clean": "clean/partition_info.csv",
    "photoz": "photoz/partition_info.csv",
    "pdf": "photoz/partition_info.csv",
}
"""Folder -> the output without which the rule that writes the folder runs again."""
THREADS = 16


def mend(results: Path, every_byte: bool = False) -> list[str]:
    """Look for damage, and remove or restore files so that the next run repairs it.

    Parameters
    ----------
    results : the survey's results folder; no run may be active there.
    every_byte : whether all files, including releases, are read.

    Returns
    -------
    One sentence per fault, with its file.
    """
    found: list[str] = []
    if results.is_dir():
        for path in sorted(_files(results)):
            why = problem(path, float("inf") if every_byte else SMALL_BYTES)
            if why:
                found += _aside(results, path, why)
        for catalog in CATALOGS:
            found += _catalog(results, catalog, every_byte)
        for model in (*results.glob("models/*"), *results.glob("models/*/held_out")):
            why = _model_fault(model, every_byte)
            if why:
                found += _aside(results, model / "model.json", why)
        found += _champion(results, every_byte)
        try:
            found += releases.mend(results, every_byte)
        except ReleaseError as error:
            found.append(str(error))
    return found


# -------------------------------------------------------------------------------------------------- single files


def _files(results: Path) -> Iterator[Path]:
    """Files that have a checksum or a check file, and missing files whose check file is left."""
    for parent, folders, names in os.walk(results):
        here = Path(parent).relative_to(results)
        if here == Path():
            folders[:] = [name for name in folders if name in FOLDERS]
        else:
            folders[:] = [
                name for name in folders if name not in ("dataset", "sidecars") or here.parts[0] not in CATALOGS
            ]
        for name in names:
            if name.startswith(".") and name.endswith(SUFFIX):
                yield Path(parent, name[1 : -len(SUFFIX)])
            elif name.endswith(".json") and not name.startswith(".") and (here, name) != (Path(), "release.json"):
                yield Path(parent, name)


def _aside(results: Path, path: Path, why: str) -> list[str]:
    """Rename a damaged file, and remove its check file and the outputs without which its rule runs again."""
    check_file(path).unlink(missing_ok=True)
    gone = path.is_file()
    if gone:
        path.replace(path.with_name(path.name + ASIDE))
    removed = [other for other in _outputs(results, path.relative_to(results)) if _remove(results / other)]
    return [f"{path}: {why}; it is made again"] if gone or removed else []


def _outputs(results: Path, path: Path) -> list[str]:
    """Outputs of the rule that writes a file which is no output itself: without them the rule runs again."""
    top, name = path.parts[0], path.name
    if top in MADE_WITH:
        return [MADE_WITH[top]]
    if top == "rejected" and name.split(".")[0] in ("survey", "specz", "specz_conflicts"):
        return [MADE_WITH[name.split(".")[0].removesuffix("_conflicts")]]
    if top == "rejected":
        return ["sample/sample.json"]
    return []


def _remove(path: Path) -> bool:
    check_file(path).unlink(missing_ok=True)
    there = path.is_file()
    path.unlink(missing_ok=True)
    return there


# ---------------------------------------------------------------------------------------------------- catalogues


def _catalog(results: Path, name: str, every_byte: bool) -> list[str]:
    """Handle damaged partitions of a finished catalogue; the rules complete an unfinished one."""
    catalog = results / name
    if not (catalog / "partition_info.csv").is_file():
        return []
    try:
        listed = hats.partitions(catalog)
    except CatalogError as error:
        return _aside(results, catalog / "partition_info.csv", str(error))
    needed = ["hats.properties", "properties", "content.json", "dataset/_common_metadata"]
    needed += ["pdf.json"] if name == "pdf" else []
    found = []
    for file in needed:
        why = problem(catalog / file) if (catalog / file).is_file() else "missing"
        if why:
            found += _aside(results, catalog / file, why)
    with ThreadPoolExecutor(THREADS) as pool:
        checked = pool.map(lambda one: _partition_fault(catalog, one, every_byte), listed)
        broken = {one: why for one, why in zip(listed, checked, strict=True) if why}
    if name == "survey":
        found += _shards(results, listed)
    if broken:
        _remove(catalog / "partition_info.csv")
        _remove(results / MADE_WITH[name])
        stage = STAGES.get(name)
        of = _shard_of(results / "survey") if stage else {}
        for one in broken:
            one.sidecar(catalog).unlink(missing_ok=True)
            one.file(catalog).unlink(missing_ok=True)
            if one in of:
                (results / "progress" / str(stage) / f"{of[one]}.json").unlink(missing_ok=True)
    return found + [f"{one.file(catalog)}: {why}; it is made again" for one, why in broken.items()]


def _partition_fault(catalog: Path, partition: Partition, every_byte: bool) -> str | None:
    try:
        sidecar = hats.sidecar(catalog, partition)
        file = partition.file(catalog)
        if not file.is_file():
            return "missing"
        if file.stat().st_size != sidecar["bytes"]:
            return f"{file.stat().st_size} bytes, written with {sidecar['bytes']}"
        return "its content is not what was written" if every_byte and file_hash(file) != sidecar["xxh3_128"] else None
    except CatalogError as error:
        return str(error).removesuffix(": run again")


def _shards(results: Path, listed: list[Partition]) -> list[str]:
    """Whether every partition of the survey is in one shard."""
    catalog = results / "survey"
    assigned = [one for number in shards.numbers(catalog) for one in _plan(catalog, number)]
    if sorted(assigned) == sorted(listed):
        return []
    return _aside(
        results,
        catalog / "partition_info.csv",
        f"{catalog / 'shards'}: not all of its partitions are in one shard each",
    )


def _shard_of(catalog: Path) -> dict[Partition, int]:
    return {one: number for number in shards.numbers(catalog) for one in _plan(catalog, number)}


def _plan(catalog: Path, number: int) -> list[Partition]:
    try:
        return shards.read(shards.file(catalog, number))
    except (KeyError, TypeError, ValueError):
        return []


# ------------------------------------------------------------------------------------------------------ champion


def _champion(results: Path, every_byte: bool) -> list[str]:
    """Restore the champion's record from its copy, and damaged models in use from the models that they were copied from."""
    folder, copy = results / "champion", results / "champion.json"
    found = []
    state = folder / "champion.json"
    if not state.is_file() and copy.is_file():
        with atomic_write(state, check=False) as temporary:
            shutil.copyfile(copy, temporary)
        found.append(f"{state}: put back from {copy}")
    for model in sorted(folder.glob("*/")):
        why = _model_fault(model, every_byte) if (model / "model.json").exists() or _is_current(model) else None
        if not why:
            continue
        donor = next((one for one in _models(results) if _hash(one) == model.name), None)
        if donor is None:
            _remove(model / "model.json")
            _remove(copy)
            found.append(f"{model}: damaged ({why}): another champion is chosen, and predicts its rows")
            continue
        for name in ("tensors.safetensors", "model.json"):
            with atomic_write(model / name, check=False) as temporary:
                shutil.copyfile(donor / name, temporary)
        found.append(f"{model}: damaged ({why}): put back from {donor}")
    return found


def _models(results: Path) -> Iterator[Path]:
    yield from sorted(results.glob("models/*"))
    yield from sorted(results.glob("releases/*/model"))


def _is_current(model: Path) -> bool:
    try:
        return bool(read_json(model.parent / "champion.json")["hash"] == model.name)
    except (OSError, Damaged):
        return False


def _model_fault(model: Path, every_byte: bool) -> str | None:
    """What is wrong with a model; None for a folder without `model.json`, which its rule finds missing."""
    tensors = model / "tensors.safetensors"
    try:
        recorded_hash = read_json(model / "model.json")["tensors_hash"]
        if not tensors.is_file():
            return f"{tensors.name} is missing"
        if tensors.stat().st_size > SMALL_BYTES and not every_byte:
            return None
        return None if recorded_hash == file_hash(tensors) else f"{tensors.name} is not what was written"
    except FileNotFoundError:
        return None if model.parent.name != "champion" else "model.json is missing"
    except Damaged as error:
        return f"model.json: {error.why}"
    except (KeyError, TypeError):
        return "model.json describes no model"


def _hash(model: Path) -> str | None:
    """The hash that names a model in `champion/`; None where it is damaged."""
    from zmill.training import store
    from zmill.training.trained import ModelError

    try:
        return store.model_hash(model)
    except ModelError:
        return None
