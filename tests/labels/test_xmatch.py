"""CDS XMatch: a list is sent in parts, one after the other, and every spectrum near it comes back once."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from astropy.table import Table
from servers.cds import XMatch
from servers.loopback import HttpRequest
from servers.sky import make_request, spectra

from zmill import __version__
from zmill.catalog.sky import healpix
from zmill.config import ConfigError
from zmill.labels import xmatch
from zmill.labels.base import LabelsError, Request

RA, DEC, SIZE = 150.0, 2.0, 1.0
COLUMNS = {"ra": "RAJ2000", "dec": "DEJ2000", "redshift": "zsp", "redshift_err": "e_zsp", "flag": "f_zsp", "class": "spCl", "id": "SpObjID"}  # fmt: skip


@pytest.fixture(scope="module")
def catalog() -> Table:
    """A VizieR table of 800 spectra."""
    sky = spectra(RA, DEC, 2 * SIZE, 800)
    names = {"ra": "RAJ2000", "dec": "DEJ2000", "z": "zsp", "zErr": "e_zsp", "zWarning": "f_zsp", "class": "spCl"}
    sky.rename_columns(list(names), list(names.values()))
    sky["SpObjID"] = sky["specObjID"].astype(str)
    sky.remove_columns(["specObjID", "sciencePrimary"])
    return sky


@pytest.fixture
def positions(tmp_path: Path, catalog: Table) -> Table:
    """A list of 500 of them, 0.5 arcsec off, each third twice, and of others."""
    rng = np.random.default_rng(2)
    some = catalog[:500]
    north = np.concatenate([np.full(500, 0.5), np.full(167, -0.7)]) / 3600
    rows = np.concatenate([np.arange(500), np.arange(0, 500, 3)])
    table = Table({"alpha": some["RAJ2000"][rows], "delta": some["DEJ2000"][rows] + north})
    for one in zip(rng.uniform(149, 151, 50), rng.uniform(1, 3, 50), strict=True):
        table.add_row(one)
    table.write(tmp_path / "list.csv")
    return table


def settings(server: XMatch, **changes: Any) -> xmatch.Settings:
    quick: dict[str, Any] = {"retries": 2, "backoff_s": 0.01, "interval_s": 0.0, "timeout_s": 5.0}
    own = {
        "files": ["list.csv"],
        "positions": {"ra": "alpha", "dec": "delta"},
        "catalog": "vizier:V/154/sdss16",
        "columns": COLUMNS,
        "scheme": "sdss",
        "url": f"{server.url}/xmatch",
    }
    return xmatch.Settings.model_validate({"name": "cds", "source": "xmatch", **quick, **own, **changes})


def read(server: XMatch, request: Request, **changes: Any) -> pa.Table:
    return pa.concat_tables(list(xmatch.entries(settings(server, **changes), request)))


def expected(catalog: Table, request: Request) -> set[str]:
    near = request.footprint.near(healpix(np.asarray(catalog["RAJ2000"]), np.asarray(catalog["DEJ2000"])))
    return set(catalog["SpObjID"][near & (np.arange(len(catalog)) < 500)])


def test_every_spectrum_near_the_list_comes_once(tmp_path: Path, catalog: Table, positions: Table) -> None:
    request = make_request(tmp_path, RA, DEC, SIZE)
    with XMatch("V/154/sdss16", catalog) as server:
        found = read(server, request, rows_per_request=50)
        number = len(server.requests)
        assert number > 3 and server.most_at_once == 1
        assert all(one.headers["User-Agent"].startswith(f"zmill/{__version__} ") for one in server.requests)
        names = found["specz_id"].to_pylist()
        assert len(set(names)) == len(names)
        assert expected(catalog, request) <= set(names)
        assert {"star", "qso", "zwarning", ""} <= set(found["reason"].to_pylist())
        assert read(server, request, rows_per_request=50).to_pandas().equals(found.to_pandas())
        assert len(server.requests) == number
        middle = int(np.argmin(np.hypot(positions["alpha"] - RA, positions["delta"] - DEC)))
        positions.remove_row(middle)
        positions.write(tmp_path / "list.csv", overwrite=True)
        read(server, request, rows_per_request=50)
        assert len(server.requests) == number + 1  # only the part that lost a position


@pytest.mark.parametrize("fault", ["429", "503", "truncated", "cut", "html", "reset"])
def test_faults_that_pass_are_waited_for(tmp_path: Path, catalog: Table, positions: Table, fault: str) -> None:
    request = make_request(tmp_path, RA, DEC, SIZE)
    with XMatch("V/154/sdss16", catalog) as server:
        server.faults = [fault, fault]
        assert expected(catalog, request) <= set(read(server, request)["specz_id"].to_pylist())


def test_a_service_that_bans_gets_no_further_request(tmp_path: Path, catalog: Table, positions: Table) -> None:
    with XMatch("V/154/sdss16", catalog) as server:
        server.fault_of = lambda one: "403"
        with pytest.raises(LabelsError, match="HTTP 403 Forbidden: the service refuses to answer"):
            read(server, make_request(tmp_path, RA, DEC, SIZE), rows_per_request=50)
        assert len(server.requests) == 1


def test_what_the_service_does_not_have_is_named(tmp_path: Path, catalog: Table, positions: Table) -> None:
    request = make_request(tmp_path, RA, DEC, SIZE)
    with XMatch("V/154/sdss16", catalog) as server:
        with pytest.raises(LabelsError, match="the service refused vizier:V/999/none: there is no vizier:V/999/none"):
            read(server, request, catalog="vizier:V/999/none")
        with pytest.raises(LabelsError, match="no column 'zspec'; did you mean"):
            read(server, request, columns={**COLUMNS, "redshift": "zspec"})
    with pytest.raises(LabelsError, match=r"none of the list's positions lies in the survey \(ra 19"):
        read(server, make_request(tmp_path, 20.0, -40.0, 0.5))


def test_the_list_is_checked_before_any_job(tmp_path: Path, catalog: Table, positions: Table) -> None:
    server = XMatch("V/154/sdss16", catalog)
    server.url = "http://127.0.0.1:1"
    settings(server).check([tmp_path / "list.csv"])
    with pytest.raises(ConfigError, match=r"there is no column 'aplha' \(positions\); did you mean 'alpha'"):
        settings(server, positions={"ra": "aplha", "dec": "delta"}).check([tmp_path / "list.csv"])


def test_the_recorded_pairs_are_those_of_the_server(real_data: Path) -> None:
    """The server of these tests finds the pairs that CDS found."""
    folder = real_data / "service_responses" / "xmatch"
    with open(folder / "query_res.csv", newline="") as file:
        recorded = list(csv.DictReader(file))
    catalog = Table(
        {"RAJ2000": [float(row["RAJ2000"]) for row in recorded], "DEJ2000": [float(row["DEJ2000"]) for row in recorded]}
    )
    server = XMatch("II/246/out", catalog)
    form = {"cat2": "vizier:II/246/out", "colRA1": "ra", "colDec1": "dec", "distMaxArcsec": "5"}
    sent = (folder / "posList.csv").read_bytes()
    reply = server.answer(HttpRequest("POST", "/", form, {"cat1": sent}, {}))
    assert reply.body.count(b"<TR>") == len(recorded)
