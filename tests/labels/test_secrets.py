"""Users, passwords and tokens of a source: they reach the service, and no file, note, log, report or release."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import pytest
from servers.sky import make_request, spectra
from servers.skyserver import SkyServer
from test_services import DEC, RA, SIZE, write_survey

from zmill.catalog.files import write_json
from zmill.config import Labels, Partitions, dump
from zmill.labels import sdss
from zmill.labels.build import build
from zmill.release.provenance import public
from zmill.report.page import _without_places
from zmill.report.river import _pretty
from zmill.survey_definition import LabelSource
from zmill.workflow.job import job
from zmill.workflow.warning import collect

USER, PASSWORD = "planted.user", "Pl4nted&Secret/77"
PLANTED = (USER, PASSWORD, quote(PASSWORD, safe=""), base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode())
"""All ways in which they may be written."""


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZMILL_TEST_USER", USER)
    monkeypatch.setenv("ZMILL_TEST_PASSWORD", PASSWORD)


def source(server: SkyServer, **changes: Any) -> dict[str, Any]:
    address = server.url.replace("://", "://$ZMILL_TEST_USER:${ZMILL_TEST_PASSWORD}@")
    quick = {"retries": 1, "backoff_s": 0.01, "interval_s": 0.0, "timeout_s": 60.0}
    return {"name": "sdss", "source": "sdss", "url": address, **quick, **changes}


def run(results: Path, definition: dict[str, Any]) -> None:
    """The job `labels`, and what the report and a release take of its settings and warnings."""
    label = LabelSource.model_validate(definition)
    with job(SimpleNamespace(log=[str(results / "logs" / "labels.log")], output=[], resources={})):
        build([label], Labels(), Partitions(max_rows=100), 1.0, results.parent, results)
    settings = {"config": {"data_dir": str(results.parent)}, "survey": {"labels": [dump(label)]}}
    write_json(results / "release.json", public(settings))
    shown = [_pretty(settings), *(_without_places(text) for _, text in collect(results))]
    (results / "report.html").write_text("\n".join(shown), encoding="utf-8")


def found_in(folder: Path) -> list[str]:
    """Files that hold any of what was planted."""
    texts = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert len(texts) > 3
    return [f"{path}: {one}" for path, text in texts.items() for one in PLANTED if one.encode() in text]


def test_what_was_planted_reaches_the_service_and_no_file(tmp_path: Path) -> None:
    results = tmp_path / "results"
    write_survey(results)
    with SkyServer(spectra(RA, DEC, SIZE, 300)) as server:
        server.fault_of = lambda request: "" if request.headers.get("Authorization") == f"Basic {PLANTED[3]}" else "403"
        run(results, source(server))
        assert server.requests
    assert "$ZMILL_TEST_USER" in (results / "release.json").read_text(encoding="utf-8")
    assert found_in(tmp_path) == []


@pytest.mark.parametrize("fault", ["403", "404", "500", "html", "truncated", "reset"])
def test_failures_and_their_logs_hold_nothing_either(tmp_path: Path, fault: str) -> None:
    results = tmp_path / "results"
    write_survey(results)
    with SkyServer(spectra(RA, DEC, SIZE, 300)) as server:
        server.fault_of = lambda request: fault
        with pytest.raises(SystemExit):
            run(results, source(server))
    log = (results / "logs" / "labels.log").read_text(encoding="utf-8")
    assert "no answer for" in log or "refuses to answer" in log
    assert found_in(tmp_path) == []


def test_old_answers_are_noted_without_the_address(tmp_path: Path) -> None:
    """The reason of the failure, which the client words, goes into `labels.json` and to the head of the report."""
    results = tmp_path / "results"
    write_survey(results)
    sky = spectra(RA, DEC, SIZE, 300)
    with SkyServer(sky) as server:
        definition = source(server)
        run(results, definition)
    definition["max_age_days"] = 1e-9
    run(results, definition)  # the server is gone
    assert "their cached answers are used" in json.dumps(collect(results))
    assert found_in(tmp_path) == []


def test_a_user_in_netrc_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text(f"machine 127.0.0.1\nlogin {USER}\npassword {PASSWORD}\n", encoding="utf-8")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    request = make_request(tmp_path, RA, DEC, SIZE)
    with SkyServer(spectra(RA, DEC, SIZE, 300)) as server:
        settings = sdss.Settings.model_validate(source(server, url=server.url))
        list(sdss.entries(settings, request))
        assert {one.headers.get("Authorization") for one in server.requests} == {f"Basic {PLANTED[3]}"}


def test_absolute_paths_in_warnings_are_cut_and_addresses_stay() -> None:
    text = "labels: a: /data/of user/x: /disk/me/cats/lab.vot: see https://host.org/a/b and results/demo/x.parquet, 1/2"
    assert _without_places(text) == (
        "labels: a: …/of user/x: …/lab.vot: see https://host.org/a/b and results/demo/x.parquet, 1/2"
    )
