"""NED over the network: pyvo and a TAP service on loopback, the older service, and all that goes wrong between them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from astropy.table import Table
from pyvo.dal import TAPService
from servers.cones import Cones
from servers.loopback import HttpRequest, Loopback, Reply
from servers.sky import directory, make_request, spectra
from servers.tap import Tap

from zmill import __version__
from zmill.catalog.sky import healpix
from zmill.labels import ned
from zmill.labels.base import LabelsError, Request
from zmill.labels.cache import facts_of
from zmill.labels.quality import SCHEMES, Flags, texts

RA, DEC, SIZE = 150.0, 2.0, 1.0
TABLE = "NEDTAP.objdir"


@pytest.fixture(scope="module")
def objects() -> Table:
    """2000 objects in and around a survey of one degree, half of them with a redshift."""
    return directory(spectra(RA, DEC, 2 * SIZE, 1000))


def settings(server: Loopback, **changes: Any) -> ned.Settings:
    quick: dict[str, Any] = {"retries": 2, "backoff_s": 0.01, "interval_s": 0.0, "timeout_s": 5.0}
    url = f"{server.url}/tap" if isinstance(server, Tap) else server.url
    return ned.Settings(name="ned", source="ned", **{"url": url, **quick, **changes})


def read(server: Loopback, request: Request, **changes: Any) -> pa.Table:
    return pa.concat_tables(list(ned.entries(settings(server, **changes), request)))


def assert_all_there(found: pa.Table, objects: Table, request: Request) -> None:
    """Every object with a redshift near the footprint once, none twice, each as the flags judge it."""
    names = found["specz_id"].to_pylist()
    assert len(set(names)) == len(names)
    near = request.footprint.near(healpix(np.asarray(objects["ra"]), np.asarray(objects["dec"])))
    assert set(objects["prefname"][near & np.isfinite(objects["z"])]) <= set(names)
    of_name = {row["prefname"]: row for row in objects}
    rows = Table([of_name[name] for name in names], names=objects.colnames)
    quality, reason = SCHEMES["ned"].judge(
        Flags(len(rows), texts(np.asarray(rows["zflag"])), texts(np.asarray(rows["prefphytype"])))
    )
    assert found["quality"].to_pylist() == quality.tolist()
    assert found["reason"].to_pylist() == reason.tolist()
    assert np.allclose(found["redshift"].to_numpy(), rows["z"], rtol=0, atol=1e-12)


def test_every_object_with_a_redshift_comes_once(tmp_path: Path, objects: Table) -> None:
    request = make_request(tmp_path, RA, DEC, SIZE)
    with Tap({TABLE: objects}) as server:
        found = read(server, request)
        assert server.jobs == {}  # each was deleted after its answer
        submitted = [one for one in server.requests if one.path == "/tap/async"]
        assert all(one.headers["User-Agent"].startswith(f"zmill/{__version__} ") for one in server.requests)
    assert_all_there(found, objects, request)
    assert {"star", "qso", "photometric", ""} <= set(found["reason"].to_pylist())
    files = sorted(request.cache.glob("ned-*/Norder=*/Npix=*.parquet"))
    assert len(files) == len(submitted)
    assert (
        facts_of(files[0])["service"].startswith("Loopback/1.0") and "Loopback TAP 1.0" in facts_of(files[0])["service"]
    )
    with Tap({TABLE: objects}) as idle:
        again = list(ned.entries(settings(idle, url=f"{server.url}/tap"), request))
        assert idle.requests == [] and pa.concat_tables(again).to_pandas().equals(found.to_pandas())


def test_an_overflow_is_seen_and_the_tile_cut(tmp_path: Path, objects: Table) -> None:
    for place, (limit, max_rows) in {"service": (15, 500_000), "own": (100_000, 15)}.items():
        request = make_request(tmp_path / place, RA, DEC, 0.4)
        with Tap({TABLE: objects}, limit=limit, looks=0) as server:
            found = read(server, request, max_rows=max_rows, jobs=4)
            assert len([one for one in server.requests if one.path == "/tap/async"]) > 10
        assert_all_there(found, objects, request)


@pytest.mark.parametrize("fault", ["429", "500", "503", "truncated", "cut", "html", "reset"])
@pytest.mark.parametrize("where", ["/tap/async", "results/result"])
def test_faults_that_pass_are_waited_for(tmp_path: Path, objects: Table, fault: str, where: str) -> None:
    request = make_request(tmp_path, RA, DEC, 0.3)
    with Tap({TABLE: objects}) as server:
        left = [fault, fault]

        def of(one: HttpRequest) -> str:
            return left.pop() if left and one.path.endswith(where) else ""

        server.fault_of = of
        assert_all_there(read(server, request), objects, request)
        assert left == []


def test_a_job_that_does_not_end_is_ended_and_the_tile_cut(tmp_path: Path, objects: Table) -> None:
    request = make_request(tmp_path, RA, DEC, 0.02)
    with Tap({TABLE: objects}, endless=True) as server:
        with pytest.raises(LabelsError, match=r"no answer for \d+ tile.*the job was still [A-Z]+ after 0.6 s"):
            read(server, request, timeout_s=0.6, retries=0)
        assert server.jobs == {}


def test_columns_that_the_table_does_not_have_are_named(tmp_path: Path, objects: Table) -> None:
    renamed = objects.copy()
    renamed.rename_column("zflag", "z_flag")
    with (
        Tap({TABLE: renamed}) as server,
        pytest.raises(
            LabelsError, match=r"ned: NEDTAP.objdir: the service has no column 'zflag'; did you mean 'z_flag'"
        ),
    ):
        read(server, make_request(tmp_path, RA, DEC, 0.3))
    with Tap({"NEDTAP.other": objects}) as server, pytest.raises(LabelsError, match=r"has no table NEDTAP.objdir"):
        read(server, make_request(tmp_path, RA, DEC, 0.3))


def test_tiles_that_get_no_answer_are_named_and_the_others_kept(tmp_path: Path, objects: Table) -> None:
    request = make_request(tmp_path, RA, DEC, SIZE)
    with Tap({TABLE: objects}) as server:
        broken: list[str] = []

        def of(one: HttpRequest) -> str:
            query = one.form.get("QUERY", "")
            if query and not broken:
                broken.append(query)
            return "503" if query and query == broken[0] else ""

        server.fault_of = of
        with pytest.raises(LabelsError, match=r"ned: no answer for 1 tile: tile .*HTTP 503"):
            read(server, request)
        server.fault_of = lambda one: ""
        number = len(server.requests)
        assert_all_there(read(server, request), objects, request)
        assert [one.form["QUERY"] for one in server.requests[number:] if one.path == "/tap/async"] == broken


def test_the_service_joins_an_upload(objects: Table) -> None:
    wanted = objects[objects["z"] > 0.5][:7]
    upload = Table({"ra": wanted["ra"], "dec": wanted["dec"]})
    query = (
        "SELECT o.prefname FROM NEDTAP.objdir AS o JOIN TAP_UPLOAD.mine AS m "
        "ON CONTAINS(POINT('ICRS', o.ra, o.dec), CIRCLE('ICRS', m.ra, m.dec, 0.0003)) = 1"
    )
    with Tap({TABLE: objects}, looks=0) as server:
        found = TAPService(f"{server.url}/tap").run_async(query, uploads={"mine": upload})
        assert server.uploads == 1
    assert set(wanted["prefname"]) <= set(found.to_table()["prefname"])


def test_cones_of_the_older_service(tmp_path: Path, objects: Table) -> None:
    request = make_request(tmp_path, RA, DEC, 0.2)
    with Cones(objects) as server:
        server.faults = ["503", "html", "cut"]
        found = read(server, request, interface="cone", retries=4)
        assert_all_there(found, objects, request)
        agent = server.requests[0].headers["User-Agent"]
        assert agent.startswith(f"zmill/{__version__} ")
    elsewhere = make_request(tmp_path, 20.0, -40.0, 0.2)
    with Cones(objects) as server:
        assert list(ned.entries(settings(server, interface="cone"), elsewhere)) == []
    assert "has no row in any of the" in elsewhere.notes[0]
    with (
        Cones(objects, {"Redshift Flag": "zflag"}) as server,
        pytest.raises(LabelsError, match="no column 'Redshift Flag'"),
    ):
        read(server, make_request(tmp_path / "renamed", RA, DEC, 0.2), interface="cone")


def test_recorded_answers_of_the_older_service(tmp_path: Path, real_data: Path) -> None:
    recorded = real_data / "service_responses" / "ned" / "query_iau_format.xml"
    request = make_request(tmp_path, 189.3, -42.75, 0.8)
    with Loopback(lambda one: Reply(recorded.read_bytes(), "text/xml")) as server:
        found = read(server, request, interface="cone")
    known = Table.read(recorded, format="votable", use_names_over_ids=True)
    known = known[np.isfinite(known["Redshift"].filled(np.nan))]
    assert 2 <= len(known) < 23
    assert sorted(found["specz_id"].to_pylist()) == sorted(known["Object Name"])
    assert sorted(found["redshift"].to_pylist()) == sorted(known["Redshift"])
    of_name = dict(zip(found["specz_id"].to_pylist(), found["reason"].to_pylist(), strict=True))
    assert of_name["ABELL S0702"] == "cluster"
    stars = real_data / "service_responses" / "ned" / "query_near_position.xml"
    request = make_request(tmp_path, 83.822083, -5.391111, 0.1)
    with Loopback(lambda one: Reply(stars.read_bytes(), "text/xml")) as server:
        assert list(ned.entries(settings(server, interface="cone"), request)) == []
    assert "has no row" in request.notes[0]


def test_a_recorded_error_is_no_answer(tmp_path: Path, real_data: Path) -> None:
    recorded = (real_data / "service_responses" / "ned" / "error.xml").read_bytes()
    with (
        Loopback(lambda one: Reply(recorded, "text/xml")) as server,
        pytest.raises(LabelsError, match="No note found"),
    ):
        read(server, make_request(tmp_path, RA, DEC, 0.1), interface="cone", retries=0)
