"""The rows as they are, in full: JSON Lines, Parquet, or `datasets` on disk. What `cai sft` and `cai dpo` read back."""

from __future__ import annotations

from cai.data.exporting.formats import ROW_ORIGIN_COLUMNS, Container, ExportFormat, Limit, Notes, SoftLabels, Table
from cai.data.exporting.trl import PREFERENCE_COLUMNS
from cai.data.rows import Row, preference_row
from cai.records import PreferenceRecord

SFT_COLUMNS = {
    "messages": "the conversation, with the reply to learn as its last turn",
    **ROW_ORIGIN_COLUMNS,
    "changed": "whether a critique led to a revision",
    "principle_ids": "the principles applied",
}
_DPO = Limit("cai dpo", "dpo.max_length_tokens", 1024, "left out")
_SFT = Limit("cai sft", "sft.max_length_tokens", 1024, "left out")


def _preference(pair: PreferenceRecord, _: Notes) -> Row:
    return preference_row(pair)


def _supervised(row: Row, _: Notes) -> Row:
    return row


def _plain(container: Container, title: str, use: str) -> ExportFormat:
    return ExportFormat(
        name=container,
        title=title,
        container=container,
        pairs=(Table("preferences", _preference, PREFERENCE_COLUMNS, use, _DPO, SoftLabels.USED),),
        supervised=(Table("sft", _supervised, SFT_COLUMNS, use, _SFT),),
        tools=True,
        options=("`cai dpo --data` reads `p_chosen` as a soft label; other trainers that read these columns do not.",),
    )


JSONL = _plain("jsonl", "JSON Lines", '`load_dataset("json", data_files="{file}", split="train")`')
PARQUET = _plain("parquet", "Parquet", '`load_dataset("parquet", data_files="{file}", split="train")`')
DATASETS = _plain("datasets", "a `datasets` folder, memory-mapped", '`load_from_disk("{file}")`')
