"""What a release says about the code that made it."""

from __future__ import annotations

import shutil
import subprocess
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from zmill.release import provenance
from zmill.release.provenance import code_revision, versions


def test_versions_name_what_is_installed() -> None:
    import numpy

    found = versions()
    assert found["numpy"] == numpy.__version__ and "zmill" in found and "python" in found


@pytest.mark.parametrize("checkout", [True, False])
def test_versions_are_those_of_every_declared_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkout: bool
) -> None:
    if not checkout:
        monkeypatch.setattr(provenance, "ROOT", tmp_path)
    needed = [Requirement(text) for text in metadata.requires("zmill") or []]
    names = {canonicalize_name(one.name) for one in needed if one.marker is None}
    assert {"torch", "llvmlite", "scipy", "torch-geometric", "hats"} <= names
    assert set(versions()) == {"zmill", "python", *names}


@pytest.mark.skipif(shutil.which("git") is None, reason="no git")
def test_revision_of_a_checkout(tmp_path: Path) -> None:
    assert code_revision(tmp_path) is None
    (tmp_path / "file").write_text("a")
    git = ["git", "-C", str(tmp_path), "-c", "user.name=n", "-c", "user.email=e@x"]
    for command in (["init", "-q"], ["add", "file"], ["commit", "-q", "-m", "m"]):
        subprocess.run([*git, *command], check=True)
    clean = code_revision(tmp_path)
    assert clean is not None and len(clean["commit"]) == 40 and clean["edited"] is False
    (tmp_path / "file").write_text("b")
    assert code_revision(tmp_path) == clean | {"edited": True}
