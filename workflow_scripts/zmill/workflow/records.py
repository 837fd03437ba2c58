"""Records of the inputs and settings of every job, kept with the results.

A record has hashes of the job's settings, of the input files that earlier jobs made, of its script, and the version of zmill.
`zmill.workflow.planning` compares it with the present files and settings, so that any later run, from any working folder, knows which jobs
must run. A job removes its record when it begins and writes it once its outputs are complete: outputs without a record are
incomplete, or were made by a version of zmill without records.

Paths in records are relative to the folder of the survey's results, which may be moved, copied or renamed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xxhash

from zmill import __version__
from zmill.catalog.files import file_hash, read_json, sync_folder, write_json

SCRIPTS = Path(__file__).resolve().parents[2]
"""The folder of the rules' scripts, each named for its rule."""
LOCATIONS = {"data_dir", "results_dir"}
"""Parameters that are locations. They change no output: the content of the files there is a parameter of its own."""
LARGE = 2**20
"""Size in bytes from which a file is not read again if its size and modification time are those of the record."""


@dataclass(frozen=True)
class Home:
    """The location of the record of a job, and its files.

    Attributes
    ----------
    record : path of the record.
    results : folder of the survey's results; None for a job with outputs elsewhere (simulated surveys), whose inputs are all
        parameters.
    rule : name of the rule, which is also the name of its script and log.
    """

    record: Path
    results: str | None
    rule: str

    @classmethod
    def of(cls, log: str, outputs: Sequence[str]) -> Home:
        """From the log of a job, `<results>/logs/<rule>[/<wildcards>].log`, and its outputs."""
        folders = [str(Path(path).parent) for path in (log, *outputs)]
        shared = os.path.commonpath(folders) if len({Path(folder).is_absolute() for folder in folders}) == 1 else ""
        within = Path(os.path.relpath(log, shared) if shared else log)
        if within.parts[0] == "logs" and script_of(Path(within.parts[1]).stem).is_file():
            named = Path(*within.parts[1:]).with_suffix(".json")
            return cls(Path(shared, "progress", "records", named), shared, Path(within.parts[1]).stem)
        names = (Path(log).stem, Path(log).parent.name)
        rule = next((name for name in names if script_of(name).is_file()), names[0])
        return cls(Path(os.path.commonpath(folders[1:]), f".{rule}.json"), None, rule)

    def relative(self, value: Any) -> Any:
        """Plain values, with paths below the results made relative to them."""
        if isinstance(value, Mapping):
            return {self.relative(str(key)): self.relative(one) for key, one in value.items() if key not in LOCATIONS}
        if isinstance(value, str):
            if self.results and (value == self.results or value.startswith(f"{self.results}/")):
                return f"./{os.path.relpath(value, self.results)}"
            return str(value)
        if isinstance(value, Iterable):
            return [self.relative(one) for one in value]
        return value if value is None or isinstance(value, bool | int | float) else str(value)


def settings(home: Home, params: Mapping[str, Any]) -> dict[str, str]:
    """Hash of each parameter by name."""
    found = {}
    for name, value in params.items():
        if name not in LOCATIONS:
            text = json.dumps(home.relative(value), sort_keys=True)
            found[name] = xxhash.xxh3_128_hexdigest(text.encode())
    return found


def inputs(
    home: Home, paths: Iterable[str], known: Mapping[str, Mapping[str, str]] | None = None
) -> dict[str, dict[str, str]]:
    """Relative path -> `content`, the hash of the file, and `stamp`, its size and modification time; for files below the results.

    Parameters
    ----------
    known : entries of a record: a `LARGE` file with the same stamp is not read again.
    """
    found = {}
    for path in paths:
        name = home.relative(str(path))
        if not home.results or name == path:
            continue
        there = Path(path).stat()
        stamp = f"{there.st_size}:{there.st_mtime_ns}"
        before = (known or {}).get(name, {})
        same = there.st_size >= LARGE and before.get("stamp") == stamp
        found[name] = {"content": before["content"] if same else file_hash(path), "stamp": stamp}
    return found


def script_of(rule: str) -> Path:
    """The script of a rule of zmill; for a rule of another workflow, a file that does not exist."""
    return SCRIPTS / f"{rule}.py"


def script(rule: str) -> str:
    """Hash of a rule's script."""
    return file_hash(script_of(rule))


def make(home: Home, paths: Iterable[str], params: Mapping[str, Any]) -> dict[str, Any]:
    """Make the record of a job that begins."""
    return {
        "zmill": __version__,
        "script": script(home.rule),
        "settings": settings(home, params),
        "inputs": inputs(home, paths),
    }


def read(home: Home) -> dict[str, Any] | None:
    """Read the record of a job; None if it does not exist or cannot be read."""
    try:
        record = read_json(home.record)
    except (OSError, ValueError):
        return None
    complete = isinstance(record, dict) and {"zmill", "script", "settings", "inputs"} <= record.keys()
    return record if complete else None


def remove(home: Home) -> None:
    """Remove the record of a job that begins, durably even after a power loss."""
    if home.record.exists():
        home.record.unlink()
        sync_folder(home.record.parent)


def write(home: Home, record: dict[str, Any]) -> None:
    """Write the record of a job, once its outputs are complete."""
    write_json(home.record, record)


def changes(
    home: Home, outputs: Iterable[str], paths: Iterable[str], params: Mapping[str, Any], order_only: Iterable[str] = ()
) -> list[tuple[str, list[str]]]:
    """The reasons why a job must run: missing outputs, or changed inputs, settings, script or version; empty if it is up to date.

    Parameters
    ----------
    outputs : files that the job makes.
    paths : input files whose content is compared.
    params : its parameters.
    order_only : further input files (`ancient`), whose change does not make the job run.

    Returns
    -------
    Pairs of a reason and the names that it concerns.
    """
    missing = [path for path in outputs if not Path(path).exists()]
    if missing:
        return [("Missing output", [home.relative(path) for path in missing])]
    record = read(home)
    if record is None:
        return [("There is no record of a complete job", [])]
    found = []
    if record["zmill"] != __version__:
        found.append(("Another version of zmill", [f"{record['zmill']}, now {__version__}"]))
    elif record["script"] != script(home.rule):
        found.append(("Changed script", [home.rule]))
    now = settings(home, params)
    before = record["settings"]
    other = sorted(name for name in now.keys() | before.keys() if now.get(name) != before.get(name))
    if other:
        found.append(("Changed settings", other))
    paths = list(paths)
    gone = [path for path in paths if not Path(path).exists()]
    entries = inputs(home, [path for path in paths if path not in gone], record["inputs"])
    content = {name: entry.get("content") for name, entry in record["inputs"].items()}
    names = {home.relative(path) for path in (*paths, *order_only) if home.relative(path) != path}
    differ = {name for name, entry in entries.items() if content.get(name) != entry["content"]}
    differ |= {home.relative(path) for path in gone} | (names ^ content.keys())
    if differ:
        found.append(("Changed input", sorted(differ)))
    return found
