"""The paper's comparisons of two replies: its HHH evaluations (JSON lines) and the examples for its preference model.

Rows are `{prompt, corrects, incorrects, text_correct?, text_incorrect?}`. In the evaluations the prompt holds the conversation,
a rule, and two options ` (A) [[[…]]]`, and `corrects` names one of them: `[" (A)"]`. In the examples the prompt is the
conversation alone, and `corrects` and `incorrects` are the replies. Each row becomes a test of the rule it states.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from constitution.documents import Path
from constitution.importing import transcripts
from constitution.importing.exporting import given, is_from
from constitution.importing.findings import Fate
from constitution.importing.gathering import Gathering
from constitution.importing.sources import Source
from constitution.importing.transcripts import ASSISTANT, HUMAN, prompt_of
from constitution.rendering import principle_text
from constitution.schema import Constitution, Principle, PrincipleTest

NAME = "paper-comparisons"
UNSTATED_RULE = "Be helpful, honest and harmless."
"""Stands for the rule where a row states none."""

_BEFORE_RULE, _AFTER_RULE = "\n\n\n", " Options:\n (A) [[["
_BETWEEN, _AFTER = "]]]\n (B) [[[", "]]]\n\nThe answer is:"
_LETTERS = {"A": " (A)", "B": " (B)"}
_OPEN = ASSISTANT.rstrip()
_DEFAULT_LEAD = "\n\nHere is a conversation between a human and an assistant:"
_LEAD, _CORRECT, _TEXTS, _ORDER = "lead", "correct", "texts", "order"
_ROW = frozenset({"prompt", "corrects", "incorrects", "text_correct", "text_incorrect"})


def recognise(source: Source) -> bool:
    return any({"prompt", "corrects", "incorrects"} <= entry.keys() for entry in source.objects)


@dataclass(frozen=True)
class _Row:
    """One comparison. `correct` is the letter of the better reply, "" where there are no options; `lead` stands before all."""

    rule: str
    lead: str
    correct: str
    with_texts: bool
    test: PrincipleTest


def read(gathering: Gathering) -> None:
    groups: dict[tuple[str, str, bool, bool], list[_Row]] = {}
    order: list[tuple[str, str, bool, bool]] = []
    places: dict[tuple[str, str, bool, bool], Path] = {}
    for path, entry in gathering.objects((), gathering.source.data):
        row = _row(gathering, path, entry)
        if row is not None:
            key = (row.rule, row.lead, bool(row.correct), row.with_texts)
            groups.setdefault(key, []).append(row)
            places.setdefault(key, path)
            order.append(key)
    ids: dict[tuple[str, str, bool, bool], str] = {}
    for key, rows in groups.items():
        rule, lead, lettered, with_texts = key
        about = {_LEAD: lead, _CORRECT: "".join(row.correct for row in rows)} if lettered else {}
        about |= {_TEXTS: "with"} if with_texts else {}
        principle = rule or UNSTATED_RULE
        if gathering.add(
            places[key], words=principle, principle=principle, tests=tuple(row.test for row in rows), source=about
        ):
            ids[key] = gathering.principles[-1].id
            told = f"`{ids[key]}`, the rule they state" if rule else f"`{ids[key]}`: they state no rule, so it is ours"
            gathering.remarks.append(f"{len(rows)} comparisons are tests of {told}.")
    _remember_order(gathering, [ids[key] for key in order if key in ids])
    gathering.remarks += transcripts.told((row.test.prompt for rows in groups.values() for row in rows), "test")


def write(constitution: Constitution) -> object:
    waiting = {
        principle.id: [_entry(principle, number, test) for number, test in enumerate(principle.tests)]
        for principle in constitution.principles
    }
    order = constitution.source.get(_ORDER, "").split() if is_from(constitution, NAME) else []
    rows = [waiting[identity].pop(0) for identity in order if waiting.get(identity)]
    return rows + [row for rest in waiting.values() for row in rest]


def _remember_order(gathering: Gathering, order: list[str]) -> None:
    # With one rule, or rows in the rules' own order, the tests themselves hold it.
    in_order = [identity for principle in gathering.principles for identity in [principle.id] * order.count(principle.id)]
    if order != in_order:
        gathering.remember(_ORDER, " ".join(order))


def _row(gathering: Gathering, path: Path, entry: Mapping[str, Any]) -> _Row | None:
    prompt = gathering.text(path, entry, "prompt")
    correct, incorrect = (_only(gathering, path, entry, key) for key in ("corrects", "incorrects"))
    if prompt is None or correct is None or incorrect is None:
        return None
    for key in entry.keys() - _ROW:
        gathering.lose((*path, key), f"`{key}` has no place in a test", Fate.PART)
    with_texts = {"text_correct", "text_incorrect"} <= entry.keys()
    if {correct, incorrect} == set(_LETTERS.values()):
        return _with_options(gathering, path, prompt, correct, with_texts=with_texts)
    conversation = prompt_of(prompt.removesuffix(_OPEN))
    if conversation is None or not prompt.endswith(_OPEN):
        gathering.lose((*path, "prompt"), "one conversation from 'Human:' to 'Assistant:' is expected", Fate.ENTRY)
        return None
    test = gathering.test(path, prompt=conversation, better=correct, worse=incorrect)
    return test and _Row("", "", "", with_texts, test)


def _with_options(gathering: Gathering, path: Path, prompt: str, correct: str, *, with_texts: bool) -> _Row | None:
    head, has_options, options = prompt.partition(_AFTER_RULE)
    first, has_second, rest = options.partition(_BETWEEN)
    second, has_end, beyond = rest.rpartition(_AFTER)
    asked, has_rule, rule = head.rpartition(_BEFORE_RULE)
    lead, has_turn, conversation = asked.partition(HUMAN)
    if not (has_options and has_second and has_end and has_rule and has_turn) or beyond:
        gathering.lose((*path, "prompt"), "its options are no replies in [[[…]]] after a conversation and a rule", Fate.ENTRY)
        return None
    letter = next(letter for letter, label in _LETTERS.items() if label == correct)
    better, worse = (first, second) if letter == "A" else (second, first)
    test = gathering.test(path, prompt=conversation, better=better, worse=worse)
    return test and _Row(rule, lead, letter, with_texts, test)


def _only(gathering: Gathering, path: Path, entry: Mapping[str, Any], key: str) -> str | None:
    answers: object = entry.get(key)
    found = cast("list[object]", answers) if isinstance(answers, list) else []
    if len(found) == 1 and isinstance(found[0], str):
        return found[0]
    gathering.lose((*path, key), f"`{key}` has to hold one text: only two replies can be compared", Fate.ENTRY)
    return None


def _entry(principle: Principle, number: int, test: PrincipleTest) -> dict[str, object]:
    letters = principle.source.get(_CORRECT, "")
    imported = _LEAD in principle.source or _TEXTS in principle.source or principle.principle == UNSTATED_RULE
    letter = letters[number] if number < len(letters) else "" if imported and not letters else "AB"[number % 2]
    texts = {
        "text_correct": f"{HUMAN}{test.prompt}{ASSISTANT}{test.better}",
        "text_incorrect": f"{HUMAN}{test.prompt}{ASSISTANT}{test.worse}",
    }
    if not imported or _TEXTS in principle.source:
        shown: dict[str, object] = dict(texts)
    else:
        shown = {}
    if not letter:
        prompt = f"{HUMAN}{test.prompt}{_OPEN}"
        return {"prompt": prompt, "corrects": [test.better], "incorrects": [test.worse], **shown}
    first, second = (test.better, test.worse) if letter == "A" else (test.worse, test.better)
    rule = given(principle, "principle") or principle_text(principle)
    lead = principle.source.get(_LEAD, _DEFAULT_LEAD)
    prompt = f"{lead}{HUMAN}{test.prompt}{_BEFORE_RULE}{rule}{_AFTER_RULE}{first}{_BETWEEN}{second}{_AFTER}"
    other = _LETTERS["B" if letter == "A" else "A"]
    return {"prompt": prompt, "corrects": [_LETTERS[letter]], "incorrects": [other], **shown}
