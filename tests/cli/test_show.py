"""`cai show`: the very prompts of a stage, token for token, with nothing generated."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from constitution.loading import load_constitution
from constitution.messages import Message, assistant, system, user
from constitution.rendering import render_argument, render_comparison, render_critique, render_direct_revision, render_revision
from constitution.schema import Principle
from tests.checkpoints import make_checkpoint
from tests.cli.conftest import Cai

SHIPPED = load_constitution(["shipped"])
HONEST = SHIPPED.by_id("correct-false-claims")
STAGES = ("critique", "revision", "direct-revision", "verdict", "comparison")
GIVEN = ("--prompt", "Hi", "--draft", "Yes.", "--other", "No.", "--critique", "It lies. Fault: a lie.")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("model") / "llama", hidden_size=16, intermediate_size=16)


def template_text(model: Path, turns: tuple[Message, ...]) -> str:
    """The oracle: transformers' own rendering."""
    tokenizer: Any = AutoTokenizer.from_pretrained(model)
    messages = [message.model_dump() for message in turns]
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))


def template_tokens(model: Path, turns: tuple[Message, ...]) -> int:
    tokenizer: Any = AutoTokenizer.from_pretrained(model)
    messages = [message.model_dump() for message in turns]
    return len(tokenizer.apply_chat_template(messages, tokenize=True, add_generation_prompt=True, return_dict=False))


def test_text_and_token_count_are_those_of_the_chat_template(cai: Cai, model: Path) -> None:
    result = cai("show", HONEST.id, "--prompt", "Hi", "--draft", "Yes.", "--system", "Be brief.", "--model", model)
    turns = render_critique(HONEST, (system("Be brief."), user("Hi")), "Yes.")
    tokens = template_tokens(model, turns)
    assert result.code == 0
    assert result.out.startswith(f"{template_text(model, turns)}\n\n{tokens} tokens ({model}, chat template)\n")
    assert f"fits with a reply of 256: {2048 - tokens - 256:,} to spare in the context of 2,048" in result.out


def test_each_stage_shows_what_that_stage_asks_and_comparisons_come_in_both_orders(cai: Cai, model: Path) -> None:
    hi = (user("Hi"),)
    expected = [
        render_critique(HONEST, hi, "Yes."),
        render_revision(HONEST, hi, "Yes.", "It lies. Fault: a lie."),
        render_direct_revision(HONEST, hi, "Yes."),
        render_critique(HONEST, hi, "Yes."),
        render_comparison(HONEST, hi, "Yes.", "No."),
        render_comparison(HONEST, hi, "No.", "Yes."),
    ]
    for name in ("none", model):
        shown = json.loads(cai("show", HONEST.id, "--stage", "all", *GIVEN, "--json", "--model", name).out)["prompts"]
        assert [each["messages"] for each in shown] == [[message.model_dump() for message in turns] for turns in expected]
        assert [each["stage"] for each in shown] == [*STAGES, "comparison"]
        assert [each["order"] for each in shown] == [None] * 4 + ["first_second", "second_first"]
        assert [each["response_prefix"] for each in shown] == ["", "", "", "It lies.", *["The better reply is"] * 2]
        letters = 4 if name == "none" else 2  # to the model " A" is two tokens: no letter of its own
        assert [len(each["scored"]) for each in shown] == [0, 0, 0, 2, letters, letters]
        assert shown[3]["scored"] == [" Nothing to change", " Fault:"]
    for stage in STAGES:
        alone = json.loads(cai("show", HONEST.id, "--stage", stage, *GIVEN, "--json", "--model", "none").out)["prompts"]
        assert [each["stage"] for each in alone] == [stage] * (2 if stage == "comparison" else 1)
    out = cai("show", HONEST.id, "--stage", "comparison", *GIVEN, "--model", model).out
    assert "== comparison, order first_second ==" in out
    assert out.index("Reply A:\nYes.") < out.index("order second_first") < out.index("Reply A:\nNo.")
    assert 'Scored after it: "A" against "B"' in out


def test_what_advocates_are_asked_is_shown_and_a_debated_comparison_holds_arguments(cai: Cai, tmp_path: Path) -> None:
    asked = ("show", HONEST.id, *GIVEN, "--model", "none")
    shown = json.loads(cai(*asked, "--stage", "argument", "--json").out)["prompts"]
    hi = (user("Hi"),)
    expected = [render_argument(HONEST, hi, "Yes.", "No."), render_argument(HONEST, hi, "No.", "Yes.")]
    assert [each["messages"] for each in shown] == [[message.model_dump() for message in turns] for turns in expected]
    assert [each["speaks_for"] for each in shown] == ["draft", "other"]
    run = tmp_path / "run.yaml"
    run.write_text(
        "policy: {name: nowhere/at-all}\nconstitution: [shipped]\nlab: {items: 4}\n"
        "labels: {method: letters, debate: {rounds: 2, argument_tokens: 9}}\n"
    )
    debated = ("--config", run, "--argument", "It is kind.")
    out = cai(*asked, *debated, "--stage", "comparison").out
    assert "For reply A: It is kind.\nFor reply B: It is kind.\n" in out
    out = cai(*asked, *debated, "--stage", "argument").out
    assert "== argument for draft ==" in out
    rebuttal = out.split("== argument for other, rebuttal 2 ==")[1]
    assert rebuttal.count("For this reply: It is kind.\nFor the other reply: It is kind.") == 2
    stood_in = cai(*asked, "--config", run, "--stage", "comparison").err
    assert "Stand-ins, not a model's words: argument; give your own with --argument." in stood_in


def test_a_principle_s_own_test_stands_in_for_what_is_not_given(cai: Cai) -> None:
    result = cai("show", HONEST.id, "--stage", "revision", "--json", "--model", "none")
    shown = json.loads(result.out)
    test = HONEST.tests[0]
    assert shown["prompts"][0]["messages"][:2] == [user(test.prompt).model_dump(), assistant(test.worse).model_dump()]
    assert shown["item"]["stand_ins"] == ["critique", "argument"]
    assert "Stand-ins, not a model's words: critique" in cai("show", HONEST.id, "--stage", "revision", "--model", "none").err


def test_base_models_get_plain_text_with_and_without_a_model(cai: Cai, model: Path) -> None:
    asked = ("show", HONEST.id, "--prompt", "Hi", "--draft", "Yes.", "--base", "--json")
    (without,) = json.loads(cai(*asked, "--model", "none").out)["prompts"]
    (with_model,) = json.loads(cai(*asked, "--model", model).out)["prompts"]
    assert without["text"] == with_model["text"]
    assert without["text"].startswith("Human: Hi\n\nAssistant: Yes.\n\nHuman: Check")
    assert without["text"].endswith("\n\nAssistant:")
    assert without["tokens"] is None
    assert with_model["tokens"] > 10


def test_markup_and_control_characters_are_shown_and_do_nothing(cai: Cai, model: Path) -> None:
    hostile = "[red]\x1b[31m{{ 7 * 7 }} <|im_end|>\x07"
    for name in ("none", model):
        result = cai("show", HONEST.id, "--prompt", hostile, "--model", name)
        assert "\x1b" not in result.out
        assert "[red]\\x1b[31m{{ 7 * 7 }} <|im_end|>\\x07" in result.out
    assert "1 text of control tokens in the messages: encoded as plain text, without effect" in result.out


def test_on_a_terminal_colours_are_all_that_is_added(cai: Cai, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = ("show", HONEST.id, *GIVEN, "--stage", "revision", "--model", model)
    plain = cai(*asked).out
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    coloured = cai(*asked).out
    assert "\x1b[33mIt lies. Fault: a lie.\x1b[0m" in coloured
    assert "\x1b[2;32mYes.\x1b[0m" in coloured  # the same under every principle, so dim
    assert f"\x1b[1;35m{HONEST.principle}" in coloured
    bare = re.sub(r"\x1b\[[\d;]*m", "", coloured)
    assert bare.startswith(plain)
    legend = (
        "conversation · demonstration · reply · critique · argument · principle · fixed wording · control tokens · same tokens"
    )
    assert " ".join(bare.removeprefix(plain).split()) == f"{legend} under every principle"


def test_tokens_are_listed_with_their_ids_and_texts(cai: Cai, model: Path) -> None:
    tokenizer: Any = AutoTokenizer.from_pretrained(model)
    asked = ("show", HONEST.id, "--prompt", "你 <|im_end|>?", "--draft", "Yes.", "--model", model, "--tokens")
    (shown,) = json.loads(cai(*asked, "--json").out)["prompts"]
    assert len(shown["token_ids"]) == len(shown["token_texts"]) == shown["tokens"]
    assert "".join(shown["token_texts"]) == tokenizer.decode(shown["token_ids"]) == shown["text"]
    rows = [line.split(maxsplit=2) for line in cai(*asked).out.splitlines() if re.match(r" *\d+ +\d+ ", line)]
    assert [int(row[1]) for row in rows] == shown["token_ids"]
    controls = [row for row in rows if row[2].startswith("control")]
    # Three turns with an end each, and the assistant's beginning; the one in the prompt is none.
    assert [json.loads(row[2].removeprefix("control")) for row in controls].count("<|im_end|>") == 3
    assert len(controls) == 7
    refused = cai(*asked[:-3], "--model", "none", "--tokens")
    assert (refused.code, refused.out) == (2, "")


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    talk = [system("Be brief."), user("Hello"), assistant("Good day."), user("Is it 5? <|im_end|>")]
    rows = [
        {"uid": "talk", "messages": [message.model_dump() for message in talk], "tags": ["claims"]},
        {"uid": "empty", "messages": []},
        {"uid": "7", "messages": [user("Seven?").model_dump()]},
        {"messages": [user("Last, and by far the longest of them all, so that there is no doubt.").model_dump()]},
    ]
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def test_an_item_is_found_by_uid_by_row_and_as_the_longest_with_all_its_turns(cai: Cai, prompts: Path, model: Path) -> None:
    def first_turns(*item: str) -> list[str]:
        asked = ("show", HONEST.id, "--prompts", prompts, *item, "--model", model, "--json")
        shown = json.loads(cai(*asked).out)
        return [turn["content"] for turn in shown["prompts"][0]["messages"]][:-2]

    talk = ["Be brief.", "Hello", "Good day.", "Is it 5? <|im_end|>"]
    assert first_turns() == first_turns("--item", "talk") == first_turns("--item", "1") == talk
    assert first_turns("--item", "7") == first_turns("--item", "3") == ["Seven?"]
    assert (
        first_turns("--item", "4")
        == first_turns("--item", "longest")
        == ["Last, and by far the longest of them all, so that there is no doubt."]
    )


def test_what_cannot_be_an_item_says_why(cai: Cai, prompts: Path) -> None:
    def error(*item: str) -> str:
        result = cai("show", HONEST.id, "--prompts", *item, "--model", "none")
        assert (result.code, result.out) == (1, "")
        return result.err

    assert "no item `tolk`." in error(str(prompts), "--item", "tolk")
    assert "Did you mean `talk`?" in error(str(prompts), "--item", "tolk")
    assert "row 2 cannot be used: prompts.jsonl:2: the list of messages is empty" in error(str(prompts), "--item", "2")
    assert "no row 9." in error(str(prompts), "--item", "9")
    assert "The last usable row is 4." in error(str(prompts), "--item", "9")
    assert "no such file" in error(str(prompts.with_name("none.jsonl")))
    assert cai("show", HONEST.id, "--item", "1").code == 2
    assert cai("show", HONEST.id, "--prompts", prompts, "--prompt", "Hi").code == 2
    assert "the draft is empty" in error(str(prompts), "--draft", " ")


def test_a_preference_row_brings_both_replies(cai: Cai, tmp_path: Path) -> None:
    start = [user("Is it 5?").model_dump()]
    row = {"chosen": [*start, assistant("No, 4.").model_dump()], "rejected": [*start, assistant("Yes.").model_dump()]}
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps(row))
    result = cai("show", HONEST.id, "--stage", "comparison", "--prompts", path, "--model", "none", "--json")
    shown = json.loads(result.out)
    assert shown["item"]["stand_ins"] == ["critique", "argument"]
    first, second = shown["prompts"]
    turns = (
        render_comparison(HONEST, (user("Is it 5?"),), "Yes.", "No, 4."),
        render_comparison(HONEST, (user("Is it 5?"),), "No, 4.", "Yes."),
    )
    assert [first["messages"], second["messages"]] == [[each.model_dump() for each in one] for one in turns]


def test_a_principle_that_no_round_draws_for_the_item_is_said_to_be_such(cai: Cai, prompts: Path, tmp_path: Path) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text(
        "principles:\n  - {id: rhymes, principle: Rhyme., applies_to: [poems]}\n  - {id: kind, principle: Be kind.}\n"
    )
    asked = ("--constitution", rules, "--prompts", prompts, "--item", "talk", "--model", "none")
    assert "No round draws `rhymes` for this item: it applies to poems" in cai("show", "rhymes", *asked).err
    assert "No round draws" not in cai("show", "kind", *asked).err
    assert json.loads(cai("show", "rhymes", *asked, "--json").out)["applies"] is False


def test_the_principle_that_spoils_what_the_others_share_is_named(cai: Cai, model: Path, tmp_path: Path) -> None:
    rules = tmp_path / "rules.yaml"
    taught = "demonstrations: [{prompt: Hi, draft: Hello., critique: Nothing to change.}]"
    rules.write_text(
        "principles:\n  - {id: kind, principle: Be kind.}\n  - {id: brief, principle: Say little.}\n"
        f"  - {{id: taught, principle: Be taught., {taught}}}\n"
    )
    asked = ("-c", rules, *GIVEN, "--model", model)
    assert "; only taught differs there" in cai("show", "kind", *asked).out
    assert " there" not in cai("show", "taught", *asked).out  # there, all the others differ


def test_a_context_says_what_it_refuses_and_what_it_cuts(cai: Cai, model: Path) -> None:
    turns = render_critique(HONEST, (user("Hi"),), "Yes.")
    tokens = template_tokens(model, turns)
    asked = ("show", HONEST.id, *GIVEN, "--model", model, "--context", f"{tokens - 5},{tokens},{tokens + 9},{tokens + 256}")
    out = cai(*asked).out
    assert f"refused: {tokens} tokens, 5 over the context of {tokens - 5}\n" in out
    assert f"refused: {tokens} tokens leave no room for a reply in the context of {tokens}\n" in out
    assert f"reply cut after 9 of its 256 tokens: {tokens} stand in the context of {tokens + 9}\n" in out
    assert f"fits with a reply of 256: 0 to spare in the context of {tokens + 256}\n" in out
    assert out.count("the row fails as `prompt_too_long` and is counted") == 1
    (shown,) = json.loads(cai(*asked, "--json").out)["prompts"]
    assert [each["fate"] for each in shown["contexts"]] == ["refused", "refused", "reply_cut", "fits"]
    for wrong in ("many", "0", "-1", ","):
        assert cai("show", HONEST.id, "--context", wrong).code == 2


def test_the_table_has_every_principle_and_stage_with_the_counts_of_the_template(cai: Cai, model: Path) -> None:
    result = cai("show", "--all", *GIVEN, "--model", model, "--json")
    table = json.loads(result.out)
    hi = (user("Hi"),)

    def turns(principle: Principle, stage: str) -> tuple[Message, ...]:
        if stage == "critique":
            return render_critique(principle, hi, "Yes.")
        return render_revision(principle, hi, "Yes.", "It lies. Fault: a lie.")

    counts = {(row["principle"], row["stage"], row["order"]): row["tokens"] for row in table["prompts"]}
    assert len(counts) == 6 * len(SHIPPED.principles)
    for stage in ("critique", "revision"):
        expected = {rule.id: template_tokens(model, turns(rule, stage)) for rule in SHIPPED.principles[:6]}
        assert {name: counts[name, stage, None] for name in expected} == expected
        (total,) = (each for each in table["stages"] if each["stage"] == stage)
        assert total["tokens"] == sum(count for (_, name, _), count in counts.items() if name == stage)
    assert table["contexts"] == [2048]
    text = cai("show", "--all", *GIVEN, "--model", model).out
    lines = {line.split()[0]: line.split()[1::2] for line in text.splitlines() if line.split()[0] in SHIPPED_IDS}
    assert set(lines) == SHIPPED_IDS
    assert [int(cell) for cell in lines[HONEST.id]] == [count for (name, *_), count in counts.items() if name == HONEST.id]
    assert f"context of 2,048: all {6 * len(SHIPPED.principles)} prompts fit, their replies too" in text


SHIPPED_IDS = {principle.id for principle in SHIPPED.principles}


def test_the_table_names_the_principles_that_overflow(cai: Cai, model: Path, tmp_path: Path) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text(f"principles:\n  - {{id: kind, principle: Be kind.}}\n  - {{id: wordy, principle: {'Say much. ' * 90}}}\n")
    asked = ("show", "--all", "-c", rules, *GIVEN, "--stage", "critique", "--model", model, "--context", "300,4096")
    out = cai(*asked).out
    assert (
        "context of 300: 1 of 2 refused; such a row fails as `prompt_too_long` and is counted (!300): critique of wordy" in out
    )
    assert "context of 300: 1 of 2 fit, but their longest replies would be cut (~300): critique of kind" in out
    assert "context of 4,096: all 2 prompts fit, their replies too" in out
    row = next(line for line in out.splitlines() if line.startswith("wordy"))
    assert row.endswith("!300")


def test_a_run_s_configuration_brings_its_principles_prompts_model_and_limits(
    cai: Cai, model: Path, prompts: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run.yaml"
    run.write_text(
        f"policy: {{name: nowhere/at-all}}\nfeedback: {{name: {model}, device: cpu}}\nconstitution: [shipped]\n"
        f"principles: [{HONEST.id}, honest-uncertainty]\nprompts: {{path: {prompts}, max_bad_share: 0.5, column: messages}}\n"
        "loop: {critique: {temperature: 0, max_tokens: 33}}\n"
    )
    shown = json.loads(cai("show", HONEST.id, "--config", run, "--item", "3", "--json").out)
    assert shown["model"] == str(model)
    assert shown["prompts"][0]["max_tokens"] == 33
    assert shown["prompts"][0]["messages"][0]["content"] == "Seven?"
    other = json.loads(cai("show", HONEST.id, "--config", run, "--set", "loop.critique.max_tokens=9", "--json").out)
    assert other["prompts"][0]["max_tokens"] == 9
    assert len(cai("show", "--list", "--config", run).out.splitlines()) == 3
    own = cai("show", HONEST.id, "--config", run, "--set", "prompts.system=Be brief.", "--prompt", "Hi", "--json")
    turns = json.loads(own.out)["prompts"][0]["messages"]
    assert [turn["content"] for turn in turns[:2]] == ["Be brief.", "Hi"]
    unknown = cai("show", "no-contempt", "--config", run)
    assert (unknown.code, "there is no principle `no-contempt` here" in unknown.err) == (1, True)
    assert cai("show", HONEST.id, "--set", "seed=1").code == 2


def test_a_folder_with_nothing_but_a_tokenizer_is_enough(cai: Cai, model: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        if (model / name).exists():
            shutil.copy(model / name, bare / name)
    whole, alone = (json.loads(cai("show", HONEST.id, "--model", each, "--json").out)["prompts"][0] for each in (model, bare))
    assert {**whole, "contexts": []} == alone
    assert "give --context" in cai("show", "--all", "--model", bare).out
    assert [each["context"] for each in whole["contexts"]] == [2048]


def test_without_an_id_all_principles_are_listed(cai: Cai, tmp_path: Path) -> None:
    lines = cai("show").out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == [principle.id for principle in SHIPPED.principles]
    assert all(principle.principle in line for principle, line in zip(SHIPPED.principles, lines[1:], strict=True))
    (tmp_path / "rules.yaml").write_text(
        "principles:\n  - id: words\n    principle: Use at most {{ n }} words.\n    parameters: {n: 9}\n"
    )
    assert "Use at most 9 words." in cai("show", "--list", "-c", tmp_path).out
    assert json.loads(cai("show", "--json", "-c", tmp_path).out)[0]["parameters"] == {"n": 9}


def test_an_unknown_principle_names_the_nearest_one(cai: Cai) -> None:
    result = cai("show", "correct-false-claim")
    assert (result.code, result.out) == (1, "")
    assert "did you mean `correct-false-claims`?" in result.err


def test_what_cannot_be_used_is_refused_with_a_reason(cai: Cai, model: Path, tmp_path: Path) -> None:
    missing = cai("show", HONEST.id, "--model", tmp_path / "none")
    assert missing.code == 1
    assert "no such folder" in missing.err
    (tmp_path / "empty").mkdir()
    assert "has no tokenizer" in cai("show", HONEST.id, "--model", tmp_path / "empty").err
    base = make_checkpoint(tmp_path / "base", "gpt2", hidden_size=16)
    assert "has no chat template" in cai("show", HONEST.id, "--model", base).err
    assert cai("show", HONEST.id, "--model", base, "--base").code == 0
    assert "--all counts tokens" in cai("show", "--all", "--model", "none").err
    assert cai("show", HONEST.id, "--stage", "draft").code == 2
    assert cai("show", HONEST.id, "--all").code == 2
