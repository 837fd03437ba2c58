"""What a release says about the code that made it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from zmill.release.provenance import code_revision, versions


def test_versions_name_what_is_installed() -> None:
    import numpy

    found = versions()
    assert found["numpy"] == numpy.__version__ and "zmill" in found and "python" in found


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
