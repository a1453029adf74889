"""The same prompts, answered before and after training, judged, and compared in pairs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeAlias

from cai.engines.base import Engine, Generation, GenerationRequest, RequestFailure, SamplingParams
from cai.evaluation.answering import Reply, Try, answer, tries
from cai.evaluation.results import SMALLEST_DIFFERENCE, AnswerPair, BehaviourRow, EvaluationResult, Showcase
from cai.evaluation.settings import EvaluationSettings
from cai.evaluation.suites import Behaviour, Judgement, Suite, Trial
from cai.statistics import cluster_bootstrap, cluster_share_interval, clusters_needed, sign_flip_p
from constitution.messages import Conversation, system, user

OnAnswer: TypeAlias = Callable[[str, int, int], None]
"""(side, answers given, answers in all)."""


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

    Intervals: Wilson over clusters for each share, cluster bootstrap for the difference. For its sign the McNemar test, where
    the changes of one cluster (answers to one prompt, or prompts about one thing) go together (`sign_flip_p`).
    """
    asked = tries(suite.trials, settings)
    replies = {
        side: answer(
            engine,
            asked,
            [settings.max_tokens] * len(asked),
            seed=seed,
            on_done=partial(on_answer, side) if on_answer else None,
        )
        for side, engine in (("before", before), ("after", after))
    }
    pairs = paired(asked, *(judged_answers(suite, asked, replies[side]) for side in ("before", "after")))
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
        failures=len(asked) - len(sound),
    )


def judged_answers(
    suite: Suite, asked: Sequence[Try], replies: Sequence[Reply | RequestFailure]
) -> list[tuple[Reply, Judgement] | None]:
    """Every answer with what the suite says of it; None where there was none."""
    whole = [(place, reply) for place, reply in enumerate(replies) if isinstance(reply, Reply)]
    judged = suite.judge([(_as_asked(asked[place].trial, reply), reply.text) for place, reply in whole])
    found: list[tuple[Reply, Judgement] | None] = [None] * len(replies)
    for (place, reply), judgement in zip(whole, judged, strict=True):
        found[place] = reply, judgement
    return found


def _as_asked(trial: Trial, reply: Reply) -> Trial:
    """The trial with the conversation that was answered: a judge reads all of it."""
    if not trial.has_more:
        return trial
    return replace(trial, item=trial.item.model_copy(update={"messages": reply.conversation}))


def paired(
    asked: Sequence[Try],
    before: Sequence[tuple[Reply, Judgement] | None],
    after: Sequence[tuple[Reply, Judgement] | None],
) -> list[AnswerPair]:
    """Judged answers of both sides to the same tries, side by side; tries that one of them lacks are left out."""
    return [
        AnswerPair(
            uid=each.trial.item.uid,
            behaviour=each.trial.behaviour,
            prompt=each.trial.item.messages[-1].content,
            cluster=each.trial.cluster,
            temperature=each.temperature,
            seed=each.number,
            before=one[0].text,
            before_outcome=one[1].outcome,
            before_why=one[1].why,
            after=two[0].text,
            after_outcome=two[1].outcome,
            after_why=two[1].why,
        )
        for each, one, two in zip(asked, before, after, strict=True)
        if one is not None and two is not None
    ]


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
    steps = [float(b) - float(a) for a, b in zip(bad_before, bad_after, strict=True)]
    clusters = [pair.cluster or pair.uid for pair in pairs]
    before, after = cluster_share_interval(bad_before, clusters), cluster_share_interval(bad_after, clusters)
    change = cluster_bootstrap(steps, clusters)
    return BehaviourRow(
        behaviour=behaviour.id,
        label=behaviour.label,
        kind=behaviour.kind,
        twin=behaviour.twin,
        prompts=len({pair.uid for pair in pairs}),
        clusters=len(set(clusters)),
        clusters_needed=clusters_needed(steps, clusters, SMALLEST_DIFFERENCE),
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
        mcnemar_p=sign_flip_p(steps, clusters),
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
