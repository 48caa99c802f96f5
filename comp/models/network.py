"""A timm network: create, check, save and load it."""

import contextlib
import json
import logging
from collections.abc import Mapping, Sequence
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
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, resolve_model_data_config
from timm.models import group_parameters
from torch import nn

from comp.artifacts.files import atomic_write
from comp.artifacts.stamps import Stamp, read_spec, to_json
from comp.errors import CompError
from comp.models.heads import FeatureHead, WithFeatures, image_network, with_cosine_head
from comp.models.numbers import NumberScale
from comp.models.weights import weights_file
from comp.user_code import NO_CODE, Code, as_users_error, is_reference, load_function

RARE = ("numbers", "cosine", "feature_mean", "feature_std")  # in a file only where they are set


@dataclass(frozen=True)
class ModelSpec:
    """All that rebuilds a network. It is kept in the metadata of the weights' file."""

    backbone: str
    classes: tuple[str, ...]
    n_channels: int
    size: int  # pixels, in the last phase
    mean: tuple[float, ...]  # per channel, of images scaled to 0 … 1; empty: each image's own
    std: tuple[float, ...]
    drop_rate: float = 0.0
    groups: tuple[tuple[int, ...], ...] = ()  # columns of exclusive groups: one softmax each
    numbers: NumberScale | None = None  # of answers that are numbers
    cosine: float = 0.0  # of arcface: logits are cosines times it; 0: a linear head
    feature_mean: tuple[float, ...] = ()  # (F,) of numeric features beside the image
    feature_std: tuple[float, ...] = ()


def create(
    spec: ModelSpec, *, pretrained: bool, weights: str | None = None, code: Code = NO_CODE
) -> nn.Module:
    """Return the network with a new head of len(classes) logits; with features in the spec, they are its
    second argument. `code` holds the recipe's own files. Raise CompError for a backbone that timm doesn't
    have, and for weights that can't be downloaded or don't fit."""
    model = _of_images(spec, pretrained=pretrained, weights=weights, code=code)
    if spec.cosine:
        model = with_cosine_head(model, spec.backbone, spec.cosine)
    if spec.feature_mean:
        head = FeatureHead(spec.feature_mean, spec.feature_std, len(spec.classes))
        model = WithFeatures(model, head)
    return model


def _of_images(spec: ModelSpec, *, pretrained: bool, weights: str | None, code: Code) -> nn.Module:
    kwargs: dict[str, Any] = {
        "num_classes": len(spec.classes),
        "in_chans": spec.n_channels,
        "drop_rate": spec.drop_rate,
    }
    if is_reference(spec.backbone):
        return _own(spec.backbone, code, weights, pretrained=pretrained, **kwargs)
    if not timm.is_model(spec.backbone):
        near = timm.list_models(f"*{spec.backbone.split('.')[0][:6]}*")[:5]
        raise CompError(
            f"timm has no model {spec.backbone!r}" + (f"; it has {', '.join(near)}" if near else "")
        )
    if not pretrained:
        return timm.create_model(spec.backbone, **kwargs)
    return _pretrained(spec.backbone, weights_file(spec.backbone, weights), **kwargs)


def _own(backbone: str, code: Code, weights: str | None, *, pretrained: bool, **kwargs: Any) -> nn.Module:
    """Return a network of the user's. `weights` replace its own where a tensor has the same name and
    shape."""
    path = weights_file(backbone, weights) if pretrained else None
    kwargs = {"pretrained": pretrained and path is None, **kwargs}
    try:
        model = load_function(backbone, code, **kwargs)(**kwargs)
    except Exception as error:
        raise as_users_error(error, backbone) from error
    if not isinstance(model, nn.Module):
        raise CompError(f"{backbone} returned a {type(model).__name__}; a torch.nn.Module is expected")
    if path:
        state = model.state_dict()
        try:
            found = load_file(path)
        except (OSError, SafetensorError) as error:
            raise CompError(f"{path} is not a safetensors file ({error})") from error
        fits = {name: x for name, x in found.items() if name in state and state[name].shape == x.shape}
        if 2 * len(fits) <= len(found):
            raise CompError(
                f"{path} does not fit {backbone}: {len(fits)} of its {len(found)} tensors have the name and "
                "shape of one of the network's"
            )
        model.load_state_dict(fits, strict=False)
    return model


def pretrained_weights(backbone: str) -> bytes:
    """Return a safetensors file of timm's pretrained weights of a backbone, its head included. Raise
    CompError where they can't be downloaded."""
    state = _pretrained(backbone, None).state_dict()
    return safetensors_bytes({name: tensor.contiguous() for name, tensor in state.items()})


def _pretrained(backbone: str, path: Path | None, **kwargs: Any) -> nn.Module:
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # it logs each of its 10 retries
    try:
        file = path or _from_hub(backbone)
        # as on the hub; some authors' files need their own loader
        overlay = {"file": str(file), "custom_load": False} if file else None
        return timm.create_model(backbone, pretrained=True, pretrained_cfg_overlay=overlay, **kwargs)
    except Exception as error:  # from any HTTP library
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        if path:
            raise CompError(f"{path} does not fit {backbone}: {reason}") from error
        raise CompError(
            f"the ImageNet weights of {backbone} can't be downloaded ({reason}); "
            f"without internet put {backbone}.safetensors into a folder and set COMP_WEIGHTS to it, "
            "or train with --set pretrained=false"
        ) from error


def _from_hub(backbone: str) -> Path | None:
    """Return the file that was downloaded earlier; None if timm is to download it. Raise where the hub does
    not answer once. timm itself would try for a minute in every fold."""
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
    with contextlib.suppress(HfHubHTTPError):  # the hub answered
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
    code: Code = NO_CODE,
    cosine: float = 0.0,
) -> nn.Module:
    """Return the network, for two classes. Raise CompError if it can't be created or rejects images of these
    sizes, or with `layers` if timm doesn't know its layers. One check here fails once instead of in every
    fold."""
    half = (0.5,) * n_channels
    spec = ModelSpec(backbone, ("one", "two"), n_channels, sizes[-1], half, half, cosine=cosine)
    model = create(spec, pretrained=pretrained, weights=weights, code=code).eval()
    if layers:
        layer_depths(model, backbone)
    for size in sizes:
        try:
            with torch.inference_mode():
                logits = model(torch.zeros(1, n_channels, size, size))
        except Exception as error:
            if is_reference(backbone):
                raise as_users_error(error, backbone) from error
            if not isinstance(error, RuntimeError | AssertionError | ValueError):
                raise
            reason = str(error).strip().splitlines()[0]
            raise CompError(
                f"{backbone} does not accept images of {size} px ({reason}); change phases"
            ) from error
        shape = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        if shape != (1, 2):
            raise CompError(
                f"{backbone} returned {shape} for 1 image and 2 classes; logits (1, 2) are expected"
            )
    return model


def pretrained_statistics(backbone: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean and std, of RGB images scaled to 0 … 1, that a backbone was pretrained with; ImageNet's
    for a user's own."""
    if is_reference(backbone):
        return IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
    config = resolve_model_data_config(timm.create_model(backbone, num_classes=0))
    return tuple(config["mean"]), tuple(config["std"])


def compile_network(model: nn.Module, how: bool | str, device: torch.device, n_ranks: int = 1) -> None:
    """Compile the model in place, at its first batch of each shape. `how` is the recipe's `compile`: whether,
    or the mode of torch.compile."""
    if how:
        # sizes × micro-batches × head only can exceed torch's limit of 8 compilations
        torch._dynamo.config.recompile_limit = 64
        mode = how if isinstance(how, str) and not lacks_graphs(how, device, n_ranks) else None
        model.compile(dynamic=False, mode=mode)


def lacks_graphs(how: bool | str, device: torch.device, n_ranks: int = 1) -> str:
    """Return a line about what is done instead where CUDA graphs are asked for and there are none."""
    if how != "reduce-overhead" or (device.type == "cuda" and n_ranks == 1):
        return ""
    why = "a CPU has no CUDA graphs" if device.type != "cuda" else "CUDA graphs need one GPU per network"
    return f'{why}: compile = "reduce-overhead" works as compile = true'


def save(
    path: Path, model: nn.Module, spec: ModelSpec, stamp: Stamp, extra: Mapping[str, str] | None = None
) -> None:
    """Write the weights as safetensors, with the spec, the stamp and `extra` in the metadata."""
    metadata = {"spec": json.dumps(_as_json(spec)), "stamp": json.dumps(to_json(stamp)), **(extra or {})}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    with atomic_write(path) as temporary:
        temporary.write_bytes(_sorted_header(safetensors_bytes(tensors, metadata)))


def _as_json(spec: ModelSpec) -> dict[str, Any]:
    """Return the spec without what few networks have."""
    content = asdict(spec)
    return {key: value for key, value in content.items() if value or key not in RARE}


def _sorted_header(content: bytes) -> bytes:
    """Return a safetensors file with the keys of its header sorted. Its writer's order of the metadata is
    random."""
    length = int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8 : 8 + length]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + content[8 + length :]


def load(path: Path, code: Code = NO_CODE) -> tuple[nn.Module, ModelSpec]:
    """Return the network and its spec from a file of `save`. The file holds no code: what builds a network of
    the user's own is in `code`, the recipe's. Raise CompError for a missing or damaged file."""
    if not path.exists():
        raise CompError(f"{path} is missing; run `comp train` first")
    fields = read_spec(path)
    listed: dict[str, Any] = {key: tuple(value) for key, value in fields.items() if isinstance(value, list)}
    listed["groups"] = tuple(map(tuple, fields.get("groups", ())))
    if scale := fields.get("numbers"):
        listed["numbers"] = NumberScale(**{key: tuple(values) for key, values in scale.items()})
    spec = ModelSpec(**fields | listed)
    try:
        model = create(spec, pretrained=False, code=code)
        model.load_state_dict(load_file(path))
    except (KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0]
        raise CompError(f"{path} is not a comp model ({reason}); remove it and train again") from error
    return model, spec


# --- settings of a network ----------------------------------------------------------------------------------


def checkpoint_gradients(model: nn.Module, backbone: str) -> None:
    """Recompute activations in the backward pass instead of storing them. Raise CompError for a backbone that
    does not support it."""
    try:
        model.set_grad_checkpointing(True)  # type: ignore[operator]
    except (AttributeError, AssertionError, NotImplementedError) as error:
        raise CompError(
            f"{backbone} does not support gradient checkpointing; set gradient_checkpointing = false"
        ) from error


def layer_depths(model: nn.Module, backbone: str) -> dict[str, int]:
    """Return by parameter name its distance from the head, in timm's layer groups. Raise CompError for a
    backbone that timm doesn't divide into groups."""
    network = image_network(model)
    if not hasattr(network, "group_matcher"):
        raise CompError(f"timm does not know the layers of {backbone}; set layer_decay = 1.0")
    layers = group_parameters(network, network.group_matcher(coarse=False), reverse=True)  # type: ignore[operator]
    last, prefix = max(layers.values()), "" if network is model else "images."
    return {prefix + name: last - layer for name, layer in layers.items()}
