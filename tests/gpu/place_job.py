"""A job that writes down which device it got, and in which process. Its module is small, so that processes
for it start soon."""

import os
from collections.abc import Callable
from pathlib import Path

from comp.compute.devices import Device


def write_place(folder: Path, *, device: Device, report: Callable[..., None], deadline: float) -> None:
    (folder / device.name.replace(":", "")).write_text(str(os.getpid()))
