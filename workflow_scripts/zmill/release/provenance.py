"""With what a result was made: versions of the software and revision of the code."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

import zmill

ROOT = Path(__file__).resolve().parents[3]


def versions() -> dict[str, str]:
    """Version of zmill, of Python and of each package that zmill declares and that is installed where this runs."""
    installed = {_plain(item.name): item.version for item in metadata.distributions() if item.name}
    found = {name: installed[name] for name in sorted(declared()) if name in installed}
    return {"zmill": zmill.__version__, "python": platform.python_version(), **found}


def declared() -> set[str]:
    """Packages that zmill needs, by the checkout that it runs from (conda environments do not install it), or as installed."""
    project = ROOT / "pyproject.toml"
    if project.is_file():
        needed = tomllib.loads(project.read_text(encoding="utf-8"))["project"]["dependencies"]
    else:
        needed = [text for text in metadata.requires("zmill") or [] if "extra ==" not in text]
    return {_plain(re.split(r"[\s<>=!~;\[]", text, maxsplit=1)[0]) for text in needed}


def _plain(name: str) -> str:
    """A package's name as all who write it mean it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def code_revision(root: Path | None = None) -> dict[str, Any] | None:
    """Commit of the git checkout that zmill runs from and whether files were edited since; None outside a checkout."""
    root = root or ROOT
    git = shutil.which("git")
    if git is None or not (root / ".git").exists():
        return None
    commit = _git(git, root, "rev-parse", "HEAD")
    if commit is None:
        return None
    return {"commit": commit, "edited": bool(_git(git, root, "status", "--porcelain", "--untracked-files=no"))}


def _git(git: str, root: Path, *arguments: str) -> str | None:
    done = subprocess.run([git, "-C", str(root), *arguments], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None
