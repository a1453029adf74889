"""Training in processes that are killed with SIGKILL, one after the other, on the same folder.

Usage: killed_training.py MODEL FOLDER KILLS lora|full|early|reward: forks a process that trains, kills it moments after it
has told of a few units of work, and again, KILLS times. Nothing is computed before the first fork, so that only the imports
are shared.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

# What training imports at its first need: once for all.
import accelerate  # noqa: F401
import peft  # noqa: F401
import transformers.models.llama.modeling_llama  # noqa: F401
from training_runs import DPO, make_pairs, make_replies, spec_of

from cai.training.dpo import train_dpo
from cai.training.results import TrainingEvent, TrainingResult
from cai.training.reward import train_reward
from cai.training.settings import RewardSettings

SETTINGS = DPO.model_copy(update={"epochs": 3, "save_every_steps": 2, "tokens_per_forward": 128, "logging_steps": 3})
SECONDS_PER_EVENT = 0.02
MOMENTS = ("", "r", "rrr", "t", "ttttt", "ttt", "tt", "tttt")
"""Units of work told of before a kill: passes of the reference, training steps."""


EARLY = {"holdout_share": 0.3, "patience": 2, "eval_every_steps": 2, "learning_rate": 1e-2, "schedule": "constant", "epochs": 8}
"""Stops early: what it learns by heart in large steps soon raises the held-out loss."""
REWARD = RewardSettings(
    lora=None, heads=2, holdout_share=0.2, **SETTINGS.model_dump(include={
        "epochs", "batch_pairs", "learning_rate", "dtype", "save_every_steps", "tokens_per_forward", "logging_steps",
    }),
)  # fmt: skip
KINDS = {"lora": SETTINGS, "full": SETTINGS.model_copy(update={"lora": None}), "early": SETTINGS.model_copy(update=EARLY)}


def train(model: Path, folder: Path, kind: str, *, seconds_per_event: float = 0.0, tell: int | None = None) -> TrainingResult:

    def on_event(event: TrainingEvent) -> None:
        assert event.step <= event.total_steps
        if tell is not None:
            with suppress(BrokenPipeError):
                os.write(tell, event.phase[:1].encode())
        time.sleep(seconds_per_event)

    if kind == "reward":
        return train_reward(spec_of(model), make_pairs(22), REWARD, folder, on_event=on_event).training
    return train_dpo(spec_of(model), make_pairs(22), make_replies(5), KINDS[kind], folder, on_event=on_event)


def train_and_kill(model: Path, folder: Path, kills: int, kind: str) -> None:
    chance = random.Random(3)
    moments = [each for each in MOMENTS if kind != "reward" or "r" not in each]  # which has no reference
    killed = 0
    while killed < kills:
        at_work, tell = os.pipe()
        child = os.fork()
        if child == 0:
            train(model, folder, kind, seconds_per_event=SECONDS_PER_EVENT, tell=tell)
            os._exit(0)
        os.close(tell)
        waited = moments[killed % len(moments)]
        while waited and (told := os.read(at_work, 1)):
            waited = waited[told == waited[:1].encode() :]
        os.close(at_work)
        time.sleep(chance.random() * 0.06)
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):
            print(f"exit {os.waitstatus_to_exitcode(status)} after {killed} kills", flush=True)
            return
        killed += 1
        steps = sorted(int(mark.parent.name.rpartition("-")[2]) for mark in folder.glob("checkpoints/*/complete"))
        print(f"killed; whole checkpoints: {steps}", flush=True)


if __name__ == "__main__":
    train_and_kill(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
