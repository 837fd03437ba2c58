"""HTTP for all services: who asks, how long it waits, and which answers are none."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import requests
from urllib3.exceptions import ReadTimeoutError

from zmill import __version__
from zmill.labels.base import LabelsError

USER_AGENT = f"zmill/{__version__} (photometric redshift workflow)"
BUSY = (429, 500, 502, 503, 504)
"""States that pass."""
FORBIDDEN = (401, 403)
HEAD = 400
"""Bytes in which a page of HTML shows itself."""


class Transient(Exception):
    """An answer that is none; asked again it may be one.

    Attributes
    ----------
    wait_s : how long the service asks to wait, if it does.
    again : whether it may help to ask again.
    """

    def __init__(self, message: str, wait_s: float = 0.0, again: bool = True) -> None:
        super().__init__(message)
        self.wait_s, self.again = wait_s, again


class TooSlow(Transient):
    """No answer in time: asked for less sky, the service may be quick enough."""


class Unreachable(Transient):
    """There is no way to the service."""


class Session(requests.Session):
    """A session that names zmill, never waits for ever, and refuses what is no answer.

    Parameters
    ----------
    timeout_s : longest silence of a service where the client names none.

    Attributes
    ----------
    answered : whether any response came.
    server : what the service last said of itself in its `Server` header.
    """

    def __init__(self, timeout_s: float) -> None:
        super().__init__()
        self.timeout_s = timeout_s
        self.answered = False
        self.server = ""
        self.headers["User-Agent"] = f"{USER_AGENT} {self.headers['User-Agent']}"
        self.hooks["response"].append(self._look)

    def request(self, *args: Any, **keys: Any) -> requests.Response:
        """As in `requests`.

        Raises
        ------
        Transient
            Where no answer came, or none that holds data.
        LabelsError
            Where the service refuses to talk to this machine.
        """
        if keys.get("timeout") is None:
            keys["timeout"] = self.timeout_s
        try:
            return super().request(*args, **keys)
        except requests.RequestException as error:
            raise transient(error) from error

    def _look(self, response: requests.Response, **keys: Any) -> None:
        self.answered = True
        self.server = response.headers.get("Server", "")
        if response.status_code in BUSY:
            said = f"HTTP {response.status_code} {response.reason}"
            raise Transient(said, _seconds(response.headers.get("Retry-After", "")))
        if response.status_code in FORBIDDEN:
            raise LabelsError(
                f"{response.url.partition('?')[0]}: HTTP {response.status_code} {response.reason}: the service refuses "
                "to answer. It may have banned this machine for asking too much: do not ask again before its operators agree"
            )
        html = "html" in response.headers.get("Content-Type", "").lower()
        if not keys.get("stream"):
            start = response.content[:HEAD].lstrip().lower()
            html = start.startswith((b"<!doctype html", b"<html"))
        if html and response.ok and not response.is_redirect:
            raise Transient("a page of HTML in place of data")


def transient(error: Exception) -> Transient:
    """What a failure of the network means."""
    if isinstance(error, requests.Timeout) or any(isinstance(cause, ReadTimeoutError) for cause in error.args):
        return TooSlow(f"no answer in time ({error})")
    if isinstance(error, requests.ConnectionError) and not isinstance(error, requests.exceptions.SSLError):
        return Unreachable(f"not reachable ({error})")
    response = getattr(error, "response", None)
    return Transient(f"{type(error).__name__}: {error}", again=response is None or response.status_code >= 500)


def _seconds(retry_after: str) -> float:
    """The `Retry-After` header: seconds, or a date."""
    if retry_after.isdigit():
        return float(retry_after)
    if not retry_after:
        return 0.0
    try:
        return max(0.0, (parsedate_to_datetime(retry_after) - datetime.now(UTC)).total_seconds())
    except ValueError:
        return 0.0
