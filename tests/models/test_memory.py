"""Freed memory goes back to the system: a long run stays as small as what it holds."""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Callable, Iterator

import psutil
import pytest

from cai.models.memory import Tidying, return_free_memory

BLOCK_BYTES = 100_000  # below glibc's threshold for blocks of their own
BLOCKS = 2000


pytestmark = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="only glibc keeps freed blocks and can be told to return them"
)


@pytest.fixture
def kept_bytes() -> Iterator[Callable[[], int]]:
    """Blocks were freed of which glibc keeps the memory; how many bytes of it the process still holds."""
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
    yield lambda: process.memory_info().rss - before
    library.free(blocks[-1])


def test_what_glibc_keeps_of_freed_blocks_goes_back_to_the_system(kept_bytes: Callable[[], int]) -> None:
    kept = kept_bytes()
    return_free_memory()
    assert kept > BLOCK_BYTES * BLOCKS / 2
    assert kept_bytes() < kept / 4


def test_between_steps_it_goes_back_when_the_time_has_come_and_not_before(kept_bytes: Callable[[], int]) -> None:
    kept = kept_bytes()
    waiting, due = Tidying(every_s=3600.0), Tidying(every_s=0.0)
    for _ in range(20):
        waiting.step_ended()
    assert kept_bytes() > 0.9 * kept > 0.9 * BLOCK_BYTES * BLOCKS / 2
    due.step_ended()
    assert kept_bytes() < kept / 4
