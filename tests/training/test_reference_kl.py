"""KL(policy ‖ reference) of every preference training: exact at a seeded sample of the replies' positions."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from training_runs import DPO, Interrupted, interrupted_at, make_chains, make_pairs, make_replies, metrics_of, spec_of

from cai.training.dpo import dpo_course, train_dpo
from cai.training.kl_sample import DRAWN_REPLIES, SampledReply, sample_replies
from cai.training.logps import ReplyScorer
from cai.training.packing import TokenGroup
from cai.training.policy import load_policy
from cai.training.reference_kl import KEPT_BYTES, KL, ReferenceKL, positions_a_reply
from cai.training.results import Phase

SIMPO = {"loss": "simpo", "beta": 2.0, "target_margin": 0.5}
STRONG = DPO.model_copy(update={"epochs": 2, "learning_rate": 5e-3})


def told(folder: Path) -> dict[int, float]:
    return {int(line["step"]): line[KL] for line in metrics_of(folder) if KL in line}


def naive_kl(policy: Path, reference: Path, sample: tuple[SampledReply, ...]) -> float:
    """Each reply alone, whole distributions in float64, sums in Python."""
    from transformers import AutoModelForCausalLM

    models = [AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64) for folder in (policy, reference)]
    total = 0.0
    for each in sample:
        prompt, (reply,) = each.group.prompt_ids, each.group.replies
        read = [place for span in (each.group.unscored or ((),))[0] for place in range(*span)]
        scored = [place for place in range(len(reply)) if place not in read]
        with torch.no_grad():
            logps = [model(torch.tensor([[*prompt, *reply]])).logits[0].log_softmax(-1) for model in models]
        of_places = [
            sum(float(p.exp() * (p - q)) for p, q in zip(logps[0][at], logps[1][at], strict=True))
            for at in (len(prompt) + place - 1 for place in scored)
        ]
        total += each.weight * sum(of_places) / len(of_places)
    return total


@pytest.mark.parametrize(
    "changes",
    [{}, {"lora": None}, {"lora": None, "holdout_share": 0.3}, {"lora": None, **SIMPO}],
    ids=["lora", "full", "full-held-out", "full-without-reference"],
)
def test_the_last_line_tells_what_naive_code_makes_of_the_saved_model(
    changes: dict[str, Any], llama: Path, tmp_path: Path
) -> None:
    settings = STRONG.model_copy(update=changes)
    result = train_dpo(spec_of(llama), make_pairs(10), make_replies(2), settings, tmp_path / "out")
    course = dpo_course(spec_of(llama), make_pairs(10), make_replies(2), settings)
    sample = sample_replies([row.group for row in course.rows], seed=settings.seed)
    expected = naive_kl(result.folder, llama, sample)
    assert expected > 1e-3
    assert result.last_metrics[KL] == pytest.approx(expected, rel=2e-4)
    assert [*told(result.folder)] == ([result.steps // 2, result.steps] if settings.holdout_share else [result.steps])


def test_all_positions_of_a_few_short_replies_are_the_mean_over_their_tokens(llama: Path) -> None:
    """Where everything is drawn, the weighted mean is that of all tokens."""
    groups = [TokenGroup((1, 2, 3), tuple((5 + reply, *range(20, 29)) for reply in range(8))) for _ in range(2)]
    groups[1] = TokenGroup((4, 2), groups[1].replies)
    sample = sample_replies(groups, seed=3)
    assert [each.group.scored_tokens for each in sample] == [10] * 16
    assert {each.weight for each in sample} == {1 / 16}


@pytest.mark.parametrize(
    ("phase", "lora"), [("train", DPO.lora), ("train", None), ("reference", None)], ids=["lora", "full", "full-at-opening"]
)
def test_killed_and_resumed_tells_what_a_straight_run_tells(lora: Any, phase: Phase, llama: Path, tmp_path: Path) -> None:
    settings = STRONG.model_copy(update={"lora": lora, "save_every_steps": 1, "tokens_per_forward": 150})
    straight = train_dpo(spec_of(llama), make_pairs(9), [], settings, tmp_path / "straight")
    with pytest.raises(Interrupted):
        train_dpo(spec_of(llama), make_pairs(9), [], settings, tmp_path / "killed", on_event=interrupted_at(phase, 3))
    resumed = train_dpo(spec_of(llama), make_pairs(9), [], settings, tmp_path / "killed")
    assert (resumed.resumed_from_step > 0) == (phase == "train")
    for name in ("metrics.jsonl", "model.safetensors", *kept_names(straight.folder)):
        assert (resumed.folder / name).read_bytes() == (straight.folder / name).read_bytes()
    assert resumed.warnings == straight.warnings


def kept_names(folder: Path) -> list[str]:
    (kept,) = (folder / "reference").glob("kl-*.safetensors")
    return [str(kept.relative_to(folder))]


@pytest.mark.parametrize("lora", [DPO.lora, None], ids=["lora", "full"])
def test_a_moved_policy_is_never_compared_with_itself(lora: Any, llama: Path, tmp_path: Path) -> None:
    """The file is lost in mid-training: with an adapter it is made anew, else nothing is told and the result says why."""
    settings = STRONG.model_copy(update={"lora": lora, "save_every_steps": 1})
    straight = train_dpo(spec_of(llama), make_pairs(9), [], settings, tmp_path / "straight")
    with pytest.raises(Interrupted):
        train_dpo(spec_of(llama), make_pairs(9), [], settings, tmp_path / "killed", on_event=interrupted_at("train", 3))
    (tmp_path / "killed" / kept_names(tmp_path / "killed")[0]).write_bytes(b"torn")
    resumed = train_dpo(spec_of(llama), make_pairs(9), [], settings, tmp_path / "killed")
    assert resumed.resumed_from_step > 0
    assert told(resumed.folder) == (told(straight.folder) if lora else {})
    assert any("kl/data is not told" in warning for warning in resumed.warnings) == (lora is None)


def test_measuring_changes_nothing_that_is_learnt(llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import cai.training.reference_kl as module

    seldom = train_dpo(spec_of(llama), make_pairs(9), [], STRONG, tmp_path / "seldom")
    monkeypatch.setattr(module, "COST_SHARE", 1e9)
    often = train_dpo(spec_of(llama), make_pairs(9), [], STRONG, tmp_path / "often")
    assert [*told(often.folder)] == list(range(1, often.steps + 1))
    assert told(often.folder)[often.steps] == told(seldom.folder)[seldom.steps]
    assert (often.folder / "model.safetensors").read_bytes() == (seldom.folder / "model.safetensors").read_bytes()


@pytest.mark.parametrize("path", ["blocks", "mask", "padded"])
@pytest.mark.parametrize("lora", [DPO.lora, None], ids=["lora", "full"])
def test_processes_measure_their_shares_of_what_one_measures(
    path: Any, lora: Any, llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On every path; and before training it is exactly 0."""
    import cai.training.reference_kl as module

    settings = DPO.model_copy(update={"lora": lora})
    course = dpo_course(spec_of(llama), make_chains(4), [], settings)
    policy = load_policy(course.model, settings)
    scorer = ReplyScorer(policy.model, policy.compute_dtype, path=path)
    sample = sample_replies([row.group for row in course.rows], seed=1)
    kl = ReferenceKL(sample, scorer, tokens_per_forward=100, device=torch.device("cpu"))
    kl.refer_to(kl.logits(policy.model.eval()))
    assert kl.measure(policy.model) == 0.0
    with torch.no_grad():
        for weight in policy.model.parameters():
            weight.add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(weight.numel())), alpha=0.02)
    alone = kl.measure(policy.model)
    assert alone > 1e-3
    shares: dict[int, list[Any]] = {}
    monkeypatch.setattr(module.processes, "world", lambda: 2)
    for rank in (1, 0):

        def gather(own: list[Any], rank: int = rank) -> list[Any]:
            shares[rank] = own
            return [each for other in sorted(shares) for each in shares[other]]

        monkeypatch.setattr(module.processes, "rank", lambda rank=rank: rank)
        monkeypatch.setattr(module.processes, "gather", gather)
        found = kl.measure(policy.model)
    assert found == alone
    assert min(map(len, shares.values())) > 0


lengths = st.lists(st.lists(st.integers(1, 60), min_size=1, max_size=4), min_size=1, max_size=12)


def groups_of(shape: list[list[int]]) -> list[TokenGroup]:
    """Every token is another one, so that each tells where it stood."""
    found: list[TokenGroup] = []
    token = 1
    for of_group in shape:
        replies = []
        for length in of_group:
            replies.append(tuple(range(token, token + length)))
            token += length
        found.append(TokenGroup((0,), tuple(replies)))
    return found


def drawn_tokens(each: SampledReply) -> list[int]:
    (reply,) = each.group.replies
    return [reply[place] for place in each.group.scored(0, len(reply))]


@given(lengths, st.integers(0, 99), st.integers(1, 16))
def test_a_sample_is_bounded_and_of_the_replies_alone(shape: list[list[int]], seed: int, most: int) -> None:
    groups = groups_of(shape)
    sample = sample_replies(groups, seed=seed, positions_a_reply=most)
    assert sample == sample_replies(groups, seed=seed, positions_a_reply=most)
    assert sum(each.weight for each in sample) == pytest.approx(1)
    assert 1 <= sum(each.group.scored_tokens for each in sample) <= DRAWN_REPLIES * most
    tokens = [token for each in sample for token in drawn_tokens(each)]
    assert len(set(tokens)) == len(tokens)
    whole = {reply for group in groups for reply in group.replies}
    for each in sample:
        (reply,) = each.group.replies
        assert any(of_data[: len(reply)] == reply for of_data in whole)


def test_the_mean_over_samples_is_the_mean_over_all_tokens() -> None:
    groups = groups_of([[3, 40], [1, 7, 90], [12], [300, 2]] * 3)
    tokens = [token for group in groups for reply in group.replies for token in reply]
    figure = {token: math.sin(token / 9) + (token % 7 == 0) + token / 300 for token in tokens}
    estimates = [
        sum(each.weight * sum(map(figure.__getitem__, drawn_tokens(each))) / each.group.scored_tokens for each in sample)
        for sample in (sample_replies(groups, seed=seed, positions_a_reply=4) for seed in range(800))
    ]
    mean = sum(estimates) / len(estimates)
    error = (sum((each - mean) ** 2 for each in estimates) / len(estimates) / (len(estimates) - 1)) ** 0.5
    assert abs(mean - sum(figure.values()) / len(figure)) < 4 * error
    assert error < 0.02


@pytest.mark.parametrize("vocabulary", [300, 32_000, 128_256, 262_144, 10**7])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_kept_is_bounded_whatever_the_vocabulary(vocabulary: int, dtype: torch.dtype) -> None:
    positions = positions_a_reply(vocabulary, dtype)
    assert 1 <= positions <= 16
    assert positions == 1 or positions * DRAWN_REPLIES * vocabulary * dtype.itemsize <= KEPT_BYTES


def test_measurements_take_their_share_of_the_arithmetic_and_no_more(llama: Path) -> None:
    course = dpo_course(spec_of(llama), make_pairs(40), [], DPO)
    policy = load_policy(course.model, DPO)
    sample = sample_replies([row.group for row in course.rows], seed=0)
    kl = ReferenceKL(sample, ReplyScorer(policy.model), tokens_per_forward=2048, device=torch.device("cpu"))
    for logging_steps in (1, 7):
        steps = kl.steps_between(200.0, logging_steps)
        assert steps % logging_steps == 0
        assert kl.tokens <= 0.02 * steps * 2 * 200 < kl.tokens + 0.02 * logging_steps * 2 * 200
