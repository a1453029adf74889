"""Answers as rows of a list: before and after on held-out prompts, and those of every model asked a suite."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from cai.evaluation.results import AnswerPair
from cai.evaluation.suite_results import SuiteAnswer
from cai.report.listing import Facet, Part, Row, sides, turn
from cai.report.texts import shortened

OUTCOMES = {"good": "good", "bad": "bad", "broken": "broken", "unjudged": "unjudged"}
CHANGES = {"worse": "got worse", "better": "got better", "same": "judged alike"}
_TONES = {"good": "good", "bad": "bad", "broken": "bad"}


def answer_facets(labels: Mapping[str, str]) -> list[Facet]:
    """Of before and after; `labels`: behaviour → how it is called."""
    return [
        Facet("behaviour", "Behaviour", labels),
        Facet("change", "Change", CHANGES),
        Facet("before", "Before", OUTCOMES),
        Facet("after", "After", OUTCOMES),
        Facet("temperature", "Temperature", {"0": "greedy"}),
        Facet("different", "Words", {"yes": "different", "no": "the same"}),
    ]


def answer_name(answer: AnswerPair) -> str:
    """The name that a pair of answers is linked to by."""
    return f"{answer.uid}/{answer.temperature:g}/{answer.seed}"


def answer_row(answer: AnswerPair, labels: Mapping[str, str]) -> Row:
    """One prompt with both answers."""
    return Row(
        name=answer_name(answer),
        line=shortened(answer.prompt, 140),
        tags=(_chip(answer.before_outcome), ("", "→"), _chip(answer.after_outcome)),
        turns=(
            turn("user", "user", body=answer.prompt),
            sides(
                ("before", answer.before, _judged(answer.before_outcome, answer.before_why)),
                ("after", answer.after, _judged(answer.after_outcome, answer.after_why)),
            ),
        ),
        end=(
            f"{labels.get(answer.behaviour, answer.behaviour)}, {_sampled(answer.temperature, answer.seed)}. ",
            ("mono", answer.uid),
        ),
        facets={
            "behaviour": [answer.behaviour],
            "change": [_change(answer.before_outcome, answer.after_outcome)],
            "before": [answer.before_outcome],
            "after": [answer.after_outcome],
            "temperature": [f"{answer.temperature:g}"],
            "different": ["no" if answer.before == answer.after else "yes"],
        },
    )


Asked = tuple[SuiteAnswer, ...]
"""The answers of several models to one prompt, in the order of the models."""


def asked_together(answers: Iterable[SuiteAnswer], order: Sequence[str]) -> list[Asked]:
    """Answers to the same prompt at the same temperature and seed, put together."""
    found: dict[str, list[SuiteAnswer]] = {}
    for each in answers:
        found.setdefault(suite_answer_name(each), []).append(each)
    places = {model: n for n, model in enumerate(order)}
    return [tuple(sorted(group, key=lambda each: places.get(each.model, len(places)))) for group in found.values()]


def suite_answer_name(answer: SuiteAnswer) -> str:
    """The same for every model."""
    return f"{answer.suite}/{answer.section}/{answer.uid}/{answer.temperature:g}/{answer.seed}"


def suite_answer_facets(labels: Mapping[str, str]) -> list[Facet]:
    """Of suites; `labels`: behaviour → how it is called."""
    return [
        Facet("suite", "Suite"),
        Facet("section", "Asked for", {**labels, "stated": "stated confidence", "drift": "drift", "preference": "preference"}),
        Facet("change", "First to last model", CHANGES),
        Facet("worst", "Judged, of any model", OUTCOMES),
        Facet("temperature", "Temperature", {"0": "greedy"}),
        Facet("different", "Words", {"yes": "different", "no": "the same"}),
    ]


def suite_answer_row(asked: Asked, labels: Mapping[str, str]) -> Row:
    """One prompt with the answer of every model. Where conversations differ, for models had turns in them, each has its own."""
    first, last = asked[0], asked[-1]
    same_conversation = all(each.conversation == first.conversation for each in asked)
    outcomes = [each.outcome for each in asked if each.outcome]
    turns = [turn(message.role, message.role, body=message.content) for message in first.conversation if same_conversation]
    columns = [
        (each.model, each.reply if same_conversation else _whole(each), _judged(each.outcome or "", _why(each)))
        for each in asked
    ]
    both = first.outcome and last.outcome and len(asked) > 1
    prompt = next((message.content for message in reversed(first.conversation) if message.role == "user"), "")
    return Row(
        name=suite_answer_name(first),
        line=shortened(prompt, 140),
        tags=tuple(_chip(outcome) for outcome in outcomes),
        turns=(*turns, sides(*columns)),
        end=(
            f"{first.suite}: {labels.get(first.section, first.section)}, {_sampled(first.temperature, first.seed)}. ",
            ("mono", first.uid),
        ),
        facets={
            "suite": [first.suite],
            "section": [first.section],
            "change": [_change(first.outcome or "", last.outcome or "")] if both else [],
            "worst": list(outcomes),
            "temperature": [f"{first.temperature:g}"],
            "different": ["no" if len({each.reply for each in asked}) == 1 else "yes"] if len(asked) > 1 else [],
        },
    )


def _whole(answer: SuiteAnswer) -> str:
    said = [f"{message.role}: {message.content}" for message in answer.conversation]
    return "\n\n".join([*said, f"assistant: {answer.reply}"])


def _why(answer: SuiteAnswer) -> str:
    parts = [answer.why] if answer.why else []
    if answer.score is not None:
        parts.append(f"{'said to be sure at' if answer.section == 'stated' else 'preference'} {answer.score:g}")
    return "; ".join([*parts, *(["cut at its token limit"] if answer.cut else [])])


def _judged(outcome: str, why: str) -> tuple[Part, ...]:
    return (*([_chip(outcome)] if outcome else []), *([("why", why)] if why else []))


def _chip(outcome: str) -> tuple[str, str]:
    return _TONES.get(outcome, "unclear"), outcome


def _change(before: str, after: str) -> str:
    """Broken text is as bad as a bad answer."""
    good = before == "good", after == "good"
    return "same" if good[0] == good[1] else "worse" if good[0] else "better"


def _sampled(temperature: float, seed: int) -> str:
    return "greedy" if temperature == 0 else f"temperature {temperature:g}, seed {seed}"
