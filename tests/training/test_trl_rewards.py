"""Step by step beside TRL's RewardTrainer on hard labels: same classifier, same pairs, same order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import make_checkpoint
from safetensors.torch import load_file
from training_runs import make_chains, make_pairs, metrics_of, spec_of
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from trl_runs import Theirs, assert_moved_alike, pairs_in_order, their_arguments, train

from cai.records import PreferenceRecord
from cai.training.results import TrainingResult
from cai.training.reward import reward_course, train_reward
from cai.training.rows import PreferenceRow
from cai.training.settings import RewardSettings

SETTINGS = RewardSettings(
    epochs=2, batch_pairs=4, learning_rate=1e-3, dtype="float32", lora=None, labels="hard", weight_decay=0.01,
    holdout_share=0.0, centre_weight=0.0,
)  # fmt: skip
CASES = {
    "plain": (SETTINGS, lambda: make_pairs(12)),
    "centred, with margins, all pairs of four replies": (
        SETTINGS.model_copy(update={"centre_weight": 0.05, "margin": 0.8, "batch_pairs": 6}), lambda: make_chains(3),
    ),
}  # fmt: skip


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier, so that both begin with the same head."""
    folder = make_checkpoint(tmp_path_factory.mktemp("model"))
    torch.manual_seed(5)
    classifier: Any = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1)
    classifier.save_pretrained(folder)
    return folder


def labelled(case: str) -> list[PreferenceRecord]:
    """Labels of unequal strength, which the margins go by."""
    return [pair.model_copy(update={"p_chosen": 0.6 + 0.1 * (at % 5)}) for at, pair in enumerate(CASES[case][1]())]


@pytest.fixture(scope="module")
def ours(case: str, model: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainingResult:
    return train_reward(spec_of(model), labelled(case), CASES[case][0], tmp_path_factory.mktemp("ours")).training


@pytest.fixture(scope="module")
def theirs(case: str, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Theirs:
    from datasets import Dataset
    from trl.trainer.reward_config import RewardConfig
    from trl.trainer.reward_trainer import RewardTrainer

    settings = CASES[case][0]
    pairs = {pair.uid: pair for pair in labelled(case)}
    course = reward_course(spec_of(model), list(pairs.values()), settings)
    order = pairs_in_order(course)

    def row(uid: str) -> dict[str, Any]:
        pair = pairs[uid]
        turns = [{"role": m.role, "content": m.content} for m in pair.prompt]
        margin = settings.margin * (2 * pair.p_chosen - 1)
        sides = {name: [{"role": "assistant", "content": getattr(pair, name)}] for name in ("chosen", "rejected")}
        return {"prompt": turns, **sides, **({"margin": margin} if settings.margin else {})}

    steps = len(order) // settings.batch_pairs
    assert steps == len(course.plan) >= 3
    folder = tmp_path_factory.mktemp("theirs")
    arguments = RewardConfig(
        center_rewards_coefficient=settings.centre_weight or None,
        **their_arguments(settings, batch=settings.batch_pairs, steps=steps, folder=folder),
    )
    trainer: Any = RewardTrainer(
        model=AutoModelForSequenceClassification.from_pretrained(model, dtype=torch.float32),
        args=arguments,
        train_dataset=Dataset.from_list([row(uid) for uid in order]),
        processing_class=AutoTokenizer.from_pretrained(model),
    )
    tokens = {
        (pair.uid, side): [*row.group.prompt_ids, *row.group.replies[getattr(pair, side)][:-1]]
        for row in course.rows
        if isinstance(row, PreferenceRow)
        for pair in row.pairs
        for side in ("chosen", "rejected")
    }
    for uid, encoded in zip(order, trainer.train_dataset, strict=True):
        assert (encoded["chosen_ids"], encoded["rejected_ids"]) == (tokens[uid, "chosen"], tokens[uid, "rejected"])
    return train(trainer)


def test_losses_margins_and_gradients_go_the_same_way(ours: TrainingResult, theirs: Theirs) -> None:
    lines = metrics_of(ours.folder)
    assert len(lines) == len(theirs[0]) == ours.steps
    assert abs(lines[-1]["rewards/margins"] - lines[0]["rewards/margins"]) > 0.5, "nothing was learned: it would say little"
    for line, their_line in zip(lines, theirs[0], strict=True):
        for name, their_name in (("loss", "loss"), ("rewards/margins", "margin"), ("learning_rate", "learning_rate")):
            assert line[name] == pytest.approx(their_line[their_name], abs=2e-5), (line["step"], name)
        assert line["rewards/accuracies"] == pytest.approx(their_line["accuracy"])
        mean = (line["rewards/chosen"] + line["rewards/rejected"]) / 2
        assert mean == pytest.approx(their_line["mean_reward"], abs=2e-5)
        assert line["grad_norm"] == pytest.approx(their_line["grad_norm"], rel=1e-4)


def test_the_trained_weights_are_the_same(model: Path, ours: TrainingResult, theirs: Theirs) -> None:
    before, after = load_file(model / "model.safetensors"), load_file(ours.folder / "model.safetensors")
    assert after.keys() == theirs[1].keys()
    assert_moved_alike(before, after, theirs[1], within=0.002)
