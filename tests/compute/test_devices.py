"""The memory that a process holds after tensors are freed."""

import platform
import resource
import subprocess
import sys

import pytest
import torch

from comp.compute.devices import Device

pytestmark = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="other C libraries are left as they are"
)

SCRIPT = """
import torch
from comp.compute.devices import keep_freed_memory, memory_in_use

def held(n_bytes, n):  # MB that stay after n tensors are freed
    before = memory_in_use(torch.device("cpu"))
    tensors = [torch.ones(n_bytes, dtype=torch.uint8) for _ in range(n)]
    del tensors
    return (memory_in_use(torch.device("cpu")) - before) >> 20

keep_freed_memory()
print(held(60 << 20, 4), held(20 << 20, 12))
"""


def test_freed_memory_is_kept_apart_from_large_blocks():
    shown = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True).stdout
    large, small = map(int, shown.split())
    assert large < 60
    assert small > 180


def test_a_process_keeps_the_memory_that_tensors_free():
    def pages() -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(8):
            torch.ones(4 << 20)  # 16 MB: 8 huge pages, or 4,096 others
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    n_threads = torch.get_num_threads()
    Device("cpu", n_threads).activate()
    assert min(pages() for _ in range(4)) < 64  # the first ones may still find their place
