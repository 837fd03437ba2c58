"""SDSS cross-identification: a short list is sent in parts, every spectrum of the nearest objects comes back once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from astropy.table import Table, vstack
from pydantic import ValidationError
from servers.loopback import HttpRequest, Reply
from servers.sky import make_request, spectra
from servers.skyserver import SkyServer

from zmill import __version__
from zmill.catalog.sky import healpix
from zmill.config import ConfigError
from zmill.labels import sdss_crossid
from zmill.labels.base import LabelsError, Request
from zmill.labels.cache import facts_of

RA, DEC, SIZE = 150.0, 2.0, 0.8
LISTED = 200


@pytest.fixture(scope="module")
def sky() -> Table:
    """600 spectra, the first 40 objects with a second one that is not primary."""
    once = spectra(RA, DEC, 1.5 * SIZE, 560)
    twice = once[:40]
    twice["specObjID"] += np.uint64(1)
    twice["sciencePrimary"] = 0
    return vstack([once, twice])


@pytest.fixture
def positions(tmp_path: Path, sky: Table) -> Table:
    """Positions 0.5 arcsec from 200 of the objects, each third twice, and of nothing."""
    rows = np.concatenate([np.arange(LISTED), np.arange(0, LISTED, 3)])
    north = np.concatenate([np.full(LISTED, 0.5), np.full(len(rows) - LISTED, -0.7)]) / 3600
    table = Table({"alpha": np.asarray(sky["ra"])[rows], "delta": np.asarray(sky["dec"])[rows] + north})
    table.add_row((RA + 0.01234, DEC + 0.01234))
    table.write(tmp_path / "list.csv")
    return table


def settings(server: SkyServer, **changes: Any) -> sdss_crossid.Settings:
    quick: dict[str, Any] = {"retries": 2, "backoff_s": 0.01, "interval_s": 0.0, "timeout_s": 5.0}
    own = {"files": ["list.csv"], "positions": {"ra": "alpha", "dec": "delta"}, "url": server.url}
    return sdss_crossid.Settings.model_validate({"name": "list", "source": "sdss_crossid", **quick, **own, **changes})


def read(server: SkyServer, request: Request, **changes: Any) -> pa.Table:
    return pa.concat_tables(list(sdss_crossid.entries(settings(server, **changes), request)))


def expected(sky: Table, request: Request) -> set[str]:
    """The spectra of the listed objects in the footprint."""
    near = request.footprint.near(healpix(np.asarray(sky["ra"]), np.asarray(sky["dec"])))
    listed = (np.arange(len(sky)) < LISTED) | (np.arange(len(sky)) >= 560)
    return set(np.asarray(sky["specObjID"])[near & listed].astype(str).tolist())


def posts(server: SkyServer) -> list[HttpRequest]:
    return [one for one in server.requests if one.method == "POST"]


def test_every_spectrum_of_the_nearest_objects_comes_once_with_its_quality(
    tmp_path: Path, sky: Table, positions: Table
) -> None:
    request = make_request(tmp_path, RA, DEC, SIZE)
    with SkyServer(sky) as server:
        found = read(server, request, rows_per_request=30)
        number = len(server.requests)
        assert len(posts(server)) > 3 and server.most_at_once == 1
        assert all(len(one.files["upload"].splitlines()) <= 31 for one in posts(server))
        assert all(one.headers["User-Agent"].startswith(f"zmill/{__version__} ") for one in server.requests)
        assert read(server, request, rows_per_request=30).to_pandas().equals(found.to_pandas())
        assert len(server.requests) == number
        names = found["specz_id"].to_pylist()
        assert len(set(names)) == len(names)
        assert expected(sky, request) <= set(names) <= set(np.asarray(sky["specObjID"]).astype(str).tolist())
        positions.remove_row(int(np.argmin(np.hypot(positions["alpha"] - RA, positions["delta"] - DEC))))
        positions.write(tmp_path / "list.csv", overwrite=True)
        before = len(posts(server))
        read(server, request, rows_per_request=30)
        assert len(posts(server)) <= before + 1  # only the part that lost a position
    source = {str(row["specObjID"]): row for row in sky}
    rows = [source[name] for name in names]
    assert found["redshift"].to_pylist() == [row["z"] for row in rows]
    assert found["ra"].to_pylist() == [row["ra"] for row in rows]
    reasons = dict(zip(names, found["reason"].to_pylist(), strict=True))
    assert {"star", "qso", "not_primary", "zwarning", ""} <= set(reasons.values())
    assert all(reasons[str(row["specObjID"])] for row in rows if not row["sciencePrimary"])
    facts = facts_of(next(request.cache.glob("sdss_crossid-*/Norder=*/Npix=*.parquet")))
    assert facts["query"].endswith("positions within 2 arcsec") and facts["service"].startswith("DR17 Loopback/1.0")


def test_objects_beyond_the_distance_are_not_found(tmp_path: Path, sky: Table, positions: Table) -> None:
    request = make_request(tmp_path, RA, DEC, SIZE)
    with SkyServer(sky) as server:
        assert list(sdss_crossid.entries(settings(server, distance_arcsec=0.3), request)) == []
        assert "list: the service has no row in any of the" in request.notes[0]
        assert len(read(server, request, distance_arcsec=180)) > 0
        with pytest.raises(ValidationError, match="less than or equal to 180"):
            settings(server, distance_arcsec=181)


@pytest.mark.parametrize("fault", ["429", "503", "truncated", "cut", "html", "reset"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_faults_that_pass_are_waited_for(tmp_path: Path, sky: Table, positions: Table, fault: str, method: str) -> None:
    request = make_request(tmp_path, RA, DEC, SIZE)
    with SkyServer(sky) as server:
        left = [fault, fault]
        server.fault_of = lambda one: left.pop() if left and one.method == method else ""
        assert expected(sky, request) <= set(read(server, request)["specz_id"].to_pylist())
        assert not left


def test_an_answer_cut_between_two_rows_counts_as_incomplete(tmp_path: Path, sky: Table, positions: Table) -> None:
    request = make_request(tmp_path, RA, DEC, SIZE)
    with SkyServer(sky, rows=20) as server:
        assert expected(sky, request) <= set(read(server, request)["specz_id"].to_pylist())
        assert len(posts(server)) > 5


def test_a_page_of_html_is_refused_and_the_other_parts_are_kept(tmp_path: Path, sky: Table, positions: Table) -> None:
    request = make_request(tmp_path, RA, DEC, SIZE)
    with SkyServer(sky) as server:
        broken: list[bytes] = []

        def of(one: HttpRequest) -> str:
            if one.method == "POST" and not broken:
                broken.append(one.files["upload"])
            return "html" if broken and one.files.get("upload") == broken[0] else ""

        server.fault_of = of
        with pytest.raises(
            LabelsError, match=r"list: no answer for 1 tile: tile .*no table: Maintenance The service is down"
        ):
            read(server, request, rows_per_request=100)
        server.fault_of = lambda one: ""
        before = len(posts(server))
        assert expected(sky, request) <= set(read(server, request, rows_per_request=100)["specz_id"].to_pylist())
        assert [one.files["upload"] for one in posts(server)[before:]] == broken


def test_a_list_that_is_too_long_is_refused_before_any_request(tmp_path: Path, sky: Table, positions: Table) -> None:
    with SkyServer(sky) as server:
        with pytest.raises(LabelsError, match=r"more than max_positions \(50\).*source: sdss,"):
            read(server, make_request(tmp_path, RA, DEC, SIZE), max_positions=50)
        assert server.requests == []


def test_a_renamed_column_is_named(tmp_path: Path, sky: Table, positions: Table) -> None:
    with SkyServer(sky, names={"zWarning": "zwarn"}) as server:
        with pytest.raises(LabelsError, match="labels: list: SkyServer does not know zWarning any more"):
            read(server, make_request(tmp_path, RA, DEC, SIZE), rows_per_request=30)
        assert len(posts(server)) == 1


def test_the_list_is_checked_before_any_job(tmp_path: Path, sky: Table, positions: Table) -> None:
    server = SkyServer(sky)
    server.url = "http://127.0.0.1:1"
    settings(server).check([tmp_path / "list.csv"])
    with pytest.raises(ConfigError, match=r"there is no column 'aplha' \(positions\); did you mean 'alpha'"):
        settings(server, positions={"ra": "aplha", "dec": "delta"}).check([tmp_path / "list.csv"])


def test_a_recorded_answer_is_read(tmp_path: Path, real_data: Path, sky: Table) -> None:
    """It has other columns than zmill asks for: as it is it is refused, with those it lacks it is read."""
    recorded = (real_data / "service_responses" / "sdss" / "xid_sp.txt").read_text().splitlines()
    ra, dec = 2.02344596303, 14.8398237521
    (tmp_path / "list.csv").write_text(f"alpha,delta\n{ra},{dec}\n")
    lacking = (",zErr,zWarning,class,sciencePrimary,total_rows", ",0.0001,0,GALAXY,1,1")
    whole = [recorded[0], *(line + more for line, more in zip(recorded[1:], lacking, strict=True))]
    with SkyServer(sky) as server:
        search = server.answer
        for body, told in ((recorded, "no column 'zErr'"), (whole, "")):
            text = ("\n".join(body) + "\n").encode()
            server.answer = lambda one, text=text: Reply(text) if one.method == "POST" else search(one)
            request = make_request(tmp_path, ra, dec, 0.3)
            if told:
                with pytest.raises(LabelsError, match=told):
                    read(server, request)
            else:
                (entry,) = read(server, request).to_pylist()
    assert (entry["specz_id"], entry["redshift"]) == ("845594848269461504", 0.04559058)
    assert (entry["ra"], entry["dec"], entry["quality"], entry["reason"]) == (ra, dec, 4, "")
