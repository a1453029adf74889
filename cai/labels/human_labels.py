"""A labeller against people: how often both choose the same answer, beside judges that read nothing, and how sure it is.

Pairs labelled by people come in and are judged by the labels' own code; figures go out. Reads no file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from pydantic import BaseModel, ConfigDict

from cai.engines.base import Engine
from cai.labels.calibration import Calibration, calibration, fit_temperature, tempered
from cai.labels.ensemble import voice_margins
from cai.labels.settings import HumanLabelSettings, LabelSettings
from cai.labels.shares import Share
from cai.labels.trials import TrialPair, judge_pairs, undecided_reasons
from cai.records import ComparedPair, FailureRecord, PreferenceRecord
from constitution.messages import Conversation, spelt
from constitution.schema import Constitution, Principle
from constitution.selection import applicable

LEAST_FITTED = 10
"""Decided pairs that either half needs at least, for a temperature to be fitted and measured."""


@dataclass(frozen=True, slots=True)
class HumanPair:
    """Two answers, and the probability that people give to the first being better: 0 or 1, or a share of several verdicts.

    Which answer stands first is drawn from the pair's own text: a file's habit of writing the better one first tells nothing.
    """

    uid: str
    conversation: Conversation
    first: str
    second: str
    p_first: float
    tags: tuple[str, ...] = ()
    principle_ids: tuple[str, ...] = ()
    """Those that people judged by, where the row says so."""


@dataclass(frozen=True, slots=True)
class HumanSet:
    """Pairs labelled by people, as they were read.

    Args:
        source: Where they come from, in words.
        rows: In the source.
        pairs: At most as many as asked for, drawn by the hash of their text.
        invalid: Rows that could not be used.
        problems: Some of these, with place and cause.
        fingerprint: Of the pairs.
    """

    source: str
    rows: int
    pairs: tuple[HumanPair, ...]
    invalid: int
    problems: tuple[str, ...]
    fingerprint: str


class PrincipleAgreement(BaseModel):
    """Pairs that one principle judged, and how often it alone chose as people did; None where it chose none."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    principle_id: str
    agreement: Share | None


class TemperatureFit(BaseModel):
    """A temperature fitted on one part of the labels, and what it does to the calibration of the other part.

    `temperature` is None where none helps: on the part it was fitted on, margins do not speak for what people chose.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    fitted_on: int
    temperature: float | None
    before: Calibration
    after: Calibration | None


class HumanAgreement(BaseModel):
    """A labeller against people.

    Args:
        source: The pairs' file.
        rows: In it.
        invalid: Rows that could not be used.
        problems: Some of these.
        unjudged: Drawn from the rest, but no principle in use applies to them.
        pairs: Drawn, and judged.
        undecided: Why pairs of these were not decided, and how often.
        failed: Pairs of these for which the labeller gave no answer.
        ties: Pairs on which people are evenly divided: they count in the calibration alone.
        agreement: All pairs judged, by the sign of the margin, however small; a margin of exactly 0 counts half.
        coverage: Pairs decided, of those judged.
        decided_agreement: Of the decided ones; what labels there would be.
        always_first: A judge that names the first answer, as the order was drawn.
        always_a: A judge that names A in both orders: it decides nothing, and counts half.
        longer_wins: A judge that counts characters; equal lengths count half.
        by_principle: Each principle alone.
        temperature: The one in use.
        calibration: Of all decided labels, as they are.
        fit: None with too few labels.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str
    rows: int
    invalid: int
    problems: tuple[str, ...] = ()
    unjudged: int
    pairs: int
    undecided: dict[str, int]
    failed: int
    ties: int
    agreement: Share | None
    coverage: Share | None
    decided_agreement: Share | None
    always_first: Share | None
    always_a: Share | None
    longer_wins: Share | None
    by_principle: tuple[PrincipleAgreement, ...]
    temperature: float
    calibration: Calibration | None
    fit: TemperatureFit | None


def compare_with_people(
    human: HumanSet,
    constitution: Constitution,
    labellers: Sequence[Engine],
    settings: LabelSettings,
    asked: HumanLabelSettings,
    *,
    seed: int,
    on_done: Callable[[int, int], None] | None = None,
) -> HumanAgreement:
    """Have the labellers judge pairs that people have judged.

    Args:
        human: The pairs.
        constitution: The principles in use. A row that names principles is judged by those of them that it names.
        labellers: The models that label.
        settings: The labels'.
        asked: By which principles, and how the pairs are parted to fit a temperature.
        seed: Of the run.
        on_done: Called with (calls answered, calls in all).
    """
    by_principles = [(pair, _judging(pair, constitution, asked)) for pair in human.pairs]
    open_pairs = [(pair, principles) for pair, principles in by_principles if principles]
    trials = [TrialPair(p.uid, p.conversation, p.first, p.second, principles) for p, principles in open_pairs]
    made = judge_pairs(trials, labellers, settings, seed=seed, on_done=on_done) if trials else []
    judged = [(pair, each) for (pair, _), each in zip(open_pairs, made, strict=True)]
    return human_agreement(human, judged, settings, fit_share=asked.fit_share)


def _judging(pair: HumanPair, constitution: Constitution, asked: HumanLabelSettings) -> tuple[Principle, ...]:
    if pair.principle_ids:
        return tuple(principle for principle in constitution.principles if principle.id in pair.principle_ids)
    if isinstance(asked.principles, tuple):
        return constitution.select(asked.principles).principles
    return applicable(constitution, pair.tags)


def human_agreement(
    human: HumanSet,
    judged: Sequence[tuple[HumanPair, ComparedPair | FailureRecord]],
    settings: LabelSettings,
    *,
    fit_share: float,
) -> HumanAgreement:
    """Compare a labeller with people.

    Args:
        human: Where the pairs come from.
        judged: Each pair with what the labeller made of it; its first answer is that of the record.
        settings: The labels'.
        fit_share: Share of the decided labels that the temperature is fitted on; the rest is what it is measured on.
    """
    compared = [(pair, record) for pair, record in judged if not isinstance(record, FailureRecord)]
    sided = [(pair, record) for pair, record in compared if pair.p_first != 0.5]
    decided = [(pair, record) for pair, record in compared if isinstance(record, PreferenceRecord)]
    right = [_right(pair, record.first_margin_nats) for pair, record in sided]
    return HumanAgreement(
        source=human.source,
        rows=human.rows,
        invalid=human.invalid,
        problems=human.problems,
        unjudged=len(human.pairs) - len(judged),
        pairs=len(judged),
        undecided=undecided_reasons(record for _, record in compared),
        failed=len(judged) - len(compared),
        ties=len(compared) - len(sided),
        agreement=_share(right),
        coverage=Share.of(len(decided), len(compared)),
        decided_agreement=_share([_right(pair, each.first_margin_nats) for pair, each in decided if pair.p_first != 0.5]),
        always_first=_share([_right(pair, 1.0) for pair, _ in sided]),
        always_a=_share([0.5 for _ in sided]),
        longer_wins=_share([_right(pair, len(pair.first) - len(pair.second)) for pair, _ in sided]),
        by_principle=_by_principle(sided),
        temperature=settings.temperature,
        calibration=_calibration(decided, *_labels(decided)) if decided else None,
        fit=_fit(decided, settings, fit_share),
    )


def _right(pair: HumanPair, margin: float) -> float:
    """1 if the sign of the margin is that of the people's choice, 0 if not, 0.5 for a margin of 0."""
    return 0.5 if margin == 0 else float((margin > 0) == (pair.p_first > 0.5))


def _share(right: Sequence[float]) -> Share | None:
    return Share.of(sum(right), len(right))


def _by_principle(sided: Iterable[tuple[HumanPair, ComparedPair]]) -> tuple[PrincipleAgreement, ...]:
    found: dict[str, list[float]] = {}
    for pair, record in sided:
        by_principle: dict[str, list[float]] = {}
        for (_, principle_id), margin in voice_margins(record.comparisons).items():
            by_principle.setdefault(principle_id, []).append(margin)
        for principle_id, margins in by_principle.items():
            found.setdefault(principle_id, []).append(_right(pair, sum(margins)))
    return tuple(PrincipleAgreement(principle_id=each, agreement=_share(found[each])) for each in sorted(found))


def _labels(decided: Sequence[tuple[HumanPair, PreferenceRecord]]) -> tuple[np.ndarray, np.ndarray]:
    """p_chosen, and the probability that people give to the same answer."""
    targets = [pair.p_first if label.chosen_is_first else 1 - pair.p_first for pair, label in decided]
    return np.array([label.p_chosen for _, label in decided]), np.array(targets)


def _prompt(pair: HumanPair) -> str:
    """Pairs of one prompt are not independent: intervals resample prompts, and no prompt is on both sides of a fit."""
    return repr([spelt(each) for each in pair.conversation])


def _calibration(labels: Sequence[tuple[HumanPair, PreferenceRecord]], p_N: np.ndarray, target_N: np.ndarray) -> Calibration:
    return calibration(p_N, target_N, clusters=[_prompt(pair) for pair, _ in labels])


def _fit(
    decided: Sequence[tuple[HumanPair, PreferenceRecord]], settings: LabelSettings, fit_share: float
) -> TemperatureFit | None:
    by_prompt: dict[str, list[tuple[HumanPair, PreferenceRecord]]] = {}
    for each in decided:
        by_prompt.setdefault(_prompt(each[0]), []).append(each)
    fitted: list[tuple[HumanPair, PreferenceRecord]] = []
    measured: list[tuple[HumanPair, PreferenceRecord]] = []
    for prompt in sorted(by_prompt, key=lambda each: blake2b(f"fit {each}".encode("utf-8", "surrogatepass")).digest()):
        half = fitted if len(fitted) < round(len(decided) * fit_share) else measured
        half += sorted(by_prompt[prompt], key=lambda each: each[0].uid)
    if min(len(fitted), len(measured)) < LEAST_FITTED:
        return None
    temperature = fit_temperature(np.array([label.margin_nats for _, label in fitted]), _labels(fitted)[1])
    p_N, target_N = _labels(measured)
    after: Calibration | None = None
    if temperature is not None:
        margins = np.array([label.margin_nats for _, label in measured])
        after = _calibration(measured, tempered(margins, temperature, settings.max_p_chosen), target_N)
    before = _calibration(measured, p_N, target_N)
    return TemperatureFit(fitted_on=len(fitted), temperature=temperature, before=before, after=after)
