"""Conversations → token ids, by the model's own chat template, with the text of messages kept plain.

Knows the tokenizer and its template; knows no weights. What a message says is data: no text in it can become a control token
(the end of a turn, the start of another speaker's), so that a reply cannot end its own turn and forge what comes after.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import pairwise, takewhile
from typing import TYPE_CHECKING, Any, cast

from jinja2 import TemplateError

from cai.errors import ModelError
from cai.models.call_forms import CALL_MARKS, one_form
from cai.models.checking import no_chat_template
from cai.models.control_text import neutralised
from cai.models.fingerprints import text_digest
from cai.models.progress import LOGGER
from cai.models.thoughts import Reply, ThoughtMarks, split_thoughts
from cai.models.tool_turns import (
    PROBE_WORDS,
    definitions,
    harmless,
    harmless_reply,
    mapped,
    probe,
    template_turns,
    texts_of,
)
from constitution.messages import Conversation, Message, Tool, assistant, system, tools_of, user
from constitution.rendering import PLAIN_SPEAKERS, PLAIN_STOPS, render_plain
from constitution.tool_text import as_call, as_reply, as_text, reply_text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_MARKUP = re.compile(r"^[<\[{|(].{1,}[>\]}|)]$", re.DOTALL)
_PROBE = "q7"
_PRIVATE_USE = range(0xF0000, 0xFFFFE)
_EVERYWHERE = re.compile(r"(?=.)", re.DOTALL)
_THINKING_SWITCHES = ("enable_thinking", "thinking", "open_thinking")
"""What the families' templates call it."""
_GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")
"""With which some templates mark what the assistant writes."""
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
        self._dated_template = _dated(self._template)
        own: object = getattr(tokenizer, "chat_template", None)
        of_several = cast("dict[str, str]", own).get("tool_use") if isinstance(own, dict) and chat_template is None else None
        self._tool_template = _dated(of_several) or self._dated_template
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
        return self._prompt_text(self._fitting(messages), response_prefix, _Marking("", None))

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
        messages = self._fitting(messages)
        return self._encode_turn(messages, as_reply(reply, tools_of(messages)))

    def encode_exchange(self, messages: Conversation, reply: str) -> tuple[list[int], list[int]]:
        """As `encode_reply`, with just what the template writes after the reply: some put a line break after the end of a turn.

        Together they are what `apply_chat_template` makes of the whole conversation, where its prompt stands in that.
        """
        messages = self._fitting(messages)
        return self._encode_both(messages, as_reply(reply, tools_of(messages)))

    def _encode_turn(self, messages: Conversation, reply: Message) -> tuple[list[int], list[int]]:
        prompt_ids, reply_ids = self._encode_both(messages, reply)
        for position, token in enumerate(reply_ids):
            if token in self.stop_ids:
                return prompt_ids, reply_ids[: position + 1]
        return prompt_ids, reply_ids if self._end_of_turn is None else [*reply_ids, self._end_of_turn]

    def _encode_both(self, messages: Conversation, reply: Message) -> tuple[list[int], list[int]]:
        marking = self._marking(*texts_of((*messages, reply)))
        reply_ids = self._encode_reply(messages, reply, marking)
        # As in a prompt: what a normaliser makes a control token of is taken apart.
        if self._controls_in(reply_ids) > self._controls_in(
            self._encode_reply(messages, harmless_reply(reply), self._marking())
        ):
            reply_ids = self._encode_reply(messages, reply, replace(marking, control_text=_EVERYWHERE))
        return self.encode_chat(messages), reply_ids

    def encode_turns(self, messages: Conversation, reply: str) -> list[tuple[list[int], list[int]]]:
        """As `encode_reply`, for each assistant turn in `messages` and for `reply` after them: each as it would be generated.

        Whether a turn stands so in the prompt of the next one is up to the template: some leave earlier thoughts out.

        Raises:
            ModelError: If the template refuses the conversation up to one of these turns, or its `{% generation %}` blocks
                mark other turns.
        """
        whole = self._fitting((*messages, as_reply(reply, tools_of(messages))))
        turns = [
            self._encode_turn(whole[:place], message) for place, message in enumerate(whole) if message.role == "assistant"
        ]
        self._refuse_other_marks(whole, turns)
        return turns

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

    def read_calls(self, ids: Sequence[int], said: str, messages: Conversation) -> str:
        """The answer to a conversation with tools, its calls in the form in which replies are kept.

        Args:
            ids: Generated tokens, without the prompt's and without what ended them.
            said: What `split_thoughts` made of their text.
            messages: What is answered.
        """
        tools = tools_of(messages)
        if self._takes_tools and getattr(self.tokenizer, "response_template", None) is not None:
            try:
                return self._parsed_response(ids, messages, tools)
            except (ValueError, TypeError, KeyError, RecursionError) as error:
                LOGGER.debug("%s: its response template does not read a reply: %s", self.name, error)
        marks = {token for token, text in self._control_ids.items() if text in CALL_MARKS}
        if marks.intersection(ids):  # special tokens, which are left out of texts
            said = self.split_thoughts(self._marks.text(ids, lambda some: self._decode_with(some, marks))).text
        return one_form(said, tools)

    def _parsed_response(self, ids: Sequence[int], messages: Conversation, tools: Sequence[Tool]) -> str:
        text = str(self.tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))
        found: Any = self.tokenizer.parse_response(text, prefix=self.prompt_text(messages), tools=definitions(tools))
        calls = tuple(as_call(each) for each in found.get("tool_calls") or ())
        return reply_text(Message(role="assistant", content=str(found.get("content") or "").strip(), tool_calls=calls))

    def _decode_with(self, ids: Sequence[int], kept: set[int]) -> str:
        """As `_decode`, with the texts of some special tokens."""
        parts, start = list[str](), 0
        for place, token in enumerate(ids):
            if token in kept:
                parts += [self._decode(ids[start:place]), self._control_ids[token]]
                start = place + 1
        return "".join([*parts, self._decode(ids[start:])])

    def _refuse_other_marks(self, whole: Conversation, turns: Sequence[tuple[list[int], list[int]]]) -> None:
        """Where a template says itself what the assistant wrote, refuse to differ: a mark for each turn, on all of its text.

        Marks may hold the markup around a turn, or leave out what ends it: templates do both.
        """
        if self.plain or _GENERATION.search(self._template or "") is None or not self.tokenizer.is_fast:
            return
        marked: Any = self.tokenizer.apply_chat_template(
            template_turns(self._merge_system(whole)),
            return_dict=True,
            return_assistant_tokens_mask=True,
            **self._template_arguments(tools_of(whole)),
        )
        ids, marks = list(marked["input_ids"]), list(marked["assistant_masks"])
        places = [range(len(prompt), len(prompt) + len(reply)) for prompt, reply in turns]
        if any(ids[: place.stop] != [*prompt, *reply] for place, (prompt, reply) in zip(places, turns, strict=True)):
            return  # a rewritten history, or text of control tokens: not the ids that the marks are for
        starts = sum(mark > before for before, mark in pairwise([0, *marks]))
        texts = [place[:-1] if ids[place[-1]] in self._control_ids else place for place in places]
        if starts != len(turns) or not all(marks[at] for text in texts for at in text):
            raise ModelError(
                f"model {self.name}: the {{% generation %}} blocks of its chat template do not mark the assistant's turns.",
                "Mend the template, or take these blocks out of it.",
            )

    def _encode_chat_uncached(self, messages: Conversation, response_prefix: str) -> tuple[int, ...]:
        messages = self._fitting(messages)
        marking = self._marking(*texts_of(messages), response_prefix)
        ids = self._encode_marked(self._prompt_text(messages, response_prefix, marking), marking)
        # Some normalisers turn other text into a control token ("＜s＞" by NFKC). Then no two characters stay together.
        if self._controls_in(ids) > self._control_count(tuple(map(harmless, messages)), bool(response_prefix)):
            marking = replace(marking, control_text=_EVERYWHERE)
            ids = self._encode_marked(self._prompt_text(messages, response_prefix, marking), marking)
        return (*self._leading_ids, *ids)

    def _control_count_uncached(self, messages: Conversation, with_prefix: bool) -> int:  # noqa: FBT001 - a cache's key
        """How many control tokens the template itself writes for turns that say nothing."""
        marking = self._marking()
        return self._controls_in(self._encode_marked(self._prompt_text(messages, "x" if with_prefix else "", marking), marking))

    @cached_property
    def _takes_tools(self) -> bool:
        """Whether the chat template writes all that a conversation with tools holds."""
        if self.plain:
            return False
        try:
            rendered = self._render(probe(), generation_prompt=True)
        except ModelError as error:
            rendered = error.problem
        missing = [word for word in PROBE_WORDS if word not in rendered]
        if missing:
            LOGGER.info("%s: its chat template knows no tools; they are told, called and answered in words.", self.name)
        return not missing

    def _fitting(self, messages: Conversation) -> Conversation:
        """The conversation as the chat template can write it: with tools in words, where it knows none."""
        written = as_text(messages)
        return messages if written is messages or self._takes_tools else written

    def _controls_in(self, ids: Sequence[int]) -> int:
        return sum(token in self._control_ids for token in ids)

    def _prompt_text(self, messages: Conversation, response_prefix: str, marking: _Marking) -> str:
        marked = marking.messages(messages)
        if self.plain:
            start = render_plain(marked).removeprefix("\n\n") + f"\n\n{PLAIN_SPEAKERS['assistant']}:"
            return f"{start} {marking.text(response_prefix)}" if response_prefix else start
        start = "" if self._thinking and not response_prefix else self._answer_start
        return self._render(marked, generation_prompt=True) + start + marking.text(response_prefix)

    def _encode_reply(self, messages: Conversation, reply: Message, marking: _Marking) -> list[int]:
        text = self._reply_text(messages, reply, marking)
        if not self._newline_ids:
            return self._encode_marked(text, marking)
        # What a tokenizer puts before a text depends on what comes before it.
        prompt = self._prompt_text(messages, "", marking)
        prompt_ids, whole = self._encode_marked(prompt, marking), self._encode_marked(prompt + text, marking)
        if whole[: len(prompt_ids)] == prompt_ids:
            return whole[len(prompt_ids) :]
        return self._encode_marked(marking.mark + text, marking)

    def _reply_text(self, messages: Conversation, reply: Message, marking: _Marking) -> str:
        if self.plain:
            return f" {marking.text(reply.content)}"
        marked = marking.messages(messages)
        prompt = self._prompt_text(messages, "", marking)
        whole = self._render((*marked, *marking.messages((reply,))), generation_prompt=False)
        if whole.startswith(prompt):
            return whole.removeprefix(prompt)
        # A template whose prompt holds what its history drops (an empty thought): the reply follows as it is.
        if not reply.tool_calls:
            return marking.text(reply.content)
        start = prompt.removesuffix(self._answer_start)
        if not whole.startswith(start):
            raise ModelError(
                f"model {self.name}: its chat template writes a call elsewhere than where the model would.",
                "Give another `chat_template`.",
            )
        return whole.removeprefix(start)

    def _render(self, messages: Sequence[Message], *, generation_prompt: bool) -> str:
        try:
            text = self.tokenizer.apply_chat_template(
                template_turns(self._merge_system(messages)),
                tokenize=False,
                add_generation_prompt=generation_prompt,
                **self._template_arguments(tools_of(messages)),
            )
        except (TemplateError, TypeError, ValueError, KeyError, AttributeError) as error:
            raise ModelError(
                f"model {self.name}: its chat template refuses the conversation: {error}.",
                "Turns must alternate user/assistant; else give another `chat_template`.",
            ) from error
        return str(text)

    def _template_arguments(self, tools: Sequence[Tool]) -> dict[str, Any]:
        switches = dict.fromkeys(_THINKING_SWITCHES, self._thinking)
        if not tools:
            return {"chat_template": self._dated_template, "date_string": _FIXED_DATE, **switches}
        return {"chat_template": self._tool_template, "tools": definitions(tools), "date_string": _FIXED_DATE, **switches}

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
        return tuple(mapped(each, self.text) for each in messages)


def _dated(template: str | None) -> str | None:
    """A template that writes the same date on every day."""
    return f"{_FIXED_CLOCK}{template}" if template is not None and "strftime_now" in template else template


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
