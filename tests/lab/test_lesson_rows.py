"""Packed lessons: exactly the tokens of the loop's own conversations, shared prefix once, branches blind to each other."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from cai.lab.critiques import Branch
from cai.lab.lesson_rows import Part, Row, as_principle, batches, conversation, encode_branch, pack
from cai.lab.teacher import Lesson, lesson
from cai.lab.world import World
from constitution.messages import assistant
from constitution.rendering import render_critique, render_revision
from tests.checkpoints import make_tokenizer

LESSONS = [lesson(World.load(), {}, 0, index) for index in range(6)]


@cache
def tokenizer() -> PreTrainedTokenizerFast:
    return make_tokenizer("llama")


def branch_tokens(row: Row, number: int) -> torch.Tensor:
    """Places of branch `number`'s own tokens."""
    start = row.prefix + sum(row.lengths[:number])
    return torch.arange(start, start + row.lengths[number])


@pytest.mark.parametrize("one", LESSONS, ids=range(len(LESSONS)))
def test_prefix_and_branch_together_are_the_whole_rendered_conversation(one: Lesson) -> None:
    row = pack(tokenizer(), one)
    assert len(row.ids) == row.prefix + sum(row.lengths)
    for number, branch in enumerate(one.branches):
        turns = [turn.model_dump() for turn in conversation(one.messages, branch)]
        whole = tokenizer().apply_chat_template(turns, tokenize=True, return_dict=False)
        places = branch_tokens(row, number)
        assert [*row.ids[: row.prefix].tolist(), *row.ids[places].tolist()] == whole
        assert row.positions[places].tolist() == list(range(row.prefix, len(whole)))


@pytest.mark.parametrize("one", LESSONS[:4], ids=range(4))
def test_conversation_is_the_one_the_loop_asks_with(one: Lesson) -> None:
    *before, reply = one.messages
    for branch in one.branches:
        turns = conversation(one.messages, branch)
        principle = as_principle(branch)
        if branch.revision is None:
            assert turns[:-1] == render_critique(principle, tuple(before), reply.content)
            assert turns[-1] == assistant(branch.critique)
        else:
            assert turns[:-1] == render_revision(principle, tuple(before), reply.content, branch.critique)
            assert turns[-1] == assistant(branch.revision)


def test_branches_see_the_prefix_and_their_own_past_only() -> None:
    row = pack(tokenizer(), LESSONS[0])
    mask = row.mask()
    for number in range(len(row.lengths)):
        for place in branch_tokens(row, number).tolist():
            seen = set(mask[place].nonzero()[:, 0].tolist())
            own = {p for p in branch_tokens(row, number).tolist() if p <= place}
            assert seen == set(range(row.prefix)) | own
    assert torch.equal(mask[: row.prefix, : row.prefix], torch.ones(row.prefix, row.prefix, dtype=torch.bool).tril())


@pytest.mark.parametrize("one", LESSONS, ids=range(len(LESSONS)))
def test_every_learned_token_is_predicted_from_its_predecessor_in_its_own_conversation(one: Lesson) -> None:
    row = pack(tokenizer(), one)
    learned, mask = row.parts.nonzero()[:, 0], row.mask()
    for place, before in zip(learned.tolist(), row.predictors().tolist(), strict=True):
        assert row.positions[before] == row.positions[place] - 1
        assert mask[place, before]


@pytest.mark.parametrize("one", LESSONS, ids=range(len(LESSONS)))
def test_parts_spell_critique_verdict_and_revision(one: Lesson) -> None:
    for branch in one.branches:
        ids, parts = encode_branch(tokenizer(), one.messages, branch)
        spelled: dict[Part, str] = {}
        for part in Part:
            tokens = [token for token, its_part in zip(ids, parts, strict=True) if its_part == part]
            spelled[part] = str(tokenizer().decode(tokens))
        assert parts.count(Part.VERDICT) == 1
        assert spelled[Part.GROUND].strip() == branch.critique[: branch.verdict_start].strip()
        critique = spelled[Part.GROUND] + spelled[Part.VERDICT] + spelled[Part.FAULT]
        assert critique == branch.critique + "<|im_end|>"
        assert spelled[Part.REVISION] == ("" if branch.revision is None else branch.revision + "<|im_end|>")


def test_critique_without_a_verdict_is_refused() -> None:
    branch = Branch("other", "Be brief.", None, None, "It asks for brevity. Fine.", 21, None)
    with pytest.raises(ValueError, match="no verdict at character 21"):
        encode_branch(tokenizer(), LESSONS[0].messages, branch)


def test_batches_leave_out_a_last_short_one() -> None:
    rows = [pack(tokenizer(), one) for one in LESSONS[:5]]
    assert [len(batch) for batch in batches(rows, 2)] == [2, 2]
