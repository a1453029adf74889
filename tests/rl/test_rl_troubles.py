"""What a hostile user or a bad day does to a run: broken weights, strange folders, full disks, limits that were too low."""

from __future__ import annotations

import json
import logging
import math
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from transformers import AutoConfig, AutoModelForSequenceClassification

from cai.errors import ModelError, TrainingError
from cai.models.spec import ModelSpec
from cai.pipeline.reinforcing import course_of_data
from cai.rl.dry_run import rl_dry_run
from cai.rl.learner import Learner
from cai.rl.run import train_rl
from cai.rl.settings import RLSettings
from tests.checkpoints import make_checkpoint
from tests.rl.conftest import Course, TextReward, count_e

Weights = Callable[[Path], bytes]


def rows_of(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("every", [1, 2])
def test_weights_that_are_no_numbers_stop_the_run_and_the_last_good_ones_are_kept(
    every: int, course: Course, weights: Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found when a checkpoint was to be written, they ended the run without its model; found in the next loss, with it."""
    real = Learner.update

    def breaking(self: Learner, batch: Any, known: Any, targets: Any, step: int) -> dict[str, float]:
        found = real(self, batch, known, targets, step)
        if step == 3:
            with torch.no_grad():
                next(iter(self.trained.values())).fill_(math.nan)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(Learner, "update", breaking)
        with pytest.raises(TrainingError, match=r"no longer finite|loss is nan") as caught:
            train_rl(course(save_every_steps=every), tmp_path / "out")
    assert "weights after step 2 are kept" in str(caught.value)
    train_rl(course(steps=2), tmp_path / "two")
    assert weights(tmp_path / "out") == weights(tmp_path / "two")


@pytest.mark.parametrize(
    "setting",
    [
        {"beta": math.inf},
        {"cut_penalty": math.inf},
        {"reward_limit": math.inf},
        {"reward_timeout_s": math.inf},
        {"reward_timeout_s": 1e12},
        {"learning_rate": math.nan},
        {"max_grad_norm": math.inf},
        {"temperature": 0.0},
        {"leash": {"sigmas": math.nan}},
        {"leash": {"max_kl_nats": math.inf}},
    ],
    ids=str,
)
def test_settings_that_are_no_amount_are_refused(setting: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        RLSettings(reward="a:b", **setting)


def test_a_run_that_gave_up_at_a_limit_goes_on_with_a_higher_one(course: Course, weights: Weights, tmp_path: Path) -> None:
    """The hint says so; but the limit was part of what a run is, so that it began anew and threw away what was kept."""

    class Exploding(TextReward):
        def rewards(self, replies: Any) -> list[Any]:
            return [value + 50 * (self.calls == 4) for value in super().rewards(replies)]

    options = {"steps": 5, "save_every_steps": 1}
    with pytest.raises(TrainingError, match=r"step 4: .* beyond rl.reward_limit \(20\)") as caught:
        train_rl(course(Exploding(count_e), **options, reward_limit=20.0), tmp_path / "out")
    assert "raise rl.reward_limit. The weights after step 3 are kept" in str(caught.value)
    result = train_rl(course(**options, reward_limit=100.0, reward_timeout_s=5.0), tmp_path / "out")
    assert result.resumed_from_step == 3
    train_rl(course(**options), tmp_path / "straight")
    assert weights(tmp_path / "out") == weights(tmp_path / "straight")


@pytest.mark.parametrize("value", [math.inf, -1e200])
def test_a_truth_that_explodes_is_counted_and_the_run_goes_on(value: float, course: Course, tmp_path: Path) -> None:
    """An infinite truth was neither used nor counted, a huge one would have ended the run in the leash's arithmetic."""
    truth = TextReward(lambda text: value if "a" in text else 1.0, "truth", "truth")
    result = train_rl(course(truth=truth, steps=6, leash={"window": 2}), tmp_path)
    rows = rows_of(tmp_path)
    assert result.failed_truths == sum(row["truth/failed"] for row in rows) > 0
    assert all(row["truth"] == 1.0 for row in rows if "truth" in row)
    assert any("could not be judged by truth" in each for each in result.warnings)


def test_replies_that_leave_no_room_for_a_prompt_are_told_as_what_they_are(course: Course) -> None:
    with pytest.raises(TrainingError, match=r"reads 2048 tokens, and a reply may take 2040 of them\n.*lower rl.max_tokens"):
        course(max_tokens=2040)


def test_a_folder_with_somebody_s_model_is_left_as_it_is(course: Course, tmp_path: Path) -> None:
    """Its weights were deleted before the first step."""
    stranger = make_checkpoint(tmp_path / "stranger")
    reward = tmp_path / "reward"
    reward.mkdir()
    (reward / "training.json").write_text(json.dumps({"fingerprint": "x", "trained_rows": 3}))
    (reward / "run.json").write_text(json.dumps({"fingerprint": "x"}))
    (reward / "model.safetensors").write_bytes(b"weights")
    for folder, told in ((stranger, "no training of this program"), (reward, "another command has trained")):
        before = {path.name: path.read_bytes() for path in folder.iterdir()}
        with pytest.raises(TrainingError, match=told):
            train_rl(course(), folder)
        assert {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"} == before


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"Say {n}"}) + "\n" for n in range(4)))
    return path


def test_a_dry_run_reads_no_weights_of_the_reward_model_and_a_broken_one_ends_the_run_at_once(
    tiny: ModelSpec, prompts: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It said so and read them all; a model that cannot be read was a reward that failed, three steps long."""
    place = make_checkpoint(tmp_path / "judge")
    AutoModelForSequenceClassification.from_config(AutoConfig.from_pretrained(place, num_labels=1)).save_pretrained(place)
    settings = RLSettings(reward=str(place), steps=2, max_tokens=5, dtype="float32", prompts_per_step=2)
    with caplog.at_level(logging.INFO), course_of_data(prompts, tiny, settings) as course:
        assert rl_dry_run(course).reward == "judge"
        assert course.fingerprint
    assert not [each for each in caplog.records if "weights" in each.getMessage()]
    whole = (place / "model.safetensors").read_bytes()
    (place / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError), course_of_data(prompts, tiny, settings) as course:
        train_rl(course, tmp_path / "out")
    assert not (tmp_path / "out" / "metrics.jsonl").exists()
    plain = RLSettings(**settings.model_dump(exclude={"reward"}), reward=tiny.name)
    with pytest.raises(ModelError, match="is no reward model"), course_of_data(prompts, tiny, plain):
        pass


@pytest.mark.slow
def test_a_disk_that_is_full_at_any_point_is_told_and_with_room_the_run_ends_as_if_it_never_was(
    tiny: ModelSpec, prompts: Path, weights: Weights, tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text("def reward(completions, **_):\n    return [len(c[0]['content']) for c in completions]\n")
    flags = ["reward=mine:reward", "dtype=float32", "steps=5", "prompts_per_step=2", "samples_per_prompt=2", "max_tokens=6"]
    command = [sys.executable, "-m", "cai.cli", "rl", "--data", prompts.name, "--model", tiny.name, "--json"]
    command += [part for flag in [*flags, "save_every_steps=1", "lora.r=2"] for part in ("--set", f"rl.{flag}")]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}

    def start(output: str, largest: int | None) -> subprocess.CompletedProcess[str]:
        def limited() -> None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            if largest is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))

        return subprocess.run(
            [*command, "--output", output],
            cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, preexec_fn=limited,
        )  # fmt: skip

    assert start("straight", None).returncode == 0
    stopped = 0
    for largest in (100, 1_000, 30_000, 200_000):
        full = start(f"at-{largest}", largest)
        stopped += full.returncode != 0
        if full.returncode:
            assert full.returncode == 1, full.stderr
            assert "→" in full.stderr
            assert "Traceback" not in full.stderr
        done = start(f"at-{largest}", None)
        assert done.returncode == 0, done.stderr
        assert weights(tmp_path / f"at-{largest}") == weights(tmp_path / "straight")
        assert len(rows_of(tmp_path / f"at-{largest}")) == 5
    assert stopped == 4
