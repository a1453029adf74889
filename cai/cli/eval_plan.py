"""What `cai eval` is to ask of which models: read and checked before one is loaded, every problem at once."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from cai.config import RunConfig, read_config
from cai.config.settings import EngineSettings
from cai.engines.opening import check_engine
from cai.errors import CaiError, ConfigError, ModelError, ProblemList
from cai.evaluation.settings import EvaluationSettings
from cai.evaluation.suite_reading import WITHOUT_FILE, read_suites, shipped_suites
from cai.models.spec import DtypeName, ModelSpec
from cai.pipeline.evaluating import NamedModel
from cai.pipeline.run_models import models_of_run, run_of_folder

SERVER_MARK = "@http"


@dataclass(frozen=True)
class Asked:
    """The options of `cai eval` that say what is asked of whom."""

    run: Path | None
    settings: tuple[str, ...]
    suites: tuple[str, ...]
    models: tuple[str, ...]
    judge: str | None
    checkpoints: bool
    changes: dict[str, object]
    """Of the evaluation's settings."""
    seed: int | None
    dtype: DtypeName | None = None
    """Of the weights of the models that are named here."""


@dataclass(frozen=True)
class EvalPlan:
    """Checked: models, suites, judge. `folder` keeps the calls: the run's own, or None for a cache."""

    models: tuple[NamedModel, ...]
    suites: tuple[str, ...]
    left_out: tuple[str, ...]
    """Shipped suites that nobody named and that need a judge, where there is none."""
    judge: ModelSpec | None
    settings: EvaluationSettings
    engine: EngineSettings
    ground_tokens: int
    seed: int
    folder: Path | None


def model_of(text: str, dtype: DtypeName | None = None) -> ModelSpec:
    """`NAME`, `NAME+ADAPTER`, or `NAME@http://…/v1` for a model on a server, which has a precision of its own.

    Raises:
        ModelError: If a part is empty.
    """
    name, at, server = text.partition(SERVER_MARK)
    if at:
        return _spec(text, name=name, server=f"{SERVER_MARK[1:]}{server}")
    if Path(text).exists():
        return _spec(text, name=text, dtype=dtype or "auto")
    name, plus, adapter = text.partition("+")
    return _spec(text, name=name, adapter=adapter if plus else None, dtype=dtype or "auto")


def _spec(text: str, **values: str | None) -> ModelSpec:
    try:
        return ModelSpec.model_validate(values)
    except ValidationError as error:
        hint = "write NAME, NAME+ADAPTER or NAME@http://HOST/v1"
        raise ModelError(f"{text!r} names no model: {error.errors()[0]['msg']}", hint) from None


@contextmanager
def plan_evaluation(asked: Asked) -> Generator[EvalPlan]:
    """Everything checked that can be checked without a model.

    Raises:
        ProblemList: With everything that is wrong.
    """
    problems: list[CaiError] = []
    config = _config(asked, problems)
    with models_of_run(config, checkpoints=asked.checkpoints) if config else nullcontext(()) as of_run:
        models = _named((*of_run, *_models(asked, problems)))
        judge = _judge(asked, config, problems)
        problems += [problem for model in models for problem in check_engine(model.spec)]
        problems += check_engine(judge) if judge is not None else []
        if not models and not problems:
            problems.append(ConfigError("no model is named", "give --before and --after, --model, or a run"))
        settings = _settings(asked, config, problems)
        names, left_out = _suites(asked, config, judge, problems)
        if problems or settings is None:
            raise ProblemList("This evaluation cannot start:", problems)
        yield EvalPlan(
            models=models,
            suites=names,
            left_out=left_out,
            judge=judge,
            settings=settings,
            engine=config.engine if config else EngineSettings(),
            ground_tokens=config.labels.ground_tokens if config else 48,
            seed=asked.seed if asked.seed is not None else config.seed if config else 0,
            folder=config.run if config else None,
        )


def _config(asked: Asked, problems: list[CaiError]) -> RunConfig | None:
    if asked.run is None:
        if asked.checkpoints:
            problems.append(ConfigError("--checkpoints are those of a run", "name the run: cai eval RUN --checkpoints"))
        return None
    try:
        config = run_of_folder(asked.run) if asked.run.is_dir() else read_config(asked.run, asked.settings).config
    except ProblemList as error:
        problems += error.problems
        return None
    except CaiError as error:
        problems.append(error)
        return None
    if not config.run.is_dir():
        problems.append(ConfigError(f"{config.run}: there is no such run yet", "`cai run` makes it"))
        return None
    return config


def _models(asked: Asked, problems: list[CaiError]) -> list[NamedModel]:
    found: list[NamedModel] = []
    for name in asked.models:
        try:
            found.append(NamedModel(name, model_of(name, asked.dtype)))
        except ModelError as error:
            problems.append(error)
    return found


def _named(models: Sequence[NamedModel]) -> tuple[NamedModel, ...]:
    """Each under a name of its own: a model may be compared with itself."""
    taken: dict[str, int] = {}
    found: list[NamedModel] = []
    for model in models:
        taken[model.name] = number = taken.get(model.name, 0) + 1
        found.append(model if number == 1 else NamedModel(f"{model.name} ({number})", model.spec))
    return tuple(found)


def _judge(asked: Asked, config: RunConfig | None, problems: list[CaiError]) -> ModelSpec | None:
    if asked.judge is None:
        return None if config is None else config.evaluation.judge or config.feedback_or_policy
    try:
        return model_of(asked.judge, asked.dtype)
    except ModelError as error:
        problems.append(error)
        return None


def _settings(asked: Asked, config: RunConfig | None, problems: list[CaiError]) -> EvaluationSettings | None:
    base = config.evaluation if config else EvaluationSettings()
    changes = {name: value for name, value in asked.changes.items() if value is not None}
    try:
        return EvaluationSettings.model_validate(base.model_dump() | changes)
    except ValidationError as error:
        problems += [ConfigError(f"`{each['loc'][0]}`: {each['msg']}") for each in error.errors()]
        return None


def _suites(
    asked: Asked, config: RunConfig | None, judge: ModelSpec | None, problems: list[CaiError]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Suites to ask, and the shipped ones that are left out for want of a judge."""
    named = asked.suites or (config.evaluation.suites if config else ())
    try:
        read = read_suites([name for name in named or shipped_suites() if name not in WITHOUT_FILE])
    except ProblemList as error:
        problems += error.problems
        return (), ()
    lacking = tuple(each.name for each in read if judge is None and (each.file.judges or each.file.preference))
    if named:
        problems += [
            ConfigError(f"the suite {name} needs a judge", "name one: --judge MODEL, or MODEL+ADAPTER") for name in lacking
        ]
        return tuple(named), ()
    return tuple(name for name in shipped_suites() if name not in lacking), lacking
