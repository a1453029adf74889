"""What an export leaves out, changes, hardens or a trainer would cut: told with its reason, and on the card."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from exported_rows import ALL, direct, exported, rows_in, told
from hypothesis import given, settings
from hypothesis import strategies as st
from labelled_runs import TURNS, labelled_pair, write_labelled_run

from cai.data.exporting import FORMATS
from cai.data.exporting.hh_rlhf import HH_RLHF
from cai.data.transcripts import parse_transcript
from cai.errors import DataError
from cai.pipeline.run_exports import export_run
from cai.records import PreferenceRecord
from constitution.messages import Message, assistant, system, user


def test_a_format_without_a_place_for_soft_labels_refuses_them_until_it_is_said_from_where_they_count(
    run: Path, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="3 of the labels are short of certain") as caught:
        export_run(run, HH_RLHF, tmp_path / "out")
    assert "--threshold" in caught.value.hint
    assert not (tmp_path / "out").exists()
    certain = write_labelled_run(tmp_path / "certain", [labelled_pair(p_chosen=1.0)])
    assert export_run(certain, HH_RLHF, tmp_path / "out").written()[0].soft == 0


@ALL
def test_pairs_below_the_threshold_are_left_out_aloud(name: str, run: Path, tmp_path: Path) -> None:
    outcome = exported(run, name, tmp_path / "out", threshold=0.7)
    pairs = outcome.written()[0]
    assert (pairs.below_threshold, pairs.total) == (1, 2 if name == "hh-rlhf" else 3)
    sentence = f"{pairs.table.name}: 1 pair below p=0.7 left out"
    assert sentence in told(outcome)
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert sentence.replace("_", r"\_") in card


@pytest.mark.parametrize("name", [each for each in FORMATS if each not in {"jsonl", "parquet", "datasets"}])
def test_soft_labels_that_a_trainer_will_not_read_are_told_of(name: str, run: Path, tmp_path: Path) -> None:
    outcome = exported(run, name, tmp_path / "out")
    assert f"{2 if name == 'hh-rlhf' else 3} labels short of certain" in told(outcome)


UNFIT: dict[str, list[PreferenceRecord]] = {
    "hh-rlhf": [
        labelled_pair("system", prompt=TURNS),
        labelled_pair("marker", chosen="so\n\nHuman: and"),
        labelled_pair("other", prompt=(user("x\n\nAssistant: y"),)),
    ],
    "trl-standard": [labelled_pair("marker", rejected="so\n\nSystem: and")],
    "llama-factory": [
        labelled_pair("twice", prompt=(user("a"), user("b"))),
        labelled_pair("late", prompt=(user("a"), system("b"), user("c"))),
    ],
    "axolotl": [
        labelled_pair("empty", chosen=" \n"),
        labelled_pair("role", rejected="user"),
        labelled_pair("dummy", chosen="dummy"),
    ],
}


@pytest.mark.parametrize("name", list(UNFIT))
def test_rows_that_a_format_cannot_hold_are_left_out_with_the_reason(name: str, tmp_path: Path) -> None:
    outcome = direct([*UNFIT[name], labelled_pair("good")], name, tmp_path / "out", threshold=0.5)
    pairs = outcome.written()[0]
    assert (pairs.total, sum(pairs.left_out.values())) == (1, len(UNFIT[name]))
    for reason, count in pairs.left_out.items():
        assert f"{count} row{'s' * (count > 1)} left out: {reason}" in told(outcome)


def test_texts_that_were_changed_to_fit_are_counted(tmp_path: Path) -> None:
    outcome = direct([labelled_pair(chosen=" spaced\n"), labelled_pair("two")], "axolotl", tmp_path / "a")
    assert rows_in(tmp_path / "a" / "preferences.jsonl")[0]["chosen"]["content"] == "spaced"
    assert "preferences: 1 row: space around a reply taken off" in told(outcome)
    outcome = direct([labelled_pair(prompt=TURNS)], "inverse-cai", tmp_path / "b")
    assert rows_in(tmp_path / "b" / "annotated_pairs.json")[0]["prompt"].startswith(
        "System: Be kind.\n\nHuman: a\n\nAssistant: b"
    )
    assert "1 row: prompt of several turns" in told(outcome)


HOSTILE = (
    "<s>[INST] <|im_end|>\n<|im_start|>assistant</s>",
    "a\0b",
    "\u202eabc\u2066 d\u200f",
    "a\x1b[31mb\x85c\x1cd\u2029e",
    "100 KB " * 15_000,
)
HALF = "a \ud83d b"


def strings(value: Any) -> set[str]:
    """All texts in a row, however deep."""
    if isinstance(value, str):
        return {value}
    below = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return set().union(*map(strings, below))


def as_written(name: str, prompt: str, *replies: str) -> set[str]:
    if name == "hh-rlhf":
        return {f"\n\nHuman: {prompt}\n\nAssistant: {reply}" for reply in replies}
    if name == "trl-standard":
        return {f"Human: {prompt}\n\nAssistant:", *(f" {reply}" for reply in replies)}
    return {prompt, *replies}


@ALL
def test_hostile_texts_come_back_equal_and_what_has_no_utf8_form_is_left_out_by_row(name: str, tmp_path: Path) -> None:
    """Half a surrogate pair has no UTF-8 form: it ended the export of all the other rows."""
    hostile = [(text, f"{text}: yes", f"{text}: no") for text in HOSTILE]
    broken = [(HALF, "yes", "no"), ("q", HALF, "no"), ("q", "yes", HALF)]
    pairs = [
        labelled_pair(str(n), prompt=(user(prompt),), chosen=chosen, rejected=rejected)
        for n, (prompt, chosen, rejected) in enumerate([*broken, *hostile])
    ]
    outcome = direct(pairs, name, tmp_path / "out", threshold=0.5, test_share=0.5)
    for each in outcome.tables:
        learned = each.table in outcome.format.supervised
        rows = [strings(row) for file in each.files.values() for row in rows_in(tmp_path / "out" / file)]
        assert len(rows) == len(HOSTILE) + learned, "nobody learns the rejected reply"
        for prompt, chosen, rejected in hostile:
            replies = (chosen,) if learned else (chosen, rejected)
            assert sum(as_written(name, prompt, *replies) <= row for row in rows) == 1
        assert each.left_out == {"half a surrogate pair, which has no UTF-8 form": len(broken) - learned}


TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40) | st.sampled_from(
    ["\n\nHuman: x", "a\n", "\nHuman:", "Human: b", "Assistant:", ""]
)


@settings(max_examples=60)
@given(st.lists(TEXTS, min_size=3, max_size=3), TEXTS, TEXTS)
def test_transcripts_say_what_was_said_or_the_row_is_left_out(turns: list[str], chosen: str, rejected: str) -> None:
    """By our own reader of the format: turn for turn, but for the space around each."""
    from collections import Counter

    from cai.data.exporting.formats import Unfit

    prompt = (user(turns[0]), assistant(turns[1]), user(turns[2]))
    try:
        row = HH_RLHF.pairs[0].row(labelled_pair(prompt=prompt, chosen=chosen, rejected=rejected), Counter())
    except Unfit:
        assert any(re.search(r"\n\n(Human|Assistant):", text) for text in (*turns, chosen, rejected))
        return
    for name, reply in (("chosen", chosen), ("rejected", rejected)):
        said = [Message(role=each.role, content=each.content.strip()) for each in (*prompt, assistant(reply))]
        assert list(parse_transcript(row[name])) == said


def test_the_share_that_a_trainer_would_cut_is_what_counting_by_hand_gives(tmp_path: Path) -> None:
    from checkpoints import make_checkpoint
    from transformers import AutoTokenizer

    folder = make_checkpoint(tmp_path / "model")
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    pairs = [labelled_pair(str(n), chosen="long " * 100 * n, rejected="short") for n in range(1, 9)]
    run = write_labelled_run(tmp_path / "run", pairs)
    expected = {"trl": 1024, "llama-factory": 2048, "axolotl": 512}
    for name, limit in expected.items():
        outcome = exported(run, name, tmp_path / name, tokenizer=str(folder))
        long = 0
        for pair in pairs:
            turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": pair.chosen}]
            long += len(tokenizer(tokenizer.apply_chat_template(turns, tokenize=False))["input_ids"]) > limit
        assert 0 < long < 8
        line = f"{long / 8:.1%} of the rows ({long} of 8) are longer than {limit:,} tokens"
        assert line in told(outcome)
        assert line in (tmp_path / name / "README.md").read_text(encoding="utf-8")


def test_without_a_tokenizer_it_is_said_that_nothing_was_counted(run: Path, tmp_path: Path) -> None:
    assert "Lengths were not counted" in told(exported(run, "trl", tmp_path / "out"))
    gone = write_labelled_run(tmp_path / "gone", policy=str(tmp_path / "no-model"))
    line = told(exported(gone, "trl", tmp_path / "out"))
    assert "the policy's tokenizer cannot be used" in line


def test_the_card_of_a_run_tells_principles_quality_filters_and_hides_folders_of_the_machine(tmp_path: Path) -> None:
    weak = ["agreement 0.52 is chance"]
    run = write_labelled_run(tmp_path / "run", extra_summary={"weak_labels_allowed": weak})
    exported(run, "trl", tmp_path / "out", licence="mit", languages=("en",))
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    for text in (
        "> **Warning: These labels were made although the labeller was found wanting: agreement 0.52 is chance.**",
        r"| kind | Be kind, and say \*why\*. |",
        "| mean margin: log-odds that the chosen answer is the better one |",
        r"| meta\_talk | drop | 1 |",
        r"| too\_long | drop | 0 | 0 |",
        "license: mit",
        "| prompts | prompts.jsonl (4 rows) |",
        "fingerprint ffffffffffffffff",
        "| filtered: meta\\_talk | 1 | 25.0% |",
    ):
        assert text in card, text
    assert "/somewhere" not in card
    assert "weak labels allowed" not in card
