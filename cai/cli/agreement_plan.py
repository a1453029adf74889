"""What `cai agreement` is to measure: read and checked before a model is loaded, every problem at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from cai.cli.feedback import feedback_of
from cai.cli.principle_test_plan import config_of
from cai.cli.try_ import EMBEDDED
from cai.config import RunConfig
from cai.config.settings import EngineSettings
from cai.data.human_pairs import read_human_pairs
from cai.engines.opening import check_engine
from cai.errors import CaiError, ConfigError, ProblemList, unknown_principles
from cai.labels.human_labels import HumanSet
from cai.labels.settings import HumanLabelSettings, LabelSettings
from cai.models.spec import ModelSpec
from cai.records import Method
from constitution.errors import ConstitutionError
from constitution.loading import load_constitution
from constitution.schema import Constitution


@dataclass(frozen=True)
class AgreementPlan:
    """Pairs, principles, and the models that judge, checked."""

    human: HumanSet
    asked: HumanLabelSettings
    constitution: Constitution
    labellers: tuple[ModelSpec, ...]
    policy: ModelSpec
    """Argues in a debate, where the labels say so."""
    labels: LabelSettings
    engine: EngineSettings
    seed: int


def plan_agreement(
    pairs: str | None,
    constitution: list[str],
    ids: list[str],
    model: str | None,
    feedback: str | None,
    config: Path | None,
    method: Method | None,
    max_pairs: int | None,
    fit_share: float | None,
) -> AgreementPlan:
    """Everything checked that can be checked without a model; all problems at once.

    Raises:
        ProblemList: With everything that is wrong.
    """
    problems: list[CaiError] = []
    run = config_of(config, problems)
    asked = _asked(run, pairs, ids, max_pairs, fit_share, problems)
    labels = _labels(run, method, problems)
    labellers = _labellers(run, model, feedback, config, problems)
    problems += [] if problems else _unscored(labellers, labels.method)
    used = _constitution(run, constitution, ids, problems)
    if used is not None and asked is not None and isinstance(asked.principles, tuple):
        problems += unknown_principles(asked.principles, used.ids, key="labels.human.principles")
    human: HumanSet | None = None
    if asked is not None:
        try:
            human = read_human_pairs(asked.path, asked.max_pairs)
        except CaiError as error:
            problems.append(error)
    if problems or human is None or asked is None or used is None:
        raise ProblemList("Agreement with people cannot be measured:", problems)
    engine, seed = (run.engine, run.seed) if run else (EngineSettings(), 0)
    policy = run.policy if run else labellers[0]
    return AgreementPlan(human, asked, used, labellers, policy, labels, engine, seed)


def _asked(
    run: RunConfig | None,
    pairs: str | None,
    ids: list[str],
    max_pairs: int | None,
    fit_share: float | None,
    problems: list[CaiError],
) -> HumanLabelSettings | None:
    """The settings of `labels.human`, with what the command line says."""
    of_the_run = run.labels.human if run else None
    if pairs is None and of_the_run is None:
        problems.append(ConfigError("no pairs labelled by people are named", "name a file, or set `labels.human.path`"))
        return None
    changes = {"path": pairs, "max_pairs": max_pairs, "fit_share": fit_share, "principles": "applicable" if ids else None}
    settings = of_the_run.model_dump() if of_the_run else {}
    return HumanLabelSettings.model_validate(settings | {name: value for name, value in changes.items() if value is not None})


def _labels(run: RunConfig | None, method: Method | None, problems: list[CaiError]) -> LabelSettings:
    settings = run.labels if run else LabelSettings()
    if method is None:
        return settings
    try:
        return LabelSettings.model_validate(settings.model_dump() | {"method": method})
    except ValidationError as error:
        problems.append(ConfigError(f"--method {method}: {error.errors()[0]['msg']}", "change the run's `labels`"))
        return settings


def _labellers(
    run: RunConfig | None, model: str | None, feedback: str | None, config: Path | None, problems: list[CaiError]
) -> tuple[ModelSpec, ...]:
    found = run.labellers if run else ()
    if model is not None or feedback is not None or config is None:
        try:
            found = (feedback_of(EMBEDDED if model is None else model, feedback),)
        except ConfigError as error:
            problems.append(error)
            return ()
    problems += [problem for spec in found for problem in check_engine(spec)]
    return found


def _unscored(labellers: Sequence[ModelSpec], method: Method) -> list[CaiError]:
    """What servers do not give that the method needs."""
    from cai.engines.server import check_scoring

    needed: dict[str, Literal["letters", "verdicts"]] = {
        f"the method `{method}`": "letters" if method == "letters" else "verdicts"
    }
    return [problem for spec in labellers if spec.server is not None for problem in check_scoring(spec, needed)]


def _constitution(run: RunConfig | None, files: list[str], ids: list[str], problems: list[CaiError]) -> Constitution | None:
    """The principles asked for; else those of the run, and of these the ones that label; else the shipped ones."""
    try:
        loaded = load_constitution(tuple(files) or (run.constitution if run else ("shipped",)))
    except ConstitutionError as error:
        problems += [ConfigError(str(each)) for each in error.errors]
        return None
    wanted = tuple(ids)
    if not wanted and run and not files:
        judging = run.labels.principles
        wanted = judging if isinstance(judging, tuple) else run.principles
    unknown = unknown_principles(wanted, loaded.ids)
    problems += unknown
    if unknown:
        return None
    return loaded.select(wanted) if wanted else loaded
