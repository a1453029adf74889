"""The paper's own formats, and what copies them: requests, worked examples, comparisons, chats."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from samples import (
    COMPARISONS,
    CRITIQUES,
    FEW_SHOTS,
    LLM_SWARM,
    PREFERENCES,
    chat,
    comparison,
    few_shot,
    imported,
)

from constitution.importing import Fate
from constitution.messages import assistant, user
from constitution.rendering import render_comparison


def test_the_papers_requests_lose_the_text_around_them_and_keep_their_names(tmp_path: Path) -> None:
    _, result, constitution, _ = imported(tmp_path, "requests.json", CRITIQUES)
    first, second = constitution.principles
    assert (first.id, second.id, second.source) == ("rude0", "long-answers", {"name": "Long Answers"})
    assert first.critique_request == "Say where the last answer is rude to a guest."
    assert first.principle == first.revision_request == "Write the answer anew, without a rude word."
    assert (result.entries, result.losses) == (2, [])
    assert "`principle` repeats the revision request" in result.remarks[0]


def test_a_request_in_another_wording_and_a_second_one_are_told_with_their_places(tmp_path: Path) -> None:
    entry = {
        "prompt": [CRITIQUES["rude0"]["prompt"][0], "\n\nCritiqueRequest: Or so?\n\nCritique:"],
        "edit_request": "Be kind.",
    }
    lacking = {"edit_request": CRITIQUES["rude0"]["edit_request"]}
    _, result, constitution, back = imported(tmp_path, "requests.json", {"a": entry, "b": lacking, "c": 3} | CRITIQUES)
    told = [(loss.where, loss.fate, loss.line) for loss in result.losses]
    assert told == [
        ("a.prompt[1]", Fate.PART, 5),
        ("a.edit_request", Fate.PART, 7),
        ("b", Fate.ENTRY, 9),
        ("c", Fate.ENTRY, 12),
    ]
    assert constitution.principles[0].revision_request == "Be kind."
    assert back is not None
    assert {"a.prompt[1]", "a.edit_request", "b", "c"} == set(back.places)


@pytest.mark.parametrize(
    ("format_name", "content"),
    [
        (
            "paper-critiques",
            {
                name: {"prompt": [entry["prompt"][0].lstrip()], "edit_request": entry["edit_request"].lstrip()}
                for name, entry in CRITIQUES.items()
            },
        ),
        (
            "paper-critiques",
            {**CRITIQUES, "half": CRITIQUES["rude0"] | {"edit_request": "RevisionRequest: Go on.\n\nRevision:"}},
        ),
        ("paper-preferences", [PREFERENCES[0].lstrip(), PREFERENCES[1]]),
        ("paper-few-shots", [FEW_SHOTS[0].lstrip(), *FEW_SHOTS[1:]]),
    ],
    ids=["requests", "half of them", "preferences", "worked examples"],
)
def test_the_papers_shapes_are_known_without_their_leading_blank_lines_and_come_back_so(
    tmp_path: Path, format_name: str, content: Any
) -> None:
    """Once a request kept its label, `CritiqueRequest: `, and was told as "read as it stands"."""
    chosen, result, constitution, back = imported(tmp_path, "paper.json", content)
    assert (chosen.name, result.losses) == (format_name, [])
    for principle in constitution.principles:
        assert not any("Request:" in text for text in (principle.critique_request or "", principle.revision_request or ""))
    assert back is not None
    assert back.same == "bytes"


def test_worked_examples_with_the_same_requests_are_one_principles_demonstrations(tmp_path: Path) -> None:
    _, result, constitution, back = imported(tmp_path, "shots.json", FEW_SHOTS)
    kind, vain = constitution.principles
    assert [shown.draft for shown in kind.demonstrations] == [
        "Look for it yourself. It is in the hall.",
        "In the hall, I told you.",
    ]
    assert vain.demonstrations[0].revision == "The lamp is in the hall."
    assert kind.demonstrations[1].prompt == "Hello.\n\nAssistant: Hello.\n\nHuman: And the lamp?"
    assert result.remarks[-1].startswith("1 worked example has several turns")
    assert back is not None
    assert back.same == "bytes"


@pytest.mark.parametrize(
    "shot",
    [
        few_shot("a", "b").replace("\n\nRevision: ", "\n\nRevised: "),
        few_shot("a", "b").replace("\n\nHuman: a", "\n\nGuest: a"),
        few_shot("a", "b\n\nCritique: c"),
        few_shot("a", " "),
        few_shot("a", "b" * 4001),
        7,
    ],
)
def test_a_worked_example_that_lacks_a_part_is_left_out_with_its_place(tmp_path: Path, shot: object) -> None:
    _, result, constitution, _ = imported(tmp_path, "shots.json", [FEW_SHOTS[0], shot])
    assert [(loss.where, loss.line, loss.fate) for loss in result.losses] == [("[1]", 3, Fate.ENTRY)]
    assert sum(len(principle.demonstrations) for principle in constitution.principles) == 1


def test_comparisons_become_tests_of_the_rule_they_state(tmp_path: Path) -> None:
    _, result, constitution, _ = imported(tmp_path, "hhh.jsonl", COMPARISONS)
    kinder, usable = constitution.principles
    assert kinder.principle == "Take the kinder answer."
    assert [(test.prompt, test.better, test.worse) for test in kinder.tests] == [
        ("Is it late?", "It is ten.", "Buy a clock."),
        ("Hi.\n\nAssistant: Hi.\n\nHuman: Is the bread fresh?", "It was baked today.", "Ask the baker."),
        ("May I sit?", "Please do.", "No."),
    ]
    assert [test.better for test in usable.tests] == ["Left."]
    assert result.remarks[0] == f"3 comparisons are tests of `{kinder.id}`, the rule they state."


def test_earlier_turns_in_a_tests_prompt_are_judged_as_the_conversation_they_are(tmp_path: Path) -> None:
    _, _, constitution, _ = imported(tmp_path, "hhh.jsonl", COMPARISONS)
    principle = constitution.principles[0]
    turns = (user("Hi."), assistant("Hi."), user("Is the bread fresh?"))
    asked = render_comparison(principle, (user(principle.tests[1].prompt),), "x", "y")
    assert asked == render_comparison(principle, turns, "x", "y")


def test_comparisons_without_a_rule_get_one_of_ours_and_that_is_told(tmp_path: Path) -> None:
    rows = [{"prompt": "\n\nHuman: Tea?\n\nAssistant:", "corrects": ["Yes, please."], "incorrects": ["Not from you."]}]
    _, result, constitution, back = imported(tmp_path, "examples.json", rows)
    assert constitution.principles[0].principle == "Be helpful, honest and harmless."
    assert "they state no rule" in result.remarks[0]
    assert back is not None
    assert back.same == "bytes"


def test_rows_that_compare_no_two_replies_are_left_out_each_with_its_line(tmp_path: Path) -> None:
    labels = {"prompt": "Human: a\n (A) Theft\n (B) Lies", "corrects": [" (A)"], "incorrects": [" (B)"]}
    many = comparison("a", "b", "c", "A") | {"incorrects": [" (B)", " (C)"]}
    unlike = comparison("a", "b", "c", "A") | {"text_correct": "something else", "tag": 1}
    _, result, constitution, back = imported(tmp_path, "hhh.jsonl", [COMPARISONS[0], labels, many, unlike])
    assert [(loss.line, loss.where, loss.fate) for loss in result.losses] == [
        (2, "[1].prompt", Fate.ENTRY),
        (3, "[2].incorrects", Fate.ENTRY),
        (4, "[3].tag", Fate.PART),
    ]
    assert len(constitution.principles[0].tests) == 2
    assert back is not None
    assert back.same == "different"


def test_chats_go_to_the_principle_whose_requests_they_use_and_the_others_are_kept_verbatim(tmp_path: Path) -> None:
    _, result, constitution, back = imported(tmp_path, "constitution.json", LLM_SWARM)
    boast, ground = constitution.principles
    assert (boast.demonstrations[0].draft, ground.demonstrations[0].revision) == ("I sing best.", "Up to four.")
    (loss,) = result.losses
    assert (loss.where, loss.fate) == ("system_chat[2]", Fate.UNUSED)
    assert json.loads(constitution.source["system_chat"]) == {"2": LLM_SWARM["system_chat"][2]}
    assert back is not None
    assert back.same == "bytes"


@pytest.mark.parametrize(
    "odd",
    [
        chat("a", "b"),
        chat("a", "b", "c", "d", "e"),
        [1] * 6,
        "text",
        [*chat("a", "b", "c", "d", "e"), {"role": "system", "content": "f"}],
    ],
)
def test_a_chat_that_is_no_worked_example_is_kept_and_told(tmp_path: Path, odd: object) -> None:
    _, result, _, back = imported(tmp_path, "constitution.json", LLM_SWARM | {"system_chat": [odd]})
    assert [(loss.where, loss.fate) for loss in result.losses] == [("system_chat[0]", Fate.UNUSED)]
    assert back is not None
    assert back.same == "bytes"


@pytest.mark.parametrize(
    ("long", "fate"), [("x" * 4001, Fate.UNUSED), ("x" * 40_001, Fate.ENTRY)], ids=["kept", "too long to keep"]
)
def test_a_worked_example_that_a_principle_cannot_show_is_told_with_the_reason(tmp_path: Path, long: str, fate: Fate) -> None:
    request = LLM_SWARM["constitutions"][0]
    odd = chat("Sing.", long, request["critic"], " ", request["revision"], "La.")
    _, result, constitution, back = imported(tmp_path, "constitution.json", LLM_SWARM | {"system_chat": [odd]})
    (loss,) = result.losses
    assert (loss.where, loss.fate) == ("system_chat[0]", fate)
    assert f"`draft` has {len(long)} characters, more than 4000, `critique` is empty" in loss.what
    assert not any(principle.demonstrations for principle in constitution.principles)
    assert back is not None
    assert back.same == ("bytes" if fate is Fate.UNUSED else "different")
