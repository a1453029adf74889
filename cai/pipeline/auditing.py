"""Audits and comparisons of constitutions on the prompts of a run, with its models, seed and remembered calls."""

from __future__ import annotations

from collections.abc import Sequence

from cai.authoring.audit import AuditSettings, OnAudit, audit, sample_items
from cai.authoring.audit_results import AuditResult
from cai.authoring.comparison import ConstitutionComparison, EveryPrincipleSuite, OnCompared, compare
from cai.errors import ConfigError
from cai.evaluation.suites import Suite, Trial
from cai.lab.checker import check
from cai.lab.suite import BEHAVIOURS, LabSuite
from cai.lab.world import LabItem
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


def in_use(constitution: Constitution, principles: Sequence[str]) -> Constitution:
    """The constitution with those of `principles` that it has; with all when none is named.

    Raises:
        ConfigError: If it has none of them.
    """
    known = tuple(p.id for p in constitution.principles if p.id in principles)
    if principles and not known:
        raise ConfigError(f"{constitution.name} has none of the principles {', '.join(principles)}")
    return constitution.select(known) if principles else constitution


def _truth(item: Item, reply: str) -> bool | None:
    if "lab" not in item.facts:
        return None
    return check(LabItem.from_row(item.facts), reply).label == "good"


def _behaviour(item: Item) -> str:
    if "lab" in item.facts:
        behaviour = BEHAVIOURS.get(LabItem.from_row(item.facts).family)
        if behaviour is not None:
            return behaviour.label
    return ", ".join(item.tags) or "without tags"


def _lab_suite(items: Sequence[Item]) -> LabSuite:
    return LabSuite([Trial(item, LabItem.from_row(item.facts).family) for item in items])
