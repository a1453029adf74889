"""The card of a data set: a README.md that says what is in it, how it came about and what was left out.

Front matter as the hub and `datasets` read it: `load_dataset(FOLDER, "preferences")` finds the file.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from cai.records import PreferenceRecord


@dataclass(frozen=True, slots=True)
class LengthGap:
    """How much longer chosen replies are than rejected ones, in characters: training learns length, too, if they are."""

    mean: float
    median: float
    chosen_longer_share: float


@dataclass(frozen=True, slots=True)
class DatasetFacts:
    """What a card tells; plain values.

    Args:
        name: Title of the data set.
        files: Data files beside the card: configuration name (`sft`, `preferences`) → file name, or a pattern for several.
            All of one format: `datasets` reads a folder with one reader.
        rows: Rows in each of them, by the same names.
        ledger: Every outcome with its count, as `outcome` or `outcome: reason`.
        models: Role (`policy`, `feedback` …) → model and revision.
        constitution: Its name.
        constitution_fingerprint: Its fingerprint.
        seed: The run's seed.
        kept_share: Share of drafts kept as they were, in [0, 1]; None when there is no revision record.
        length_gap: Of the preference rows; None when there are none.
        settings: Anything else worth knowing, name → value.
    """

    name: str
    files: Mapping[str, str]
    rows: Mapping[str, int]
    ledger: Mapping[str, int]
    models: Mapping[str, str]
    constitution: str
    constitution_fingerprint: str
    seed: int = 0
    kept_share: float | None = None
    length_gap: LengthGap | None = None
    settings: Mapping[str, str] = field(default_factory=dict[str, str])


class LengthGaps:
    """Gaps of pairs, counted while they go by; memory grows with the lengths there are, not with the pairs."""

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()

    def add(self, pair: PreferenceRecord) -> None:
        self._counts[len(pair.chosen) - len(pair.rejected)] += 1

    def result(self) -> LengthGap | None:
        """Of all pairs that were added; None without any."""
        total = self._counts.total()
        if not total:
            return None
        ordered = sorted(self._counts.items())
        below = list(accumulate(count for _, count in ordered))
        middle = [ordered[bisect_right(below, place)][0] for place in ((total - 1) // 2, total // 2)]
        longer = sum(count for gap, count in ordered if gap > 0)
        return LengthGap(sum(gap * count for gap, count in ordered) / total, sum(middle) / 2, longer / total)


def dataset_card(facts: DatasetFacts) -> str:
    """The card, as Markdown. Values are written as text: markup in them does not become markup."""
    parts = [_front_matter(facts), f"# {_text(facts.name)}", _introduction(facts)]
    parts += ["## Files", _table(("configuration", "file", "rows"), [(n, facts.files[n], facts.rows[n]) for n in facts.files])]
    total = sum(facts.ledger.values())
    outcomes = [(outcome, count, f"{count / total:.1%}" if total else "–") for outcome, count in facts.ledger.items()]
    parts += [
        "## What became of every input",
        _table(("outcome", "items", "share"), [*outcomes, ("all", total, "100.0%" if total else "–")]),
    ]
    parts += ["## Properties", _properties(facts), "## Columns", _COLUMNS]
    return "\n\n".join(parts) + "\n"


_COLUMNS = """\
- `messages` (sft): the conversation with the reply to learn as its last turn.
- `prompt`, `chosen`, `rejected` (preferences): the conversation so far, and one assistant message each.
- `p_chosen`: probability, by AI feedback, that `chosen` is the better reply, in [0.5, 1]; `margin_nats`: its log-odds.
- `uid`, `replica`: the input row and the number of its sample; `principle_ids`: the principles applied; `changed`: whether a
  critique led to a revision; `chosen_source`: draft, revision or sample; `method`: how the label was made."""


def _front_matter(facts: DatasetFacts) -> str:
    lines = ["---", "tags:", "- constitutional-ai", "- synthetic"]
    if facts.files:
        lines.append("configs:")
        for name, file in facts.files.items():
            lines += [f"- config_name: {name}", f"  data_files: {file}"]
    return "\n".join([*lines, "---"])


def _introduction(facts: DatasetFacts) -> str:
    return (
        f"Synthetic rows made by Constitutional AI (arXiv 2212.08073) under the constitution {_text(facts.constitution)} "
        f"(`{facts.constitution_fingerprint[:16]}`): a model's drafts, criticised and revised by principle, and pairs labelled "
        "by AI feedback. The labels are a model's, not people's. Drafts and rejected replies may be wrong or harmful: they are "
        "data, not advice."
    )


def _properties(facts: DatasetFacts) -> str:
    lines: list[tuple[str, object]] = [(f"model: {role}", model) for role, model in facts.models.items()]
    lines.append(("seed", facts.seed))
    if facts.kept_share is not None:
        lines.append(("drafts kept as they were", f"{facts.kept_share:.1%}"))
    if (gap := facts.length_gap) is not None:
        lines.append(("chosen − rejected, characters", f"mean {gap.mean:+.1f}, median {gap.median:+.1f}"))
        lines.append(("pairs whose chosen reply is longer", f"{gap.chosen_longer_share:.1%}"))
    return _table(("property", "value"), [*lines, *facts.settings.items()])


def _table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(_text(str(cell)) if cell != "---" else "---" for cell in line) + " |" for line in lines)


def _text(value: str) -> str:
    escaped = re.sub(r"([\\`*_{}\[\]|~])", r"\\\1", " ".join(value.split()))
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
