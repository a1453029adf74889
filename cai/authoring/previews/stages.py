"""The requests that each stage makes for a principle and a case: the ones that loop and labels send to an engine."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias, get_args

from cai.authoring.previews.cases import Case
from cai.engines.base import GenerationRequest, SamplingParams, ScoreRequest
from cai.labels.letters import ORDERS, Compared, Order, comparison_request
from cai.labels.settings import LabelSettings
from cai.loop import LoopSettings, noise_key
from cai.verdicts import Judged, verdict_request
from constitution.messages import Conversation
from constitution.rendering import render_critique, render_direct_revision, render_revision
from constitution.schema import Principle

PreviewStage: TypeAlias = Literal["critique", "revision", "direct-revision", "verdict", "comparison"]
STAGES: tuple[PreviewStage, ...] = get_args(PreviewStage)
Request: TypeAlias = GenerationRequest | ScoreRequest


@dataclass(frozen=True, slots=True)
class PreviewSettings:
    """The settings that decide how long texts may get."""

    loop: LoopSettings = field(default_factory=LoopSettings)
    labels: LabelSettings = field(default_factory=LabelSettings)


@dataclass(frozen=True, slots=True)
class Earlier:
    """The call before, in the same conversation: what a key-value cache would hold when this one begins.

    Args:
        stage: Its name.
        messages: Its prompt.
        prefix: How the model's turn began.
        reply: The whole turn that was written, its end included; None: the turn is still open after `prefix`.
    """

    stage: str
    messages: Conversation
    prefix: str = ""
    reply: str | None = None


@dataclass(frozen=True, slots=True)
class Written:
    """A text of the prompt that a model writes in a run: here it is this long, there it may be up to `most_tokens`."""

    name: str
    text: str
    most_tokens: int


@dataclass(frozen=True, slots=True)
class Asked:
    """One request of a stage.

    Args:
        stage: Of the loop or the labels.
        request: As the stage sends it.
        earlier: None where a conversation begins.
        written: The texts in it whose length a run decides.
        order: Of a comparison.
    """

    stage: PreviewStage
    request: Request
    earlier: Earlier | None
    written: tuple[Written, ...]
    order: Order | None = None

    @property
    def max_tokens(self) -> int:
        """Longest reply; 0 where continuations are scored and nothing is written."""
        return self.request.params.max_tokens if isinstance(self.request, GenerationRequest) else 0


def ask(principle: Principle, stage: PreviewStage, case: Case, settings: PreviewSettings) -> tuple[Asked, ...]:
    """The requests of one stage: one, or for a comparison one in each order.

    `verdict` is the pointwise label's score; the ground before it is written from the critique's own prompt.
    """
    loop, messages = settings.loop, case.item.messages
    # After the first round, the reply in question is a revision.
    reply_tokens = max(loop.draft.max_tokens, loop.revision.max_tokens if loop.rounds > 1 else 0)
    draft = Written("draft", case.draft, reply_tokens)
    drafted = Earlier("draft", messages, reply=case.draft)
    critique = render_critique(principle, messages, case.draft)
    match stage:
        case "critique":
            return (Asked(stage, _writes(case, stage, critique, loop.critique), drafted, (draft,)),)
        case "revision":
            request = _writes(case, stage, render_revision(principle, messages, case.draft, case.critique), loop.revision)
            criticised = Earlier("critique", critique, reply=case.critique)
            return (Asked(stage, request, criticised, (draft, Written("critique", case.critique, loop.critique.max_tokens))),)
        case "direct-revision":
            request = _writes(case, "revision", render_direct_revision(principle, messages, case.draft), loop.revision)
            return (Asked(stage, request, drafted, (draft,)),)
        case "verdict":
            judged = Judged(messages, case.draft, principle, noise_key(0, case.item.uid, 0, "verdict"))
            ground = Written("ground", case.ground, settings.labels.ground_tokens)
            earlier = Earlier("ground", critique, case.ground)
            return (Asked(stage, verdict_request(judged, case.ground), earlier, (_judged(case.draft, "draft", loop), ground)),)
        case "comparison":
            return _both_orders(Compared(messages, case.draft, case.other, principle), loop)


def _writes(case: Case, stage: str, messages: Conversation, params: SamplingParams) -> GenerationRequest:
    return GenerationRequest(messages, params, noise_key(0, case.item.uid, 0, stage))


def _judged(text: str, name: str, loop: LoopSettings) -> Written:
    """A reply that is labelled: a draft or a revision."""
    return Written(name, text, max(loop.draft.max_tokens, loop.revision.max_tokens))


def _both_orders(pair: Compared, loop: LoopSettings) -> tuple[Asked, ...]:
    written = (_judged(pair.first, "draft", loop), _judged(pair.second, "other", loop))
    asked: list[Asked] = []
    earlier: Earlier | None = None
    for order in ORDERS:
        request = comparison_request(pair, order)
        asked.append(Asked("comparison", request, earlier, written, order))
        earlier = Earlier("comparison in the other order", request.messages, request.response_prefix)
    return tuple(asked)
