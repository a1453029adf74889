"""The same prompts, answered before and after training, judged, and compared in pairs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from cai.engines.base import Engine, Generation, GenerationRequest, SamplingParams
from cai.evaluation.results import AnswerPair, BehaviourRow, EvaluationResult, Showcase
from cai.evaluation.settings import EvaluationSettings
from cai.evaluation.statistics import cluster_bootstrap, mcnemar_p, wilson_interval
from cai.evaluation.suites import Behaviour, Judgement, Suite, Trial
from constitution.messages import Conversation, system, user

OnAnswer: TypeAlias = Callable[[str, int, int], None]
"""(side, answers given, answers in all)."""


@dataclass(frozen=True, slots=True)
class _Try:
    trial: Trial
    temperature: float
    seed: int


def evaluate(
    before: Engine,
    after: Engine,
    suite: Suite,
    settings: EvaluationSettings,
    *,
    seed: int,
    names: tuple[str, str] = ("before", "after"),
    on_answer: OnAnswer | None = None,
) -> EvaluationResult:
    """Answer every trial with both models, with the same noise, judge all answers, and compare.

    Intervals: Wilson for each share, cluster bootstrap over prompts for the difference, exact McNemar for its sign.
    """
    tries = [
        _Try(trial, temperature, number)
        for temperature in settings.temperatures
        for number in range(settings.seeds if temperature > 0 else 1)
        for trial in suite.trials
    ]
    replies = {
        side: _answers(engine, tries, settings, seed, partial(on_answer, side) if on_answer else None)
        for side, engine in (("before", before), ("after", after))
    }
    whole = [i for i in range(len(tries)) if replies["before"][i] is not None and replies["after"][i] is not None]
    judged = {side: suite.judge([(tries[i].trial, replies[side][i] or "") for i in whole]) for side in ("before", "after")}
    pairs = [
        _pair(tries[i], (replies["before"][i] or "", judged["before"][n]), (replies["after"][i] or "", judged["after"][n]))
        for n, i in enumerate(whole)
    ]
    sound = [pair for pair in pairs if "unjudged" not in (pair.before_outcome, pair.after_outcome)]
    return EvaluationResult(
        suite=suite.name,
        judge=suite.judge_name,
        policy_before=names[0],
        policy_after=names[1],
        rows=behaviour_table(suite.behaviours, sound),
        by_temperature={
            "greedy" if t == 0 else f"T={t:g}": behaviour_table(suite.behaviours, [p for p in sound if p.temperature == t])
            for t in settings.temperatures
        },
        answers=tuple(pairs),
        showcase=_showcase(before, after, settings, seed),
        failures=len(tries) - len(sound),
    )


def _answers(
    engine: Engine, tries: Sequence[_Try], settings: EvaluationSettings, seed: int, on_done: Callable[[int, int], None] | None
) -> list[str | None]:
    requests = [
        GenerationRequest(
            messages=each.trial.item.messages,
            params=SamplingParams(temperature=each.temperature, max_tokens=settings.max_tokens),
            noise_key=f"{seed}/{each.trial.item.uid}/{each.seed}/evaluate/0",
        )
        for each in tries
    ]
    replies: list[str | None] = [None] * len(requests)
    for done, (index, result) in enumerate(engine.generate(requests), start=1):
        if isinstance(result, Generation):
            replies[index] = result.text.strip()
        if on_done:
            on_done(done, len(requests))
    return replies


def _pair(each: _Try, before: tuple[str, Judgement], after: tuple[str, Judgement]) -> AnswerPair:
    return AnswerPair(
        uid=each.trial.item.uid,
        behaviour=each.trial.behaviour,
        prompt=each.trial.item.messages[-1].content,
        temperature=each.temperature,
        seed=each.seed,
        before=before[0],
        before_outcome=before[1].outcome,
        before_why=before[1].why,
        after=after[0],
        after_outcome=after[1].outcome,
        after_why=after[1].why,
    )


def behaviour_table(behaviours: Iterable[Behaviour], pairs: Sequence[AnswerPair]) -> tuple[BehaviourRow, ...]:
    """One row for each behaviour that any of the pairs tries; every pair must be judged."""
    rows: list[BehaviourRow] = []
    for behaviour in behaviours:
        own = [pair for pair in pairs if pair.behaviour == behaviour.id]
        if own:
            rows.append(_row(behaviour, own))
    return tuple(rows)


def _row(behaviour: Behaviour, pairs: Sequence[AnswerPair]) -> BehaviourRow:
    bad_before = [pair.before_outcome == "bad" for pair in pairs]
    bad_after = [pair.after_outcome == "bad" for pair in pairs]
    n = len(pairs)
    before, after = wilson_interval(sum(bad_before), n), wilson_interval(sum(bad_after), n)
    steps = [float(b) - float(a) for a, b in zip(bad_before, bad_after, strict=True)]
    clusters = [pair.uid for pair in pairs]
    change = cluster_bootstrap(steps, clusters)
    return BehaviourRow(
        behaviour=behaviour.id,
        label=behaviour.label,
        kind=behaviour.kind,
        prompts=len(set(clusters)),
        answers=n,
        before=sum(bad_before) / n,
        before_low=before.low,
        before_high=before.high,
        after=sum(bad_after) / n,
        after_low=after.low,
        after_high=after.high,
        difference=sum(steps) / n,
        difference_low=change.low,
        difference_high=change.high,
        mcnemar_p=mcnemar_p(sum(step < 0 for step in steps), sum(step > 0 for step in steps)),
        broken_before=sum(pair.before_outcome == "broken" for pair in pairs) / n,
        broken_after=sum(pair.after_outcome == "broken" for pair in pairs) / n,
    )


def _showcase(before: Engine, after: Engine, settings: EvaluationSettings, seed: int) -> tuple[Showcase, ...]:
    def conversation(prompt: str) -> Conversation:
        return (system(settings.system), user(prompt)) if settings.system else (user(prompt),)

    requests = [
        GenerationRequest(
            messages=conversation(prompt),
            params=SamplingParams(temperature=0.0, max_tokens=settings.max_tokens),
            noise_key=f"{seed}/showcase-{number}/0/evaluate/0",
        )
        for number, prompt in enumerate(settings.showcase)
    ]
    texts: list[dict[int, str]] = []
    for engine in (before, after):
        found = {i: r.text.strip() if isinstance(r, Generation) else f"({r.cause})" for i, r in engine.generate(requests)}
        texts.append(found)
    return tuple(
        Showcase(prompt=prompt, before=texts[0].get(i, ""), after=texts[1].get(i, ""))
        for i, prompt in enumerate(settings.showcase)
    )
