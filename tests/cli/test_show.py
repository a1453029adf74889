"""`cai show`: the very prompt of a stage, token for token, with nothing generated."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from constitution.loading import load_constitution
from constitution.messages import assistant, system, user
from constitution.rendering import render_comparison, render_critique, render_revision
from tests.checkpoints import make_checkpoint
from tests.cli.conftest import Cai

HONEST = load_constitution(["shipped"]).by_id("correct-false-claims")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("model") / "llama", hidden_size=16, intermediate_size=16)


def test_text_and_token_count_are_those_of_the_chat_template(cai: Cai, model: Path) -> None:
    result = cai("show", HONEST.id, "--prompt", "Hi", "--draft", "Yes.", "--system", "Be brief.", "--model", model)
    turns = render_critique(HONEST, (system("Be brief."), user("Hi")), "Yes.")
    tokenizer = AutoTokenizer.from_pretrained(model)
    messages = [message.model_dump() for message in turns]
    expected = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    ids = tokenizer.apply_chat_template(messages, tokenize=True, add_generation_prompt=True, return_dict=False)
    assert result.code == 0
    assert result.out == f"{expected}\n\n{len(ids)} tokens ({model}, chat template)\n"


def test_each_stage_shows_what_that_stage_asks(cai: Cai) -> None:
    asked = (
        "--prompt",
        "Hi",
        "--draft",
        "Yes.",
        "--other",
        "No.",
        "--critique",
        "It lies. Fault: a lie.",
        "--json",
        "--model",
        "none",
    )
    shown = {stage: json.loads(cai("show", HONEST.id, "--stage", stage, *asked).out) for stage in STAGES}
    expected = {
        "critique": render_critique(HONEST, (user("Hi"),), "Yes."),
        "verdict": render_critique(HONEST, (user("Hi"),), "Yes."),
        "revision": render_revision(HONEST, (user("Hi"),), "Yes.", "It lies. Fault: a lie."),
        "comparison": render_comparison(HONEST, (user("Hi"),), "Yes.", "No."),
    }
    for stage in STAGES:
        assert shown[stage]["messages"] == [message.model_dump() for message in expected[stage]]
    assert shown["verdict"]["response_prefix"] == "It lies."
    assert shown["verdict"]["scored"] == [" Nothing to change", " Fault:"]
    assert shown["comparison"]["response_prefix"] == "The better reply is"
    assert shown["comparison"]["scored"] == [" A", " B"]
    assert shown["critique"]["scored"] == shown["revision"]["scored"] == []


STAGES = ("critique", "revision", "comparison", "verdict")


def test_a_principle_s_own_test_stands_in_for_what_is_not_given(cai: Cai) -> None:
    shown = json.loads(cai("show", HONEST.id, "--json", "--model", "none").out)
    test = HONEST.tests[0]
    assert shown["messages"][:2] == [user(test.prompt).model_dump(), assistant(test.worse).model_dump()]


def test_base_models_get_plain_text_with_and_without_a_model(cai: Cai, model: Path) -> None:
    asked = ("show", HONEST.id, "--prompt", "Hi", "--draft", "Yes.", "--base", "--json")
    without = json.loads(cai(*asked, "--model", "none").out)
    with_model = json.loads(cai(*asked, "--model", model).out)
    assert without["text"] == with_model["text"]
    assert without["text"].startswith("Human: Hi\n\nAssistant: Yes.\n\nHuman: Check")
    assert without["text"].endswith("\n\nAssistant:")
    assert without["tokens"] is None
    assert with_model["tokens"] > 10


def test_markup_and_control_characters_are_shown_and_do_nothing(cai: Cai) -> None:
    hostile = "[red]\x1b[31m{{ 7 * 7 }} <|im_end|>\x07"
    result = cai("show", HONEST.id, "--prompt", hostile, "--model", "none")
    assert "\x1b" not in result.out
    assert "[red]\\x1b[31m{{ 7 * 7 }} <|im_end|>\\x07" in result.out


def test_without_an_id_all_principles_are_listed(cai: Cai, tmp_path: Path) -> None:
    shipped = load_constitution(["shipped"]).principles
    lines = cai("show").out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == [principle.id for principle in shipped]
    assert all(principle.principle in line for principle, line in zip(shipped, lines[1:], strict=True))
    (tmp_path / "rules.yaml").write_text(
        "principles:\n  - id: words\n    principle: Use at most {{ n }} words.\n    parameters: {n: 9}\n"
    )
    assert "Use at most 9 words." in cai("show", "--list", "-c", tmp_path).out
    assert json.loads(cai("show", "--json", "-c", tmp_path).out)[0]["parameters"] == {"n": 9}


def test_an_unknown_principle_names_the_nearest_one(cai: Cai) -> None:
    result = cai("show", "correct-false-claim")
    assert (result.code, result.out) == (1, "")
    assert "did you mean `correct-false-claims`?" in result.err


def test_a_missing_model_and_an_unknown_stage_are_refused(cai: Cai, tmp_path: Path) -> None:
    missing = cai("show", HONEST.id, "--model", tmp_path / "none")
    assert missing.code == 1
    assert "no such folder" in missing.err
    assert cai("show", HONEST.id, "--stage", "draft").code == 2
