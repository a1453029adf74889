"""Trackers get the figures of a run, are off by default, and can neither stop a run nor learn a secret."""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from checkpoints import make_checkpoint
from scripted_runs import write_scripted_run
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import TrainerCallback
from whole_runs import cai_here, write_config, write_prompts

from cai.config import read_config
from cai.errors import ProblemList
from cai.pipeline import open_session, read_inputs, run
from cai.pipeline.trackers import Trackio, Wandb
from cai.pipeline.tracking import Tracking, numbers
from cai.records import Outcome, Stage
from cai.store import RunFolder


def scalars(folder: Path) -> dict[str, list[float]]:
    """Name → values, in their order, as TensorBoard itself reads them."""
    read = EventAccumulator(str(folder))
    read.Reload()
    return {name: [each.value for each in read.Scalars(name)] for name in read.Tags()["scalars"]}


def test_generation_labels_training_and_evaluation_are_read_back_from_tensorboard(tmp_path: Path) -> None:
    config = write_config(
        tmp_path,
        make_checkpoint(tmp_path / "model"),
        write_prompts(tmp_path / "prompts.jsonl", 14),
        tracking={"to": ["tensorboard"], "project": "constitutions", "name": "first try", "dir": str(tmp_path / "figures")},
    )
    with open_session(read_inputs(read_config(config, (), {}).config)) as session:
        summary = run(session)
        assert session.tracking.failures == {"tensorboard": 0}
    place = tmp_path / "figures" / "tensorboard" / "constitutions" / "first try"
    found = scalars(place)
    assert found["ledger/pair"][-1] == summary.ledger[Outcome.PAIR]
    assert found["ledger/pending"][0] > found["ledger/pending"][-1] == 0
    assert found["generation/records"] == [len(session.inputs.training_items)]
    assert summary.quality is not None
    expected = dict(numbers(summary.quality.model_dump(mode="json")))
    labels = {name.removeprefix("labels/"): values for name, values in found.items() if name.startswith("labels/")}
    assert labels == {name: [pytest.approx(value)] for name, value in expected.items()}
    with RunFolder.open(tmp_path / "run", read_only=True) as folder:
        made = folder.usage()["draft"].calls
    assert found["calls/draft/made"][-1] == made
    assert found["progress/draft/done"][-1] == made
    assert summary.evaluation is not None
    for row in summary.evaluation.rows:
        assert found[f"evaluation/{row.behaviour}/after"] == [pytest.approx(row.after)]
    training = scalars(place / "dpo")
    first, last = summary.training[Stage.DPO].first_metrics, summary.training[Stage.DPO].last_metrics
    for name in ("loss", "rewards/margins", "grad_norm"):
        values = training[f"train/{name}"]
        assert (values[0], values[-1]) == (pytest.approx(first[name], rel=1e-6), pytest.approx(last[name], rel=1e-6))


def test_nothing_is_tracked_by_default(tmp_path: Path) -> None:
    assert cai_here("run", write_scripted_run(tmp_path, 20)).returncode == 3
    assert not (tmp_path / "run" / "tracking").exists()


def test_a_missing_package_is_refused_with_its_name_before_anything_is_opened(tmp_path: Path) -> None:
    config = write_scripted_run(tmp_path, 20, tracking={"to": ["wandb", "trackio"]})
    with pytest.raises(ProblemList) as caught:
        read_inputs(read_config(config, (), {}).config)
    assert "pip install wandb trackio" in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_tracking_changes_nothing_of_what_a_run_depends_on(tmp_path: Path) -> None:
    config = write_scripted_run(tmp_path, 20)
    assert cai_here("run", config).returncode == 3
    again = cai_here("run", config, "--plan", "--set", "tracking.to=[tensorboard]")
    assert "Nothing to do" in again.stdout, again.stdout


class Broken:
    """A tracker whose library raises at every turn, as one whose server is gone."""

    def __init__(self, *_: object) -> None:
        self.asked = 0

    def log(self, figures: Mapping[str, float], seconds: int) -> None:
        self.asked += 1
        raise ConnectionError("no such server")

    def callback(self, stage: str) -> Any:
        return BrokenCallback()

    def log_step(self, stage: str, figures: Mapping[str, float], step: int) -> None:
        raise ConnectionError("no such server")

    def close(self) -> None:
        raise ConnectionError("no such server")


class BrokenCallback(TrainerCallback):
    def on_train_begin(self, *_: Any, **named: Any) -> None:
        raise ConnectionError("no such server")

    def on_log(self, *_: Any, **named: Any) -> None:
        raise ConnectionError("no such server")


def test_a_tracker_that_raises_is_counted_and_told_once_and_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("cai.pipeline.tracking.OPENERS", {"tensorboard": Broken})
    config = write_scripted_run(tmp_path, 20, tracking={"to": ["tensorboard"]})
    inputs = read_inputs(read_config(config, (), {}).config)
    with caplog.at_level(logging.WARNING, "cai.pipeline.tracking"), open_session(inputs) as session:
        summary = run(session)
        (callback,) = session.tracking.callbacks("dpo")
        for _ in range(3):
            callback.on_log(None, None, None, logs={"loss": 1.0})
        assert callback.on_train_begin(None, None, None) is None
    assert summary.ledger[Outcome.PENDING] == 0
    assert session.tracking.failures["tensorboard"] >= 6
    told = [each.message for each in caplog.records]
    assert len(told) == 2
    assert "ConnectionError: no such server" in told[0]
    assert f"failed {session.tracking.failures['tensorboard']} times" in told[1]


def test_one_that_cannot_even_be_opened_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "figures").write_text("a file, where a folder should be")
    config = write_scripted_run(tmp_path, 20, tracking={"to": ["tensorboard"], "dir": str(tmp_path / "figures")})
    with open_session(read_inputs(read_config(config, (), {}).config)) as session:
        run(session, until=Stage.LABEL)
    assert sum("The run goes on without it" in each.message for each in caplog.records) == 1


@pytest.fixture
def slow() -> Iterator[tuple[Tracking, threading.Event, list[dict[str, float]]]]:
    go, got = threading.Event(), list[dict[str, float]]()

    class Slow(Broken):
        def log(self, figures: Mapping[str, float], seconds: int) -> None:
            go.wait(30)
            got.append(dict(figures))

        def close(self) -> None: ...

    yield Tracking({"slow": Slow()}), go, got
    go.set()


def test_a_slow_tracker_keeps_nobody_waiting_and_gets_everything_in_the_end(
    slow: tuple[Tracking, threading.Event, list[dict[str, float]]],
) -> None:
    tracking, go, got = slow
    for n in range(50):
        tracking.note("stage", {"figure": n, "flag": True, "name": "x", "below": {"deep": n / 2}})
    assert got == []
    go.set()
    tracking.close()
    assert got == [{"stage/figure": float(n), "stage/below/deep": n / 2} for n in range(50)]


def test_what_trackers_set_in_the_environment_is_undone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Setting(Broken):
        def __init__(self, *_: object) -> None:
            os.environ["MLFLOW_RUN_ID"] = "mine"
            os.environ.pop("TRACKIO_SPACE_ID", None)

        def log(self, figures: Mapping[str, float], seconds: int) -> None: ...
        def close(self) -> None: ...

    monkeypatch.setenv("TRACKIO_SPACE_ID", "owner/space")
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    monkeypatch.setattr("cai.pipeline.tracking.OPENERS", {"tensorboard": Setting})
    config = write_scripted_run(tmp_path, 20, tracking={"to": ["tensorboard"]})
    with open_session(read_inputs(read_config(config, (), {}).config)):
        assert os.environ["MLFLOW_RUN_ID"] == "mine"
        assert "TRACKIO_SPACE_ID" not in os.environ
    assert "MLFLOW_RUN_ID" not in os.environ
    assert os.environ["TRACKIO_SPACE_ID"] == "owner/space"


def test_each_step_of_rl_and_of_a_reward_model_is_read_back_from_tensorboard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`tracking:` was read by the stages of a run alone: `cai rl` and `cai reward` told the trackers nothing."""
    config = write_config(
        tmp_path,
        make_checkpoint(tmp_path / "model"),
        write_prompts(tmp_path / "prompts.jsonl", 14),
        tracking={"to": ["tensorboard"], "name": "mine", "dir": str(tmp_path / "figures")},
        reward={"lora": {"r": 2}, "holdout_share": 0.3, "learning_rate": 1e-3, "dtype": "float32"},
        rl={
            "reward": "letters:e",
            "steps": 3,
            "prompts_per_step": 2,
            "samples_per_prompt": 2,
            "max_tokens": 5,
            "start": "policy",
        },
    )
    (tmp_path / "letters.py").write_text("def e(completions, **_):\n    return [len(c[0]['content']) for c in completions]\n")
    monkeypatch.chdir(tmp_path)
    for command in ("reward", "rl"):
        done = cai_here(command, config)
        assert done.returncode == 0, done.stderr
    place = tmp_path / "figures" / "tensorboard" / "constitution-cai" / "mine"
    rows = [json.loads(line) for line in (tmp_path / "run" / "rl" / "metrics.jsonl").read_text().splitlines()]
    told = scalars(place / "rl")
    for name in ("reward", "kl", "entropy", "length", "loss", "grad_norm"):
        assert told[f"train/{name}"] == pytest.approx([row[name] for row in rows], rel=1e-6)
    assert len(rows) == 3
    assert scalars(place)["rl/steps"] == [3]
    assert "progress/rl training/done" in scalars(place)
    rewards = [json.loads(line) for line in (tmp_path / "run" / "reward" / "metrics.jsonl").read_text().splitlines()]
    assert scalars(place / "reward")["train/loss"] == pytest.approx([row["loss"] for row in rewards if "loss" in row], rel=1e-5)
    assert "reward-quality/overall/accuracy" in scalars(place)


def test_steps_of_a_training_of_our_own_have_its_name_where_all_stages_are_one_run() -> None:
    class Run:
        def __init__(self) -> None:
            self.got: list[dict[str, float]] = []

        def log(self, figures: dict[str, float]) -> None:
            self.got.append(figures)

    for kind in (Wandb, Trackio):
        tracker: Any = kind.__new__(kind)
        tracker._run = Run()
        tracking = Tracking({"one": tracker, "broken": Broken()})
        tracking.note_step("rl", {"step": 7, "reward": 0.5})
        tracker.close = lambda: None
        tracking.close()
        assert tracker._run.got == [{"rl/reward": 0.5, "rl/step": 7}]
        assert tracking.failures["broken"] >= 1
