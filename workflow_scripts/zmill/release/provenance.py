"""With what a result was made: versions of the software and revision of the code."""

from __future__ import annotations

import platform
import shutil
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import zmill

PACKAGES = (
    "snakemake", "numpy", "pyarrow", "pandas", "dask", "torch", "scikit-learn", "lightgbm", "faiss-cpu", "astropy",
    "cdshealpix", "safetensors",
)  # fmt: skip
"""Packages whose version may change a result."""


def versions() -> dict[str, str]:
    """Version of zmill, of Python and of each package of `PACKAGES` that is installed."""
    installed = {str(item.name).lower(): item.version for item in metadata.distributions() if item.name}
    found = {name: installed[name] for name in PACKAGES if name in installed}
    return {"zmill": zmill.__version__, "python": platform.python_version(), **found}


def code_revision(root: Path | None = None) -> dict[str, Any] | None:
    """Commit of the git checkout that zmill runs from and whether files were edited since; None outside a checkout."""
    root = root or Path(__file__).resolve().parents[3]
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
