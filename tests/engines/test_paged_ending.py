"""The thread of continuous batching ends, however it is left."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any, cast

import pytest
from checkpoints import make_checkpoint
from naive import OpenTiny
from paged_rows import one_by_one, paged_threads, rows_of, scheduler, texts

from cai.engines.continuous import ContinuousBatches
from cai.engines.continuous_shape import Counters, Features, Shape
from cai.engines.rows import Row
from cai.errors import EngineError


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


def test_garbage_that_is_collected_on_the_thread_ends_it_without_waiting_for_itself(open_tiny: OpenTiny) -> None:
    """A thread that joins itself is an error; it went to whoever reads rows, and the thread stayed."""
    loaded = open_tiny("llama")
    threads: list[threading.Thread] = []

    def collected(_: Row) -> bool:
        if not threads:
            threads.append(threading.current_thread())
            assert made._batches is not None
            made._batches._end_thread()  # what the collector calls of a finalizer
        return False

    with scheduler(loaded, collected) as made:
        for row in rows_of(loaded, 2):
            made.add(row)
        with pytest.raises(EngineError):
            list(made.run())
        threads[0].join(timeout=10)
        assert not threads[0].is_alive()


def test_two_who_end_the_thread_at_once_both_find_it_ended(open_tiny: OpenTiny) -> None:
    """Story: transformers' `stop` forgets the thread it has waited for, and a second caller's waiting broke on that."""
    loaded = open_tiny("llama")
    for _ in range(5):
        batches = ContinuousBatches(
            loaded.model, Shape(2, 2, 64, 512, 0.5, graphs=False, share=True), Features(), lambda _: False, Counters()
        )
        together = threading.Barrier(4)

        def stop(batches: ContinuousBatches = batches, together: threading.Barrier = together) -> None:
            together.wait()
            batches.stop()

        with ThreadPoolExecutor(4) as callers:
            for ended in [callers.submit(stop) for _ in range(4)]:
                ended.result(timeout=60)
        assert not paged_threads()


@pytest.mark.slow
def test_a_program_that_forgets_to_close_it_ends_all_the_same(tmp_path: Path) -> None:
    """Story: transformers' thread is no daemon, and the interpreter waited for it for ever."""
    folder = make_checkpoint(tmp_path / "llama", "llama")
    program = f"""
from cai.engines.base import SamplingParams
from cai.engines.paged import PagedScheduler
from cai.engines.continuous import ContinuousBatches
from cai.engines.continuous_shape import Counters, Features, Shape
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
