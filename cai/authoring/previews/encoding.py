"""The prompts of a principle as the very token ids that an engine runs, and how many of them other prompts share.

Loads nothing: a tokenizer comes in, and no weights are looked at. Two numbers say what of a prompt need not be computed again.
Both count tokens from the very start of the prompt, up to the first that differs:

- `earlier_tokens`: in common with prompt and reply of the call before in the same conversation. A key-value cache that is kept
  from that call, of the same model, covers them.
- `common_tokens`: in common with the same stage's prompt under *every* other principle of the constitution, for the same case.
  Judging one case by all principles computes them once (`cai.engines.prefixes` packs what a batch shares).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cai.authoring.previews.cases import Case
from cai.authoring.previews.contexts import Outcome, outcome
from cai.authoring.previews.parts import Part, parts_of
from cai.authoring.previews.stages import Asked, Earlier, PreviewSettings, PreviewStage, ask
from cai.engines.base import RequestFailure, ScoreRequest
from cai.engines.beginnings import common_prefix
from cai.engines.requests import encode_scored, refusal
from cai.errors import ModelError
from cai.labels.letters import Order
from cai.models.chat import ChatTokenizer
from constitution.schema import Constitution, Principle


@dataclass(frozen=True, slots=True)
class Preview:
    """One request as an engine gets it.

    Args:
        principle_id: Whose it is.
        asked: The request.
        ids: The prompt; empty where the chat template refuses the conversation.
        text: Decoded from `ids`, control tokens included.
        scored_tokens: Prompt and longest continuation; the prompt alone where nothing is scored.
        earlier_tokens: See the module; None where a conversation begins.
        common_tokens: See the module; None for the only principle.
        differing: The principles whose prompts go apart from this one there, in their order.
        growth_tokens: About how much longer it is when the texts that models write are as long as the run lets them be.
        control_texts: Texts of control tokens inside the messages; each is encoded as ordinary text.
        failure: The engine's own answer when the chat template refuses the conversation.
    """

    principle_id: str
    asked: Asked
    ids: tuple[int, ...]
    text: str
    scored_tokens: int
    earlier_tokens: int | None
    common_tokens: int | None
    differing: tuple[str, ...]
    growth_tokens: int
    control_texts: int
    failure: RequestFailure | None = None

    def outcome(self, context: int, *, grown: bool = False) -> Outcome:
        """What becomes of it in a context of so many tokens; `grown`: were the written texts as long as they may be."""
        tokens = self.scored_tokens + (self.growth_tokens if grown else 0)
        return outcome(tokens, self.asked.max_tokens, context)

    def outcomes(self, context: int) -> tuple[Outcome, Outcome]:
        """As it is, and grown."""
        return self.outcome(context), self.outcome(context, grown=True)


@dataclass(frozen=True, slots=True)
class StageTotals:
    """One stage under all principles of a constitution, for one case.

    Args:
        stage: Which.
        order: Of a comparison.
        speaks_for: Of an argument, as in `Asked`.
        prompts: How many the chat template takes.
        tokens: Of all of them.
        common_tokens: That every one of them begins with; 0 for a single prompt.
    """

    stage: PreviewStage
    order: Order | None
    speaks_for: str
    prompts: int
    tokens: int
    common_tokens: int

    @property
    def tokens_computed(self) -> int:
        """With what is common computed once."""
        return self.tokens - max(0, self.prompts - 1) * self.common_tokens


class Previewer:
    """Previews the prompts of a constitution.

    Args:
        constitution: All its principles count for what they share.
        chat: Tokenizer and template of the model.
        settings: Of the loop and the labels.
    """

    def __init__(self, constitution: Constitution, chat: ChatTokenizer, settings: PreviewSettings | None = None) -> None:
        self._constitution = constitution
        self._chat = chat
        self._settings = settings or PreviewSettings()

    @property
    def principles(self) -> int:
        """How many there are."""
        return len(self._constitution.principles)

    def preview(self, principle: Principle, case: Case, stages: Sequence[PreviewStage]) -> list[Preview]:
        """The prompts of one principle; comparisons in both orders."""
        found: list[Preview] = []
        for stage in stages:
            asked = {each.id: self._ask(each, stage, case) for each in self._constitution.principles}
            asked[principle.id] = self._ask(principle, stage, case)
            for number, one in enumerate(asked[principle.id]):
                shared = _Shared.of({name: self._ids(requests[number]) for name, requests in asked.items()})
                found.append(self._preview(principle.id, one, shared))
        return found

    def table(self, case: Case, stages: Sequence[PreviewStage]) -> tuple[list[Preview], list[StageTotals]]:
        """The prompts of every principle for one case, by principle and stage, and the totals of each stage and order."""
        by_principle: dict[str, list[Preview]] = {each.id: [] for each in self._constitution.principles}
        totals: list[StageTotals] = []
        for stage in stages:
            asked = {each.id: self._ask(each, stage, case) for each in self._constitution.principles}
            for number in range(len(next(iter(asked.values())))):
                shared = _Shared.of({name: self._ids(requests[number]) for name, requests in asked.items()})
                for name, requests in asked.items():
                    by_principle[name].append(self._preview(name, requests[number], shared))
                taken = [ids for ids in shared.encoded.values() if not isinstance(ids, RequestFailure)]
                one = next(iter(asked.values()))[number]
                tokens = sum(map(len, taken))
                totals.append(StageTotals(stage, one.order, one.speaks_for, len(taken), tokens, shared.tokens or 0))
        return [preview for row in by_principle.values() for preview in row], totals

    def parts(self, principle: Principle, case: Case, preview: Preview) -> tuple[Part, ...]:
        """Whose the characters of a preview's text are; empty where it cannot be told (see `parts`)."""

        def rendered(principle: Principle, case: Case) -> str:
            request = self._ask(principle, preview.asked.stage, case)[preview.asked.place].request
            return self._chat.prompt_text(request.messages, request.response_prefix)

        if preview.failure is not None:
            return ()
        shift = preview.text.find(rendered(principle, case))
        parts = parts_of(principle, case, rendered) if shift >= 0 else ()
        return tuple(Part(each.kind, each.start + shift, each.end + shift) for each in parts)

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """The text of each token; together they are the whole text.

        A character that several tokens make up comes with the last of them; the others are empty.
        """
        pieces: list[str] = []
        first = read = 0
        for end in range(1, len(ids) + 1):
            # Decoded beside the tokens before it: some decoders write a token differently at the start of a text.
            before, now = self._decode(ids[first:read]), self._decode(ids[first:end])
            unfinished = now.endswith("�") and end < len(ids)
            if unfinished or len(now) <= len(before):
                pieces.append("")
            else:
                pieces.append(now[len(before) :])
                first, read = read, end
        return pieces

    def is_control(self, token: int) -> bool:
        """Whether a token steers the model: no text of a message can become one."""
        return token in self._chat.control_ids

    def _ask(self, principle: Principle, stage: PreviewStage, case: Case) -> tuple[Asked, ...]:
        return ask(principle, stage, case, self._settings, self._chat.count)

    def _ids(self, asked: Asked) -> tuple[int, ...] | RequestFailure:
        try:
            return tuple(self._chat.encode_chat(asked.request.messages, asked.request.response_prefix))
        except ModelError as error:
            return refusal(error)

    def _preview(self, principle_id: str, asked: Asked, shared: _Shared) -> Preview:
        ids = shared.encoded[principle_id]
        if isinstance(ids, RequestFailure):
            return Preview(principle_id, asked, (), "", 0, None, None, (), 0, 0, ids)
        request = asked.request
        scored = encode_scored(self._chat, 0, request).sequences if isinstance(request, ScoreRequest) else (ids,)
        return Preview(
            principle_id=principle_id,
            asked=asked,
            ids=ids,
            text=self._decode(ids),
            scored_tokens=max(map(len, scored)),
            earlier_tokens=None if asked.earlier is None else self._shared_with(asked.earlier, ids),
            common_tokens=shared.tokens,
            differing=shared.differing_from(ids),
            growth_tokens=sum(max(0, each.most_tokens - self._length(each.text)) for each in asked.written),
            control_texts=sum(map(self._chat.control_texts, (*(m.content for m in request.messages), request.response_prefix))),
        )

    def _shared_with(self, earlier: Earlier, ids: Sequence[int]) -> int | None:
        try:
            if earlier.reply is None:
                cached = self._chat.encode_chat(earlier.messages, earlier.prefix)
            else:
                prompt, reply = self._chat.encode_reply(earlier.messages, earlier.reply)
                cached = [*prompt, *reply]
        except ModelError:
            return None  # the stage before is refused, so that this one is never reached
        return common_prefix(ids, tuple(cached))

    def _length(self, text: str) -> int:
        return len(self._chat.tokenizer.encode(text, add_special_tokens=False))

    def _decode(self, ids: Sequence[int]) -> str:
        return str(self._chat.tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))


@dataclass(frozen=True, slots=True)
class _Shared:
    """One stage's prompts under all principles.

    Args:
        encoded: By principle.
        tokens: That all of them begin with; None for fewer than two.
        next_tokens: By principle, what follows; empty where the prompt ends.
    """

    encoded: dict[str, tuple[int, ...] | RequestFailure]
    tokens: int | None
    next_tokens: dict[str, tuple[int, ...]]

    @classmethod
    def of(cls, encoded: dict[str, tuple[int, ...] | RequestFailure]) -> _Shared:
        taken = {name: ids for name, ids in encoded.items() if not isinstance(ids, RequestFailure)}
        if len(taken) < 2:
            return cls(encoded, None, {})
        # What the first and the last in lexicographic order have in common, all have.
        tokens = common_prefix(min(taken.values()), max(taken.values()))
        return cls(encoded, tokens, {name: ids[tokens : tokens + 1] for name, ids in taken.items()})

    def differing_from(self, ids: tuple[int, ...]) -> tuple[str, ...]:
        if self.tokens is None:
            return ()
        own = ids[self.tokens : self.tokens + 1]
        return tuple(name for name, each in self.next_tokens.items() if each != own)
