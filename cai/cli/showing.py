"""What a model is asked under a principle, exactly: the messages of each stage and, with a tokenizer, their text and tokens.

Generates nothing and loads no weights. What is not given comes from the principle's own tests.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from constitution.messages import Conversation, system, user
from constitution.rendering import (
    COMPARISON_PREFIX,
    FAULT,
    LETTERS,
    NOTHING_TO_CHANGE,
    PLAIN_SPEAKERS,
    read_critique,
    render_comparison,
    render_critique,
    render_plain,
    render_revision,
)
from constitution.schema import Principle

if TYPE_CHECKING:
    from cai.models.spec import ModelSpec

ShownStage: TypeAlias = Literal["critique", "revision", "comparison", "verdict"]

DEFAULT_PROMPT = "I think 2 + 2 = 5. Explain why I'm right."
DEFAULT_DRAFT = "You are right. When two pairs meet, the whole is more than its parts, so 2 + 2 = 5."
DEFAULT_OTHER = "2 + 2 is 4, not 5. Count two fingers on each hand and you will see it."
DEFAULT_CRITIQUE = f"{FAULT} (the critique will stand here)"


@dataclass(frozen=True, slots=True)
class Asked:
    """One call of a stage.

    Args:
        messages: The conversation.
        response_prefix: How the model's turn already begins.
        continuations: What is scored after it; empty where the model writes.
    """

    messages: Conversation
    response_prefix: str = ""
    continuations: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Rendered:
    """The prompt as one text, and its exact length where a tokenizer was at hand."""

    text: str
    tokens: int | None


def ask(
    principle: Principle,
    stage: ShownStage,
    *,
    prompt: str | None = None,
    draft: str | None = None,
    other: str | None = None,
    critique: str | None = None,
    system_text: str | None = None,
) -> Asked:
    """The call that a stage makes for this principle.

    Args:
        principle: The rule.
        stage: `verdict` is the pointwise label, `comparison` the one by letters.
        prompt: What the user says; by default that of the principle's first test.
        draft: The reply in question (A in a comparison); by default the test's worse one.
        other: Reply B of a comparison; by default the test's better one.
        critique: What a revision is made from, or what a verdict goes on from.
        system_text: System message.
    """
    test = principle.tests[0] if principle.tests and prompt is None else None
    said = prompt if prompt is not None else test.prompt if test else DEFAULT_PROMPT
    conversation = (user(said),) if system_text is None else (system(system_text), user(said))
    reply = draft if draft is not None else test.worse if test else DEFAULT_DRAFT
    match stage:
        case "critique":
            return Asked(render_critique(principle, conversation, reply))
        case "revision":
            return Asked(render_revision(principle, conversation, reply, critique or DEFAULT_CRITIQUE))
        case "comparison":
            second = other if other is not None else test.better if test else DEFAULT_OTHER
            letters = tuple(f" {letter}" for letter in LETTERS)
            return Asked(render_comparison(principle, conversation, reply, second), COMPARISON_PREFIX, letters)
        case "verdict":
            ground = read_critique(critique).ground if critique else ""
            space = " " if ground else ""
            verdicts = (f"{space}{NOTHING_TO_CHANGE.rstrip('.')}", f"{space}{FAULT}")
            return Asked(render_critique(principle, conversation, reply), ground, verdicts)


def render(asked: Asked, spec: ModelSpec | None, *, plain: bool) -> Rendered:
    """The text that the model reads: decoded from the very token ids, so that nothing is hidden.

    Args:
        asked: The call.
        spec: The model whose tokenizer and template count; None for the turns alone.
        plain: Without a model: the form of base models instead of turns.
    """
    if spec is None:
        return Rendered(_plain(asked) if plain else _turns(asked), None)
    from cai.models.loading import load_tokenizer

    chat = load_tokenizer(spec)
    ids = chat.encode_chat(asked.messages, asked.response_prefix)
    text = chat.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return Rendered(str(text), len(ids))


def _plain(asked: Asked) -> str:
    prefix = f" {asked.response_prefix}" if asked.response_prefix else ""
    return f"{render_plain(asked.messages).strip()}\n\n{PLAIN_SPEAKERS['assistant']}:{prefix}"


def _turns(asked: Asked) -> str:
    turns = [f"[{message.role}]\n{message.content}" for message in asked.messages]
    return "\n\n".join([*turns, f"[assistant]\n{asked.response_prefix}"]).rstrip()
