"""SDSS over the network: the real client, a SkyServer on loopback, and all that goes wrong between them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from astropy.table import Table
from servers.loopback import Asked
from servers.sky import request, spectra
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


def read(server: SkyServer, asked: Request, **changes: Any) -> pa.Table:
    return pa.concat_tables(list(sdss.entries(settings(server, **changes), asked)))


def same(one: pa.Table, other: pa.Table) -> bool:
    """Whether tables are equal, unknown numbers too."""
    return bool(one.to_pandas().equals(other.to_pandas()))


def expected(sky: Table, asked: Request) -> Table:
    """The spectra of the footprint and its margin."""
    near = asked.footprint.near(healpix(np.asarray(sky["ra"]), np.asarray(sky["dec"])))
    return sky[near]


def assert_all_there(found: pa.Table, sky: Table, asked: Request) -> None:
    """Every spectrum near the footprint once, none twice."""
    names = found["specz_id"].to_pylist()
    assert len(set(names)) == len(names)
    assert {str(one) for one in expected(sky, asked)["specObjID"]} <= set(names)


def test_every_spectrum_of_the_footprint_comes_once_and_is_judged(tmp_path: Path, sky: Table) -> None:
    asked = request(tmp_path, RA, DEC, SIZE)
    with SkyServer(sky) as server:
        found = read(server, asked)
        assert_all_there(found, sky, asked)
        assert len(found) < 2 * len(expected(sky, asked))
        agents = {one.headers["User-Agent"] for one in server.asked}
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
        asked = request(tmp_path / place, ra, dec, 0.8)
        with SkyServer(sky) as server:
            assert_all_there(read(server, asked), sky, asked)


def test_a_tile_that_overflows_is_asked_for_in_parts(tmp_path: Path, sky: Table) -> None:
    asked = request(tmp_path, RA, DEC, SIZE)
    with SkyServer(sky, rows=60) as server:
        first = read(server, asked)
        assert_all_there(first, sky, asked)
        number = len(server.asked)
        assert number > 20
        again = read(server, asked)
        assert len(server.asked) == number  # the parts answer for the whole
    assert same(first, again)


def test_answers_are_kept_with_query_time_and_service(tmp_path: Path, sky: Table) -> None:
    asked = request(tmp_path, RA, DEC, SIZE)
    with SkyServer(sky) as server:
        read(server, asked)
        files = sorted(asked.cache.glob("sdss-*/Norder=*/Npix=*.parquet"))
        assert len(files) == len(server.asked)
        facts = facts_of(files[0])
        assert facts["query"] in {one.form["cmd"].strip() for one in server.asked}
        assert facts["service"].startswith("DR17 Loopback/1.0") and facts["asked"].startswith("20")


def test_a_refresh_asks_only_for_what_is_new_or_old(tmp_path: Path, sky: Table) -> None:
    small, large = request(tmp_path, RA, DEC, 0.7), request(tmp_path, RA, DEC, SIZE)
    with SkyServer(sky) as server:
        first = read(server, small)
        few = len(server.asked)
        read(server, small)
        assert len(server.asked) == few
        grown = read(server, large)
        assert_all_there(grown, sky, large)
        assert set(first["specz_id"].to_pylist()) <= set(grown["specz_id"].to_pylist())
        queries = [one.form["cmd"] for one in server.asked]
        assert len(set(queries)) == len(queries)
        many = len(queries)
        assert same(read(server, large, max_age_days=1e-9), grown)
        assert len(server.asked) > many + few
        number = len(server.asked)
        read(server, large, data_release=18)
        assert len(server.asked) > number


@pytest.mark.parametrize("fault", ["429", "500", "503", "truncated", "cut", "html", "reset"])
def test_faults_that_pass_are_waited_for(tmp_path: Path, sky: Table, fault: str) -> None:
    asked = request(tmp_path, RA, DEC, 0.5)
    with SkyServer(sky) as server:
        server.faults = [fault, "", fault]
        assert_all_there(read(server, asked), sky, asked)


def test_a_service_that_is_too_slow_is_asked_for_less(tmp_path: Path, sky: Table) -> None:
    asked = request(tmp_path, RA, DEC, 0.5)
    with SkyServer(sky) as server:
        server.faults = ["timeout", "timeout"]
        assert_all_there(read(server, asked, timeout_s=0.5, jobs=1), sky, asked)
        queries = [one.form["cmd"] for one in server.asked]
        assert queries[0] == queries[1] and queries[1] != queries[2]


@pytest.mark.parametrize("fault", ["500", "html", "truncated", "cut"])
def test_tiles_that_get_no_answer_are_named_and_the_others_kept(tmp_path: Path, sky: Table, fault: str) -> None:
    asked = request(tmp_path, RA, DEC, SIZE)
    with SkyServer(sky) as server:
        broken: list[str] = []

        def of(one: Asked) -> str:
            if not broken:
                broken.append(one.form["cmd"])
            return fault if one.form["cmd"] == broken[0] else ""

        server.fault_of = of
        with pytest.raises(LabelsError, match=r"sdss: no answer for 1 tile: tile \d/\d+ \(ra 1.*kept in .*run again"):
            read(server, asked)
        server.fault_of = lambda one: ""
        number = len(server.asked)
        assert_all_there(read(server, asked), sky, asked)
        assert [one.form["cmd"] for one in server.asked[number:]] == broken


def test_without_a_network_the_cache_is_used_and_that_is_said(tmp_path: Path, sky: Table) -> None:
    with SkyServer(sky) as server:
        known = read(server, request(tmp_path, RA, DEC, 0.7))
        gone = settings(server, max_age_days=1e-9)
    old = request(tmp_path, RA, DEC, 0.7)
    assert same(pa.concat_tables(list(sdss.entries(gone, old))), known)
    assert "their cached answers are used, the oldest of 20" in old.notes[0]
    grown = request(tmp_path, RA, DEC, SIZE)
    found = pa.concat_tables(list(sdss.entries(gone, grown)))
    assert set(known["specz_id"].to_pylist()) <= set(found["specz_id"].to_pylist())
    assert any("the service cannot be reached; labels come from the" in note for note in grown.notes)
    with pytest.raises(LabelsError, match="not reachable"):
        list(sdss.entries(gone, request(tmp_path / "nothing", RA, DEC, 0.7)))


def test_a_renamed_column_is_named(tmp_path: Path, sky: Table) -> None:
    with SkyServer(sky, names={"zWarning": "zwarn"}) as server:
        with pytest.raises(LabelsError, match="labels: sdss: SkyServer does not know zWarning any more"):
            read(server, request(tmp_path, RA, DEC, 0.5))
        assert len(server.asked) <= 2


def test_a_column_that_an_answer_lacks_is_named(tmp_path: Path, sky: Table) -> None:
    class Other(SkyServer):
        def _search(self, asked):
            reply = super()._search(asked)
            reply.body = reply.body.replace(b"zErr", b"z_err", 1)
            return reply

    with Other(sky) as server, pytest.raises(LabelsError, match="no column 'zErr'; did you mean 'z_err'"):
        read(server, request(tmp_path, RA, DEC, 0.5))


def test_no_spectrum_at_all_is_said(tmp_path: Path, sky: Table) -> None:
    asked = request(tmp_path, 20.0, -40.0, 0.5)
    with SkyServer(sky) as server:
        assert list(sdss.entries(settings(server), asked)) == []
    assert "sdss: the service has no row in any of the" in asked.notes[0]


@pytest.mark.parametrize("answer", ["xid_sp.txt", "xid_im.txt"])
def test_a_recorded_answer_to_another_question_is_refused(
    tmp_path: Path, real_data: Path, sky: Table, answer: str
) -> None:
    body = (real_data / "service_responses" / "sdss" / answer).read_bytes()
    with SkyServer(sky) as server:
        search: Callable = server.answer
        server.answer = lambda asked: search(asked).__class__(body)
        with pytest.raises(LabelsError, match=r"no answer for|no column"):
            read(server, request(tmp_path, RA, DEC, 0.3), retries=0)


def test_a_service_that_bans_is_not_asked_again(tmp_path: Path, sky: Table) -> None:
    with SkyServer(sky) as server:
        server.fault_of = lambda one: "403"
        with pytest.raises(LabelsError, match=r"HTTP 403 Forbidden: the service refuses to answer.*do not ask again"):
            read(server, request(tmp_path, RA, DEC, SIZE), jobs=1)
        assert len(server.asked) == 1


def test_a_wrong_address_is_told_without_asking_for_every_tile(tmp_path: Path, sky: Table) -> None:
    with SkyServer(sky) as server:
        server.fault_of = lambda one: "404"
        with pytest.raises(LabelsError, match=r"no answer for \d\d tiles: tile .*404 Client Error"):
            read(server, request(tmp_path, RA, DEC, SIZE), jobs=1)
        assert len(server.asked) == MOST_FAILURES


def test_a_service_that_never_answers_in_time_is_given_up(tmp_path: Path, sky: Table) -> None:
    asked = request(tmp_path, RA, DEC, SIZE)
    with SkyServer(sky) as server:
        server.fault_of = lambda one: "timeout"
        with pytest.raises(LabelsError, match=r"no answer in time.*and \d+ more"):
            read(server, asked, timeout_s=0.05, retries=1, jobs=4)
        assert len(server.asked) < 60


def test_an_old_answer_of_a_larger_tile_does_for_a_smaller_one(tmp_path: Path, sky: Table) -> None:
    with SkyServer(sky) as server:
        read(server, request(tmp_path, RA, DEC, SIZE))
        gone = settings(server, max_age_days=1e-9)
    small = request(tmp_path, RA, DEC, 0.1)
    assert_all_there(pa.concat_tables(list(sdss.entries(gone, small))), sky, small)
    assert "their cached answers are used" in small.notes[0]
