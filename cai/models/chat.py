"""Conversations → token ids, by the model's own chat template, with the text of messages kept plain.

Knows the tokenizer and its template; knows no weights. What a message says is data: no text in it can become a control token
(the end of a turn, the start of another speaker's), so that a reply cannot end its own turn and forge what comes after.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any, cast

from cai.errors import ModelError
from cai.models.call_forms import CALL_MARKS, one_form
from cai.models.chat_template import FIXED_DATE, ChatTemplate
from cai.models.control_text import neutralised
from cai.models.fingerprints import text_digest
from cai.models.piece_encoder import EVERYWHERE, UNMARKED, Marking, PieceEncoder
from cai.models.progress import LOGGER
from cai.models.thoughts import Reply, ThoughtMarks, split_thoughts
from cai.models.tool_turns import definitions, harmless, harmless_reply, texts_of
from constitution.messages import Conversation, Message, Tool, assistant, tools_of, user
from constitution.rendering import PLAIN_SPEAKERS, PLAIN_STOPS, render_plain
from constitution.tool_text import as_call, as_reply, as_text, reply_text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_PROBE = "q7"


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
        self._template = None if plain else ChatTemplate(tokenizer, name=name, template=chat_template, thinking=thinking)
        self._thinking = thinking
        self._encoder = PieceEncoder(tokenizer)
        self._marks = ThoughtMarks.of(self._encoder.control_tokens)
        self._leading_ids = self._encoder.leading_ids() if plain else ()
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
        form = f"plain {sorted(PLAIN_SPEAKERS.items())}" if self._template is None else self._template.text
        return text_digest(
            vocabulary, form, repr(sorted(self._encoder.control_tokens.items())), f"thinking={self._thinking} {FIXED_DATE}"
        )

    @property
    def control_ids(self) -> frozenset[int]:
        """The tokens that steer: the end of a turn, the start of a speaker's."""
        return frozenset(self._encoder.control_tokens)

    def control_texts(self, text: str) -> int:
        """How many texts of control tokens stand in a text; each is encoded as ordinary text."""
        return sum(1 for _ in self._encoder.control_text.finditer(text)) if self._encoder.control_text else 0

    def neutralised(self, text: str) -> str:
        """The text for those who will encode it without care: a space goes into every text of a control token."""
        return neutralised(text, self._encoder.control_text) if self._encoder.control_text else text

    def prompt_text(self, messages: Conversation, response_prefix: str = "") -> str:
        """The prompt as the text that `encode_chat` encodes.

        Raises:
            ModelError: If the template refuses the conversation.
        """
        return self._prompt_text(self._fitting(messages), response_prefix, UNMARKED)

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
        marking = self._encoder.marking(*texts_of((*messages, reply)))
        reply_ids = self._encode_reply(messages, reply, marking)
        # As in a prompt: what a normaliser makes a control token of is taken apart.
        if self._encoder.controls_in(reply_ids) > self._encoder.controls_in(
            self._encode_reply(messages, harmless_reply(reply), self._encoder.marking())
        ):
            reply_ids = self._encode_reply(messages, reply, replace(marking, control_text=EVERYWHERE))
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
        return self._marks.text(ids, self._encoder.decode)

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
        if self._knows_tools and getattr(self.tokenizer, "response_template", None) is not None:
            try:
                return self._parsed_response(ids, messages, tools)
            except (ValueError, TypeError, KeyError, RecursionError) as error:
                LOGGER.debug("%s: its response template does not read a reply: %s", self.name, error)
        marks = {token for token, text in self._encoder.control_tokens.items() if text in CALL_MARKS}
        if marks.intersection(ids):  # special tokens, which are left out of texts
            said = self.split_thoughts(self._marks.text(ids, lambda some: self._encoder.decode_with(some, marks))).text
        return one_form(said, tools)

    def _parsed_response(self, ids: Sequence[int], messages: Conversation, tools: Sequence[Tool]) -> str:
        text = str(self.tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))
        found: Any = self.tokenizer.parse_response(text, prefix=self.prompt_text(messages), tools=definitions(tools))
        calls = tuple(as_call(each) for each in found.get("tool_calls") or ())
        return reply_text(Message(role="assistant", content=str(found.get("content") or "").strip(), tool_calls=calls))

    def _refuse_other_marks(self, whole: Conversation, turns: Sequence[tuple[list[int], list[int]]]) -> None:
        """Where a template says itself what the assistant wrote, refuse to differ: a mark for each turn, on all of its text.

        Marks may hold the markup around a turn, or leave out what ends it: templates do both.
        """
        found = None if self._template is None else self._template.marked_ids(whole)
        if found is None:
            return
        ids, marks = found
        places = [range(len(prompt), len(prompt) + len(reply)) for prompt, reply in turns]
        if any(ids[: place.stop] != [*prompt, *reply] for place, (prompt, reply) in zip(places, turns, strict=True)):
            return  # a rewritten history, or text of control tokens: not the ids that the marks are for
        starts = sum(mark > before for before, mark in pairwise([0, *marks]))
        texts = [place[:-1] if ids[place[-1]] in self._encoder.control_tokens else place for place in places]
        if starts != len(turns) or not all(marks[at] for text in texts for at in text):
            raise ModelError(
                f"model {self.name}: the {{% generation %}} blocks of its chat template do not mark the assistant's turns.",
                "Mend the template, or take these blocks out of it.",
            )

    def _encode_chat_uncached(self, messages: Conversation, response_prefix: str) -> tuple[int, ...]:
        messages = self._fitting(messages)
        marking = self._encoder.marking(*texts_of(messages), response_prefix)
        ids = self._encoder.encode_marked(self._prompt_text(messages, response_prefix, marking), marking)
        # Some normalisers turn other text into a control token ("＜s＞" by NFKC). Then no two characters stay together.
        if self._encoder.controls_in(ids) > self._control_count(tuple(map(harmless, messages)), bool(response_prefix)):
            marking = replace(marking, control_text=EVERYWHERE)
            ids = self._encoder.encode_marked(self._prompt_text(messages, response_prefix, marking), marking)
        return (*self._leading_ids, *ids)

    def _control_count_uncached(self, messages: Conversation, with_prefix: bool) -> int:  # noqa: FBT001 - a cache's key
        """How many control tokens the template itself writes for turns that say nothing."""
        marking = self._encoder.marking()
        return self._encoder.controls_in(
            self._encoder.encode_marked(self._prompt_text(messages, "x" if with_prefix else "", marking), marking)
        )

    def _fitting(self, messages: Conversation) -> Conversation:
        """The conversation as the chat template can write it: with tools in words, where it knows none."""
        written = as_text(messages)
        return messages if written is messages or self._knows_tools else written

    @property
    def _knows_tools(self) -> bool:
        return self._template is not None and self._template.takes_tools

    def _render(self, messages: Sequence[Message], *, generation_prompt: bool) -> str:
        assert self._template is not None, "the plain form has no template"
        return self._template.render(messages, generation_prompt=generation_prompt)

    def _prompt_text(self, messages: Conversation, response_prefix: str, marking: Marking) -> str:
        marked = marking.messages(messages)
        if self.plain:
            start = render_plain(marked).removeprefix("\n\n") + f"\n\n{PLAIN_SPEAKERS['assistant']}:"
            return f"{start} {marking.text(response_prefix)}" if response_prefix else start
        start = "" if self._thinking and not response_prefix else self._answer_start
        return self._render(marked, generation_prompt=True) + start + marking.text(response_prefix)

    def _encode_reply(self, messages: Conversation, reply: Message, marking: Marking) -> list[int]:
        text = self._reply_text(messages, reply, marking)
        if not self._encoder.heeds_what_is_before:
            return self._encoder.encode_marked(text, marking)
        # What a tokenizer puts before a text depends on what comes before it.
        prompt = self._prompt_text(messages, "", marking)
        prompt_ids, whole = self._encoder.encode_marked(prompt, marking), self._encoder.encode_marked(prompt + text, marking)
        if whole[: len(prompt_ids)] == prompt_ids:
            return whole[len(prompt_ids) :]
        return self._encoder.encode_marked(marking.mark + text, marking)

    def _reply_text(self, messages: Conversation, reply: Message, marking: Marking) -> str:
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

    def _find_answer_start(self) -> tuple[str, bool]:
        """What to put after the prompt so that an answer follows and no thought, and whether the prompt ends in a thought.

        The first is what the template itself writes before an answer in a history, where that is markup (a channel, an empty
        thought), else what ends the thought that the prompt opens.
        """
        prompt = self._render((user("x"),), generation_prompt=True)
        closing = self._marks.closing_of(prompt)
        whole = self._render((user("x"), assistant(_PROBE)), generation_prompt=False)
        between = whole.removeprefix(prompt).partition(_PROBE)[0] if whole.startswith(prompt) else ""
        is_markup = self._encoder.controls_in(self._encoder.encode(between)) > 0
        return between if is_markup else closing, self._thinking and bool(closing)

    def _find_end_of_turn(self) -> int | None:
        """The control token that follows an assistant's reply in the template; in the plain form, EOS."""
        eos = cast("int | None", self.tokenizer.eos_token_id)
        if self.plain:
            return eos
        rendered = self._render((user("x"), assistant(_PROBE)), generation_prompt=False)
        after = self._encoder.encode(rendered.rpartition(_PROBE)[2])
        return next((token for token in after if token in self._encoder.control_tokens), eos)
