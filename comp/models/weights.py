"""Where the ImageNet weights of a backbone lie, and what stands for a file of them in stamps."""

import hashlib
import os
from pathlib import Path

from comp.errors import CompError


def weights_file(backbone: str, weights: str | None) -> Path | None:
    """The safetensors file of a backbone in `weights` (a file or a folder) or in $COMP_WEIGHTS; None: timm's
    own. On a machine of a cluster it is $COMP_WEIGHTS_COPY, of the file that the machine that asked found."""
    if copy := os.environ.get("COMP_WEIGHTS_COPY"):
        return Path(copy)
    for place in (weights, os.environ.get("COMP_WEIGHTS")):
        if not place:
            continue
        path = Path(place)
        if path.is_file():
            if path.suffix != ".safetensors":
                raise CompError(
                    f"{path}: weights are taken from .safetensors files alone, since others can run code"
                )
            return path
        candidates = [path / f"{backbone}.safetensors", path / backbone / "model.safetensors"]
        if found := next((c for c in candidates if c.is_file()), None):
            return found
        if place == weights:
            raise CompError(
                f"no weights for {backbone}: neither {candidates[0]} nor {candidates[1]} is there"
            )
    return None


def weights_digest(backbone: str, weights: str | None) -> str | None:
    """16 hexadecimal digits of what a recipe's own weights hold, wherever they lie; None: it has none."""
    path = weights_file(backbone, weights) if weights else None
    if path is None:
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
