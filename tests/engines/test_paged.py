"""The paged scheduler writes what a plain loop writes, whatever shares a batch with a row and however little cache there is."""

from __future__ import annotations

import gc
import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from checkpoints import ARCHITECTURES, Architecture, make_checkpoint
from naive import OpenTiny, conversations, greedy
from torch.nn.functional import scaled_dot_product_attention
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from cai.engines import paged_attention
from cai.engines.base import FinishReason, SamplingParams
from cai.engines.paged import PagedScheduler
from cai.engines.rows import Row
from cai.engines.sampling import gumbel_noise, noise_seed, position_seed, vocabulary_hash
from cai.errors import EngineError
from cai.models.loading import LoadedModel, load_model
from cai.models.spec import ModelSpec

GREEDY = SamplingParams(temperature=0.0)
DRAWN = (
    SamplingParams(temperature=0.9),
    SamplingParams(temperature=1.2, top_k=20),
    SamplingParams(temperature=0.8, top_p=0.9, repetition_penalty=1.3),
    SamplingParams(temperature=1.0, top_k=50, top_p=0.7, min_p=0.02),
    GREEDY.model_copy(update={"repetition_penalty": 1.5}),
    GREEDY,
)


@pytest.fixture(scope="module", autouse=True)
def frozen() -> Iterator[None]:
    """transformers collects garbage twice whenever its thread ends; torch's objects need not be looked through each time."""
    gc.freeze()
    yield
    gc.unfreeze()


def token_of(logits_1V: torch.Tensor, tokens: list[int], row: Row, position: int) -> int:
    """transformers' own processors, then the noise of the row's key at its position."""
    params = row.params
    steps = LogitsProcessorList()
    if params.repetition_penalty != 1.0:
        steps.append(RepetitionPenaltyLogitsProcessor(params.repetition_penalty))
    if params.temperature > 0:
        steps.append(TemperatureLogitsWarper(params.temperature))
        if params.top_k:
            steps.append(TopKLogitsWarper(params.top_k))
        if params.top_p < 1:
            steps.append(TopPLogitsWarper(params.top_p))
        if params.min_p:
            steps.append(MinPLogitsWarper(params.min_p))
    scores_1V = cast("torch.Tensor", steps(cast("Any", torch.tensor([tokens])), cast("Any", logits_1V)))
    if params.temperature > 0:
        vocabulary_V = vocabulary_hash(scores_1V.shape[-1], scores_1V.device)
        scores_1V = scores_1V + gumbel_noise([position_seed(row.seed, position)], vocabulary_V)
    return int(scores_1V.argmax(-1))


_WRITTEN: dict[object, list[int]] = {}
"""What the oracle has written before; a row's text does not depend on how long it may become."""


def one_by_one(loaded: LoadedModel, row: Row, ended: Callable[[Row], bool] = lambda _: False) -> Row:
    """The oracle: a forward pass of all tokens for every token, no cache, one row."""
    model = cast("Any", loaded.model)
    known = _WRITTEN.setdefault((id(loaded), tuple(row.prompt), row.params, row.seed), [])
    written = Row(row.prompt, row.params, row.seed, row.max_tokens, row.most_tokens)
    while written.finish is None:
        place = len(written.generated)
        if place == len(known):
            tokens = [*row.prompt, *known]
            with torch.inference_mode():
                logits_1V = model(torch.tensor([tokens]), use_cache=False).logits[:, -1]
            known.append(token_of(logits_1V, tokens, row, place))
        written.generated.append(known[place])
        if ended(written):
            written.finish = FinishReason.STOP
        elif len(written.generated) >= row.max_tokens or written.length >= row.most_tokens:
            written.finish = FinishReason.LENGTH
    return written


def rows_of(loaded: LoadedModel, count: int, tokens: int = 12, params: Sequence[SamplingParams] = DRAWN) -> list[Row]:
    prompts = [loaded.tokenizer.encode_chat(each) for each in conversations(count)]
    return [
        Row(prompt, params[number % len(params)], noise_seed(f"1/{number}"), tokens - number % 3, len(prompt) + tokens)
        for number, prompt in enumerate(prompts)
    ]


@contextmanager
def scheduler(loaded: LoadedModel, ended: Callable[[Row], bool] = lambda _: False, **settings: Any) -> Iterator[PagedScheduler]:
    small: dict[str, Any] = {"rows": 4, "batch_tokens": 64, "cache_tokens": 4096}
    made = PagedScheduler(loaded.model, ended, **(small | settings))
    try:
        yield made
    finally:
        made.close()


def run(scheduled: PagedScheduler, rows: Sequence[Row]) -> list[Row]:
    for row in rows:
        scheduled.add(row)
    ended = list(scheduled.run())
    assert sorted(map(id, ended)) == sorted(map(id, rows))
    return ended


def texts(rows: Sequence[Row]) -> list[tuple[list[int], FinishReason | None]]:
    return [(row.generated, row.finish) for row in rows]


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


def test_a_run_may_be_left_closed_and_entered_again(open_tiny: OpenTiny) -> None:
    """Between, the model is as it was loaded: other forward passes may be made."""
    loaded = open_tiny("gemma3")
    rows = rows_of(loaded, 10, 16)
    expected = texts([one_by_one(loaded, row) for row in rows])
    attention = cast("Any", loaded.model).config._attn_implementation
    with scheduler(loaded) as scheduled:
        for row in rows:
            scheduled.add(row)
        ended = list(islice(scheduled.run(), 3))
        assert paged_threads()
        scheduled.close()
        scheduled.close()
        assert not paged_threads()
        assert cast("Any", loaded.model).config._attn_implementation == attention
        again = one_by_one(loaded, rows[0])
        assert (again.generated, again.finish) == expected[0]
        ended += scheduled.run()
    assert {id(row) for row in ended} == {id(row) for row in rows}
    assert texts(rows) == expected


def paged_threads() -> list[str]:
    """Names of the threads in which transformers generates."""
    return [thread.name for thread in threading.enumerate() if "_run_generation_loop" in thread.name]


def test_an_error_of_the_judge_of_answers_is_raised_to_whoever_runs(open_tiny: OpenTiny) -> None:
    def ended(row: Row) -> bool:
        if len(row.generated) == 3:
            raise KeyError("stop text")
        return False

    loaded = open_tiny("llama")
    with scheduler(loaded, ended) as scheduled, pytest.raises(KeyError, match="stop text"):
        run(scheduled, rows_of(loaded, 4))
    assert not paged_threads()


class Forward:
    """A model's forward pass, preceded by something. Undone at the end."""

    def __init__(self, loaded: LoadedModel, before: Callable[[int, int], object]) -> None:
        self._model = cast("Any", loaded.model)
        self._before = before

    def __enter__(self) -> None:
        def look(_: Any, __: Any, inputs: dict[str, Any]) -> None:
            if "cu_seq_lens_q" in inputs:
                self._before(len(inputs["cu_seq_lens_q"]) - 1, inputs["input_ids"].shape[1])

        self._hook = self._model.register_forward_pre_hook(look, with_kwargs=True)

    def __exit__(self, *_: object) -> None:
        self._hook.remove()


def too_much(_: object = None) -> object:
    return torch.empty(2**60, dtype=torch.uint8)


def test_an_error_of_the_model_is_one_clear_error(open_tiny: OpenTiny) -> None:
    loaded = open_tiny("llama")

    def break_down(*_: int) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    told = r"stopped: RuntimeError: mat1 and mat2(.|\n)*engine.scheduler: slots"
    with Forward(loaded, break_down), scheduler(loaded) as scheduled, pytest.raises(EngineError, match=told):
        run(scheduled, rows_of(loaded, 4))
    assert not paged_threads()


@pytest.mark.parametrize("most", [pytest.param(3, marks=pytest.mark.slow), 1])
def test_out_of_memory_shrinks_the_batch_and_loses_nothing(open_tiny: OpenTiny, most: int) -> None:
    loaded = open_tiny("llama")
    rows = rows_of(loaded, 9)
    expected = texts([one_by_one(loaded, row) for row in rows])
    seen: list[int] = []

    def few(together: int, _: int) -> None:
        seen.append(together)
        if together > most:
            too_much()

    with Forward(loaded, few), scheduler(loaded, rows=8) as scheduled:
        run(scheduled, rows)
        assert scheduled.statistics().smaller_batches >= 2
    assert texts(rows) == expected
    assert seen[-1] <= most


def test_memory_that_runs_out_in_mid_answer_keeps_what_is_written(open_tiny: OpenTiny) -> None:
    loaded = open_tiny("llama")
    rows = rows_of(loaded, 6, 24)
    expected = texts([one_by_one(loaded, row) for row in rows])
    passes = 0

    def once(*_: int) -> None:
        nonlocal passes
        passes += 1
        if passes == 20:
            too_much()

    with Forward(loaded, once), scheduler(loaded, rows=6, batch_tokens=512) as scheduled:
        run(scheduled, rows)
        done = scheduled.statistics()
    assert texts(rows) == expected
    assert done.smaller_batches == 1
    assert done.completion_tokens == sum(len(row.generated) for row in rows)


def test_a_row_that_does_not_fit_alone_ends_alone(open_tiny: OpenTiny) -> None:
    """One prompt is larger than the cache, one answer outgrows it; all others are written."""
    loaded = open_tiny("llama")
    prompt, answer = Row([5] * 600, GREEDY, 0, 4, 700), Row([9, 8] * 40, SamplingParams(), 1, 600, 900)
    rows = rows_of(loaded, 8)
    expected = texts([one_by_one(loaded, row) for row in rows])
    with scheduler(loaded, cache_tokens=512) as scheduled:
        run(scheduled, [prompt, *rows, answer])
    assert texts(rows) == expected
    assert prompt.finish is None
    assert prompt.generated == []
    assert answer.finish is None
    assert 512 - 64 < answer.length <= 512 + 1  # the newest token is not in the cache
    assert not paged_threads()


def test_a_pass_that_never_fits_ends_its_row_and_the_batch_grows_again(open_tiny: OpenTiny) -> None:
    loaded = open_tiny("llama")
    huge = Row([11] * 90, GREEDY, 0, 4, 200)
    rows = rows_of(loaded, 8)
    expected = texts([one_by_one(loaded, row) for row in rows])

    def no_long_ones(together: int, tokens: int) -> None:
        if tokens / together > 60:
            too_much()

    with Forward(loaded, no_long_ones), scheduler(loaded, batch_tokens=256) as scheduled:
        assert [row.finish for row in run(scheduled, [huge])] == [None]
        run(scheduled, [row for row in rows if len(row.prompt) <= 60])
        assert scheduled.statistics().slot_steps % 4 == 0
    assert [each for row, each in zip(rows, texts(rows), strict=True) if len(row.prompt) <= 60] == [
        each for row, each in zip(rows, expected, strict=True) if len(row.prompt) <= 60
    ]


def test_a_cache_for_which_there_is_no_room_is_a_clear_error(open_tiny: OpenTiny) -> None:
    """Real allocations of real sizes: each half is tried before it is given up."""
    loaded = open_tiny("llama")
    with scheduler(loaded, cache_tokens=2**50) as scheduled, pytest.raises(EngineError, match="no room for a key-value cache"):
        run(scheduled, rows_of(loaded, 1))


def test_without_cuda_graphs_it_goes_on_where_they_cannot_be_recorded(
    open_tiny: OpenTiny, caplog: pytest.LogCaptureFixture
) -> None:
    loaded = open_tiny("llama")
    rows = rows_of(loaded, 5)
    expected = texts([one_by_one(loaded, row) for row in rows])
    passes = 0

    def once(*_: int) -> None:
        nonlocal passes
        passes += 1
        if passes == 3:
            raise RuntimeError("CUDA error: operation not permitted when stream is capturing")

    with Forward(loaded, once), scheduler(loaded) as scheduled:
        run(scheduled, rows)
    assert texts(rows) == expected
    assert "going on without" in caplog.text


def test_a_model_it_would_compute_wrongly_is_refused(open_tiny: OpenTiny, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = open_tiny("gemma3")
    config = cast("Any", loaded.model).config
    with monkeypatch.context() as changed:
        changed.setattr(config, "layer_types", ["full_attention", "linear_attention"])
        with pytest.raises(EngineError, match=r"layers of the kind linear_attention(.|\n)*engine.scheduler: slots"):
            PagedScheduler(loaded.model, lambda _: False)
    with monkeypatch.context() as changed:
        changed.setattr(config, "attn_logit_softcapping", 50.0, raising=False)
        with pytest.raises(EngineError, match="caps its attention scores"):
            PagedScheduler(loaded.model, lambda _: False)


def rowwise(
    query_QHD: torch.Tensor,
    key_KGD: torch.Tensor,
    value_KGD: torch.Tensor,
    ends_Q: torch.Tensor,
    ends_K: torch.Tensor,
    longest: tuple[int, int],
    *,
    scale: float | None = None,
    window: int | None = None,
) -> torch.Tensor:
    """What `varlen_attention` asks the GPU's kernel for, row by row."""
    parts: list[torch.Tensor] = []
    for q_start, q_end, k_start, k_end in zip(
        *(cast("Any", each).tolist() for each in (ends_Q[:-1], ends_Q[1:], ends_K[:-1], ends_K[1:])), strict=True
    ):
        queries, keys = q_end - q_start, k_end - k_start
        assert queries <= longest[0]
        assert keys <= longest[1]
        mask = torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries)
        if window is not None:
            mask &= ~torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries - window)
        q, k, v = (
            each[start:end].transpose(0, 1)[None]
            for each, start, end in (
                (query_QHD, q_start, q_end),
                (key_KGD, k_start, k_end),
                (value_KGD, k_start, k_end),
            )
        )
        parts.append(scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale, enable_gqa=True)[0].transpose(0, 1))
    return torch.cat(parts)


@pytest.mark.parametrize("architecture", ["llama", "gemma3", "mistral"])
def test_layers_hand_the_kernel_what_it_needs(
    open_tiny: OpenTiny, architecture: Architecture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Flash kernels run on GPUs only; here their sums are done row by row, with the same lengths, windows and caches."""
    monkeypatch.setattr(paged_attention, "_can_run_varlen", lambda _: True)
    monkeypatch.setattr(paged_attention, "varlen_attention", rowwise)
    loaded = open_tiny(architecture)
    rows = rows_of(loaded, 6, 20, [GREEDY])
    with scheduler(loaded) as scheduled:
        run(scheduled, rows)
    assert texts(rows) == texts([one_by_one(loaded, row) for row in rows])


@pytest.mark.slow
def test_a_program_that_forgets_to_close_it_ends_all_the_same(tmp_path: Path) -> None:
    """Story: transformers' thread is no daemon, and the interpreter waited for it for ever."""
    folder = make_checkpoint(tmp_path / "llama", "llama")
    program = f"""
from cai.engines.base import SamplingParams
from cai.engines.paged import PagedScheduler
from cai.engines.rows import Row
from cai.models.loading import load_model
from cai.models.spec import ModelSpec
model = load_model(ModelSpec(name={str(folder)!r}, dtype="float32", device="cpu")).model
scheduler = PagedScheduler(model, lambda row: False, rows=2)
for number in range(4):
    scheduler.add(Row([5, 6, 7], SamplingParams(), number, 5 + 50 * number, 400))
print(len(next(scheduler.run()).generated))
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert ended.stdout == "5\n", ended.stderr
    assert ended.returncode == 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("window", [None, 5])
def test_the_gpus_kernel_computes_what_is_asked_of_it(window: int | None) -> None:
    chance = torch.Generator("cuda").manual_seed(0)
    query, key, value = (
        torch.randn(tokens, heads, 64, generator=chance, device="cuda").to(torch.bfloat16)
        for tokens, heads in ((17, 8), (60, 2), (60, 2))
    )
    ends_Q, ends_K = torch.tensor([0, 1, 9, 17, 17]), torch.tensor([0, 30, 52, 60, 60])
    found = paged_attention.varlen_attention(
        query, key, value, ends_Q.int().cuda(), ends_K.int().cuda(), (8, 64), window=window
    )
    expected = rowwise(query.float().cpu(), key.float().cpu(), value.float().cpu(), ends_Q, ends_K, (8, 64), window=window)
    torch.testing.assert_close(found.float().cpu(), expected, atol=0.03, rtol=0.03)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_rows_are_written_with_graphs_and_all_kinds_of_sampling(tmp_path: Path) -> None:
    """Texts may differ from the CPU's where two tokens are all but equally likely; most begin as they do."""
    folder = make_checkpoint(tmp_path / "llama", "llama")
    cpu = load_model(ModelSpec(name=str(folder), dtype="float32", device="cpu"))
    gpu = load_model(ModelSpec(name=str(folder), dtype="bfloat16", device="cuda"))
    rows = rows_of(cpu, 24)
    expected = [one_by_one(cpu, row) for row in rows]
    with scheduler(gpu, lambda _: False, rows=16, batch_tokens=512, cache_tokens=None) as scheduled:
        assert "flash" in paged_attention.paged_attention(gpu.model)
        run(scheduled, rows)
        assert scheduled.statistics().reused_tokens > 0
    assert [len(row.generated) for row in rows] == [len(row.generated) for row in expected]
    assert sum(row.generated[0] == one.generated[0] for row, one in zip(rows, expected, strict=True)) >= 18
