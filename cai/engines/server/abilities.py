"""What a server can do, found out by asking it: a dozen requests of one token, and four of sixteen.

Nothing is taken from a server's name: versions change, and proxies answer for others. What it silently ignores cannot be seen,
unless it changes the answer.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

from cai.engines.base import SamplingParams, ScoreRequest
from cai.engines.server.answers import first_choice, is_count, is_logp, malformed
from cai.engines.server.bodies import DIALECTS, Wording
from cai.engines.server.exchange import Exchange, Json, PassingFailure, Refusal
from cai.engines.server.scoring import (
    ScoringWay,
    echo_body,
    prompt_logprobs_body,
    read_echo,
    read_prompt_logprobs,
    read_top_logprobs,
    repeated,
    top_logprobs_body,
)
from cai.errors import ModelError
from cai.models.fingerprints import text_digest
from cai.models.served import listed_models
from constitution.messages import Conversation, assistant, system, user

if TYPE_CHECKING:
    from cai.models.chat import ChatTokenizer

Seeds: TypeAlias = Literal["kept", "ignored", "untold"]
Counting: TypeAlias = Literal["tokenizer", "server", "estimate"]

PROBE: Conversation = (
    user("Count with me: one, two."),
    assistant("Three – naïve façade, 三!"),
    user("Write sixteen random words."),
)
"""Several turns and scripts, so that a tokenizer or a template that is not the server's counts other tokens."""
_PREFIX = "A"
"""One byte, so one token at most."""
_ALIKE_NATS = 0.05
"""As near as the same token's log-probabilities come in two requests; other tokens' are further apart."""
_PAUSE_S = 0.1
_DRAWN = SamplingParams(temperature=1.0, max_tokens=16)
_ONE = SamplingParams(temperature=1.0, max_tokens=1)
_LASTING = ("id", "root", "parent", "owned_by", "meta")
"""What identifies a model in its entry of `/v1/models`; the rest is of the day (when it was started, random ids)."""


@dataclass(frozen=True)
class Abilities:
    """What was found out.

    Args:
        wording: How the server is spoken to.
        entry: What it tells of the model, where it tells.
        version: Of the server.
        template: Digest of the chat template, where it is told.
        seeds: Whether the same seed gives the same text.
        scoring: How log-probabilities of continuations are had.
        continues: Whether it goes on with an assistant's turn.
        counting: Who counts the tokens of a prompt.
        context_tokens: Longest prompt plus answer; None: not told.
    """

    wording: Wording
    entry: Json
    version: str
    template: str
    seeds: Seeds
    scoring: ScoringWay
    continues: bool
    counting: Counting
    context_tokens: int | None

    @property
    def fingerprint(self) -> str:
        """Of the served model, wherever it is served: its name, what the server tells of it, the server's version.

        A server that tells nothing is known by the model's name alone.
        """
        lasting = {name: self.entry[name] for name in _LASTING if self.entry.get(name) is not None}
        told = json.dumps(lasting, sort_keys=True)
        return text_digest("served", self.wording.model, told, self.version, self.template, str(self.wording.thinking))


async def find_out(
    exchange: Exchange, tokenizer: ChatTokenizer | None, *, thinking: bool, neutralised: Callable[[str], str]
) -> Abilities:
    """Ask the server what it can do.

    Args:
        exchange: To it.
        tokenizer: The model's, where it is at hand; used only if it counts as the server does.
        thinking: Let a thinking model think.
        neutralised: See `Wording`.

    Raises:
        PassingFailure: If the server cannot answer now.
        ModelError: If it refuses the simplest conversation.
    """
    entry = await _entry(exchange)
    version = await _told(exchange, "//version")
    properties = await _told(exchange, "//props")
    wording, counted = await _wording(exchange, thinking=thinking, neutralised=neutralised)
    known = tokenizer if tokenizer is not None and tokenizer.count(PROBE) == counted else None
    wording = replace(wording, takes_system=await _takes_system(exchange, wording, counted))
    continues = await _continues(exchange, wording, counted)
    counting: Counting = "tokenizer" if known else "estimate"
    if known is None and counted and await count(exchange, wording, PROBE) == counted:
        counting = "server"
    return Abilities(
        wording=wording,
        entry=entry,
        version=str(version.get("version", "")) or str(properties.get("build_info", "")),
        template=text_digest(template) if isinstance(template := properties.get("chat_template"), str) else "",
        seeds=await _seeds(exchange, wording),
        scoring=await _scoring(exchange, wording, known, continues=continues),
        continues=continues,
        counting=counting,
        context_tokens=_context_tokens(entry, properties),
    )


async def count(exchange: Exchange, wording: Wording, messages: Conversation, prefix: str = "") -> int | None:
    """Tokens of a prompt by the server's own tokenizer (vLLM's, or llama.cpp's two steps); None where it has none."""
    body = wording.body(messages, _ONE, prefix=prefix)
    asked = {key: body[key] for key in body if key not in {"max_tokens", "stream", *wording.sampling(_ONE)}}
    answer = await _taken(exchange, "//tokenize", {"add_generation_prompt": True} | asked)
    if answer is not None and is_count(told := answer.get("count")):
        return told
    rendered = await _taken(exchange, "//apply-template", asked)
    if rendered is None or not isinstance(text := rendered.get("prompt"), str):
        return None
    answer = await _taken(exchange, "//tokenize", {"content": text, "add_special": True, "parse_special": True})
    tokens = answer.get("tokens") if answer else None
    return len(cast("list[Any]", tokens)) if isinstance(tokens, list) else None


async def sign_of_life(exchange: Exchange, wording: Wording, limit_s: float) -> None:
    """One token of an answer to the simplest conversation; raises what the exchange raises when there is none."""
    first_choice(await exchange.post("/chat/completions", wording.body(PROBE, _ONE), limit_s=limit_s))


async def _entry(exchange: Exchange) -> Json:
    listed = listed_models(*await exchange.get("/models")) or {}
    return listed.get(exchange.served.name, {})


async def _told(exchange: Exchange, path: str) -> Json:
    """The JSON object at a path that not every server has."""
    status, text = await exchange.get(path)
    try:
        found: object = json.loads(text) if status == 200 else None
    except (ValueError, RecursionError):
        return {}
    return cast("Json", found) if isinstance(found, dict) else {}


async def _taken(exchange: Exchange, path: str, body: Json) -> Json | None:
    """The answer; None if the server does not take such a request: it refuses it, or breaks on it three times.

    llama-cpp-python answers 500 to a number out of range, `transformers serve` to a template that refuses a system turn.
    """
    for attempt in (1, 2, 3):
        try:
            return await exchange.post(path, body)
        except Refusal:
            return None
        except PassingFailure as failure:
            if failure.cause != "server_error" and not (failure.cause == "not_json" and path != "/chat/completions"):
                raise
            if attempt == 3:
                return None
            await asyncio.sleep(_PAUSE_S)
    raise AssertionError


async def _wording(exchange: Exchange, *, thinking: bool, neutralised: Callable[[str], str]) -> tuple[Wording, int | None]:
    """The richest dialect it takes, and how many tokens the probe has."""
    wording = Wording(exchange.served.name, DIALECTS[0], thinking, takes_system=True, neutralised=neutralised)
    for dialect in DIALECTS:
        wording = replace(wording, dialect=dialect)
        answer = await _taken(exchange, "/chat/completions", wording.body(PROBE, _ONE))
        if answer is not None:
            first_choice(answer)
            return wording, _prompt_tokens(answer)
    try:
        await exchange.post("/chat/completions", wording.body(PROBE, _ONE))
    except Refusal as refusal:
        raise ModelError(
            f"model {exchange.served.name}: the server at {exchange.served.base_url} refuses even the probe: {refusal}",
            "Check the model's name, and that it is a chat model.",
        ) from refusal
    raise PassingFailure("server_error", "the simplest conversation was refused, and then it was not")


def _prompt_tokens(answer: Json) -> int | None:
    usage = answer.get("usage")
    told = cast("Json", usage).get("prompt_tokens") if isinstance(usage, dict) else None
    return told if is_count(told) else None


async def _takes_system(exchange: Exchange, wording: Wording, counted: int | None) -> bool:
    answer = await _taken(exchange, "/chat/completions", wording.body((system("Be brief."), *PROBE), _ONE))
    if answer is None:
        return False
    told = _prompt_tokens(answer)
    return told is None or counted is None or told > counted  # some templates drop it without a word


async def _continues(exchange: Exchange, wording: Wording, counted: int | None) -> bool:
    """An assistant's turn of one byte makes the prompt one token longer if it is gone on with, else by its end, too."""
    answer = await _taken(exchange, "/chat/completions", wording.body(PROBE, _ONE, prefix=_PREFIX))
    told = _prompt_tokens(answer) if answer else None
    return told is not None and counted is not None and told <= counted + 1


async def _seeds(exchange: Exchange, wording: Wording) -> Seeds:
    if wording.dialect == "openai_unseeded":
        return "ignored"
    # All at once, since some servers have one generator for all requests: equal seeds then help only those who ask alone.
    keys = ("one", "other", "third", "one")
    answers = await asyncio.gather(*(exchange.post("/chat/completions", wording.body(PROBE, _DRAWN, key)) for key in keys))
    first, *others, again = (_all_text(answer) for answer in answers)
    if first != again:
        return "ignored"
    return "kept" if first not in others else "untold"


def _all_text(answer: Json) -> str:
    message = first_choice(answer).get("message")
    if not isinstance(message, dict):
        raise malformed("its choice has no message")
    return json.dumps([cast("Json", message).get(name) for name in ("content", "reasoning_content", "reasoning")])


async def _scoring(exchange: Exchange, wording: Wording, known: ChatTokenizer | None, *, continues: bool) -> ScoringWay:
    """The best way it has: exact prompts first, then whole continuations, then first tokens."""
    question = ScoreRequest(PROBE, (_PREFIX,), _PREFIX)
    if known and await _echoes(exchange, wording, [known.encode_chat(PROBE, prefix) for prefix in ("", _PREFIX)]):
        return "echo_ids"
    if continues and await _reads(exchange, prompt_logprobs_body(wording, question), read_prompt_logprobs):
        return "prompt_logprobs"
    if known and await _echoes(exchange, wording, [known.prompt_text(PROBE, prefix) for prefix in ("", _PREFIX)]):
        return "echo_text"
    if continues and await _reads(exchange, top_logprobs_body(wording, question), read_top_logprobs):
        return "top_logprobs"
    return "none"


async def _echoes(exchange: Exchange, wording: Wording, prompts: Sequence[list[int] | str]) -> bool:
    """Whether prompts are repeated with log-probabilities, and where a prompt ends: it is begun alike with a token more."""
    found: list[list[object]] = []
    for prompt in prompts:
        answer = await _taken(exchange, "/completions", echo_body(wording, prompt))
        try:
            if answer is None or not read_echo(answer, 1):
                return False
            found.append(repeated(answer))
        except PassingFailure:
            return False
    shorter, longer = found
    alike = all(
        one == other or (is_logp(one) and is_logp(other) and abs(one - other) < _ALIKE_NATS)
        for one, other in zip(shorter, longer, strict=False)
    )
    return alike and len(longer) == len(shorter) + 1


async def _reads(exchange: Exchange, body: Json, read: Callable[[Json], object]) -> bool:
    answer = await _taken(exchange, "/chat/completions", body)
    try:
        return answer is not None and read(answer) is not None
    except PassingFailure:
        return False


def _context_tokens(entry: Json, properties: Json) -> int | None:
    settings = properties.get("default_generation_settings")
    meta = entry.get("meta")
    places = (
        entry.get("max_model_len"),
        cast("Json", settings).get("n_ctx") if isinstance(settings, dict) else None,
        cast("Json", meta).get("n_ctx") if isinstance(meta, dict) else None,
    )
    return next((place for place in places if is_count(place) and place > 0), None)
