"""Rewards for data sets, and the best of several samples."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import signal
from itertools import combinations
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest
from checkpoints import make_checkpoint
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import Module
from training_runs import make_pairs, spec_of

from cai.data.exchanges import exchanges_in
from cai.data.training_rows import read_sft_rows
from cai.errors import DataError
from cai.training.best_of_n import BestOf, best_of_n_kl_nats, expected_best
from cai.training.packing import PackedBatch, TokenGroup
from cai.training.reward import train_reward
from cai.training.reward_cache import RewardCache
from cai.training.reward_model import RewardModel
from cai.training.reward_scorer import RewardScorer
from cai.training.scoring import score_rows
from cai.training.sequence_keys import sequence_keys
from cai.training.settings import RewardSettings
from constitution.messages import assistant, user

REWARDS = st.lists(st.floats(-5, 5), min_size=1, max_size=8)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> RewardModel:
    folder = tmp_path_factory.mktemp("reward")
    settings = RewardSettings(batch_pairs=4, dtype="float32", lora=None, heads=2, holdout_share=0.0, learning_rate=1e-3)
    start = spec_of(make_checkpoint(folder / "model"))
    return RewardModel.open(spec_of(train_reward(start, make_pairs(4), settings, folder / "reward").training.folder))


def written(path: Path, rows: list[object]) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), encoding="utf-8")
    return path


def read(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@given(REWARDS, st.data())
def test_the_expected_best_of_n_is_the_mean_over_all_subsets(rewards: list[float], data: st.DataObject) -> None:
    n = data.draw(st.integers(1, len(rewards)))
    assert expected_best(rewards, n) == pytest.approx(fmean(map(max, combinations(rewards, n))), abs=1e-9)


@given(st.integers(1, 6), st.integers(2, 40))
def test_the_kl_of_the_best_of_n_is_exact_where_samples_differ(n: int, choices: int) -> None:
    """Of a uniform distribution over many different answers, in ever finer steps, summed by hand; it bounds them all."""
    k = np.arange(1, choices + 1)
    best = (k / choices) ** n - ((k - 1) / choices) ** n
    kl = float(np.sum(best * np.log(best * choices)))
    assert kl <= best_of_n_kl_nats(n) + 1e-12
    fine = np.arange(1, 20_001) / 20_000
    density = fine**n - (fine - 1 / 20_000) ** n
    assert float(np.sum(density * np.log(density * 20_000))) == pytest.approx(best_of_n_kl_nats(n), abs=2e-3)
    assert best_of_n_kl_nats(1) == 0.0


def test_every_form_of_row_gets_rewards_and_bad_ones_are_counted(model: RewardModel, tmp_path: Path) -> None:
    talk = (user("Hi."), assistant("Hello."))
    other = (user("Hi."), assistant("No."))
    rows: list[object] = [
        {"uid": "a", "messages": [dict(turn) for turn in talk], "kept": 7},
        {"uid": "b", "prompt": "Hi.", "completion": "No."},
        {"uid": "c", "prompt": "Hi.", "chosen": "Hello.", "rejected": "No.", "p_chosen": 0.9},
        {"uid": "d", "prompt": [dict(talk[0])], "completions": ["No.", [dict(talk[1])]]},
        {"uid": "e", "prompt": "Hi.", "completion": " "},
        {"uid": "f", "prompt": "Hi.", "completion": "Hello. " * 3000},
        {"uid": "g", "text": "neither"},
        "{not json",
    ]
    out = tmp_path / "out.jsonl"
    found = score_rows(exchanges_in(written(tmp_path / "in.jsonl", rows)), model, out=out)
    each = model.head_rewards([talk, other])
    hello, no = each.mean(1)
    a, b, c, d, e, f, g, unread = read(out)
    assert (a["reward"], b["reward"]) == pytest.approx((hello, no), abs=1e-6)
    assert a["kept"] == 7
    assert a["reward_heads"] == pytest.approx(each[0], abs=1e-6)
    assert (c["reward_chosen"], c["reward_rejected"]) == pytest.approx((hello, no), abs=1e-6)
    assert d["rewards"] == pytest.approx((no, hello), abs=1e-6)
    assert "reward" not in e
    assert str(e["reward_failure"]).startswith("empty_reply")
    assert str(f["reward_failure"]).startswith("overlong")
    assert str(g.pop("reward_failure")).startswith("no_conversation")
    assert g == {"uid": "g", "text": "neither"}
    assert str(unread.pop("reward_failure")).startswith("broken_json")
    assert unread == {"uid": "in.jsonl:8"}
    assert [each.partition(":")[2].partition(":")[0] for each in found.shown] == ["5", "6", "7", "8"]
    assert (found.rows, found.replies, found.failed) == (4, 6, 4)
    assert found.mean == pytest.approx(fmean([hello, no] * 3), abs=1e-6)
    assert found.quality is not None
    assert found.quality.pairs == 1
    cautious = score_rows(exchanges_in(tmp_path / "in.jsonl"), model, out=out, pessimism=1.0)
    assert cautious.mean is not None
    assert found.mean is not None
    assert cautious.mean < found.mean
    assert read(out)[0]["reward"] == pytest.approx(hello - each[0].std(ddof=1), abs=1e-6)


def test_what_an_earlier_scoring_said_of_a_row_goes_with_it(model: RewardModel, tmp_path: Path) -> None:
    old = {"reward": 9.0, "reward_heads": [9.0], "reward_chosen": 9.0, "rewards": [9.0], "reward_failure": "overlong: x"}
    rows: list[object] = [{"prompt": "Hi.", "completion": "No.", **old}, {"prompt": "Hi.", "completion": " ", **old}]
    out = tmp_path / "out.jsonl"
    score_rows(exchanges_in(written(tmp_path / "in.jsonl", rows)), model, out=out)
    good, bad = read(out)
    assert good.keys() == {"prompt", "completion", "reward", "reward_heads"}
    assert bad.keys() == {"prompt", "completion", "reward_failure"}
    with pytest.raises(DataError, match="holds no reward"):  # the next reader must not take the old ones for rewards
        score_rows(exchanges_in(written(tmp_path / "bad.jsonl", [bad])), None, best_of=1)
    with pytest.raises(ValueError, match="pessimism"):
        score_rows(exchanges_in(out), None, best_of=1, pessimism=1.0)


def scored_in_a_process(source: Path, out: Path, model: RewardModel, kill_after: int | None = None) -> tuple[int | None, int]:
    """Its exit code, and how many passes it computed; killed with SIGKILL in the midst of the pass after so many."""
    fork = multiprocessing.get_context("fork")
    passes = fork.Value("i", 0)

    def work() -> None:
        values = RewardScorer.values

        def counted(self: RewardScorer, model: Module, batch: PackedBatch) -> Tensor:
            if passes.value == kill_after:
                os.kill(os.getpid(), signal.SIGKILL)
            passes.value += 1
            return values(self, model, batch)

        RewardScorer.values = counted  # of this process alone
        score_rows(exchanges_in(source), model, out=out)

    process = fork.Process(target=work)
    process.start()
    process.join()
    return process.exitcode, passes.value


def test_killed_again_and_again_it_writes_the_same_bytes_and_computes_no_pass_twice(model: RewardModel, tmp_path: Path) -> None:
    small = RewardModel(model.opened, tokens_per_forward=60)
    rows: list[object] = [
        {"uid": f"r{at}", "prompt": f"Is {at % 7} even?", "completion": f"It is {at % 5}."} for at in range(40)
    ]
    rows[3] = {"prompt": "Hi.", "completion": ""}
    source, straight, out = written(tmp_path / "in.jsonl", rows), tmp_path / "straight.jsonl", tmp_path / "out.jsonl"
    small.rewards([(user("Hi."), assistant("No."))])  # finds its path here, as the forked processes do not
    code, passes = scored_in_a_process(source, straight, small)
    assert (code, passes > 5) == (0, True)
    computed = 0
    for after in (0, 2, 3):
        code, done = scored_in_a_process(source, out, small, kill_after=after)
        assert (code, done) == (-signal.SIGKILL, after)
        assert not out.exists()
        computed += done
    with (tmp_path / "out.jsonl.unfinished").open("ab") as torn:
        torn.write(b'["half a li')
    code, done = scored_in_a_process(source, out, small)
    assert (code, computed + done) == (0, passes)
    assert out.read_bytes() == straight.read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"in.jsonl", "straight.jsonl", "out.jsonl"}


def test_rewards_of_another_model_are_never_taken_for_its_own(model: RewardModel, tmp_path: Path) -> None:
    source = written(tmp_path / "in.jsonl", [{"prompt": "Hi.", "completion": "No."}])
    cache = RewardCache(tmp_path / "cache.jsonl")
    group = model.encode((user("Hi."), assistant("No.")))
    assert isinstance(group, TokenGroup)
    cache.put({sequence_keys("another model padded", group)[0]: [7.0, 7.0]})
    (tmp_path / "cache.jsonl").rename(tmp_path / "out.jsonl.unfinished")
    found = score_rows(exchanges_in(source), model, out=tmp_path / "out.jsonl")
    assert found.mean == pytest.approx(float(model.rewards([(user("Hi."), assistant("No."))])[0]), abs=1e-6)


def test_where_no_row_has_a_reward_nothing_is_written(model: RewardModel, tmp_path: Path) -> None:
    source, out = written(tmp_path / "in.jsonl", [{"text": "x"}]), tmp_path / "out.jsonl"
    with pytest.raises(DataError, match="no row has a reward"):
        score_rows(exchanges_in(source), model, out=out)
    assert not out.exists()


def test_the_best_of_n_becomes_supervised_rows_of_those_prompts_that_have_n(model: RewardModel, tmp_path: Path) -> None:
    replies = ["Yes.", "No, never.", "Perhaps so.", "Of course it is."]
    rows: list[object] = [{"uid": f"a{at}", "prompt": "Is it?", "completion": reply} for at, reply in enumerate(replies)]
    rows += [{"uid": "b", "prompt": "Why?", "completions": replies[:3]}, {"uid": "c", "prompt": "One.", "completion": "x"}]
    scored, best = tmp_path / "scored.jsonl", tmp_path / "best.jsonl"
    source = exchanges_in(written(tmp_path / "in.jsonl", rows))
    score_rows(source, model, out=scored)
    found = score_rows(exchanges_in(scored), None, out=best, best_of=3)  # from the rewards that rows hold already
    again = score_rows(exchanges_in(tmp_path / "in.jsonl"), model, best_of=3)
    assert found.best is not None
    assert again.best is not None
    assert [row.reply for row in again.best.rows()] == [row.reply for row in found.best.rows()]
    assert (found.best.prompts, found.best.short_prompts) == (3, 1)
    kept = list(read_sft_rows(best))
    assert [row.uid for row in kept] == ["a0", "b"]
    for row in kept:
        rewards = model.rewards([(*row.messages, assistant(reply)) for reply in replies[:3]])
        assert row.reply == replies[int(rewards.argmax())]
    figures = {each.n: each for each in found.best.figures()}
    assert {n: each.prompts for n, each in figures.items()} == {1: 3, 2: 2, 3: 2, 4: 1}
    assert figures[4].kl_nats == pytest.approx(math.log(4) - 0.75)


def test_the_first_of_equal_samples_is_the_best_and_later_ones_do_not_count() -> None:
    best = BestOf(2)
    for reply, reward in (("a", 1.0), ("b", 1.0), ("c", 9.0)):
        best.add("x", (user("Hi."),), reply, reward)
    assert [(row.reply, row.reward) for row in best.rows()] == [("a", 1.0)]
