"""A page as one HTML file that asks for nothing else: styles, scripts and data are inside."""

import json
import re
from collections.abc import Sequence
from html import escape
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any

ASSETS = resources.files("comp.pages") / "assets"
LIBRARIES = ("d3.min.js", "plot.umd.min.js")  # Observable Plot draws the charts; it needs d3


def build_page(
    folder: Traversable,
    body: str,
    title: str,
    content: dict[str, Any],
    *,
    styles: Sequence[str],
    scripts: Sequence[str],
    stamp: dict[str, Any] | None = None,
    sources: str = "img-src data:",
) -> str:
    """Return the page: its body is a file of a folder of the package, with styles and scripts of that folder
    after the ones of all pages. Scripts are joined into one, so that each sees the names of those before it;
    the content is their `data`. `sources`: what the page may fetch, as a Content-Security-Policy says it;
    by default nothing."""
    data = json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    parts = {
        "STAMP": json.dumps(stamp or {}).replace("--", "-\\u002d"),
        "TITLE": escape(title),
        "SOURCES": sources,
        "BODY": (folder / body).read_text("utf-8"),
        "STYLE": _joined([ASSETS / "base.css", *(folder / name for name in styles)]),
        "DATA": data.replace("<", "\\u003c"),
        "LIBRARIES": _joined([ASSETS / name for name in LIBRARIES]),
        "SCRIPT": _joined([ASSETS / "base.js", *(folder / name for name in scripts)]),
    }
    return re.sub(
        f"@({'|'.join(parts)})@", lambda mark: parts[mark[1]], (ASSETS / "page.html").read_text("utf-8")
    )


def _joined(files: Sequence[Traversable]) -> str:
    return "\n".join(file.read_text("utf-8") for file in files)
