"""Which GPUs and drivers can be used."""

import re
from pathlib import Path

import torch

from comp.errors import CompError

DRIVER_VERSION = Path("/sys/module/nvidia/version")
ON_THE_CPU = "or set CUDA_VISIBLE_DEVICES= (to nothing) to work on the CPU"
OTHER_TORCH = "install a torch that fits (COMP_TORCH in run.sh)"


def usable_gpus() -> tuple[list[int], list[str]]:
    """Return the numbers of the GPUs that this torch runs on, and a line about each other one; no numbers
    where there is no GPU. Raise CompError where there are GPUs and none can be used: the work would silently
    be done on the CPU."""
    n = torch.cuda.device_count()  # asks the driver's NVML, which even an old driver answers
    if n and not torch.cuda.is_available():
        raise CompError(
            f"{n} GPU{'s' * (n > 1)} found, but torch {torch.__version__} can't use the driver "
            f"{driver_version() or 'here'} ({_reason()}); update the driver, {OTHER_TORCH}, {ON_THE_CPU}"
        )
    known = torch.cuda.get_arch_list()
    capabilities = {i: torch.cuda.get_device_capability(i) for i in range(n)}
    usable = [i for i in capabilities if runs_on(known, capabilities[i])]
    others = [
        f"GPU {i} ({torch.cuda.get_device_name(i)}, sm_{major}{minor}) is not used: torch "
        f"{torch.__version__} has code for {', '.join(known)}"
        for i, (major, minor) in capabilities.items()
        if i not in usable
    ]
    if others and not usable:
        raise CompError(f"{'; '.join(others)}; {OTHER_TORCH}, {ON_THE_CPU}")
    return usable, others


def runs_on(known: list[str], capability: tuple[int, int]) -> bool:
    """Return whether code for the architectures `known` (such as sm_75, sm_90a, compute_120) runs on a GPU.

    Machine code (sm) runs on its own major version from its minor version on, intermediate code (compute) on
    every later one, and code whose name ends in "a" or "f" on its own capability or family (NVIDIA, CUDA
    C++ Programming Guide, "Compute Capabilities"). torch for AMD's GPUs lists other names, and is trusted."""
    found = [re.fullmatch(r"(sm|compute)_(\d+)(\d)([af]?)", name) for name in known]
    codes = [(match[1], (int(match[2]), int(match[3])), match[4]) for match in found if match]
    return not codes or any(
        code == capability
        if special == "a"
        else code <= capability and (code[0] == capability[0] or (kind == "compute" and not special))
        for kind, code, special in codes
    )


def driver_version() -> str:
    """Return the version of NVIDIA's driver, such as 550.54.15; empty where it is not known."""
    try:
        return DRIVER_VERSION.read_text().strip()
    except OSError:  # no driver, or not on Linux
        return ""


def _reason() -> str:
    """Return why CUDA does not start, in torch's words."""
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        return str(error).strip().split(". ")[0].splitlines()[0].rstrip(".")
    return "CUDA does not start"
