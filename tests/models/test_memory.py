"""Freed memory goes back to the system: a long run stays as small as what it holds."""

from __future__ import annotations

import ctypes
import platform

import psutil
import pytest

from cai.models.memory import return_free_memory

BLOCK_BYTES = 100_000  # below glibc's threshold for blocks of their own
BLOCKS = 2000


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc keeps freed blocks and can be told to return them")
def test_what_glibc_keeps_of_freed_blocks_goes_back_to_the_system() -> None:
    library = ctypes.CDLL(None)
    library.malloc.restype = ctypes.c_void_p
    library.malloc.argtypes = [ctypes.c_size_t]
    library.free.argtypes = [ctypes.c_void_p]
    process = psutil.Process()
    return_free_memory()
    before = process.memory_info().rss
    blocks = [library.malloc(BLOCK_BYTES) for _ in range(BLOCKS)]
    for block in blocks:
        ctypes.memset(block, 1, BLOCK_BYTES)
    for block in blocks[:-1]:  # the last one lies on top and keeps the heap from shrinking by itself
        library.free(block)
    kept = process.memory_info().rss - before
    return_free_memory()
    left = process.memory_info().rss - before
    library.free(blocks[-1])
    assert kept > BLOCK_BYTES * BLOCKS / 2
    assert left < kept / 4
