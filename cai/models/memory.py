"""Memory of the process: how much it has, and what nobody uses any more given back to the system.

glibc keeps freed blocks for itself, and batches of ever other shapes leave holes in them: a process that trains on a CPU grows
with every step, though it holds no more tensors. Where another C library is used, nothing happens.
"""

from __future__ import annotations

import ctypes
import gc
import sys
import time
from dataclasses import dataclass
from functools import cache
from typing import Any

import psutil


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """Bytes that the process holds: in main memory, and of the GPU's `gpu_total_bytes` (both None without a GPU in use)."""

    rss_bytes: int
    gpu_bytes: int | None = None
    gpu_total_bytes: int | None = None


def memory_use() -> MemoryUse:
    """Of this process, all its GPUs together. Takes microseconds, and starts no GPU that is not in use."""
    rss_bytes = psutil.Process().memory_info().rss
    # Another thread may be importing torch at this moment: then it is there, and has no `cuda` yet.
    cuda: Any = getattr(sys.modules.get("torch"), "cuda", None)
    if cuda is None or not cuda.is_available() or not cuda.is_initialized():
        return MemoryUse(rss_bytes)
    devices = range(cuda.device_count())
    held = sum(cuda.memory_reserved(device) for device in devices)
    return MemoryUse(rss_bytes, held, sum(cuda.get_device_properties(device).total_memory for device in devices))


def return_free_memory() -> None:
    """Collect what is unreachable and return free memory to the system. Takes some tenths of a second in a large process."""
    gc.collect()
    _trim_heap()
    if (torch := sys.modules.get("torch")) is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


def _trim_heap() -> None:
    if (library := _glibc()) is not None:
        library.malloc_trim(0)


class Tidying:
    """Returns free memory of the heap between the steps of a training: seldom enough to cost a hundredth of the time (a return
    takes some 90 ms after steps of 135M parameters), often enough that a process on a CPU does not grow by a gigabyte. Garbage
    is left where it is: to collect that takes three times as long.

    Args:
        every_s: Seconds from one time to the next, at least; 0: after every step.
    """

    def __init__(self, every_s: float = 6.0) -> None:
        self._every_s, self._last = every_s, time.monotonic()

    def step_ended(self) -> None:
        if time.monotonic() - self._last >= self._every_s:
            _trim_heap()
            self._last = time.monotonic()


@cache
def _glibc() -> Any:
    """The C library, if it can trim; else None."""
    if sys.platform != "linux":
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "malloc_trim") else None
