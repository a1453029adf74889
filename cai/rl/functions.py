"""A Python function as a reward, in a process of its own: one that hangs, crashes or runs out of memory ends alone.

It is called as TRL calls reward functions, so that those written for TRL's trainers work as they are:

    def reward(prompts, completions, **columns) -> list[float]

`prompts` are message lists, `completions` lists of one assistant message, `columns` what each prompt's row had besides, with
`tags`, `uid` and `completion_ids`: one list each. None or NaN: it cannot say. It may be `async`.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from cai.errors import ConfigError, EngineError
from cai.rl.rewards import Reply
from constitution.nearest import nearest

START_TIMEOUT_S = 120.0
"""For the imports of the module: some load a model."""
_SHOWN = 300


class FunctionReward:
    """`module:function` in a worker process, which is started by `begin`, or the first call, and again after each end.

    Args:
        name: `module:function`; the module is looked for in the current folder first.
        timeout_s: For each call.

    Raises:
        ConfigError: If there is no such module, or no such function in it as far as its text tells. Nothing is imported.
    """

    def __init__(self, name: str, *, timeout_s: float) -> None:
        self._name = name
        self._timeout_s = timeout_s
        self._worker: subprocess.Popen[bytes] | None = None
        self._source = _source(name)
        _refuse_absent(name, self._source)

    @property
    def name(self) -> str:
        return self._name

    @property
    def fingerprint(self) -> str:
        """Of the module's own text; what it imports is not looked at."""
        return hashlib.sha256(f"{self._name}\0".encode() + self._source.read_bytes()).hexdigest()

    def begin(self) -> None:
        """Start the worker, and let it import the module.

        Raises:
            ConfigError: If it cannot be, or takes too long.
        """
        try:
            self._started()
        except EngineError as error:
            self.close()
            raise ConfigError(f"rl: reward {self._name}: cannot be called: {error.problem}", "mend its module") from error

    def rewards(self, replies: Sequence[Reply]) -> list[float]:
        """The function's values, as they came: their number and kind are for the caller to see to.

        Raises:
            EngineError: If it raised, did not answer in time, or its process ended.
        """
        worker = self._started()
        return cast("list[float]", self._ask(worker, json.dumps(_arguments(replies)), self._timeout_s))

    def close(self) -> None:
        """End the worker."""
        worker, self._worker = self._worker, None
        if worker is not None:
            _end(worker)
            worker.wait()
            for pipe in (worker.stdin, worker.stdout):
                if pipe is not None:
                    with contextlib.suppress(OSError):
                        pipe.close()

    def _started(self) -> subprocess.Popen[bytes]:
        if self._worker is None:
            self._worker = subprocess.Popen(  # noqa: S603 - this very interpreter, and a name that was looked up
                [sys.executable, "-m", "cai.rl.function_worker", self._name],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                start_new_session=True,  # ends with all that it starts; Ctrl-C is for the run, which ends it
                env={**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in ("", *sys.path))},
            )
            try:
                self._ask(self._worker, "null", max(START_TIMEOUT_S, self._timeout_s))
            except EngineError:
                self.close()
                raise
        return self._worker

    def _ask(self, worker: subprocess.Popen[bytes], line: str, timeout_s: float) -> Any:
        assert worker.stdin is not None
        assert worker.stdout is not None
        late = threading.Event()

        def end() -> None:
            late.set()
            _end(worker)

        timer = threading.Timer(timeout_s, end)
        timer.start()
        answer = b""
        try:
            worker.stdin.write(line.encode() + b"\n")
            worker.stdin.flush()
            answer = worker.stdout.readline()
        except OSError:
            pass  # its process has ended: told below
        finally:
            timer.cancel()
        if not answer.endswith(b"\n"):
            self.close()
            if late.is_set():
                raise EngineError(f"did not answer within {timeout_s:g} s and was ended")
            raise EngineError(f"its process ended (exit status {worker.returncode})")
        found: dict[str, Any] = json.loads(answer)
        if "error" in found:
            raise EngineError(str(found["error"])[:_SHOWN])
        return found["values"]


def _end(worker: subprocess.Popen[bytes]) -> None:
    """With its children: one of them that holds the pipe would keep its reader waiting."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(worker.pid, signal.SIGKILL)
    worker.kill()


def _arguments(replies: Sequence[Reply]) -> dict[str, Any]:
    items = [reply.item for reply in replies]
    facts = sorted({name for item in items for name in item.facts})
    return {
        **{name: [item.facts.get(name) for item in items] for name in facts},
        "uid": [item.uid for item in items],
        "tags": [list(item.tags) for item in items],
        "prompts": [[message.model_dump(mode="json") for message in item.messages] for item in items],
        "completions": [[{"role": "assistant", "content": reply.text}] for reply in replies],
        "completion_ids": [list(reply.ids) for reply in replies],
    }


def _source(name: str) -> Path:
    """The module's file; nothing is imported but the packages it lies in."""
    module = name.partition(":")[0]
    with _current_folder_first():
        try:
            found = importlib.util.find_spec(module)
        except (ImportError, ValueError) as error:
            raise ConfigError(f"rl: reward {name}: {error}", "name it `module:function`") from error
    if found is None or not found.origin or not Path(found.origin).is_file():
        raise ConfigError(
            f"rl: reward {name}: there is no module `{module}`", "put its file into the current folder, or install it"
        )
    return Path(found.origin)


def _refuse_absent(name: str, source: Path) -> None:
    """Raise ConfigError for a function that the module's text does not define, import or assign at its top."""
    function = name.rpartition(":")[2]
    try:
        body = ast.parse(source.read_bytes()).body if source.suffix == ".py" else []
    except (SyntaxError, ValueError) as error:
        raise ConfigError(f"rl: reward {name}: {source}: {error}", "mend it") from error
    names: set[str] = set()
    for each in body:
        if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(each.name)
        elif isinstance(each, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name.partition(".")[0] for alias in each.names}
        elif isinstance(each, ast.Assign | ast.AnnAssign):
            names |= {part.id for part in ast.walk(each) if isinstance(part, ast.Name)}
        elif not isinstance(each, ast.Expr):
            return  # conditions and loops may make any name: the import will tell
    if body and function not in names and "*" not in names and "__getattr__" not in names:
        meant = nearest(function, names)
        raise ConfigError(
            f"rl: reward {name}: {source} has no function `{function}`",
            f"did you mean `{meant}`?" if meant else "name one that it has",
        )


@contextlib.contextmanager
def _current_folder_first() -> Any:
    sys.path.insert(0, os.getcwd())
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(os.getcwd())
