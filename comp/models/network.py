"""timm networks: made for a recipe, given ImageNet weights, saved with what rebuilds them, and run on a
batch."""

import contextlib
import json
import logging
from collections.abc import Callable, Sequence
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
from torch.nn import functional

from comp.artifacts.stamps import Stamp, plain, read_spec, replacing
from comp.batches.augmentation import Batched, Draws, View, sent
from comp.compute.local_jobs import is_out_of_memory
from comp.errors import CompError
from comp.models.weights import weights_file

FLAT = 0.02  # of the range: no image is stretched as if it deviated less, which would show noise alone


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


def precision_of(name: str, device: torch.device, model: nn.Module, size: int | None = None) -> torch.dtype:
    """The type that layers compute in; `size` (pixels) is given for training. auto: bf16 where the hardware
    multiplies it, else fp16 on a GPU and fp32 on a CPU.

    Two exceptions for training on a CPU, where oneDNN's bf16 gradients of depthwise convolutions are slower
    than fp32 (by a fifth for tf_efficientnet_lite0), and those over 1x1 maps, as below 32 px, aren't always
    finite.
    """
    if name != "auto":
        return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[name]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.get_device_capability(device)[0] >= 8 else torch.float16
    depthwise = any(isinstance(layer, nn.Conv2d) and layer.groups > 1 for layer in model.modules())
    if not _cpu_multiplies_bf16() or (size is not None and (size < 32 or depthwise)):
        return torch.float32
    return torch.bfloat16


def _cpu_multiplies_bf16() -> bool:
    try:
        flags = Path("/proc/cpuinfo").read_text().partition("flags")[2].partition("\n")[0].split()
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


class Parts:
    """Works on batches as a whole, or in parts where memory runs out, which it remembers."""

    def __init__(self) -> None:
        self.size = 0  # images at once; 0: all

    def __call__(self, work: Callable[[torch.Tensor], torch.Tensor], images: torch.Tensor) -> torch.Tensor:
        """What `work` gives for the images, under each other."""
        while True:
            try:
                return torch.cat([work(part) for part in images.split(self.size or len(images))])
            except RuntimeError as error:
                if not is_out_of_memory(error) or self.size == 1:
                    raise
                self.size = max(1, (self.size or len(images)) // 2)
            if images.is_cuda:
                torch.cuda.empty_cache()


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


def autocast(device: torch.device, dtype: torch.dtype) -> contextlib.AbstractContextManager:
    return torch.autocast(device.type, dtype, enabled=dtype != torch.float32)


class Input(nn.Module):
    """uint8 batches (B, H, W, channels) -> normalised float (B, channels, size, size), channels last in
    memory, enlarged or reduced bilinearly where the size differs. In between they may be augmented.

    Without a mean and deviation each image has its own, as they are before its light is augmented."""

    def __init__(
        self, mean: Sequence[float], std: Sequence[float], size: int, augment: Batched | None = None
    ):
        super().__init__()
        self.size, self.augment = size, augment
        self.scale: torch.Tensor
        self.shift: torch.Tensor
        self.register_buffer("scale", 1 / (torch.tensor(std) * 255))
        self.register_buffer("shift", torch.tensor(mean) / torch.tensor(std))

    def forward(self, batch: torch.Tensor, draws: Draws | None = None) -> torch.Tensor:
        n, height, width, channels = batch.shape
        if draws and self.augment:
            batch = self.augment.turned(batch, draws)
        # whole rows at once, since a pixel's channels are too few for the processor's vectors
        rows = batch.reshape(n, height, width * channels).float()
        scale, shift = self.scale, self.shift
        if not len(scale):
            std, mean = torch.std_mean(rows.view(n, 1, -1, channels), 2, correction=0)  # (B, 1, channels)
            scale = 1 / std.clamp(min=FLAT * 255)
            shift = mean * scale
        if draws and self.augment:
            contrast, brightness = (sent(part, batch.device) for part in (draws.contrast, draws.brightness))
            shift = shift - brightness.view(n, 1, -1) * 255 * scale
            scale = scale * contrast.view(n, 1, -1)
        rows.mul_(scale.repeat(*[1] * (scale.ndim - 1), width)).sub_(
            shift.repeat(*[1] * (shift.ndim - 1), width)
        )
        images = rows.view(n, height, width, channels)
        if draws and self.augment:
            images = self.augment.moved(images, draws)
        x = images.permute(0, 3, 1, 2)
        if x.shape[-1] != self.size:
            x = functional.interpolate(
                x, (self.size, self.size), mode="bilinear", antialias=x.shape[-1] > self.size
            )
        return x.contiguous(memory_format=torch.channels_last)


def probabilities(logits: torch.Tensor, groups: Sequence[Sequence[int]]) -> torch.Tensor:
    """(B, C) in float32: a sigmoid each, and one softmax for each of the groups."""
    logits = logits.float()
    probs = logits.sigmoid()
    for group in groups:
        probs[:, list(group)] = logits[:, list(group)].softmax(1)
    return probs


def of_views(
    model: nn.Module, x: torch.Tensor, views: Sequence[View], groups: Sequence[Sequence[int]] = ()
) -> torch.Tensor:
    """(B, C) probabilities of images (B, channels, H, W), the mean over their views, all in one batch."""
    seen = torch.cat([view(x) for view in views]).contiguous(memory_format=torch.channels_last)
    return probabilities(model(seen), groups).view(len(views), len(x), -1).mean(0)
