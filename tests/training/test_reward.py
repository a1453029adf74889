"""Reward training: the loss, the saved model as others load it, resuming, refusals, and what is told of it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import ARCHITECTURES, Architecture, make_checkpoint
from pydantic import ValidationError
from safetensors.torch import load_file
from training_runs import LORA, make_chains, make_pairs, spec_of
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from cai.errors import CaiError, ModelError, ProblemList, TrainingError
from cai.models.loading import load_tokenizer, open_model
from cai.records import PreferenceRecord
from cai.training.dpo import dpo_course
from cai.training.dry_run import dry_run
from cai.training.objectives import StepSize
from cai.training.packing import TokenGroup
from cai.training.results import TrainingEvent
from cai.training.reward import reward_course, train_reward
from cai.training.reward_head import padding
from cai.training.reward_model import Refused, RewardModel
from cai.training.reward_objective import RewardObjective, poisson
from cai.training.reward_results import QUALITY
from cai.training.reward_scorer import RewardScorer, read_at_the_end
from cai.training.rows import Pair, PreferenceRow
from cai.training.settings import DPOSettings, RewardSettings
from constitution.messages import assistant, user

REWARD = RewardSettings(batch_pairs=4, learning_rate=1e-3, dtype="float32", lora=LORA, holdout_share=0.0)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("model"))


def with_(**changes: Any) -> RewardSettings:
    return RewardSettings.model_validate(REWARD.model_dump() | changes)


def one_row(*labels: float) -> PreferenceRow:
    """Pairs (0, 1), (2, 3) … with these labels."""
    replies = tuple((10 + at, 20 + at) for at in range(2 * len(labels)))
    pairs = tuple(Pair(f"p{at}", 0, 2 * at, 2 * at + 1, p) for at, p in enumerate(labels))
    return PreferenceRow(read_at_the_end(TokenGroup((1, 2), replies)), pairs)


@pytest.mark.parametrize(
    ("settings", "margin"),
    [
        ({}, 0.0),
        ({"labels": "hard"}, 0.0),
        ({"labels": "hard", "margin": 3.0}, 3.0),
        ({"margin": 1.0, "centre_weight": 0}, 1.0),
    ],
)
def test_the_loss_is_that_of_the_papers(settings: dict[str, Any], margin: float) -> None:
    """By hand, in float64: cross-entropy on the label, Llama 2's margin, Eisenstein's centring; the mean of all."""
    labels, rewards = (1.0, 0.8), torch.tensor([[0.3, -2.0], [1.1, 0.5], [2.0, 0.1], [-1.0, 0.4]], dtype=torch.float64)
    row = one_row(*labels)
    wanted = with_(heads=2, bootstrap=False, **settings)
    loss, sums = RewardObjective(wanted, bootstrap=False)((row,), rewards, torch.ones(4), StepSize.of([row]))
    expected = 0.0
    for pair, p in enumerate(labels):
        for head in range(2):
            chosen, rejected = float(rewards[2 * pair, head]), float(rewards[2 * pair + 1, head])
            gap = chosen - rejected - margin * (2 * p - 1)
            target = p if wanted.labels == "soft" else 1.0
            sigma = 1 / (1 + math.exp(-gap))
            expected += -target * math.log(sigma) - (1 - target) * math.log(1 - sigma)
            expected += wanted.centre_weight * (chosen + rejected) ** 2
    assert float(loss) == pytest.approx(expected / 4, abs=1e-12)
    assert sums["rewards/margins"][0] / sums["rewards/margins"][1] == pytest.approx((-0.8 - 2.5 + 3.0 - 0.3) / 4)
    assert sums["rewards/accuracies"] == (1.0, 2)


def test_bootstrap_weights_are_poisson_and_a_matter_of_the_pair_and_the_head_alone() -> None:
    draws = np.random.default_rng(0).random(20_000)
    counts = np.array([poisson(draw) for draw in draws])
    assert counts.mean() == pytest.approx(1.0, abs=0.03)
    assert counts.var() == pytest.approx(1.0, abs=0.05)
    assert (counts == 0).mean() == pytest.approx(math.exp(-1), abs=0.01)
    objective = RewardObjective(with_(heads=3), bootstrap=True)
    rewards = torch.randn(8, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    whole = one_row(0.9, 0.7, 1.0, 0.6)
    size = StepSize.of([whole])
    together = objective((whole,), rewards, torch.ones(8), size)[0]
    apart = sum(
        objective((whole.only([at]),), rewards[2 * at : 2 * at + 2], torch.ones(2), size)[0] for at in range(4)
    )  # as passes of a step are cut
    assert float(together) == pytest.approx(float(apart), abs=1e-12)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_transformers_loads_what_is_saved_and_gives_the_same_rewards(architecture: Architecture, tmp_path: Path) -> None:
    """The trap of padding: a classifier takes whatever equals its pad token for no part of the text."""
    spec = spec_of(make_checkpoint(tmp_path / "model", architecture), architecture)
    heads = 3 if architecture == "llama" else 1
    saved = train_reward(spec, make_pairs(6), with_(heads=heads, lora=None), tmp_path / "reward").training.folder
    theirs: Any = AutoModelForSequenceClassification.from_pretrained(saved).eval()
    tokenizer: Any = AutoTokenizer.from_pretrained(saved)
    assert theirs.config.num_labels == heads
    assert tokenizer.pad_token_id == theirs.config.pad_token_id
    ours = RewardModel.open(spec.model_copy(update={"name": str(saved), "dtype": "float32"}))
    prompts = [(user("Hi."),), (user("Hi. " * 12), assistant("Yes?"), user("Why?"))]
    talks = [(*prompt, assistant(reply)) for prompt in prompts for reply in ("Yes.", "No, and " * 7 + "no.", "Yes. Or no.")]
    if architecture == "gpt2":  # a base model: its own text form, and the end of text as padding
        texts = [load_tokenizer(spec).prompt_text(talk[:-1]) + f" {talk[-1].content}" for talk in talks]
    else:
        texts = [tokenizer.apply_chat_template([dict(turn) for turn in talk], tokenize=False) for talk in talks]
    batch = tokenizer(texts, return_tensors="pt", padding=True, padding_side="right", add_special_tokens=False)
    with torch.no_grad():
        expected = theirs(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits.double().numpy()
    found = ours.head_rewards(talks)
    assert found.shape == (6, heads)
    assert np.abs(found - expected).max() < 2e-6
    assert np.ptp(expected, axis=0).min() > 1e-3, "all rewards are alike: the comparison would say little"
    assert ours.rewards([list(map(dict, talk)) for talk in talks]) == pytest.approx(expected.mean(1), abs=2e-6)


def test_the_padding_is_a_token_with_which_no_text_ends(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(spec_of(make_checkpoint(tmp_path, "mistral")))
    raw = tokenizer.tokenizer
    raw.pad_token = raw.eos_token  # as many checkpoints come; Mistral's template ends every answer with it
    assert padding(tokenizer).token == "<|endoftext|>" != raw.eos_token


def test_a_lower_bound_is_the_mean_less_so_many_standard_deviations(model: Path, tmp_path: Path) -> None:
    result = train_reward(spec_of(model), make_pairs(4), with_(heads=4), tmp_path)
    reward_model = RewardModel.open(spec_of(result.training.folder))
    talks = [(user("Hi."), assistant(reply)) for reply in ("a b", "c")]
    each = reward_model.head_rewards(talks)
    assert reward_model.rewards(talks, pessimism=2.0) == pytest.approx(each.mean(1) - 2 * each.std(1, ddof=1))


def test_gradients_do_not_depend_on_how_rows_are_laid_out(model: Path) -> None:
    """Trees, masks and padded rows of their own: the same rewards and the same gradients, to the last bits of float64."""
    course = reward_course(spec_of(model), make_chains(3), with_(lora=None, heads=2))
    rows = [row for row in course.rows if isinstance(row, PreferenceRow)]
    found: list[tuple[torch.Tensor, dict[str, torch.Tensor]]] = []
    for path in ("padded", "mask", "blocks"):
        from cai.training.policy import load_policy

        network = load_policy(course.model, course.settings).model.double()
        scorer = RewardScorer(network, path=path)
        batch = scorer.pack([row.group for row in rows], torch.device("cpu"))

        def loss_of(groups: slice, rewards_RK: torch.Tensor) -> torch.Tensor:
            return course.objective(rows[groups], rewards_RK, torch.ones(len(rewards_RK)), StepSize.of(rows))[0]

        with scorer.at_work():
            loss = scorer.loss(network, batch, loss_of)
            loss.backward()
        gradients = {name: weight.grad for name, weight in network.named_parameters() if weight.grad is not None}
        found.append((loss.detach(), gradients))
    for loss, gradients in found[1:]:
        assert loss.item() == pytest.approx(found[0][0].item(), abs=1e-9)
        for name, gradient in gradients.items():
            assert torch.allclose(gradient, found[0][1][name], atol=1e-8), name


def test_interrupted_and_resumed_training_ends_with_the_same_weights(model: Path, tmp_path: Path) -> None:
    settings = with_(heads=2, save_every_steps=2, epochs=2, holdout_share=0.3)
    straight = train_reward(spec_of(model), make_pairs(20), settings, tmp_path / "straight")

    def stop(event: TrainingEvent) -> None:
        if event.step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_reward(spec_of(model), make_pairs(20), settings, tmp_path / "cut", on_event=stop)
    resumed = train_reward(spec_of(model), make_pairs(20), settings, tmp_path / "cut")
    assert resumed.training.resumed_from_step == 4
    for name in ("model.safetensors", "metrics.jsonl", QUALITY):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "straight" / name).read_bytes(), name
    assert resumed.quality == straight.quality
    again = train_reward(spec_of(model), make_pairs(20), settings, tmp_path / "cut")
    assert again.training.seconds == resumed.training.seconds, "a finished training is not done again"
    (tmp_path / "cut" / QUALITY).unlink()  # killed between the last weights and the measuring
    assert train_reward(spec_of(model), make_pairs(20), settings, tmp_path / "cut").quality == straight.quality


def test_held_out_quality_is_of_the_pairs_that_were_held_out_and_of_no_others(model: Path, tmp_path: Path) -> None:
    """Pairs of one item share its name and prompt: those that were left out of the data were measured with it."""
    pairs = make_pairs(20)
    for pair in make_pairs(20):
        pairs += [
            pair.model_copy(update={"rejected": pair.chosen}),
            pair.model_copy(update={"chosen": "so long " * 60}),
        ]
    result = train_reward(spec_of(model), pairs, with_(holdout_share=0.4, max_length_tokens=160), tmp_path)
    assert {row.reason for row in result.training.dropped} == {"identical", "overlong"}
    assert result.quality is not None
    assert result.quality.pairs == result.training.held_out > 3
    assert result.quality.overall.accuracy == pytest.approx(result.training.held_out_metrics["eval/rewards/accuracies"])
    assert result.quality.overall.mean_margin == pytest.approx(
        result.training.held_out_metrics["eval/rewards/margins"], abs=1e-5
    )


def test_a_loss_that_is_no_number_stops_the_training_and_is_never_saved(model: Path, tmp_path: Path) -> None:
    settings = with_(lora=None, learning_rate=1.0, max_grad_norm=1e30, epochs=60, schedule="constant", warmup_share=0.0)
    broken = settings.model_copy(update={"learning_rate": 1e30})
    with pytest.raises(TrainingError, match=r"finite|the loss is"):
        train_reward(spec_of(model), make_pairs(8), broken, tmp_path)
    assert not (tmp_path / "model.safetensors").exists()
    assert not (tmp_path / "training.json").exists()


def test_another_reward_model_is_trained_further_with_its_own_head(model: Path, tmp_path: Path) -> None:
    first = train_reward(spec_of(model), make_pairs(8), REWARD, tmp_path / "first").training.folder
    course = reward_course(spec_of(first), make_pairs(8), with_(lora=None))
    from cai.training.policy import load_policy

    head: Any = load_policy(course.model, course.settings).model
    assert torch.equal(head.score.weight, load_file(first / "model.safetensors")["score.weight"])
    with pytest.raises(TrainingError, match="has 1 heads, not 2"):
        train_reward(spec_of(first), make_pairs(8), with_(heads=2), tmp_path / "second")


def test_what_is_no_reward_model_and_what_is_no_language_model_are_told_apart(model: Path, tmp_path: Path) -> None:
    saved = train_reward(spec_of(model), make_pairs(4), REWARD, tmp_path).training.folder
    with pytest.raises(ModelError, match="is no reward model"):
        RewardModel.open(spec_of(model))
    with pytest.raises(ModelError, match="writes no text"):
        open_model(spec_of(saved))
    with pytest.raises(ModelError, match="writes no text"):
        dpo_course(spec_of(saved), make_pairs(2), [], DPOSettings())


def test_rows_that_cannot_be_trained_on_are_counted_and_an_empty_rest_refused(model: Path) -> None:
    good, long, empty, same = make_pairs(4)
    rows = [
        good,
        long.model_copy(update={"chosen": "so long " * 400}),
        empty.model_copy(update={"rejected": " "}),
        same.model_copy(update={"rejected": same.chosen}),
    ]
    course = reward_course(spec_of(model), rows, with_(max_length_tokens=200))
    assert {row.uid: row.reason for row in course.dropped} == {
        "pair-1": "overlong", "pair-2": "empty_reply", "pair-3": "identical",
    }  # fmt: skip
    with pytest.raises(TrainingError, match="no pair to train on"):
        reward_course(spec_of(model), rows[1:], with_(max_length_tokens=200))
    with pytest.raises(ProblemList, match="max_length_tokens"):
        reward_course(spec_of(model), rows, with_(max_length_tokens=200, overlong="refuse"))
    with pytest.raises(ValidationError, match="saved whole"):
        with_(merge=False)


def test_conversations_without_a_reward_are_all_named(model: Path, tmp_path: Path) -> None:
    saved = train_reward(spec_of(model), make_pairs(4), REWARD, tmp_path).training.folder
    rewards = RewardModel.open(spec_of(saved))
    talks: list[Any] = [
        [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Hello."}],
        [{"role": "user", "content": "Hi."}],
        [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": " "}],
        [{"role": "user", "content": "Hi."}, {"role": "robot", "content": "Hello."}],
        [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Hello. " * 3000}],
    ]
    causes = [each.cause if isinstance(each, Refused) else "" for each in map(rewards.encode, talks)]
    assert causes == ["", "no_reply", "empty_reply", "no_conversation", "overlong"]
    with pytest.raises(CaiError, match=r"(?s)4 conversations.*conversation 1.*conversation 4"):
        rewards.rewards(talks)
    assert rewards.rewards([]).shape == (0,)


def test_a_dry_run_says_where_rewards_are_read(model: Path) -> None:
    found = dry_run(reward_course(spec_of(model), make_pairs(6), REWARD))
    assert (found.trained_rows, found.path) == (6, "blocks")
    for row in found.first_batch:
        learnt = [piece for piece in row.pieces if piece.learnt]
        assert [piece.tokens for piece in learnt] == [1, 1]  # the line break after the end of each reply's turn
        assert "".join(piece.text for piece in row.pieces).count("<|endoftext|>") == 0
    assert dry_run(reward_course(spec_of(model), make_pairs(6), REWARD), trial=True).tried


def test_it_learns_what_pairs_have_in_common(model: Path, tmp_path: Path) -> None:
    pairs = [
        PreferenceRecord(
            uid=f"p{at}", prompt=(user(f"Say {at}."),), chosen=f"Paris {at}.", rejected=f"cheese {at}.", p_chosen=0.8,
            chosen_source="sample", rejected_source="sample", margin_nats=1.0, method="letters",
            principle_ids=("a",) if at % 2 else ("b",),
        )
        for at in range(60)
    ]  # fmt: skip
    settings = with_(lora=None, learning_rate=5e-3, epochs=6, holdout_share=0.3)
    quality = train_reward(spec_of(model), pairs, settings, tmp_path).quality
    assert quality is not None
    assert quality.overall.accuracy == 1.0
    assert 0 < quality.overall.interval.low < 1.0
    assert quality.calibration.ece < 0.1, "a soft label of 0.8 teaches a margin of log 4, and no more"
    assert quality.temperature == pytest.approx(1.0, abs=0.4)
    assert {each.name: each.pairs for each in quality.by_principle}.keys() == {"a", "b"}
    assert sum(each.pairs for each in quality.by_length) == quality.pairs
