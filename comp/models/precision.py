"""The number format for computing: bf16, fp16 or fp32."""

import contextlib
from pathlib import Path

import torch
from torch import nn


def choose_precision(
    name: str, device: torch.device, model: nn.Module, size: int | None = None
) -> torch.dtype:
    """Return the type that layers compute in. `size` (pixels) is given for training only. auto: bf16 where
    the hardware supports it, else fp16 on a GPU and fp32 on a CPU.

    Training on a CPU has two exceptions, both fp32. oneDNN's bf16 gradients of depthwise convolutions are
    slower than fp32 (by a fifth for tf_efficientnet_lite0). Its gradients over 1x1 maps, as below 32 px,
    aren't always finite.
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


def autocast(device: torch.device, dtype: torch.dtype) -> contextlib.AbstractContextManager:
    """Return a context in which layers compute in `dtype`."""
    return torch.autocast(device.type, dtype, enabled=dtype != torch.float32)
