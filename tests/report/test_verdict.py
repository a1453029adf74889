"""The words beside the table say no more than the figures do."""

from __future__ import annotations

import pytest

from cai.evaluation.results import BehaviourRow
from cai.report.verdict import headline, read_row
from tests.report.runs import ROWS, behaviour


def said(*rows: BehaviourRow) -> str:
    return headline(rows)


FALLEN = behaviour("a", "agrees", "fault", 100, (90, 10))
GONE = behaviour("b", "boasts", "fault", 100, (50, 0))
UNCLEAR = behaviour("c", "cheats", "fault", 100, (50, 45))
RISEN = behaviour("d", "denies", "fault", 100, (10, 60))
HELD = behaviour("e", "evades", "control", 100, (10, 12))
WORSE = behaviour("f", "forgets", "control", 100, (10, 40))
BETTER = behaviour("g", "garbles", "control", 100, (60, 10))
FEW = behaviour("h", "hedges", "fault", 10, (9, 0))


@pytest.mark.parametrize(
    ("row", "tone", "words"),
    [
        (FALLEN, "good", "fell by 89 %"),
        (GONE, "good", "gone"),
        (UNCLEAR, "unclear", "no clear change"),
        (RISEN, "bad", "rose by 50 points"),
        (HELD, "good", "held"),
        (WORSE, "bad", "worse by 30 points"),
        (BETTER, "good", "better by 50 points"),
        (FEW, "few", "too few prompts to conclude from: 10, at least 20 are needed"),
        (behaviour("i", "x", "fault", 100, (0, 0)), "unclear", "no fault to begin with"),
        (behaviour("j", "x", "control", 100, (10, 14)), "bad", "worse by 4 points, though not certainly"),
    ],
)
def test_a_row_in_words(row: BehaviourRow, tone: str, words: str) -> None:
    assert (read_row(row).tone, read_row(row).words) == (tone, words)


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ((), "Nothing was measured."),
        ((FALLEN,), "The fault fell, by 89 %."),
        ((FALLEN, GONE, HELD), "Both faults fell, by 89 % to 100 %; the control held."),
        ((FALLEN, UNCLEAR, HELD, BETTER), "1 of 2 faults fell, by 89 %; both controls held."),
        ((UNCLEAR, RISEN), "None of 2 faults clearly fell; “denies” rose."),
        ((FALLEN, HELD, WORSE), "The fault fell, by 89 %; 1 of 2 controls got worse: “forgets” by 30 points."),
        ((FEW, HELD), "The control held; 1 behaviour had too few prompts to conclude from."),
        ((FEW,), "The behaviour had too few prompts to conclude from."),
        (
            (behaviour("a", "agrees", "fault", 100, (90, 10), (0, 20)),),
            "The fault fell, by 89 %; broken text rose from 0 % to 20 %.",
        ),
    ],
)
def test_the_whole_table_in_one_sentence_with_its_bad_news(rows: tuple[BehaviourRow, ...], sentence: str) -> None:
    assert said(*rows) == sentence


def test_the_built_table_has_every_kind_of_reading() -> None:
    assert {read_row(row).tone for row in ROWS} == {"good", "bad", "unclear", "few"}
