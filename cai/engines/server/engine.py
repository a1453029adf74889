"""The engine that asks a server. Implements `cai.engines.base.Engine`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from hashlib import sha256
from typing import Literal, TypeAlias

from cai.engines.base import (
    EngineStatistics,
    Generation,
    GenerationRequest,
    GenerationResult,
    ScoreRequest,
    ScoreResult,
    Scores,
    generate_all,
)
from cai.engines.server.abilities import Abilities, find_out, sign_of_life
from cai.engines.server.abilities import count as counted_by_server
from cai.engines.server.answers import read_generation
from cai.engines.server.bodies import generation_body
from cai.engines.server.dispatching import Dispatcher, Retries
from cai.engines.server.exchange import Exchange, Json, Refusal
from cai.engines.server.results import Results
from cai.engines.server.scoring import score
from cai.engines.server.tokenizers import tokenizer_at_hand
from cai.errors import CaiError, EngineError, ModelError
from cai.models.control_text import neutralised
from cai.models.served import served_model
from cai.models.spec import ModelSpec
from cai.models.tool_turns import texts_of
from constitution.messages import Conversation

Scored: TypeAlias = Literal["letters", "verdicts"]
"""What is to be scored: one letter, or the words of a verdict."""

MOST_IN_FLIGHT = 64
UNTOLD_CONTEXT_TOKENS = 1 << 31
"""Where nobody tells the context length: what is too long is then found out by the server, request by request."""
_SIGN_OF_LIFE_S = 60.0
_CHARACTERS_PER_TOKEN = 3
"""For estimates, on the safe side: English has 4 and more."""
_TURN_TOKENS = 6
_SCORING_HINT = (
    "Name a `feedback` model whose server gives it (vLLM, SGLang; llama.cpp for letters), with `tokenizer` if its name is no "
    "hub id, or one that runs here."
)
_LETTERS_HINT = "Write `labels.method: letters`, without `loop.gate`: this server can score letters."
_WAYS = {
    "echo_ids": "all tokens of a continuation, by repeating the prompt (token ids)",
    "echo_text": "all tokens of a continuation, by repeating the prompt (text)",
    "prompt_logprobs": "all tokens of a continuation, as prompt_logprobs",
    "top_logprobs": "the first token of a continuation, among the 20 likeliest",
    "none": "not at all: the server gives no log-probabilities",
}
_COUNTING = {
    "tokenizer": "the model's own tokenizer, which counts as the server does",
    "server": "the server",
    "estimate": "an estimate: neither the server nor a tokenizer at hand tells",
}


class ServerEngine:
    """Generation and scoring by an OpenAI-compatible server.

    What the server can do is found out when the engine is opened. Requests go out from a background thread, as many at a time
    as the server takes well, and again when they were lost; one that fails for good is a `RequestFailure`. A server that is
    gone stops everything that waits for it with an `EngineError`.

    An answer depends on its request alone as far as the server's does: the seed follows from the noise key, and `facts` tells
    whether equal seeds gave equal texts when it was tried, beside other requests; in larger batches kernels round differently.
    Texts of control tokens in messages get a space inside: those of the model's own tokenizer where that is at hand, else the
    usual forms (`cai.models.control_text`); a form that is neither reaches the server as it is.

    Args:
        spec: With `server`.
        max_in_flight: Never more requests than this at a time; None: `MOST_IN_FLIGHT`.
        retries: When a request is sent again.

    Raises:
        ModelError: If the address, the key or the model is refused.
        EngineError: If the server does not answer.
    """

    def __init__(self, spec: ModelSpec, *, max_in_flight: int | None = None, retries: Retries | None = None) -> None:
        most = max_in_flight or MOST_IN_FLIGHT
        self._spec = spec
        self._served = served_model(spec)
        self._tokenizer, config_tokens = tokenizer_at_hand(spec)
        exchange = partial(Exchange, self._served, limit_s=spec.time_limit_s, most=most)
        alive = _SignOfLife(min(_SIGN_OF_LIFE_S, spec.time_limit_s))
        self._dispatcher = Dispatcher(exchange, alive, retries=retries or Retries(), most=most)
        try:
            self._abilities = self._dispatcher.ask(
                partial(
                    find_out,
                    tokenizer=self._tokenizer,
                    thinking=spec.thinking,
                    neutralised=self._tokenizer.neutralised if self._tokenizer else neutralised,
                )
            )
        except BaseException:
            self._dispatcher.close()
            raise
        alive.abilities = self._abilities
        self._context_tokens = spec.context_tokens or self._abilities.context_tokens or config_tokens

    @property
    def fingerprint(self) -> str:
        """Of the served model: its name, what the server tells of it and of itself. The URL and the key do not matter."""
        return self._abilities.fingerprint

    @property
    def context_tokens(self) -> int:
        """The longest prompt plus answer, in tokens: as set, as the server tells, or as the tokenizer's model has it.

        Where nobody tells, it is `UNTOLD_CONTEXT_TOKENS`, and what is too long fails at the server, as `prompt_too_long`.
        """
        return self._context_tokens or UNTOLD_CONTEXT_TOKENS

    @property
    def facts(self) -> dict[str, str]:
        """What was found out, in words, for manifest and report."""
        abilities = self._abilities
        unknown = "not told; what is too long fails at the server"
        return {
            "source": f"server {self._served.base_url}",
            "fingerprint": self.fingerprint,
            "server version": abilities.version or "not told",
            "context tokens": str(self._context_tokens) if self._context_tokens else unknown,
            "equal seeds": {"kept": "equal texts", "ignored": "other texts", "untold": "equal texts, as other seeds"}[
                abilities.seeds
            ],
            "scores": _WAYS[abilities.scoring],
            "tokens counted by": _COUNTING[abilities.counting],
            "sampling parameters": abilities.wording.dialect.replace("_", " "),
        }

    def can_score(self, what: Scored) -> bool:
        """Whether the server tells the log-probabilities that this needs."""
        ways = {"verdicts": {"echo_ids", "echo_text", "prompt_logprobs"}}
        return self._abilities.scoring in ways.get(what, {*_WAYS} - {"none"})

    def count_tokens(self, messages: Conversation, response_prefix: str = "") -> int:
        """Length of the prompt, in tokens: exact by the model's tokenizer or the server's, where there is either.

        Else (`facts` says so) a third of the characters and six for each turn, which is more than English needs.

        Raises:
            ModelError: If the chat template refuses the conversation.
        """
        match self._abilities.counting:
            case "tokenizer":
                assert self._tokenizer is not None, "it counted as the server does"
                return self._tokenizer.count(messages, response_prefix)
            case "server":
                question = partial(
                    counted_by_server, wording=self._abilities.wording, messages=messages, prefix=response_prefix
                )
                return self._dispatcher.ask(question) or _estimate(messages, response_prefix)
            case "estimate":
                return _estimate(messages, response_prefix)

    def request_key(self, request: GenerationRequest | ScoreRequest) -> str:
        """Hash of what the server is sent, and of the served model; nothing is asked."""
        if isinstance(request, GenerationRequest):
            content: object = ["generate", generation_body(self._abilities.wording, request)]
        else:
            turns = self._abilities.wording.conversation(request.messages)
            content = ["score", self._abilities.scoring, turns, request.response_prefix, request.continuations]
        return sha256(json.dumps([self.fingerprint, content], sort_keys=True).encode()).hexdigest()

    def statistics(self) -> EngineStatistics:
        """What it has done so far; `smaller_batches` counts how often the server wanted fewer requests at a time."""
        counts = self._dispatcher.counts
        return EngineStatistics(
            prompt_tokens=counts.prompt_tokens,
            completion_tokens=counts.completion_tokens,
            row_steps=counts.row_steps,
            slot_steps=counts.slot_steps,
            waiting=self._dispatcher.waiting,
            running=self._dispatcher.running,
            retries=counts.retries,
            smaller_batches=self._dispatcher.pacing.cuts,
        )

    def stream(self) -> ServerStream:
        """A new stream; the streams of an engine share what was learnt of the server's pace."""
        return ServerStream(self, self._dispatcher)

    def generate(self, requests: Sequence[GenerationRequest]) -> Iterator[tuple[int, GenerationResult]]:
        """Answer requests, each as soon as it is ready.

        Raises:
            EngineError: If the server is gone, or has no word for a parameter that is asked for.
        """
        return generate_all(self, requests)

    def score(self, requests: Sequence[ScoreRequest]) -> Iterator[tuple[int, ScoreResult]]:
        """Log-probabilities of continuations, each request as soon as it is ready; see `cai.engines.server.scoring`.

        Raises:
            EngineError: If the server is gone, or gives no log-probabilities.
        """
        if not self.can_score("letters"):
            raise EngineError(self.scoring_problem("letters", "labelling").problem, _SCORING_HINT)
        results = Results[ScoreResult](self._dispatcher)
        try:
            for request in requests:
                results.submit(partial(self._scored, request=request))
            yield from results.until_answered()
        finally:
            results.close()

    def close(self) -> None:
        """End the background thread; what is unanswered is given up. Safe to call twice."""
        self._dispatcher.close()

    def scoring_problem(self, what: Scored, user: str) -> ModelError:
        """Says that `user` (a setting) needs log-probabilities that the server does not give."""
        wanted = (
            "the likeliest first tokens after a begun reply" if what == "letters" else "the log-probability of a given text"
        )
        return ModelError(
            f"model {self._served.name}: {user} needs {wanted}, and the server at {self._served.base_url} does not give it.",
            _SCORING_HINT if what == "letters" or not self.can_score("letters") else f"{_LETTERS_HINT} {_SCORING_HINT}",
        )

    def refuse(self, request: GenerationRequest) -> None:
        """Stop what the server cannot do at all, before it is sent.

        Raises:
            EngineError: With the setting to change.
        """
        if names := self._abilities.wording.not_taken(request.params):
            raise EngineError(
                f"model {self._served.name}: the server at {self._served.base_url} has no word for {', '.join(names)}.",
                "Leave it out of the sampling parameters of `loop`, or use a server that takes it (vLLM, SGLang, llama.cpp).",
            )
        if request.response_prefix and not self._abilities.continues:
            raise EngineError(
                f"model {self._served.name}: the server at {self._served.base_url} does not go on with a begun reply.",
                "Use a server that takes `continue_final_message` (vLLM, SGLang).",
            )

    async def generated(self, exchange: Exchange, request: GenerationRequest) -> Generation:
        """One attempt at an answer."""
        body = generation_body(self._abilities.wording, request)
        try:
            content = await exchange.post("/chat/completions", body)
        except Refusal as refusal:
            room = await self._room(exchange, request) if refusal.failure.cause == "prompt_too_long" else None
            if room is None:
                raise
            content = await exchange.post("/chat/completions", body | {"max_tokens": room})
        opens = self._tokenizer is not None and self._tokenizer.opens_thought
        return read_generation(content, request, opens_thought=opens, counted=self._counted(request, content))

    async def _room(self, exchange: Exchange, request: GenerationRequest) -> int | None:
        """Tokens left for an answer where prompt and longest answer together are too long, but the prompt alone is not."""
        match self._abilities.counting:
            case "tokenizer":
                assert self._tokenizer is not None, "it counted as the server does"
                tokens: int | None = self._tokenizer.count(request.messages, request.response_prefix)
            case "server":
                tokens = await counted_by_server(exchange, self._abilities.wording, request.messages, request.response_prefix)
            case "estimate":
                tokens = None
        room = self.context_tokens - tokens if tokens is not None else 0
        return room if 0 < room < request.params.max_tokens else None

    def _counted(self, request: GenerationRequest, content: Json) -> tuple[int, int]:
        """Tokens of prompt and answer to go by where the server does not count; an estimate."""
        if isinstance(content.get("usage"), dict):
            return 0, 0
        return _estimate(request.messages, request.response_prefix), len(
            json.dumps(content.get("choices"))
        ) // _CHARACTERS_PER_TOKEN

    async def _scored(self, exchange: Exchange, request: ScoreRequest) -> Scores:
        return await score(exchange, self._abilities.wording, self._abilities.scoring, self._tokenizer, request)


class ServerStream:
    """Implements `cai.engines.base.GenerationStream`: submitting returns at once, the requests go out in the background."""

    def __init__(self, engine: ServerEngine, dispatcher: Dispatcher) -> None:
        self._engine = engine  # whose dispatcher lives as long as it does
        self._results = Results[GenerationResult](dispatcher)

    @property
    def works_unread(self) -> bool:
        return True

    def submit(self, request: GenerationRequest) -> int:
        """Hand in a request.

        Raises:
            EngineError: If the server has no word for a parameter, or the stream is closed.
        """
        self._engine.refuse(request)
        return self._results.submit(partial(self._engine.generated, request=request))

    def results(self, patience_s: float | None = None) -> Iterator[tuple[int, GenerationResult]]:
        """Answers as they are ready.

        Args:
            patience_s: End also when nothing has become ready for so long.

        Raises:
            EngineError: If the server is gone.
        """
        return self._results.until_answered(patience_s)

    def close(self) -> None:
        """Give up what is unanswered: its connections are closed, so that servers which notice stop working on it."""
        self._results.close()


class _SignOfLife:
    """Asks a server whether it is there, in the words that were found for it."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self.abilities: Abilities | None = None

    async def __call__(self, exchange: Exchange) -> None:
        assert self.abilities is not None, "no request goes out before they are found"
        await sign_of_life(exchange, self.abilities.wording, self._limit_s)


def check_scoring(spec: ModelSpec, needs: Mapping[str, Scored]) -> list[CaiError]:
    """Whether a served model can score what is needed; each problem names the setting to change.

    Args:
        spec: With `server`.
        needs: Setting → what it needs.
    """
    if not needs:
        return []
    try:
        engine = ServerEngine(spec)
    except CaiError as error:
        return [error]
    try:
        return [engine.scoring_problem(what, user) for user, what in needs.items() if not engine.can_score(what)]
    finally:
        engine.close()


def _estimate(messages: Conversation, response_prefix: str) -> int:
    characters = sum(map(len, texts_of(messages))) + len(response_prefix)
    return characters // _CHARACTERS_PER_TOKEN + _TURN_TOKENS * (len(messages) + 1)
