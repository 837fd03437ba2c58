"""The library's imports run one way: no module reaches further down the river than itself."""

from __future__ import annotations

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

FLOORS = [
    {
        *(
            "redact",
            "sections",
            "strict_yaml",
            "sentinels",
            "survey_definition",
            "config",
            "chunks",
            "columns",
            "units",
            "sed",
            "metrics",
        ),
        *("catalog", "workflow", "pdf", "kernels", "networks", "restframe"),
    },
    {"inputs", "simulate"},
    {"survey", "models", "clean", "crossmatch", "release"},
    {"labels", "training", "report"},
    {"sample", "predict", "tune", "mend"},
    {"check"},
]
LEVEL = {name: number for number, floor in enumerate(FLOORS) for name in floor}
LIBRARY = Path(__file__).resolve().parents[1] / "workflow_scripts" / "zmill"


def imported(path: Path) -> set[str]:
    parts = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("zmill"):
            names = node.module.split(".")
            parts.update([names[1]] if len(names) > 1 else [alias.name for alias in node.names])
        elif isinstance(node, ast.Import):
            parts.update(alias.name.split(".")[1] for alias in node.names if alias.name.startswith("zmill."))
    return parts - {"__version__"}


@pytest.mark.parametrize("path", sorted(LIBRARY.rglob("*.py")), ids=lambda path: str(path.relative_to(LIBRARY)))
def test_imports_run_one_way(path: Path) -> None:
    part = path.relative_to(LIBRARY).parts[0].removesuffix(".py")
    if part == "__init__":
        assert imported(path) == set()
        return
    for other in imported(path) - {part}:
        # The ground floor's parts may use each other; above it, a part uses only lower floors.
        allowed = LEVEL[other] < LEVEL[part] or LEVEL[other] == LEVEL[part] == 0
        assert allowed, f"{part} (floor {LEVEL[part]}) imports {other} (floor {LEVEL[other]})"


def test_no_rooms_import_each_other() -> None:
    """Also on the ground floor."""
    rooms: dict[str, set[str]] = {}
    for path in LIBRARY.rglob("*.py"):
        part = path.relative_to(LIBRARY).parts[0].removesuffix(".py")
        rooms.setdefault(part, set()).update(imported(path) - {part})
    TopologicalSorter(rooms).prepare()  # raises CycleError with the circle


def test_the_page_on_architecture_has_each_room_on_its_floor() -> None:
    page = (LIBRARY.parents[1] / "docs" / "develop" / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d) \| ([^|]*) \|", page, re.MULTILINE)
    assert {room: int(floor) for floor, rooms in rows for room in re.findall(r"`(\w+)`", rooms)} == LEVEL
    assert {path.relative_to(LIBRARY).parts[0].removesuffix(".py") for path in LIBRARY.rglob("*.py")} - {
        "__init__"
    } == set(LEVEL)


def test_models_open_no_files_but_in_the_store_and_in_samples() -> None:
    for path in (
        path for room in ("inputs", "networks", "models", "training") for path in (LIBRARY / room).rglob("*.py")
    ):
        if path.stem in ("store", "stored", "samples"):
            continue
        calls = {
            node.func.id
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        }
        assert "open" not in calls, f"{path.name} opens a file"


def test_the_catalogue_knows_no_models() -> None:
    for path in (LIBRARY / "catalog").glob("*.py"):
        assert imported(path) <= {"catalog"}
