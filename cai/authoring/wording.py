"""Results of principle tests in words: what was preferred, by how much, and on what ground. Plain text, for every output."""

from __future__ import annotations

from cai.authoring.judgements import Answer
from cai.authoring.metamorphic import Check
from cai.authoring.principle_tests import CaseReport, Result
from cai.engines.base import RequestFailure
from cai.verdicts import KEEP_VERDICT
from constitution.rendering import FAULT


def margin_text(answer: Answer | None) -> str:
    """`+1.23`, in nats; a dash where nothing was judged."""
    if answer is None or isinstance(answer.outcome, RequestFailure):
        return "–"
    return f"{answer.outcome.margin_nats:+.2f}"


def explained(report: CaseReport) -> list[str]:
    """Why a test came out as it did: prompt, both replies, what was preferred, and what the judge said, a line each."""
    test, outcome = report.case.test, report.answer.outcome
    if isinstance(outcome, RequestFailure):
        preferred, remarks = f"not judged: {outcome.cause}: {outcome.detail}", ("", "")
    elif report.method == "letters":
        first, second = outcome.parts_nats
        preferred = f"{_preferred(report)}; margin {first:+.2f} nats with the better reply as A, {second:+.2f} with it as B"
        remarks = ("", "")
    else:
        preferred = f"{_preferred(report)}; margin {outcome.margin_nats:+.2f} nats"
        remarks = tuple(
            f"\n    judged “{f'{ground} ' if ground else ''}{KEEP_VERDICT if odds > 0 else FAULT.rstrip(':')}” ({odds:+.2f})"
            for ground, odds in zip(outcome.grounds, outcome.parts_nats, strict=True)
        )
    return [
        f"prompt: {test.prompt}",
        f"better: {test.better}{remarks[0]}",
        f"worse:  {test.worse}{remarks[1]}",
        f"judge:  {preferred}",
    ]


def explained_check(check: Check, source: Answer) -> str:
    """What a relation came to, on one line."""
    if check.note:
        return check.note
    if check.relation.change is None and not isinstance(source.outcome, RequestFailure):
        first, second = source.outcome.parts_nats
        return f"{first:+.2f} with the better reply as A, {second:+.2f} with it as B"
    return f"margin {margin_text(source)} → {margin_text(check.answer)}"


def _preferred(report: CaseReport) -> str:
    match report.result:
        case Result.PASSED:
            return "prefers the better reply"
        case Result.FAILED:
            return "prefers the worse reply"
        case Result.BIASED:
            outcome = report.answer.outcome
            assert not isinstance(outcome, RequestFailure), "a bias is seen in a judgement"
            return f"names {'A' if outcome.parts_nats[0] > 0 else 'B'} in both orders"
        case _:
            return "prefers neither"
