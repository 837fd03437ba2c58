"""An HTTP server on loopback, in a thread, that can be told to fail in the ways in which services fail."""

from __future__ import annotations

import email
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

PAGE = b"<!DOCTYPE html>\n<html><head><title>Maintenance</title></head><body>The service is down.</body></html>\n"
FAULTS = ("403", "404", "429", "500", "503", "timeout", "truncated", "cut", "html", "reset")
"""`truncated`: fewer bytes than announced; `cut`: half of the body, of no announced length; `reset`: no response."""
ENDLESS = ("drip", "drip_chunks", "drip_head", "endless")
"""Answers without an end: `drip`: the body byte by byte; `drip_chunks`: the same in chunks; `drip_head`: a header byte by
byte; `endless`: the last line of the body again and again, as fast as it goes."""
DRIP_S = 0.05


@dataclass
class HttpRequest:
    """A request: its form and its uploaded files, whatever way they came."""

    method: str
    path: str
    form: dict[str, str]
    files: dict[str, bytes]
    headers: dict[str, str]


@dataclass
class Reply:
    """A response."""

    body: bytes = b""
    kind: str = "text/plain"
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


class Loopback:
    """A server that answers each request by `answer`; used as a context manager.

    Attributes
    ----------
    faults : faults of the next requests, in turn; "": no fault.
    fault_of : function of a request that returns its fault, or "".
    requests : all requests.
    most_at_once : largest number of concurrent requests.
    """

    def __init__(self, answer: Callable[[HttpRequest], Reply]) -> None:
        self.answer = answer
        self.faults: list[str] = []
        self.fault_of: Callable[[HttpRequest], str] = lambda request: ""
        self.requests: list[HttpRequest] = []
        self.most_at_once = self._now = 0
        self._lock = threading.Lock()
        self._stop = threading.Event()

    def __enter__(self) -> Loopback:
        loopback = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            server_version = "Loopback/1.0"

            def do_GET(self) -> None:
                loopback._serve(self)

            do_POST = do_DELETE = do_GET

            def log_message(self, *args: object) -> None:
                """Do nothing, because `requests` has all requests."""

        class Server(ThreadingHTTPServer):
            def handle_error(self, request: object, client_address: object) -> None:
                if not isinstance(sys.exception(), ConnectionError):  # a client may hang up
                    super().handle_error(request, client_address)

        self._server = Server(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        request = _parse(handler)
        with self._lock:
            self.requests.append(request)
            fault = self.faults.pop(0) if self.faults else self.fault_of(request)
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
        try:
            self._respond(handler, request, fault)
        finally:
            with self._lock:
                self._now -= 1

    def _respond(self, handler: BaseHTTPRequestHandler, request: HttpRequest, fault: str) -> None:
        if fault == "reset":
            handler.close_connection = True
            return
        if fault == "timeout":
            self._stop.wait(30)
            handler.close_connection = True
            return
        if fault.isdigit():
            reply = Reply(PAGE, "text/html", int(fault), {"Retry-After": "0"} if fault == "429" else {})
        elif fault == "html":
            reply = Reply(PAGE, "text/html")
        else:
            reply = self.answer(request)
        body = reply.body[: len(reply.body) // 2] if fault in ("truncated", "cut") else reply.body
        if fault == "drip_head":
            self._drip(handler, b"HTTP/1.1 200 OK\r\nX-Slow: " + b"a" * 10_000)
            return
        handler.send_response(reply.status)
        handler.send_header("Content-Type", reply.kind)
        for name, value in reply.headers.items():
            handler.send_header(name, value)
        if fault in ENDLESS:
            self._go_on(handler, reply.body or b"\n", fault)
            return
        if fault == "cut":
            handler.send_header("Connection", "close")
            handler.close_connection = True
        else:
            handler.send_header("Content-Length", str(len(reply.body)))
        handler.end_headers()
        handler.wfile.write(body)
        if fault == "truncated":
            handler.close_connection = True

    def _go_on(self, handler: BaseHTTPRequestHandler, body: bytes, fault: str) -> None:
        handler.send_header("Connection", "close")
        handler.close_connection = True
        if fault == "drip_chunks":
            handler.send_header("Transfer-Encoding", "chunked")
            handler.end_headers()
            self._drip(handler, b"100000\r\n" + body)
        elif fault == "drip":
            handler.send_header("Content-Length", str(10_000_000))
            handler.end_headers()
            self._drip(handler, body)
        else:
            handler.end_headers()
            lines = body.splitlines(keepends=True)
            handler.wfile.write(body)
            while not self._stop.is_set():
                handler.wfile.write(lines[-1] * 1000)

    def _drip(self, handler: BaseHTTPRequestHandler, content: bytes) -> None:
        handler.close_connection = True
        for place in range(1 << 20):
            handler.wfile.write(content[place % len(content) :][:1])
            handler.wfile.flush()
            if self._stop.wait(DRIP_S):
                return


def _parse(handler: BaseHTTPRequestHandler) -> HttpRequest:
    address = urlsplit(handler.path)
    form = {name: values[0] for name, values in parse_qs(address.query, keep_blank_values=True).items()}
    body = handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
    kind = handler.headers.get("Content-Type", "")
    files = {}
    if kind.startswith("multipart/form-data"):
        for part in email.message_from_bytes(f"Content-Type: {kind}\n\n".encode() + body).get_payload():
            name = part.get_param("name", header="content-disposition")
            content = part.get_payload(decode=True)
            if part.get_filename() is None:
                form[name] = content.decode()
            else:
                files[name] = content
    elif kind.startswith("application/x-www-form-urlencoded"):
        form |= {name: values[0] for name, values in parse_qs(body.decode(), keep_blank_values=True).items()}
    return HttpRequest(handler.command, address.path, form, files, dict(handler.headers))


def wait_for(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    """Wait until something holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)
