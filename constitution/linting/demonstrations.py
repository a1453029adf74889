"""What is wrong or unwise about the `demonstrations` of a principle: its few-shot examples."""

from __future__ import annotations

from collections.abc import Iterable

from constitution.linting.findings import Finding
from constitution.linting.placed import PlacedPrinciple
from constitution.linting.rules import Example, Rule
from constitution.linting.words import topic_words
from constitution.rendering import FAULT, NOTHING_TO_CHANGE, read_critique
from constitution.schema import Demonstration

MAX_COMPARED = 1000
"""Tests, and demonstrations, of one principle whose topics are compared; each test with each demonstration."""

_SHOWN = "principle: Do not shout.\ndemonstrations:\n  - prompt: Is the bakery open?\n    draft: {}\n    critique: {}\n"

CONTRADICTS_ITSELF = Rule(
    "C131",
    "a demonstration whose critique and revision do not fit",
    "A critique that finds nothing to change has no revision, and one that names a fault has one that differs from the draft. "
    "A model that is shown anything else learns to ignore its own critique.",
    Example(
        _SHOWN.format("It is.", "It asks for calm. Nothing to change.") + "    revision: Yes, it is.",
        _SHOWN.format("It is.", "It asks for calm. Nothing to change.").rstrip("\n"),
    ),
)
NO_VERDICT = Rule(
    "C211",
    "a demonstration whose critique has no verdict",
    f"Critiques are read by “{NOTHING_TO_CHANGE}” or “{FAULT}”; a model copies the form of what it is shown, and a critique "
    "without either counts as a fault.",
    Example(
        _SHOWN.format("IT IS!", "The reply shouts.") + "    revision: It is.",
        _SHOWN.format("IT IS!", '"It asks for calm. Fault: the reply shouts."') + "    revision: It is.",
    ),
)
LEAKS = Rule(
    "C212",
    "a demonstration about the topic of a test",
    "The test then shows what was copied from the demonstration, not what was understood.",
    Example(
        _SHOWN.format("It is.", "It asks for calm. Nothing to change.")
        + "tests:\n  - prompt: Are the bakeries closed?\n    better: One of them is.\n    worse: ALL OF THEM!",
        _SHOWN.format("It is.", "It asks for calm. Nothing to change.")
        + "tests:\n  - prompt: How high is Mont Blanc?\n    better: 4,806 m.\n    worse: VERY HIGH!",
    ),
)
ONE_TOPIC = Rule(
    "C213",
    "all demonstrations are about one topic",
    "Small models take the topic of their examples for part of the task, and bring it up in their own answers.",
    Example(
        _SHOWN.format("It is.", "It asks for calm. Nothing to change.")
        + "  - prompt: Where is a bakery?\n    draft: Behind you.\n    critique: It asks for calm. Nothing to change.",
        _SHOWN.format("It is.", "It asks for calm. Nothing to change.")
        + "  - prompt: Where is the Rhine?\n    draft: By the Alps.\n    critique: It asks for calm. Nothing to change.",
    ),
)

RULES = (CONTRADICTS_ITSELF, NO_VERDICT, LEAKS, ONE_TOPIC)


def check_demonstrations(placed: PlacedPrinciple) -> Iterable[Finding]:
    """All that `RULES` say about one principle."""
    if not placed.principle.demonstrations:
        return
    for index, each in enumerate(placed.principle.demonstrations):
        yield from _reading(placed, index, each)
    if placed.whole("principle"):
        yield from _topics(placed)


def _reading(placed: PlacedPrinciple, index: int, shown: Demonstration) -> Iterable[Finding]:
    critique = read_critique(shown.critique)
    has_verdict = critique.nothing_to_change or critique.fault != shown.critique.strip()
    problem = hint = ""
    part = "critique"
    if critique.nothing_to_change and shown.revision is not None:
        problem, hint, part = "the critique finds nothing to change, and there is a revision", "delete one of them", "revision"
    elif has_verdict and not critique.nothing_to_change and shown.revision is None:
        problem, hint = "the critique names a fault, and there is no revision", f"add one, or write “{NOTHING_TO_CHANGE}”"
    elif not critique.nothing_to_change and shown.revision == shown.draft:
        problem, hint, part = "the revision is the draft", "mend what the critique names", "revision"
    if problem:
        yield CONTRADICTS_ITSELF.of(placed, placed.position("demonstrations", index, part), problem, hint)
    if not has_verdict:
        hint = f"end it with “{FAULT} …”, or with “{NOTHING_TO_CHANGE}”"
        position = placed.position("demonstrations", index, "critique")
        yield NO_VERDICT.of(placed, position, "the critique has no verdict", hint)


def _topics(placed: PlacedPrinciple) -> Iterable[Finding]:
    principle = placed.principle
    own = topic_words(principle.principle)
    topics = [topic_words(each.prompt) - own for each in principle.demonstrations]
    for index, test in enumerate(principle.tests[:MAX_COMPARED]):
        asked = topic_words(test.prompt) - own
        for number, shown in enumerate(topics[:MAX_COMPARED]):
            shared = asked & shown
            if shared and (len(shared) > 1 or 2 * len(shared) >= min(len(asked), len(shown))):
                told = ", ".join(f"`{word}`" for word in sorted(shared))
                problem = f"the test is about what demonstration {placed.place('demonstrations', number) + 1} shows: {told}"
                position = placed.position("tests", index, "prompt")
                yield LEAKS.of(placed, position, problem, "test with another topic")
                break
    common = frozenset[str].intersection(*topics)
    if placed.whole("demonstrations") and len(topics) > 1 and common:
        told = ", ".join(f"`{word}`" for word in sorted(common))
        position = placed.position("demonstrations")
        yield ONE_TOPIC.of(placed, position, f"all demonstrations are about {told}", "take each from another topic")
