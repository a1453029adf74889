"""Inverse Constitutional AI's annotated pairs, version 2.0 (checked against inverse-cai 0.4.8): who prefers what.

The default annotator is the label; each principle that judged is an annotator, too. Which of the two replies stands as `a` is
drawn by the pair's name, since a judge that reads them may lean to one place.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from cai.data.exporting.formats import ORIGIN_COLUMNS, ExportFormat, Judge, Notes, SoftLabels, Table, origin
from cai.data.rows import Row
from cai.records import PreferenceRecord
from constitution.rendering import render_plain

VERSION = "2.0"
DEFAULT_ANNOTATOR = "label:ai-feedback"
SEVERAL_TURNS = "prompt of several turns written as Human/Assistant text: the format has one text for it"


def _comparison(pair: PreferenceRecord, notes: Notes) -> Row:
    name = f"{pair.uid}/{pair.replica}/{pair.number}"
    better, worse = ("a", "b") if hashlib.sha256(name.encode()).digest()[0] % 2 else ("b", "a")
    if len(pair.prompt) == 1:
        prompt = pair.prompt[0].content
    else:
        prompt = render_plain(pair.prompt).removeprefix("\n\n")
        notes[SEVERAL_TURNS] += 1
    votes = {principle: {"pref": better if agrees else worse} for principle, agrees in principle_votes(pair).items()}
    return {
        "id": name,
        "prompt": prompt,
        f"response_{better}": {"text": pair.chosen},
        f"response_{worse}": {"text": pair.rejected},
        "annotations": {DEFAULT_ANNOTATOR: {"pref": better}, **votes},
        "metadata": {name: str(value) for name, value in origin(pair).items()},
    }


def principle_votes(pair: PreferenceRecord) -> dict[str, bool]:
    """Principle → whether it prefers the chosen reply, both orders and all labellers together; without a lean, no vote."""
    margins: defaultdict[str, float] = defaultdict(float)
    for each in pair.comparisons:
        margins[each.principle_id] += each.margin_nats
    return {principle: (margin > 0) == pair.chosen_is_first for principle, margin in margins.items() if margin}


def _head(constitution: str, judges: Sequence[Judge]) -> dict[str, Any]:
    label = {
        "name": "preferred_text",
        "type": "unknown",
        "description": f"AI feedback under the constitution {constitution}: the label of the pair",
    }
    return {
        "metadata": {
            "version": VERSION,
            "description": f"Pairs labelled by AI feedback under the constitution {constitution}",
            "dataset_name": constitution,
            "default_annotator": DEFAULT_ANNOTATOR,
            "available_metadata_keys_per_comparison": list(ORIGIN_COLUMNS),
        },
        "annotators": {DEFAULT_ANNOTATOR: label}
        | {each.id: {"type": "principle", "description": each.text} for each in judges},
    }


INVERSE_CAI = ExportFormat(
    name="inverse-cai",
    title="Inverse Constitutional AI: annotated pairs",
    container="json",
    pairs=(
        Table(
            "annotated_pairs",
            _comparison,
            {
                "id": "the pair's name: `uid/replica/number`",
                "prompt": "the user's text",
                "response_a, response_b": "the two replies, in an order drawn by the pair's name",
                "annotations": "what the label (`label:ai-feedback`) and each principle prefers",
                "metadata": f"{', '.join(f'`{name}`' for name in ORIGIN_COLUMNS)} as text",
            },
            '`inverse_cai.data.loader.standard.load("{file}")`, or `icai-exp data_path={file}`',
            None,
            SoftLabels.BESIDE,
        ),
    ),
    several_turns="written as one Human/Assistant text",
    system_turns="written into that text",
    options=("`p_chosen` stands in each comparison's metadata.",),
    head=_head,
)
