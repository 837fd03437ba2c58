"""HTTP for all services: who asks, how long an answer may take and how large it may be, and which answers are none."""

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
"""States that pass."""
FORBIDDEN = (401, 403)
ENCODED = ("content-encoding", "transfer-encoding", "content-length")
"""Headers that are of the answer on its way."""
BLOCK = 1 << 16
"""Bytes read at a time."""
LARGEST = 1 << 29
"""Most bytes of an answer (537 MB): SDSS gives 500,000 rows, which take a tenth of it."""
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


class TooMuch(TooSlow):
    """An answer that is too large: asked for less sky, it may be small enough."""


class Session(requests.Session):
    """A session that names zmill, never waits for ever, and refuses what is no answer.

    Parameters
    ----------
    timeout_s : longest time that an answer may take as a whole, and longest silence within it.
    buffered : answers are read whole before they are given; False for downloads, of which `blocks` are read.

    Attributes
    ----------
    answered : whether any response came.
    server : what the service last said of itself in its `Server` header.
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
        with _Watch(self.timeout_s, self._bounded.sockets.get(response)) as watch:
            try:
                for block in response.iter_content(size):
                    watch.again()
                    yield block
            except requests.RequestException as error:
                watch.check(error)
                raise
            watch.check()

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
                f"{redact(response.url.partition('?')[0])}: HTTP {response.status_code} {response.reason}: the service refuses "
                "to answer. It wants a user and password (in ~/.netrc, or as environment variables in the url), or it has banned this "
                "machine for asking too much: do not ask again before its operators agree"
            )
        html = "html" in response.headers.get("Content-Type", "").lower()
        if not keys.get("stream"):
            start = response.content[:HEAD].lstrip().lower()
            html = start.startswith((b"<!doctype html", b"<html"))
        if html and response.ok and not response.is_redirect:
            raise Transient("a page of HTML in place of data")


class _Watch:
    """Ends a connection from outside after some time, whatever comes through it; used as a context."""

    def __init__(self, seconds: float, connection: socket.socket | None = None) -> None:
        self.seconds, self.connection, self.over = seconds, connection, False

    def __enter__(self) -> _Watch:
        self._start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()

    def again(self) -> None:
        """Count the time from now."""
        self._timer.cancel()
        self._start()

    def check(self, error: Exception | None = None) -> None:
        """Raise where the time was over, whatever a request ended with.

        Raises
        ------
        requests.ReadTimeout
            Where the time was over.
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
    """A connection that shows its socket to the watch of the request that is under way."""

    def getresponse(self) -> Any:
        _THIS_THREAD.watch.connection = self.sock
        return super().getresponse()


class _SecureConnection(HTTPSConnection):
    """The same with TLS."""

    def getresponse(self) -> Any:
        _THIS_THREAD.watch.connection = self.sock
        return super().getresponse()


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _SecureConnection


class _Bounded(HTTPAdapter):
    """Bounds every answer in time and in size.

    The time-out of `requests` is of each silence alone: a service that sends a byte now and then would never end.
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
        with _Watch(self.seconds) as watch:
            _THIS_THREAD.watch = watch
            try:
                response = super().send(*args, **keys)
                if self.buffered:
                    _read(response)
                else:
                    self.sockets = {response: watch.connection}
            except Exception as error:
                watch.check(error)
                raise
            watch.check()
        return response


def _read(response: requests.Response) -> None:
    """Read the whole content, so that `content` and `raw` give it without the network."""
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
    """What a failure of the network means."""
    if isinstance(error, requests.Timeout) or any(isinstance(cause, ReadTimeoutError) for cause in error.args):
        return TooSlow(f"no answer in time ({redact(str(error))})")
    if isinstance(error, requests.ConnectionError) and not isinstance(error, requests.exceptions.SSLError):
        return Unreachable(f"not reachable ({redact(str(error))})")
    response = getattr(error, "response", None)
    return Transient(
        f"{type(error).__name__}: {redact(str(error))}", again=response is None or response.status_code >= 500
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
