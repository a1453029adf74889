"""How a step is cut into forward passes decides nothing of what is learnt."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from token_groups import VOCABULARY, make_groups, make_model
from training_runs import DPO

from cai.training.attention import Path as AttentionPath
from cai.training.logps import ReplyScorer
from cai.training.objectives import PreferenceObjective
from cai.training.packing import Layout, TokenGroup
from cai.training.parts import parts_of
from cai.training.plan import Step
from cai.training.rows import Pair, PreferenceRow, ReplyRow, TrainingRow
from cai.training.settings import DPOSettings
from cai.training.trainer import StepTrainer
from cai.training.trainer_arguments import training_arguments

SETTINGS = DPO.model_copy(update={"lora": None, "nll_weight": 0.3, "anchor_weight": 0.4, "logging_steps": 1})

NO_DROPOUT = {"attn_pdrop": 0.0, "resid_pdrop": 0.0, "embd_pdrop": 0.0}


def ids(count: int, seed: int) -> tuple[int, ...]:
    draw = torch.Generator().manual_seed(seed)
    return tuple(torch.randint(1, VOCABULARY, (count,), generator=draw).tolist())


def make_row(group: TokenGroup, uid: str, *, openings: bool = False) -> PreferenceRow:
    """All pairs among the replies of a group, with made-up values of the reference."""
    pairs = tuple(
        Pair(f"{uid}-{chosen}{rejected}", 0, chosen, rejected, 0.6 + 0.05 * (chosen + rejected))
        for rejected, chosen in itertools.combinations(range(len(group.replies)), 2)
    )
    if openings:
        shorter = [(pair, min(len(group.replies[pair.chosen]), len(group.replies[pair.rejected]))) for pair in pairs]
        beginnings = tuple((reply, tokens) for pair, tokens in shorter for reply in (pair.chosen, pair.rejected))
        group = replace(group, beginnings=beginnings)
    return PreferenceRow(group, pairs, tuple(-5.5 * tokens for tokens in group.sequence_lengths))


def make_chain(*, openings: bool = False) -> PreferenceRow:
    """A prompt of 12 tokens and four replies, each begins with half of the one before it."""
    replies = [ids(14, 1)]
    for turn in range(3):
        replies.append((*replies[-1][:7], *ids(6 + turn, 2 + turn)))
    return make_row(TokenGroup(ids(12, 9), tuple(replies)), "chain", openings=openings)


def train(rows: Sequence[TrainingRow], settings: DPOSettings, path: AttentionPath, dtype: torch.dtype, folder: Path) -> Any:
    """Three steps on all rows: logged lines and trained weights."""
    anchors = [ReplyRow(f"kept-{at}", 0, TokenGroup(ids(4 + at, 20 + at), (ids(5, 30 + at),))) for at in range(2)]
    # Llama's norms are in float32 whatever its weights are.
    model = make_model("llama") if dtype == torch.float32 else make_model("gpt2", **NO_DROPOUT).to(dtype)
    scorer = ReplyScorer(model, path=path)
    lines: list[dict[str, float]] = []
    plan = [Step(tuple(range(len(rows))), (0, 1))] * 3
    trainer: Any = StepTrainer(
        model,
        training_arguments(settings, len(plan), folder, torch.device("cpu")),
        make_rows=lambda _model, _step: (rows, ()),
        anchors=anchors,
        plan=plan,
        epochs=3,
        scorer=scorer,
        objective=PreferenceObjective(settings),
        tokens_per_forward=settings.tokens_per_forward,
        evaluation=None,
        on_metrics=lines.append,
        on_event=None,
    )
    trainer.args.save_strategy = "no"
    trainer.train()
    return lines, torch.cat([weight.detach().flatten().double() for weight in model.parameters()])


@pytest.mark.parametrize("path", ["blocks", "mask", "padded"])
@pytest.mark.parametrize(("dtype", "close"), [(torch.float64, 1e-9), (torch.float32, 2e-4)], ids=["float64", "float32"])
def test_many_small_passes_are_one_large_pass(path: AttentionPath, dtype: torch.dtype, close: float, tmp_path: Path) -> None:
    """Down to passes of a single pair of a chain: loss, gradients, metrics and trained weights."""
    rows = [make_chain(), *(make_row(group, f"row-{at}") for at, group in enumerate(make_groups()) if len(group.replies) > 1)]
    found = {
        tokens: train(rows, SETTINGS.model_copy(update={"tokens_per_forward": tokens}), path, dtype, tmp_path / str(tokens))
        for tokens in (1, 45, 10_000)
    }
    lines, weights = found[10_000]
    assert lines[0]["loss"] > lines[-1]["loss"]
    for tokens in (1, 45):
        lines = [dict(line) for line in found[10_000][0]]
        for line, other in zip(lines, found[tokens][0], strict=True):
            assert line.pop("loss") == pytest.approx(other.pop("loss"), rel=max(close, 1e-6))  # the Trainer adds it in float32
            assert line == pytest.approx(other, rel=close, abs=close)
        torch.testing.assert_close(found[tokens][1], weights, rtol=0, atol=close)


@pytest.mark.parametrize("layout", ["tree", "padded"])
@pytest.mark.parametrize("openings", [False, True])
@given(tokens=st.integers(1, 200))
def test_parts_hold_each_pair_once_with_what_is_known_of_it(layout: Layout, openings: bool, tokens: int) -> None:
    row = make_chain(openings=openings)
    parts = parts_of([row], layout, tokens)
    assert parts == parts_of([row], layout, tokens)

    def known(part: PreferenceRow) -> list[Any]:
        group = part.group
        said = zip(group.sequences, part.reference, strict=True)
        of_each = [(group.replies[reply][:length], length, logp) for (reply, length), logp in said]
        opened = part.openings or [None] * len(part.pairs)
        return [
            (pair.uid, pair.p_chosen, *(of_each[at] for at in (*places, *(opening or ()))))
            for pair, places, opening in zip(part.pairs, part.sequences, opened, strict=True)
        ]

    whole = [pair for part in parts if isinstance(part, PreferenceRow) for pair in known(part)]
    assert sorted(whole) == sorted(known(row))
    for part in parts:
        lengths = part.group.row_lengths(layout)
        assert isinstance(part, PreferenceRow)
        assert len(lengths) * max(lengths) <= tokens or len(part.pairs) == 1
        assert {reply for pair in part.pairs for reply in (pair.chosen, pair.rejected)} == set(range(len(part.group.replies)))


def test_rows_that_fit_are_left_whole() -> None:
    row = make_chain()
    (tokens,) = row.group.row_lengths("tree")
    assert parts_of([row], "tree", tokens) == [row]
    assert 1 < len(parts_of([row], "tree", tokens - 1)) < len(row.pairs)
