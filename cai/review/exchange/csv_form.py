"""CSV, for a spreadsheet: one verdict a line, or one line without a verdict for what nobody has judged.

A cell that begins like a formula gets an apostrophe before it, which spreadsheets take for “this is text”: a model's reply
must not be run by the program that shows it.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import Any

from cai.records import HumanVerdict
from cai.review.desk import storable
from cai.review.exchange.rows import (
    Asked,
    Form,
    Heard,
    Senseless,
    conversation_text,
    judgement_of,
    moment_of,
    said_of,
    seconds_of,
    shown_in,
    text_in,
)

COLUMNS = (
    *("uid", "replica", "number", "conversation", "answer_a", "answer_b"),
    *("reviewer", "verdict", "note", "at", "seconds", "shown", "pair"),
)
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "'")


def _write(asked: Iterator[Asked]) -> Iterator[str]:
    yield _line(COLUMNS)
    for each in asked:
        answers = each.answers
        texts = [*answers.texts, ""][:2]
        head = (answers.uid, answers.replica, answers.number, conversation_text(answers), *texts)
        for verdict in each.verdicts or (None,):
            yield _line((*head, *_said(verdict), answers.key))


def _said(verdict: HumanVerdict | None) -> tuple[object, ...]:
    if verdict is None:
        return "", "", "", "", "", ""
    seconds = "" if verdict.seconds is None else verdict.seconds
    return verdict.reviewer, said_of(verdict.judgement), verdict.note, verdict.at, seconds, verdict.shown


def _line(cells: tuple[object, ...]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\r\n").writerow([_harmless(each) if isinstance(each, str) else each for each in cells])
    return line.getvalue()


def _harmless(text: str) -> str:
    return storable(f"'{text}" if text.startswith(_FORMULA) else text)


def _as_it_was(text: str) -> str:
    return text[1:] if text.startswith("'") and text[1:].startswith(_FORMULA) else text


def _read(values: dict[str, Any]) -> list[Heard]:
    cells = {name: "" if value is None else _as_it_was(str(value)) for name, value in values.items()}
    missing = [name for name in ("uid", "pair", "reviewer", "verdict") if name not in cells]
    if missing:
        raise Senseless(f"no column {', '.join(missing)}")
    if not cells["verdict"].strip():
        return []
    return [
        Heard(
            uid=text_in(cells, "uid"),
            pair=text_in(cells, "pair"),
            reviewer=text_in(cells, "reviewer"),
            judgement=judgement_of(cells["verdict"]),
            note=cells.get("note", ""),
            at=moment_of(cells.get("at")),
            seconds=seconds_of(cells.get("seconds")),
            shown=shown_in({"shown": "first_second"} | {name: cell for name, cell in cells.items() if cell}),
        )
    ]


CSV = Form(
    "csv",
    ".csv",
    _write,
    _read,
    "Fill in `reviewer` and `verdict` (a, b, tie, both_bad; good or bad where there is one answer; skip), leave `uid` and "
    "`pair`. A second verdict on the same pair is another line.",
)
