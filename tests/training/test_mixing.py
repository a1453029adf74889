"""Rows of one's own in supervised training: how many, which, and which never."""

from __future__ import annotations

import dataclasses
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from training_runs import SFT, make_replies, spec_of

from cai.data.filters.held_out_prompts import HeldOutPrompts
from cai.data.training_rows import read_sft_rows
from cai.errors import DataError, ProblemList
from cai.models.loading import load_tokenizer
from cai.training.course import Course
from cai.training.mixing import mix_in
from cai.training.rows import ReplyRow, encode_replies
from cai.training.settings import MixSettings, SFTSettings
from cai.training.sft import sft_course, train_sft
from constitution.messages import user

FULL = SFT.model_copy(update={"lora": None})


def write_helpful(path: Path, count: int = 200) -> Path:
    """Answers of very unequal lengths: a share of rows would be another than one of tokens."""
    rows = [{"prompt": f"How do I do {n}?", "completion": f"Like {n}." + " Then so." * (n % 17)} for n in range(count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def mixing(*mix: MixSettings, **changes: Any) -> SFTSettings:
    return FULL.model_copy(update={"mix": mix, **changes})


def course_of(model: Path, settings: SFTSettings, held_out: HeldOutPrompts | None = None) -> Course:
    return sft_course(spec_of(model), make_replies(12), settings, held_out)


def learned(row: Any) -> int:
    assert isinstance(row, ReplyRow)
    return row.group.scored_tokens


@pytest.mark.parametrize("share", [0.1, 0.5, 0.8])
def test_a_file_gets_its_share_of_the_tokens_to_within_a_row(llama: Path, tmp_path: Path, share: float) -> None:
    course = course_of(llama, mixing(MixSettings(path=str(write_helpful(tmp_path / "h.jsonl")), share=share)))
    (mixed,) = course.mixed
    own, others = course.rows[:12], course.rows[12:]
    assert [row.uid for row in own] == [f"kept-{n}" for n in range(12)]
    assert mixed.rows == len(others) > 0
    assert mixed.tokens == sum(map(learned, others))
    total = mixed.tokens + sum(map(learned, own))
    assert mixed.share == pytest.approx(mixed.tokens / total)
    wanted = share * sum(map(learned, own)) / (1 - share)
    assert wanted <= mixed.tokens < wanted + max(map(learned, others))
    assert not mixed.exhausted
    assert sorted(at for step in course.plan for at in step.rows) == list(range(len(course.rows)))


def test_rows_are_drawn_by_the_seed_and_by_nothing_else(llama: Path, tmp_path: Path) -> None:
    path = write_helpful(tmp_path / "h.jsonl")
    elsewhere = write_helpful(tmp_path / "elsewhere.jsonl")

    def drawn(**mix: Any) -> list[str]:
        return [row.uid.partition(":")[2] for row in course_of(llama, mixing(MixSettings(share=0.3, **mix))).rows[12:]]

    first = drawn(path=str(path))
    assert first == drawn(path=str(path)) == drawn(path=str(elsewhere))
    assert first != drawn(path=str(path), seed=1)
    assert first == sorted(first, key=int), "in the order of the file"
    more = [row.uid.partition(":")[2] for row in course_of(llama, mixing(MixSettings(path=str(path), share=0.5))).rows[12:]]
    assert set(first) < set(more), "a larger share holds what a smaller one held"


def test_each_row_is_as_likely_as_any_other(llama: Path, tmp_path: Path) -> None:
    """The share of tokens is met by a stop in a shuffled order: no preference for short rows, or for early ones."""
    path = write_helpful(tmp_path / "h.jsonl", 100)
    counts = [0] * 100
    coder = load_tokenizer(spec_of(llama))
    for seed in range(60):
        for row in mix_in(400, coder, mixing(MixSettings(path=str(path), share=0.5, seed=seed)), 1000).rows:
            counts[int(row.uid.partition(":")[2]) - 1] += 1
    early, late = sum(counts[:50]), sum(counts[50:])
    short = sum(count for n, count in enumerate(counts) if n % 17 < 8)
    assert abs(early - late) < 5 * sum(counts) ** 0.5
    assert short / sum(counts) == pytest.approx(sum(n % 17 < 8 for n in range(100)) / 100, abs=0.05)


def test_the_fingerprint_goes_by_the_rows_and_not_by_where_they_lie(llama: Path, tmp_path: Path) -> None:
    path, moved = write_helpful(tmp_path / "h.jsonl"), tmp_path / "moved"
    moved.mkdir()
    (moved / "h.jsonl").write_bytes(path.read_bytes())
    prints = [
        course_of(llama, mixing(*mix)).fingerprint()
        for mix in (
            (),
            (MixSettings(path=str(path), share=0.3),),
            (MixSettings(path=str(moved / "h.jsonl"), share=0.3),),
            (MixSettings(path=str(path), share=0.4),),
            (MixSettings(path=str(path), share=0.3, seed=5),),
        )
    ]
    assert prints[1] == prints[2]
    assert len(set(prints)) == 4


def test_two_files_get_a_share_each(llama: Path, tmp_path: Path) -> None:
    first, second = write_helpful(tmp_path / "a.jsonl"), write_helpful(tmp_path / "b.jsonl", 400)
    settings = mixing(MixSettings(path=str(first), share=0.2), MixSettings(path=str(second), share=0.5, seed=1))
    mixed = sft_course(spec_of(llama), make_replies(200), settings).mixed
    assert [each.share for each in mixed] == [pytest.approx(0.2, abs=0.01), pytest.approx(0.5, abs=0.01)]
    with pytest.raises(ValueError, match="add up to 1 or more"):
        SFTSettings(mix=(MixSettings(path="a", share=0.5), MixSettings(path="b", share=0.5)))


def test_a_file_with_too_few_rows_is_used_whole_and_that_is_said(llama: Path, tmp_path: Path) -> None:
    path = write_helpful(tmp_path / "h.jsonl", 3)
    result = train_sft(spec_of(llama), make_replies(12), mixing(MixSettings(path=str(path), share=0.5)), tmp_path / "out")
    (mixed,) = result.mixed
    assert (mixed.rows, mixed.exhausted) == (3, True)
    assert result.trained_rows == 15
    assert any("too few rows" in warning and f"{mixed.share:.1%}" in warning for warning in result.warnings)
    card = (result.folder / "README.md").read_text()
    assert f"mixed in from h.jsonl | 3 ({mixed.share:.1%} of the tokens learned)" in card
    assert str(tmp_path) not in card
    assert json.loads((result.folder / "training.json").read_text())["mixed"] == [mixed.model_dump(mode="json")]


def test_what_is_mixed_in_teaches_no_held_out_prompt(llama: Path, tmp_path: Path) -> None:
    long = "Tell me in one or two sentences why the sky over the sea is blue in the morning and red in the evening"
    leaks = [
        {"prompt": "how do I do: SEVEN", "completion": "So."},  # the same words
        {"prompt": f"{long}, please?", "completion": "So."},  # nearly so
        {"prompt": "What was asked?", "completion": f"You asked: {long}."},  # a passage
        {
            "messages": [
                {"role": role, "content": text}
                for role, text in (
                    ("user", "How do I do seven?"),
                    ("assistant", "So."),
                    ("user", "Thanks."),
                    ("assistant", "Welcome."),
                )
            ]
        },
    ]
    path = tmp_path / "h.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in [*leaks, {"prompt": "Something else?", "completion": "Yes."}]))
    held_out = HeldOutPrompts([(user("How do I do seven?"),), (user(f"{long}?"),)])
    course = course_of(llama, mixing(MixSettings(path=str(path), share=0.5)), held_out)
    assert [row.uid for row in course.rows[12:]] == ["h.jsonl:5"]
    assert [(row.uid, row.kind, row.reason) for row in course.dropped] == [
        (f"h.jsonl:{line}", "mixed", "held_out") for line in (1, 2, 3, 4)
    ]
    assert course.mixed[0].exhausted


def test_bad_rows_of_a_file_are_named_by_their_lines(llama: Path, tmp_path: Path) -> None:
    path = write_helpful(tmp_path / "h.jsonl", 5)
    with path.open("a") as file:
        file.write('{"prompt": "no reply"}\n')
    with pytest.raises(DataError, match=r"h\.jsonl:6: neither messages nor"):
        course_of(llama, mixing(MixSettings(path=str(path), share=0.5)))


def test_rows_too_long_are_named_by_file_and_line(llama: Path, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [{"uid": "mine", "prompt": "q " * 300, "completion": "a"}, {"prompt": "q", "completion": "a"}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = FULL.model_copy(update={"max_length_tokens": 100})
    (dropped,) = sft_course(spec_of(llama), read_sft_rows(path), settings).dropped
    assert (dropped.uid, dropped.reason) == ("mine", "overlong")
    assert dropped.detail.startswith("rows.jsonl:1: ")
    with pytest.raises(ProblemList, match=r"mine/0: rows\.jsonl:1: \d+ tokens, 100 allowed"):
        sft_course(spec_of(llama), read_sft_rows(path), settings.model_copy(update={"overlong": "refuse"}))


def test_of_a_large_file_only_token_ids_are_kept(llama: Path, tmp_path: Path) -> None:
    """Story: texts were in memory three times over: as records, as tokens of 36 bytes each, as the JSON of a fingerprint."""

    path = tmp_path / "rows.jsonl"
    reply = "I do not know, and nobody can know that yet. " * 20
    with path.open("w") as file:
        file.writelines(json.dumps({"prompt": f"What is {n}?", "completion": f"{n}: {reply}"}) + "\n" for n in range(300))
    course = course_of(llama, FULL)
    tracemalloc.start()
    try:
        rows, _ = encode_replies(read_sft_rows(path), course.model.tokenizer, FULL, 1000, kind="row")
        dataclasses.replace(course, rows=rows).fingerprint()
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    tokens = sum(len(row.group.prompt_ids) + len(row.group.replies[0]) for row in rows)
    assert len(rows) == 300
    assert kept < 10 * tokens + 1500 * len(rows)
    assert peak < kept + path.stat().st_size / 2
