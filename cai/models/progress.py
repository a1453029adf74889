"""What is said while a model is read: no bars of other libraries, and one line of our own where it takes long.

The line goes to the logger `cai.models` at level INFO: whoever shows progress decides whether and how to show it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from typing import Any

LOGGER = logging.getLogger("cai.models")
SLOW_SECONDS = 2.0


@contextmanager
def said_when_slow(line: str) -> Generator[None]:
    """Say `line` if what is done inside takes longer than two seconds."""
    timer = threading.Timer(SLOW_SECONDS, LOGGER.info, (line,))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@contextmanager
def no_bars() -> Generator[None]:
    """No progress bars of transformers inside: progress is the command line's to show."""
    from transformers import modeling_gguf_pytorch_utils
    from transformers.utils import logging as transformers_logging

    was_on = transformers_logging.is_progress_bar_enabled()
    gguf: Any = modeling_gguf_pytorch_utils
    bar = getattr(gguf, "tqdm", None)  # the one bar that does not ask transformers' own switch
    transformers_logging.disable_progress_bar()
    if bar is not None:
        gguf.tqdm = partial(bar, disable=True)
    try:
        yield
    finally:
        if bar is not None:
            gguf.tqdm = bar
        if was_on:
            transformers_logging.enable_progress_bar()
