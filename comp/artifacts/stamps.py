"""Stamps: what a file was made from, and whether it is done already. Also digests, and headers of npz and
safetensors files."""

import hashlib
import json
import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from comp.artifacts.files import REMAKE, flatten, parse_json, read_json
from comp.artifacts.model_schemas import SafetensorsHeader, Spec
from comp.config.loading import shortened
from comp.config.schema import current_rule
from comp.errors import CompError

Stamp = Mapping[str, Any]


# --- arrays -------------------------------------------------------------------------------------------------


def read_arrays(
    path: Path, names: Collection[str] | None = None, cure: str = REMAKE
) -> dict[str, np.ndarray]:
    """Return the arrays of an npz file: all, or those of `names` that it has. Raise CompError if it is
    damaged."""
    try:
        with path.open("rb") as file, np.lib.npyio.NpzFile(file, allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in arrays.files if names is None or name in names}
    except Exception as error:  # damaged files make zipfile and numpy raise nearly anything
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CompError(f"{path} cannot be read as npz ({reason}); {cure}") from error
    if wrong := [name for name, array in found.items() if not isinstance(array, np.ndarray)]:
        raise CompError(f"{path}: {wrong[0]!r} is not an array; {cure}")
    return found


# --- stamps -------------------------------------------------------------------------------------------------


def digest(*parts: object) -> str:
    """Return a digest of arrays, strings and JSON-like values: 16 hexadecimal digits."""
    state = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            if part.dtype.kind in "OUT":
                part = "\0".join(part.astype(str).tolist())
            else:
                state.update(f"{part.dtype.str}{part.shape}".encode())
                state.update(np.ascontiguousarray(part).tobytes())
                continue
        text = part if isinstance(part, str) else json.dumps(part, sort_keys=True, default=str)
        state.update(f"{len(text)}:".encode() + text.encode())
    return state.hexdigest()[:16]


def to_json(stamp: Stamp) -> dict[str, Any]:
    """Return the stamp as JSON reads it back (tuples become lists), so that it compares equal to a stored
    one."""
    return json.loads(json.dumps(stamp, default=str))


def read_stamp(path: Path, schema: Any = dict[str, Any]) -> dict[str, Any] | None:
    """Return the stamp in a JSON, npz, safetensors or HTML file; None if there is no file or no stamp. Raise
    CompError if it does not fit `schema`."""
    if not path.exists():
        return None
    text: str | bytes = "null"
    if path.suffix == ".json":
        text = json.dumps(read_json(path).get("stamp"))
    elif path.suffix == ".npz":
        text = str(read_arrays(path, ["stamp"]).get("stamp", text))
    elif path.suffix == ".html":
        with path.open("rb") as file:  # the second line, a comment
            lines = file.readlines(100_000)
        text = lines[1].strip().removeprefix(b"<!--").removesuffix(b"-->") if len(lines) > 1 else b""
    elif path.suffix == ".safetensors":
        text = read_safetensors_header(path)[0].get("stamp", text)
    else:
        raise ValueError(f"no stamp is kept in {path.suffix} files")
    stamp = parse_json(text, f"{path}, stamp", schema | None)
    if stamp and isinstance(rule := stamp.get("rule"), str):
        stamp["rule"] = current_rule(rule, warn=False)  # so that `drawn` compares equal to `shrunk`
    return stamp


def read_safetensors_header(path: Path) -> tuple[dict[str, str], dict[str, list[int]]]:
    """Return the __metadata__ of a safetensors file, and the shape of each tensor by name, without torch.
    (The format is 8 bytes of length, then JSON.)"""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 0 < length <= path.stat().st_size - 8:
            raise CompError(f"{path} is not a complete safetensors file; {REMAKE}")
        header = parse_json(file.read(length), path, SafetensorsHeader)
    return header.pop("__metadata__", {}), {name: tensor["shape"] for name, tensor in header.items()}


def read_spec(path: Path) -> dict[str, Any]:
    """Return the ModelSpec (comp.models.network) of a safetensors file, as a dict."""
    return parse_json(read_safetensors_header(path)[0].get("spec", "{}"), f"{path}, spec", Spec)


def is_done(path: Path, stamp: Stamp, *, force: bool) -> bool:
    """Whether `path` was made from this stamp. If it was made from another one, return False with `force`,
    else raise CompError, which names what differs."""
    found = read_stamp(path)
    if found is None or found == to_json(stamp):
        return found is not None
    if force:
        return False
    in_run = Path(os.environ.get("COMP_RUNS", "runs")) in path.parents
    cure = "--as NAME keeps both, --force replaces it" if in_run else "--force replaces it"
    raise CompError(f"{path} was made with {difference(found, to_json(stamp))}; {cure}")


def difference(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """Return what differs, such as 'phases.0.epochs = 4, not 6 (and 2 more)'."""
    before, now = flatten(found), flatten(wanted)
    keys = [key for key in {**now, **before} if before.get(key, "nothing") != now.get(key, "nothing")]
    if not keys:
        return "settings in another structure"
    key = keys[0]
    more = f" (and {len(keys) - 1} more)" if len(keys) > 1 else ""
    if re.fullmatch(r"[0-9a-f]{16}", str(before.get(key, ""))):
        return f"other {key}{more}"
    return f"{key} = {shortened(json.dumps(before.get(key)))}, not {json.dumps(now.get(key))}{more}"
