"""What a machine has: processor, GPUs, driver, libraries, memory, disk."""

import os
import platform
import shutil
from importlib.metadata import version
from typing import Any

import torch

from comp import __version__
from comp.artifacts.git import commit
from comp.compute.devices import Device, cpu_name
from comp.compute.gpus import driver_version, runs_on
from comp.console import size_text

PACKAGES = ("torch", "timm", "numpy", "albumentations", "opencv-python-headless")


def describe(device: Device) -> dict[str, Any]:
    """Return what the machine has, as JSON. `device` is the one that comp works on. Sizes are in bytes. Names
    of users, machines and folders are left out."""
    cuda = torch.version.cuda
    return {
        "comp": __version__,
        "commit": commit(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "packages": {name: version(name) for name in PACKAGES},
        "cuda": cuda,
        "cudnn": torch.backends.cudnn.version() if cuda else None,
        "architectures": torch.cuda.get_arch_list(),
        "driver": driver_version(),
        "gpus": _gpus(),
        "device": device.name,
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "threads": device.n_threads,
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
        "memory": _memory(),
        "disk_free": shutil.disk_usage(".").free,
    }


def facts(machine: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the rows (what, which) that people read of `describe`."""
    rows = [
        ("comp", f"{machine['comp']} {(machine['commit'] or '')[:7]}".rstrip()),
        ("Python", f"{machine['python']}, {machine['system']}"),
        ("libraries", ", ".join(f"{name} {of}" for name, of in machine["packages"].items())),
        ("CPU", f"{machine['cpu']}, {machine['cores']} cores, {machine['threads']} for a job"),
        ("load", f"{machine['load']} processes, before the checks"),
        ("memory", size_text(machine["memory"] or 0)),
        ("disk", f"{size_text(machine['disk_free'])} free"),
        ("driver", f"{machine['driver'] or 'none'}; torch is built for CUDA {machine['cuda'] or 'none'}"),
    ]
    for number, gpu in enumerate(machine["gpus"]):
        used = "" if gpu["usable"] else "; torch has no code for it"
        free = f", {size_text(gpu['free'])} free" if gpu["free"] is not None else ""
        about = f"{gpu['name']}, {gpu['capability']}, {size_text(gpu['memory'])}{free}{used}"
        rows.append((f"GPU {number}", about))
    return rows if machine["gpus"] else [*rows, ("GPU", "none that torch finds")]


def _gpus() -> list[dict[str, Any]]:
    if not torch.cuda.is_available():
        return []
    known, gpus = torch.cuda.get_arch_list(), []
    for number in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(number)
        capability = properties.major, properties.minor
        usable = runs_on(known, capability)
        gpus.append(
            {
                "name": properties.name,
                "capability": f"sm_{capability[0]}{capability[1]}",
                "memory": properties.total_memory,
                "free": torch.cuda.mem_get_info(number)[0] if usable else None,
                "usable": usable,
            }
        )
    return gpus


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError):
        return None
