"""What a format of an export is: which tables it has, what a row of each looks like, and what it cannot carry.

Pure descriptions and functions from a row of ours to a row of theirs; reads and writes no files.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Generic, Literal, TypeAlias, TypeVar

from cai.data.rows import TOOLS, Row, reply_turn, tools_column
from cai.models.tool_turns import template_turns
from cai.records import PreferenceRecord
from constitution.messages import Message

Notes: TypeAlias = Counter[str]
"""What was done to texts so that they fit, in words → rows."""
Container: TypeAlias = Literal["jsonl", "parquet", "datasets", "json"]
Given = TypeVar("Given")


class Unfit(ValueError):
    """A row that a format cannot hold. The text is the reason, in the same words for all such rows."""


class SoftLabels(Enum):
    """What becomes of `p_chosen` where a trainer reads the table."""

    USED = "`p_chosen` is a column, and `cai dpo` trains on it as a soft label"
    MARGIN = "as `margin`, the log-odds of `p_chosen`, which the trainer asks the rewards to differ by"
    BESIDE = "`p_chosen` stands beside each pair, and the trainer does not read it: it takes every pair as certain"
    NONE = "the format has no place for them: every pair that is written counts as certain"


@dataclass(frozen=True, slots=True)
class Limit:
    """The longest row that a trainer takes when nobody sets another.

    Args:
        trainer: Whose, in words.
        setting: Its name there.
        tokens: Prompt and reply together.
        beyond: What becomes of longer rows.
    """

    trainer: str
    setting: str
    tokens: int
    beyond: str


@dataclass(frozen=True)
class Table(Generic[Given]):
    """One kind of rows of a format.

    Args:
        name: Of the file, and of the configuration in the card.
        row: Makes a row; may note what it had to change. Raises `Unfit`.
        columns: Name → what it holds.
        use: How a program is told to load it, as text for the card; `{file}` stands for the file.
        limit: Of the trainer that reads it; None where there is none.
        labels: What becomes of soft labels; None for supervised rows.
    """

    name: str
    row: Callable[[Given, Notes], Row]
    columns: Mapping[str, str]
    use: str
    limit: Limit | None = None
    labels: SoftLabels | None = None


@dataclass(frozen=True)
class Judge:
    """One principle's part in the labels, for formats that tell it."""

    id: str
    text: str


@dataclass(frozen=True)
class ExportFormat:
    """A format.

    Args:
        name: As the command line takes it.
        title: What it is, in words.
        container: Of its files.
        pairs: Tables of preferences.
        supervised: Tables of supervised rows, made of those of `cai.data.rows.sft_rows`.
        several_turns: What becomes of prompts of several turns.
        system_turns: What becomes of system turns.
        options: What to tell who trains on it, one sentence each.
        tools: Calls of tools have a place in it; without, conversations with tools are left out.
        plain_text: Lengths are those of Human/Assistant text, not of the chat template's.
        split_names: Table → names of its training and its test part, where they are not `train` and `test`.
        extras: Further files, by name; given the files of each table (table → split → path).
        head: What a `json` file holds besides its rows; given the principles that judged.
    """

    name: str
    title: str
    container: Container
    pairs: tuple[Table[PreferenceRecord], ...]
    supervised: tuple[Table[Row], ...] = ()
    several_turns: str = "kept"
    system_turns: str = "kept"
    options: tuple[str, ...] = ()
    plain_text: bool = False
    tools: bool = False
    split_names: Mapping[str, tuple[str, str]] = field(default_factory=dict[str, tuple[str, str]])
    extras: Callable[[Mapping[str, Mapping[str, str]]], Mapping[str, str]] | None = None
    head: Callable[[str, Sequence[Judge]], Mapping[str, Any]] | None = None


def turns(messages: Sequence[Message]) -> list[dict[str, str]]:
    """Messages as nearly every program takes them."""
    return [{"role": each.role, "content": each.content} for each in messages]


def turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def origin(pair: PreferenceRecord) -> Row:
    """The columns of a pair that trainers leave alone: how sure its label is, and where it comes from."""
    return {
        "p_chosen": pair.p_chosen,
        "label_source": pair.label_source,
        "uid": pair.uid,
        "replica": pair.replica,
        "number": pair.number,
    }


def row_origin(row: Row) -> Row:
    """The columns of a supervised row beside its messages: where it comes from, and its tools, where it has any."""
    return {"uid": row["uid"], "replica": row["replica"]} | ({TOOLS: row[TOOLS]} if TOOLS in row else {})


def whole_conversations(pair: PreferenceRecord) -> Row:
    """A pair without a prompt of its own: both conversations to their end, and its origin."""
    conversation = template_turns(pair.prompt)
    return {
        "chosen": [*conversation, reply_turn(pair.prompt, pair.chosen)],
        "rejected": [*conversation, reply_turn(pair.prompt, pair.rejected)],
        **tools_column(pair.prompt),
        **origin(pair),
    }


ROW_ORIGIN_COLUMNS = {"uid": "the input row", "replica": "the number of its sample"}
ORIGIN_COLUMNS = {
    "p_chosen": "probability that `chosen` is the better reply, in [0.5, 1]",
    "label_source": "who says so: `ai`, a model, or `people`, who beat it",
    **ROW_ORIGIN_COLUMNS,
    "number": "of the pair, among those of its input row",
}
REPLY_COLUMNS = {"chosen": "the better reply", "rejected": "the worse one", **ORIGIN_COLUMNS}
"""Of a pair, beside its prompt."""
CONVERSATION_COLUMNS = {
    "chosen": "the conversation with the better reply",
    "rejected": "the same with the worse one",
    **ORIGIN_COLUMNS,
}
"""Of `whole_conversations`."""
