"""One process per run folder: an exclusive lock that dies with its process, and a note saying who holds it."""

from __future__ import annotations

import json
import os
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, ValidationError

from cai.errors import StoreError
from cai.store.files import unwritable, write_bytes_atomically

LOCK_NAME = ".run.lock"
HOLDER_NAME = ".run.holder.json"


class Holder(BaseModel):
    """TEMPORARY: store-under-fire brings the real one."""

    model_config = ConfigDict(frozen=True)

    pid: int
    host: str
    since: str = ""
    command: str = ""

    @classmethod
    def read(cls, path: Path) -> Holder | None:
        try:
            return cls.model_validate_json(path.read_bytes())
        except (OSError, ValidationError):
            return None

    @property
    def is_dead(self) -> bool:
        return self.host == socket.gethostname() and not psutil.pid_exists(self.pid)

    @property
    def is_alive(self) -> bool:
        return self.host == socket.gethostname() and psutil.pid_exists(self.pid)


class RunLock:
    """The lock of one run folder. The operating system frees it when the process ends, however it ends."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = FileLock(folder / LOCK_NAME)

    def acquire(self) -> None:
        """Take the lock or raise a `StoreError` that names the process holding it."""
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise self._held() from None
        except OSError as error:
            raise unwritable(self._folder / LOCK_NAME, error) from error
        holder = {"pid": os.getpid(), "host": socket.gethostname()}
        try:
            write_bytes_atomically(self._folder / HOLDER_NAME, json.dumps(holder).encode())
        except BaseException:
            self._lock.release()
            raise

    def release(self) -> None:
        if self._lock.is_locked:
            with suppress(OSError):
                (self._folder / HOLDER_NAME).unlink(missing_ok=True)
            self._lock.release()

    def _held(self) -> StoreError:
        # The note lies beside the lock file, which any newcomer would truncate by opening it.
        holder: dict[str, Any] = {}
        with suppress(OSError, ValueError):
            holder = json.loads((self._folder / HOLDER_NAME).read_bytes())
        if not holder:
            problem = f"{self._folder}: another process is using this run folder."
            return StoreError(problem, "Wait until it has finished, or stop it; finished work is kept.")
        pid, host = holder.get("pid"), holder.get("host")
        if pid == os.getpid() and host == socket.gethostname():
            return StoreError(f"{self._folder}: this process (pid {pid}) has the run folder open already.", "Close it first.")
        stop = f"`kill {pid}`" if host == socket.gethostname() else f"`kill {pid}` on {host}"
        return StoreError(
            f"{self._folder}: process {pid} on {host} is using this run folder.",
            f"Wait until it has finished, or stop it ({stop}); finished work is kept.",
        )
