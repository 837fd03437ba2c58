"""The file of all SDSS spectra: downloaded in pieces that are continued, checked, and read by columns."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from astropy.table import Table
from servers.loopback import HttpRequest, Loopback, Reply
from servers.sky import make_request, spectra

from zmill.catalog.files import problem
from zmill.catalog.sky import healpix
from zmill.config import ConfigError
from zmill.labels import sdss_bulk
from zmill.labels.base import LabelsError
from zmill.labels.download import download
from zmill.labels.fetch import RequestSettings

QUICK = RequestSettings(retries=3, backoff_s=0.01, timeout_s=5.0)
CONTENT = np.random.default_rng(1).bytes(9 << 19)
"""4.5 MiB; half of it holds 36 blocks of 64 KiB that are kept."""
KEPT = 9 << 18


class Archive(Loopback):
    """A server of one file, which understands Range and If-Range."""

    def __init__(self, content: bytes, version: str = '"one"', ranges: bool = True) -> None:
        super().__init__(self._give)
        self.content, self.version, self.ranges = content, version, ranges

    def _give(self, request: HttpRequest) -> Reply:
        if request.path != "/specObj.fits":
            return Reply(b"no such file", status=404)
        wanted = re.fullmatch(r"bytes=(\d+)-", request.headers.get("Range", ""))
        if self.ranges and wanted and request.headers.get("If-Range") == self.version:
            first = int(wanted[1])
            told = {"Content-Range": f"bytes {first}-{len(self.content) - 1}/{len(self.content)}", "ETag": self.version}
            return Reply(self.content[first:], "application/octet-stream", 206, told)
        return Reply(self.content, "application/octet-stream", headers={"ETag": self.version})


def fetch(server: Archive, path: Path, checksum: str | None = None, settings: RequestSettings = QUICK) -> bytes:
    return download(f"{server.url}/specObj.fits", path, checksum, settings).read_bytes()


def test_a_file_is_downloaded_once(tmp_path: Path) -> None:
    with Archive(CONTENT) as server:
        for algorithm in ("md5", "sha1", "sha256"):
            checksum = hashlib.new(algorithm, CONTENT).hexdigest().upper()
            assert fetch(server, tmp_path / algorithm, checksum) == CONTENT
            assert fetch(server, tmp_path / algorithm, checksum) == CONTENT
        assert len(server.requests) == 3
    assert not list(tmp_path.glob("*.part*"))
    assert problem(tmp_path / "md5") is None
    (tmp_path / "md5").write_bytes(CONTENT[:-1] + b"?")
    assert problem(tmp_path / "md5") == "its content is not what was written"


@pytest.mark.parametrize("ranges", [True, False])
def test_a_broken_download_is_continued(tmp_path: Path, ranges: bool) -> None:
    with Archive(CONTENT, ranges=ranges) as server:
        server.faults = ["truncated", "503", "truncated", "reset"] if ranges else ["truncated", "503"]
        assert fetch(server, tmp_path / "file") == CONTENT
        first = [one.headers.get("Range") for one in server.requests]
        assert first[0] is None and first[1] == f"bytes={KEPT}-"


def test_a_download_is_continued_by_a_later_run(tmp_path: Path) -> None:
    with Archive(CONTENT) as server:
        server.faults = ["truncated", "500"]
        with pytest.raises(LabelsError, match=r"2359296 bytes are kept in .*file\.part, run again to continue"):
            fetch(server, tmp_path / "file", settings=RequestSettings(retries=0, backoff_s=0, timeout_s=5))
        assert not (tmp_path / "file").exists()
        assert fetch(server, tmp_path / "file") == CONTENT
        assert server.requests[-1].headers["Range"] == f"bytes={KEPT}-"


def test_a_file_that_changed_during_its_download_is_downloaded_from_the_start(tmp_path: Path) -> None:
    other = CONTENT[::-1]
    with Archive(CONTENT) as server:
        server.faults = ["truncated", "500"]
        with pytest.raises(LabelsError):
            fetch(server, tmp_path / "file", settings=RequestSettings(retries=0, backoff_s=0, timeout_s=5))
        server.content, server.version = other, '"two"'
        assert fetch(server, tmp_path / "file") == other


def test_a_wrong_file_is_refused(tmp_path: Path) -> None:
    with Archive(CONTENT) as server:
        with pytest.raises(LabelsError, match=r"has the checksum [0-9a-f]{40}, expected a{40}"):
            fetch(server, tmp_path / "file", "a" * 40)
        assert list(tmp_path.iterdir()) == []
        with pytest.raises(LabelsError, match="the server answered 404 Not Found; check url"):
            download(f"{server.url}/other.fits", tmp_path / "file", None, QUICK)
        server.faults = ["html"] * 9
        with pytest.raises(LabelsError, match="a page of HTML"):
            fetch(server, tmp_path / "file")


@pytest.fixture(scope="module")
def bulk(tmp_path_factory: pytest.TempPathFactory) -> tuple[Table, Path]:
    """2000 spectra as `specObj` has them, with further columns."""
    sky = spectra(150.0, 2.0, 4.0, 2000)
    table = Table(
        {
            "SURVEY": np.full(2000, "sdss"),
            "SPECOBJID": [f"{one:22d}" for one in sky["specObjID"].tolist()],
            "CLASS": sky["class"],
            "Z": sky["z"].astype(np.float32),
            "Z_ERR": sky["zErr"].astype(np.float32),
            "ZWARNING": sky["zWarning"].astype(np.int32),
            "PLUG_RA": sky["ra"],
            "PLUG_DEC": sky["dec"],
            "SPECPRIMARY": sky["sciencePrimary"].astype(np.uint8),
            "SPECTROFLUX": np.zeros((2000, 5), np.float32),
        }
    )
    path = tmp_path_factory.mktemp("bulk") / "specObj.fits"
    table.write(path)
    return sky, path


def settings(**changes: Any) -> sdss_bulk.Settings:
    quick = {"retries": 3, "backoff_s": 0.01, "timeout_s": 5.0}
    return sdss_bulk.Settings.model_validate({"name": "sdss", "source": "sdss_bulk", **quick, **changes})


def test_the_spectra_of_the_footprint_come_from_the_file(tmp_path: Path, bulk: tuple[Table, Path]) -> None:
    sky, path = bulk
    request = make_request(tmp_path, 150.0, 2.0, 1.0)
    near = request.footprint.near(healpix(np.asarray(sky["ra"]), np.asarray(sky["dec"])))
    content = path.read_bytes()
    checksum = hashlib.sha1(content, usedforsecurity=False).hexdigest()
    with Archive(content) as server:
        server.faults = ["truncated"]
        url = f"{server.url}/specObj.fits"
        found = pa.concat_tables(list(sdss_bulk.entries(settings(url=url, checksum=checksum), request)))
    assert sorted(name.strip() for name in found["specz_id"].to_pylist()) == sorted(map(str, sky["specObjID"][near]))
    assert {"star", "qso", "not_primary", "zwarning", "error_not_positive", ""} == set(found["reason"].to_pylist())
    local = settings(files=[str(path)])
    local.check([path])
    again = pa.concat_tables(list(sdss_bulk.entries(local, request)))
    assert again.to_pandas().equals(found.to_pandas())


def test_a_bulk_file_with_other_columns_is_refused_before_any_job(tmp_path: Path, bulk: tuple[Table, Path]) -> None:
    table = Table.read(bulk[1])
    table.rename_column("ZWARNING", "ZWARN")
    table.write(tmp_path / "other.fits")
    with pytest.raises(ConfigError, match=r"no column 'ZWARNING' \(columns.flag\); did you mean 'ZWARN'"):
        settings(files=["other.fits"]).check([tmp_path / "other.fits"])
