"""Whole runs on a tiny real model: learning, resuming to the bit, and every way in which a reward or a loss can go wrong."""

from __future__ import annotations

import itertools
import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from cai.errors import TrainingError
from cai.rl.learner import Learner
from cai.rl.run import train_rl
from tests.rl.conftest import Course, TextReward, count_e

Weights = Callable[[Path], bytes]

ALGORITHMS: tuple[dict[str, Any], ...] = (
    {"algorithm": "rloo"},
    {"algorithm": "grpo", "epochs": 2, "minibatches": 2},
    {"algorithm": "ppo", "epochs": 2, "lora": None, "learning_rate": 1e-3},
    {"algorithm": "online_dpo", "samples_per_prompt": 2},
)


def rows_of(folder: Path) -> list[dict[str, float]]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in lines]


class Killed(BaseException):
    """Stands for SIGKILL inside this process: nothing catches it."""


class KilledAt(TextReward):
    """Ends the process's work in the middle of a step."""

    def __init__(self, call: int) -> None:
        super().__init__(count_e)
        self._call = call

    def rewards(self, replies: Any) -> list[Any]:
        found = super().rewards(replies)
        if self.calls == self._call:
            raise Killed
        return found


@pytest.mark.parametrize("settings", ALGORITHMS, ids=lambda s: s["algorithm"])
def test_a_run_killed_in_the_middle_of_a_step_ends_with_the_same_weights_to_the_bit(
    settings: dict[str, Any], course: Course, weights: Weights, tmp_path: Path
) -> None:
    straight = train_rl(course(**settings, save_every_steps=2), tmp_path / "straight")
    with pytest.raises(Killed):
        train_rl(course(KilledAt(4), **settings, save_every_steps=2), tmp_path / "killed")
    assert not (tmp_path / "killed" / "model.safetensors").exists()
    resumed = train_rl(course(**settings, save_every_steps=2), tmp_path / "killed")
    assert resumed.resumed_from_step == 2
    assert weights(tmp_path / "killed") == weights(tmp_path / "straight")
    assert rows_of(tmp_path / "killed") == rows_of(tmp_path / "straight")
    assert (straight.first, straight.replies) == ({**resumed.first, "seconds": straight.first["seconds"]}, resumed.replies)


def test_the_policy_comes_to_write_what_the_reward_likes_and_its_model_loads(course: Course, tmp_path: Path) -> None:
    made = course(steps=16, samples_per_prompt=8, prompts_per_step=6, learning_rate=3e-2, beta=0.0, leash={"window": 5})
    result = train_rl(made, tmp_path / "out")
    assert result.last["reward"] > result.first["reward"] + 0.5
    assert result.last["kl"] > 0.5
    assert rows_of(tmp_path / "out")[0]["kl"] == 0  # an adapter of zeros is the reference
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out").config.model_type == "llama"
    assert (tmp_path / "out" / "adapter" / "adapter_model.safetensors").exists()
    again = train_rl(made, tmp_path / "out")  # finished: returned at once
    assert again == result


def test_a_leash_that_costs_more_keeps_the_policy_nearer(course: Course, tmp_path: Path) -> None:
    options = {"algorithm": "grpo", "steps": 6, "samples_per_prompt": 4, "learning_rate": 1e-2}
    loose = train_rl(course(**options, beta=0.0), tmp_path / "loose")
    tight = train_rl(course(**options, beta=5.0), tmp_path / "tight")
    assert rows_of(tmp_path / "tight")[-1]["kl/k3"] < rows_of(tmp_path / "loose")[-1]["kl/k3"] / 2
    assert tight.last["entropy"] > 0
    assert loose.fingerprint != tight.fingerprint


def test_passes_of_few_tokens_teach_the_same_as_one_large_pass(course: Course, tmp_path: Path) -> None:
    made = [course(steps=2, tokens_per_forward=tokens) for tokens in (4096, 40)]
    for number, each in enumerate(made):
        train_rl(each, tmp_path / str(number))
    one, many = rows_of(tmp_path / "0")[0], rows_of(tmp_path / "1")[0]
    assert one["loss"] == pytest.approx(many["loss"], abs=1e-6)
    assert one["grad_norm"] == pytest.approx(many["grad_norm"], rel=1e-4)


def test_rewards_that_are_missing_are_counted_and_their_replies_left_out(course: Course, tmp_path: Path) -> None:
    spoilt = itertools.cycle([1.0, math.nan, None, 2.0, "x"])
    result = train_rl(course(TextReward(lambda _: next(spoilt)), steps=3), tmp_path)
    assert result.failed_rewards == sum(row["reward/failed"] for row in rows_of(tmp_path)) == 16
    assert result.replies == 27
    assert any("16 of 27 replies had no reward" in each for each in result.warnings)


@pytest.mark.parametrize("fault", ["raises", "too few", "nan"])
def test_a_reward_that_gives_nothing_for_too_long_stops_the_run_and_it_can_go_on_when_mended(
    fault: str, course: Course, weights: Weights, tmp_path: Path
) -> None:
    class Spoilt(TextReward):
        def rewards(self, replies: Any) -> list[Any]:
            self.calls += 1
            if self.calls <= 2:
                return [count_e(reply.text) for reply in replies]
            if fault == "raises":
                raise RuntimeError("the judge is out")
            return [1.0] if fault == "too few" else [math.nan] * len(replies)

    options = {"steps": 6, "save_every_steps": 1, "reward_patience": 2}
    with pytest.raises(TrainingError, match=r"step 4: no usable reward in 2 steps") as caught:
        train_rl(course(Spoilt(count_e), **options), tmp_path / "spoilt")
    told = {"raises": "the judge is out", "too few": "gave 1 values for 9 replies", "nan": "nan"}[fault]
    assert told in str(caught.value)
    assert "weights after step 3 are kept" in str(caught.value)
    assert (tmp_path / "spoilt" / "model.safetensors").exists()
    mended = train_rl(course(**options), tmp_path / "spoilt")
    assert mended.resumed_from_step == 3
    assert mended.steps == 6
    assert mended.failed_rewards == 9  # of step 3, which is done


@pytest.mark.parametrize("value", [math.inf, -1e30])
def test_a_reward_that_explodes_stops_the_run_before_it_is_learned(
    value: float, course: Course, weights: Weights, tmp_path: Path
) -> None:
    class Exploding(TextReward):
        def rewards(self, replies: Any) -> list[Any]:
            found = super().rewards(replies)
            return [*found[:-1], value] if self.calls == 4 else found

    with pytest.raises(TrainingError, match=r"step 4: the reward of a reply to i\d is .* beyond rl.reward_limit"):
        train_rl(course(Exploding(count_e), save_every_steps=1), tmp_path / "out")
    train_rl(course(steps=3, save_every_steps=1), tmp_path / "three")
    assert weights(tmp_path / "out") == weights(tmp_path / "three")


def test_a_loss_that_is_no_number_stops_the_run_with_the_weights_before_it(
    course: Course, weights: Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Learner.update

    def broken(self: Learner, batch: Any, known: Any, targets: Any, step: int) -> dict[str, float]:
        if step == 3:
            targets.advantages[0] = math.nan
        return real(self, batch, known, targets, step)

    with monkeypatch.context() as patch:
        patch.setattr(Learner, "update", broken)
        with pytest.raises(TrainingError, match=r"step 3: the loss is nan") as caught:
            train_rl(course(save_every_steps=1), tmp_path / "out")
    assert "weights after step 2 are kept" in str(caught.value)
    train_rl(course(steps=2), tmp_path / "two")
    assert weights(tmp_path / "out") == weights(tmp_path / "two")


def test_a_run_whose_reward_rises_while_the_truth_falls_stops_and_keeps_the_weights_from_before(
    course: Course, weights: Weights, tmp_path: Path
) -> None:
    """The reward grows with the call, the truth turns: what over-optimisation looks like, made certain."""
    steps = itertools.count(1)

    class Rising(TextReward):
        def rewards(self, replies: Any) -> list[Any]:
            now = next(steps)
            return [now + count_e(reply.text) for reply in replies]

    truths = itertools.chain([1.0] * 6, itertools.repeat(0.0))

    class Falling(TextReward):
        def rewards(self, replies: Any) -> list[Any]:
            value = next(truths)
            return [value] * len(replies)

    options = {"steps": 40, "save_every_steps": 2, "leash": {"window": 4}}
    result = train_rl(course(Rising(count_e), Falling(count_e), **options), tmp_path / "out")
    assert 7 <= result.steps <= 6 + 8
    assert result.kept_step in {4, 6}
    assert "while the truth fell" in result.stopped
    assert result.warnings[0].startswith(f"stopped after step {result.steps} of 40")
    assert not (tmp_path / "out" / "checkpoints").exists()


def test_a_leash_that_may_not_stop_says_that_it_would_have(course: Course, tmp_path: Path) -> None:
    options = {"steps": 3, "leash": {"max_kl_nats": 1e-6, "stop": False}}
    result = train_rl(course(**options), tmp_path)
    assert result.steps == 3
    assert any("the leash would have stopped" in each for each in result.warnings)


def test_another_run_in_the_folder_is_cleared_away_and_said_so(course: Course, tmp_path: Path) -> None:
    train_rl(course(steps=1), tmp_path)
    result = train_rl(course(steps=1, seed=7), tmp_path)
    assert result.resumed_from_step == 0
    assert any("another run" in each for each in result.warnings)


def test_prompts_that_are_too_long_are_named_and_none_left_is_an_error(course: Course) -> None:
    with pytest.raises(TrainingError, match="no prompt to train on"):
        course(max_prompt_tokens=8)


@pytest.mark.slow
def test_a_run_killed_from_outside_goes_on_to_the_same_weights(tiny: Any, weights: Weights, tmp_path: Path) -> None:
    """SIGKILL of a real process, through the command line, with a reward function in its own process."""
    (tmp_path / "mine.py").write_text(
        "import os, signal\n"
        "def reward(prompts, completions, **columns):\n"
        "    if os.path.exists('kill'):\n"
        "        os.remove('kill')\n"
        "        os.kill(int(open('pid').read()), signal.SIGKILL)\n"
        "    return [float(c[0]['content'].count('e')) for c in completions]\n"
    )
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps({"prompt": f"Say {n}"}) + "\n" for n in range(4)))
    flags = ["steps=4", "prompts_per_step=2", "samples_per_prompt=2", "max_tokens=6", "save_every_steps=1", "lora.r=2"]
    command = [sys.executable, "-c", "import os; open('pid', 'w').write(str(os.getpid())); from cai.cli import main; main()"]
    command += ["rl", "--data", "prompts.jsonl", "--model", tiny.name, "--json"]
    command += [part for flag in ["reward=mine:reward", "dtype=float32", *flags] for part in ("--set", f"rl.{flag}")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2])]), "OMP_NUM_THREADS": "1"}

    def start(output: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command, "--output", output], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )

    assert start("straight").returncode == 0
    (tmp_path / "kill").touch()
    assert start("killed").returncode == -signal.SIGKILL
    done = start("killed")
    assert done.returncode == 0, done.stderr
    assert weights(tmp_path / "killed") == weights(tmp_path / "straight")


def test_torch_is_seeded_by_the_run_alone(course: Course, weights: Weights, tmp_path: Path) -> None:
    train_rl(course(steps=2), tmp_path / "a")
    torch.manual_seed(99)
    torch.rand(7)
    train_rl(course(steps=2), tmp_path / "b")
    assert weights(tmp_path / "a") == weights(tmp_path / "b")
