"""Principles and conversations → the messages a model is asked with.

What many requests share comes first (the conversation, the reply, the fixed instruction), and the principle comes last, so that
an engine can compute a shared prefix once. Replies and prompts are data: they are put in as they are, never rendered. Who
judges reads tools, calls and results as text (`constitution.tool_text`), whatever the chat template knows of them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from constitution.messages import Conversation, Message, assistant, user
from constitution.schema import Demonstration, Principle
from constitution.templating import render_prompt, render_text
from constitution.tool_text import as_text

NOTHING_TO_CHANGE = "Nothing to change."
FAULT = "Fault:"
LETTERS = ("A", "B")
COMPARISON_PREFIX = "The better reply is"
"""How the judge's turn begins; the letter follows it."""

DEFAULT_CRITIQUE_REQUEST = "Does the reply follow this principle?"
DEFAULT_REVISION_REQUEST = "Rewrite the reply so that it follows the principle."
DEFAULT_PREFERENCE_QUESTION = "Which reply follows the principle better?"

CACHED_REQUESTS = 1024
PLAIN_SPEAKERS = {"system": "System", "user": "Human", "assistant": "Assistant"}
PLAIN_STOPS = tuple(f"\n\n{speaker}:" for speaker in PLAIN_SPEAKERS.values())
"""Where an answer of a base model ends: it goes on to write the next speaker's turn."""


def principle_text(principle: Principle) -> str:
    """The rule as the model reads it, parameters filled in."""
    return render_text(principle.principle, principle.parameters)


def _request(principle: Principle, text: str | None, default: str) -> str:
    return render_text(text, principle.parameters) if text else default


def critique_request(principle: Principle) -> str:
    return _critique_prompt(
        principle_text(principle), _request(principle, principle.critique_request, DEFAULT_CRITIQUE_REQUEST)
    )


def revision_request(principle: Principle) -> str:
    return _revision_prompt(_request(principle, principle.revision_request, DEFAULT_REVISION_REQUEST))


# A run has few principles and many rows: each request is rendered once.
@lru_cache(maxsize=CACHED_REQUESTS)
def _critique_prompt(principle: str, critique_request: str) -> str:
    return render_prompt("critique", {"principle": principle, "critique_request": critique_request})


@lru_cache(maxsize=CACHED_REQUESTS)
def _revision_prompt(revision_request: str) -> str:
    return render_prompt("revision", {"revision_request": revision_request})


def render_critique(principle: Principle, conversation: Conversation, reply: str) -> Conversation:
    """The request for a critique of `reply`, the answer to the last turn of `conversation`. Demonstrations come first."""
    turns = (*as_text(conversation), assistant(reply), user(critique_request(principle)))
    return _with_demonstrations(principle, turns, revising=False)


def render_revision(principle: Principle, conversation: Conversation, reply: str, critique: str) -> Conversation:
    """The request for a revision of `reply` in the light of `critique`: it goes on from the critique's own conversation."""
    turns = (
        *as_text(conversation),
        assistant(reply),
        user(critique_request(principle)),
        assistant(critique),
        user(revision_request(principle)),
    )
    return _with_demonstrations(principle, turns, revising=True)


def render_direct_revision(principle: Principle, conversation: Conversation, reply: str) -> Conversation:
    """The request for a revision without a critique before it (the critique-free mode of arXiv 2212.08073, section 3.5)."""
    request = user(f"Principle: {principle_text(principle)}\n{revision_request(principle)}")
    shown = tuple(
        message
        for each in principle.demonstrations
        if each.revision is not None
        for message in (user(each.prompt), assistant(each.draft), request, assistant(each.revision))
    )
    return _after_system(shown, (*as_text(conversation), assistant(reply), request))


def render_comparison(
    principle: Principle,
    conversation: Conversation,
    first: str,
    second: str,
    labels: tuple[str, str] = LETTERS,
    *,
    reasoned: bool = False,
    arguments: tuple[str, str] = ("", ""),
) -> Conversation:
    """Ask which of two answers follows the principle better; `first` is A. The judge's turn begins with `COMPARISON_PREFIX`.

    Args:
        principle: The rule.
        conversation: What the answers answer.
        first: The answer called `labels[0]`.
        second: The answer called `labels[1]`.
        labels: Two letters, or two digits.
        reasoned: Ask for reasons before the letter; what the judge says comes before `COMPARISON_PREFIX`.
        arguments: What was said for the first and for the second answer, each as one line; both empty: there was no debate.
    """
    text = render_prompt(
        "comparison",
        {
            "conversation": render_plain(as_text(conversation)).strip(),
            "label_a": labels[0],
            "label_b": labels[1],
            "label_kind": "letter" if labels[0].isalpha() else "number",
            "reply_a": first,
            "reply_b": second,
            "principle": principle_text(principle),
            "preference_question": _request(principle, principle.preference_question, DEFAULT_PREFERENCE_QUESTION),
            "reasoned": "yes" if reasoned else "",
            "arguments_a": _one_line(arguments[0]),
            "arguments_b": _one_line(arguments[1]),
        },
    )
    return (user(text),)


def render_argument(
    principle: Principle, conversation: Conversation, reply: str, other: str, said: Sequence[tuple[str, str]] = ()
) -> Conversation:
    """Ask for an argument that `reply` is better than `other` by a principle (debate, arXiv 1805.00899).

    No reply has a letter or a number here, so that one argument serves both orders of the comparison.

    Args:
        principle: The rule.
        conversation: What the replies answer.
        reply: The one to speak for.
        other: The one to speak against.
        said: By turn of the debate, what was said for `reply` and for `other`; then it is a rebuttal that is asked for.
    """
    lines = [
        f"For {name}: {_one_line(text) or 'nothing'}"
        for turn in said
        for name, text in zip(("this reply", "the other reply"), turn, strict=True)
    ]
    values = {
        "conversation": render_plain(as_text(conversation)).strip(),
        "reply": reply,
        "other": other,
        "principle": principle_text(principle),
        "preference_question": _request(principle, principle.preference_question, DEFAULT_PREFERENCE_QUESTION),
        "said": "\n".join(lines),
    }
    return (user(render_prompt("argument", values)),)


def _one_line(text: str) -> str:
    """An argument can then not pretend to be another part of the prompt."""
    return " ".join(text.split())


def render_yes_no(principle: Principle, conversation: Conversation, reply: str) -> Conversation:
    """Ask whether `reply`, the answer to the last turn of `conversation`, follows a principle: yes or no."""
    question = render_prompt("yes_no", {"principle": principle_text(principle)})
    return (*as_text(conversation), assistant(reply), user(question))


def render_contrast(principle: Principle, conversation: Conversation, *, follow: bool) -> Conversation:
    """The conversation with a request, at its end, to follow a principle in the reply, or to go against it."""
    conversation = as_text(conversation)
    last = conversation[-1]
    values = {
        "request": last.content,
        "principle": principle_text(principle),
        "follow": "yes" if follow else "",
    }
    return (*conversation[:-1], last.model_copy(update={"content": render_prompt("contrast", values)}))


def render_plain(conversation: Sequence[Message]) -> str:
    """A conversation without tools as plain text for base models, each turn as blank line, speaker, colon, text."""
    return "".join(f"\n\n{PLAIN_SPEAKERS[message.role]}: {message.content}" for message in conversation)


def _with_demonstrations(principle: Principle, turns: Conversation, *, revising: bool) -> Conversation:
    shown = tuple(
        message for each in principle.demonstrations for message in _demonstration(principle, each, revising=revising)
    )
    return _after_system(shown, turns)


def _after_system(shown: Conversation, turns: Conversation) -> Conversation:
    """Put demonstrations before a conversation, after its system message."""
    head = tuple(message for message in turns[:1] if message.role == "system")
    return (*head, *shown, *turns[len(head) :])


def _demonstration(principle: Principle, example: Demonstration, *, revising: bool) -> Conversation:
    turns = (
        user(example.prompt),
        assistant(example.draft),
        user(critique_request(principle)),
        assistant(example.critique),
    )
    if not revising or example.revision is None:
        return turns
    return (*turns, user(revision_request(principle)), assistant(example.revision))


@dataclass(frozen=True, slots=True)
class CritiqueReading:
    """What a critique says. `ground` is the text before the verdict, `fault` the text after "Fault:" ("" when none)."""

    ground: str
    nothing_to_change: bool
    fault: str


_VERDICT = re.compile(
    r"[\"'“*]*\b(?:(?P<keep>nothing (?:needs )?to (?:be )?changed?|no changes? (?:is |are )?(?:needed|required|necessary)"
    r"|fault\s*:[\s*]*(?:none|no fault|nothing)(?=[.!*\s]*\Z))\b"
    r"|(?P<fault>fault)\s*:)",
    re.IGNORECASE,
)


def read_critique(text: str) -> CritiqueReading:
    """Read a critique's verdict: the first "Nothing to change" or "Fault:" decides ("Fault: none." at the end is no fault).

    A critique without either counts as a fault: it was asked to say so when there is none, and a revision can be refused later,
    whereas a fault that is passed over is lost.
    """
    found = _VERDICT.search(text)
    if found is None:
        return CritiqueReading(text.strip(), nothing_to_change=False, fault=text.strip())
    ground = text[: found.start()].strip()
    if found["keep"]:
        return CritiqueReading(ground, nothing_to_change=True, fault="")
    return CritiqueReading(ground, nothing_to_change=False, fault=text[found.end() :].strip())
