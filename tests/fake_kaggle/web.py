"""HTTP: receive requests, send replies, and apply failures to both."""

import contextlib
import json
import sys
import traceback
import urllib.parse
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.fake_kaggle.api import Api
from tests.fake_kaggle.replies import BLOCK, Refusal, Reply, json_reply
from tests.fake_kaggle.state import Failure


class Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], kaggle: Api):
        super().__init__(address, Handler)
        self.kaggle = kaggle

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server

    def setup(self) -> None:
        super().setup()
        self.server.kaggle.connections.add(self.connection)

    def finish(self) -> None:
        self.server.kaggle.connections.discard(self.connection)
        with contextlib.suppress(OSError):
            super().finish()

    def log_message(self, format: str, *arguments: Any) -> None:
        pass

    def do_GET(self) -> None:
        kaggle = self.server.kaggle
        path = urllib.parse.urlsplit(self.path).path
        shown = {k: "present" if k.lower() == "authorization" else v for k, v in self.headers.items()}
        kaggle.requests.append((self.command, path, shown))
        failure = kaggle.next_failure(self.command, path)
        kind = failure.kind if failure else ""
        try:
            if kind == "refuse":
                self.close_connection = True
                return
            cut = failure.offset(self._announced()) if failure and kind == "cut" else self._announced()
            body = self._blocks(cut)
            if kind in ("hang", "html") or kind.isdigit():
                for _ in body:
                    pass
            if failure and kind == "hang":
                kaggle.stopping.wait(60 if failure.seconds is None else failure.seconds)
                self.close_connection = True
                return
            refused = failure if kind == "html" or kind.isdigit() else None
            reply = self._refused(refused) if refused else self._answer(path, body)
            if kind == "drop" or (self.command == "PUT" and cut < self._announced()):
                self.close_connection = True
                return
            self._send(reply, failure)
        except OSError:
            self.close_connection = True

    do_HEAD = do_POST = do_PUT = do_GET

    def _announced(self) -> int:
        return int(self.headers.get("Content-Length") or 0)

    def _blocks(self, most: int) -> Iterator[bytes]:
        """Yield the request's body; of an upload at most `most` bytes."""
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            while size := int(self.rfile.readline().split(b";")[0] or b"0", 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return
        left = min(most, self._announced()) if self.command == "PUT" else self._announced()
        while left > 0 and (block := self.rfile.read(min(BLOCK, left))):
            left -= len(block)
            yield block

    def _answer(self, path: str, body: Iterator[bytes]) -> Reply:
        """Handle a request."""
        kaggle = self.server.kaggle
        parts = path.strip("/").split("/")
        try:
            if self.command == "PUT" and parts[0] == "upload" and len(parts) == 2:
                return kaggle.upload(parts[1], self.headers.get("Content-Range"), body)
            sent = b"".join(body)
            if self.command in ("GET", "HEAD") and parts[0] == "storage" and len(parts) == 3:
                query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
                return kaggle.stored(parts[1], query.get("X-Goog-Signature", [None])[0], self.headers)
            user = kaggle.user_of(self.headers.get("Authorization"))
            if self.command == "GET" and parts[:4] == ["v1", "kernels", "logs", "stream"] and len(parts) == 6:
                return kaggle.log_of(parts[4], parts[5])
            if self.command == "POST" and parts[0] == "v1" and len(parts) == 3:
                return kaggle.call(parts[1], parts[2], json.loads(sent or b"{}"), user)
            raise Refusal(404, f"{self.command} {path} is not part of this server")
        except Refusal as refusal:
            return self._error(refusal.status, refusal.message)
        except OSError as error:
            if isinstance(error, ConnectionError):
                raise
            return self._bug()
        except Exception:
            return self._bug()
        finally:
            with contextlib.suppress(OSError, ValueError):
                for _ in body:
                    pass

    def _bug(self) -> Reply:
        self.server.kaggle.errors.append(traceback.format_exc())
        traceback.print_exc()
        return self._error(500, "The server failed")

    def _refused(self, failure: Failure) -> Reply:
        if failure.kind == "html":
            page = b"<!DOCTYPE html><html><body><h1>We'll be right back</h1></body></html>"
            return Reply(200, [("Content-Type", "text/html; charset=utf-8")], page)
        reply = self._error(int(failure.kind), f"A failure that was asked for: {failure.kind}")
        if failure.kind == "429" or failure.seconds is not None:
            seconds = 1 if failure.seconds is None else failure.seconds
            reply.headers.append(("Retry-After", f"{seconds:g}"))
        return reply

    def _error(self, status: int, message: str) -> Reply:
        if urllib.parse.urlsplit(self.path).path.startswith("/storage/"):
            text = f"<?xml version='1.0' encoding='UTF-8'?><Error><Message>{message}</Message></Error>"
            return Reply(status, [("Content-Type", "application/xml; charset=UTF-8")], text.encode())
        return json_reply({"code": status, "message": message}, status)

    def _send(self, reply: Reply, failure: Failure | None) -> None:
        """Send the reply, changed by the failure."""
        kind, size = (failure.kind if failure else ""), len(reply)
        at = failure.offset(size) if failure else 0
        declared: int | None = size
        limit = size
        if kind == "cut":
            limit = min(max(at, 0), size)
        elif kind == "length":
            declared = max(0, size + at)
        elif kind == "nolength":
            declared, limit = None, min(at, size) if at > 0 else size
        self.send_response(reply.status)
        for name, value in reply.headers:
            self.send_header(name, value)
        if declared is not None and not (reply.status == 308 and not size):
            self.send_header("Content-Length", str(declared))
        elif reply.status == 308:
            self.send_header("Content-Length", "0")
        if kind == "nolength":
            self.send_header("Connection", "close")
        self.end_headers()
        if limit < size or kind in ("length", "nolength"):
            self.close_connection = True
        if self.command == "HEAD":
            return
        rate = at if kind == "slow" and failure and failure.at >= 1 else None
        flipped = min(max(at, 0), size - 1) if kind == "corrupt" else -1
        sent = 0
        for block in reply.blocks():
            if sent <= flipped < sent + len(block):
                spot = flipped - sent
                block = block[:spot] + bytes([block[spot] ^ 1]) + block[spot + 1 :]
            block = block[: limit - sent]
            sent += len(block)
            if rate is None:
                self.wfile.write(block)
                continue
            step = max(1, rate // 10)
            for i in range(0, len(block), step):
                self.wfile.write(block[i : i + step])
                if self.server.kaggle.stopping.wait(len(block[i : i + step]) / rate):
                    return
