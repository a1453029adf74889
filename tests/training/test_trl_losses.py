"""Each loss that TRL has too, on the same log-probabilities: TRL's own trainers compute theirs."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from checkpoints import make_checkpoint
from torch import Tensor
from training_runs import make_pairs

from cai.training.loss_table import LossOptions, PreferenceLoss
from cai.training.losses import Replies, preference_losses

PAIRS, BETA, NOISE = 4, 0.3, 0.1


class Sums:
    """Log-probabilities of both replies of each pair, from plain logits."""

    def __init__(self, model: Any, batch: dict[str, Tensor]) -> None:
        with torch.no_grad():
            logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1].double()
        tokens = logits.log_softmax(-1).gather(2, batch["input_ids"][:, 1:, None])[..., 0]
        masks = batch["completion_mask"][:, 1:].bool()
        self.counts = masks.sum(1)
        shorter = torch.minimum(*self.counts.chunk(2)).repeat(2)
        rows = list(zip(tokens, masks, shorter, strict=True))
        self.whole = torch.stack([row[mask].sum() for row, mask, _ in rows])
        self.openings = torch.stack([row[mask][:count].sum() for row, mask, count in rows])


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, dict[str, Tensor]]:
    """A DPOTrainer whose policy has left its reference, and a batch of its own collator."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl.trainer.dpo_config import DPOConfig
    from trl.trainer.dpo_trainer import DPOTrainer

    folder: Path = make_checkpoint(tmp_path_factory.mktemp("model"))
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    rows = [{"prompt": p.prompt[0].content, "chosen": p.chosen, "rejected": p.rejected} for p in make_pairs(PAIRS)]
    policy = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in policy.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator), alpha=0.02)
    trainer: Any = DPOTrainer(
        model=policy,
        ref_model=AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32),
        args=DPOConfig(
            output_dir=str(folder / "out"), beta=BETA, use_cpu=True, bf16=False, report_to="none", gradient_checkpointing=False
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )
    return trainer, trainer.data_collator([trainer.train_dataset[index] for index in range(PAIRS)])


@pytest.fixture(scope="module")
def sides(theirs: tuple[Any, dict[str, Tensor]]) -> tuple[Replies, Replies]:
    trainer, batch = theirs
    policy, reference = Sums(trainer.model, batch), Sums(trainer.ref_model, batch)
    assert (policy.whole - reference.whole).abs().min() > 0.01
    assert len(set(policy.counts.tolist())) > 2
    columns = [
        values.chunk(2) for values in (policy.whole, policy.counts, reference.whole, policy.openings, reference.openings)
    ]
    chosen, rejected = (Replies(*(column[side] for column in columns)) for side in (0, 1))
    return chosen, rejected


def mean_loss(loss: PreferenceLoss, sides: tuple[Replies, Replies], *, p: float = 1.0, **options: float) -> float:
    labels = torch.full((PAIRS,), p, dtype=torch.float64)
    return preference_losses(loss, *sides, labels, LossOptions(BETA, **options)).losses.mean().item()


@pytest.mark.parametrize(
    ("loss", "name", "options", "p"),
    [
        ("sigmoid", "sigmoid", {}, 1.0),
        ("sigmoid_norm", "sigmoid_norm", {}, 1.0),
        ("hinge", "hinge", {}, 1.0),
        ("ipo_norm", "ipo", {}, 1.0),
        ("robust", "robust", {"label_noise": NOISE}, 1.0),
        ("exo_pair", "exo_pair", {}, 1 - NOISE),
        ("apo_zero", "apo_zero", {}, 1.0),
        ("apo_down", "apo_down", {}, 1.0),
        ("ld_dpo", "sigmoid", {"tail_weight": 0.4}, 1.0),
    ],
)
def test_losses_of_the_dpo_trainer(
    loss: PreferenceLoss,
    name: str,
    options: dict[str, float],
    p: float,
    theirs: tuple[Any, dict[str, Tensor]],
    sides: tuple[Replies, Replies],
) -> None:
    trainer, batch = theirs
    trainer.loss_types, trainer.label_smoothing, trainer.ld_alpha = [name], NOISE, options.get("tail_weight")
    with torch.no_grad():
        wanted = trainer._compute_loss(trainer.model, dict(batch), return_outputs=False).item()
    assert mean_loss(loss, sides, p=p, **options) == pytest.approx(wanted, rel=1e-4)


@pytest.mark.filterwarnings("ignore:.*experimental.*")
def test_losses_without_a_reference(sides: tuple[Replies, Replies]) -> None:
    """Their trainers' functions, given the few numbers of the trainer that they read."""
    from trl.experimental.cpo.cpo_trainer import CPOTrainer
    from trl.experimental.orpo.orpo_trainer import ORPOTrainer

    settings: Any = SimpleNamespace(
        beta=BETA, alpha=0.0, loss_type="simpo", simpo_gamma=0.7, label_smoothing=0.0, accelerator=SimpleNamespace(device="cpu")
    )
    means: list[Any] = [side.logps / side.tokens for side in sides]
    wanted = CPOTrainer.cpo_loss(settings, *means)[0].mean().item()
    assert mean_loss("simpo", sides, target_margin=0.7) == pytest.approx(wanted, rel=1e-9)
    wanted = -ORPOTrainer.odds_ratio_loss(settings, *means)[0].mean().item()
    assert mean_loss("orpo", sides) == pytest.approx(wanted, rel=1e-5)
