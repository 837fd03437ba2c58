"""Services whose answers never end: each answer is bounded in time and in size; the tile is requested again, cut or named."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import requests
from servers.cds import XMatch
from servers.cones import Cones
from servers.loopback import ENDLESS, Loopback, Reply
from servers.sky import directory, make_request, spectra
from servers.skyserver import SkyServer
from servers.tap import Tap

from zmill.labels import http, ned, sdss, sdss_crossid, xmatch
from zmill.labels.base import LabelsError
from zmill.labels.download import download
from zmill.labels.fetch import RequestSettings
from zmill.labels.http import Session, TooMuch, TooSlow

RA, DEC, SIZE = 150.0, 2.0, 0.5
QUICK = {"retries": 2, "backoff_s": 0.01, "interval_s": 0.0}
SDSS = {"ra": "RAJ2000", "dec": "DEJ2000", "redshift": "z", "redshift_err": "zErr", "flag": "zWarning", "class": "class", "id": "specObjID"}  # fmt: skip


@pytest.fixture(autouse=True)
def small_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "LARGEST", 3_000_000)


def server_of(source: str, folder: Path) -> tuple[Loopback, Callable[[Loopback, float], Iterator[pa.Table]]]:
    """A service and what reads all of it, with the time that an answer may take."""
    sky = spectra(RA, DEC, SIZE, 300)
    request = make_request(folder, RA, DEC, SIZE)
    sky[["ra", "dec"]].write(folder / "list.csv", overwrite=True)
    listed = {"files": ["list.csv"], "positions": {"ra": "ra", "dec": "dec"}}

    def settings(module: Any, server: Loopback, timeout_s: float, **own: Any) -> Any:
        values = {"name": "service", "source": source, "url": server.url, "timeout_s": timeout_s, **QUICK, **own}
        return module.Settings.model_validate(values)

    if source == "sdss":
        return SkyServer(sky), lambda one, limit: sdss.entries(settings(sdss, one, limit), request)
    if source == "sdss_crossid":
        return SkyServer(sky), lambda one, limit: sdss_crossid.entries(
            settings(sdss_crossid, one, limit, **listed), request
        )
    if source == "xmatch":
        own = {**listed, "backoff_s": 1.0, "catalog": "vizier:V/154/sdss16", "columns": SDSS, "scheme": "sdss"}
        sky.rename_columns(["ra", "dec"], ["RAJ2000", "DEJ2000"])
        sky["specObjID"] = sky["specObjID"].astype(str)
        return XMatch("V/154/sdss16", sky), lambda one, limit: xmatch.entries(
            settings(xmatch, one, limit, **own, url=f"{one.url}/xmatch"), request
        )
    if source == "ned":
        return Tap({"NEDTAP.objdir": directory(sky)}), lambda one, limit: ned.entries(
            settings(ned, one, limit, url=f"{one.url}/tap"), request
        )
    return Cones(directory(sky)), lambda one, limit: ned.entries(
        settings(ned, one, limit, source="ned", interface="cone"), request
    )


SOURCES = ["sdss", "sdss_crossid", "ned", "cone", "xmatch"]


@pytest.mark.parametrize("source", SOURCES)
def test_an_endless_answer_is_requested_again(tmp_path: Path, source: str) -> None:
    server, entries = server_of(source, tmp_path)
    with server:
        wanted = pa.concat_tables(list(entries(server, 60.0))).sort_by("specz_id")
    for fault in ("drip", "endless"):
        (folder := tmp_path / fault).mkdir()
        server, entries = server_of(source, folder)
        with server:
            server.faults = [fault]
            found = pa.concat_tables(list(entries(server, 6.0))).sort_by("specz_id")
            assert not server.faults
        assert set(found["specz_id"].to_pylist()) == set(wanted["specz_id"].to_pylist())


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("fault", ["drip", "endless"])
def test_a_service_that_never_ends_is_reported(tmp_path: Path, source: str, fault: str) -> None:
    server, entries = server_of(source, tmp_path)
    with server:
        server.fault_of = lambda request: fault
        with pytest.raises(LabelsError, match=r"labels: service: no answer for .* tile"):
            list(entries(server, 0.5))
        assert len(server.requests) < 100


@pytest.mark.parametrize("fault", ENDLESS)
def test_a_session_bounds_every_answer(fault: str) -> None:
    lines = b"".join(b"%d,150.0,2.0\n" % number for number in range(100))
    for stream in (False, True):
        with Loopback(lambda request: Reply(lines)) as server:
            server.fault_of = lambda request: fault
            with pytest.raises(TooSlow) as error:
                Session(2.0).get(server.url, stream=stream)
            expected = "larger than 3,000,000 bytes" if isinstance(error.value, TooMuch) else "not complete after 2 s"
            assert expected in str(error.value)
            assert isinstance(error.value, TooMuch) or fault != "endless"


def test_complete_answers_are_returned() -> None:
    content = np.random.default_rng(1).bytes(300_000)
    with Loopback(lambda request: Reply(content, headers={"Set-Cookie": "a=b"})) as server:
        session = Session(60.0)
        assert session.get(server.url).content == content
        with session.get(server.url, stream=True) as streamed:
            assert streamed.raw.read(1000, decode_content=True) == content[:1000]
            assert streamed.raw.read() == content[1000:]
        assert session.get(server.url, stream=True).content == content
        assert session.cookies["a"] == "b"


def test_compressed_answers_are_read_once() -> None:
    import gzip

    content = b"a,b\n1,2\n" * 1000
    packed = Reply(gzip.compress(content), headers={"Content-Encoding": "gzip"})
    with Loopback(lambda request: packed) as server:
        for stream in (False, True):
            response = Session(60.0).get(server.url, stream=stream)
            assert response.content == content
            assert response.raw.read(decode_content=True) == content


@pytest.mark.parametrize("fault", ["drip", "drip_chunks", "drip_head"])
def test_a_download_that_only_drips_ends(tmp_path: Path, fault: str) -> None:
    with Loopback(lambda request: Reply(b"0123456789" * 1000)) as server:
        server.fault_of = lambda request: fault
        with pytest.raises(LabelsError, match=r"not complete after 0\.5 s"):
            download(
                f"{server.url}/file", tmp_path / "file", None, RequestSettings(retries=1, backoff_s=0.0, timeout_s=0.5)
            )
        assert len(server.requests) == 2


def test_a_download_without_an_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zmill.labels.download.LARGEST", 2_000_000)
    with Loopback(lambda request: Reply(b"0123456789\n" * 1000)) as server:
        server.fault_of = lambda request: "endless"
        with pytest.raises(LabelsError, match="sends more than 2,000,000 bytes without stating how many"):
            download(
                f"{server.url}/file", tmp_path / "file", None, RequestSettings(retries=1, backoff_s=0.0, timeout_s=30)
            )


def test_a_connection_that_breaks_is_no_end_of_time() -> None:
    with Loopback(lambda request: Reply(b"0" * 1000)) as server:
        server.faults = ["reset"]
        with pytest.raises(Exception, match="not reachable"):
            Session(30.0).get(server.url)
        assert isinstance(requests.get(server.url, timeout=30).content, bytes)
