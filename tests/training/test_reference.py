"""Log-probabilities under the reference: of the model before training, or of none."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from training_runs import DPO, Interrupted, interrupted_at, make_chains, make_pairs, spec_of

from cai.errors import TrainingError
from cai.training.dpo import dpo_course, train_dpo
from cai.training.parts import parts_of
from cai.training.settings import DPOSettings

EVERY_STEP = DPO.model_copy(update={"save_every_steps": 1, "tokens_per_forward": 200})
CHAIN_IN_PARTS = 50
"""Tokens of a pass that no chain of `make_chains` fits in."""


def stop_after_two_steps(model: Path, folder: Path, settings: DPOSettings) -> None:
    with pytest.raises(Interrupted):
        train_dpo(spec_of(model), make_pairs(12), [], settings, folder, on_event=interrupted_at("train", 2))
    shutil.rmtree(folder / "reference")


def test_what_a_moved_policy_says_is_never_taken_for_the_reference(llama: Path, tmp_path: Path) -> None:
    """All weights were trained and the cache is lost: the model before training is no longer in memory."""
    full = EVERY_STEP.model_copy(update={"lora": None})
    stop_after_two_steps(llama, tmp_path / "out", full)
    with pytest.raises(TrainingError, match="missing, and the policy has moved") as caught:
        train_dpo(spec_of(llama), make_pairs(12), [], full, tmp_path / "out")
    assert "resume=False" in caught.value.hint
    anew = train_dpo(spec_of(llama), make_pairs(12), [], full, tmp_path / "out", resume=False)
    assert anew.resumed_from_step == 0
    assert anew.first_metrics["rewards/margins"] == pytest.approx(0.0, abs=1e-6)


def test_a_trained_adapter_is_switched_off_to_compute_a_lost_reference(llama: Path, tmp_path: Path) -> None:
    straight = train_dpo(spec_of(llama), make_pairs(12), [], EVERY_STEP, tmp_path / "straight")
    stop_after_two_steps(llama, tmp_path / "out", EVERY_STEP)
    resumed = train_dpo(spec_of(llama), make_pairs(12), [], EVERY_STEP, tmp_path / "out")
    assert resumed.resumed_from_step == 1
    assert resumed.reference_computed == straight.reference_computed == 24
    found, wanted = (load_file(result.folder / "model.safetensors") for result in (resumed, straight))
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_an_interrupted_pass_goes_on_to_the_same_numbers(llama: Path, tmp_path: Path) -> None:
    straight = train_dpo(spec_of(llama), make_pairs(12), [], EVERY_STEP, tmp_path / "straight")
    with pytest.raises(Interrupted):
        train_dpo(spec_of(llama), make_pairs(12), [], EVERY_STEP, tmp_path / "out", on_event=interrupted_at("reference", 2))
    (torn,) = (tmp_path / "out" / "reference").glob("*.jsonl")
    with torn.open("a") as file:
        file.write('["half a li')
    resumed = train_dpo(spec_of(llama), make_pairs(12), [], EVERY_STEP, tmp_path / "out")
    assert 0 < resumed.reference_computed < straight.reference_computed
    (whole,) = (tmp_path / "straight" / "reference").glob("*.jsonl")
    assert torn.read_text() == whole.read_text()


def test_replies_are_found_again_however_they_are_grouped(llama: Path, tmp_path: Path) -> None:
    """A chain in one pass, cut into parts of a few pairs, or with fewer pairs to a step: the same replies."""
    settings = DPO.model_copy(update={"batch_pairs": 6, "reference_cache": str(tmp_path / "cache")})
    whole = train_dpo(spec_of(llama), make_chains(2), [], settings, tmp_path / "whole")
    assert whole.reference_computed == 8, "four replies to each of two prompts"
    parts = settings.model_copy(update={"tokens_per_forward": CHAIN_IN_PARTS})
    cut = train_dpo(spec_of(llama), make_chains(2), [], parts, tmp_path / "cut")
    assert cut.fingerprint == whole.fingerprint
    assert cut.reference_computed == 0
    for name in ("loss", "rewards/margins", "grad_norm"):
        assert cut.last_metrics[name] == pytest.approx(whole.last_metrics[name], rel=2e-3, abs=2e-5)
    fewer = settings.model_copy(update={"batch_pairs": 2})
    assert train_dpo(spec_of(llama), make_chains(2), [], fewer, tmp_path / "fewer").reference_computed == 0


def test_references_do_not_depend_on_what_else_was_ever_trained_on(llama: Path, tmp_path: Path) -> None:
    """Last bits differ with what else is in a pass: results of other rows must not be taken."""
    settings = DPO.model_copy(update={"reference_cache": str(tmp_path / "cache")})
    train_dpo(spec_of(llama), make_pairs(6), [], settings, tmp_path / "other")
    after = train_dpo(spec_of(llama), make_pairs(8), [], settings, tmp_path / "after")
    alone = train_dpo(spec_of(llama), make_pairs(8), [], DPO, tmp_path / "alone")
    assert after.reference_computed == alone.reference_computed == 16
    (fresh,) = (tmp_path / "alone" / "reference").glob("*.jsonl")
    assert (tmp_path / "cache" / fresh.name).read_bytes() == fresh.read_bytes()


def test_parts_of_a_chain_have_their_reference_computed(llama: Path, tmp_path: Path) -> None:
    settings = DPO.model_copy(update={"batch_pairs": 6, "tokens_per_forward": CHAIN_IN_PARTS})
    for row in dpo_course(spec_of(llama), make_chains(2), [], settings).rows:
        assert len(parts_of([row], "tree", CHAIN_IN_PARTS)) > 1
    result = train_dpo(spec_of(llama), make_chains(2), [], settings, tmp_path / "out")
    (cache,) = (tmp_path / "out" / "reference").glob("*.jsonl")
    assert len(cache.read_text().splitlines()) == result.reference_computed == 8
    assert result.first_metrics["rewards/margins"] == pytest.approx(0.0, abs=1e-5)


def test_a_loss_without_a_reference_makes_no_pass_for_one(llama: Path, tmp_path: Path) -> None:
    phases: list[str] = []
    settings = DPO.model_copy(update={"loss": "simpo", "beta": 2.0, "target_margin": 0.5})
    result = train_dpo(
        spec_of(llama), make_pairs(8), [], settings, tmp_path / "out", on_event=lambda event: phases.append(event.phase)
    )
    assert result.reference_computed == 0
    assert set(phases) == {"train"}
    assert not [*(tmp_path / "out" / "reference").glob("reference-*")]


def test_the_reference_is_a_line_for_each_reply(llama: Path, tmp_path: Path) -> None:
    train_dpo(spec_of(llama), make_pairs(3), [], DPO, tmp_path / "out")
    (cache,) = (tmp_path / "out" / "reference").glob("*.jsonl")
    assert all(isinstance(logp, float) and logp < 0 for _, logp in map(json.loads, cache.read_text().splitlines()))
