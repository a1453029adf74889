"""Conversations → token ids, by the model's own chat template, with the text of messages kept plain.

Knows the tokenizer and its template; knows no weights. What a message says is data: no text in it can become a control token
(the end of a turn, the start of another speaker's), so that a reply cannot end its own turn and forge what comes after.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise, takewhile
from typing import TYPE_CHECKING, Any, cast

from jinja2 import TemplateError

from cai.errors import ModelError
from cai.models.checking import no_chat_template
from cai.models.control_text import neutralised
from cai.models.fingerprints import text_digest
from cai.models.progress import LOGGER
from cai.models.thoughts import Reply, ThoughtMarks, split_thoughts
from constitution.messages import Conversation, Message, Role, assistant, system, user
from constitution.rendering import PLAIN_SPEAKERS, PLAIN_STOPS, render_plain

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_MARKUP = re.compile(r"^[<\[{|(].{1,}[>\]}|)]$", re.DOTALL)
_PROBE = "q7"
_PRIVATE_USE = range(0xF0000, 0xFFFFE)
_EVERYWHERE = re.compile(r"(?=.)", re.DOTALL)
_THINKING_SWITCHES = ("enable_thinking", "thinking", "open_thinking")
"""What the families' templates call it."""
_FIXED_DATE = "01 Jan 2026"
"""Some templates write today's date; a prompt that changes overnight would neither be found again nor reproduced."""
_FIXED_PARTS = {
    "%Y": "2026",
    "%y": "26",
    "%m": "01",
    "%d": "01",
    "%B": "January",
    "%b": "Jan",
    "%A": "Thursday",
    "%a": "Thu",
} | dict.fromkeys(("%H", "%M", "%S"), "00")
# A macro of that name goes before the clock that transformers offers. A function cannot be given to a template: it would be
# made a string. The empty expression at the end keeps a newline with which the template may begin.
_FIXED_CLOCK = (
    "{% macro strftime_now(format) %}{{ format"
    + "".join(f" | replace('{part}', '{value}')" for part, value in _FIXED_PARTS.items())
    + " }}{% endmacro %}{{ '' }}"
)


class ChatTokenizer:
    """A tokenizer together with the form in which conversations are put to its model.

    Ordinary conversations get exactly the ids of `apply_chat_template`. Where a message holds the text of a control token, the
    rendered string is cut inside that text and the pieces are encoded one by one, so that the tokenizer never sees it whole.

    Args:
        tokenizer: Any transformers tokenizer.
        name: What to call the model in errors.
        plain: Human/Assistant text instead of the chat template.
        chat_template: Instead of the tokenizer's own.
        thinking: Let the model think before it answers. Without, templates that have a switch for it are asked for none, and
            what the others begin (an open thought, a choice of channels) is ended in the prompt, so that an answer follows.
        eos_ids: Further tokens that end an answer (of the model's generation config).

    Raises:
        ModelError: If there is no chat template and no plain form was asked for, or the template cannot render a simple
            conversation.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        *,
        name: str = "",
        plain: bool = False,
        chat_template: str | None = None,
        thinking: bool = False,
        eos_ids: Sequence[int] = (),
    ) -> None:
        self.tokenizer: Any = tokenizer
        self.name = name
        self.plain = plain
        self._template = chat_template or (None if plain else self._own_template())
        if not plain and not self._template:
            raise no_chat_template(name)
        self._dated_template = f"{_FIXED_CLOCK}{self._template}" if "strftime_now" in (self._template or "") else self._template
        self._thinking = thinking
        self._control_ids = _control_tokens(self.tokenizer)
        # A lookahead, so that overlapping occurrences are all found.
        texts = "|".join(map(re.escape, self._control_ids.values()))
        self._control_text = re.compile(f"(?={texts})") if texts else None
        self._marks = ThoughtMarks.of(self._control_ids)
        self._newline_ids = self._find_newline()
        self._takes_system, self._said_merged = True, False
        if not plain:
            self._refuse_unfit_template()
            self._takes_system = self._renders_system()
        self._leading_ids = self._find_leading() if plain else ()
        self._answer_start, self._opens_thought = ("", False) if plain else self._find_answer_start()
        self._end_of_turn = self._find_end_of_turn()
        known = (self.tokenizer.eos_token_id, self._end_of_turn, *eos_ids)
        self.stop_ids = frozenset(token for token in known if token is not None)
        self._encode_chat = lru_cache(maxsize=4096)(self._encode_chat_uncached)
        self._control_count = lru_cache(maxsize=256)(self._control_count_uncached)

    @property
    def opens_thought(self) -> bool:
        """Whether a prompt ends inside a thought, so that the answer begins there."""
        return self._opens_thought

    @property
    def stop_texts(self) -> tuple[str, ...]:
        """Texts that end an answer besides the stop tokens: the next speaker's name, where the form is plain text."""
        return PLAIN_STOPS if self.plain else ()

    @property
    def template_fingerprint(self) -> str:
        """Digest of all that decides how a conversation becomes ids: vocabulary, merges, control tokens, template, form."""
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        vocabulary = backend.to_str() if backend is not None else repr(sorted(self.tokenizer.get_vocab().items()))
        form = f"plain {sorted(PLAIN_SPEAKERS.items())}" if self.plain else str(self._template)
        return text_digest(
            vocabulary, form, repr(sorted(self._control_ids.items())), f"thinking={self._thinking} {_FIXED_DATE}"
        )

    @property
    def control_ids(self) -> frozenset[int]:
        """The tokens that steer: the end of a turn, the start of a speaker's."""
        return frozenset(self._control_ids)

    def control_texts(self, text: str) -> int:
        """How many texts of control tokens stand in a text; each is encoded as ordinary text."""
        return sum(1 for _ in self._control_text.finditer(text)) if self._control_text else 0

    def neutralised(self, text: str) -> str:
        """The text for those who will encode it without care: a space goes into every text of a control token."""
        return neutralised(text, self._control_text) if self._control_text else text

    def prompt_text(self, messages: Conversation, response_prefix: str = "") -> str:
        """The prompt as the text that `encode_chat` encodes.

        Raises:
            ModelError: If the template refuses the conversation.
        """
        return self._prompt_text(messages, response_prefix, _Marking("", None))

    def encode_chat(self, messages: Conversation, response_prefix: str = "") -> list[int]:
        """The prompt's ids: the conversation, the start of the assistant's turn, and the text that turn already begins with.

        Raises:
            ModelError: If the template refuses the conversation (two user turns in a row, for some).
        """
        return list(self._encode_chat(messages, response_prefix))

    def encode_reply(self, messages: Conversation, reply: str) -> tuple[list[int], list[int]]:
        """Prompt ids (those of `encode_chat`) and the ids of a whole reply, the end of its turn included.

        The reply is encoded on its own, since generation starts from the prompt's ids: a token across the border could never
        have been generated. What the template puts between the two (a space, an empty thought) belongs to the reply.
        """
        prompt_ids = self.encode_chat(messages)
        reply_ids = self._encode_reply(messages, reply, self._marking(*(each.content for each in messages), reply))
        # As in a prompt: what a normaliser makes a control token of is taken apart.
        if self._controls_in(reply_ids) > self._controls_in(self._encode_reply(messages, "x", self._marking())):
            marking = replace(self._marking(*(each.content for each in messages), reply), control_text=_EVERYWHERE)
            reply_ids = self._encode_reply(messages, reply, marking)
        for position, token in enumerate(reply_ids):
            if token in self.stop_ids:
                return prompt_ids, reply_ids[: position + 1]
        return prompt_ids, reply_ids if self._end_of_turn is None else [*reply_ids, self._end_of_turn]

    def count(self, messages: Conversation, response_prefix: str = "") -> int:
        """Exact length of the prompt, in tokens."""
        return len(self._encode_chat(messages, response_prefix))

    def decode(self, ids: Sequence[int]) -> str:
        """Text of generated ids, without special tokens; thoughts stand between `<think>` and `</think>` in every family."""
        return self._marks.text(ids, self._decode)

    def read_reply(self, ids: Sequence[int], *, after_prefix: bool = False) -> Reply:
        """The answer in generated ids; thoughts are taken out, and in the plain form the space after the speaker's colon.

        Args:
            ids: Generated tokens, without the prompt's.
            after_prefix: They go on from a response prefix: their first space counts.
        """
        return self.split_thoughts(self.decode(ids), after_prefix=after_prefix)

    def split_thoughts(self, text: str, *, after_prefix: bool = False) -> Reply:
        """As `read_reply`, for text that is decoded already."""
        if self.plain and not after_prefix:
            text = text.removeprefix(" ")
        return split_thoughts(text, opened=self._opens_thought and not after_prefix)

    def _encode_chat_uncached(self, messages: Conversation, response_prefix: str) -> tuple[int, ...]:
        marking = self._marking(*(each.content for each in messages), response_prefix)
        ids = self._encode_marked(self._prompt_text(messages, response_prefix, marking), marking)
        # Some normalisers turn other text into a control token ("＜s＞" by NFKC). Then no two characters stay together.
        if self._controls_in(ids) > self._control_count(tuple(each.role for each in messages), bool(response_prefix)):
            marking = replace(marking, control_text=_EVERYWHERE)
            ids = self._encode_marked(self._prompt_text(messages, response_prefix, marking), marking)
        return (*self._leading_ids, *ids)

    def _control_count_uncached(self, roles: tuple[Role, ...], with_prefix: bool) -> int:  # noqa: FBT001 - a cache's key
        """How many control tokens the template itself writes for these turns."""
        marking = self._marking()
        harmless = tuple(Message(role=role, content="x") for role in roles)
        return self._controls_in(self._encode_marked(self._prompt_text(harmless, "x" if with_prefix else "", marking), marking))

    def _controls_in(self, ids: Sequence[int]) -> int:
        return sum(token in self._control_ids for token in ids)

    def _prompt_text(self, messages: Conversation, response_prefix: str, marking: _Marking) -> str:
        marked = marking.messages(messages)
        if self.plain:
            start = render_plain(marked).removeprefix("\n\n") + f"\n\n{PLAIN_SPEAKERS['assistant']}:"
            return f"{start} {marking.text(response_prefix)}" if response_prefix else start
        start = "" if self._thinking and not response_prefix else self._answer_start
        return self._render(marked, generation_prompt=True) + start + marking.text(response_prefix)

    def _encode_reply(self, messages: Conversation, reply: str, marking: _Marking) -> list[int]:
        text = self._reply_text(messages, reply, marking)
        if not self._newline_ids:
            return self._encode_marked(text, marking)
        # What a tokenizer puts before a text depends on what comes before it.
        prompt = self._prompt_text(messages, "", marking)
        prompt_ids, whole = self._encode_marked(prompt, marking), self._encode_marked(prompt + text, marking)
        if whole[: len(prompt_ids)] == prompt_ids:
            return whole[len(prompt_ids) :]
        return self._encode_marked(marking.mark + text, marking)

    def _reply_text(self, messages: Conversation, reply: str, marking: _Marking) -> str:
        if self.plain:
            return f" {marking.text(reply)}"
        marked = marking.messages(messages)
        prompt = self._prompt_text(messages, "", marking)
        whole = self._render((*marked, assistant(marking.text(reply))), generation_prompt=False)
        # A template whose prompt holds what its history drops (an empty thought): the reply follows as it is.
        return whole.removeprefix(prompt) if whole.startswith(prompt) else marking.text(reply)

    def _render(self, messages: Sequence[Message], *, generation_prompt: bool) -> str:
        turns = [{"role": each.role, "content": each.content} for each in self._merge_system(messages)]
        try:
            text = self.tokenizer.apply_chat_template(
                turns,
                chat_template=self._dated_template,
                tokenize=False,
                add_generation_prompt=generation_prompt,
                date_string=_FIXED_DATE,
                **dict.fromkeys(_THINKING_SWITCHES, self._thinking),
            )
        except (TemplateError, TypeError, ValueError, KeyError, AttributeError) as error:
            raise ModelError(
                f"model {self.name}: its chat template refuses the conversation: {error}.",
                "Turns must alternate user/assistant; else give another `chat_template`.",
            ) from error
        return str(text)

    def _merge_system(self, messages: Sequence[Message]) -> Sequence[Message]:
        """For templates without a system turn: put its text before the first user turn's."""
        if self._takes_system or not messages or messages[0].role != "system":
            return messages
        if not self._said_merged:
            self._said_merged = True
            LOGGER.info("%s: its chat template has no system turn; system text goes before the first user's.", self.name)
        first, rest = messages[0], messages[1:]
        if rest and rest[0].role == "user":
            return (user(f"{first.content}\n\n{rest[0].content}"), *rest[1:])
        return (user(first.content), *rest)

    def _own_template(self) -> str | None:
        """The tokenizer's own; of several, the one for conversations without tools."""
        own: object = self.tokenizer.chat_template
        if isinstance(own, dict):
            return cast("dict[str, str]", own).get("default")
        return cast("str | None", own)

    def _refuse_unfit_template(self) -> None:
        """A template made for other calls (with tools, with lists of parts) may fail, or write nothing of the text."""
        hint = "Give a template for conversations of plain text as `chat_template: FILE`."
        try:
            rendered = self._render((user(_PROBE),), generation_prompt=True)
        except ModelError as error:
            raise ModelError(error.problem, hint) from error
        if _PROBE not in rendered:
            raise ModelError(f"model {self.name}: its chat template leaves out what the user says.", hint)

    def _renders_system(self) -> bool:
        try:
            return _PROBE in self._render((system(_PROBE), user("x")), generation_prompt=True)
        except ModelError:
            return False

    def _find_leading(self) -> tuple[int, ...]:
        """What the tokenizer puts before every text (BOS). Chat templates write it themselves, the plain form does not."""
        return tuple(takewhile(self._control_ids.__contains__, self.tokenizer.encode(_PROBE)))

    def _find_answer_start(self) -> tuple[str, bool]:
        """What to put after the prompt so that an answer follows and no thought, and whether the prompt ends in a thought.

        The first is what the template itself writes before an answer in a history, where that is markup (a channel, an empty
        thought), else what ends the thought that the prompt opens.
        """
        prompt = self._render((user("x"),), generation_prompt=True)
        closing = self._marks.closing_of(prompt)
        whole = self._render((user("x"), assistant(_PROBE)), generation_prompt=False)
        between = whole.removeprefix(prompt).partition(_PROBE)[0] if whole.startswith(prompt) else ""
        is_markup = self._controls_in(self._encode(between)) > 0
        return between if is_markup else closing, self._thinking and bool(closing)

    def _find_newline(self) -> tuple[int, ...]:
        """Ids of a newline, if the tokenizer puts a space before every text it is given; else nothing.

        Text that goes on inside a piece must not get that space, so it is encoded after a newline, which is then taken off.
        """
        newline, after = self._encode("\n"), self._encode(f"\n{_PROBE}")
        puts_space = after[: len(newline)] == newline and after[len(newline) :] != self._encode(_PROBE)
        return tuple(newline) if puts_space else ()

    def _find_end_of_turn(self) -> int | None:
        """The control token that follows an assistant's reply in the template; in the plain form, EOS."""
        eos = cast("int | None", self.tokenizer.eos_token_id)
        if self.plain:
            return eos
        rendered = self._render((user("x"), assistant(_PROBE)), generation_prompt=False)
        after = self._encode(rendered.rpartition(_PROBE)[2])
        return next((token for token in after if token in self._control_ids), eos)

    def _marking(self, *texts: str) -> _Marking:
        together = "".join(texts)
        return _Marking(next(mark for mark in map(chr, _PRIVATE_USE) if mark not in together), self._control_text)

    def _encode_marked(self, text: str, marking: _Marking) -> list[int]:
        """Encode what lies between marks piece by piece; a text without marks, as nearly all are, in one go."""
        first, *rest = text.split(marking.mark)
        return [*self._encode(first), *(token for piece in rest if piece for token in self._encode_inner(piece))]

    def _encode_inner(self, piece: str) -> list[int]:
        """A piece that does not begin its text."""
        if self._newline_ids:
            ids = self._encode(f"\n{piece}")
            if tuple(ids[: len(self._newline_ids)]) == self._newline_ids:
                return ids[len(self._newline_ids) :]
        return self._encode(piece)

    def _encode(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=False)) if text else []

    def _decode(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))


@dataclass(frozen=True, slots=True)
class _Marking:
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
        return tuple(Message(role=each.role, content=self.text(each.content)) for each in messages)


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
