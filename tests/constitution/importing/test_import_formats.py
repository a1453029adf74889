"""Every format: what its files become, what is told of the rest, and that they come back as they were."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from samples import (
    COMPARISONS,
    CRITIQUES,
    FEW_SHOTS,
    LANGCHAIN,
    LLM_SWARM,
    MARKDOWN,
    PREFERENCES,
    PROSE,
    PYTHON,
    RULES,
    SALMON,
    chat,
    comparison,
    few_shot,
    imported,
    written,
)

from constitution.errors import ConstitutionError
from constitution.importing import Fate, import_file
from constitution.linting import lint
from constitution.messages import assistant, user
from constitution.rendering import principle_text, render_comparison

SAMPLES: list[tuple[str, str, Any]] = [
    ("paper-critiques", "requests.json", CRITIQUES),
    ("paper-preferences", "preferences.json", PREFERENCES),
    ("paper-few-shots", "shots.json", FEW_SHOTS),
    ("paper-comparisons", "hhh.jsonl", COMPARISONS),
    ("llm-swarm", "constitution.json", LLM_SWARM),
    ("langchain", "principles.json", LANGCHAIN),
    ("langchain", "principles.py", PYTHON),
    ("salmon", "collection.json", SALMON),
    ("inverse-cai", "050.json", RULES),
    ("inverse-cai", "060.json", "1. First rule.\n2. Second rule."),
    ("inverse-cai", "030.json", {"0": "First rule.", "7": "Second rule."}),
    ("markdown-list", "rules.md", MARKDOWN),
    ("prose", "guide.md", PROSE),
]


def _content(name: str, content: object) -> object:
    return json.dumps(content) if name == "060.json" else content


@pytest.mark.parametrize(("format_name", "name", "content"), SAMPLES, ids=[f"{f}-{n}" for f, n, _ in SAMPLES])
def test_a_format_is_found_by_the_content_of_its_file(tmp_path: Path, format_name: str, name: str, content: object) -> None:
    chosen, _, constitution, _ = imported(tmp_path, name, _content(name, content))
    assert chosen.name == format_name == constitution.source["format"]
    assert f"Imported from {name}: {chosen.title}." in constitution.description


WRITTEN_AGAIN = [each for each in SAMPLES if each[1] not in {"principles.py", "guide.md"}]


@pytest.mark.parametrize(("format_name", "name", "content"), WRITTEN_AGAIN, ids=[f"{f}-{n}" for f, n, _ in WRITTEN_AGAIN])
def test_what_is_imported_and_written_back_is_the_same_file(
    tmp_path: Path, format_name: str, name: str, content: object
) -> None:
    _, _, _, back = imported(tmp_path, name, _content(name, content))
    assert back is not None
    assert (back.same, back.places) == ("bytes", ())


@pytest.mark.parametrize("layout", [{"indent": 4}, {"ensure_ascii": False}, {"indent": 1}, {"separators": (",", ":")}])
def test_the_layout_of_a_json_file_comes_back_when_it_is_a_usual_one(tmp_path: Path, layout: dict[str, Any]) -> None:
    rules = ["Prefer “quotes” that lead somewhere.", "Nimm das Kürzere."]
    *_, back = imported(tmp_path, "rules.json", json.dumps(rules, **layout))
    assert back is not None
    assert back.same == ("data" if "separators" in layout else "bytes")


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


def test_langchains_principles_keep_names_that_are_no_ids(tmp_path: Path) -> None:
    _, result, constitution, _ = imported(tmp_path, "principles.json", LANGCHAIN)
    assert [principle.id for principle in constitution.principles] == ["plain", "plain-2", "blamed"]
    assert [principle.source.get("name") for principle in constitution.principles] == [None, "Plain!", ""]
    assert result.losses == []


def test_yaml_is_read_as_json_is_and_keys_of_ones_own_are_kept(tmp_path: Path) -> None:
    rows = [LANGCHAIN[0] | {"owner": "Ada", "tags": ["x"]}]
    _, result, constitution, back = imported(tmp_path, "principles.yaml", yaml.safe_dump(rows, sort_keys=False))
    assert constitution.principles[0].source == {"owner": "Ada"}
    assert [(loss.where, loss.line, loss.fate) for loss in result.losses] == [
        ("[0].owner", 4, Fate.UNUSED),
        ("[0].tags", 5, Fate.PART),
    ]
    assert back is not None
    assert back.places == ("[0].tags",)


def test_a_python_file_is_parsed_and_not_run_and_what_is_computed_is_left_out(tmp_path: Path) -> None:
    _, result, constitution, back = imported(tmp_path, "principles.py", PYTHON)
    (principle,) = constitution.principles
    assert (principle.id, principle.critique_request) == ("plain", "Name the jargon in it.")
    (loss,) = result.losses
    assert (loss.line, loss.column, loss.fate) == (12, 13, Fate.ENTRY)
    assert "`critique_request`" in loss.what
    assert back is not None
    assert back.same == "data"


def test_salmons_weights_are_weights_and_its_opposites_are_kept(tmp_path: Path) -> None:
    _, result, constitution, _ = imported(tmp_path, "collection.json", SALMON)
    point, warm = constitution.principles
    assert (point.id, point.weight, point.source) == ("to-the-point", 3.0, {"name": "To the Point"})
    assert warm.source["negative_definition"] == "It should sound cold."
    assert [(loss.where, loss.fate) for loss in result.losses] == [("[1].negative_definition", Fate.UNUSED)]


@pytest.mark.parametrize("weight", [0, -1, 1001, "much", True, None])
def test_a_weight_that_is_none_here_is_told_and_one_is_used(tmp_path: Path, weight: object) -> None:
    _, result, constitution, _ = imported(tmp_path, "collection.json", [SALMON[0] | {"weight": weight}])
    assert constitution.principles[0].weight == 1.0
    assert [(loss.where, loss.fate) for loss in result.losses] == [("[0].weight", Fate.PART)]


def _pairs(votes: list[tuple[str | None, str | None]]) -> dict[str, Any]:
    return {
        "metadata": {"version": "2.0", "default_annotator": "p"},
        "annotators": {"p": {"type": "human"}, "r": {"type": "principle", "description": "Choose the shorter reply."}},
        "comparisons": [
            {
                "prompt": f"Question {number}?",
                "response_a": {"text": f"a{number}"},
                "response_b": {"text": f"b{number}"},
                "annotations": {"p": {"pref": people}, "r": {"pref": rule}},
            }
            for number, (people, rule) in enumerate(votes)
        ],
    }


def test_votes_that_agree_with_people_become_tests_and_the_record_becomes_the_reason(tmp_path: Path) -> None:
    _, result, constitution, back = imported(tmp_path, "070.json", _pairs([("a", "a"), ("b", "b"), ("a", "b"), ("a", None)]))
    (principle,) = constitution.principles
    assert [(test.better, test.worse) for test in principle.tests] == [("a0", "b0"), ("b1", "a1")]
    # accuracy 2/3, relevance 3/4: (2/3 - 1/2) * 3/4 * 2 = 0.25
    assert "decided 3 of 4 comparisons" in principle.rationale
    assert "2 of the 3 that both decided (performance 0.25)" in principle.rationale
    assert [(loss.where, loss.fate) for loss in result.losses] == [("annotators.p", Fate.PART), ("comparisons", Fate.PART)]
    assert back is None


def test_what_annotated_pairs_say_besides_is_kept_or_told(tmp_path: Path) -> None:
    content = _pairs([("a", "a")])
    content["metadata"] |= {"dataset_name": "Teas", "available_metadata_keys_per_comparison": ["index"]}
    content["annotators"]["r"] |= {"model": "a judge", "annotator": "x", "votes": 3}
    content["licence"] = "CC0"
    _, result, constitution, _ = imported(tmp_path, "070.json", content)
    assert [(loss.where, loss.fate) for loss in result.losses] == [
        ("metadata.dataset_name", Fate.UNUSED),
        ("metadata.available_metadata_keys_per_comparison", Fate.UNUSED),
        ("annotators.p", Fate.PART),
        ("annotators.r.model", Fate.UNUSED),
        ("annotators.r.annotator", Fate.PART),
        ("annotators.r.votes", Fate.PART),
        ("comparisons", Fate.PART),
        ("licence", Fate.PART),
    ]
    assert constitution.principles[0].source == {"annotator": "r", "model": "a judge"}
    assert json.loads(constitution.source["metadata"]) == content["metadata"]


@pytest.mark.parametrize("metadata", [["a"], {"note": "x" * 40_000}], ids=["a list", "too long"])
def test_metadata_that_cannot_be_kept_is_told_once(tmp_path: Path, metadata: object) -> None:
    _, result, constitution, _ = imported(tmp_path, "070.json", _pairs([]) | {"metadata": metadata})
    assert [loss.fate for loss in result.losses if "annotators" not in loss.where and "comparisons" not in loss.where] == [
        Fate.PART
    ]
    assert "metadata" not in constitution.source


def test_a_principle_takes_ten_tests_from_the_comparisons_and_the_rest_is_counted(tmp_path: Path) -> None:
    _, result, constitution, _ = imported(tmp_path, "070.json", _pairs([("a", "a")] * 25))
    assert len(constitution.principles[0].tests) == 10
    assert "25 comparisons with 25 votes, 25 of them as the default annotator's: 10 became tests" in result.losses[-1].what


def test_what_stands_below_a_bullet_is_its_reason_and_prose_is_the_description(tmp_path: Path) -> None:
    _, result, constitution, _ = imported(tmp_path, "rules.md", MARKDOWN)
    assert constitution.name == "House rules"
    assert constitution.description.startswith("What we ask of every answer.")
    first, second, third = constitution.principles
    assert (first.principle, second.principle) == (
        "Begin with the answer. People read the first line only.",
        "Name your source.",
    )
    assert third.source["section"] == "For guests"
    assert result.losses == []


def test_nested_bullets_and_paragraphs_are_the_reasons_of_the_bullet_above(tmp_path: Path) -> None:
    text = "- Be brief.\n  - Time is short.\n  - So is paper.\n\n- Be kind.\n\n  It costs nothing.\n"
    _, _, constitution, _ = imported(tmp_path, "rules.md", text)
    assert [(p.principle, p.rationale) for p in constitution.principles] == [
        ("Be brief.", "- Time is short.\n- So is paper."),
        ("Be kind.", "It costs nothing."),
    ]


def test_blocks_between_the_rules_and_empty_bullets_are_told_with_their_lines(tmp_path: Path) -> None:
    _, result, _, back = imported(tmp_path, "rules.md", "- Be brief.\n-\n- Be kind to every guest.\n\n> hm\n")
    assert [(loss.line, loss.fate) for loss in result.losses] == [(2, Fate.ENTRY), (5, Fate.UNUSED)]
    assert back is not None


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rules.json", ["Say {{ this }} as it {% is %}, with {# this #} and {{{ all."]),
        ("rules.json", ["One {\r line { end\r\n that {{\r stays."]),
        ("collection.json", [{"dimension": "Braces", "definition": "Never write {{ 7 * 7 }} or {%- raw -%}{{."}]),
        ("rules.md", "- Say {{ this }} as it stands.\n"),
    ],
)
def test_braces_in_imported_texts_are_text_and_never_templates(tmp_path: Path, name: str, content: object) -> None:
    _, _, constitution, back = imported(tmp_path, name, content)
    (principle,) = constitution.principles
    texts = content if isinstance(content, str) else json.dumps(content)
    assert json.dumps(principle_text(principle))[1:-1] in texts
    assert back is not None
    assert back.same == "bytes"


def test_space_around_a_text_is_kept_for_the_way_back(tmp_path: Path) -> None:
    rows = [{"name": "a", "critique_request": " Is it so? ", "revision_request": "Make it so.\n"}]
    _, _, constitution, back = imported(tmp_path, "principles.json", rows)
    assert constitution.principles[0].critique_request == "Is it so?"
    assert back is not None
    assert back.same == "bytes"


def test_texts_that_are_too_long_are_left_out_and_not_cut(tmp_path: Path) -> None:
    _, result, constitution, _ = imported(tmp_path, "rules.json", ["Be brief.", "x" * 4001])
    assert len(constitution.principles) == 1
    assert [(loss.where, loss.fate) for loss in result.losses] == [("[1]", Fate.ENTRY)]
    assert "4001 characters, more than 4000" in result.losses[0].what


def test_ids_are_unique_over_several_files_when_they_share_what_is_taken(tmp_path: Path) -> None:
    taken: dict[str, int] = {}
    path = written(tmp_path, "rules.json", RULES)
    first = import_file(path, taken=taken)[2].constitution
    second = import_file(path, taken=taken)[2].constitution
    assert not {principle.id for principle in first.principles} & {principle.id for principle in second.principles}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"principles": [{"id": "a", "principle": "b"}]}, "this is a principle file already"),
        ([], "no known format"),
        ({}, "no known format"),
        ([1, 2], "no known format"),
        ("no list and no heading", "no known format"),
        ([COMPARISONS[0] | LANGCHAIN[0]], "it could be paper-comparisons or langchain"),
        ([{"dimension": "a", "definition": " "}, {"dimension": 3, "definition": "x"}, 7], "it gives no principle"),
    ],
)
def test_a_file_of_no_one_format_is_refused_and_the_formats_are_listed(tmp_path: Path, content: object, told: str) -> None:
    name = "file.txt" if isinstance(content, str) else "file.json"
    with pytest.raises(ConstitutionError, match=told) as caught:
        import_file(written(tmp_path, name, content))
    if told == "no known format":
        assert "paper-critiques" in caught.value.errors[0].hint


def test_a_file_that_gives_no_principle_tells_every_reason_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(ConstitutionError) as caught:
        import_file(
            written(tmp_path, "file.json", [{"dimension": "a", "definition": " "}, {"dimension": 3, "definition": "x"}, 7])
        )
    assert [(error.line, error.problem) for error in caught.value.errors[1:]] == [
        (4, "[0].definition: `definition` is empty"),
        (7, "[1].dimension: `dimension` is a number, not a text"),
        (10, "[2]: a number where an object is expected"),
    ]


def test_a_named_format_must_fit(tmp_path: Path) -> None:
    with pytest.raises(ConstitutionError, match="not SALMON's principle collections"):
        import_file(written(tmp_path, "file.json", RULES), "salmon")


PRESUPPOSING = {"Say where the last answer is rude to a guest.", "Name the sums that are wrong."}


@pytest.mark.parametrize(("format_name", "name", "content"), SAMPLES, ids=[f"{f}-{n}" for f, n, _ in SAMPLES])
def test_wording_is_warned_of_only_where_a_request_takes_a_fault_for_granted(
    tmp_path: Path, format_name: str, name: str, content: object
) -> None:
    *_, constitution, _ = imported(tmp_path, name, _content(name, content))
    about_wording = [each.rule for each in lint([tmp_path / "out"]).findings if each.rule in {"C203", "C204", "C205"}]
    assert about_wording == ["C203"] * sum(each.critique_request in PRESUPPOSING for each in constitution.principles)
