"""Files that are whole or absent, and whose damage is recognized."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from zmill.catalog import files
from zmill.catalog.files import Damaged, atomic_write, check_file, fault, problem, read_json, sync, write_json

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
ANYWHERE = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


@ANYWHERE
@given(st.dictionaries(st.text(), VALUES, max_size=4) | st.lists(VALUES, max_size=3))
def test_json_comes_back_as_it_was_for_us_and_for_others(tmp_path: Path, content: Any) -> None:
    path = tmp_path / f"{type(content).__name__}.json"
    write_json(path, content)
    assert read_json(path) == content and problem(path) is None
    plain = json.loads(path.read_text())
    if isinstance(content, dict):
        plain.pop("file_xxh3")
    assert plain == content


@ANYWHERE
@given(st.dictionaries(st.text(), VALUES, max_size=4), st.data())
def test_no_bit_of_a_json_file_can_change_unseen(tmp_path: Path, content: dict[str, Any], data: st.DataObject) -> None:
    path = tmp_path / "x.json"
    write_json(path, content)
    text = bytearray(path.read_bytes())
    bit = data.draw(st.integers(0, 8 * len(text) - 1))
    text[bit // 8] ^= 1 << bit % 8
    path.write_bytes(text)
    assert problem(path)
    with pytest.raises(Damaged, match=r"x\.json: damaged \(.*\): run snakemake --cores 2 mend, then run again"):
        read_json(path)


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.9])
def test_a_cut_json_file_is_damaged(tmp_path: Path, kept: float) -> None:
    path = tmp_path / "x.json"
    write_json(path, {"rows": 12, "names": ["a", "b"]})
    text = path.read_bytes()
    path.write_bytes(text[: int(kept * len(text))])
    with pytest.raises(Damaged, match="empty" if not kept else "no JSON"):
        read_json(path)


@pytest.mark.parametrize(
    "text", ["{}", '{"timestamp": "2026-11-29T22:05"}', '{\n  "timestamp": "2026-11-29T22:05"\n}\n', "[1]"]
)
def test_json_of_others_is_read_as_it_is(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    assert read_json(path) == json.loads(text)


def test_a_check_file_tells_the_file_from_any_other(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    with atomic_write(path) as temporary:
        temporary.write_text("a,b\n1,2\n")
    assert fault(path) is None
    path.write_text("a,b\n1,3\n")
    assert fault(path) == "its content is not what was written"
    assert fault(path, most_bytes=1) is None, "too large to be read"
    path.write_text("a,b\n")
    assert "bytes" in str(fault(path, most_bytes=1))
    path.unlink()
    assert fault(path) == "missing"
    for garbage in (b"", b"\xff\xfe", b"\n\n"):
        check_file(path).write_bytes(garbage)
        fault(path)


def test_a_killed_write_leaves_a_complete_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At every step that changes the disk: the file is the old one or the new one, and its check file says so."""
    path = tmp_path / "x.csv"

    class Killed(BaseException):
        pass

    replace = os.replace
    for last in range(3):
        with atomic_write(path) as temporary:
            temporary.write_text("old")
        steps = iter(range(10))

        def step(source: Path, target: Path, last: int = last, steps: Any = steps) -> None:
            if next(steps) == last:
                raise Killed
            replace(source, target)

        monkeypatch.setattr(files.os, "replace", step)
        try:
            with atomic_write(path) as temporary:
                temporary.write_text("brand new")
        except Killed:
            pass
        monkeypatch.setattr(files.os, "replace", replace)
        assert path.read_text() == ("brand new" if last == 2 else "old")
        assert fault(path) is None


def test_content_name_and_folder_reach_the_disk_before_a_write_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    fsync = os.fsync

    def noted(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        fsync(descriptor)

    monkeypatch.setattr(files.os, "fsync", noted)
    write_json(tmp_path / "state.json", {"rows": 1})
    assert synced[0].startswith(".state.json.") and synced[1:] == [tmp_path.name]
    synced.clear()
    for name in ("a", "b"):
        with atomic_write(tmp_path / name, durable=False) as temporary:
            temporary.write_text(name)
    assert synced == []
    sync([tmp_path / "a", tmp_path / "b"])
    assert sorted(synced[:2]) == ["a", "b"] and synced[2:] == [tmp_path.name]
