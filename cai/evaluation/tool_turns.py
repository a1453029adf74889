"""Conversations in which a model may call tools: how one goes on after a reply, and which calls were made in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cai.tool_calls import call_problems
from constitution.messages import Conversation, Message, ToolCall, assistant, tools_of, user
from constitution.tool_text import read_reply

MOST_TURNS = 8
"""Of the model, besides one for each turn that the user has left. Whoever needs more goes in circles."""
ERROR = "error: "


@dataclass(frozen=True)
class ToolTurns:
    """Calls are answered with results written beforehand, talk with the user's next turn.

    A call of a tool without a result ends the conversation. One that cannot be read or made is answered with an error, as by a
    real tool.

    Args:
        start: What the model answers first.
        results: Tool → what a call of it gives.
        follow_ups: What the user says after each answer without a call, as in `Trial`.
    """

    start: Conversation
    results: Mapping[str, str]
    follow_ups: tuple[Conversation, ...] = ()

    def __call__(self, conversation: Conversation, reply: str) -> Conversation | None:
        """What the model answers next; None when it is over."""
        turns = sum(each.role == "assistant" for each in conversation[len(self.start) :]) + 1
        if turns >= MOST_TURNS + sum(map(len, self.follow_ups)):
            return None
        found = read_reply(reply)
        calls = found.message.tool_calls
        if found.problem:
            return (*conversation, assistant(reply), user(f"{ERROR}{found.problem}"))
        if not calls:
            later = self._later(conversation)
            return None if later is None else (*conversation, assistant(reply), *later)
        tools = tools_of(conversation)
        problems = [next(call_problems([call], tools), "") for call in calls]
        if any(not problem and call.name not in self.results for call, problem in zip(calls, problems, strict=True)):
            return None
        answered = (
            Message(role="tool", name=call.name, content=f"{ERROR}{problem}" if problem else self.results[call.name])
            for call, problem in zip(calls, problems, strict=True)
        )
        return (*conversation, found.message, *answered)

    def calls(self, conversation: Conversation, reply: str) -> list[ToolCall]:
        """The calls that were made after the start and could be made, those of the reply to this conversation last."""
        tools = tools_of(conversation)
        turns = (*conversation[len(self.start) :], read_reply(reply).message)
        return [call for turn in turns for call in turn.tool_calls if not next(call_problems([call], tools), "")]

    def said(self, reply: str) -> str:
        """A reply without its calls; one whose calls cannot be read, whole."""
        found = read_reply(reply)
        return found.message.content if found.message.tool_calls else reply

    def _later(self, conversation: Conversation) -> Conversation | None:
        """The first follow-up that is not in the conversation yet."""
        place, left = len(self.start), list(self.follow_ups)
        while left and place < len(conversation):
            place += len(left.pop(0)) if conversation[place] == left[0][0] else 1
        return left[0] if left else None


def has_bad_call(start: Conversation, conversation: Conversation, reply: str) -> bool:
    """Whether a tool was called as it cannot be called, in any turn after `start` or in the reply."""
    tools = tools_of(conversation)
    turns = [read_reply(reply), *(read_reply(each.content) for each in conversation[len(start) :] if each.role == "assistant")]
    called = [turns[0].message, *conversation[len(start) :]]
    return any(turn.problem for turn in turns) or any(next(call_problems(each.tool_calls, tools), "") for each in called)
