"""Which attention path a model is right under: tried on the loaded model, never believed of its name."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from cai.engines.forward import STRANGE_TO_MODELS, is_out_of_memory
from cai.training.attention import paths_for, window_of
from cai.training.packing import TokenGroup
from cai.training.scorer import Scorer

SAME_LOGP_NATS = {torch.float64: 1e-8, torch.float32: 2e-4, torch.bfloat16: 0.15, torch.float16: 0.05}
"""Largest difference in a reply's log-probability, in nats a token, between two paths that rounding explains; of rewards, in
their own units."""

PROBE_TOKENS = 64
"""Groups of about so many are tried: a probe need not be dear."""
PROBE_WINDOW = 6
"""While a model with sliding windows is probed, they are no longer than this: its own are mostly longer than any probe."""


def choose_path(model: nn.Module, scorer: Scorer, groups: Sequence[TokenGroup], device: torch.device) -> str:
    """Set the fastest path, and head, on which the model computes what it computes without, tried on two groups of the data.

    State-space layers carry one reply's state into the next, some kernels ignore the mask they are given, some models count
    places themselves: all run without an error. So each path is tried: with one reply replaced, the log-probabilities of the
    others must not move; and all must be what padded rows and the model's own logits give.

    Args:
        model: The model, perhaps wrapped.
        scorer: Made for it; its `path` and `plain_head` are set.
        groups: What will be trained on.
        device: Where the model is.

    Returns:
        Why rows are padded, so that what sequences share is computed once for each; "" where they are not.
    """
    probe = _probe(groups)
    scorer.path, scorer.plain_head = "padded", False
    expected_R = _scores(model, scorer, probe, device)
    tolerance = SAME_LOGP_NATS[scorer.attention_dtype]
    scorer.plain_head = True
    scorer.plain_head = _apart(_scores(model, scorer, probe, device), expected_R) <= tolerance
    inner = scorer.inner
    reasons: list[str] = []
    with _short_window(inner.config.get_text_config()) as shortened:
        if shortened:
            expected_R = _scores(model, scorer, probe, device)
        for path in paths_for(inner):
            scorer.path = path
            reason = _fault(model, scorer, probe, expected_R, device, tolerance)
            if not reason:
                return ""
            reasons.append(reason)
    scorer.path = "padded"
    return reasons[-1] if reasons else "the model has layers or attention that take no mask of trees"


def _probe(groups: Sequence[TokenGroup]) -> list[TokenGroup]:
    shared = [group for group in groups if len(group.replies) > 1] or groups
    nearest = sorted(shared, key=lambda group: (abs(group.longest - PROBE_TOKENS), group.longest))[:2]
    return [replace(group, beginnings=()) for group in nearest]


@torch.no_grad()
def _scores(model: nn.Module, scorer: Scorer, groups: list[TokenGroup], device: torch.device) -> Tensor:
    """Of each reply: its log-probability, in nats a token, or its rewards."""
    batch = scorer.pack(groups, device)
    with scorer.at_work():
        values = scorer.values(model, batch)
        return values / batch.sequence_lengths.view(-1, *[1] * (values.dim() - 1))


def _fault(
    model: nn.Module,
    scorer: Scorer,
    probe: list[TokenGroup],
    expected_R: Tensor,
    device: torch.device,
    tolerance: float,
) -> str:
    """Why the scorer's path is not right; "" if it is."""
    first, *replies = probe[0].replies
    # Reversed and doubled: other tokens and another length, all of them legal ids.
    disturbed = [replace(probe[0], replies=(first[:1] + first[:0:-1] + first, *replies)), *probe[1:]]
    try:
        found_R, moved_R = _scores(model, scorer, probe, device), _scores(model, scorer, disturbed, device)
    except STRANGE_TO_MODELS as error:
        if is_out_of_memory(error):
            raise  # it says nothing of the model
        return f"the model cannot run with masks of trees ({str(error).splitlines()[0][:120] if str(error) else error!r})"
    if len(found_R) > 1 and _apart(found_R[1:], moved_R[1:]) > tolerance:
        return "one reply's tokens reach the other's log-probability (state-space or convolution layers)"
    if _apart(found_R, expected_R) > tolerance:
        return "masks of trees give other log-probabilities than rows of their own"
    return ""


def _apart(found_R: Tensor, expected_R: Tensor) -> float:
    difference = (found_R - expected_R).abs().max()
    return float(difference) if bool(torch.isfinite(difference)) else torch.inf


@contextlib.contextmanager
def _short_window(config: Any) -> Generator[bool]:
    """Windows shorter than the probe, in the model's own masks too. Gives whether there are any."""
    window = window_of(config)
    if window is None:
        yield False
        return
    config.sliding_window = min(window, PROBE_WINDOW)
    try:
        yield True
    finally:
        config.sliding_window = window
