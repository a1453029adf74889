"""Where prompts come from: the settings of the reader."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

PromptsFormat: TypeAlias = Literal["auto", "jsonl", "csv", "parquet", "txt", "datasets", "hub", "transcripts"]

COLUMNS = ("messages", "conversations", "prompt", "question", "instruction", "chosen")
"""Columns that hold a prompt or a conversation, in the order in which they are looked for."""


class PromptsSource(BaseModel):
    """A file, a folder or a hub id with prompts, and how to read it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: Annotated[
        str,
        Field(
            min_length=1,
            description="A file (.jsonl, .csv, .parquet, .txt …; .gz too), a `datasets` folder or a hub id `owner/name[@rev]`.",
        ),
    ]
    format: Annotated[
        PromptsFormat, Field(description="`auto` goes by the name; `transcripts` reads hh-rlhf's Human/Assistant texts.")
    ] = "auto"
    column: Annotated[
        str | None,
        Field(description=f"Column with the prompt or conversation; null: the first there is of {', '.join(COLUMNS)}."),
    ] = None
    id_column: Annotated[
        str | None, Field(description="Column with a row's own id; null: `uid`, `id`, else a hash of the content.")
    ] = None
    split: Annotated[
        str | None, Field(description="Split of a `datasets` folder or hub data set; null: the only one, or `train`.")
    ] = None
    limit: Annotated[int | None, Field(ge=1, description="Read only so many prompts; null: all.")] = None
    shuffle_seed: Annotated[
        int | None,
        Field(ge=0, description="Draw the order (and, with `limit`, the choice) by this seed; null: order of the file."),
    ] = None
    system: Annotated[str | None, Field(description="System message for prompts that have none of their own.")] = None
    tags: Annotated[tuple[str, ...], Field(description="Tags for every prompt, besides those of its `tags` column.")] = ()
    last_reply: Annotated[
        Literal["refuse", "drop"],
        Field(description="A conversation that ends with the assistant: count it as a broken row, or drop that reply."),
    ] = "refuse"
    max_bad_share: Annotated[
        float, Field(ge=0.0, le=1.0, description="More broken rows than this share, and the whole source is refused.")
    ] = 0.05
