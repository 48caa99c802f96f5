"""Where the pretrained weights of a backbone are, and their digest in stamps."""

import hashlib
import os
from pathlib import Path

from comp.errors import CompError


def weights_file(backbone: str, weights: str | None) -> Path | None:
    """Return the safetensors file of a backbone in `weights` (a file or folder) or in $COMP_WEIGHTS; None if
    timm is to download it. On a machine of a cluster return $COMP_WEIGHTS_COPY, the head's copy. Raise
    CompError where `weights` has no file for the backbone."""
    if copy := os.environ.get("COMP_WEIGHTS_COPY"):
        return Path(copy)
    for place in (weights, os.environ.get("COMP_WEIGHTS")):
        if not place:
            continue
        path = Path(place)
        if path.is_file():
            if path.suffix != ".safetensors":
                raise CompError(
                    f"{path}: weights are read from .safetensors files only, since others can run code"
                )
            return path
        candidates = [path / weights_name(backbone), path / backbone / "model.safetensors"]
        if found := next((c for c in candidates if c.is_file()), None):
            return found
        if place == weights:
            raise CompError(f"no weights for {backbone}: neither {candidates[0]} nor {candidates[1]} exists")
    return None


def weights_name(backbone: str) -> str:
    """Return the name of a backbone's file in a folder of weights."""
    return f"{backbone.replace(':', '-')}.safetensors"


def weights_digest(backbone: str, weights: str | None) -> str | None:
    """Return 16 hexadecimal digits of the content of a recipe's own weights; None if it has none."""
    path = weights_file(backbone, weights) if weights else None
    if path is None:
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
