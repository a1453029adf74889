"""The paged scheduler when something fails: one clear error, or a smaller batch that loses nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest
import torch
from naive import OpenTiny
from paged_rows import GREEDY, one_by_one, paged_threads, rows_of, run, scheduler, texts

from cai.engines.base import SamplingParams
from cai.engines.paged import PagedScheduler
from cai.engines.rows import Row
from cai.errors import EngineError
from cai.models.loading import LoadedModel


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
