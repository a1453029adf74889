"""The folder of a training: runs that end early, are called again, or meet another run's files; what a run tells and frees."""

from __future__ import annotations

import gc
import shutil
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from checkpoints import make_checkpoint
from filelock import FileLock
from training_runs import DPO, SFT, Interrupted, interrupted_at, make_pairs, make_replies, metrics_of, spec_of
from transformers import PreTrainedModel
from transformers.utils.logging import disable_progress_bar, enable_progress_bar, is_progress_bar_enabled

from cai.errors import TrainingError
from cai.training.dpo import train_dpo
from cai.training.results import TrainingEvent
from cai.training.settings import DPOSettings, SFTSettings
from cai.training.sft import train_sft


def test_a_finished_run_is_returned_without_work_and_other_settings_begin_anew(llama: Path, tmp_path: Path) -> None:
    first = train_dpo(spec_of(llama), make_pairs(8), [], DPO, tmp_path / "out")
    events: list[TrainingEvent] = []
    again = train_dpo(spec_of(llama), make_pairs(8), [], DPO, tmp_path / "out", on_event=events.append)
    assert (again, events) == (first, [])
    other = DPO.model_copy(update={"learning_rate": 2e-3})
    changed = train_dpo(spec_of(llama), make_pairs(8), [], other, tmp_path / "out", on_event=events.append)
    assert changed.fingerprint != first.fingerprint
    assert any("started from the beginning" in warning for warning in changed.warnings)
    assert changed.reference_computed == 0, "the reference is the same model on the same rows"
    assert {event.phase for event in events} == {"train"}


def test_a_moved_folder_is_still_finished(llama: Path, tmp_path: Path) -> None:
    train_dpo(spec_of(llama), make_pairs(8), [], DPO, tmp_path / "out")
    shutil.move(tmp_path / "out", tmp_path / "elsewhere")
    moved = train_dpo(spec_of(llama), make_pairs(8), [], DPO, tmp_path / "elsewhere")
    assert moved.folder == tmp_path / "elsewhere"
    assert moved.adapter is not None
    assert moved.adapter.is_dir()


def test_an_interrupted_run_goes_on_from_its_checkpoint_without_a_false_warning(llama: Path, tmp_path: Path) -> None:
    """A run stopped before its first checkpoint used to be told that its folder held another run."""
    settings = DPO.model_copy(update={"save_every_steps": 2})
    with pytest.raises(Interrupted):
        train_dpo(spec_of(llama), make_pairs(16), [], settings, tmp_path / "out", on_event=interrupted_at("train", 1))
    with pytest.raises(Interrupted):
        train_dpo(spec_of(llama), make_pairs(16), [], settings, tmp_path / "out", on_event=interrupted_at("train", 3))
    result = train_dpo(spec_of(llama), make_pairs(16), [], settings, tmp_path / "out")
    assert result.resumed_from_step == 2
    assert not result.warnings
    assert [line["step"] for line in metrics_of(result.folder)] == [1, 2, 3, 4]
    assert not (tmp_path / "out" / "checkpoints").exists()


def test_checkpoints_that_are_to_be_kept_are_the_weights_on_the_way(llama: Path, tmp_path: Path) -> None:
    """Oracle: a run that was stopped at that step has the same weights. Optimizer states and what is saved twice are gone."""
    settings = DPO.model_copy(update={"save_every_steps": 1, "lora": None, "keep_checkpoints": True})
    result = train_dpo(spec_of(llama), make_pairs(32), [], settings, tmp_path / "out")
    folder = tmp_path / "out" / "checkpoints"
    assert sorted(path.name for path in folder.iterdir()) == [f"checkpoint-{n}" for n in range(1, result.steps)]
    assert not [path for path in folder.rglob("*") if path.name.startswith(("optimizer", "rng_state", "scheduler"))]
    with pytest.raises(Interrupted):
        train_dpo(spec_of(llama), make_pairs(32), [], settings, tmp_path / "cut", on_event=interrupted_at("train", 3))
    assert len(list((tmp_path / "cut").rglob("optimizer.pt"))) == 2, "of the newest, and the one before"
    stopped = tmp_path / "cut" / "checkpoints" / "checkpoint-2"
    assert (folder / "checkpoint-2" / "model.safetensors").read_bytes() == (stopped / "model.safetensors").read_bytes()
    resumed = train_dpo(spec_of(llama), make_pairs(32), [], settings, tmp_path / "cut")
    assert (tmp_path / "cut" / "model.safetensors").read_bytes() == (tmp_path / "out" / "model.safetensors").read_bytes()
    assert resumed.fingerprint == result.fingerprint


def test_the_newest_checkpoints_and_the_best_stay_and_nothing_is_said_of_saving(
    llama: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Story: with all weights trained, each checkpoint drew a bar of transformers' into the progress; of two that lay within a
    second of each other, the Trainer said that the file system's times were not reliable.
    """
    settings = DPO.model_copy(
        update={"lora": None, "holdout_share": 0.4, "patience": 9, "eval_every_steps": 1, "learning_rate": 1.0, "epochs": 4}
    )
    bars_on = is_progress_bar_enabled()
    enable_progress_bar()
    try:
        with pytest.raises(Interrupted):
            train_dpo(spec_of(llama), make_pairs(16), [], settings, tmp_path / "out", on_event=interrupted_at("train", 6))
    finally:
        if not bars_on:
            disable_progress_bar()
    evaluated = [line for line in metrics_of(tmp_path / "out") if "eval/loss" in line]
    best = int(min(evaluated, key=lambda line: line["eval/loss"])["step"])
    assert best < 4, "the best is none of the newest"
    assert sorted(path.name for path in (tmp_path / "out" / "checkpoints").iterdir()) == [
        f"checkpoint-{step}" for step in (best, 4, 5)
    ]
    assert capfd.readouterr().err == ""


def test_a_run_may_be_begun_anew_on_purpose(llama: Path, tmp_path: Path) -> None:
    train_dpo(spec_of(llama), make_pairs(8), [], DPO, tmp_path / "out")
    events: list[TrainingEvent] = []
    again = train_dpo(spec_of(llama), make_pairs(8), [], DPO, tmp_path / "out", resume=False, on_event=events.append)
    assert len([event for event in events if event.phase == "train"]) == again.steps == 2


def test_two_processes_cannot_train_in_one_folder(llama: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with FileLock(tmp_path / "out" / ".lock"), pytest.raises(TrainingError, match="another process"):
        train_dpo(spec_of(llama), make_pairs(8), [], DPO, tmp_path / "out")


def test_a_model_is_not_trained_into_its_own_folder(tmp_path: Path) -> None:
    """Its weights were cleared away as those of an earlier run before they could be read again."""
    model = make_checkpoint(tmp_path / "model")
    weights = (model / "model.safetensors").read_bytes()
    with pytest.raises(TrainingError, match="lies here"):
        train_dpo(spec_of(model), make_pairs(8), [], DPO, tmp_path / "other" / ".." / "model")
    assert (model / "model.safetensors").read_bytes() == weights


def test_progress_is_told_from_the_first_to_the_last_unit(llama: Path, tmp_path: Path) -> None:
    events: list[TrainingEvent] = []
    settings = DPO.model_copy(update={"tokens_per_forward": 100})
    train_dpo(spec_of(llama), make_pairs(8), [], settings, tmp_path / "out", on_event=events.append)
    for phase in ("reference", "train"):
        own = [event for event in events if event.phase == phase]
        assert [event.step for event in own] == list(range(1, own[0].total_steps + 1))
        assert own[-1].eta_s == 0
        assert all(event.tokens_per_second > 0 for event in own)


@pytest.fixture
def no_chance_collection() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_chance_collection")
@pytest.mark.parametrize("settings", [DPO, DPO.model_copy(update={"lora": None}), SFT], ids=["dpo", "dpo of all", "sft"])
def test_when_a_training_returns_its_model_is_gone(settings: DPOSettings | SFTSettings, llama: Path, tmp_path: Path) -> None:
    """Story: several trainings in one process held a gigabyte more than one: the Trainer refers to itself."""

    def models() -> list[Any]:
        return [each for each in gc.get_objects() if isinstance(each, PreTrainedModel)]

    before = set(map(id, models()))
    in_training: list[weakref.ref[Any]] = []

    def look(_: TrainingEvent) -> None:
        in_training.extend(weakref.ref(each) for each in models() if id(each) not in before)

    if isinstance(settings, SFTSettings):
        train_sft(spec_of(llama), make_replies(4), settings, tmp_path / "out", on_event=look)
    else:
        train_dpo(spec_of(llama), make_pairs(4), (), settings, tmp_path / "out", on_event=look)
    assert in_training
    assert not any(each() for each in in_training)
