"""Replies and refusals of the server, and the JSON, pages and dates in them."""

import base64
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

BLOCK = 1 << 16

Json = dict[str, Any]


class Refusal(Exception):
    """An error response: its status and message."""

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status, self.message = status, message


@dataclass
class Reply:
    """A response whose body is bytes, or the bytes `start` to `stop` of a file."""

    status: int = 200
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""
    path: Path | None = None
    start: int = 0
    stop: int = 0

    def __len__(self) -> int:
        return self.stop - self.start if self.path else len(self.body)

    def blocks(self) -> Iterator[bytes]:
        """Yield the body in blocks of at most BLOCK bytes."""
        if self.path is None:
            yield from (self.body[i : i + BLOCK] for i in range(0, len(self.body), BLOCK))
            return
        with self.path.open("rb") as file:
            file.seek(self.start)
            left = len(self)
            while left > 0 and (block := file.read(min(BLOCK, left))):
                yield block
                left -= len(block)


def json_reply(answer: Json, status: int = 200) -> Reply:
    """Return a reply as JSON, without the fields that are None."""
    text = json.dumps({k: v for k, v in answer.items() if v is not None})
    return Reply(status, [("Content-Type", "application/json; charset=utf-8")], text.encode())


def files_of(files: dict[str, Path], created: datetime, request: Json) -> tuple[list[Json], str]:
    """Return the requested page of a file listing, and the token of the next page."""
    page, token = page_of(sorted(files), request)
    about = {"creationDate": iso(created)}
    return [{"ref": n, "name": n, "totalBytes": files[n].stat().st_size, **about} for n in page], token


def page_of(items: Sequence[Any], request: Json) -> tuple[Sequence[Any], str]:
    """Return the requested page of a list, and the token of the next page."""
    size = min(request.get("pageSize") or 20, 200)
    start = (max(request.get("page") or 1, 1) - 1) * size
    if token := request.get("pageToken"):
        try:
            start = int(base64.urlsafe_b64decode(token))
        except ValueError as error:
            raise Refusal(400, "The page token is not valid") from error
    more = base64.urlsafe_b64encode(str(start + size).encode()).decode() if start + size < len(items) else ""
    return items[start : start + size], more


def iso(moment: datetime) -> str:
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"
