"""What `cai test` is to test, and by which model: read and checked before a model is loaded, every problem at once."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import typer

from cai.authoring.principle_tests import Case, cases_of
from cai.cli.feedback import feedback_of
from cai.cli.try_ import EMBEDDED
from cai.config import RunConfig, read_config
from cai.config.settings import EngineSettings
from cai.errors import CaiError, ConfigError, FolderInUse, ProblemList, unknown_principles
from cai.labels.settings import LabelSettings
from cai.models.caching import cache_folder
from cai.models.checking import check_model
from cai.models.spec import ModelSpec
from cai.store import RunFolder
from constitution.errors import ConstitutionError
from constitution.loading import load_constitution
from constitution.schema import Constitution

CACHE_NAME = "principle-tests"
LOOK_AGAIN_S = 0.3


@dataclass(frozen=True)
class Plan:
    """What is to be tested and by whom, checked."""

    constitution: Constitution
    cases: tuple[Case, ...]
    model: ModelSpec
    labels: LabelSettings
    engine: EngineSettings


def plan_tests(
    paths: list[str] | None,
    ids: list[str],
    text: str,
    model: str | None,
    feedback: str | None,
    config: Path | None,
    cache: Path | None,
    junit: Path | None,
    *,
    no_cache: bool,
) -> Plan:
    """Everything checked that can be checked without a model; all problems at once.

    Raises:
        ProblemList: With everything that is wrong.
    """
    problems: list[CaiError] = []
    run = config_of(config, problems)
    files = tuple(paths) if paths else run.constitution if run else ("shipped",)
    ids = ids or (list(run.principles) if run and not paths else [])
    spec = run.feedback_or_policy if run else None
    if model is not None or feedback is not None or config is None:
        try:
            spec = feedback_of(EMBEDDED if model is None else model, feedback)
        except ConfigError as error:
            problems.append(error)
    problems += check_model(spec) if spec else []
    if no_cache and cache is not None:
        problems.append(ConfigError("--cache and --no-cache are both given", "give one of them"))
    problems += _unwritable(junit)
    constitution: Constitution | None = None
    cases: tuple[Case, ...] = ()
    try:
        constitution = load_constitution(files)
    except ConstitutionError as error:
        problems += [ConfigError(str(each)) for each in error.errors]
    if constitution is not None:
        unknown = unknown_principles(ids, constitution.ids)
        problems += unknown
        if not unknown:
            constitution = constitution.select(tuple(ids)) if ids else constitution
            cases = cases_of(constitution, text)
            problems += [] if cases else [_nothing_to_test(constitution, text)]
    if problems or constitution is None or spec is None:
        raise ProblemList("These tests cannot be run:", problems)
    return Plan(constitution, cases, spec, run.labels if run else LabelSettings(), run.engine if run else EngineSettings())


def config_of(path: Path | None, problems: list[CaiError]) -> RunConfig | None:
    """The run that `--config` names; None without one, or where it cannot be read, which is added to the problems."""
    if path is None:
        return None
    try:
        return read_config(path).config
    except ProblemList as error:
        problems += error.problems
        return None


def _nothing_to_test(constitution: Constitution, text: str) -> CaiError:
    count = sum(len(principle.tests) for principle in constitution.principles)
    if count:
        return ConfigError(f"none of the {count} tests holds {text!r}", "-k looks in principle ids, prompts and replies")
    return ConfigError("none of these principles has tests", "write a `tests:` entry: a prompt, a better and a worse reply")


def _unwritable(file: Path | None) -> list[CaiError]:
    if file is None:
        return []
    if file.is_dir():
        return [ConfigError(f"--junit {file}: is a folder", "name a file")]
    there = next(parent for parent in file.absolute().parents if parent.exists())
    if there.is_dir() and os.access(there, os.W_OK):
        return []
    return [ConfigError(f"--junit {file}: cannot be written, because of {there}", "name a file in a folder of yours")]


@contextmanager
def opened_cache(cache: Path | None, *, no_cache: bool) -> Generator[RunFolder]:
    """The folder in which calls are kept: the one asked for, the user's own, or one that is thrown away.

    Where another process uses it, that one is waited for, and named: what it finds out need not be computed again.
    """
    if no_cache:
        with tempfile.TemporaryDirectory() as temporary, RunFolder.open(Path(temporary)) as folder:
            yield folder
        return
    with _awaited(cache or cache_folder() / CACHE_NAME) as folder:
        yield folder


def _awaited(path: Path) -> RunFolder:
    told = False
    while True:
        try:
            return RunFolder.open(path)
        except FolderInUse as error:
            if not told:
                typer.echo(f"Waiting: {error.problem}. Or choose: --cache DIR, --no-cache.", err=True)
                told = True
            time.sleep(LOOK_AGAIN_S)
