"""The ways to install zmill agree: dependencies, pinned constraints, conda environments, README."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import yaml
from packaging.requirements import Requirement

CONDA_NAMES = {"pytorch": "torch", "python-xxhash": "xxhash"}


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


def test_conda_environments_have_the_pinned_versions(root: Path) -> None:
    pinned, declared = constraints(root), {requirement.name for requirement in dependencies(root)}
    files = sorted((root / "envs").glob("*.yaml"))
    assert files
    for file in files:
        packages = yaml.safe_load(file.read_text())["dependencies"]
        pip = next(entry["pip"] for entry in packages if isinstance(entry, dict))
        conda = [
            entry for entry in packages if isinstance(entry, str) and "=" in entry and not entry.startswith("python ")
        ]
        for entry in conda + pip:
            name, version = re.split(r" ?==?", entry)
            name = CONDA_NAMES.get(name, name)
            assert pinned[name] == version, f"{file.name}: {entry}, but constraints.txt has {pinned[name]}"
            assert name in declared, f"{file.name}: {name} is no dependency of zmill"


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
