"""The requests that each stage makes for a principle and a case: the ones that loop and labels send to an engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias, get_args

from cai.authoring.previews.cases import Case
from cai.engines.base import GenerationRequest, SamplingParams, ScoreRequest
from cai.errors import EngineError
from cai.labels.alone import contrast_requests, yes_no_request, yes_no_spellings
from cai.labels.debate import statement_request
from cai.labels.letters import ORDERS, Compared, Order, comparison_request, letter_spellings
from cai.labels.settings import DebateSettings, LabelSettings
from cai.labels.words import CountTokens, Spellings
from cai.loop import LoopSettings, noise_key
from cai.verdicts import Judged, verdict_request
from constitution.messages import Conversation
from constitution.rendering import render_critique, render_direct_revision, render_revision
from constitution.schema import Principle

PreviewStage: TypeAlias = Literal[
    "critique", "revision", "direct-revision", "verdict", "comparison", "argument", "yes-no", "contrast"
]
STAGES: tuple[PreviewStage, ...] = get_args(PreviewStage)
USUAL_STAGES: tuple[PreviewStage, ...] = ("critique", "revision", "direct-revision", "verdict", "comparison")
"""What is shown of every principle; the others are those of methods that have to be asked for."""
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
        place: Among the stage's requests, from 0.
        speaks_for: Of an argument: whose advocate is asked, and for what.
    """

    stage: PreviewStage
    request: Request
    earlier: Earlier | None
    written: tuple[Written, ...]
    order: Order | None = None
    place: int = 0
    speaks_for: str = ""

    @property
    def max_tokens(self) -> int:
        """Longest reply; 0 where continuations are scored and nothing is written."""
        return self.request.params.max_tokens if isinstance(self.request, GenerationRequest) else 0


def ask(
    principle: Principle, stage: PreviewStage, case: Case, settings: PreviewSettings, count: CountTokens | None = None
) -> tuple[Asked, ...]:
    """The requests of one stage: one, or for a comparison one in each order, and of a debate what each advocate is asked.

    A comparison holds arguments where the labels have a debate. `verdict` is the pointwise label's score; the ground before it
    is written from the critique's own prompt.
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
        case "yes-no" | "contrast":
            judged = Judged(messages, case.draft, principle, "")
            spelt = _spelt(yes_no_spellings, count) if stage == "yes-no" else None
            alone = yes_no_request(judged, spelt) if stage == "yes-no" else contrast_requests(judged, "none")[0]
            return (Asked(stage, alone, drafted if stage == "yes-no" else None, (_judged(case.draft, "draft", loop),)),)
        case "comparison" | "argument":
            pair, debate = Compared(messages, case.draft, case.other, principle), settings.labels.debate
            written = (_judged(case.draft, "draft", loop), _judged(case.other, "other", loop))
            if stage == "comparison" and debate is not None:
                pair = replace(pair, arguments=(case.argument, case.argument))
                written += (Written("argument", case.argument, debate.argument_tokens * (debate.rounds + 1)),) * 2
            return (
                _both_orders(pair, written, _spelt(letter_spellings, count))
                if stage == "comparison"
                else _arguments(pair, case.argument, debate or DebateSettings(), written)
            )


def _spelt(find: Callable[[CountTokens], Spellings], count: CountTokens | None) -> Spellings | None:
    """The words a model is asked for as its tokens are; None without a model, or where they are not tokens of it."""
    try:
        return None if count is None else find(count)
    except EngineError:
        return None


def _writes(case: Case, stage: str, messages: Conversation, params: SamplingParams) -> GenerationRequest:
    return GenerationRequest(messages, params, noise_key(0, case.item.uid, 0, stage))


def _judged(text: str, name: str, loop: LoopSettings) -> Written:
    """A reply that is labelled: a draft or a revision."""
    return Written(name, text, max(loop.draft.max_tokens, loop.revision.max_tokens))


def _both_orders(pair: Compared, written: tuple[Written, ...], spelt: Spellings | None) -> tuple[Asked, ...]:
    asked: list[Asked] = []
    earlier: Earlier | None = None
    for place, order in enumerate(ORDERS):
        request = comparison_request(pair, order, spelt)
        asked.append(Asked("comparison", request, earlier, written, order, place))
        earlier = Earlier("comparison in the other order", request.messages, request.response_prefix)
    return tuple(asked)


def _arguments(pair: Compared, said: str, debate: DebateSettings, written: tuple[Written, ...]) -> tuple[Asked, ...]:
    """What the advocate of each reply is asked: a statement, and the last rebuttal where there are any."""
    asked: list[Asked] = []
    for second, reply in ((False, "draft"), (True, "other")):
        opening = statement_request(pair, (), debate, 0, second=second)
        asked.append(Asked("argument", opening, None, written, place=len(asked), speaks_for=reply))
        if debate.rounds:
            request = statement_request(pair, ((said, said),) * debate.rounds, debate, debate.rounds, second=second)
            spoken = (Written("argument", said, debate.argument_tokens),) * (2 * debate.rounds)
            earlier = Earlier("first argument", opening.messages)
            name = f"{reply}, rebuttal {debate.rounds}"
            asked.append(Asked("argument", request, earlier, (*written, *spoken), place=len(asked), speaks_for=name))
    return tuple(asked)
