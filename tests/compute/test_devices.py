"""The memory that a process holds after tensors are freed."""

import platform
import subprocess
import sys

import pytest

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


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries decide for themselves")
def test_freed_memory_is_kept_apart_from_large_blocks():
    shown = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True).stdout
    large, small = map(int, shown.split())
    assert large < 60
    assert small > 180
