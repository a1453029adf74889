"""TRL (checked against 1.16): preferences for `DPOTrainer`, whole conversations for `RewardTrainer`, rows for `SFTTrainer`."""

from __future__ import annotations

import math
from collections.abc import Sequence

from cai.data.exporting.formats import (
    CONVERSATION_COLUMNS,
    ORIGIN_COLUMNS,
    REPLY_COLUMNS,
    ROW_ORIGIN_COLUMNS,
    ExportFormat,
    Limit,
    Notes,
    SoftLabels,
    Table,
    Unfit,
    origin,
    row_origin,
    whole_conversations,
)
from cai.data.rows import Row, preference_row
from cai.records import PreferenceRecord
from constitution.messages import Message
from constitution.rendering import PLAIN_SPEAKERS, PLAIN_STOPS, render_plain

LARGEST_MARGIN_NATS = math.log(0.99 / 0.01)
"""The margin of a certain label: its log-odds would be infinite, and a reward model would never reach them."""

PREFERENCE_COLUMNS = {
    "prompt": "the conversation so far",
    "chosen": "the better reply: one assistant message",
    "rejected": "the worse one",
    **ORIGIN_COLUMNS,
    "margin_nats": "log-odds of the label, before temperature and limits",
    "chosen_source": "draft, revision or sample",
    "rejected_source": "likewise",
    "method": "how the label was made",
    "principle_ids": "the principles that judged the pair",
}
_DPO = Limit("TRL's DPOTrainer", "max_length", 1024, "cut at their end")
_REWARD = Limit("TRL's RewardTrainer", "max_length", 1024, "left out")
_SFT = Limit("TRL's SFTTrainer", "max_length", 1024, "cut at their end")


def _preference(pair: PreferenceRecord, _: Notes) -> Row:
    return preference_row(pair)


def _reward(pair: PreferenceRecord, _: Notes) -> Row:
    return {**whole_conversations(pair), "margin": margin_nats(pair.p_chosen)}


def margin_nats(p_chosen: float) -> float:
    """The difference of rewards that a label stands for: its log-odds (Bradley and Terry), at most those of 0.99."""
    return LARGEST_MARGIN_NATS if p_chosen >= 0.99 else math.log(p_chosen / (1.0 - p_chosen))


def _supervised(row: Row, _: Notes) -> Row:
    *prompt, reply = row["messages"]
    return {"prompt": prompt, "completion": [reply], **row_origin(row)}


def _plain_preference(pair: PreferenceRecord, _: Notes) -> Row:
    _refuse_speakers(*(each.content for each in pair.prompt), pair.chosen, pair.rejected)
    return {
        "prompt": _plain_prompt(pair.prompt),
        "chosen": f" {pair.chosen}",
        "rejected": f" {pair.rejected}",
        **origin(pair),
    }


def _plain_supervised(row: Row, _: Notes) -> Row:
    _refuse_speakers(*(each["content"] for each in row["messages"]))
    *prompt, reply = (Message.model_validate(each) for each in row["messages"])
    return {
        "prompt": _plain_prompt(prompt),
        "completion": f" {reply.content}",
        **row_origin(row),
    }


def _plain_prompt(messages: Sequence[Message]) -> str:
    """As `base_model_form: plain` puts it to a base model."""
    return render_plain(messages).removeprefix("\n\n") + f"\n\n{PLAIN_SPEAKERS['assistant']}:"


def _refuse_speakers(*texts: str) -> None:
    if any(stop in text for text in texts for stop in PLAIN_STOPS):
        raise Unfit("a text holds the mark of another speaker's turn (a blank line, then `Human:` or the like)")


_SFT_OPTIONS = (
    "SFTTrainer learns the `completion` only, since there is one (`completion_only_loss`); a `messages` column would teach it "
    "the users' turns, too."
)
_LABELS = "DPOTrainer drops the column `p_chosen` unread; its one `label_smoothing` is the same for all pairs."

TRL = ExportFormat(
    name="trl",
    title="TRL, conversational: DPOTrainer, RewardTrainer, SFTTrainer",
    container="jsonl",
    pairs=(
        Table(
            "preferences",
            _preference,
            PREFERENCE_COLUMNS,
            '`DPOTrainer(train_dataset=load_dataset("json", data_files="{file}", split="train"), …)`',
            _DPO,
            SoftLabels.BESIDE,
        ),
        Table(
            "reward",
            _reward,
            {**CONVERSATION_COLUMNS, "margin": "log-odds of `p_chosen` in nats, at most those of 0.99"},
            '`RewardTrainer(train_dataset=load_dataset("json", data_files="{file}", split="train"), …)`',
            _REWARD,
            SoftLabels.MARGIN,
        ),
    ),
    supervised=(
        Table(
            "sft",
            _supervised,
            {
                "prompt": "the conversation so far",
                "completion": "the reply to learn: one assistant message",
                **ROW_ORIGIN_COLUMNS,
            },
            '`SFTTrainer(train_dataset=load_dataset("json", data_files="{file}", split="train"), …)`',
            _SFT,
        ),
    ),
    tools=True,
    options=(
        _LABELS,
        "RewardTrainer reads `margin` and subtracts it from the difference of the rewards; remove the column to train without.",
        _SFT_OPTIONS,
    ),
)

TRL_STANDARD = ExportFormat(
    name="trl-standard",
    title="TRL, standard: prompts and replies as Human/Assistant text, for base models",
    container="jsonl",
    pairs=(
        Table(
            "preferences",
            _plain_preference,
            {"prompt": "the conversation as text", **REPLY_COLUMNS},
            '`DPOTrainer(train_dataset=load_dataset("json", data_files="{file}", split="train"), …)`',
            _DPO,
            SoftLabels.BESIDE,
        ),
    ),
    supervised=(
        Table(
            "sft",
            _plain_supervised,
            {"prompt": "the conversation as text", "completion": "the reply to learn", **ROW_ORIGIN_COLUMNS},
            '`SFTTrainer(train_dataset=load_dataset("json", data_files="{file}", split="train"), …)`',
            _SFT,
        ),
    ),
    several_turns="kept, as text with the speakers' names",
    system_turns="kept, as text with the speaker `System`",
    options=(_LABELS, _SFT_OPTIONS, "TRL adds the end-of-text token to each reply."),
    plain_text=True,
)
