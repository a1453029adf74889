"""A reward that is really gamed: a policy learns to please it past the point where that is good, and the leash stops it there.

Nothing is made to happen: the truth is a function of each reply, its peak at two letters, and the reward knows no end of them.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from cai.data.training_rows import read_preference_rows
from cai.engines.local import LocalEngine
from cai.models.loading import open_model
from cai.models.spec import ModelSpec
from cai.pipeline.reinforcing import course_of_data
from cai.records import Item
from cai.rl.course import rl_course
from cai.rl.run import train_rl
from cai.rl.sampling import Sampler
from cai.rl.settings import RLSettings
from cai.training.reward import train_reward
from cai.training.settings import RewardSettings
from tests.rl.conftest import TextReward, count_e

GAMED: dict[str, Any] = {
    "steps": 60,
    "prompts_per_step": 6,
    "samples_per_prompt": 8,
    "max_tokens": 8,
    "learning_rate": 1e-2,
    "warmup_steps": 0,
    "lora": {"r": 2},
    "dtype": "float32",
    "save_every_steps": 1,
}
WINDOW = 4


def a_few(text: str) -> float:
    """Up to two are good, each one more is bad."""
    count = text.count("e")
    return float(min(count, 2) - max(0, count - 2))


def rows_of(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def truth_of(folder: Path, items: list[Item]) -> float:
    """Of fresh replies of the model that lies there."""
    engine = LocalEngine(open_model(ModelSpec(name=str(folder), dtype="float32")))
    rollouts = Sampler(engine, samples=40, max_tokens=8, seed=9).draw(items, 1)
    return fmean(a_few(sample.text) for each in rollouts for sample in each.samples)


def run(tiny: ModelSpec, items: list[Item], folder: Path, **changes: Any) -> Any:
    settings = RLSettings(reward="letters:e", **{**GAMED, **changes})
    return train_rl(rl_course(tiny, items, settings, TextReward(count_e), TextReward(a_few, "a few", "few")), folder)


def test_the_run_stops_where_the_truth_turns_and_keeps_a_model_that_is_better_than_both_ends(
    tiny: ModelSpec, items: list[Item], tmp_path: Path
) -> None:
    held = run(tiny, items, tmp_path / "held", beta=0.0, leash={"window": WINDOW})
    assert held.steps < 30
    assert held.kept_step < held.steps
    assert "while the truth fell" in held.stopped
    assert held.kept["truth"] > held.last["truth"]

    free = run(tiny, items, tmp_path / "free", beta=0.0, leash={"window": WINDOW, "stop": False})
    assert free.steps == free.kept_step == 60
    both = rows_of(tmp_path / "free")
    assert [row["truth"] for row in both[: held.steps]] == [row["truth"] for row in rows_of(tmp_path / "held")]
    assert free.last["reward"] > free.first["reward"] + 2, "the reward was gamed"
    assert free.last["truth"] < free.first["truth"] - 0.5, "and the truth paid for it"
    assert any(f"would have stopped the run after step {held.steps}: over" in each for each in free.warnings)

    start = truth_of(Path(tiny.name), items)
    kept, over = truth_of(tmp_path / "held", items), truth_of(tmp_path / "free", items)
    assert kept > start > over


def test_with_a_leash_of_kl_the_same_reward_is_not_gamed_and_nothing_is_stopped(
    tiny: ModelSpec, items: list[Item], tmp_path: Path
) -> None:
    tight = run(tiny, items, tmp_path, steps=40, beta=1.0, leash={"window": WINDOW})
    assert (tight.steps, tight.stopped) == (40, "")
    assert tight.last["kl"] < 3
    assert tight.last["truth"] > tight.first["truth"] - 0.3


@pytest.fixture(scope="module")
def judges(tiny: ModelSpec, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two reward models: of judges who want ever more of a letter, and of those who want a few."""
    place = tmp_path_factory.mktemp("judges")
    draw = random.Random(0)
    parts = ["ab", "cd ", "the", "e", "e ", "no", "q", "ee", "re", " me", "st", "is"]
    scores: dict[str, Callable[[str], float]] = {"eager": count_e, "sober": a_few}
    for name, score in scores.items():
        rows: list[dict[str, str]] = []
        while len(rows) < 300:
            worse, better = sorted(("".join(draw.choice(parts) for _ in range(8)) for _ in range(2)), key=score)
            if score(worse) < score(better):
                rows.append({"prompt": f"Say {len(rows) % 6} + 2", "chosen": better, "rejected": worse})
        file = place / f"{name}.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        settings = RewardSettings(lora=None, learning_rate=3e-3, epochs=4, batch_pairs=16, dtype="float32", holdout_share=0.15)
        result = train_reward(tiny, read_preference_rows(file), settings, place / name)
        assert result.quality is not None
        assert result.quality.overall.accuracy > 0.8
    return {name: place / name for name in scores}


def test_a_held_out_reward_model_stops_a_run_that_games_another(
    judges: dict[str, Path], tiny: ModelSpec, items: list[Item], tmp_path: Path
) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": item.messages[0].content}) + "\n" for item in items))
    chosen = {**GAMED, "reward": str(judges["eager"]), "truth": str(judges["sober"]), "beta": 0.0}
    for stop in (True, False):
        settings = RLSettings(**chosen, leash={"window": WINDOW, "stop": stop})  # pyright: ignore[reportArgumentType]
        with course_of_data(prompts, tiny, settings) as course:
            result = train_rl(course, tmp_path / str(stop))
        assert (result.reward, result.truth) == ("eager", "sober")
        if stop:
            assert result.steps < 30
            assert "while the truth fell" in result.stopped
            assert result.kept["truth"] > result.last["truth"]
        else:
            assert result.steps == 60
            assert result.last["reward"] > result.first["reward"] + 1
            assert result.last["truth"] < result.first["truth"] - 0.5
            assert any("would have stopped" in each for each in result.warnings)
