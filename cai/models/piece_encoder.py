"""Text → token ids and back, in which no text of a message becomes a control token. Knows a tokenizer; knows no template."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, takewhile
from typing import TYPE_CHECKING, Any

from cai.models.tool_turns import mapped
from constitution.messages import Conversation, Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

EVERYWHERE = re.compile(r"(?=.)", re.DOTALL)
"""A cut before every character: where a normaliser makes a control token of what is none."""
_MARKUP = re.compile(r"^[<\[{|(].{1,}[>\]}|)]$", re.DOTALL)
_PROBE = "q7"
_PRIVATE_USE = range(0xF0000, 0xFFFFE)


@dataclass(frozen=True, slots=True)
class Marking:
    """Marks the places where a text must be cut before it is encoded: after the first character of every control token's text.

    Args:
        mark: A character that stands in none of the texts.
        control_text: Matches, with no width, where a control token's text begins.
    """

    mark: str
    control_text: re.Pattern[str] | None

    def text(self, text: str) -> str:
        places = [found.start() + 1 for found in self.control_text.finditer(text)] if self.control_text else []
        bounds = [0, *places, len(text)]
        return self.mark.join(text[start:end] for start, end in pairwise(bounds)) if places else text

    def messages(self, messages: Sequence[Message]) -> Conversation:
        return tuple(mapped(each, self.text) for each in messages)


UNMARKED = Marking("", None)


class PieceEncoder:
    """Encodes rendered text piece by piece: what lies between marks never meets, so that no control token comes of it.

    Args:
        tokenizer: Any transformers tokenizer.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer: Any = tokenizer
        self.control_tokens = _control_tokens(self._tokenizer)
        """Ids and texts of the tokens that steer."""
        # A lookahead, so that overlapping occurrences are all found.
        texts = "|".join(map(re.escape, self.control_tokens.values()))
        self.control_text = re.compile(f"(?={texts})") if texts else None
        self._newline_ids = self._find_newline()

    @property
    def heeds_what_is_before(self) -> bool:
        """Whether the ids of a text depend on what comes before it: the tokenizer puts a space before every text."""
        return bool(self._newline_ids)

    def controls_in(self, ids: Sequence[int]) -> int:
        return sum(token in self.control_tokens for token in ids)

    def leading_ids(self) -> tuple[int, ...]:
        """What the tokenizer puts before every text (BOS). Chat templates write it themselves, the plain form does not."""
        return tuple(takewhile(self.control_tokens.__contains__, self._tokenizer.encode(_PROBE)))

    def marking(self, *texts: str) -> Marking:
        """For texts, with a mark that stands in none of them."""
        together = "".join(texts)
        return Marking(next(mark for mark in map(chr, _PRIVATE_USE) if mark not in together), self.control_text)

    def encode(self, text: str) -> list[int]:
        """In one go."""
        return list(self._tokenizer.encode(text, add_special_tokens=False)) if text else []

    def encode_marked(self, text: str, marking: Marking) -> list[int]:
        """What lies between marks, piece by piece; a text without marks, as nearly all are, in one go."""
        first, *rest = text.split(marking.mark)
        return [*self.encode(first), *(token for piece in rest if piece for token in self._encode_inner(piece))]

    def decode(self, ids: Sequence[int]) -> str:
        """Without special tokens."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def decode_with(self, ids: Sequence[int], kept: set[int]) -> str:
        """With the texts of some special tokens."""
        parts, start = list[str](), 0
        for place, token in enumerate(ids):
            if token in kept:
                parts += [self.decode(ids[start:place]), self.control_tokens[token]]
                start = place + 1
        return "".join([*parts, self.decode(ids[start:])])

    def _find_newline(self) -> tuple[int, ...]:
        """Ids of a newline, if the tokenizer puts a space before every text it is given; else nothing.

        Text that goes on inside a piece must not get that space, so it is encoded after a newline, which is then taken off.
        """
        newline, after = self.encode("\n"), self.encode(f"\n{_PROBE}")
        puts_space = after[: len(newline)] == newline and after[len(newline) :] != self.encode(_PROBE)
        return tuple(newline) if puts_space else ()

    def _encode_inner(self, piece: str) -> list[int]:
        """A piece that does not begin its text."""
        if self._newline_ids:
            ids = self.encode(f"\n{piece}")
            if tuple(ids[: len(self._newline_ids)]) == self._newline_ids:
                return ids[len(self._newline_ids) :]
        return self.encode(piece)


def _control_tokens(tokenizer: Any) -> dict[int, str]:
    """Ids and texts of the tokens that steer: the special ones, and added ones that look like markup (`<think>`, `[INST]`).

    Other added tokens are ordinary vocabulary (runs of spaces, words of a trade).
    """
    added: dict[int, Any] = tokenizer.added_tokens_decoder
    special = {int(token) for token in tokenizer.all_special_ids}
    return {
        token: str(entry.content)
        for token, entry in added.items()
        if len(str(entry.content)) > 1 and (entry.special or token in special or _MARKUP.match(str(entry.content)))
    }
