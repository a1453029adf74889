"""From a checked suite to what is asked: every combination of table rows as a conversation, its checker filled in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import product, zip_longest
from typing import Any

from cai.evaluation.suite_files import CalibrationEntry, CallPattern, Checker, Prompts
from cai.evaluation.suite_reading import ReadSuite
from cai.evaluation.suites import Behaviour, Trial
from cai.evaluation.tool_turns import ToolTurns
from cai.records import Item
from constitution.messages import Message, assistant, system, user, with_tools
from constitution.templating import render_text

CHECK = "check"
"""Where an item's `facts` hold its check, as `cai.evaluation.checks` reads it."""


@dataclass(frozen=True)
class Question:
    """A question with options, of which the first is true.

    Args:
        item: The question; its `facts` hold the check of a stated answer.
        cluster: What it is about.
        beginning: How the answer begins; an option follows it.
        options: Texts.
        stated: The conversation that asks for the answer and how sure the model is; None: not asked.
    """

    item: Item
    cluster: str
    beginning: str
    options: tuple[str, ...]
    stated: Trial | None


def behaviours(suite: ReadSuite) -> list[Behaviour]:
    """What the suite counts."""
    return [Behaviour(id=each.id, label=each.label, kind=each.kind, twin=each.twin) for each in suite.file.behaviours]


def trials(suite: ReadSuite, most: int | None = None) -> list[Trial]:
    """Every prompt of every behaviour, at most so many of each."""
    found: list[Trial] = []
    for entry in suite.file.behaviours:
        found += _in_turn([list(_trials(suite, each, entry.id, entry.checker)) for each in entry.prompts], most)
    return found


def open_trials(suite: ReadSuite, section: str, prompts: Sequence[Prompts], most: int | None = None) -> list[Trial]:
    """The prompts of a section that has no checker."""
    return _in_turn([list(_trials(suite, each, section, None)) for each in prompts], most)


def questions(suite: ReadSuite, entry: CalibrationEntry, most: int | None = None) -> list[Question]:
    """The questions of the calibration."""
    found: list[Question] = []
    for values, cluster in _combinations(suite, entry.for_each, entry.take):
        stated: Trial | None = None
        if entry.stated is not None:
            turns = (*_system(suite), user(render_text(entry.stated.prompt, values)))
            stated = _trial(suite, "stated", turns, (), cluster, filled(entry.stated.checker, values))
        turns = (*_system(suite), user(render_text(entry.prompt, values)))
        options = tuple(render_text(option, values) for option in entry.options)
        item = _trial(suite, "calibration", turns, (), cluster, None).item
        found.append(Question(item, cluster, render_text(entry.beginning, values), options, stated))
    return found[:most]


def _in_turn(families: Sequence[list[Trial]], most: int | None) -> list[Trial]:
    """At most so many trials, one of each family after the other; the first rows of a family are as mixed as all of it."""
    mixed = [each for rank in zip_longest(*families) for each in rank if each is not None]
    return mixed[:most]


def filled(checker: Checker, values: Mapping[str, Any]) -> dict[str, Any]:
    """A checker with its templates filled in, as `cai.evaluation.checks` reads it."""
    if checker.exact is not None:
        sides = {"accept": checker.exact.accept, "reject": checker.exact.reject}
        return {"exact": {side: [render_text(each, values) for each in texts] for side, texts in sides.items()}}
    for kind in ("first", "all", "any"):
        parts: tuple[Checker, ...] | None = getattr(checker, kind)
        if parts is not None:
            return {kind: [filled(part, values) for part in parts]}
    if checker.not_ is not None:
        return {"not": filled(checker.not_, values)}
    if checker.calls is not None:
        sides = {"good": checker.calls.good, "bad": checker.calls.bad}
        return {"calls": {side: [_filled_call(each, values) for each in some] for side, some in sides.items()}}
    if checker.judge is not None:
        return {"judge": {"principle": checker.judge.principle}}
    return checker.model_dump(mode="json", exclude_unset=False, exclude_none=False, include=checker.model_fields_set)


def _filled_call(each: CallPattern, values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "tool": each.tool,
        "arguments": {name: render_text(text, values) for name, text in each.arguments.items()},
        "anywhere": None if each.anywhere is None else render_text(each.anywhere, values),
    }


def _trials(suite: ReadSuite, each: Prompts, name: str, checker: Checker | None) -> Iterator[Trial]:
    for values, cluster in _combinations(suite, each.for_each, each.take):
        groups = _turns(suite, each, values)
        named = render_text(each.cluster, values) if each.cluster is not None else cluster
        results = {tool: render_text(text, values) for tool, text in each.results.items()}
        yield _trial(suite, name, groups[0], groups[1:], named, filled(checker, values) if checker else None, results)


def _trial(
    suite: ReadSuite,
    name: str,
    first: tuple[Message, ...],
    later: tuple[tuple[Message, ...], ...],
    cluster: str,
    check: dict[str, Any] | None,
    results: Mapping[str, str] | None = None,
) -> Trial:
    content = repr([(each.role, each.content) for group in (first, *later) for each in group])
    if results:
        content += repr(results)
    first = with_tools(first, [each.tool for each in suite.file.tools])
    uid = f"{suite.name}-{sha256(content.encode()).hexdigest()[:12]}"
    facts = {} if check is None else {CHECK: check}
    turns = ToolTurns(first, results or {}, later) if suite.file.tools else None
    return Trial(Item(uid=uid, messages=first, facts=facts, source=suite.name), name, later, cluster or uid, turns)


def _system(suite: ReadSuite) -> tuple[Message, ...]:
    return (system(suite.file.system),) if suite.file.system is not None else ()


def _turns(suite: ReadSuite, each: Prompts, values: Mapping[str, Any]) -> tuple[tuple[Message, ...], ...]:
    """The turns in groups: the model answers after each group."""
    if each.prompt is not None:
        return ((*_system(suite), user(render_text(each.prompt, values))),)
    groups: list[list[Message]] = [[*_system(suite)]]
    for number, turn in enumerate(each.turns):
        if turn.assistant is not None:
            groups[-1].append(assistant(render_text(turn.assistant, values)))
            continue
        if number and each.turns[number - 1].user is not None:
            groups.append([])
        groups[-1].append(user(render_text(turn.user or "", values)))
    return tuple(map(tuple, groups))


def _combinations(suite: ReadSuite, tables: Sequence[str], take: int | None) -> Iterator[tuple[dict[str, Any], str]]:
    """Values of the columns, and the row of the first table that they are about.

    Of the combinations so many are taken that each row of the first table, and of the others, comes as often as any, give or
    take one.
    """
    if not tables:
        yield {}, ""
        return
    first, *others = (suite.tables[name] for name in tables)
    rest = list(product(*others))
    for number in range(take if take is not None else len(first) * len(rest)):
        row, turn = number % len(first), number // len(first)
        values = dict(first[row])
        for other in rest[(row + turn) % len(rest)]:
            values |= other
        yield values, f"{tables[0]} {row + 1}"
