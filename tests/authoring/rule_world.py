"""A feedback engine of perfect understanding, for principles that say "forbid WORD" or "require WORD".

Replies are words. It finds a fault exactly when the rule is broken, and revises by taking the word out or putting it at the
end; so everything that an audit or a comparison should find can be computed by hand.
"""

from __future__ import annotations

from collections.abc import Sequence

from cai.engines.base import GenerationRequest, ScoreRequest
from cai.engines.scripted import ScriptedEngine
from constitution.rendering import FAULT, NOTHING_TO_CHANGE
from constitution.schema import Constitution, Principle


def follows(rule: str, reply: str) -> bool:
    kind, word = rule.split()
    return (word in reply.split()) == (kind == "require")


def mend(rule: str, reply: str) -> str:
    """What the engine makes of a reply that breaks the rule; "none" where nothing would be left."""
    kind, word = rule.split()
    words = reply.split()
    return " ".join([*words, word] if kind == "require" else [each for each in words if each != word]) or "none"


def principle(rule: str) -> Principle:
    return Principle(
        id=rule.replace(" ", "-"), principle=rule, critique_request="[[" + rule + "]]", revision_request="Mend it."
    )


def constitution(*rules: str) -> Constitution:
    return Constitution(name="rules", principles=tuple(principle(rule) for rule in rules))


def _rule_and_reply(request: GenerationRequest | ScoreRequest) -> tuple[str, str]:
    """The newest critique request, and the reply before it."""
    place, text = next((i, m.content) for i, m in reversed(list(enumerate(request.messages))) if "[[" in m.content)
    return text.partition("[[")[2].partition("]]")[0], request.messages[place - 1].content


def feedback_answer(request: GenerationRequest) -> str:
    rule, reply = _rule_and_reply(request)
    if "[[" not in request.messages[-1].content:
        return mend(rule, reply)
    return f"It asks to {rule}. " + (NOTHING_TO_CHANGE if follows(rule, reply) else f"{FAULT} it does not.")


def feedback_score(request: ScoreRequest) -> Sequence[float]:
    kept = follows(*_rule_and_reply(request))
    return (-0.1, -2.0) if kept else (-2.0, -0.1)


def feedback() -> ScriptedEngine:
    return ScriptedEngine(feedback_answer, feedback_score, name="rules")


def policy(drafts: dict[str, str]) -> ScriptedEngine:
    """Drafts by the user's message."""
    return ScriptedEngine(lambda request: drafts[request.messages[-1].content], name="drafts")
