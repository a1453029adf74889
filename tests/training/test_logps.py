"""Log-probabilities of replies against the model's own logits, one reply at a time, in both layouts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from checkpoints import ARCHITECTURES, Architecture, make_config
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from cai.errors import TrainingError
from cai.training.logps import ReplyScorer, choose_layout, sequence_logps, token_logps
from cai.training.packing import Layout, TokenGroup, micro_batches, pack

VOCABULARY = 300
CPU = torch.device("cpu")


def make_model(architecture: Architecture, **overrides: Any) -> Any:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(make_config(architecture, VOCABULARY, **overrides)).eval()


@pytest.fixture(scope="module", params=ARCHITECTURES)
def model(request: pytest.FixtureRequest) -> Any:
    return make_model(request.param)


def make_groups() -> list[TokenGroup]:
    """Unequal lengths; replies of one token, with a common beginning, one the beginning of the other, and three of them."""
    draw = torch.Generator().manual_seed(1)

    def ids(count: int) -> tuple[int, ...]:
        return tuple(torch.randint(1, VOCABULARY, (count,), generator=draw).tolist())

    same = ids(3)
    return [
        TokenGroup(ids(5), (ids(4), ids(7))),
        TokenGroup(ids(1), (ids(1), ids(2))),
        TokenGroup(ids(9), ((*same, *ids(2)), (*same, *ids(4)))),
        TokenGroup(ids(3), (same, (*same, *ids(2)))),
        TokenGroup(ids(4), (ids(3), ids(2), ids(5))),
        TokenGroup(ids(6), (ids(4),)),
    ]


def one_at_a_time(model: Any, groups: list[TokenGroup]) -> list[float]:
    """Each conversation alone, no padding, no mask; the sum in Python."""
    sums: list[float] = []
    for group in groups:
        for reply in group.replies:
            ids = torch.tensor([[*group.prompt_ids, *reply]])
            with torch.no_grad():
                logps = model(input_ids=ids).logits[0].double().log_softmax(-1)
            first = len(group.prompt_ids)
            sums.append(sum(logps[first + at - 1, token].item() for at, token in enumerate(reply)))
    return sums


@pytest.mark.parametrize("layout", ["padded", "shared"])
def test_replies_score_in_a_batch_what_they_score_alone(model: Any, layout: Layout) -> None:
    groups = make_groups()  # shorter than the window of 32 that some of these models attend through
    scorer = ReplyScorer(model)
    with torch.no_grad():
        found = scorer.logps(model, pack(groups, layout)).tolist()
    scorer.close()
    assert found == pytest.approx(one_at_a_time(model, groups), abs=2e-4)


def test_both_layouts_give_the_same_gradients(model: Any) -> None:
    """Shared tokens are computed once and learn from every reply that stands on them."""
    groups = make_groups()
    weights = torch.arange(1.0, 1 + sum(len(group.replies) for group in groups), dtype=torch.float64)
    gradients: dict[str, list[torch.Tensor]] = {}
    layouts: tuple[Layout, Layout] = ("padded", "shared")
    for layout in layouts:
        model.zero_grad()
        scorer = ReplyScorer(model)
        (scorer.logps(model, pack(groups, layout)) * weights).sum().backward()
        scorer.close()
        gradients[layout] = [weight.grad.clone() for weight in model.parameters() if weight.grad is not None]
    for padded, shared in zip(gradients["padded"], gradients["shared"], strict=True):
        torch.testing.assert_close(shared, padded, rtol=2e-3, atol=2e-3)


def test_a_closed_scorer_leaves_the_model_as_it_was(model: Any) -> None:
    ids = torch.tensor([[5, 6, 7]])
    before = model(input_ids=ids).logits
    scorer = ReplyScorer(model)
    assert torch.equal(model(input_ids=ids).logits, before), "the head is changed while nothing is scored"
    scorer.close()
    assert model(input_ids=ids).logits.shape == (1, 3, VOCABULARY)


# ---- which layout


def test_ordinary_attention_takes_the_shared_layout(model: Any) -> None:
    scorer = ReplyScorer(model)
    assert choose_layout(model, scorer, make_groups(), CPU) == ("shared", "")
    scorer.close()


@pytest.mark.parametrize("architecture", ["mistral", "gemma3"])
def test_a_window_shorter_than_the_pair_falls_back(architecture: Architecture) -> None:
    """In a shared row the neighbours of the second reply are the first reply: a window would count the wrong ones."""
    model = make_model(architecture)
    scorer = ReplyScorer(model)
    long = TokenGroup(tuple(range(1, 30)), ((30, 31, 32), (33, 34, 35, 36)))
    layout, reason = choose_layout(model, scorer, [*make_groups(), long], CPU)
    assert layout == "padded"
    assert "32 tokens back" in reason
    with torch.no_grad():
        assert scorer.logps(model, pack([long], "padded")).tolist() == pytest.approx(one_at_a_time(model, [long]), abs=2e-4)


def test_a_state_space_model_falls_back() -> None:
    """It takes a block mask without complaint, and carries the first reply's state into the second."""
    from transformers import MambaConfig

    torch.manual_seed(0)
    config = MambaConfig(vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, state_size=4)
    model: Any = AutoModelForCausalLM.from_config(config).eval()
    scorer = ReplyScorer(model)
    layout, reason = choose_layout(model, scorer, make_groups(), CPU)
    assert layout == "padded"
    assert reason


def test_kernels_without_block_masks_fall_back() -> None:
    model = make_model("llama")
    model.config._attn_implementation = "flash_attention_2"
    layout, reason = choose_layout(model, ReplyScorer(model), make_groups(), CPU)
    assert layout == "padded"
    assert "flash_attention_2" in reason


def test_rows_of_one_reply_need_no_sharing() -> None:
    model = make_model("llama")
    assert choose_layout(model, ReplyScorer(model), [TokenGroup((1,), ((2, 3),))], CPU)[0] == "padded"


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


TOKENS = st.lists(st.integers(0, 3), min_size=1, max_size=6).map(tuple)
GROUPS = st.lists(st.builds(TokenGroup, TOKENS, st.lists(TOKENS, min_size=1, max_size=3).map(tuple)), min_size=1, max_size=5)


@given(GROUPS, st.sampled_from(["shared", "padded"]))
def test_every_reply_token_is_predicted_from_just_what_stands_before_it(groups: list[TokenGroup], layout: Layout) -> None:
    """Follow the mask back from each scored slot: prompt and reply up to there, in their order, and nothing else."""
    batch = pack(groups, layout)
    T = batch.input_ids.shape[1]
    replies = [(group.prompt_ids, reply) for group in groups for reply in group.replies]
    assert batch.sequence_lengths == tuple(len(reply) for _, reply in replies)
    seen_tokens = [0] * len(replies)
    for slot, sequence in zip(batch.slot_of.tolist(), batch.sequence_of.tolist(), strict=True):
        b, t = divmod(int(batch.slots[slot]), T)
        prompt, reply = replies[sequence]
        at = seen_tokens[sequence]
        seen_tokens[sequence] += 1
        assert batch.targets[slot] == reply[at]
        visible = batch.mask[b, 0, t] if batch.mask.dim() == 4 else batch.mask[b].bool() & (torch.arange(T) <= t)
        ordered = sorted(visible.nonzero()[:, 0].tolist(), key=lambda place: int(batch.position_ids[b, place]))
        assert [int(batch.input_ids[b, place]) for place in ordered] == [*prompt, *reply[:at]]
        assert [int(batch.position_ids[b, place]) for place in ordered] == list(range(len(prompt) + at))
    assert seen_tokens == [len(reply) for _, reply in replies]


@given(GROUPS, st.sampled_from(["shared", "padded"]), st.integers(1, 60))
def test_passes_hold_every_row_once_and_no_more_positions_than_allowed(
    groups: list[TokenGroup], layout: Layout, tokens: int
) -> None:
    numbered = list(enumerate(groups))
    passes = micro_batches(numbered, lambda pair: pair[1], layout, tokens)
    assert sorted(number for batch in passes for number, _ in batch) == list(range(len(groups)))
    for batch in passes:
        positions = pack([group for _, group in batch], layout).tokens
        assert positions <= tokens or len(batch) == 1
        assert positions >= max(sum(group.row_lengths(layout)) for _, group in batch)


@settings(max_examples=20)
@given(GROUPS)
def test_sharing_never_costs_positions(groups: list[TokenGroup]) -> None:
    for group in groups:
        assert sum(group.row_lengths("shared")) <= sum(group.row_lengths("padded"))
