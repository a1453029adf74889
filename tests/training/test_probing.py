"""Which path each architecture is trained on, and that a probe finds leaks out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from token_groups import VOCABULARY, make_groups, make_model, one_at_a_time
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from cai.training.attention import Path, paths_for
from cai.training.logps import ReplyScorer
from cai.training.packing import TokenGroup
from cai.training.probing import choose_path

CPU = torch.device("cpu")
COMMON: dict[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 256, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
WINDOW = {"sliding_window": 20}
"""Shorter than the longest group below."""
MADE: dict[str, tuple[Path, dict[str, Any]]] = {
    "llama": ("blocks", {}),
    "qwen2": ("blocks", {}),
    "qwen3": ("blocks", {"head_dim": 8}),
    "mistral": ("blocks", WINDOW),
    "gemma2": ("mask", {"head_dim": 8, **WINDOW}),  # soft caps in attention: no flash
    "gemma3_text": ("blocks", {
        "head_dim": 8, "layer_types": ["sliding_attention", "full_attention"] * 2, "num_hidden_layers": 4, **WINDOW,
    }),
    "phi3": ("blocks", {"sliding_window": None}),
    "olmo2": ("blocks", {}),
    "olmo3": ("blocks", WINDOW),
    "gpt2": ("blocks", {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 256}),
    "gpt_neox": ("blocks", {}),
    "gpt_oss": ("mask", {"head_dim": 8, "num_local_experts": 4, "num_experts_per_tok": 2, **WINDOW}),  # sinks
    "qwen3_moe": ("blocks", {"head_dim": 8, **EXPERTS}),
    "mixtral": ("blocks", {"num_local_experts": 4, "sliding_window": None}),
    "deepseek_v3": ("blocks", {
        "num_key_value_heads": 4, "moe_intermediate_size": 16, "n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 2,
        "topk_group": 1, "kv_lora_rank": 8, "q_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4, "v_head_dim": 8,
        "first_k_dense_replace": 1,
    }),
    "granite": ("blocks", {"logits_scaling": 4.0}),
    "cohere": ("blocks", {"logit_scale": 0.25}),
    "falcon_h1": ("padded", {
        "mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_n_groups": 1,
    }),
    "qwen3_next": ("padded", {
        "head_dim": 8, **EXPERTS, "shared_expert_intermediate_size": 16, "linear_num_key_heads": 2, "linear_num_value_heads": 2,
        "linear_key_head_dim": 8, "linear_value_head_dim": 8,
        "layer_types": ["linear_attention", "linear_attention", "full_attention"],
    }),
    "bloom": ("padded", {"n_layer": 2, "n_head": 4}),  # counts places itself
    "mamba": ("padded", {"state_size": 4}),
}  # fmt: skip


def made(kind: str, **more: Any) -> Any:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(CONFIG_MAPPING[kind](**{**COMMON, **MADE[kind][1], **more})).eval()


def groups_with_a_long_chain() -> list[TokenGroup]:
    draw = torch.Generator().manual_seed(7)

    def ids(count: int) -> tuple[int, ...]:
        return tuple(torch.randint(3, VOCABULARY, (count,), generator=draw).tolist())

    text = ids(20)
    return [*make_groups(), TokenGroup(ids(40), (text, (*text[:10], *ids(12)), ids(7)))]


@pytest.mark.parametrize("kind", MADE)
def test_every_architecture_takes_a_path_on_which_it_is_right(kind: str) -> None:
    model, groups = made(kind), groups_with_a_long_chain()
    scorer = ReplyScorer(model)
    reason = choose_path(model, scorer, groups, CPU)
    assert scorer.path == MADE[kind][0]
    assert scorer.plain_head
    assert bool(reason) is (scorer.path == "padded")
    with torch.no_grad(), scorer.at_work():
        found = scorer.logps(model, scorer.pack(groups, CPU)).tolist()
    assert found == pytest.approx(one_at_a_time(model, groups), abs=2e-4)


@pytest.mark.parametrize(("kind", "told"), [("falcon_h1", "reach"), ("mamba", "cannot run"), ("bloom", "cannot run")])
def test_leaks_are_found_by_trying_and_not_by_names(kind: str, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """They take a mask of trees without complaint, and carry one reply's state into the next."""
    monkeypatch.setattr("cai.training.probing.paths_for", lambda _: ("mask",))
    model = made(kind, initializer_range=0.3)  # as large as trained weights: untrained ones hardly leak
    scorer = ReplyScorer(model)
    reason = choose_path(model, scorer, groups_with_a_long_chain(), CPU)
    assert scorer.path == "padded"
    assert told in reason


def test_a_head_that_does_more_than_it_says_is_run_as_it_is() -> None:
    model = make_model("llama")
    original = model.forward
    model.forward = lambda **inputs: _halved(original(**inputs))
    scorer = ReplyScorer(model)
    choose_path(model, scorer, make_groups(), CPU)
    assert not scorer.plain_head


def _halved(output: Any) -> Any:
    output.logits = output.logits * 0.5
    return output


@pytest.mark.parametrize("error", [torch.OutOfMemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_memory_that_runs_out_is_no_fault_of_the_model(error: RuntimeError, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU it is a plain RuntimeError, which was taken for a model that bears no trees: all of its training was padded."""
    import cai.training.probing as module

    def short_of_memory(*_arguments: Any) -> Any:
        if scorer.path != "padded":
            raise error
        return scores(*_arguments)

    scores = module._scores
    monkeypatch.setattr(module, "_scores", short_of_memory)
    model = make_model("llama")
    scorer = ReplyScorer(model)
    with pytest.raises(type(error)):
        choose_path(model, scorer, make_groups(), CPU)


def test_kernels_that_take_no_mask_of_trees_are_not_tried() -> None:
    model = make_model("llama")
    model.config._attn_implementation = "flash_attention_2"
    assert paths_for(model) == ()


def test_supervised_rows_are_packed_too() -> None:
    model = make_model("llama")
    scorer = ReplyScorer(model)
    assert choose_path(model, scorer, [TokenGroup((1,), ((2, 3),)), TokenGroup((1, 2), ((2, 3, 4),))], CPU) == ""
    assert scorer.path == "blocks"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["llama", "mistral", "gemma3_text", "gemma2"])
def test_block_masks_of_gpus_keep_sequences_apart_too(kind: str) -> None:
    """FlexAttention's forward pass, compiled, runs on CPUs: the masks are the same there. Its backward pass does not."""
    model, groups = made(kind), groups_with_a_long_chain()
    scorer = ReplyScorer(model, path="flex")
    batch = scorer.pack(groups, CPU)
    assert batch.tokens % 128 == 0
    with torch.no_grad(), scorer.at_work():
        found = scorer.logps(model, batch).tolist()
    assert found == pytest.approx(one_at_a_time(model, groups), abs=2e-4)
