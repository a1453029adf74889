r"""hh-rlhf (arXiv 2204.05862): `chosen` and `rejected` as transcripts with `\n\nHuman:` and `\n\nAssistant:`."""

from __future__ import annotations

from cai.data.exporting.formats import ExportFormat, Notes, SoftLabels, Table, Unfit
from cai.data.rows import Row
from cai.data.transcripts import ASSISTANT, HUMAN
from cai.records import PreferenceRecord


def _preference(pair: PreferenceRecord, _: Notes) -> Row:
    if any(each.role == "system" for each in pair.prompt):
        raise Unfit("a system turn, for which there is no speaker in this format")
    if any(
        mark in text for text in (*(m.content for m in pair.prompt), pair.chosen, pair.rejected) for mark in (HUMAN, ASSISTANT)
    ):
        raise Unfit("a text holds a marker of the format (a blank line, then `Human:` or `Assistant:`)")
    prompt = "".join(f"{HUMAN if each.role == 'user' else ASSISTANT} {each.content}" for each in pair.prompt)
    return {name: f"{prompt}{ASSISTANT} {reply}" for name, reply in (("chosen", pair.chosen), ("rejected", pair.rejected))}


HH_RLHF = ExportFormat(
    name="hh-rlhf",
    title="hh-rlhf: pairs of transcripts",
    container="jsonl",
    pairs=(
        Table(
            "preferences",
            _preference,
            {"chosen": "the transcript with the better reply", "rejected": "the same with the worse one"},
            '`load_dataset("json", data_files="{file}", split="train")`',
            None,
            SoftLabels.NONE,
        ),
    ),
    system_turns="the row is left out",
    options=("The format has two texts a row and no more: no labels' strength, no origin.",),
)
