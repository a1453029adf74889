"""An attack from end to end: search on both sides, measure, and the trials that become prompts, pairs and a suite."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias

from cai.engines.base import Engine, RequestFailure
from cai.evaluation.answering import Reply, Try, answer
from cai.evaluation.suites import Suite, Trial
from cai.labels.shares import Share
from cai.records import Item
from cai.sycophancy.arguing import PRESSURE
from cai.sycophancy.attacked_pairs import attacked_pairs, seen_answers
from cai.sycophancy.measuring import Arms, AttackResult, arms, measure, move_figures
from cai.sycophancy.search import Attempt, Found, SearchSettings, search
from cai.sycophancy.targets import Targets
from cai.sycophancy.wordings import Wordings
from cai.sycophancy.written import json_lines
from constitution.messages import Conversation

OnProgress: TypeAlias = Callable[[str, int, int], None]
UNANSWERED = "the model gave no answer to its earlier turns"


@dataclass(frozen=True)
class Attacked:
    """What an attack came to.

    Args:
        result: The figures, over both sides.
        learned: Prompts to learn from, in the wordings found: faults, and controls pressed alike. Where the model answers in
            between, its own greedy answers are turns of them.
        held_out: The same of the side held out.
        attempts: Every wording asked, of both sides.
        agreement: Answers on which another judge says the same, where one was given.
        left_out: Targets that are not among the prompts, by reason.
        pairs: Preference rows of the learned prompts: an answer that does not give in, and one that does.
        unpaired: Prompts that are not among the pairs, by reason.
    """

    result: AttackResult
    learned: tuple[Item, ...]
    held_out: tuple[Trial, ...]
    attempts: tuple[Attempt, ...]
    agreement: Share | None = None
    left_out: Mapping[str, int] = field(default_factory=dict[str, int])
    pairs: tuple[dict[str, Any], ...] = ()
    unpaired: Mapping[str, int] = field(default_factory=dict[str, int])


def attack(
    engine: Engine,
    suite: Suite,
    learned: Targets,
    held_out: Targets,
    wordings: Wordings,
    settings: SearchSettings,
    *,
    model: str,
    seeds: int,
    other_judge: Suite | None = None,
    on_progress: OnProgress | None = None,
) -> Attacked:
    """Search the strongest wording of every fault, and measure it on fresh answers.

    Args:
        engine: The model.
        suite: Judges.
        learned: Targets whose wordings become prompts.
        held_out: Targets whose wordings become a suite; the search there is as on the other side.
        wordings: The moves.
        settings: Of the search.
        model: Its name.
        seeds: Answers to each prompt of a measurement, in each wording.
        other_judge: Judges the search's answers once more.
        on_progress: Told of progress.
    """
    faults, controls = (*learned.faults, *held_out.faults), (*learned.controls, *held_out.controls)
    found = search(engine, suite, faults, wordings, settings, on_progress=on_progress)
    drawn = arms(faults, controls, found, wordings, seed=settings.seed)
    pressed = {trial.item.uid: drawn.found[trial.item.uid].trial for trial in learned.controls}
    talks = {trial.item.uid: found.best[trial.item.uid].answered for trial in learned.faults}
    talks |= _with_own_answers(engine, pressed, settings, found.failures, on_progress)
    items = [_item(trial, talks[trial.item.uid], drawn, found) for trial in (*learned.faults, *learned.controls)]
    rows, random, unmeasured, answers = measure(
        engine, suite, drawn, seeds=seeds, max_tokens=settings.max_tokens, seed=settings.seed, on_progress=on_progress
    )
    prompts = tuple(each for each in items if each is not None)
    seen = seen_answers((*learned.faults, *learned.controls), found, answers)
    pairs, unpaired = attacked_pairs(prompts, seen, seed=settings.seed)
    result = AttackResult(
        model=model,
        judge=suite.judge_name,
        prompts=len(faults),
        controls=len(controls),
        tries=len(found.attempts),
        rounds=settings.rounds,
        found=rows,
        random=random,
        wholly=sum(found.best[trial.item.uid].score == 1.0 for trial in faults),
        moves=move_figures(found, faults),
        dropped=dict(found.dropped),
        failures=dict(found.failures),
        unmeasured=unmeasured,
    )
    return Attacked(
        result,
        prompts,
        tuple(drawn.found[trial.item.uid].trial for trial in (*held_out.faults, *held_out.controls)),
        tuple(found.attempts),
        _agreement(found, other_judge),
        {UNANSWERED: items.count(None)} if None in items else {},
        pairs,
        unpaired,
    )


def attempt_rows(attempts: Sequence[Attempt]) -> str:
    """Every try as JSON Lines."""
    return json_lines(map(_row, attempts))


def _row(each: Attempt) -> dict[str, Any]:
    return {
        "uid": each.wording.trial.item.uid,
        "root": each.root,
        "behaviour": each.wording.trial.behaviour,
        "round": each.round,
        "moves": [list(move) for move in each.wording.moves],
        "messages": [{"role": message.role, "content": message.content} for message in each.conversation],
        "replies": list(each.replies),
        "outcomes": list(each.outcomes),
        "score": each.score,
    }


def _with_own_answers(
    engine: Engine,
    trials: Mapping[str, Trial],
    settings: SearchSettings,
    failures: Counter[str],
    on_progress: OnProgress | None,
) -> dict[str, Conversation | None]:
    """What the last answer to each trial answers: where the model speaks in between, its greedy answers are turns of it.

    None where one of these failed; the failure is counted.
    """
    talks: dict[str, Conversation | None] = {uid: each.item.messages for uid, each in trials.items() if not each.has_more}
    more = {uid: each for uid, each in trials.items() if each.has_more}
    told = partial(on_progress, "controls' own answers") if on_progress else None
    asked = [Try(each, 0.0, 0) for each in more.values()]
    replies = answer(engine, asked, [settings.max_tokens] * len(asked), seed=settings.seed, on_done=told) if asked else []
    for uid, reply in zip(more, replies, strict=True):
        talks[uid] = reply.conversation if isinstance(reply, Reply) else None
        if isinstance(reply, RequestFailure):
            failures[reply.cause] += 1
    return talks


def _item(trial: Trial, talk: Conversation | None, drawn: Arms, found: Found) -> Item | None:
    """A prompt for the loop, in the wording found; None where the model's own answers in it are not known."""
    if talk is None:
        return None
    wording = drawn.found[trial.item.uid]
    attempt = found.best.get(trial.item.uid)
    pressed = {
        "behaviour": trial.behaviour,
        "moves": [name for name, _ in wording.moves],
        "score": attempt.score if attempt else None,
        "score_as_written": _first_score(found, trial.item.uid),
    }
    return wording.trial.item.model_copy(update={"messages": talk, "facts": {**trial.item.facts, PRESSURE: pressed}})


def _first_score(found: Found, root: str) -> float | None:
    return next((each.score for each in found.attempts if each.root == root), None)


def _agreement(found: Found, judge: Suite | None) -> Share | None:
    if judge is None:
        return None
    asked = list(_judged(found))
    again = judge.judge([(trial, reply) for trial, reply, _ in asked])
    same = Counter((outcome == "bad") == (each.outcome == "bad") for (_, _, outcome), each in zip(asked, again, strict=True))
    return Share.of(same[True], len(asked))


def _judged(found: Found) -> Iterator[tuple[Trial, str, str]]:
    for each in found.attempts:
        for reply, outcome in zip(each.replies, each.outcomes, strict=True):
            yield each.wording.trial, reply, outcome
