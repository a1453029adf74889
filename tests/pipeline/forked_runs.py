"""Real runs in processes of their own, forked from one that has imported everything and computed nothing.

Starting Python and torch takes longer than a whole small run. What is forked is a process with its own database connection,
lock and model all the same. For drivers that run in a process without threads, not for tests themselves.
"""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import time
import traceback
from pathlib import Path

import torch

import cai.engines.local
import cai.report
import cai.training.dpo
import cai.training.sft
from cai.config import read_config
from cai.errors import CaiError
from cai.pipeline import ProgressEvent, StageProgress, open_session, read_inputs, run

assert cai.engines.local, "imported before the forks"
assert cai.report, "imported before the forks"
assert cai.training.dpo, "imported before the forks"
assert cai.training.sft, "imported before the forks"

SAID = "error "
TRACEBACK = 70
"""Exit code of a process that ended with an error a user should not meet."""


class Start:
    """A forked process at work on a run, which tells the stages it comes to.

    Args:
        config: Of the run.
        largest_file_bytes: What the system lets it write into one file; beyond, every write fails as on a full disk.
    """

    def __init__(self, config: Path, *, largest_file_bytes: int | None = None) -> None:
        self._told, writing = os.pipe()
        self._text, self._heard = "", 0
        self.stage = "imports"
        self.said = ""
        """The error it ended with."""
        self.pid = os.fork()
        if self.pid == 0:
            _work(config, writing, largest_file_bytes)
        os.close(writing)

    def follow(self, until: float, *, stop_at: str = "", lines: int = 0) -> bool:
        """Listen until a moment (of `time.monotonic`), a stage or so many more lines. Returns whether it is still there."""
        wanted = self._heard + lines
        while (left := until - time.monotonic()) > 0:
            if select.select([self._told], [], [], left)[0]:
                told = os.read(self._told, 65536)
                if not told:
                    return False
                self._text += told.decode()
                *words, self._text = self._text.split("\n")
                self._heard += len(words)
                for line in words:
                    if line.startswith(SAID):
                        self.said = json.loads(line.removeprefix(SAID))
                    else:
                        self.stage = line
                if stop_at in words or (lines and self._heard >= wanted):
                    return True
        return True

    def end(self, *, kill: bool) -> int:
        """Its return code, negative for a signal."""
        if kill:
            os.kill(self.pid, signal.SIGKILL)
        _, status = os.waitpid(self.pid, 0)
        os.close(self._told)
        return os.waitstatus_to_exitcode(status)


def _work(config: Path, told: int, largest_file_bytes: int | None) -> None:
    code = TRACEBACK

    def tell(text: str) -> None:
        os.write(told, f"{text}\n".encode())

    try:
        if largest_file_bytes is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file_bytes, largest_file_bytes))
        torch.set_num_threads(1)
        inputs = read_inputs(read_config(config, (), {}).config)
        tell("opening")

        def on_progress(event: ProgressEvent) -> None:
            if isinstance(event, StageProgress):
                tell(event.stage)

        with open_session(inputs, on_progress) as session:
            tell("opened")
            run(session)
            tell("closing")
        code = 0
    except CaiError as error:
        code = 1
        tell(f"{SAID}{json.dumps(str(error))}")
    except BaseException:  # noqa: BLE001 (told, and the process ends)
        tell(f"{SAID}{json.dumps(traceback.format_exc())}")
    finally:
        os._exit(code)
