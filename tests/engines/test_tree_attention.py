"""Attention block by block along trees gives what a plain softmax over each token's own path gives; or is not used."""

from __future__ import annotations

import math
from typing import Any, cast
from unittest.mock import patch

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    FalconConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GPTNeoConfig,
    GptOssConfig,
    LlamaConfig,
    MptConfig,
)

from cai.engines import tree_attention
from cai.engines.forward import Forward
from cai.engines.limits import BatchLimits
from cai.engines.prefixes import Forest, TokenTree
from cai.engines.scoring import ScoredSequences, ScoredTokens, score_sequences
from cai.engines.tree_attention import TreeAttention
from cai.errors import EngineError

SEQUENCES = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=12), min_size=1, max_size=8)
TREES = st.lists(SEQUENCES, min_size=1, max_size=3)


def built(sequences: list[list[int]]) -> tuple[TokenTree, list[list[int]]]:
    tree = TokenTree()
    return tree, [tree.add(sequence) for sequence in sorted(sequences)]


def by_softmax(query_HD: Tensor, key_GKD: Tensor, value_GKD: Tensor) -> Tensor:
    """One query over its keys, in float64."""
    groups = query_HD.shape[0] // key_GKD.shape[0]
    key, value = (each.double().repeat_interleave(groups, 0) for each in (key_GKD, value_GKD))
    weights = (torch.einsum("hd,hkd->hk", query_HD.double(), key) / math.sqrt(query_HD.shape[1])).softmax(-1)
    return torch.einsum("hk,hkd->hd", weights, value)


@settings(deadline=None, max_examples=60)
@given(
    TREES,
    st.one_of(st.none(), st.integers(1, 6)),
    st.sampled_from([0, 3, 96]),
    st.sampled_from([1, 3, 128]),
    st.integers(0, 1000),
)
def test_every_token_attends_to_its_own_path(
    trees: list[list[list[int]]], window: int | None, bush_tokens: int, causal_tokens: int, seed: int
) -> None:
    made = [built(sequences) for sequences in trees]
    total = sum(len(tree) for tree, _ in made)
    chance = torch.Generator().manual_seed(seed)
    query, key, value = (torch.randn(heads, total, 8, generator=chance) * 2 for heads in (4, 2, 2))
    asked = torch.randperm(total, generator=chance)[: 1 + seed % 4].tolist()
    with patch.object(tree_attention, "CAUSAL_TOKENS", causal_tokens):
        attention = TreeAttention(
            [tree for tree, _ in made], asked, window=window, dtype=torch.float32, bush_tokens=bush_tokens
        )
    for windowed in (False, True):
        reach = window if windowed and window else total
        found = attention.attend(query, key, value, scale=None, windowed=windowed, last=False)
        last = attention.attend(query, key, value, scale=None, windowed=windowed, last=True)
        offset = 0
        for tree, paths in made:
            for path in paths:
                for depth, place in enumerate(path):
                    seen = [offset + each for each in path[max(0, depth + 1 - reach) : depth + 1]]
                    expected = by_softmax(query[:, offset + place], key[:, seen], value[:, seen]).float()
                    assert torch.allclose(found[:, offset + place], expected, atol=1e-5)
                    if offset + place in asked:
                        assert torch.allclose(last[:, offset + place], expected, atol=1e-5)
                    else:
                        assert not last[:, offset + place].any()
            offset += len(tree)


def test_a_shared_beginning_is_looked_at_without_a_mask() -> None:
    """600 tokens and 16 ends: no block holds a mask, and of what a kernel computes whole blocks of, little is hidden."""
    tree, _ = built([[*range(600), *([n] * 100)] for n in range(16)])
    attention = TreeAttention([tree], [len(tree) - 1], window=None, dtype=torch.float32)
    computed = sum(
        (each.queries.stop - each.queries.start) * (each.keys.stop - each.keys.start) for each in attention._blocks[None]
    )
    assert all(each.mask is None for each in attention._blocks[None])
    assert computed < 1.1 * (600 * 600 / 2 + 1600 * 600 + 16 * 100 * 100 / 2)


SIZE: dict[str, Any] = {
    "vocab_size": 320,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "initializer_range": 0.2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GROUPED: dict[str, Any] = SIZE | {"num_key_value_heads": 2, "intermediate_size": 96, "head_dim": 16}
STRANGERS = {
    "soft caps": lambda: Gemma2Config(**GROUPED, attn_logit_softcapping=2.0, sliding_window=24, query_pre_attn_scalar=16),
    "sinks": lambda: GptOssConfig(**GROUPED, num_local_experts=4, num_experts_per_tok=2, sliding_window=24),
    "attention of its own": lambda: FalconConfig(**SIZE, alibi=False, new_decoder_architecture=False),
}
STRAY: dict[str, Any] = GROUPED | {"sliding_window": 24}
UNBRANCHED: dict[str, Any] = {
    "ALiBi": lambda: BloomConfig(**SIZE),
    "places in a row": lambda: MptConfig(vocab_size=320, d_model=64, n_layers=2, n_heads=4, max_seq_len=256),
    "a window it does not have": lambda: LlamaConfig(**STRAY),
}


@pytest.mark.parametrize("kind", STRANGERS)
def test_models_with_another_attention_are_scored_as_alone(kind: str) -> None:
    """What block by block cannot do is told apart by the model's own attention, or by the trial; the mask does it then."""
    torch.manual_seed(0)
    config = STRANGERS[kind]()
    model: Any = cast("Any", AutoModelForCausalLM).from_config(config).eval()
    forward = Forward(model)
    chance = torch.Generator().manual_seed(0)
    shared = torch.randint(3, 320, (40,), generator=chance).tolist()
    ends = [torch.randint(3, 320, (9,), generator=chance).tolist() for _ in range(3)]
    tree, paths = built([[*shared, *end] for end in ends])
    if kind in ("soft caps", "sinks"):
        assert not forward.attends_in_trees
    logits = forward.tree_logits(Forest((tree,)), ([0] * 3, [path[-1] for path in paths]))
    with torch.inference_mode():
        for row, end in enumerate(sorted(ends)):
            alone = model(torch.tensor([[*shared, *end]]), use_cache=False).logits[0, -1]
            assert torch.allclose(logits[row].log_softmax(-1), alone.log_softmax(-1), atol=1e-4)


@pytest.mark.parametrize("kind", UNBRANCHED)
def test_models_that_cannot_branch_are_scored_sequence_by_sequence(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """Bloom's masks have no branches, an error that ended the run; the others took them and answered wrongly."""
    torch.manual_seed(0)
    model: Any = cast("Any", AutoModelForCausalLM).from_config(UNBRANCHED[kind]()).eval()
    for weights in model.parameters():
        if weights.dim() > 1:
            torch.nn.init.normal_(weights, std=0.2)
    forward = Forward(model)
    chance = torch.Generator().manual_seed(0)
    shared = torch.randint(3, 320, (40,), generator=chance).tolist()
    sequences = [(*shared, *torch.randint(3, 320, (n,), generator=chance).tolist()) for n in (9, 5, 7, 9)]
    requests = [
        ScoredSequences(5, (sequences[0], sequences[1]), (40, 41)),
        ScoredSequences(3, (sequences[2],), (42,)),
        ScoredSequences(4, (sequences[3], sequences[3][:40]), (40, 40)),
    ]
    with pytest.raises(ValueError, match="branches"):
        forward.tree_logits(Forest((built([list(each) for each in sequences])[0],)), ([0], [41]))
    counts = ScoredTokens()
    found = dict(score_sequences(forward, BatchLimits.for_device(forward, 8, 200), requests, counts))
    assert "each is scored whole" in caplog.text
    assert (counts.computed, counts.reused) == (sum(len(each) - 1 for each in sequences) + 39, 0)
    with torch.inference_mode():
        for request in requests:
            for sequence, start, score in zip(request.sequences, request.starts, found[request.index] or (), strict=True):
                logps = model(torch.tensor([sequence]), use_cache=False).logits[0].double().log_softmax(-1)
                alone = sum(float(logps[place - 1, sequence[place]]) for place in range(start, len(sequence)))
                assert score == pytest.approx(alone, abs=1e-4)


def test_a_model_that_masks_by_places_in_a_row_whatever_it_is_given_is_refused() -> None:
    """GPT-Neo took the masks of trees and slots, and scored and wrote something else: two of three texts of a batch."""
    kinds: Any = [[["global", "local"], 1]]
    config = GPTNeoConfig(vocab_size=320, hidden_size=64, num_layers=2, num_heads=4, attention_types=kinds)
    with pytest.raises(EngineError, match="global, local"):
        Forward(cast("Any", AutoModelForCausalLM).from_config(config))


def test_memory_that_runs_out_in_the_trial_decides_nothing() -> None:
    """It used to settle for good that attention block by block cannot be used, and other digits with it."""
    torch.manual_seed(0)
    model: Any = cast("Any", AutoModelForCausalLM).from_config(LlamaConfig(**GROUPED)).eval()
    forward = Forward(model)
    inside = model.model.layers[1].forward

    def too_large(*args: Any, **kwargs: Any) -> Any:
        if "cai_tree" in kwargs:
            torch.empty(2**60, dtype=torch.uint8)
        return inside(*args, **kwargs)

    model.model.layers[1].forward = too_large
    with pytest.raises(RuntimeError, match="memory"):
        _ = forward.attends_in_trees
    model.model.layers[1].forward = inside
    assert forward.attends_in_trees


def test_a_layer_of_another_make_is_not_an_error() -> None:
    """Its last feed-forward part takes its input by name, or answers with more than a tensor."""
    for broken in ("named", "several"):
        torch.manual_seed(0)
        model: Any = cast("Any", AutoModelForCausalLM).from_config(LlamaConfig(**GROUPED)).eval()
        last = model.model.layers[-1]

        class Wrapped(torch.nn.Module):
            def __init__(self, inner: torch.nn.Module) -> None:
                super().__init__()
                self.inner = inner

            def forward(self, hidden: Tensor) -> Any:
                return self.inner(hidden), None

        wrapped = Wrapped(last.mlp)
        last.mlp = wrapped

        def forward(
            hidden_states: Tensor, *, layer: Any = last, mlp: Any = wrapped, by_name: bool = broken == "named", **kwargs: Any
        ) -> Tensor:
            hidden_states = hidden_states + layer.self_attn(layer.input_layernorm(hidden_states), **kwargs)[0]
            normed = layer.post_attention_layernorm(hidden_states)
            return hidden_states + (mlp(hidden=normed) if by_name else mlp(normed))[0]

        last.forward = forward
        tree, paths = built([[5, 6, 7], [5, 6, 8]])
        own = Forward(model)
        assert not own.attends_in_trees
        logits = own.tree_logits(Forest((tree,)), ([0, 0], [path[-1] for path in paths]))
        with torch.inference_mode():
            alone = model(torch.tensor([[5, 6, 8]]), use_cache=False).logits[0, -1]
        assert torch.allclose(logits[1], alone, atol=1e-4)
        hooks = [each for module in model.modules() for each in (*module._forward_hooks, *module._forward_pre_hooks)]
        assert not hooks
        assert model.config._attn_implementation == "sdpa"


def test_a_model_that_does_otherwise_than_it_says_is_found_out_by_the_trial() -> None:
    """Its attention drops what it is given beyond the usual; and another's last layer mixes tokens after its attention."""
    config = LlamaConfig(**GROUPED)
    torch.manual_seed(0)
    deaf: Any = cast("Any", AutoModelForCausalLM).from_config(config).eval()
    for layer in deaf.model.layers:
        own = layer.self_attn.forward
        layer.self_attn.forward = lambda *args, own=own, cai_tree=None, **kwargs: own(*args, **kwargs)
    assert not Forward(deaf).attends_in_trees
    mixing: Any = cast("Any", AutoModelForCausalLM).from_config(config).eval()
    assert Forward(mixing).attends_in_trees
    inside = mixing.model.layers[-1].mlp.forward
    mixing.model.layers[-1].mlp.forward = lambda hidden: inside(hidden).cumsum(1)
    assert not Forward(mixing).attends_in_trees


WINDOWED: dict[str, Any] = GROUPED | {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 300}


def siblings_are_seen(self: TreeAttention, queries_N: Tensor, keys: slice, window: int | None) -> Tensor:
    sees_NK = torch.arange(keys.start, keys.stop) <= queries_N[:, None]
    return sees_NK if window is None else sees_NK & (self._depths_Q[queries_N][:, None] - self._depths_Q[keys] < window)


def one_more_is_seen(self: TreeAttention, queries_N: Tensor, keys: slice, window: int | None) -> Tensor:
    return SEES(self, queries_N, keys, None if window is None else window + 1)


def kinds_are_exchanged(self: TreeAttention, *args: Any, windowed: bool, **others: Any) -> Tensor:
    return ATTEND(self, *args, windowed=not windowed, **others)


def branches_do_not_look_back(self: TreeAttention, runs: Any, window: int | None) -> Any:
    return [block for block in PLANNED(self, runs, window) if block.queries == block.keys]


SEES, ATTEND, PLANNED = TreeAttention._sees, TreeAttention.attend, TreeAttention._planned
WRONG: dict[str, Any] = {
    "siblings are seen": ("_sees", siblings_are_seen),
    "a window is one wider": ("_sees", one_more_is_seen),
    "layers have each other's window": ("attend", kinds_are_exchanged),
    "branches do not look back": ("_planned", branches_do_not_look_back),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_trial_tells_a_wrong_mask_from_rounding(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype) -> None:
    """Also of windows that are far longer than the trial, and in the precisions that round to a few digits."""
    torch.manual_seed(0)
    model: Any = cast("Any", AutoModelForCausalLM).from_config(Gemma3TextConfig(**WINDOWED)).eval().to(dtype)
    assert Forward(model).attends_in_trees
    for name, (method, wrong) in WRONG.items():
        with monkeypatch.context() as patch:
            patch.setattr(TreeAttention, method, wrong)
            assert not Forward(model).attends_in_trees, name
