"""The next token of each row, with the row's own noise; in exact engines also whatever else was computed beside it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from cai.engines.base import SamplingParams
from cai.engines.forward import Forward
from cai.engines.rows import Row
from cai.engines.sampling import draw, draw_settled, penalise, position_seed, vocabulary_hash

SLACK_NATS = 4e-4
"""How far log-probabilities in float32 may lie from those of the same row computed alone: eight times the largest difference
seen on SmolLM2-135M, 5e-5 (`examples/benchmarks/same_texts.py` looks for it). It grows where a model needs more."""

_SLACK_OVER_SEEN = 8


class Drawing:
    """Draws tokens from logits that were computed in a batch.

    Args:
        forward: The model, for draws that have to be decided alone.
        exact: Whether a token must not depend on the batch. A draw that the rounding of another batch could decide otherwise is
            then made from logits computed for its row alone, without a cache: they follow from its tokens.
    """

    def __init__(self, forward: Forward, *, exact: bool) -> None:
        self._forward = forward
        self._exact = exact
        self._vocabulary: Tensor | None = None
        self.slack_nats = SLACK_NATS
        """How large a difference to logits computed alone is reckoned with."""
        self.computed_tokens = 0
        """Tokens that went through the model for draws decided alone."""

    def next_tokens(self, logits_BV: Tensor, rows: Sequence[Row]) -> list[int]:
        """The token that follows each row."""
        if self._vocabulary is None or len(self._vocabulary) != logits_BV.shape[-1]:
            self._vocabulary = vocabulary_hash(logits_BV.shape[-1], logits_BV.device)
        kinds: dict[SamplingParams, list[int]] = {}
        for position, row in enumerate(rows):
            kinds.setdefault(row.params, []).append(position)
        tokens = [0] * len(rows)
        for params, positions in kinds.items():
            some = [rows[position] for position in positions]
            logits = logits_BV if len(positions) == len(rows) else logits_BV[positions]
            for position, token in zip(positions, self._drawn(logits, params, some, self._vocabulary), strict=True):
                tokens[position] = token
        return tokens

    def _drawn(self, logits_BV: Tensor, params: SamplingParams, rows: Sequence[Row], vocabulary_V: Tensor) -> list[int]:
        seeds = [position_seed(row.seed, len(row.generated)) for row in rows]
        logits_BV = _penalised(logits_BV, params, rows)
        if not self._exact:
            return cast("Any", draw(logits_BV, params, seeds, vocabulary_V)).tolist()
        tokens_B, settled_B = draw_settled(logits_BV, params, seeds, vocabulary_V, self.slack_nats)
        tokens: list[int] = cast("Any", tokens_B).tolist()
        for place, settled in enumerate(cast("Any", settled_B).tolist()):
            if not settled:
                alone_1V = _penalised(self.logits_alone(rows[place]), params, rows[place : place + 1])
                tokens[place] = int(draw(alone_1V, params, seeds[place : place + 1], vocabulary_V))
                apart = (logits_BV[place].log_softmax(-1) - alone_1V[0].log_softmax(-1)).abs().max()
                self.slack_nats = max(self.slack_nats, _SLACK_OVER_SEEN * float(apart))
        return tokens

    def logits_alone(self, row: Row) -> Tensor:
        """logits_1V of a row's next token as they are when nothing else is computed, and nothing is remembered."""
        tokens = [*row.prompt, *row.generated]
        self.computed_tokens += len(tokens)
        return self._forward.logits(torch.tensor([tokens]), ([0], [len(tokens) - 1]))


def _penalised(logits_BV: Tensor, params: SamplingParams, rows: Sequence[Row]) -> Tensor:
    if params.repetition_penalty == 1.0:
        return logits_BV
    seen = [torch.tensor(sorted({*row.prompt, *row.generated}), device=logits_BV.device) for row in rows]
    return penalise(logits_BV, seen, params.repetition_penalty)
