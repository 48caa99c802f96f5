"""The server of the page: it answers GET alone, and writes nothing."""

import hashlib
import hmac
import ipaddress
import json
import secrets
import socket
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import parse_qs

from comp.errors import CompError
from comp.safe_text import sanitize
from comp.watch.page import live_page
from comp.watch.pictures import Pictures
from comp.watch.runs import RunReader

HEADERS = (
    ("Content-Security-Policy", "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Referrer-Policy", "no-referrer"),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
)
HTML, TEXT = "text/html; charset=utf-8", "text/plain; charset=utf-8"
JSON, JPEG, SVG = "application/json", "image/jpeg", "image/svg+xml"
NO_PICTURE = b"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 160 160"><text x="80" y="84"
text-anchor="middle" font-family="sans-serif" font-size="14" fill="gray">no picture</text></svg>"""
N_THREADS, MAX_CONNECTIONS = 4, 50
PORT = 8470  # the first choice, so that an open page finds a server that was started again

StartResponse = Callable[[str, list[tuple[str, str]]], Any]
Answer = tuple[str, str, bytes]  # status, type, content


class App:
    """The WSGI application. With a token, all addresses begin with it; without one, it answers requests to
    the loopback address alone, so that no other site's name can be made to point here (DNS rebinding)."""

    def __init__(self, reader: RunReader, token: str = ""):
        self.reader, self.token = reader, token
        self.pictures = Pictures()
        self.page = live_page().encode()

    def __call__(self, request: dict[str, Any], start: StartResponse) -> Iterable[bytes]:
        status, kind, content = self._answer(request)
        headers = [("Content-Type", kind), ("Cache-Control", "private, no-cache"), *HEADERS]
        if status.startswith("200"):
            tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
            headers.append(("ETag", tag))
            if request.get("HTTP_IF_NONE_MATCH") == tag:
                start("304 Not Modified", headers[1:])
                return []
        if status.startswith("405"):
            headers.append(("Allow", "GET, HEAD"))
        start(status, [*headers, ("Content-Length", str(len(content)))])
        return [] if request["REQUEST_METHOD"] == "HEAD" else [content]

    def _answer(self, request: dict[str, Any]) -> Answer:
        if request["REQUEST_METHOD"] not in ("GET", "HEAD"):
            return "405 Method Not Allowed", TEXT, b"this page is only read"
        path = request.get("PATH_INFO", "/").removeprefix("/")
        if self.token:
            given, slash, path = path.partition("/")
            if not (hmac.compare_digest(given.encode(), self.token.encode()) and slash):
                return "403 Forbidden", TEXT, b"open the address that comp watch printed, with its token"
        elif not is_loopback_name(request.get("HTTP_HOST", "")):
            return "403 Forbidden", TEXT, b"open http://127.0.0.1 or http://localhost"
        query = parse_qs(request.get("QUERY_STRING", ""))
        try:
            return self._page(path, {name: values[-1] for name, values in query.items()})
        except (CompError, OSError) as error:
            return "500 Internal Server Error", TEXT, sanitize(error).encode()

    def _page(self, path: str, query: dict[str, str]) -> Answer:
        name = query.get("run", "")
        found: bytes | None = None
        kind = JSON
        if path == "":
            kind, found = HTML, self.page
        elif path == "news":
            found = _json(self.reader.overview())
        elif path == "run":
            details = self.reader.details(name, query.get("after", "").split(","))
            found = None if details is None else _json(details)
        elif path == "picture" and (of := self.reader.worst(name)) and (image := query.get("id")) in of[1]:
            jpeg = self.pictures.get(of[0], str(image), of[1])
            kind, found = (JPEG, jpeg) if jpeg else (SVG, NO_PICTURE)
        if found is None:
            return "404 Not Found", TEXT, b"nothing is here"
        return "200 OK", kind, found


def _json(content: Any) -> bytes:
    return json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def is_loopback_name(host: str) -> bool:
    """Return whether a Host header names this machine alone, with any port."""
    name, colon, port = host.rpartition(":")
    if not (colon and port.isdecimal()):
        name = host
    in_brackets = name.startswith("[") and name.endswith("]")
    return is_loopback(name[1:-1] if in_brackets else name.lower())


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches an address to listen on."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def make_server(names: Iterable[str], host: str, port: int | None) -> tuple[Any, str]:
    """Return a server that listens, with a method `run`, and its address. Without a port it takes PORT, or if
    that is in use a free one. Raise CompError where it can't listen."""
    from waitress import create_server

    listening = _listen(host, port)
    token = "" if is_loopback(host) else secrets.token_urlsafe(24)
    server = create_server(
        App(RunReader(list(names)), token), sockets=[listening], threads=N_THREADS, ident=None,
        connection_limit=MAX_CONNECTIONS, max_request_body_size=1024, max_request_header_size=16384,
    )  # fmt: skip
    named = f"[{host}]" if ":" in host else host
    return server, f"http://{named}:{listening.getsockname()[1]}/" + (f"{token}/" if token else "")


def _listen(host: str, port: int | None) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    choices = [PORT, 0] if port is None else [port]
    for choice in choices:
        try:
            return socket.create_server((host, choice), family=family)
        except OSError as error:
            if choice == choices[-1]:
                reason = error.strerror or error
                raise CompError(f"cannot listen on {host}, port {choice}: {reason}") from error
    raise AssertionError
