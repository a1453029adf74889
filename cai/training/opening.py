"""What is done before the first step, on the model as the Trainer has prepared it (placed, wrapped, sharded).

The attention path is chosen, pairs get their reference log-probabilities, and the reference's distributions at some positions
of the replies are kept, which the policy's are compared with later on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from cai.errors import TrainingError
from cai.training import processes
from cai.training.kl_sample import sample_replies
from cai.training.logps import ReplyScorer
from cai.training.loss_table import LOSSES
from cai.training.parts import parts_of
from cai.training.policy import Policy
from cai.training.probing import choose_path
from cai.training.reference import ReferenceCache, compute_references, known_references
from cai.training.reference_kl import KL, KeptLogits, ReferenceKL, positions_a_reply
from cai.training.results import OnEvent
from cai.training.rows import PreferenceRow, TrainingRow
from cai.training.scorer import Scorer
from cai.training.settings import DPOSettings, TrainingSettings

_MEASURED_ROWS = 64
"""Of so many it is found how many positions a pair takes."""


class Opening:
    """Makes the rows of a `StepTrainer` ready.

    Args:
        rows: Pairs or supervised rows to train on.
        held_out: Rows that are evaluated.
        settings: Of the stage.
        policy: What is trained.
        folder: Of the run.
        scorer: Made for the policy; its path is set.
        device: Of this process.
        on_event: Told after every forward pass of the reference.
    """

    def __init__(
        self,
        rows: Sequence[TrainingRow],
        held_out: Sequence[TrainingRow],
        settings: TrainingSettings,
        policy: Policy,
        folder: Path,
        scorer: Scorer,
        device: torch.device,
        on_event: OnEvent | None,
    ) -> None:
        self._rows = rows
        self._held_out = held_out
        self._settings = settings
        self._policy = policy
        self._folder = folder
        self._scorer = scorer
        self._device = device
        self._on_event = on_event
        self.reason = ""
        """Why rows are padded; "" where they are not."""
        self.computed = 0
        """Sequences whose reference log-probability was not in the cache."""
        self.warning = ""
        """Why the divergence is not told; "" where it is, or nobody asks."""
        self._kl: ReferenceKL | None = None
        self._steps_between = 0

    def __call__(self, model: nn.Module, resumed_step: int) -> tuple[Sequence[TrainingRow], Sequence[TrainingRow]]:
        """The rows to train on and those held out, pairs with their reference log-probabilities where the loss needs them.

        Raises:
            TrainingError: If they cannot be computed any more, or are not finite.
        """
        scorer = self._scorer
        with self._policy.as_reference():
            reason = choose_path(model, scorer, [row.group for row in self._rows], self._device)
            scorer.path, scorer.plain_head, self.reason = processes.from_first((scorer.path, scorer.plain_head, reason))
            ready = self._with_references([*self._rows, *self._held_out], model, resumed_step)
            self._open_kl(model, resumed_step)
        return ready[: len(self._rows)], ready[len(self._rows) :]

    def measure(self, model: nn.Module, step: int, *, wanted: bool) -> dict[str, float]:
        """`kl/data` of preference training (see `reference_kl`), when it is due after this step or `wanted`; else {}.

        All processes must call it.
        """
        due = self._kl is not None and (wanted or step % self._steps_between == 0)
        return {KL: self._kl.measure(model)} if due and self._kl is not None else {}

    @property
    def _place(self) -> Path:
        """Folder of what is kept of the reference."""
        given = self._settings.reference_cache if isinstance(self._settings, DPOSettings) else None
        return self._folder / "reference" if given is None else Path(given)

    @property
    def _model_key(self) -> str:
        return f"{self._policy.opened.fingerprint} {self._scorer.path}"

    def _open_kl(self, model: nn.Module, resumed_step: int) -> None:
        settings, scorer = self._settings, self._scorer
        if not isinstance(settings, DPOSettings) or not isinstance(scorer, ReplyScorer):
            return  # of language models only
        rows = [row for row in self._rows if isinstance(row, PreferenceRow)]
        vocabulary = int(scorer.inner.config.get_text_config().vocab_size)
        positions = positions_a_reply(vocabulary, scorer.attention_dtype)
        sample = sample_replies([row.group for row in rows], seed=settings.seed, positions_a_reply=positions)
        kl = ReferenceKL(sample, scorer, tokens_per_forward=settings.tokens_per_forward, device=self._device)
        kept = KeptLogits(self._place, self._model_key, sample)
        logits = kept.read()
        if logits is None and resumed_step and not self._policy.has_adapter:
            self.warning = f"{KL} is not told: {kept.path.name} is missing, and the policy has moved since"
            return
        if logits is None:
            logits = kl.logits(model)
            kept.write(logits)
        kl.refer_to(logits)
        some = rows[:: -(-len(rows) // _MEASURED_ROWS)]
        positions = sum(sum(row.group.row_lengths(scorer.layout)) for row in some) / sum(len(row.pairs) for row in some)
        self._kl, self._steps_between = kl, kl.steps_between(positions * settings.batch_pairs, settings.logging_steps)

    def _with_references(self, rows: Sequence[TrainingRow], model: nn.Module, resumed_step: int) -> Sequence[TrainingRow]:
        settings, scorer = self._settings, self._scorer
        if not isinstance(settings, DPOSettings) or not LOSSES[settings.loss].needs_reference:
            return rows
        assert isinstance(scorer, ReplyScorer)
        pairs = [row for row in rows if isinstance(row, PreferenceRow)]
        groups = [row.group for row in pairs]
        cache = ReferenceCache(self._place, self._model_key, groups)
        found = known_references(groups, cache)
        if found is None and resumed_step and not self._policy.has_adapter:
            raise TrainingError(
                f"{cache.path}: log-probabilities under the model before training are missing, and the policy has moved since",
                "put the file back, or begin anew (resume=False)",
            )
        if found is None:
            parts = parts_of(pairs, scorer.layout, settings.tokens_per_forward)
            self.computed = compute_references(
                model,
                scorer,
                [part.group for part in parts],
                cache,
                tokens_per_forward=settings.tokens_per_forward,
                device=self._device,
                on_event=self._on_event,
            )
            found = known_references(groups, cache)
        assert found is not None
        known = iter(found)
        return [replace(row, reference=next(known)) if isinstance(row, PreferenceRow) else row for row in rows]
