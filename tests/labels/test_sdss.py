"""SDSS over the network: the real client, a SkyServer on loopback, and all that goes wrong between them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from astropy.table import Table
from servers.loopback import HttpRequest
from servers.sky import make_request, spectra
from servers.skyserver import SkyServer

from zmill import __version__
from zmill.catalog.sky import healpix
from zmill.labels import sdss
from zmill.labels.base import LabelsError, Request
from zmill.labels.cache import facts_of
from zmill.labels.fetch import MOST_FAILURES
from zmill.labels.quality import SCHEMES, Flags, texts

RA, DEC, SIZE = 150.0, 2.0, 1.5


@pytest.fixture(scope="module")
def sky() -> Table:
    """3000 spectra in and around a survey of 1.5 degrees."""
    return spectra(RA, DEC, 2 * SIZE, 3000)


def settings(server: SkyServer, **changes: Any) -> sdss.Settings:
    quick = {"retries": 2, "backoff_s": 0.01, "interval_s": 0.0, "timeout_s": 5.0}
    return sdss.Settings(name="sdss", source="sdss", url=server.url, **{**quick, **changes})


def read(server: SkyServer, request: Request, **changes: Any) -> pa.Table:
    return pa.concat_tables(list(sdss.entries(settings(server, **changes), request)))


def same(one: pa.Table, other: pa.Table) -> bool:
    """Whether tables are equal, unknown numbers too."""
    return bool(one.to_pandas().equals(other.to_pandas()))


def expected(sky: Table, request: Request) -> Table:
    """The spectra of the footprint and its margin."""
    near = request.footprint.near(healpix(np.asarray(sky["ra"]), np.asarray(sky["dec"])))
    return sky[near]


def assert_all_there(found: pa.Table, sky: Table, request: Request) -> None:
    """Every spectrum near the footprint once, none twice."""
    names = found["specz_id"].to_pylist()
    assert len(set(names)) == len(names)
    assert {str(one) for one in expected(sky, request)["specObjID"]} <= set(names)


def test_every_spectrum_of_the_footprint_comes_once_with_its_quality(tmp_path: Path, sky: Table) -> None:
    request = make_request(tmp_path, RA, DEC, SIZE)
    with SkyServer(sky) as server:
        found = read(server, request)
        assert_all_there(found, sky, request)
        assert len(found) < 2 * len(expected(sky, request))
        agents = {one.headers["User-Agent"] for one in server.requests}
        assert all(agent.startswith(f"zmill/{__version__} ") for agent in agents)
        assert server.most_at_once <= 2
    source = {str(row["specObjID"]): row for row in sky}
    rows = Table([source[name] for name in found["specz_id"].to_pylist()], names=sky.colnames)
    flags = Flags(
        len(rows),
        texts(np.asarray(rows["zWarning"])),
        texts(np.asarray(rows["class"])),
        np.asarray(rows["zErr"]),
        np.asarray(rows["sciencePrimary"]) == 1,
    )
    quality, reason = SCHEMES["sdss"].judge(flags)
    assert np.array_equal(found["ra"].to_numpy(), rows["ra"]) and np.array_equal(
        found["redshift"].to_numpy(), rows["z"]
    )
    assert np.array_equal(found["quality"].to_numpy(), quality)
    assert found["reason"].to_pylist() == reason.tolist()
    assert {"star", "qso", "not_primary", "zwarning", "error_not_positive", ""} == set(found["reason"].to_pylist())


def test_a_survey_at_ra_zero_and_at_the_pole(tmp_path: Path) -> None:
    for place, (ra, dec) in {"zero": (359.9, -1.0), "pole": (30.0, 89.2)}.items():
        sky = spectra(ra, dec, 1.6, 800)
        sky = sky[np.abs(sky["dec"]) <= 90]
        request = make_request(tmp_path / place, ra, dec, 0.8)
        with SkyServer(sky) as server:
            assert_all_there(read(server, request), sky, request)


def test_a_tile_that_overflows_is_requested_in_parts(tmp_path: Path, sky: Table) -> None:
    request = make_request(tmp_path, RA, DEC, SIZE)
    with SkyServer(sky, rows=60) as server:
        first = read(server, request)
        assert_all_there(first, sky, request)
        number = len(server.requests)
        assert number > 20
        again = read(server, request)
        assert len(server.requests) == number  # the parts answer for the whole
    assert same(first, again)


def test_answers_are_kept_with_query_time_and_service(tmp_path: Path, sky: Table) -> None:
    request = make_request(tmp_path, RA, DEC, SIZE)
    with SkyServer(sky) as server:
        read(server, request)
        files = sorted(request.cache.glob("sdss-*/Norder=*/Npix=*.parquet"))
        assert len(files) == len(server.requests)
        facts = facts_of(files[0])
        assert facts["query"] in {one.form["cmd"].strip() for one in server.requests}
        assert facts["service"].startswith("DR17 Loopback/1.0") and facts["received"].startswith("20")


def test_a_refresh_asks_only_for_what_is_new_or_old(tmp_path: Path, sky: Table) -> None:
    small, large = make_request(tmp_path, RA, DEC, 0.7), make_request(tmp_path, RA, DEC, SIZE)
    with SkyServer(sky) as server:
        first = read(server, small)
        few = len(server.requests)
        read(server, small)
        assert len(server.requests) == few
        grown = read(server, large)
        assert_all_there(grown, sky, large)
        assert set(first["specz_id"].to_pylist()) <= set(grown["specz_id"].to_pylist())
        queries = [one.form["cmd"] for one in server.requests]
        assert len(set(queries)) == len(queries)
        many = len(queries)
        assert same(read(server, large, max_age_days=1e-9), grown)
        assert len(server.requests) > many + few
        number = len(server.requests)
        read(server, large, data_release=18)
        assert len(server.requests) > number


@pytest.mark.parametrize("fault", ["429", "500", "503", "truncated", "cut", "html", "reset"])
def test_faults_that_pass_are_waited_for(tmp_path: Path, sky: Table, fault: str) -> None:
    request = make_request(tmp_path, RA, DEC, 0.5)
    with SkyServer(sky) as server:
        server.faults = [fault, "", fault]
        assert_all_there(read(server, request), sky, request)


def test_a_slow_service_gets_smaller_requests(tmp_path: Path, sky: Table) -> None:
    request = make_request(tmp_path, RA, DEC, 0.5)
    with SkyServer(sky) as server:
        server.faults = ["timeout", "timeout"]
        assert_all_there(read(server, request, timeout_s=0.5, jobs=1), sky, request)
        queries = [one.form["cmd"] for one in server.requests]
        assert queries[0] == queries[1] and queries[1] != queries[2]


@pytest.mark.parametrize("fault", ["500", "html", "truncated", "cut"])
def test_tiles_that_get_no_answer_are_named_and_the_others_kept(tmp_path: Path, sky: Table, fault: str) -> None:
    request = make_request(tmp_path, RA, DEC, SIZE)
    with SkyServer(sky) as server:
        broken: list[str] = []

        def of(one: HttpRequest) -> str:
            if not broken:
                broken.append(one.form["cmd"])
            return fault if one.form["cmd"] == broken[0] else ""

        server.fault_of = of
        with pytest.raises(LabelsError, match=r"sdss: no answer for 1 tile: tile \d/\d+ \(ra 1.*kept in .*run again"):
            read(server, request)
        server.fault_of = lambda one: ""
        number = len(server.requests)
        assert_all_there(read(server, request), sky, request)
        assert [one.form["cmd"] for one in server.requests[number:]] == broken


def test_without_a_network_the_cache_is_used_with_a_warning(tmp_path: Path, sky: Table) -> None:
    with SkyServer(sky) as server:
        known = read(server, make_request(tmp_path, RA, DEC, 0.7))
        gone = settings(server, max_age_days=1e-9)
    old = make_request(tmp_path, RA, DEC, 0.7)
    assert same(pa.concat_tables(list(sdss.entries(gone, old))), known)
    assert "their cached answers are used, the oldest of 20" in old.notes[0]
    grown = make_request(tmp_path, RA, DEC, SIZE)
    found = pa.concat_tables(list(sdss.entries(gone, grown)))
    assert set(known["specz_id"].to_pylist()) <= set(found["specz_id"].to_pylist())
    assert any("the service cannot be reached; labels come from the" in note for note in grown.notes)
    with pytest.raises(LabelsError, match="not reachable"):
        list(sdss.entries(gone, make_request(tmp_path / "nothing", RA, DEC, 0.7)))


def test_a_renamed_column_is_named(tmp_path: Path, sky: Table) -> None:
    with SkyServer(sky, names={"zWarning": "zwarn"}) as server:
        with pytest.raises(LabelsError, match="labels: sdss: SkyServer does not know zWarning any more"):
            read(server, make_request(tmp_path, RA, DEC, 0.5))
        assert len(server.requests) <= 2


def test_a_column_that_an_answer_lacks_is_named(tmp_path: Path, sky: Table) -> None:
    class Other(SkyServer):
        def _search(self, request):
            reply = super()._search(request)
            reply.body = reply.body.replace(b"zErr", b"z_err", 1)
            return reply

    with Other(sky) as server, pytest.raises(LabelsError, match="no column 'zErr'; did you mean 'z_err'"):
        read(server, make_request(tmp_path, RA, DEC, 0.5))


def test_an_answer_without_spectra_is_noted(tmp_path: Path, sky: Table) -> None:
    request = make_request(tmp_path, 20.0, -40.0, 0.5)
    with SkyServer(sky) as server:
        assert list(sdss.entries(settings(server), request)) == []
    assert "sdss: the service has no row in any of the" in request.notes[0]


@pytest.mark.parametrize("answer", ["xid_sp.txt", "xid_im.txt"])
def test_a_recorded_answer_to_another_question_is_refused(
    tmp_path: Path, real_data: Path, sky: Table, answer: str
) -> None:
    body = (real_data / "service_responses" / "sdss" / answer).read_bytes()
    with SkyServer(sky) as server:
        search: Callable = server.answer
        server.answer = lambda request: search(request).__class__(body)
        with pytest.raises(LabelsError, match=r"no answer for|no column"):
            read(server, make_request(tmp_path, RA, DEC, 0.3), retries=0)


def test_a_service_that_bans_gets_no_further_request(tmp_path: Path, sky: Table) -> None:
    with SkyServer(sky) as server:
        server.fault_of = lambda one: "403"
        with pytest.raises(LabelsError, match=r"HTTP 403 Forbidden: the service refuses to answer.*do not ask again"):
            read(server, make_request(tmp_path, RA, DEC, SIZE), jobs=1)
        assert len(server.requests) == 1


def test_a_wrong_address_fails_without_a_request_for_every_tile(tmp_path: Path, sky: Table) -> None:
    with SkyServer(sky) as server:
        server.fault_of = lambda one: "404"
        with pytest.raises(LabelsError, match=r"no answer for \d\d tiles: tile .*404 Client Error"):
            read(server, make_request(tmp_path, RA, DEC, SIZE), jobs=1)
        assert len(server.requests) == MOST_FAILURES


def test_a_service_that_never_answers_in_time_is_given_up(tmp_path: Path, sky: Table) -> None:
    request = make_request(tmp_path, RA, DEC, SIZE)
    with SkyServer(sky) as server:
        server.fault_of = lambda one: "timeout"
        with pytest.raises(LabelsError, match=r"no answer in time.*and \d+ more"):
            read(server, request, timeout_s=0.05, retries=1, jobs=4)
        assert len(server.requests) < 60


def test_an_old_answer_of_a_larger_tile_does_for_a_smaller_one(tmp_path: Path, sky: Table) -> None:
    with SkyServer(sky) as server:
        read(server, make_request(tmp_path, RA, DEC, SIZE))
        gone = settings(server, max_age_days=1e-9)
    small = make_request(tmp_path, RA, DEC, 0.1)
    assert_all_there(pa.concat_tables(list(sdss.entries(gone, small))), sky, small)
    assert "their cached answers are used" in small.notes[0]
