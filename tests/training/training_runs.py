"""What the tests of whole training runs share: rows, models and settings that take a fraction of a second."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

from cai.models.spec import ModelSpec
from cai.records import PreferenceRecord, SFTRecord
from cai.training.results import Phase, TrainingEvent
from cai.training.settings import DPOSettings, LoraSettings, SFTSettings
from constitution.messages import user

LORA = LoraSettings(r=4, alpha=8)
DPO = DPOSettings(epochs=1, batch_pairs=4, learning_rate=1e-3, dtype="float32", lora=LORA)
SFT = SFTSettings(epochs=1, batch_rows=4, learning_rate=1e-3, dtype="float32", lora=LORA)


def make_pairs(count: int, *, p_chosen: float = 0.9) -> list[PreferenceRecord]:
    """Prompts and replies of unequal lengths."""
    return [
        PreferenceRecord(
            uid=f"pair-{index}",
            prompt=(user(f"What is {index} + {index}? " + "Please. " * (index % 6)),),
            chosen=f"It is {2 * index}." + " Yes." * (index % 4),
            rejected=f"It is {2 * index + 1}, of course." + " I am sure." * (index % 3),
            chosen_source="revision",
            rejected_source="draft",
            p_chosen=p_chosen,
            margin_nats=1.0,
            method="pointwise",
            principle_ids=("plain",),
        )
        for index in range(count)
    ]


def make_chains(count: int) -> list[PreferenceRecord]:
    """All six pairs of four replies to each prompt, the later one better; each reply begins as the one before it."""
    pairs: list[PreferenceRecord] = []
    for prompt in make_pairs(count):
        replies = [prompt.rejected + " So it is." * turn + (" Or not." if turn % 2 else "") for turn in range(4)]
        for worse, better in combinations(range(4), 2):
            named = {"uid": f"{prompt.uid}-{worse}{better}", "chosen": replies[better], "rejected": replies[worse]}
            pairs.append(prompt.model_copy(update=named))
    return pairs


def make_replies(count: int) -> list[SFTRecord]:
    return [
        SFTRecord(uid=f"kept-{i}", messages=(user(f"Say {i}." + " Now." * (i % 3)),), reply=f"{i}. Here you are.")
        for i in range(count)
    ]


def metrics_of(folder: Path) -> list[dict[str, float]]:
    """All lines that a training has logged."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


class Interrupted(KeyboardInterrupt):
    """As by Ctrl-C."""


def interrupted_at(phase: Phase, step: int) -> Callable[[TrainingEvent], None]:
    """An `on_event` that interrupts a training when it tells of this step."""

    def on_event(event: TrainingEvent) -> None:
        if (event.phase, event.step) == (phase, step):
            raise Interrupted

    return on_event


def spec_of(folder: Path, architecture: str = "llama") -> ModelSpec:
    return ModelSpec(name=str(folder), device="cpu", base_model_form="plain" if architecture == "gpt2" else "auto")
