"""HTTP for all services: user agent, limits of time and size of an answer, and detection of invalid answers."""

from __future__ import annotations

import io
import socket
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPResponse, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ReadTimeoutError

from zmill import __version__
from zmill.labels.base import LabelsError
from zmill.redact import redact

USER_AGENT = f"zmill/{__version__} (photometric redshift workflow)"
BUSY = (429, 500, 502, 503, 504)
"""HTTP status codes of temporary failures."""
FORBIDDEN = (401, 403)
ENCODED = ("content-encoding", "transfer-encoding", "content-length")
"""Headers that describe the transfer, not the content."""
BLOCK = 1 << 16
"""Bytes read at a time."""
LARGEST = 1 << 29
"""Most bytes of an answer (537 MB): SDSS gives 500,000 rows, which take a tenth of it."""
HEAD = 400
"""Bytes in which a page of HTML is recognized."""


class Transient(Exception):
    """A request failed; a retry may succeed.

    Attributes
    ----------
    wait_s : waiting time that the service requires, in seconds; 0 where it requires none.
    retry : whether a retry may help.
    """

    def __init__(self, message: str, wait_s: float = 0.0, retry: bool = True) -> None:
        super().__init__(message)
        self.wait_s, self.retry = wait_s, retry


class TooSlow(Transient):
    """No answer in time; a request for less sky may be fast enough."""


class Unreachable(Transient):
    """The service cannot be reached."""


class TooMuch(TooSlow):
    """The answer is too large; a request for less sky may be small enough."""


class Session(requests.Session):
    """A session that names zmill as user agent, limits the time of each answer, and refuses invalid answers.

    Parameters
    ----------
    timeout_s : limit of the total time of an answer, and of a pause within it.
    buffered : whether answers are read completely before they are returned; False for downloads, which `blocks` reads.

    Attributes
    ----------
    answered : whether any response was received.
    server : the last `Server` header of the service.
    """

    def __init__(self, timeout_s: float, buffered: bool = True) -> None:
        super().__init__()
        self.timeout_s = timeout_s
        self.answered = False
        self.server = ""
        self.headers["User-Agent"] = f"{USER_AGENT} {self.headers['User-Agent']}"
        self.hooks["response"].append(self._look)
        self._bounded = _Bounded(timeout_s, buffered)
        self.mount("http://", self._bounded)
        self.mount("https://", self._bounded)

    def blocks(self, response: requests.Response, size: int) -> Iterator[bytes]:
        """The content of a download in blocks of `size` bytes, each of which must come within `timeout_s`."""
        with _Deadline(self.timeout_s, self._bounded.sockets.get(response)) as deadline:
            try:
                for block in response.iter_content(size):
                    deadline.restart()
                    yield block
            except requests.RequestException as error:
                deadline.check(error)
                raise
            deadline.check()

    def request(self, *args: Any, **keys: Any) -> requests.Response:
        """As in `requests`.

        Raises
        ------
        Transient
            Where no answer was received, or one without data.
        LabelsError
            Where the service refuses access.
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
            status = f"HTTP {response.status_code} {response.reason}"
            raise Transient(status, _seconds(response.headers.get("Retry-After", "")))
        if response.status_code in FORBIDDEN:
            raise LabelsError(
                f"{redact(response.url.partition('?')[0])}: HTTP {response.status_code} {response.reason}: the service refuses "
                "to answer. It wants a user and password (in ~/.netrc, or as environment variables in the url), or it has banned this "
                "machine for asking too much: do not ask again before its operators agree"
            )
        html = "html" in response.headers.get("Content-Type", "").lower()
        if not keys.get("stream"):
            start = response.content[:HEAD].lstrip().lower()
            html = start.startswith((b"<!doctype html", b"<html"))
        if html and response.ok and not response.is_redirect:
            raise Transient("a page of HTML instead of data")


class _Deadline:
    """A context manager that closes a connection after a time limit, even while data arrive."""

    def __init__(self, seconds: float, connection: socket.socket | None = None) -> None:
        self.seconds, self.connection, self.over = seconds, connection, False

    def __enter__(self) -> _Deadline:
        self._start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()

    def restart(self) -> None:
        """Restart the timer."""
        self._timer.cancel()
        self._start()

    def check(self, error: Exception | None = None) -> None:
        """Raise where the time limit was exceeded, whether or not the request itself failed.

        Raises
        ------
        requests.ReadTimeout
            Where the time limit was exceeded.
        """
        if self.over:
            raise requests.ReadTimeout(f"the answer was not complete after {self.seconds:g} s") from error

    def _start(self) -> None:
        self._timer = threading.Timer(self.seconds, self._end)
        self._timer.daemon = True
        self._timer.start()

    def _end(self) -> None:
        self.over = True
        if self.connection is not None:
            try:
                # Not that of SSL sockets, which another thread must not call.
                socket.socket.shutdown(self.connection, socket.SHUT_RDWR)
            except OSError:
                return  # it has ended by itself


_THIS_THREAD = threading.local()


class _Connection(HTTPConnection):
    """A connection that passes its socket to the deadline of the current request."""

    def getresponse(self) -> Any:
        _THIS_THREAD.deadline.connection = self.sock
        return super().getresponse()


class _SecureConnection(HTTPSConnection):
    """The same with TLS."""

    def getresponse(self) -> Any:
        _THIS_THREAD.deadline.connection = self.sock
        return super().getresponse()


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _SecureConnection


class _Bounded(HTTPAdapter):
    """Limits every answer in time and in size.

    The time-out of `requests` limits each pause only: an answer that arrives byte by byte would never end.
    """

    def __init__(self, seconds: float, buffered: bool) -> None:
        self.seconds, self.buffered = seconds, buffered
        self.sockets: dict[requests.Response, socket.socket | None] = {}
        super().__init__()

    def init_poolmanager(self, *args: Any, **keys: Any) -> None:
        super().init_poolmanager(*args, **keys)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _SecurePool}

    def proxy_manager_for(self, *args: Any, **keys: Any) -> Any:
        manager = super().proxy_manager_for(*args, **keys)
        manager.pool_classes_by_scheme = {"http": _Pool, "https": _SecurePool}
        return manager

    def send(self, *args: Any, **keys: Any) -> requests.Response:
        keys["stream"] = True
        with _Deadline(self.seconds) as deadline:
            _THIS_THREAD.deadline = deadline
            try:
                response = super().send(*args, **keys)
                if self.buffered:
                    _read(response)
                else:
                    self.sockets = {response: deadline.connection}
            except Exception as error:
                deadline.check(error)
                raise
            deadline.check()
        return response


def _read(response: requests.Response) -> None:
    """Read the complete content, so that `content` and `raw` return it without the network."""
    blocks, size = [], 0
    for block in response.iter_content(BLOCK):
        blocks.append(block)
        size += len(block)
        if size > LARGEST:
            response.close()
            raise TooMuch(f"the answer is larger than {LARGEST:,} bytes")
    raw = response.raw
    headers = {name: value for name, value in raw.headers.items() if name.lower() not in ENCODED}
    response._content = b"".join(blocks)
    response._content_consumed = True
    response.raw = HTTPResponse(
        io.BytesIO(response._content),
        headers,
        raw.status,
        reason=raw.reason,
        preload_content=False,
        original_response=raw._original_response,
    )


def transient(error: Exception) -> Transient:
    """The `Transient` exception for a failure of the network."""
    if isinstance(error, requests.Timeout) or any(isinstance(cause, ReadTimeoutError) for cause in error.args):
        return TooSlow(f"no answer in time ({redact(str(error))})")
    if isinstance(error, requests.ConnectionError) and not isinstance(error, requests.exceptions.SSLError):
        return Unreachable(f"not reachable ({redact(str(error))})")
    response = getattr(error, "response", None)
    return Transient(
        f"{type(error).__name__}: {redact(str(error))}", retry=response is None or response.status_code >= 500
    )


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
