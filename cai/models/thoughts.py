"""What a thinking model writes before its answer, told apart from the answer, in every family's own marks.

Most families write `<think>…</think>` or the same by another name; gpt-oss writes messages on channels, of which the one named
`final` is the answer. All become one form of text, `<think>…</think>` before the answer, and that is split here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

OPENED, CLOSED = "<think>", "</think>"
_MARKS = {
    OPENED: CLOSED,
    "[THINK]": "[/THINK]",
    "<seed:think>": "</seed:think>",
    "<mm:think>": "</mm:think>",
    "<|START_THINKING|>": "<|END_THINKING|>",
    "<|channel>": "<channel|>",
}
"""Names of the two marks: most families; Magistral, Seed, MiniMax, Command, Gemma."""
_CHANNEL_NAME = "thought\n"
"""What Gemma writes after its opening mark."""
_CHANNEL, _MESSAGE, _ANSWER = "<|channel|>", "<|message|>", "final"
_MESSAGE_ENDS = ("<|end|>", "<|start|>", "<|return|>")
_THOUGHTS = re.compile(f"{OPENED}(.*?)(?:{CLOSED}|\\Z)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Reply:
    """What the model wrote: the answer, and what it thought before (inside `<think>`), which is not part of it."""

    text: str
    thoughts: str = ""


@dataclass(frozen=True, slots=True)
class ThoughtMarks:
    """The tokens of one tokenizer that stand around thoughts.

    Args:
        opening: Ids of tokens that begin a thought.
        closing: Ids of tokens that end it.
        channels: Ids of the tokens of messages on channels, by their texts; empty for models without.
    """

    opening: frozenset[int] = frozenset()
    closing: frozenset[int] = frozenset()
    channels: Mapping[str, int] = field(default_factory=dict[str, int])

    @classmethod
    def of(cls, control_tokens: Mapping[int, str]) -> ThoughtMarks:
        """Those among a tokenizer's control tokens, by id and text."""
        ids = {text: token for token, text in control_tokens.items()}
        known = {opened: closed for opened, closed in _MARKS.items() if opened in ids and closed in ids}
        channels = {text: ids[text] for text in (_CHANNEL, _MESSAGE, *_MESSAGE_ENDS) if text in ids}
        return cls(
            frozenset(ids[text] for text in known),
            frozenset(ids[text] for text in known.values()),
            channels if {_CHANNEL, _MESSAGE} <= channels.keys() else {},
        )

    def text(self, ids: Sequence[int], decode: Callable[[Sequence[int]], str]) -> str:
        """Generated tokens as text, with every thought between `<think>` and `</think>`.

        Args:
            ids: Without the prompt's.
            decode: Ids to text; leaves special tokens out.
        """
        if self.channels and self.channels[_CHANNEL] in ids:
            return "".join(self._messages(ids, decode))
        if not (self.opening | self.closing).intersection(ids):
            return decode(ids)
        parts: list[str] = []
        start = 0
        for place, token in enumerate(ids):
            if token in self.opening or token in self.closing:
                parts += [decode(ids[start:place]), OPENED if token in self.opening else CLOSED]
                start = place + 1
        return "".join([*parts, decode(ids[start:])]).replace(OPENED + _CHANNEL_NAME, OPENED)

    @staticmethod
    def closing_of(text: str) -> str:
        """What ends the thought that a prompt has opened as its last word, thinking nothing; "" if it has opened none."""
        opened = next((opened for opened in _MARKS if text.rstrip().endswith(opened)), None)
        if opened is None:
            return ""
        return f"\n{_MARKS[opened]}\n\n" if text.endswith("\n") else _MARKS[opened]

    def _messages(self, ids: Sequence[int], decode: Callable[[Sequence[int]], str]) -> Iterator[str]:
        """Messages on channels: what stands on the channel `final`, or on none, is the answer."""
        ends = {self.channels[text] for text in _MESSAGE_ENDS if text in self.channels}
        channel, message = self.channels[_CHANNEL], self.channels[_MESSAGE]
        place, named = 0, _ANSWER
        while place < len(ids):
            if ids[place] == channel:
                start = place + 1
                place = next((at for at in range(start, len(ids)) if ids[at] == message), len(ids))
                named = decode(ids[start:place]).strip()
                place += 1
                continue
            stop = next((at for at in range(place, len(ids)) if ids[at] in ends or ids[at] == channel), len(ids))
            text = decode(ids[place:stop])
            if named.startswith(_ANSWER):
                yield text
            else:
                yield f"{OPENED}{text}" if stop == len(ids) else f"{OPENED}{text}{CLOSED}"
            # Between the end of a message and the next channel stands only who speaks.
            place = next((at for at in range(stop, len(ids)) if ids[at] == channel), len(ids))


def split_thoughts(text: str, *, opened: bool) -> Reply:
    """The answer in a text with thoughts between `<think>` and `</think>`.

    Args:
        text: From `ThoughtMarks.text`.
        opened: The prompt ended inside a thought; a text that never closes it is no answer.
    """
    if CLOSED in text and OPENED not in text.partition(CLOSED)[0]:
        text = OPENED + text
    elif opened and OPENED not in text:
        return Reply("", text.strip())
    if OPENED not in text:
        return Reply(text)
    thoughts = "\n".join(part.strip() for part in _THOUGHTS.findall(text) if part.strip())
    return Reply(_THOUGHTS.sub("", text).lstrip("\n"), thoughts)
