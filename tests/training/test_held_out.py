"""Held-out rows: which they are, what is told of them, and when they end a training."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import nn
from training_runs import DPO, SFT, Interrupted, interrupted_at, make_pairs, make_replies, metrics_of, spec_of

from cai.errors import TrainingError
from cai.statistics import wilson_interval
from cai.training.divergence import head_divergences, logit_divergences
from cai.training.dpo import dpo_course, train_dpo
from cai.training.head import Head
from cai.training.held_out import HeldOut, is_held_out
from cai.training.logps import ReplyScorer
from cai.training.policy import load_policy
from cai.training.results import TrainingEvent
from cai.training.rows import PreferenceRow
from cai.training.settings import DPOSettings, SFTSettings
from cai.training.sft import sft_course, train_sft
from cai.training.stopping import Evaluation, rise, standing
from constitution.messages import assistant, user

HELD = DPO.model_copy(update={"holdout_share": 0.4, "epochs": 3})


def eval_lines(folder: Path) -> list[dict[str, float]]:
    return [line for line in metrics_of(folder) if "eval/loss" in line]


def test_about_the_share_asked_for_is_held_out_and_more_of_it_takes_none_back() -> None:
    prompts = [(1, number) for number in range(2000)]
    for share in (0.0, 0.1, 0.5):
        held = sum(is_held_out(prompt, share) for prompt in prompts)
        assert abs(held - share * 2000) <= 4 * math.sqrt(2000 * share * (1 - share))
    assert all(is_held_out(prompt, 0.5) for prompt in prompts if is_held_out(prompt, 0.1))


def test_no_prompt_is_on_both_sides_whatever_the_stage_or_the_order(llama: Path) -> None:
    pairs, replies = make_pairs(24), make_replies(24)
    replies = [reply.model_copy(update={"messages": pair.prompt}) for pair, reply in zip(pairs, replies, strict=True)]
    course = dpo_course(spec_of(llama), pairs, replies[::-1], HELD)
    supervised = sft_course(spec_of(llama), replies, SFT.model_copy(update={"holdout_share": 0.4}))
    trained = {row.group.prompt_ids for row in (*course.rows, *course.anchors)}
    held_out = {row.group.prompt_ids for row in course.held_out}
    assert trained
    assert held_out
    assert not trained & held_out
    assert {row.group.prompt_ids for row in supervised.held_out} == held_out
    assert {row.group.prompt_ids for row in supervised.rows} == trained


def test_a_conversation_is_on_the_side_of_its_first_turn_in_every_stage(llama: Path) -> None:
    """Whole conversations were told apart by their first turn where all turns are learned, else by all that came before the
    reply: what one stage held out, another learned.
    """
    firsts = make_pairs(24)
    longer = [
        first.model_copy(update={"prompt": (*first.prompt, assistant("Wait."), user(f"Well, {turn}?")), "uid": f"{turn}-{at}"})
        for at, first in enumerate(firsts)
        for turn in range(2)
    ]
    replies = [
        reply.model_copy(update={"messages": pair.prompt, "uid": pair.uid})
        for pair, reply in zip((*firsts, *longer), make_replies(72), strict=True)
    ]
    course = dpo_course(spec_of(llama), [*firsts, *longer], [], HELD)
    supervised = SFT.model_copy(update={"holdout_share": 0.4})
    every = supervised.model_copy(update={"turns": "all"})
    held_out = {pair.uid for row in course.held_out if isinstance(row, PreferenceRow) for pair in row.pairs}
    assert 0 < len(held_out) < 72
    assert all((f"pair-{at}" in held_out) == (f"0-{at}" in held_out) == (f"1-{at}" in held_out) for at in range(24))
    for settings in (supervised, every):
        assert {row.uid for row in sft_course(spec_of(llama), replies, settings).held_out} == held_out


def test_a_side_without_a_row_is_refused(llama: Path) -> None:
    with pytest.raises(TrainingError, match="none is held out"):
        dpo_course(spec_of(llama), make_pairs(1), [], HELD.model_copy(update={"holdout_share": 1e-6}))


@pytest.mark.parametrize("settings", [DPOSettings, SFTSettings])
def test_patience_without_held_out_rows_is_refused(settings: Any) -> None:
    with pytest.raises(ValueError, match="set holdout_share"):
        settings(patience=2)


def test_all_that_is_told_is_what_naive_code_makes_of_the_saved_model(llama: Path, tmp_path: Path) -> None:
    """Loss, accuracy, log-probabilities and the divergence, from plain logits of the merged model and of the base."""
    from transformers import AutoModelForCausalLM

    pairs, anchors = make_pairs(24), make_replies(8)
    result = train_dpo(spec_of(llama), pairs, anchors, HELD, tmp_path / "out")
    course = dpo_course(spec_of(llama), pairs, anchors, HELD)
    told = result.held_out_metrics
    assert [line["step"] for line in eval_lines(result.folder)] == [result.steps // 3 * epoch for epoch in (1, 2, 3)]
    assert result.trained_rows + result.anchors + result.held_out == 24 + 8
    policy = AutoModelForCausalLM.from_pretrained(result.folder, dtype=torch.float32)
    base = AutoModelForCausalLM.from_pretrained(llama, dtype=torch.float32)

    def both(row: Any, reply: int) -> tuple[float, float, float, int]:
        prompt, ids = row.group.prompt_ids, row.group.replies[reply]
        with torch.no_grad():
            logps = [
                model(torch.tensor([[*prompt, *ids]])).logits[0, len(prompt) - 1 : -1].double().log_softmax(-1)
                for model in (policy, base)
            ]
        at = torch.tensor(ids)[:, None]
        divergence = (logps[0].exp() * (logps[0] - logps[1])).sum()
        return float(logps[0].gather(1, at).sum()), float(logps[1].gather(1, at).sum()), float(divergence), len(ids)

    losses, wins, divergence, tokens, nll_anchors = [], [], 0.0, 0, []
    for row in course.held_out:
        scored = [both(row, reply) for reply in range(len(row.group.replies))]
        divergence += sum(each[2] for each in scored)
        tokens += sum(each[3] for each in scored)
        if not isinstance(row, PreferenceRow):
            nll_anchors.append(-scored[0][0] / scored[0][3])
            continue
        for pair in row.pairs:
            chosen, rejected = scored[pair.chosen], scored[pair.rejected]
            margin = torch.tensor(0.1 * (chosen[0] - chosen[1] - rejected[0] + rejected[1]))
            sigmoid = nn.functional.logsigmoid
            losses.append(
                float(-pair.p_chosen * sigmoid(margin) - (1 - pair.p_chosen) * sigmoid(-margin)) - 0.1 * chosen[0] / chosen[3]
            )
            wins.append(float(margin > 0))
    loss = sum(losses) / len(losses) + 0.1 * sum(nll_anchors) / len(nll_anchors)
    assert told["eval/loss"] == pytest.approx(loss, rel=1e-4)
    assert told["eval/rewards/accuracies"] == sum(wins) / len(wins)
    interval = wilson_interval(sum(wins), len(wins))
    assert (told["eval/rewards/accuracies/low"], told["eval/rewards/accuracies/high"]) == (interval.low, interval.high)
    assert told["eval/kl"] == pytest.approx(divergence / tokens, rel=2e-3)
    assert told["eval/kl/low"] <= told["eval/kl"] <= told["eval/kl/high"]
    assert told["eval/rewards/margins/low"] <= told["eval/rewards/margins"] <= told["eval/rewards/margins/high"]
    assert any("rows were held out" in warning for warning in result.warnings)


def test_without_an_adapter_there_is_no_reference_to_diverge_from(llama: Path, tmp_path: Path) -> None:
    result = train_dpo(
        spec_of(llama), make_pairs(12), [], HELD.model_copy(update={"lora": None, "epochs": 1}), tmp_path / "out"
    )
    assert "eval/loss" in result.held_out_metrics
    assert "eval/kl" not in result.held_out_metrics


def test_supervised_training_is_evaluated_a_token(llama: Path, tmp_path: Path) -> None:
    settings = SFT.model_copy(update={"holdout_share": 0.4, "eval_every_steps": 2})
    result = train_sft(spec_of(llama), make_replies(16), settings, tmp_path / "out")
    assert result.held_out_metrics["eval/loss"] == pytest.approx(result.held_out_metrics["eval/nll/replies"], rel=1e-12)
    steps = [line["step"] for line in eval_lines(result.folder)]
    assert steps == sorted({*range(2, result.steps + 1, 2), result.steps})


def test_evaluating_does_not_change_what_is_trained(llama: Path, tmp_path: Path) -> None:
    seldom = train_dpo(spec_of(llama), make_pairs(16), [], HELD, tmp_path / "seldom")
    often = train_dpo(spec_of(llama), make_pairs(16), [], HELD.model_copy(update={"eval_every_steps": 1}), tmp_path / "often")
    assert (seldom.folder / "model.safetensors").read_bytes() == (often.folder / "model.safetensors").read_bytes()


OVERDONE = HELD.model_copy(
    update={"epochs": 12, "learning_rate": 2e-2, "eval_every_steps": 2, "patience": 2, "schedule": "constant"}
)
"""Few pairs, large steps: they are learnt by heart, and the held-out loss soon rises."""


@pytest.mark.parametrize("adapted", [True, False])
def test_training_stops_when_the_held_out_loss_rises_and_keeps_the_weights_of_the_lowest(
    adapted: bool, llama: Path, tmp_path: Path
) -> None:
    settings = OVERDONE if adapted else OVERDONE.model_copy(update={"lora": None, "learning_rate": 5e-3, "merge": True})
    name = "adapter_model.safetensors" if adapted else "model.safetensors"
    kept: dict[int, Path] = {}

    def keep_checkpoints(_event: TrainingEvent) -> None:
        for file in (tmp_path / "out" / "checkpoints").glob(f"checkpoint-*/{name}"):
            step = int(file.parent.name.rpartition("-")[2])
            if step not in kept and (file.parent / "complete").exists():
                kept[step] = Path(shutil.copy(file, tmp_path / f"{step}.safetensors"))

    result = train_dpo(spec_of(llama), make_pairs(12), [], settings, tmp_path / "out", on_event=keep_checkpoints)
    losses = {int(line["step"]): line["eval/loss"] for line in eval_lines(result.folder)}
    assert result.kept_step == min(losses, key=lambda step: losses[step])
    assert result.steps == result.kept_step + 4 < result.planned_steps
    assert result.held_out_metrics["eval/loss"] == min(losses.values())
    assert "whose weights were kept" in result.ending
    found = load_file((result.adapter or result.folder) / name)
    wanted = load_file(kept[result.kept_step])
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[key], wanted[key]) for key in found)


def test_a_run_killed_after_it_had_stopped_trains_no_further(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import cai.training.course as module

    straight = train_dpo(spec_of(llama), make_pairs(12), [], OVERDONE, tmp_path / "straight")
    with monkeypatch.context() as patch:

        def full_disk(*_arguments: Any, **_options: Any) -> None:
            raise OSError(28, "No space left on device")

        patch.setattr(module, "save_policy", full_disk)
        with pytest.raises(TrainingError, match="No space left"):
            train_dpo(spec_of(llama), make_pairs(12), [], OVERDONE, tmp_path / "killed")
    resumed = train_dpo(spec_of(llama), make_pairs(12), [], OVERDONE, tmp_path / "killed")
    assert resumed.resumed_from_step == resumed.steps == straight.steps
    assert resumed.kept_step == straight.kept_step
    for name in ("model.safetensors", "metrics.jsonl"):
        assert (resumed.folder / name).read_bytes() == (straight.folder / name).read_bytes()


@pytest.mark.parametrize("after", [5, 11])
def test_a_run_interrupted_before_it_stops_ends_as_if_it_had_not_been(after: int, llama: Path, tmp_path: Path) -> None:
    settings = OVERDONE.model_copy(update={"save_every_steps": 1})
    straight = train_dpo(spec_of(llama), make_pairs(12), [], settings, tmp_path / "straight")

    with pytest.raises(Interrupted):
        train_dpo(spec_of(llama), make_pairs(12), [], settings, tmp_path / "killed", on_event=interrupted_at("train", after))
    resumed = train_dpo(spec_of(llama), make_pairs(12), [], settings, tmp_path / "killed")
    assert 0 < resumed.resumed_from_step < after < straight.steps
    assert (resumed.steps, resumed.kept_step) == (straight.steps, straight.kept_step)
    for name in ("model.safetensors", "metrics.jsonl"):
        assert (resumed.folder / name).read_bytes() == (straight.folder / name).read_bytes()


@pytest.mark.parametrize(
    ("losses", "best", "since"),
    [([3.0], 0, 0), ([3.0, 2.0, 2.0, 2.5], 1, 2), ([1.0, math.inf, 0.5], 2, 0), ([math.inf, math.inf], 0, 1)],
)
def test_the_first_of_the_lowest_is_the_best(losses: list[float], best: int, since: int) -> None:
    found = standing([Evaluation(10 * at, loss) for at, loss in enumerate(losses)])
    assert found is not None
    assert (found.best.step, found.since) == (10 * best, since)
    assert found.stops(max(since, 1)) == (since >= 1)
    assert not found.stops(None)


@pytest.mark.parametrize(
    ("losses", "kept", "told"),
    [([3.0, 2.0, 2.01], 20, None), ([3.0, 2.0, 2.5], 20, 10), ([3.0, 2.0, 2.5], 10, None), ([], 0, None)],
)
def test_only_a_clear_rise_is_told(losses: list[float], kept: int, told: int | None) -> None:
    found = rise([Evaluation(10 * at, loss) for at, loss in enumerate(losses)], kept)
    assert (None if found is None else found.step) == told


def test_weights_past_the_best_are_kept_with_a_warning_where_nobody_asked_to_stop(llama: Path, tmp_path: Path) -> None:
    result = train_dpo(spec_of(llama), make_pairs(12), [], OVERDONE.model_copy(update={"patience": None}), tmp_path / "out")
    assert result.kept_step == result.steps == result.planned_steps
    assert any("has risen since" in warning for warning in result.warnings)


def test_processes_evaluate_their_shares_of_what_one_evaluates(llama: Path) -> None:
    course = dpo_course(
        spec_of(llama),
        make_pairs(20),
        make_replies(5),
        HELD.model_copy(update={"loss": "simpo", "beta": 2.0, "target_margin": 1.0}),
    )
    policy = load_policy(course.model, DPO)
    scorer = ReplyScorer(policy.model, policy.compute_dtype)
    held_out = HeldOut(course.rows, scorer, course.objective, 128, policy.as_reference)
    alone = held_out.evaluate(policy.model, torch.device("cpu"))
    told: dict[int, list[Any]] = {}
    for rank in (1, 0):

        def gather(own: list[Any], rank: int = rank) -> list[Any]:
            told[rank] = own
            return [each for other in sorted(told) for each in told[other]]

        found = held_out.evaluate(policy.model, torch.device("cpu"), rank=rank, world=2, gather=gather)
    assert found == alone
    assert min(map(len, told.values())) > 0


def test_nothing_stands_before_the_first_evaluation() -> None:
    assert standing([]) is None


@given(st.integers(1, 40), st.integers(2, 30), st.integers(1, 9), st.sampled_from([None, 5.0]), st.integers(0, 999))
def test_divergences_are_those_of_whole_distributions(
    slots: int, vocabulary: int, tile: int, cap: float | None, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight, hidden, reference = (
        torch.randn(rows, 6, generator=generator, dtype=torch.float64) for rows in (vocabulary, slots, slots)
    )
    head = Head(weight, None, 0.7, cap)

    def logits(of: torch.Tensor) -> torch.Tensor:
        plain = 0.7 * of @ weight.t()
        return plain if cap is None else cap * torch.tanh(plain / cap)

    policy_logps, reference_logps = logits(hidden).log_softmax(-1), logits(reference).log_softmax(-1)
    expected = nn.functional.kl_div(reference_logps, policy_logps, reduction="none", log_target=True).sum(-1)
    torch.testing.assert_close(head_divergences(head, hidden, reference, slots=tile), expected, rtol=1e-9, atol=1e-12)
    found = logit_divergences(logits(hidden), logits(reference), slots=tile)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    assert (found > -1e-12).all()


@pytest.mark.parametrize("plain_head", [True, False])
def test_a_new_adapter_diverges_by_exactly_nothing(plain_head: bool, llama: Path) -> None:
    course = dpo_course(spec_of(llama), make_pairs(3), [], DPO)
    policy = load_policy(course.model, DPO)
    scorer = ReplyScorer(policy.model, policy.compute_dtype, plain_head=plain_head)
    policy.model.eval()
    batch = scorer.pack([row.group for row in course.rows], torch.device("cpu"))
    logps, divergences = scorer.logps_and_divergences(policy.model, batch, policy.as_reference)
    assert divergences.abs().max() == 0
    with torch.no_grad():
        torch.testing.assert_close(logps, scorer.logps(policy.model, batch))
