"""Audits and comparisons of constitutions on the prompts of a run, with its models, seed and remembered calls."""

from __future__ import annotations

from collections.abc import Sequence

from cai.authoring.audit import AuditSettings, OnAudit, audit, sample_items
from cai.authoring.audit_findings import tags_of
from cai.authoring.audit_results import AuditResult
from cai.authoring.comparison import ConstitutionComparison, EveryPrincipleSuite, OnCompared, compare
from cai.config.settings import RunConfig
from cai.errors import CaiError, ConfigError, ProblemList
from cai.evaluation.suites import Suite, Trial
from cai.lab.checker import check
from cai.lab.suite import BEHAVIOURS, LabSuite
from cai.lab.world import LabItem
from cai.loop.gate import gate_problems
from cai.pipeline.session import Session
from cai.records import Item
from constitution.schema import Constitution


def audit_constitution(session: Session, *, items: int, rows_per_pair: int, on_event: OnAudit | None = None) -> AuditResult:
    """Audit the run's principles on a sample of its training prompts. On lab prompts exact truth says what is not covered."""
    config = session.inputs.config
    return audit(
        sample_items(session.inputs.training_items, items, config.seed),
        session.inputs.constitution,
        session.policy,
        session.feedback,
        config.loop,
        AuditSettings(rows_per_pair=rows_per_pair, ground_tokens=config.labels.ground_tokens),
        seed=config.seed,
        truth=_truth,
        group=_behaviour,
        on_event=on_event,
    )


def compare_constitutions(
    session: Session, a: Constitution, b: Constitution, *, items: int, shown: int, on_event: OnCompared | None = None
) -> ConstitutionComparison:
    """Compare two constitutions on a sample of the run's training prompts.

    Lab prompts are judged by exact truth, others by the feedback model under every principle of both.
    """
    config = session.inputs.config
    sample = sample_items(session.inputs.training_items, items, config.seed)
    suite: Suite = (
        _lab_suite(sample)
        if config.lab is not None
        else EveryPrincipleSuite(sample, a, b, session.feedback, seed=config.seed, ground_tokens=config.labels.ground_tokens)
    )
    return compare(
        sample, a, b, session.policy, session.feedback, config.loop, suite, seed=config.seed, shown=shown, on_event=on_event
    )


def sides_in_use(sides: tuple[Constitution, Constitution], config: RunConfig) -> tuple[Constitution, Constitution]:
    """Each side with those of `config.principles` that it has; with all when none is named. What a side lacks is a difference.

    Raises:
        ProblemList: If a side has none of them, or not the principles that the gate asks.
    """
    wanted = config.principles
    selected = [side.select(tuple(p.id for p in side.principles if p.id in wanted)) if wanted else side for side in sides]
    problems: list[CaiError] = []
    for letter, side, chosen in zip("AB", sides, selected, strict=True):
        if not chosen.principles:
            problems.append(ConfigError(f"{letter} ({side.name}) has none of the principles {', '.join(wanted)}"))
        elif config.loop.gate is not None:
            found = gate_problems(config.loop.gate, chosen)
            problems += [ConfigError(f"{letter} ({side.name}): {each.problem}", each.hint) for each in found]
    if problems:
        raise ProblemList("These cannot be compared:", problems)
    return selected[0], selected[1]


def _truth(item: Item, reply: str) -> bool | None:
    if "lab" not in item.facts:
        return None
    return check(LabItem.from_row(item.facts), reply).label == "good"


def _behaviour(item: Item) -> str:
    if "lab" in item.facts:
        behaviour = BEHAVIOURS.get(LabItem.from_row(item.facts).family)
        if behaviour is not None:
            return behaviour.label
    return tags_of(item)


def _lab_suite(items: Sequence[Item]) -> LabSuite:
    return LabSuite([Trial(item, LabItem.from_row(item.facts).family) for item in items])
