"""The ways to install zmill agree: dependencies, pinned constraints, conda environments, README."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

CONDA_NAMES = {"pytorch": "torch", "python-xxhash": "xxhash"}
READ_AS_FILES = {"desc-bpz"}
"""Packages whose files are read, and which are imported nowhere."""


def constraints(root: Path) -> dict[str, str]:
    lines = (root / "envs/constraints.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def dependencies(root: Path) -> list[Requirement]:
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    return [Requirement(text) for text in project["dependencies"] + project["optional-dependencies"]["test"]]


def test_every_dependency_is_pinned_within_its_bounds(root: Path) -> None:
    pinned = constraints(root)
    for requirement in dependencies(root):
        assert requirement.specifier.contains(pinned[requirement.name]), requirement


def test_torch_is_pinned(root: Path) -> None:
    assert constraints(root)["torch"] == "2.13.0"


def conda(root: Path, name: str) -> dict[str, str]:
    """Packages of a conda environment by the names they have on PyPI, and their versions."""
    packages = yaml.safe_load((root / "envs" / name).read_text())["dependencies"]
    pip = next(entry["pip"] for entry in packages if isinstance(entry, dict))
    entries = [entry for entry in packages if isinstance(entry, str) and entry != "pip"] + pip
    versions = dict(re.split(r" ?==?", entry) for entry in entries)
    return {CONDA_NAMES.get(name, name): version for name, version in versions.items()}


def scripts_by_environment(root: Path) -> dict[str, set[Path]]:
    """The scripts whose rules run in each of the conda environments."""
    found: dict[str, set[Path]] = {}
    for file in (root / "rules").glob("*.smk"):
        for rule in re.split(r"^(?:rule|checkpoint) ", file.read_text(), flags=re.MULTILINE)[1:]:
            script = re.search(r"script:\s+\"\.\./(.+?)\"", rule)
            environment = re.search(r"conda:\s+\"\.\./envs/(.+?)\"", rule)
            if script:
                assert environment, f"{file.name}: the rule of {script[1]} names no environment"
                found.setdefault(environment[1], set()).add(root / script[1])
    return found


def imported(scripts: set[Path], library: Path) -> set[str]:
    """What packages the scripts import, by the modules of zmill that they reach, as PyPI calls them."""
    distributions = metadata.packages_distributions()
    waiting, seen, packages = list(scripts), set(), set()
    while waiting:
        file = waiting.pop()
        if file in seen or not file.is_file():
            continue
        seen.add(file)
        tree = ast.parse(file.read_text())
        for_types = {
            inner
            for node in ast.walk(tree)
            if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
            for inner in ast.walk(node)
        }
        for node in ast.walk(tree):
            if node in for_types:  # is not imported when the script runs
                continue
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            for name in names:
                if name == "importlib":  # modules of its folder are found by their names
                    waiting += [*file.parent.glob("*.py"), *file.parent.glob("*/__init__.py")]
                elif name.startswith("zmill"):
                    place = library.joinpath(*name.split("."))
                    waiting += [place.with_suffix(".py"), place / "__init__.py"]
                elif (top := name.partition(".")[0]) not in sys.stdlib_module_names:
                    packages.add(canonicalize_name(distributions[top][0]))
    return packages


def with_requirements(packages: set[str]) -> set[str]:
    """The packages and all that they need."""
    waiting, found = list(packages), set()
    while waiting:
        package = canonicalize_name(waiting.pop())
        if package not in found:
            found.add(package)
            needed = [Requirement(text) for text in metadata.requires(package) or []]
            waiting += [need.name for need in needed if need.marker is None or need.marker.evaluate({"extra": ""})]
    return found


ENVIRONMENTS = ("data.yaml", "models.yaml")


def test_every_script_has_an_environment(root: Path) -> None:
    assert sorted(path.name for path in (root / "envs").glob("*.yaml")) == sorted(ENVIRONMENTS)
    found = scripts_by_environment(root)
    assert set(found) == set(ENVIRONMENTS)
    assert set().union(*found.values()) == set((root / "workflow_scripts").glob("*.py"))


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_conda_environments_have_the_pinned_versions(root: Path, name: str) -> None:
    pinned, declared = constraints(root), {requirement.name for requirement in dependencies(root)}
    packages = conda(root, name)
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    assert Requirement(f"python {project['requires-python']}").specifier.contains(packages.pop("python"))
    for package, version in packages.items():
        assert pinned[package] == version, f"{name}: {package} {version}, but constraints.txt has {pinned[package]}"
        assert package in declared, f"{name}: {package} is no dependency of zmill"


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_conda_environments_have_what_their_scripts_import_and_no_more(root: Path, name: str) -> None:
    packages = set(conda(root, name)) - {"python"}
    needed = imported(scripts_by_environment(root)[name], root / "workflow_scripts")
    assert len(needed) > 5
    assert needed <= with_requirements(packages), f"{name} lacks what its scripts import"
    assert packages <= with_requirements(needed) | READ_AS_FILES, f"{name} has what none of its scripts imports"


def test_the_container_is_made_as_the_readme_says(root: Path) -> None:
    definition = (root / "envs/zmill.def").read_text()
    copied = definition.split("%files")[1].split("%post")[0].split()
    assert {"pyproject.toml", "README.md", "envs", "workflow_scripts"} <= set(copied)
    assert all((root / source).exists() for source in copied if not source.startswith("/"))
    assert "sh /opt/zmill/envs/setup.sh" in definition, "the versions are those of constraints.txt"
    assert "pip uninstall --yes zmill" in definition, "jobs use the code of their clone"


def test_readme_begins_with_the_two_commands(root: Path) -> None:
    blocks = re.findall(r"```[a-z]*\n(.*?)```", (root / "README.md").read_text(), flags=re.DOTALL)
    assert [block.strip() for block in blocks[:2]] == [
        "sh envs/setup.sh && .venv/bin/snakemake --cores all",
        "sh envs/setup.sh test && .venv/bin/pytest",
    ]


def test_nothing_committed_names_a_machine(root: Path) -> None:
    texts = [path for path in root.rglob("*") if path.suffix in {".py", ".smk", ".md", ".yaml", ".toml", ".sh", ".txt"}]
    texts = [
        path for path in texts if not {".venv", "results", "data", ".snakemake"} & set(path.relative_to(root).parts[:1])
    ]
    assert len(texts) > 30
    pattern = re.compile("/" + r"(work|farm|root|home)/\w")
    for path in texts:
        found = pattern.search(path.read_text(encoding="utf-8"))
        assert not found, f"{path.relative_to(root)}: {found}"


def test_links_between_the_pages_resolve(root: Path) -> None:
    pages = [root / "README.md", *(root / "docs").rglob("*.md")]
    assert len(pages) > 15
    for page in pages:
        for target, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)#?([^)\s]*)\)", page.read_text(encoding="utf-8")):
            linked = page.parent / target if target else page
            assert linked.exists(), f"{page.relative_to(root)}: there is no {target}"
            if anchor:
                heads = re.findall(r"^#+ (.*)$", linked.read_text(encoding="utf-8"), re.MULTILINE)
                known = {re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-") for head in heads}
                assert anchor in known, f"{page.relative_to(root)}: {target} has no section #{anchor}"
