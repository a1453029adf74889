"""The card of a data set: a README.md that says what is in it, how it came about, what was left out and where its limits lie.

Front matter as the hub and `datasets` read it: `load_dataset(FOLDER, "preferences")` finds the file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from cai.data.front_matter import front_matter
from cai.data.length_gaps import LengthGap
from cai.data.markdown import prose, table, text

LEANS_TO_LENGTH = 0.6
"""Share of pairs whose chosen reply is the longer one, from which on the card warns of it."""
FEW_PAIRS = 500


@dataclass(frozen=True, slots=True)
class FilterFact:
    """One rule: its name, what it does, how many rows it left out, in how many it found something, and what it looks for."""

    rule: str
    action: str
    rows: int
    found: int
    meaning: str = ""


@dataclass(frozen=True, slots=True)
class DatasetFacts:
    """What a card tells; plain values.

    Args:
        name: Title of the data set.
        files: Data files beside the card: configuration name (`sft`, `preferences`) → part (`train`) → file name, or a pattern
            for several. All of one format: `datasets` reads a folder with one reader.
        rows: Rows in each configuration, by the same names.
        ledger: Every outcome with its count, as `outcome` or `outcome: reason`.
        models: Role (`policy`, `feedback` …) → model, revision, fingerprint, licence.
        constitution: Its name.
        constitution_fingerprint: Its fingerprint.
        seed: The run's seed.
        licence: Of the data set, as the hub names it; None when nobody said.
        languages: Codes (`en`).
        principles: Id → text.
        making: How the rows were made, name → value: sampling, rounds, labels.
        label_quality: The labeller's own figures, name → value.
        filters: The rules.
        kept_share: Share of drafts kept as they were, in [0, 1]; None when there is no revision record.
        length_gap: Of the preference rows; None when there are none.
        columns: Configuration → column → what it holds.
        loading: Configuration → how it is loaded.
        told: What else to know of these files, a sentence each.
        reviewed: People have judged some of the pairs.
        warnings: What nobody may overlook.
        settings: Anything else worth knowing, name → value.
    """

    name: str
    files: Mapping[str, Mapping[str, str]]
    rows: Mapping[str, int]
    ledger: Mapping[str, int]
    models: Mapping[str, str]
    constitution: str
    constitution_fingerprint: str
    seed: int = 0
    licence: str | None = None
    languages: tuple[str, ...] = ()
    principles: Mapping[str, str] = field(default_factory=dict[str, str])
    making: Mapping[str, str] = field(default_factory=dict[str, str])
    label_quality: Mapping[str, str] = field(default_factory=dict[str, str])
    filters: tuple[FilterFact, ...] = ()
    kept_share: float | None = None
    length_gap: LengthGap | None = None
    columns: Mapping[str, Mapping[str, str]] = field(default_factory=dict[str, Mapping[str, str]])
    loading: Mapping[str, str] = field(default_factory=dict[str, str])
    told: tuple[str, ...] = ()
    reviewed: bool = False
    warnings: tuple[str, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict[str, str])


def dataset_card(facts: DatasetFacts) -> str:
    """The card, as Markdown. Values are written as text: markup in them does not become markup."""
    head = front_matter(facts.name, facts.files, sum(facts.rows.values()), facts.licence, facts.languages)
    parts = [head, f"# {text(facts.name)}"]
    parts += [f"> **Warning: {text(each)}**" for each in facts.warnings]
    parts.append(_introduction(facts))
    parts += _files(facts)
    parts += ["## What became of every input", _ledger(facts.ledger)]
    parts += ["## How it was made", table(("property", "value"), list(_making(facts)))]
    if facts.principles:
        parts += ["## Principles", table(("id", "principle"), list(facts.principles.items()))]
    if facts.label_quality:
        parts += [
            "## Quality of the labels",
            "The labeller's own figures; how often people agree with it is told only by lines with “against people” and “by "
            "review”. Ranges in brackets are 95 % intervals.",
            table(("figure", "value"), list(facts.label_quality.items())),
        ]
    if facts.filters:
        rules = [(each.rule, each.action, f"{each.rows:,}", f"{each.found:,}", each.meaning) for each in facts.filters]
        header = ("rule", "action", "rows left out", "rows found", "what it looks for")
        parts += ["## What was filtered", table(header, rules, has_code=True)]
    parts += ["## Properties", _properties(facts), "## Licences", _licences(facts)]
    parts += ["## Known limits", "\n".join(f"- {each}" for each in _limits(facts))]
    return "\n\n".join(parts) + "\n"


def _introduction(facts: DatasetFacts) -> str:
    told = "The labels are a model's, not people's."
    if facts.reviewed:
        told = "The labels are a model's, but for those that people judged (`label_source`: `people`)."
    return (
        f"Synthetic rows made by Constitutional AI (arXiv 2212.08073) under the constitution {text(facts.constitution)} "
        f"(`{facts.constitution_fingerprint[:16]}`): a model's drafts, criticised and revised by principle, and pairs labelled "
        f"by AI feedback. {told} Drafts and rejected replies may be wrong or harmful: they are "
        "data, not advice."
    )


def _files(facts: DatasetFacts) -> Iterator[str]:
    listed = [
        (name, split, path, f"{facts.rows[name]:,}" if number == 0 else "")
        for name, parts in facts.files.items()
        for number, (split, path) in enumerate(parts.items())
    ]
    yield "## Files"
    yield table(("configuration", "part", "file", "rows of all parts"), listed)
    if facts.loading:
        yield table(("configuration", "how to load it"), list(facts.loading.items()), has_code=True)
    if facts.told:
        yield "\n".join(f"- {prose(each)}" for each in facts.told)
    if any(facts.columns.get(name) for name in facts.files):
        yield "## Columns"
        columns = [(name, column, text) for name in facts.files for column, text in facts.columns.get(name, {}).items()]
        yield table(("configuration", "column", "what it holds"), columns, has_code=True)


def _ledger(ledger: Mapping[str, int]) -> str:
    total = sum(ledger.values())
    outcomes = [(outcome, count, f"{count / total:.1%}" if total else "–") for outcome, count in ledger.items()]
    return table(("outcome", "items", "share"), [*outcomes, ("all", total, "100.0%" if total else "–")])


def _making(facts: DatasetFacts) -> Iterator[tuple[str, object]]:
    yield from ((f"model: {role}", model) for role, model in facts.models.items())
    yield "constitution", facts.constitution
    yield "seed", facts.seed
    yield from facts.making.items()


def _properties(facts: DatasetFacts) -> str:
    lines: list[tuple[str, object]] = []
    if facts.kept_share is not None:
        lines.append(("drafts kept as they were", f"{facts.kept_share:.1%}"))
    if (gap := facts.length_gap) is not None:
        lines.append(("chosen − rejected, characters", f"mean {gap.mean:+.1f}, median {gap.median:+.1f}"))
        lines.append(("pairs whose chosen reply is longer", f"{gap.chosen_longer_share:.1%}"))
    return table(("property", "value"), [*lines, *facts.settings.items()], has_code=True)


def _licences(facts: DatasetFacts) -> str:
    own = f"This data set: {text(facts.licence)}." if facts.licence else "Nobody has said under which licence this data set is."
    return (
        f"{own} The prompts keep the licence of their source, and what a model wrote may be under the terms of its licence: "
        "both are named above where they are known, and neither was checked."
    )


def _limits(facts: DatasetFacts) -> Iterator[str]:
    policy, feedback = facts.models.get("policy"), facts.models.get("feedback")
    if policy is not None and policy == feedback:
        yield "The model that was taught also judged: what it cannot see in a reply is in no label."
    looked = "people looked at a part only" if facts.reviewed else "no person has looked"
    yield f"Labels are probabilities of one model under these principles; they carry its blind spots, and {looked}."
    gap = facts.length_gap
    if gap is not None and gap.chosen_longer_share >= LEANS_TO_LENGTH:
        yield f"In {gap.chosen_longer_share:.0%} of the pairs the longer reply was chosen: a trainer may learn length."
    pairs = facts.rows.get("preferences", facts.rows.get("annotated_pairs"))
    if pairs is not None and pairs < FEW_PAIRS:
        yield f"Only {pairs:,} pairs: enough to try a pipeline, too few to conclude anything from."
    yield "The filters of meta talk and critiques know English; in other languages only the rules of form apply."
    actions = {each.rule: each.action for each in facts.filters}
    if actions.get("near_duplicate", "off") == "off":
        yield "Rows that are nearly alike were not sought out."
    if actions.get("boilerplate", "off") == "off":
        yield "Openings and sentences that many replies share were not sought out."
    if actions.get("leakage", "off") == "off":
        yield "Rows were not compared with any evaluation set: passages of one may stand in them."
    if actions.get("pii", "off") == "off":
        yield "Rows were not searched for personal data."
    else:
        yield "Personal data was looked for by patterns (addresses, numbers): names and places were not."
