"""Paged attention: layers hand the kernel what it needs, and a GPU's kernel computes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
import torch
from checkpoints import Architecture, make_checkpoint
from naive import OpenTiny
from paged_rows import GREEDY, one_by_one, rows_of, run, scheduler, texts
from torch.nn.functional import scaled_dot_product_attention

from cai.engines import paged_attention
from cai.models.loading import load_model
from cai.models.spec import ModelSpec


def rowwise(
    query_QHD: torch.Tensor,
    key_KGD: torch.Tensor,
    value_KGD: torch.Tensor,
    ends_Q: torch.Tensor,
    ends_K: torch.Tensor,
    longest: tuple[int, int],
    *,
    scale: float | None = None,
    window: int | None = None,
) -> torch.Tensor:
    """What `varlen_attention` asks the GPU's kernel for, row by row."""
    parts: list[torch.Tensor] = []
    for q_start, q_end, k_start, k_end in zip(
        *(cast("Any", each).tolist() for each in (ends_Q[:-1], ends_Q[1:], ends_K[:-1], ends_K[1:])), strict=True
    ):
        queries, keys = q_end - q_start, k_end - k_start
        assert queries <= longest[0]
        assert keys <= longest[1]
        mask = torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries)
        if window is not None:
            mask &= ~torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries - window)
        q, k, v = (
            each[start:end].transpose(0, 1)[None]
            for each, start, end in (
                (query_QHD, q_start, q_end),
                (key_KGD, k_start, k_end),
                (value_KGD, k_start, k_end),
            )
        )
        parts.append(scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale, enable_gqa=True)[0].transpose(0, 1))
    return torch.cat(parts)


@pytest.mark.parametrize("architecture", ["llama", "gemma3", "mistral"])
def test_layers_hand_the_kernel_what_it_needs(
    open_tiny: OpenTiny, architecture: Architecture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Flash kernels run on GPUs only; here their sums are done row by row, with the same lengths, windows and caches."""
    monkeypatch.setattr(paged_attention, "_can_run_varlen", lambda _: True)
    monkeypatch.setattr(paged_attention, "varlen_attention", rowwise)
    loaded = open_tiny(architecture)
    rows = rows_of(loaded, 6, 20, [GREEDY])
    with scheduler(loaded) as scheduled:
        run(scheduled, rows)
    assert texts(rows) == texts([one_by_one(loaded, row) for row in rows])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("window", [None, 5])
def test_the_gpus_kernel_computes_what_is_asked_of_it(window: int | None) -> None:
    chance = torch.Generator("cuda").manual_seed(0)
    query, key, value = (
        torch.randn(tokens, heads, 64, generator=chance, device="cuda").to(torch.bfloat16)
        for tokens, heads in ((17, 8), (60, 2), (60, 2))
    )
    ends_Q, ends_K = torch.tensor([0, 1, 9, 17, 17]), torch.tensor([0, 30, 52, 60, 60])
    found = paged_attention.varlen_attention(
        query, key, value, ends_Q.int().cuda(), ends_K.int().cuda(), (8, 64), window=window
    )
    expected = rowwise(query.float().cpu(), key.float().cpu(), value.float().cpu(), ends_Q, ends_K, (8, 64), window=window)
    torch.testing.assert_close(found.float().cpu(), expected, atol=0.03, rtol=0.03)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_rows_are_written_with_graphs_and_all_kinds_of_sampling(tmp_path: Path) -> None:
    """Texts may differ from the CPU's where two tokens are all but equally likely; most begin as they do."""
    folder = make_checkpoint(tmp_path / "llama", "llama")
    cpu = load_model(ModelSpec(name=str(folder), dtype="float32", device="cpu"))
    gpu = load_model(ModelSpec(name=str(folder), dtype="bfloat16", device="cuda"))
    rows = rows_of(cpu, 24)
    expected = [one_by_one(cpu, row) for row in rows]
    with scheduler(gpu, lambda _: False, rows=16, batch_tokens=512, cache_tokens=None) as scheduled:
        assert "flash" in paged_attention.paged_attention(gpu.model)
        run(scheduled, rows)
        assert scheduled.statistics().reused_tokens > 0
    assert [len(row.generated) for row in rows] == [len(row.generated) for row in expected]
    assert sum(row.generated[0] == one.generated[0] for row, one in zip(rows, expected, strict=True)) >= 18
