"""The checksums that storage sends: MD5 and CRC32C."""

import hashlib
from functools import cache
from pathlib import Path

import numpy as np


@cache
def checksums(path: Path, _modified: int, _size: int) -> tuple[bytes, bytes]:
    """Return MD5 and CRC32C of a file."""
    digest = hashlib.md5()
    state = 0xFFFFFFFF
    with path.open("rb") as file:
        while block := file.read(1 << 24):
            digest.update(block)
            state = _crc32c(state, block)
    return digest.digest(), (state ^ 0xFFFFFFFF).to_bytes(4, "big")


def _crc32c(state: int, block: bytes, width: int = 1024) -> int:
    """Return the CRC32C state after a block. Rows of `width` bytes are processed in parallel, then joined:
    the state after a row is the row's own state from 0, XOR the previous state moved past `width` zeros."""
    table, carried = _crc_tables(width)
    whole = len(block) // width * width
    if whole:
        rows = _crc_rows(np.frombuffer(block, np.uint8, whole).reshape(-1, width), table)
        for row in rows.tolist():
            state = row ^ (
                carried[0][state & 255]
                ^ carried[1][state >> 8 & 255]
                ^ carried[2][state >> 16 & 255]
                ^ carried[3][state >> 24]
            )
    steps = table.tolist()
    for byte in block[whole:]:
        state = steps[(state ^ byte) & 255] ^ (state >> 8)
    return state


def _crc_rows(rows: np.ndarray, table: np.ndarray, start: np.ndarray | None = None) -> np.ndarray:
    state = np.zeros(len(rows), np.uint32) if start is None else start
    for column in np.ascontiguousarray(rows.T):
        state = table[(state ^ column) & 255] ^ (state >> np.uint32(8))
    return state


@cache
def _crc_tables(width: int) -> tuple[np.ndarray, list[list[int]]]:
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> np.uint32(1)) ^ np.uint32(0x82F63B78), table >> np.uint32(1))
    zeros = np.zeros((256, width), np.uint8)
    starts = [np.arange(256, dtype=np.uint32) << np.uint32(8 * k) for k in range(4)]
    return table, [_crc_rows(zeros, table, start).tolist() for start in starts]
