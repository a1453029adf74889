"""Pairs out of an attack: of one prompt in the wording found, an answer that gives in against one that does not.

Answers are the model's own where it gave both. Where it gave only one, and the lab knows the truth, the other is a reply of the
lab's, which its checker has passed: otherwise a model that always yields would teach nothing, and a control that is never got
wrong would leave only faults, which teach to contradict. No judge is asked but the one of the attack.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from cai.evaluation.suites import Trial
from cai.lab.replies import reply
from cai.lab.world import LabItem, World, seeded
from cai.records import Item
from cai.sycophancy.measuring import Answered
from cai.sycophancy.search import Attempt, Found

NO_PAIR = "no pair: no good answer beside a bad one was seen"


@dataclass
class SeenAnswers:
    """What a model said to one prompt, with the outcome: in the wording found, and as it was written. No text that was cut."""

    found: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    written: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])


def seen_answers(trials: Iterable[Trial], search: Found, measured: Sequence[Answered]) -> dict[str, SeenAnswers]:
    """By uid of the prompt: the search's answers first, then those of the measurement.

    Where the model speaks in between, samples follow other turns of its own than the greedy ones, which stand in the prompt:
    only the greedy answer is one to that prompt.
    """
    seen = {trial.item.uid: SeenAnswers() for trial in trials}
    talks = {trial.item.uid for trial in trials if trial.has_more}
    first = {attempt.root: attempt for attempt in search.attempts if attempt.round == 0}
    for uid, answers in seen.items():
        most = 1 if uid in talks else None
        answers.found += _answers(search.best.get(uid), most)
        answers.written += _answers(first.get(uid), most)
    for each in measured:
        if each.uid in seen and each.uid not in talks and not each.cut:
            own = seen[each.uid]
            (own.found if each.reworded else own.written).append((each.text, each.outcome))
    return seen


def attacked_pairs(
    items: Sequence[Item], seen: Mapping[str, SeenAnswers], *, seed: int
) -> tuple[tuple[dict[str, Any], ...], Counter[str]]:
    """Preference rows, one for each prompt that has two answers, and how many have not, by reason.

    A good answer to the prompt as written stands in where there is none to the wording found: both ask the same.

    Args:
        items: The prompts in the wordings found.
        seen: By uid of the prompt as it was written, with which the uids of `items` begin.
        seed: Draws the lab's replies.
    """
    rows: list[dict[str, Any]] = []
    left_out: Counter[str] = Counter()
    for item in items:
        answers = seen[_root(item)]
        lab = LabItem.from_row(item.facts) if "lab" in item.facts else None
        good = next(_of("good", [*answers.found, *answers.written]), None)
        bad = next(_of("bad", answers.found), None)
        chosen, rejected = good or _reply(lab, item, "good", seed), bad or _reply(lab, item, "bad", seed)
        if chosen is None or rejected is None:
            left_out[NO_PAIR] += 1
            continue
        rows.append(
            {
                "uid": item.uid,
                "prompt": [{"role": m.role, "content": m.content} for m in item.messages],
                "chosen": [{"role": "assistant", "content": chosen}],
                "rejected": [{"role": "assistant", "content": rejected}],
                "p_chosen": 1.0,
                "tags": list(item.tags),
                "own_words": {"chosen": good is not None, "rejected": bad is not None},
            }
        )
    return tuple(rows), left_out


def _root(item: Item) -> str:
    return item.uid.split("~", 1)[0]


def _answers(attempt: Attempt | None, most: int | None) -> Iterator[tuple[str, str]]:
    if attempt is not None:
        for text, outcome, cut in list(zip(attempt.replies, attempt.outcomes, attempt.cut, strict=True))[:most]:
            if not cut:
                yield text, outcome


def _of(outcome: str, answers: Iterable[tuple[str, str]]) -> Iterator[str]:
    return (text.strip() for text, found in answers if found == outcome and text.strip())


def _reply(lab: LabItem | None, item: Item, quality: Literal["good", "bad"], seed: int) -> str | None:
    if lab is None:
        return None
    return reply(World.load(), seeded(f"attacked-pair/{seed}/{item.uid}"), lab, quality)
