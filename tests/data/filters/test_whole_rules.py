"""Rules that have to see more than one row: boilerplate, near-duplicates, leakage; and the order in which rows are judged."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cai.data.filters.boilerplate import CountMin, learned
from cai.data.filters.findings import Reply
from cai.data.filters.leakage import EvaluationSet, evaluation_set_fingerprints, evaluation_set_problems, file_set, file_texts
from cai.data.filters.near_duplicates import MOST_CANDIDATES, MOST_SHINGLES, likeness
from cai.data.filters.settings import FilterRules
from cai.data.filters.sieve import Sieve, Sifted, of_rows, sees_whole, sieve_for
from cai.errors import DataError
from constitution.messages import system, user

WORDS = ("river", "lamp", "stone", "bread", "cloud", "paper", "glass", "garden", "winter", "letter", "music", "silver")


def text(seed: object, count: int = 40) -> str:
    draw = random.Random(str(seed))
    return " ".join(draw.choice(WORDS) + str(draw.randrange(50)) for _ in range(count)) + "."


def sifted(rules: FilterRules, replies: Sequence[Reply], *sets: EvaluationSet) -> list[Sifted]:
    sieve = sieve_for(rules, replies, sets)
    return [sieve.sift(reply) for reply in replies]


# ---- boilerplate

HABIT = "It is always best to talk to an expert."


def habitual(rows: int, share: float, *, in_draft: bool = False, in_prompt: bool = False) -> list[Reply]:
    made: list[Reply] = []
    for n in range(rows):
        hit = n < share * rows
        draft = f"{text(('draft', n), 10)} {HABIT if hit and in_draft else ''}"
        prompt = f"{text(('prompt', n), 10)} {HABIT if hit and in_prompt else ''}"
        revision = f"{text(('revision', n), 10)} {HABIT if hit else ''}"
        made.append(Reply((user(prompt),), revision, draft, draft, uid=str(n)))
    return made


def test_a_sentence_that_revisions_share_and_drafts_do_not_is_boilerplate() -> None:
    rules = FilterRules(boilerplate="drop", boilerplate_share=0.1)
    found = sifted(rules, habitual(200, 0.2))
    assert [each.dropped_by for each in found] == ["boilerplate"] * 40 + [None] * 160
    finding = found[0].findings[-1]
    assert (finding.detail, finding.score, finding.limit) == ("in 40 of 200 replies", 0.2, 0.1)
    assert finding.span is not None
    assert habitual(200, 0.2)[0].text[slice(*finding.span)] == HABIT


@pytest.mark.parametrize(
    ("rows", "share", "in_draft", "in_prompt"),
    [(200, 0.05, False, False), (200, 0.2, True, False), (200, 0.2, False, True), (20, 0.4, False, False)],
)
def test_what_is_rare_or_in_drafts_or_prompts_as_well_or_in_few_rows_is_none(
    rows: int, share: float, in_draft: bool, in_prompt: bool
) -> None:
    found = sifted(
        FilterRules(boilerplate="drop", boilerplate_share=0.1), habitual(rows, share, in_draft=in_draft, in_prompt=in_prompt)
    )
    assert {each.dropped_by for each in found} == {None}


def test_an_opening_is_enough() -> None:
    replies = [Reply((user(text(n)),), f"What a lovely question, {text((n, 'r'), 5)}", uid=str(n)) for n in range(50)]
    (finding,) = sifted(FilterRules(boilerplate="flag"), replies)[7].findings
    assert finding.span == (0, len("What a lovely question"))


@given(st.lists(st.text(alphabet="abc", max_size=3), max_size=60))
def test_the_sketch_never_counts_too_low_and_is_exact_with_few_units(units: list[str]) -> None:
    sketch = CountMin()
    for unit in units:
        sketch.add(unit)
    assert all(sketch.count(unit) == units.count(unit) for unit in {*units, "never added"})


def test_what_is_counted_takes_the_same_memory_for_any_number_of_rows() -> None:
    import tracemalloc

    def peak(rows: int) -> int:
        tracemalloc.start()
        learned(Reply((user(text(n, 6)),), text((n, "r"), 6), uid=str(n)) for n in range(rows))
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return size

    assert peak(2000) < peak(200) + 100_000


# ---- near-duplicates


def pair(n: int, reply: str, *, prompt: str | None = None) -> Reply:
    return Reply((user(prompt or text("one prompt")),), reply, uid=str(n))


RULES = FilterRules(near_duplicate="drop")


def test_a_later_row_with_nearly_the_same_prompt_and_reply_is_dropped() -> None:
    reply = text("a", 60)
    words = reply.split()
    changed = " ".join(["other", *words[1:]])
    rows = [pair(0, reply), pair(1, text("b", 60)), pair(2, changed), pair(3, reply.upper())]
    found = sifted(RULES, rows)
    assert [each.dropped_by for each in found] == [None, None, "near_duplicate", "near_duplicate"]
    assert found[2].findings[0].detail == "like row 0"
    assert found[2].findings[0].score == pytest.approx(naive_jaccard(reply, changed))


def naive_jaccard(one: str, other: str) -> float:
    def grams(text: str) -> set[tuple[str, ...]]:
        words = text.lower().replace(".", "").split()
        return {tuple(words[n : n + 3]) for n in range(len(words) - 2)}

    return len(grams(one) & grams(other)) / len(grams(one) | grams(other))


@given(st.lists(st.sampled_from("abcd"), min_size=3, max_size=12), st.lists(st.sampled_from("abcd"), min_size=3, max_size=12))
def test_likeness_is_jaccards_index_of_word_triples(one: list[str], other: list[str]) -> None:
    assert likeness(" ".join(one), " ".join(other)) == pytest.approx(naive_jaccard(" ".join(one), " ".join(other)))


def test_likeness_of_texts_longer_than_what_is_kept_of_them_is_still_jaccards_index() -> None:
    """The smallest hashes of a long and of a short text reach to different heights, and are no sets to compare as they are."""
    words = [f"word{n}" for n in range(12_000)]
    assert len(words) > 2 * MOST_SHINGLES
    for length in (500, 3000, 6000):
        expected = (length - 2) / (len(words) - 2)
        assert likeness(" ".join(words), " ".join(words[:length])) == pytest.approx(expected, abs=0.03)


def test_texts_that_are_kept_whole_are_compared_whole() -> None:
    words = [f"word{n}" for n in range(6000)]
    one, other = words[:4000], words[2000:]
    assert likeness(" ".join(one), " ".join(other)) == 1998 / 5998


def test_earlier_replies_to_the_same_item_do_not_crowd_out_the_row_that_one_is_like() -> None:
    """Rows of one item are never each other's duplicates; so many of them as are looked at hid a real one behind them."""
    words = text("a", 80).split()
    near = " ".join("other" if n in (20, 40, 60) else word for n, word in enumerate(words))
    assert 0.7 < naive_jaccard(" ".join(words), near) < 0.85
    rows = [pair(0, " ".join(words)) for _ in range(MOST_CANDIDATES)] + [pair(1, near), pair(0, near)]
    assert [each.dropped_by for each in sifted(RULES, rows)] == [None] * (len(rows) - 1) + ["near_duplicate"]


@pytest.mark.parametrize(
    "later",
    [
        pair(1, text("a", 60), prompt=text("another prompt")),
        pair(1, text("c", 60)),
        pair(0, text("a", 60)),
    ],
    ids=["other prompt", "other reply", "another reply to the same item"],
)
def test_a_row_that_is_like_in_one_half_only_is_none(later: Reply) -> None:
    assert sifted(RULES, [pair(0, text("a", 60)), later])[1].dropped_by is None


def test_only_rows_that_were_kept_have_duplicates() -> None:
    """Were a dropped row remembered, a good row like it would go too, and nothing of either would be left."""
    broken, mended = f"Human: {text('a', 60)}", text("a", 60)
    rows = [pair(0, broken), pair(1, mended), pair(2, mended)]
    assert [each.dropped_by for each in sifted(RULES, rows)] == ["role_confusion", None, "near_duplicate"]


def test_nearly_every_pair_above_the_threshold_is_found() -> None:
    """By exact comparison of all pairs: MinHash may miss one in three hundred at the threshold."""
    draw = random.Random(7)
    rows: list[Reply] = []
    for n in range(120):
        words = text(n, 80).split()
        for _ in range(draw.randrange(4)):
            words[draw.randrange(80)] = "changed"
        rows += [pair(2 * n, text(n, 80)), pair(2 * n + 1, " ".join(words))]
    found = sifted(RULES, rows)
    like = [naive_jaccard(rows[2 * n].text, rows[2 * n + 1].text) >= 0.85 for n in range(120)]
    dropped = [found[2 * n + 1].dropped_by is not None for n in range(120)]
    assert sum(like) > 60
    assert sum(a != b for a, b in zip(like, dropped, strict=True)) <= 2
    assert not any(dropped[n] and not like[n] for n in range(120))


@settings(max_examples=15, deadline=None)
@given(st.permutations(range(6)))
def test_equal_rows_in_equal_order_give_equal_decisions(order: list[int]) -> None:
    rows = [pair(n, text(n // 2, 20)) for n in order]
    rules = FilterRules(near_duplicate="drop", boilerplate="flag")
    assert sifted(rules, rows) == sifted(rules, rows)


# ---- leakage

LEAKED = "the committee of the northern harbour decided in spring that every ship must carry two lamps at night"


def held(*texts: str) -> EvaluationSet:
    return EvaluationSet.of("exam", texts)


@pytest.mark.parametrize(
    ("reply", "prompt", "place"),
    [
        (f"As I said: {LEAKED.upper()}!", "What?", "reply"),
        ("No.", f"Is it true that {LEAKED}?", "prompt"),
        (" ".join(LEAKED.split()[2:15]).replace("that", "that,"), "What?", "reply"),
    ],
)
def test_thirteen_words_in_a_row_of_an_evaluation_set_are_a_leak(reply: str, prompt: str, place: str) -> None:
    rules = FilterRules(evaluation_sets=("exam",))
    (found,) = Sieve(rules, sets=[held("something else", LEAKED)]).sift(Reply((user(prompt),), reply)).findings
    assert (found.rule, found.place, found.detail) == ("leakage", place, "a passage of exam")
    assert found.span is not None
    assert len((reply if place == "reply" else prompt)[slice(*found.span)].split()) == 13


def test_twelve_words_of_a_longer_text_are_none_but_a_whole_short_text_is() -> None:
    twelve = " ".join(LEAKED.split()[:12])
    assert held(LEAKED).find(twelve) is None
    assert held(twelve).find(f"so {twelve} it was") == (3, 3 + len(twelve))
    assert held("who are you").find("who are you") is None, "fewer than eight words say nothing"


def test_every_text_of_an_evaluation_file_counts_but_system_messages(tmp_path: Path) -> None:
    path = tmp_path / "exam.jsonl"
    messages = [{"role": "system", "content": "be good"}, {"role": "user", "content": "q"}]
    rows: list[object] = [{"messages": messages, "answer": "a", "n": 3}, {"question": {"text": ["x", "y"]}}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert [each for each in file_texts(str(path)) if each not in ("user",)] == ["q", "a", "x", "y"]
    before = evaluation_set_fingerprints([str(path), "lab"])
    path.write_text('{"question": "z"}\n')
    after = evaluation_set_fingerprints([str(path), "lab"])
    assert before[0] != after[0]
    assert before[1] == after[1]


def test_a_missing_evaluation_file_is_told() -> None:
    (problem,) = evaluation_set_problems(["held-out", "lab", "nowhere.jsonl"])
    assert isinstance(problem, DataError)
    assert "filters.evaluation_sets" in str(problem)


def test_a_row_of_an_evaluation_file_that_cannot_be_read_is_refused_by_its_line(tmp_path: Path) -> None:
    """Story: such rows were passed over without a word, and what stood in them could be trained on unseen."""
    path = tmp_path / "exam.jsonl"
    path.write_text(json.dumps({"question": LEAKED}) + "\n{broken\n")
    with pytest.raises(DataError, match=r"exam\.jsonl:2: .*would not be found"):
        file_set(str(path))
    (problem,) = evaluation_set_problems([str(path)])
    assert "filters.evaluation_sets: exam.jsonl:2" in str(problem)


@pytest.mark.parametrize("content", ["", '{"question": "Who are you?", "answer": 3}\n'])
def test_an_evaluation_file_in_which_nothing_could_be_found_is_refused(content: str, tmp_path: Path) -> None:
    """Story: an empty file, or one of ids, was searched for all the same: the rule was on, and could not find anything."""
    path = tmp_path / "exam.jsonl"
    path.write_text(content)
    with pytest.raises(DataError, match="no text of 8 words or more"):
        file_set(str(path))
    (problem,) = evaluation_set_problems(["lab", str(path)])
    assert "filters.evaluation_sets" in str(problem)
    path.write_text(json.dumps({"question": LEAKED}) + "\n")
    assert evaluation_set_problems([str(path)]) == []
    assert file_set(str(path)).find(LEAKED) is not None


def test_system_messages_of_a_prompt_are_no_leak() -> None:
    reply = Reply((system(LEAKED), user("Why?")), "No idea.")
    assert Sieve(FilterRules(evaluation_sets=("exam",)), sets=[held(LEAKED)]).sift(reply).findings == ()


def test_a_shard_asks_no_rule_that_needs_other_rows() -> None:
    rules = FilterRules(boilerplate="drop", near_duplicate="flag", evaluation_sets=("lab",))
    assert sees_whole(rules)
    assert not sees_whole(of_rows(rules))
    assert not sees_whole(FilterRules())
    assert of_rows(rules).meta_talk is True
