"""Free space, as far as a quota leaves it."""

import os
from pathlib import Path

import pytest

from comp.artifacts.files import free_bytes
from comp.errors import CompError


def test_a_disk_limit_leaves_what_its_folders_have_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    first, second = tmp_path / "tmp", tmp_path / "tmp" / "working"  # a folder inside of another counts once
    second.mkdir(parents=True)
    limit = 10_000_000
    monkeypatch.setenv("COMP_DISK_LIMIT", f"{limit}:{first}:{second}:{tmp_path / 'absent'}")
    assert free_bytes(tmp_path / "not yet") == limit
    (second / "cache").write_bytes(os.urandom(1 << 20))
    os.link(second / "cache", first / "same")
    (first / "link").symlink_to(second / "cache")
    with (first / "reserved").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, 1 << 21)
    (tmp_path / "outside").write_bytes(os.urandom(1 << 20))
    assert limit - free_bytes(first) == pytest.approx((1 << 20) + (1 << 21), abs=1 << 14)
    monkeypatch.setenv("COMP_DISK_LIMIT", f"1000:{first}")
    assert free_bytes(first) == 0
    monkeypatch.setenv("COMP_DISK_LIMIT", "57 GiB")
    with pytest.raises(CompError, match="expected bytes and folders"):
        free_bytes(first)
