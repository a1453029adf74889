"""Revisions that the labels find worse than their drafts.

The label speaks for the draft when `chosen` is the draft. It does so surely from `made_worse_p` on; and it need not be sure
where the draft had been found good: more than half of the principles that looked at the draft itself had nothing against it.
Those are the critiques up to the first revision, and the gate's other principles, which find nothing where their log-odds are
positive.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from cai.data.filters.findings import Finding, Rule
from cai.data.filters.settings import FilterRules
from cai.records import PreferenceRecord, RevisionRecord, Verdict

MADE_WORSE = Rule("made_worse", "The labels prefer the draft to its revision.", "pair", ("made_worse_p",))


def worst(pairs: Iterable[PreferenceRecord], record: RevisionRecord, rules: FilterRules) -> Finding | None:
    """What the surest label says against the revision that a record ends with."""
    against = [pair for pair in pairs if pair.chosen_source == "draft" and pair.rejected == record.final]
    surest = max(against, key=lambda pair: pair.p_chosen, default=None)
    return None if surest is None else made_worse(surest, rules, list(draft_verdicts(record)))


def made_worse(label: PreferenceRecord, rules: FilterRules, verdicts: Sequence[bool] = ()) -> Finding | None:
    """Whether a label finds a revision worse than its draft; `verdicts` are those of `draft_verdicts`, where they are known."""
    if label.chosen_source != "draft":
        return None
    good = sum(verdicts)
    if label.p_chosen < rules.made_worse_p and 2 * good <= len(verdicts):
        return None
    said = f"; {good} of {len(verdicts)} principles had nothing against the draft" if verdicts else ""
    detail = f"the draft is better with probability {label.p_chosen:.2f}{said}"
    return Finding("made_worse", detail, score=label.p_chosen, limit=rules.made_worse_p)


def draft_verdicts(record: RevisionRecord) -> Iterator[bool]:
    """For every principle that looked at the draft itself: whether it had nothing against it."""
    for each in record.rounds:
        if each.critique:
            yield each.verdict is Verdict.NOTHING_TO_CHANGE
        ruling = each.gate
        if ruling is not None:
            checks = ruling.checks or (ruling.rejected[0].checks if ruling.rejected else ())
            yield from (check.before_nats > 0 for check in checks if check.role != "own")
        if each.revision is not None:
            return
