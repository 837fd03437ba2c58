"""Provenance of a result: versions of the software and revision of the code."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
import tomllib
from importlib import metadata
from pathlib import Path, PurePath
from typing import Any

import zmill
from zmill.redact import redact

ROOT = Path(__file__).resolve().parents[3]


def versions() -> dict[str, str]:
    """Versions of zmill, of Python and of each installed package that zmill declares."""
    installed = {_plain(item.name): item.version for item in metadata.distributions() if item.name}
    found = {name: installed[name] for name in sorted(declared()) if name in installed}
    return {"zmill": zmill.__version__, "python": platform.python_version(), **found}


def declared() -> set[str]:
    """Packages that zmill requires, from the checkout that it runs from (conda environments do not install it) or as installed."""
    project = ROOT / "pyproject.toml"
    if project.is_file():
        needed = tomllib.loads(project.read_text(encoding="utf-8"))["project"]["dependencies"]
    else:
        needed = [text for text in metadata.requires("zmill") or [] if "extra ==" not in text]
    return {_plain(re.split(r"[\s<>=!~;\[]", text, maxsplit=1)[0]) for text in needed}


def _plain(name: str) -> str:
    """The normalized name of a package (PEP 503)."""
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


def public(settings: Any, data_dir: str | None = None) -> Any:
    """Settings for releases and reports: absolute paths become relative to `data_dir`, or are cut to the file name;
    `data_dir`, `results_dir` and passwords and tokens in addresses are removed.

    Parameters
    ----------
    settings : text, numbers, and lists and mappings of these.
    data_dir : the folder of the survey's files; by default that of the settings.
    """
    if isinstance(settings, dict):
        config = settings.get("config", settings)
        data_dir = data_dir or (config.get("data_dir") if isinstance(config, dict) else None)
        return {key: "…" if _is_folder_path(key, value) else public(value, data_dir) for key, value in settings.items()}
    if isinstance(settings, list | tuple):
        return [public(value, data_dir) for value in settings]
    if isinstance(settings, str) and PurePath(settings).is_absolute():
        path = PurePath(settings)
        if data_dir and path != PurePath(data_dir) and path.is_relative_to(data_dir):
            return str(path.relative_to(data_dir))
        return f"…/{path.name}"
    return redact(settings) if isinstance(settings, str) else settings


def _is_folder_path(key: str, value: Any) -> bool:
    return key in ("data_dir", "results_dir") and isinstance(value, str) and PurePath(value).is_absolute()
