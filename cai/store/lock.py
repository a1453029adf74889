"""One process per run folder: a lock of the operating system, and beside it a note that says who holds it.

Either alone keeps others out. The lock dies with its process, but some network and container file systems take all processes
of one machine for one holder; the note is written by whoever could make it first, and counts for as long as its process lives.
Nothing here depends on the clock.
"""

from __future__ import annotations

import os
import shlex
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, ValidationError

from cai.errors import FolderInUse
from cai.store.files import PART_SUFFIX, unwritable

LOCK_NAME = ".run.lock"
HOLDER_NAME = ".run.holder.json"
ATTEMPTS = 5
"""To make the note: between two of them, another process made or removed it."""


class Holder(BaseModel):
    """A process, told from every other one that has had its number."""

    model_config = ConfigDict(frozen=True)

    pid: int
    host: str
    namespace: str = ""
    """Of process numbers: in another container, the same number is another process."""
    started: str = ""
    """When the process started, as the system tells it: never the same for two processes with one number."""
    since: str = ""
    """When it took the lock, for people."""
    command: str = ""

    @classmethod
    def this_process(cls) -> Holder:
        pid = os.getpid()
        return cls(
            pid=pid,
            host=socket.gethostname(),
            namespace=_namespace(),
            started=_started(pid) or "",
            since=time.strftime("%Y-%m-%d %H:%M:%S %z"),
            command=shlex.join(sys.orig_argv),
        )

    @classmethod
    def read(cls, path: Path) -> Holder | None:
        """The note at `path`; None where there is none, or half a one of an earlier version."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except (OSError, ValidationError):
            return None

    @property
    def is_local(self) -> bool:
        """Whether this process can see that one."""
        return self.host == socket.gethostname() and self.namespace in ("", _namespace())

    @property
    def is_alive(self) -> bool:
        """Whether the process is known to be at work, and no other one that has its number now."""
        return self.is_local and self.started == _started(self.pid)

    @property
    def is_dead(self) -> bool:
        """Whether the process is known to have ended. Of another machine's or container's, nothing is known."""
        return self.is_local and not self.is_alive


class RunLock:
    """The lock of one run folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = FileLock(folder / LOCK_NAME)
        self._note = folder / HOLDER_NAME

    def acquire(self) -> None:
        """Take the lock or raise a `StoreError` that names the process holding it. Waits for nobody."""
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise held(self._folder, Holder.read(self._note)) from None
        except OSError as error:
            raise unwritable(self._folder / LOCK_NAME, error) from error
        try:
            self._leave_note()
        except OSError as error:
            self._lock.release()
            raise unwritable(self._note, error) from error
        except BaseException:
            self._lock.release()
            raise

    def release(self) -> None:
        if self._lock.is_locked:
            with suppress(OSError):
                self._note.unlink(missing_ok=True)
            self._lock.release()

    def _leave_note(self) -> None:
        """Make the note, whole and only if nobody else has; one of a dead process is taken away first."""
        mine = self._folder / f"{HOLDER_NAME}.{os.getpid()}{PART_SUFFIX}"
        mine.write_bytes(Holder.this_process().model_dump_json().encode())
        try:
            for _ in range(ATTEMPTS):
                try:
                    self._claim(mine)
                except FileExistsError:
                    self._remove_stale()
                else:
                    return
            raise held(self._folder, Holder.read(self._note))
        finally:
            mine.unlink(missing_ok=True)

    def _claim(self, mine: Path) -> None:
        try:
            os.link(mine, self._note)
        except FileExistsError:
            raise
        except OSError:  # this file system has no hard links
            with self._note.open("xb") as file:
                file.write(mine.read_bytes())

    def _remove_stale(self) -> None:
        holder = Holder.read(self._note)
        if holder is not None and holder.is_alive:
            raise held(self._folder, holder)
        # Moved first and looked at then: between reading and removing, a living process may have put its own there.
        stale = self._folder / f"{HOLDER_NAME}.stale.{os.getpid()}{PART_SUFFIX}"
        with suppress(FileNotFoundError):
            self._note.rename(stale)
            if Holder.read(stale) != holder:
                with suppress(OSError):
                    self._claim(stale)
            stale.unlink()


def held(folder: Path, holder: Holder | None) -> FolderInUse:
    """What to tell whoever comes second."""
    if holder is None:
        problem = f"{folder}: another process is using this run folder."
        return FolderInUse(problem, "Wait until it has finished, or stop it; finished work is kept.")
    this = Holder.this_process()
    if (holder.pid, holder.host, holder.namespace) == (this.pid, this.host, this.namespace):
        return FolderInUse(f"{folder}: this process (pid {this.pid}) has the run folder open already.", "Close it first.")
    since = f" since {holder.since}" if holder.since else ""
    command = f": {_printable(holder.command)}" if holder.command else ""
    stop = f"`kill {holder.pid}`" if holder.is_local else f"`kill {holder.pid}` on {_printable(holder.host)}"
    return FolderInUse(
        f"{folder}: process {holder.pid} on {_printable(holder.host)} is using this run folder{_printable(since)}{command}",
        f"Wait until it has finished, or stop it ({stop}); finished work is kept.",
    )


def _printable(text: str) -> str:
    # The note is a file that anybody may have written: it must not steer a terminal.
    return "".join(c if c.isprintable() else "?" for c in text)


def _namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _started(pid: int) -> str | None:
    """When a process started; None if it is not there or has ended and only waits for its parent."""
    if sys.platform == "linux":  # in ticks since the machine started; psutil's time of day moves with the clock
        try:
            fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except OSError:
            return None
        return None if fields[0] in "ZXx" else fields[19]
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else repr(process.create_time())
    except psutil.Error:
        return None
