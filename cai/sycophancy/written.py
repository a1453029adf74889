"""Trials as files: prompts for the loop, and a suite that anybody can ask (`cai eval --suite FILE`)."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import yaml

from cai.evaluation.suite_cases import CHECK
from cai.evaluation.suites import Behaviour, Trial
from cai.records import Item
from constitution.messages import Conversation, Message
from constitution.schema import PrincipleTest

Tests = Mapping[str, Sequence[PrincipleTest]]
"""Principle of a judge → its tests."""


def prompt_rows(items: Sequence[Item]) -> str:
    """Items as JSON Lines that `prompts: {path}` reads: a conversation a row, its facts as columns."""
    rows = (
        {
            "uid": item.uid,
            "messages": [{"role": m.role, "content": m.content} for m in item.messages],
            "tags": list(item.tags),
            **item.facts,
        }
        for item in items
    )
    return json_lines(rows)


def json_lines(rows: Iterable[Mapping[str, Any]]) -> str:
    """One JSON object a line."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


@dataclass(frozen=True, slots=True)
class WrittenSuite:
    """A suite file; `left_out` counts trials that it cannot hold, by reason."""

    text: str
    trials: int
    left_out: Mapping[str, int]


def suite_text(
    name: str,
    description: str,
    behaviours: Sequence[Behaviour],
    trials: Sequence[Trial],
    *,
    max_tokens: int | None = None,
    patterns: Mapping[str, Sequence[str]] | None = None,
    tests: Tests | None = None,
) -> WrittenSuite:
    """One suite of these trials. Texts become cells of tables: they are data, never templates.

    A suite has one system message: that of most trials; the others are left out, and counted. So are trials whose check has
    another form than the first of their behaviour, and faults without a control: a suite would hide what their cure overdoes.

    Args:
        name: Of the suite.
        description: Of the suite.
        behaviours: What the trials try; only those with trials are written.
        trials: Each with its check in `facts`.
        max_tokens: The longest answer.
        patterns: Lists of the suite's own that checks name.
        tests: Of the judges in checks.
    """
    tried = {trial.behaviour for trial in trials}
    systems = Counter(_system(trial) for trial in trials)
    common = systems.most_common(1)[0][0] if systems else None
    left_out: Counter[str] = Counter()
    tables: dict[str, dict[str, Any]] = {}
    entries: list[dict[str, Any]] = []
    count = 0
    for behaviour in behaviours:
        if behaviour.kind == "fault" and behaviour.twin not in tried:
            if own := sum(trial.behaviour == behaviour.id for trial in trials):
                left_out["its fault has no control beside it"] += own
            continue
        form: object = None
        by_shape: dict[tuple[str, ...], str] = {}
        for trial in (each for each in trials if each.behaviour == behaviour.id):
            if _system(trial) != common:
                left_out["has another system message than most"] += 1
                continue
            values: list[str] = []
            own_form = _form(trial.item.facts[CHECK], values, tests or {})
            if form not in (None, own_form):
                left_out["its check has another form than the first of its behaviour"] += 1
                continue
            form = own_form
            turns = list(_turns(trial))
            shape = tuple(each.role for each in turns)
            table = by_shape.setdefault(shape, f"cases_{len(tables) + (shape not in by_shape)}")
            columns = ["cluster", *(f"turn_{n}" for n in range(1, len(turns) + 1))]
            columns += [f"value_{n}" for n in range(1, len(values) + 1)]
            rows = tables.setdefault(table, {"columns": columns, "rows": []})["rows"]
            rows.append([trial.cluster_name, *(each.content for each in turns), *values])
            count += 1
        if form is not None:
            entries.append(
                {
                    "id": behaviour.id,
                    "label": behaviour.label,
                    "kind": behaviour.kind,
                    **({"twin": behaviour.twin} if behaviour.twin in tried else {}),
                    "prompts": [_prompts(table, shape) for shape, table in by_shape.items()],
                    "checker": form,
                }
            )
    content: dict[str, Any] = {"suite": name, "description": description}
    content |= {"system": common} if common else {}
    content |= {"max_tokens": max_tokens} if max_tokens else {}
    content |= {"patterns": {key: list(found) for key, found in patterns.items()}} if patterns else {}
    content |= {"tables": tables, "behaviours": entries}
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120)
    return WrittenSuite(text, count, dict(left_out))


def _prompts(table: str, shape: Sequence[str]) -> dict[str, Any]:
    turns = [{role: f"{{{{ turn_{n} }}}}"} for n, role in enumerate(shape, start=1)]
    return {"for_each": [table], "cluster": "{{ cluster }}", "turns": turns}


def _turns(trial: Trial) -> Iterator[Message]:
    """All turns without the system message; where two of the user's follow each other, the model answers in between."""
    groups: tuple[Conversation, ...] = (trial.item.messages, *trial.follow_ups)
    return (message for group in groups for message in group if message.role != "system")


def _system(trial: Trial) -> str | None:
    first = trial.item.messages[0]
    return first.content if first.role == "system" else None


def _form(check: Any, values: list[str], tests: Tests) -> Any:
    """A check with its exact values taken out, as columns; judges get their tests back."""
    if isinstance(check, list):
        return [_form(each, values, tests) for each in cast("list[Any]", check)]
    if not isinstance(check, Mapping):
        return check
    found: dict[str, Any] = {}
    for kind, inside in cast("Mapping[str, Any]", check).items():
        if kind == "exact":
            found[kind] = {side: [_column(str(each), values) for each in texts] for side, texts in inside.items()}
        elif kind == "judge":
            shown = [each.model_dump(mode="json") for each in tests.get(inside["principle"], ())]
            found[kind] = {"principle": inside["principle"], "tests": shown}
        elif kind in ("pattern", "words"):
            found[kind] = {name: each for name, each in inside.items() if each not in (None, [], ())}
        else:
            found[kind] = _form(inside, values, tests)
    return found


def _column(value: str, values: list[str]) -> str:
    values.append(value)
    return f"{{{{ value_{len(values)} }}}}"
