"""The process that a reward function runs in: one JSON line in, one out, until the pipe ends.

What the function prints goes to the error stream, since the other one is the answers'.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import inspect
import json
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Awaitable
from typing import Any


def serve(name: str) -> None:
    """Answer lines of arguments with `{"values": […]}` or `{"error": "…"}`. The first line, `null`, asks for the imports."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    function: Any = None
    for line in sys.stdin:
        arguments: dict[str, Any] | None = json.loads(line)
        answer: dict[str, Any]
        try:
            if function is None:
                function = _imported(name)
            answer = {"values": None if arguments is None else _plain(_called(function, arguments))}
        except Exception as error:  # noqa: BLE001 - told to the other side
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _imported(name: str) -> Any:
    module, _, attribute = name.partition(":")
    function = getattr(importlib.import_module(module), attribute)
    if not callable(function):
        raise TypeError(f"{attribute} is no function")
    return function


def _called(function: Any, arguments: dict[str, Any]) -> Any:
    """What it returns; of an async function, when it is done."""
    found = function(**arguments)
    return asyncio.run(_awaited(found)) if inspect.isawaitable(found) else found


async def _awaited(found: Awaitable[Any]) -> Any:
    return await found


def _plain(values: Any) -> list[float]:
    """Numbers of a list, an array or a tensor; NaN for what is none."""
    return [_number(value) for value in values]


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        return math.nan


def _end_with(parent: int) -> None:
    """A function in an endless loop would outlive a run that was killed."""
    while os.getppid() == parent:
        time.sleep(1.0)
    with contextlib.suppress(OSError):
        if os.getpgrp() == os.getpid():
            os.killpg(0, signal.SIGKILL)  # and what the function has started
    os._exit(1)


if __name__ == "__main__":
    serve(sys.argv[1])
