"""The paged scheduler writes what a plain loop writes, whatever shares a batch with a row and however little cache there is."""

from __future__ import annotations

import random
from typing import Any

import pytest
from checkpoints import ARCHITECTURES, Architecture
from naive import OpenTiny, conversations, greedy
from paged_rows import DRAWN, GREEDY, one_by_one, rows_of, run, scheduler, texts

from cai.engines.base import FinishReason
from cai.engines.rows import Row
from cai.models.loading import LoadedModel


@pytest.mark.parametrize(
    "architecture",
    [pytest.param(each, marks=pytest.mark.slow if each in ("qwen2", "phi3", "gpt2") else ()) for each in ARCHITECTURES],
)
def test_greedy_tokens_of_every_architecture_are_those_of_generate(open_tiny: OpenTiny, architecture: Architecture) -> None:
    """Gemma 3 and Mistral attend through a window of 32 tokens here; prompts and answers go far beyond it."""
    loaded = open_tiny(architecture)
    stops = loaded.tokenizer.stop_ids
    rows = rows_of(loaded, 6, 20, [GREEDY])
    with scheduler(loaded, lambda row: row.generated[-1] in stops) as scheduled:
        run(scheduled, rows)
    assert [row.generated for row in rows] == [greedy(loaded, row.prompt, row.max_tokens) for row in rows]
    assert all((row.finish is FinishReason.STOP) == (row.generated[-1] in stops) for row in rows)


def test_texts_depend_on_their_row_alone_in_any_order_batch_and_cache(open_tiny: OpenTiny) -> None:
    """With 256 tokens of cache rows lose their pages in mid-answer and are computed again."""
    loaded = open_tiny("llama")
    expected = texts([one_by_one(loaded, row) for row in rows_of(loaded, 12)])
    ways: list[dict[str, Any]] = [{"rows": 1}, {"rows": 16, "batch_tokens": 300}, {"rows": 8, "cache_tokens": 256}]
    ways.append({"share": False})
    for settings in ways:
        rows = rows_of(loaded, 12)
        with scheduler(loaded, lambda _: False, **settings) as scheduled:
            run(scheduled, random.Random(str(settings)).sample(rows, len(rows)))
        assert texts(rows) == expected, settings


def test_a_row_goes_on_with_another_kind_of_sampling_while_others_are_written(open_tiny: OpenTiny) -> None:
    """Sorting the vocabulary and a table of seen tokens are put in when the first row needs them; nothing is lost by it."""
    loaded = open_tiny("llama")
    rows = [*rows_of(loaded, 6, 20, [GREEDY]), *rows_of(loaded, 6, 12)]
    expected = texts([one_by_one(loaded, row) for row in rows])
    with scheduler(loaded) as scheduled:
        for row in rows[:6]:
            scheduled.add(row)
        for number, _ in enumerate(scheduled.run()):
            if number < 6:
                scheduled.add(rows[6 + number])
    assert texts(rows) == expected


def next_turn(loaded: LoadedModel, row: Row, number: int) -> Row:
    """A critique extends its draft's tokens, a revision its critique's."""
    ask = loaded.tokenizer.encode_chat(conversations(4, 10)[number])
    prompt = [*row.prompt, *row.generated, *ask]
    return Row(prompt, row.params, row.seed + number + 1, row.max_tokens, len(prompt) + row.max_tokens)


def test_chains_flow_through_without_a_barrier_and_find_their_conversation_in_the_cache(open_tiny: OpenTiny) -> None:
    loaded = open_tiny("llama")
    drafts = rows_of(loaded, 8, 9, DRAWN[:2])
    expected: list[object] = []
    for draft in drafts:
        row = one_by_one(loaded, draft)
        for number in range(2):
            expected.append(texts([row]))
            row = one_by_one(loaded, next_turn(loaded, row, number))
        expected.append(texts([row]))
    found: dict[tuple[int, int], object] = {}
    place = {id(draft): (item, 0) for item, draft in enumerate(drafts)}
    kept: list[Row] = list(drafts)
    order: list[int] = []
    with scheduler(loaded) as scheduled:
        for draft in drafts:
            scheduled.add(draft)
        for row in scheduled.run():
            item, stage = place[id(row)]
            found[item, stage] = texts([row])
            order.append(stage)
            if stage < 2:
                following = next_turn(loaded, row, stage)
                kept.append(following)  # an id stays its row's
                place[id(following)] = (item, stage + 1)
                scheduled.add(following)
        done = scheduled.statistics()
    assert [found[item, stage] for item in range(8) for stage in range(3)] == expected
    assert order.index(2) < len(order) - 1 - order[::-1].index(0), "a revision ended before the last draft"
    # All but the last, unfinished page of each conversation lay in the cache.
    continued = [row for row in kept if place[id(row)][1] > 0]
    reusable = sum((len(row.prompt) - len(conversations(4, 10)[0][0].content)) // 32 * 32 for row in continued)
    assert done.reused_tokens >= reusable > 300
    assert done.prompt_tokens + done.reused_tokens == sum(len(row.prompt) for row in kept)
    assert done.completion_tokens == sum(len(row.generated) for row in kept)
    assert 0.5 < done.row_steps / done.slot_steps <= 1


def test_what_prompts_have_in_common_is_computed_once(open_tiny: OpenTiny) -> None:
    """Story: rows that entered together each computed the few-shots, for a page can only be shared when it is complete."""
    loaded = open_tiny("llama")
    shots = loaded.tokenizer.encode_chat(conversations(2, 80)[1])[:128]
    rows = [Row([*shots, *row.prompt[:20]], GREEDY, 0, 4, 300) for row in rows_of(loaded, 12) if len(row.prompt) >= 20]
    expected = texts([one_by_one(loaded, row) for row in rows])
    with scheduler(loaded, rows=12, batch_tokens=2048) as scheduled:
        run(scheduled, rows)
        done = scheduled.statistics()
    assert texts(rows) == expected
    assert done.prompt_tokens == len(shots) + 20 * len(rows)
    assert done.reused_tokens == len(shots) * (len(rows) - 1)


def test_a_conversation_stays_in_a_full_cache_until_its_next_turn(open_tiny: OpenTiny) -> None:
    """Story: transformers 5.17 gave up the pages used last, those of the draft that had just ended.

    Later versions now and then give up all that no row uses; here that falls before the draft.
    """
    loaded = open_tiny("llama")
    fill = [Row([5 + number, *range(5, 74)], GREEDY, 0, 2, 100) for number in range(44)]
    with scheduler(loaded, rows=2, cache_tokens=2048) as scheduled:
        run(scheduled, fill)  # 100 whole pages: each of the cache's 64 has been used
        draft = Row([7, 8, 9] * 40, GREEDY, 0, 4, 200)
        run(scheduled, [draft])
        before = scheduled.statistics().reused_tokens
        others = [Row([100 + number, *range(5, 74)], GREEDY, 0, 2, 200) for number in range(2)]
        following = Row([*draft.prompt, *draft.generated, 5, 6], GREEDY, 0, 4, 300)
        run(scheduled, others)
        run(scheduled, [following])
        assert scheduled.statistics().reused_tokens - before >= 96


def test_a_row_ends_when_it_is_said_to_and_no_token_later(open_tiny: OpenTiny) -> None:
    loaded = open_tiny("qwen2")

    def ended(row: Row) -> bool:
        return len(row.generated) >= 3 and sum(row.generated[-2:]) % 5 == 0

    rows = rows_of(loaded, 16, 20)
    expected = texts([one_by_one(loaded, row, ended) for row in rows])
    assert {finish for _, finish in expected} == {FinishReason.STOP, FinishReason.LENGTH}
    with scheduler(loaded, ended) as scheduled:
        run(scheduled, rows)
    assert texts(rows) == expected


def test_both_limits_of_length_hold(open_tiny: OpenTiny) -> None:
    loaded = open_tiny("llama")
    rows = [Row([5, 6, 7], GREEDY, 0, most, 3 + whole) for most, whole in ((1, 9), (9, 1), (5, 7), (7, 5))]
    with scheduler(loaded) as scheduled:
        run(scheduled, rows)
    assert [len(row.generated) for row in rows] == [1, 1, 5, 5]
    assert {row.finish for row in rows} == {FinishReason.LENGTH}


def test_dropped_rows_do_not_come_out_and_the_others_are_untouched(open_tiny: OpenTiny) -> None:
    loaded = open_tiny("llama")
    rows = rows_of(loaded, 16, 24)
    expected = texts([one_by_one(loaded, row) for row in rows])
    with scheduler(loaded) as scheduled:
        for row in rows:
            scheduled.add(row)
        running = scheduled.run()
        ended = [next(running)]
        dropped = {row for number, row in enumerate(rows) if number % 2 and row not in ended}
        scheduled.drop(dropped)
        ended += running
        assert not dropped & set(ended)
        assert len(ended) == len(rows) - len(dropped)
        assert (scheduled.statistics().waiting, scheduled.statistics().running) == (0, 0)
    for row, (tokens, finish) in zip(rows, expected, strict=True):
        if row in dropped:
            assert tokens[: len(row.generated)] == row.generated
        else:
            assert (row.generated, row.finish) == (tokens, finish)
