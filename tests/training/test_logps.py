"""Log-probabilities and losses of replies against the model's own logits, one reply at a time, on every path."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from checkpoints import ARCHITECTURES, make_config
from token_groups import VOCABULARY, make_groups, make_model, one_at_a_time

from cai.errors import TrainingError
from cai.training.attention import Path
from cai.training.head import LossOf
from cai.training.logps import ReplyScorer, sequence_logps, token_logps
from cai.training.packing import PackedBatch

CPU = torch.device("cpu")
PATHS: tuple[Path, ...] = ("padded", "mask", "blocks")


@pytest.fixture(scope="module", params=ARCHITECTURES)
def model(request: pytest.FixtureRequest) -> Any:
    return make_model(request.param)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("plain_head", [True, False])
def test_replies_score_in_a_batch_what_they_score_alone(model: Any, path: Path, *, plain_head: bool) -> None:
    groups = make_groups()
    scorer = ReplyScorer(model, path=path, plain_head=plain_head)
    with torch.no_grad(), scorer.at_work():
        found = scorer.logps(model, scorer.pack(groups, CPU)).tolist()
    assert found == pytest.approx(one_at_a_time(model, groups), abs=2e-4)


def test_every_path_gives_the_same_gradients(model: Any) -> None:
    """Shared tokens are computed once and learn from every reply that stands on them."""
    groups = make_groups()
    gradients: dict[Path, dict[str, torch.Tensor]] = {}
    for path in PATHS:
        model.zero_grad()
        scorer = ReplyScorer(model, path=path, plain_head=path != "padded")
        batch = scorer.pack(groups, CPU)
        with scorer.at_work():
            scorer.loss(model, batch, uneven_loss(batch)).backward()
        gradients[path] = {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}
    for path in ("mask", "blocks"):
        assert gradients[path].keys() == gradients["padded"].keys()
        for name, gradient in gradients[path].items():
            torch.testing.assert_close(gradient, gradients["padded"][name], rtol=2e-3, atol=2e-3)


def uneven_loss(batch: PackedBatch) -> LossOf:
    """Not linear in a sum, and another one for each group."""

    def loss_of(groups: slice, logps_R: torch.Tensor) -> torch.Tensor:
        first = batch.parts[groups][0].sequences.start
        weights_R = torch.arange(first + 1.0, first + 1 + len(logps_R), dtype=torch.float64)
        return (logps_R * weights_R).sum() + 0.01 * logps_R.square().sum()

    return loss_of


def test_checkpointed_layers_attend_in_the_backward_pass_as_before() -> None:
    gradients: list[torch.Tensor] = []
    for checkpointed in (False, True):
        model = make_model("qwen2")
        model.train()
        if checkpointed:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
            model.enable_input_require_grads()
        scorer = ReplyScorer(model, path="blocks")
        batch = scorer.pack(make_groups(), CPU)
        with scorer.at_work():
            scorer.loss(model, batch, uneven_loss(batch)).backward()
        gradients.append(torch.cat([weight.grad.flatten() for weight in model.parameters()]))
    torch.testing.assert_close(*gradients)


def test_a_scorer_leaves_the_model_as_it_was(model: Any) -> None:
    ids = torch.tensor([[5, 6, 7]])
    before = model(input_ids=ids).logits
    scorer = ReplyScorer(model, path="blocks")
    with scorer.at_work():
        scorer.logps(model, scorer.pack(make_groups(), CPU))
    assert torch.equal(model(input_ids=ids).logits, before)


def test_a_model_without_an_output_head_is_refused() -> None:
    from transformers import AutoModel

    model: Any = AutoModel.from_config(make_config("llama", VOCABULARY))
    with pytest.raises(TrainingError, match="no output head"):
        ReplyScorer(model)


# ---- the pieces


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_token_logps_and_their_gradient_are_those_of_log_softmax(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    logits = (torch.randn(300, 40, dtype=dtype) * 5).requires_grad_()  # more rows than a tile has
    targets = torch.randint(40, (300,))
    upstream = torch.randn(300, dtype=dtype)
    found = token_logps(logits, targets)
    (ours,) = torch.autograd.grad((found * upstream).sum(), logits)
    wanted = logits.log_softmax(-1).gather(1, targets[:, None])[:, 0]
    (theirs,) = torch.autograd.grad((wanted * upstream).sum(), logits)
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(ours, theirs)


def test_token_logps_of_bfloat16_logits_are_not_rounded_to_bfloat16() -> None:
    torch.manual_seed(0)
    logits = (torch.randn(20, 1000) * 3).to(torch.bfloat16)
    targets = torch.randint(1000, (20,))
    wanted = logits.double().log_softmax(-1).gather(1, targets[:, None])[:, 0]
    torch.testing.assert_close(token_logps(logits, targets).double(), wanted, atol=1e-5, rtol=0)


def test_a_sequence_without_a_token_is_refused() -> None:
    """Its log-probability would silently be 0: certainty."""
    with pytest.raises(ValueError, match="no scored token"):
        sequence_logps(torch.zeros(2), torch.tensor([0, 2]), 3)
