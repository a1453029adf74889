"""The decoding loop writes what `model.generate` writes, whatever shares a batch with a row."""

from __future__ import annotations

import random

import pytest
from checkpoints import ARCHITECTURES, Architecture
from naive import OpenTiny, conversations, greedy

from cai.engines.base import FinishReason, SamplingParams
from cai.engines.decoding import COLUMN_STEP, SlotScheduler
from cai.engines.forward import Forward
from cai.engines.limits import BatchLimits
from cai.engines.rows import Row
from cai.models.loading import LoadedModel

GREEDY = SamplingParams(temperature=0.0)


def rows_of(prompts: list[list[int]], tokens: int, params: SamplingParams = GREEDY) -> list[Row]:
    return [Row(prompt, params, seed, tokens, len(prompt) + tokens) for seed, prompt in enumerate(prompts)]


def decode(loaded: LoadedModel, prompts: list[list[int]], tokens: int, limits: BatchLimits) -> list[list[int]]:
    stops = loaded.tokenizer.stop_ids
    scheduler = SlotScheduler(Forward(loaded.model), limits, lambda row: row.generated[-1] in stops)
    rows = rows_of(prompts, tokens)
    for row in rows:
        scheduler.add(row)
    written = list(scheduler.run())
    assert len(written) == len(rows)
    assert set(written) == set(rows)
    for row in rows:
        stopped = row.generated[-1] in stops
        assert row.finish is (FinishReason.STOP if stopped else FinishReason.LENGTH)
    return [row.generated for row in rows]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_greedy_tokens_equal_transformers_token_by_token(open_tiny: OpenTiny, architecture: Architecture) -> None:
    """Gemma 3 and Mistral attend through a window of 32 tokens here; prompts and answers go far beyond it."""
    loaded = open_tiny(architecture)
    prompts = [loaded.tokenizer.encode_chat(each) for each in conversations(8)]
    prompts.append(prompts[4])
    lengths = sorted(map(len, prompts))
    assert lengths[0] < 32 < 2 * 32 < lengths[-1]
    expected = [greedy(loaded, prompt, 40) for prompt in prompts]
    # Three rows at a time and short prefills: rows leave and enter while others are in the middle of their answer.
    assert decode(loaded, prompts, 40, BatchLimits(3, 256, 100_000)) == expected
    # All at once, in trees with shared beginnings.
    assert decode(loaded, prompts, 40, BatchLimits(64, 100_000, 100_000)) == expected


def test_rows_enter_as_others_leave_and_each_keeps_its_own_limit(open_tiny: OpenTiny) -> None:
    loaded = open_tiny("llama")
    prompts = [loaded.tokenizer.encode_chat(each) for each in conversations(40, 12)]
    randomly = random.Random(1)
    limits = [randomly.randint(1, 30) for _ in prompts]
    scheduler = SlotScheduler(Forward(loaded.model), BatchLimits(8, 200, 100_000), lambda _: False)
    rows = [
        Row(prompt, GREEDY, i, most, len(prompt) + most) for i, (prompt, most) in enumerate(zip(prompts, limits, strict=True))
    ]
    for row in rows:
        scheduler.add(row)
    assert set(scheduler.run()) == set(rows)
    assert [len(row.generated) for row in rows] == limits


@pytest.mark.parametrize("architecture", ["llama", "gemma3"])
@pytest.mark.parametrize("seed", range(4))
def test_chains_of_turns_equal_each_turn_alone_in_any_schedule(
    open_tiny: OpenTiny, architecture: Architecture, seed: int
) -> None:
    """Next turns come as the last ones end, few slots and a small cache push out what was kept; no text changes."""
    loaded = open_tiny(architecture)
    chance = random.Random(seed)
    params = [GREEDY, SamplingParams(temperature=0.8), SamplingParams(temperature=1.3, top_p=0.9, repetition_penalty=1.2)]
    first = [loaded.tokenizer.encode_chat(each) for each in conversations(14, 12)]
    turns = [[chance.choices(range(20, 80), k=chance.randint(1, 30)) for _ in range(3)] for _ in first]
    drawn = [chance.choice(params) for _ in first]
    most = [chance.randint(1, 20) for _ in first]

    def row(prompt: list[int], number: int, turn: int) -> Row:
        return Row(prompt, drawn[number], 100 * number + turn, most[number], len(prompt) + most[number])

    alone: list[list[list[int]]] = []
    for number, prompt in enumerate(first):
        one: list[list[int]] = []
        for turn in range(4):
            scheduler = SlotScheduler(Forward(loaded.model), BatchLimits(1, 10_000, 100_000, exact=True), lambda _: False)
            scheduler.add(row(prompt, number, turn))
            (done,) = scheduler.run()
            one.append(done.generated)
            prompt = [*prompt, *done.generated, *turns[number][turn]] if turn < 3 else []  # noqa: PLW2901
        alone.append(one)

    limits = BatchLimits(chance.randint(2, 6), chance.choice([64, 2000]), chance.choice([300, 1000, 100_000]), exact=True)
    scheduler = SlotScheduler(Forward(loaded.model), limits, lambda _: False)
    owners = {row(prompt, number, 0): (number, 0) for number, prompt in enumerate(first)}
    texts: list[list[list[int]]] = [[] for _ in first]
    for each in owners:
        scheduler.add(each)
    for done in scheduler.run():
        number, turn = owners.pop(done)
        texts[number].append(done.generated)
        if turn < 3:
            after = row([*done.prompt, *done.generated, *turns[number][turn]], number, turn + 1)
            owners[after] = number, turn + 1
            scheduler.add(after)
    assert texts == alone
    assert not owners
    assert scheduler.statistics().reused_tokens > 0


def test_a_next_turn_computes_only_what_is_new(open_tiny: OpenTiny) -> None:
    loaded = open_tiny("llama")
    scheduler = SlotScheduler(Forward(loaded.model), BatchLimits(4, 2000, 100_000), lambda _: False)
    prompt = loaded.tokenizer.encode_chat(conversations(3, 40)[1])
    (first,) = rows_of([prompt], 10)
    scheduler.add(first)
    assert list(scheduler.run()) == [first]
    before = scheduler.statistics().prompt_tokens
    (second,) = rows_of([[*prompt, *first.generated, 40, 41, 42]], 10)
    scheduler.add(second)
    assert list(scheduler.run()) == [second]
    assert scheduler.statistics().prompt_tokens - before == 4  # the answer's last token never went through the model
    assert scheduler.statistics().reused_tokens == len(prompt) + 9


def test_a_common_beginning_is_computed_once(open_tiny: OpenTiny) -> None:
    loaded = open_tiny("qwen2")
    scheduler = SlotScheduler(Forward(loaded.model), BatchLimits(8, 2000, 100_000), lambda _: False)
    system = list(range(20, 80))
    prompts = [[*system, 100 + number, 90] for number in range(30)]
    for row in rows_of(prompts, 5):
        scheduler.add(row)
    assert len(list(scheduler.run())) == 30
    assert scheduler.statistics().prompt_tokens == len(system) + 2 * 30


def test_a_reply_that_many_principles_criticise_is_computed_once(open_tiny: OpenTiny) -> None:
    """Story: rows that took over the slots of the rows before them lost the beginnings they were to copy from there."""
    loaded = open_tiny("llama")
    scheduler = SlotScheduler(Forward(loaded.model), BatchLimits(16, 2000, 100_000), lambda _: False)
    replies = [list(range(20 + 100 * number, 110 + 100 * number)) for number in range(2)]
    principles = [[*[300 + number % 13] * 10, 320 + number, *range(330, 347)] for number in range(50)]
    for row in rows_of([[*reply, *principle] for principle in principles for reply in replies], 4):
        scheduler.add(row)
    assert len(list(scheduler.run())) == 100
    assert scheduler.statistics().prompt_tokens <= 1.1 * (2 * 90 + 100 * len(principles[0]))


def test_dropped_rows_are_forgotten_and_the_others_go_on(open_tiny: OpenTiny) -> None:
    loaded = open_tiny("llama")
    prompts = [loaded.tokenizer.encode_chat(each) for each in conversations(10, 12)]
    expected = decode(loaded, prompts, 20, BatchLimits(10, 2000, 100_000))
    scheduler = SlotScheduler(Forward(loaded.model), BatchLimits(6, 2000, 100_000), lambda _: False)
    rows = rows_of(prompts, 20)
    for number, row in enumerate(rows):
        row.max_tokens = 3 if number == 4 else 20
        scheduler.add(row)
    ended = next(scheduler.run())
    dropped = [row for row in rows if row is not ended][::2]
    assert any(row.generated for row in dropped)
    scheduler.drop(dropped)
    left = [row for row in rows if row is not ended and row not in dropped]
    assert set(scheduler.run()) == set(left)
    assert all(row.generated == expected[row.seed] for row in left)
    assert scheduler.statistics().running == scheduler.statistics().waiting == 0


def test_a_prompt_longer_than_every_limit_is_still_decoded(open_tiny: OpenTiny) -> None:
    """Limits say how much goes together; one row alone may exceed them."""
    loaded = open_tiny("qwen2")
    prompts = [loaded.tokenizer.encode_chat(each) for each in conversations(4)]
    expected = [greedy(loaded, prompt, 5) for prompt in prompts]
    assert decode(loaded, prompts, 5, BatchLimits(64, 1, 1)) == expected


def test_the_cache_limit_bounds_how_many_rows_run_together(open_tiny: OpenTiny) -> None:
    loaded = open_tiny("llama")
    prompts = [loaded.tokenizer.encode_chat(each) for each in conversations(12, 20)]
    longest = max(map(len, prompts)) + 10
    together: list[int] = []
    room: list[int] = []

    class Watched(SlotScheduler):
        def _step(self) -> None:
            together.append(len(self._running))
            room.append(self._slots.slots * self._slots.columns)
            super()._step()

    scheduler = Watched(Forward(loaded.model), BatchLimits(64, 100_000, 3 * longest), lambda _: False)
    for row in rows_of(prompts, 10):
        scheduler.add(row)
    assert len(list(scheduler.run())) == len(prompts)
    assert max(together) >= 3
    assert max(room) <= 3 * (longest + COLUMN_STEP)
