"""A timm network: create, check, save and load it."""

import contextlib
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import huggingface_hub
import timm
import torch
from huggingface_hub.constants import HF_HUB_ETAG_TIMEOUT
from huggingface_hub.utils import HfHubHTTPError
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as safetensors_bytes
from timm.data import resolve_model_data_config
from timm.models import group_parameters
from torch import nn

from comp.artifacts.files import replacing
from comp.artifacts.stamps import Stamp, plain, read_spec
from comp.errors import CompError
from comp.models.weights import weights_file


@dataclass(frozen=True)
class ModelSpec:
    """What rebuilds a network: it travels in the metadata of the weights."""

    backbone: str
    classes: tuple[str, ...]
    n_channels: int
    size: int  # pixels, of the last phase
    mean: tuple[float, ...]  # a channel, of images scaled to 0 … 1; empty: each image has its own
    std: tuple[float, ...]
    drop_rate: float = 0.0
    groups: tuple[tuple[int, ...], ...] = ()  # classes whose logits are those of one softmax


def create(spec: ModelSpec, *, pretrained: bool, weights: str | None = None) -> nn.Module:
    """The network with a new head of len(classes) logits. Raises CompError for a backbone that timm doesn't
    have, and for weights that can't be had or don't fit."""
    kwargs: dict[str, Any] = {
        "num_classes": len(spec.classes),
        "in_chans": spec.n_channels,
        "drop_rate": spec.drop_rate,
    }
    if not timm.is_model(spec.backbone):
        near = timm.list_models(f"*{spec.backbone.split('.')[0][:6]}*")[:5]
        raise CompError(
            f"timm has no model {spec.backbone!r}" + (f"; it has {', '.join(near)}" if near else "")
        )
    if not pretrained:
        return timm.create_model(spec.backbone, **kwargs)
    return _pretrained(spec.backbone, weights_file(spec.backbone, weights), **kwargs)


def pretrained_weights(backbone: str) -> bytes:
    """A safetensors file of the ImageNet weights that timm has of a backbone, its own head included. Raises
    CompError where they can't be had."""
    state = _pretrained(backbone, None).state_dict()
    return safetensors_bytes({name: tensor.contiguous() for name, tensor in state.items()})


def _pretrained(backbone: str, path: Path | None, **kwargs: Any) -> nn.Module:
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # it would tell of each of its 10 retries
    try:
        file = path or _from_hub(backbone)
        # as the hub has them, and not in the form that authors of some networks gave them
        overlay = {"file": str(file), "custom_load": False} if file else None
        return timm.create_model(backbone, pretrained=True, pretrained_cfg_overlay=overlay, **kwargs)
    except Exception as error:  # of any of the libraries that speak HTTP
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        if path:
            raise CompError(f"{path} does not fit {backbone}: {reason}") from error
        raise CompError(
            f"the ImageNet weights of {backbone} can't be downloaded ({reason}); "
            f"without internet put {backbone}.safetensors into a folder and set COMP_WEIGHTS to it, "
            "or train with --set pretrained=false"
        ) from error


def _from_hub(backbone: str) -> Path | None:
    """The file that was downloaded earlier; None: timm downloads it. Raises where the hub does not answer,
    which is tried once: timm tries for a minute, in every fold."""
    config = timm.get_pretrained_cfg(backbone)
    if config is None or not config.hf_hub_id:
        return None
    repository, _, revision = config.hf_hub_id.partition("@")
    asked: dict[str, Any] = {
        "filename": config.hf_hub_filename or "model.safetensors",
        "revision": revision or None,
    }
    file = huggingface_hub.try_to_load_from_cache(repository, **asked)
    if isinstance(file, str) and file.endswith(".safetensors"):
        return Path(file)
    with contextlib.suppress(HfHubHTTPError):  # an answer
        address = huggingface_hub.hf_hub_url(repository, **asked)
        huggingface_hub.get_hf_file_metadata(address, timeout=HF_HUB_ETAG_TIMEOUT)
    return None


def check(
    backbone: str,
    sizes: Sequence[int],
    n_channels: int,
    *,
    pretrained: bool,
    weights: str | None,
    layers: bool = False,
) -> None:
    """Fail now, and not in every fold, if the network can't be had, doesn't take images of these sizes, or is
    not known by its `layers`."""
    spec = ModelSpec(backbone, ("one",), n_channels, sizes[-1], (0.5,) * n_channels, (0.5,) * n_channels)
    model = create(spec, pretrained=pretrained, weights=weights).eval()
    if layers:
        depths(model, backbone)
    for size in sizes:
        try:
            with torch.inference_mode():
                model(torch.zeros(1, n_channels, size, size))
        except (RuntimeError, AssertionError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            raise CompError(
                f"{backbone} does not take images of {size} px ({reason}); change phases"
            ) from error


def pretrained_statistics(backbone: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """(mean, std) of RGB images scaled to 0 … 1 that a backbone was trained with."""
    config = resolve_model_data_config(timm.create_model(backbone, num_classes=0))
    return tuple(config["mean"]), tuple(config["std"])


def save(path: Path, model: nn.Module, spec: ModelSpec, stamp: Stamp) -> None:
    metadata = {"spec": json.dumps(asdict(spec)), "stamp": json.dumps(plain(stamp))}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    with replacing(path) as temporary:
        temporary.write_bytes(_sorted_header(safetensors_bytes(tensors, metadata)))


def _sorted_header(content: bytes) -> bytes:
    """A safetensors file with the keys of its header in order: its writer draws that of the metadata."""
    length = int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8 : 8 + length]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + content[8 + length :]


def load(path: Path) -> tuple[nn.Module, ModelSpec]:
    """The network and its spec from what `save` wrote. Raises CompError for a missing or damaged file."""
    if not path.exists():
        raise CompError(f"{path} is not there; run `comp train` first")
    fields = read_spec(path)
    listed = {k: tuple(fields[k]) for k in ("classes", "mean", "std")}
    spec = ModelSpec(**fields | listed | {"groups": tuple(map(tuple, fields.get("groups", ())))})
    try:
        model = create(spec, pretrained=False)
        model.load_state_dict(load_file(path))
    except (KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0]
        raise CompError(
            f"{path} does not hold a model of this toolkit ({reason}); remove it and train again"
        ) from error
    return model, spec


# --- running ------------------------------------------------------------------------------------------------


def checkpoint_gradients(model: nn.Module, backbone: str) -> None:
    """Work activations out again on the way back instead of keeping them. Raises CompError for a backbone
    that can't."""
    try:
        model.set_grad_checkpointing(True)  # type: ignore[operator]
    except (AttributeError, AssertionError, NotImplementedError) as error:
        raise CompError(
            f"{backbone} knows no gradient checkpointing; set gradient_checkpointing = false"
        ) from error


def depths(model: nn.Module, backbone: str) -> dict[str, int]:
    """By name of a parameter, how many layers (as timm cuts the network) it is below the head. Raises
    CompError for a backbone that timm doesn't cut."""
    if not hasattr(model, "group_matcher"):
        raise CompError(f"timm does not know the layers of {backbone}; set layer_decay = 1.0")
    layers = group_parameters(model, model.group_matcher(coarse=False), reverse=True)  # type: ignore[operator]
    last = max(layers.values())
    return {name: last - layer for name, layer in layers.items()}
