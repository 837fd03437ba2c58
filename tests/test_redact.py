"""Passwords and tokens of addresses: refused in the configuration, taken from the environment, written nowhere."""

from __future__ import annotations

import base64
import logging
import string
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from zmill.config import ConfigError
from zmill.labels import ned
from zmill.redact import expand, redact
from zmill.sections import parse
from zmill.workflow.job import job, log

SECRET = "Gr3ek&Fire/77"


@pytest.mark.parametrize(
    "url",
    [
        "https://me:Gr3ekFire@host.org/tap",
        "https://me@host.org/tap",
        "https://:Gr3ekFire@host.org/tap",
        "https://host.org/tap?token=Gr3ekFire",
        "https://host.org/tap?lang=ADQL&api_key=Gr3ekFire",
        "https://host.org/tap?Access-Token=Gr3ekFire",
        "ftp://me:Gr3ekFire@host.org/tap",
    ],
)
def test_an_address_with_a_secret_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse(ned.Settings, {"name": "ned", "url": url}, "labels: ned")
    assert "Gr3ekFire" not in str(error.value) and "url" in str(error.value)


def test_variables_that_are_not_set_are_named_before_any_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ZMILL_TEST_TOKEN", raising=False)
    values = {"name": "ned", "url": "https://host.org/tap?token=$ZMILL_TEST_TOKEN"}
    with pytest.raises(ConfigError, match="ZMILL_TEST_TOKEN, which is not set"):
        parse(ned.Settings, values, "labels: ned")
    monkeypatch.setenv("ZMILL_TEST_TOKEN", SECRET)
    read = parse(ned.Settings, values, "labels: ned")
    assert SECRET not in str(read.model_dump())
    assert expand(read.service_url) == f"https://host.org/tap?token={quote(SECRET, safe='')}"


def test_logs_of_a_job_and_kept_errors_hold_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZMILL_TEST_TOKEN", SECRET)
    url = expand("https://$ZMILL_TEST_TOKEN:$ZMILL_TEST_TOKEN@host.org/tap?x=1&token=${ZMILL_TEST_TOKEN}")
    pair = base64.b64encode(f"{SECRET}:{SECRET}".encode()).decode()
    with (
        pytest.raises(SystemExit),
        job(SimpleNamespace(log=[str(tmp_path / "logs" / "labels.log")], output=[], resources={})),
    ):
        log.info("asking %s with Basic %s", url, pair)
        raise ValueError(f"no answer from {url}, nor for {SECRET}")
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {"labels.log", "labels.cause"} <= {path.name for path in files}
    for path in files:
        text = path.read_text(encoding="utf-8")
        assert SECRET not in text and quote(SECRET, safe="") not in text and pair not in text
    assert "host.org/tap?x=1&token=***" in (tmp_path / "logs" / "labels.log").read_text(encoding="utf-8")


WORDS = st.text(string.ascii_letters + string.digits + "._~-%", min_size=4, max_size=20)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(user=WORDS, password=WORDS, key=st.sampled_from(["token", "api_key", "password", "sig", "access-key"]))
def test_what_looks_like_a_secret_in_an_address_is_taken_out_of_any_text(user: str, password: str, key: str) -> None:
    text = f"(Caused by X) url: https://{user}:{password}@host.org/path?lang=ADQL&{key}={password}&n=1 and so on"
    found = redact(text)
    assert found == f"(Caused by X) url: https://***@host.org/path?lang=ADQL&{key}=***&n=1 and so on"


@pytest.mark.parametrize(
    "text",
    [
        "mail me@host.org",
        "https://$USER:${PASSWORD}@host.org/tap?token=$TOKEN",
        "http://host.org/a?keys=3&n=1",
        "a@b and http://x/y",
        "https://skyserver.sdss.org",
    ],
)
def test_other_text_stays_as_it_is(text: str) -> None:
    assert redact(text) == text


def test_logging_is_left_as_it_was() -> None:
    assert not log.handlers or all(not isinstance(one, logging.FileHandler) for one in log.handlers)
