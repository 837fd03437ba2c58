"""Download of large files: interrupted downloads continue, and a file exists only once it is complete."""

from __future__ import annotations

import hashlib
import re
import time
from pathlib import Path

import requests

from zmill.catalog.files import read_json, rename_finished, write_json
from zmill.labels.base import LabelsError
from zmill.labels.fetch import RequestSettings
from zmill.labels.http import Session, Transient, transient
from zmill.redact import expand
from zmill.workflow.job import Progress, log

BLOCK = 1 << 20
LEAST = 1 << 16
"""Bytes that must arrive within `timeout_s`."""
LARGEST = 1 << 37
"""Largest size of a file whose size the server does not state (137 GB)."""
ALGORITHMS = {32: "md5", 40: "sha1", 64: "sha256"}
"""Checksum algorithm by number of hexadecimal digits."""


def download(url: str, path: Path, checksum: str | None, settings: RequestSettings) -> Path:
    """The file at `path`, downloaded if it does not exist.

    An interrupted download is kept in `<path>.part` and continued (HTTP Range) if the server's file is unchanged
    (ETag or Last-Modified); otherwise it starts again.

    Raises
    ------
    LabelsError
        Where the file cannot be downloaded, or has another checksum.
    """
    facts = path.with_name(f"{path.name}.json")
    if path.exists() and facts.exists() and read_json(facts)["url"] == url:
        return path
    part, started = path.with_name(f"{path.name}.part"), path.with_name(f"{path.name}.part.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    session = Session(settings.timeout_s, buffered=False)
    attempt = 0
    while True:
        before = _size(part)
        try:
            size = _continue(session, url, part, started)
            break
        except Transient as error:
            # A broken connection does not count as a failure if it delivered data.
            attempt = 0 if _size(part) > before > 0 else attempt + 1
            if attempt > settings.retries:
                kept = f"; {_size(part)} bytes are kept in {part}, run again to continue" if _size(part) else ""
                raise LabelsError(f"{url}: {error}{kept}") from error
            pause = max(settings.backoff_s * 2 ** max(attempt - 1, 0), error.wait_s)
            log.warning("%s: %s; continued in %.3g s", url, error, pause)
            time.sleep(pause)
    found = _digest(part, checksum)
    if checksum is not None and found != checksum.lower():
        part.unlink()
        started.unlink()
        raise LabelsError(
            f"{url}: the file has the checksum {found}, expected {checksum}: it was damaged on its way or has changed; "
            "it was removed, run again or correct the checksum"
        )
    rename_finished(part, path)
    started.unlink()
    write_json(facts, {"url": url, "bytes": size, "checksum": found})
    return path


def _continue(session: Session, url: str, part: Path, started: Path) -> int:
    """Fetch the missing part of the file; returns its total size in bytes."""
    known = read_json(started) if started.exists() else {}
    have = _size(part) if known.get("url") == url and known.get("version") else 0
    headers = {"Accept-Encoding": "identity"}
    if have:
        headers |= {"Range": f"bytes={have}-", "If-Range": known["version"]}
    with session.get(expand(url), headers=headers, stream=True) as response:
        if response.status_code == 416 and known.get("size") == have:
            return have
        if response.status_code >= 400:
            raise LabelsError(f"{url}: the server answered {response.status_code} {response.reason}; check url")
        if response.status_code == 206:
            content_range = re.match(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range", ""))
            if content_range is None or int(content_range[1]) != have:
                raise Transient("an answer for another part of the file")
            size = int(content_range[2])
        else:
            have, size = 0, int(response.headers.get("Content-Length", -1))
        version = response.headers.get("ETag", "")
        if version.startswith("W/") or not version:
            version = response.headers.get("Last-Modified", "")
        write_json(started, {"url": url, "version": version, "size": size})
        progress = Progress(f"bytes of {url}", size if size > 0 else None)
        with open(part, "ab" if have else "wb") as file:
            progress.add(have)
            try:
                for block in session.blocks(response, LEAST):
                    file.write(block)
                    progress.add(len(block))
                    if size < 0 and file.tell() > LARGEST:
                        raise LabelsError(
                            f"{url}: the server sends more than {LARGEST:,} bytes without stating how many: check url"
                        )
            except requests.RequestException as error:
                raise transient(error) from error
    have = _size(part)
    if size >= 0 and have != size:
        raise Transient(f"the connection ended after {have} of {size} bytes")
    return have


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _digest(path: Path, checksum: str | None) -> str:
    digest = hashlib.new(ALGORITHMS[len(checksum)] if checksum else "sha1", usedforsecurity=False)
    with open(path, "rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()
