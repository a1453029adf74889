"""What a run was made with, besides its own inputs: packages, machine, git commits, files that its settings name.

Nothing here says whose machine it was: no path, no user, no host.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from cai.config.settings import RunConfig
from cai.engines.scripts import PREFIX, is_script
from cai.models.fingerprints import file_digest
from cai.models.spec import ModelSpec
from cai.store import PROGRAM

GIT_SECONDS = 10
_NAME = re.compile(r"[A-Za-z0-9._-]+")


@cache
def packages() -> dict[str, str]:
    """Name (as pip normalises it) → version: of this program, and of all that it needs or could use and finds installed."""
    found: dict[str, str] = {}
    waiting = [PROGRAM]
    while waiting:
        name = _normalised(waiting.pop())
        if name in found:
            continue
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        found[name] = distribution.version
        waiting += [needed[0] for each in distribution.requires or () if (needed := _NAME.match(each))]
    return dict(sorted(found.items()))


def environment() -> dict[str, Any]:
    """The machine, as far as figures may depend on it."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": _processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        **_of_torch(),
    }


def commits() -> dict[str, Any]:
    """`program`: of this program, where it runs from a checkout; `work`: of the folder that the run was started in.

    Each `{"commit": …, "changed": whether tracked files differ from it}`, or None where there is no such repository.
    """
    own = Path(__file__).resolve().parent
    # An environment may lie inside a repository of somebody's, which does not hold the program for that.
    is_checkout = _git(own, "ls-files", "--error-unmatch", Path(__file__).name) is not None
    return {"program": _commit(own) if is_checkout else None, "work": _commit(Path.cwd())}


def noted_models(config: RunConfig) -> dict[str, ModelSpec]:
    """Role → model, of all that make something of a run or judge it."""
    judge = config.evaluation.judge
    return config.models | ({"suite judge": judge} if judge is not None else {})


def named_files(config: RunConfig) -> Iterator[tuple[str, Path]]:
    """The files that settings name and whose content the run depends on: key, path. Models and principles have fingerprints."""
    if config.prompts is not None:
        yield "prompts.path", Path(config.prompts.path)
    if config.labels.human is not None:
        yield "labels.human.path", Path(config.labels.human.path)
    yield from ((f"filters.evaluation_sets.{n}", Path(each)) for n, each in enumerate(config.filters.evaluation_sets))
    for number, mix in enumerate(config.sft.mix if config.sft is not None else ()):
        yield f"sft.mix.{number}.path", Path(mix.path)
    yield from ((f"evaluation.suites.{n}", Path(each)) for n, each in enumerate(config.evaluation.suites))
    for role, spec in noted_models(config).items():
        if spec.chat_template is not None:
            yield f"{role}.chat_template", spec.chat_template
        if is_script(spec.name):
            yield f"{role}.name", Path(spec.name.removeprefix(PREFIX))


def file_facts(config: RunConfig) -> dict[str, dict[str, Any]]:
    """Key of a setting → name, size and SHA-256 of the file that it names. What is no file (a hub id, a folder) is left out."""
    return {
        key: {"name": path.name, "bytes": path.stat().st_size, "sha256": file_digest(path)}
        for key, path in named_files(config)
        if path.is_file()
    }


def _normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # no such file on other systems
    return platform.processor() or platform.machine()


def _of_torch() -> dict[str, Any]:
    """Without torch no model is loaded here: the run is on a script, or on a server."""
    if (torch := sys.modules.get("torch")) is None:
        return {"device": platform.machine()}
    there = torch.cuda.is_available()
    return {
        "device": torch.cuda.get_device_name() if there else platform.machine(),
        "gpus": torch.cuda.device_count() if there else 0,
        "cuda": torch.version.cuda if there else None,
        "threads": torch.get_num_threads(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
    }


@cache
def _commit(folder: Path) -> dict[str, Any] | None:
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        return None
    return {"commit": commit, "changed": bool(_git(folder, "status", "--porcelain", "--untracked-files=no"))}


def _git(folder: Path, *command: str) -> str | None:
    """What git prints; None where it refuses, or is not there."""
    try:
        done = subprocess.run(  # noqa: S603 - fixed commands
            ["git", "-C", str(folder), *command],  # noqa: S607 - whichever git there is
            env=os.environ | {"GIT_OPTIONAL_LOCKS": "0"},
            capture_output=True,
            text=True,
            timeout=GIT_SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
