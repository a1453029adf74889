"""Memory of the process that nobody uses any more, given back to the system.

glibc keeps freed blocks for itself, and batches of ever other shapes leave holes in them: a process that trains on a CPU grows
with every step, though it holds no more tensors. Where another C library is used, nothing happens.
"""

from __future__ import annotations

import ctypes
import gc
import sys
from functools import cache
from typing import Any


def return_free_memory() -> None:
    """Collect what is unreachable and return free memory to the system. Takes some tens of milliseconds."""
    gc.collect()
    if (library := _glibc()) is not None:
        library.malloc_trim(0)
    if (torch := sys.modules.get("torch")) is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


@cache
def _glibc() -> Any:
    """The C library, if it can trim; else None."""
    if sys.platform != "linux":
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "malloc_trim") else None
