"""Log-probabilities of continuations, by whichever of three ways the server has.

`prompt_logprobs`: chat completions tell the log-probability of every token of the prompt, and go on with the assistant's turn
(vLLM). `echo_ids`, `echo_text`: completions repeat the prompt with log-probabilities (SGLang, vLLM, llama-cpp-python); the
prompt is then written by the model's own tokenizer here. `top_logprobs`: chat completions go on with the assistant's turn and
tell the likeliest first tokens (llama.cpp): enough for a letter, not for a sentence.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

from cai.engines.base import SamplingParams, ScoreRequest, Scores
from cai.engines.server.answers import first_choice, is_logp, malformed, usage
from cai.engines.server.bodies import Wording
from cai.engines.server.exchange import Exchange, Json, Refusal
from cai.errors import ModelError
from cai.models.tool_turns import mapped

if TYPE_CHECKING:
    from cai.models.chat import ChatTokenizer

ScoringWay: TypeAlias = Literal["prompt_logprobs", "echo_ids", "echo_text", "top_logprobs", "none"]
MOST_TOP_LOGPROBS = 20
"""What vLLM and OpenAI give at most."""
_SMALLEST_LEFT = 1e-6
"""Probability beyond the likeliest tokens: smaller ones are rounding."""
_ONE_TOKEN = SamplingParams(temperature=1.0, max_tokens=1)
"""At temperature 1 the distribution is the model's own also where a server tells it after the temperature."""


async def score(
    exchange: Exchange, wording: Wording, way: ScoringWay, tokenizer: ChatTokenizer | None, request: ScoreRequest
) -> Scores:
    """The scores of a request; see `cai.engines.base.Scores`.

    With `top_logprobs`, a continuation that is not among the likeliest tokens scores the most it can have: as much as the least
    likely of them, or as is left. So a margin between two letters is never overstated by what is not told of the lesser one.

    Raises:
        PassingFailure, Refusal: As the exchange; `not_one_token` when the way cannot score the continuation.
    """
    match way:
        case "prompt_logprobs":
            return await _by_prompt_logprobs(exchange, wording, request)
        case "echo_ids" | "echo_text":
            assert tokenizer is not None, "found out with one"
            return await _by_echo(exchange, wording, tokenizer, request, as_ids=way == "echo_ids")
        case "top_logprobs":
            return await _by_top_logprobs(exchange, wording, request)
        case "none":
            raise Refusal("no_logprobs", "the server gives no log-probabilities")


# ---- prompt_logprobs


def prompt_logprobs_body(wording: Wording, request: ScoreRequest, continuation: str = "") -> Json:
    """Asks for the log-probability of every token of a prompt that ends with the continuation."""
    return wording.body(request.messages, _ONE_TOKEN, prefix=request.response_prefix + continuation) | {"prompt_logprobs": 0}


def read_prompt_logprobs(content: Json) -> tuple[list[int], list[float]]:
    """Token ids of the prompt (−1 for the first one, which is not told) and their log-probabilities (0 for the first one)."""
    told = content.get("prompt_logprobs")
    if not isinstance(told, list) or not told:
        raise malformed("it has no `prompt_logprobs`")
    ids: list[int] = []
    logps: list[float] = []
    for place, entry in enumerate(cast("list[Any]", told)):
        if entry is None and place == 0:
            ids.append(-1)
            logps.append(0.0)
            continue
        if not isinstance(entry, dict) or len(cast("Json", entry)) != 1:
            raise malformed("a token of the prompt has not one log-probability")
        ((token, value),) = cast("Json", entry).items()
        logp = cast("Json", value).get("logprob") if isinstance(value, dict) else value
        if not is_logp(logp) or not token.isdecimal():
            raise malformed("a log-probability of the prompt is no number")
        ids.append(int(token))
        logps.append(float(logp))
    return ids, logps


async def _by_prompt_logprobs(exchange: Exchange, wording: Wording, request: ScoreRequest) -> Scores:
    from cai.engines.beginnings import common_prefix

    before, _ = read_prompt_logprobs(await exchange.post("/chat/completions", prompt_logprobs_body(wording, request)))
    sums: list[float] = []
    for continuation in request.continuations:
        if not continuation:
            sums.append(0.0)
            continue
        body = prompt_logprobs_body(wording, request, continuation)
        ids, logps = read_prompt_logprobs(await exchange.post("/chat/completions", body))
        sums.append(math.fsum(logps[max(1, common_prefix(before, ids)) :]))
    return Scores(tuple(sums), len(before))


# ---- echo


def echo_body(wording: Wording, prompt: Sequence[int] | str) -> Json:
    """Asks for the prompt again, with the log-probability of each of its tokens."""
    # One token is generated: to some servers, none means as many as they like.
    body: Json = {"model": wording.model, "prompt": prompt if isinstance(prompt, str) else list(prompt), "max_tokens": 1}
    return body | {"echo": True, "logprobs": 1} | wording.sampling(_ONE_TOKEN)


def read_echo(content: Json, scored: int) -> list[float]:
    """Log-probabilities of the prompt's last `scored` tokens.

    They are counted from the end, where the generated token stands: llama-cpp-python leaves out some tokens at the beginning.
    """
    logps = repeated(content)
    last = logps[-scored:]
    if not scored < len(logps) or not all(is_logp(logp) for logp in last):
        raise malformed("the prompt is not repeated whole, with a log-probability for each token")
    return [float(cast("float", logp)) for logp in last]


def repeated(content: Json) -> list[object]:
    """The log-probabilities of the prompt's tokens, as they came."""
    found = first_choice(content).get("logprobs")
    told = cast("Json", found).get("token_logprobs") if isinstance(found, dict) else None
    if not isinstance(told, list):
        raise malformed("it has no `token_logprobs`")
    _, generated = usage(content, (0, 1))
    all_of_them = cast("list[object]", told)
    return all_of_them[: len(all_of_them) - generated]


async def _by_echo(
    exchange: Exchange, wording: Wording, tokenizer: ChatTokenizer, request: ScoreRequest, *, as_ids: bool
) -> Scores:
    from cai.engines.requests import encode_scored

    try:
        encoded = encode_scored(tokenizer, 0, request)
    except ModelError as error:
        raise Refusal("refused_by_template", error.problem) from error
    sums: list[float] = []
    for continuation, ids, start in zip(request.continuations, encoded.sequences, encoded.starts, strict=True):
        if start >= len(ids):
            sums.append(0.0)
            continue
        prompt = ids if as_ids else _text(tokenizer, wording, request, continuation)
        sums.append(math.fsum(read_echo(await exchange.post("/completions", echo_body(wording, prompt)), len(ids) - start)))
    return Scores(tuple(sums), tokenizer.count(request.messages, request.response_prefix))


def _text(tokenizer: ChatTokenizer, wording: Wording, request: ScoreRequest, continuation: str) -> str:
    plain = tuple(mapped(each, wording.neutralised) for each in request.messages)
    return tokenizer.prompt_text(plain, wording.neutralised(request.response_prefix + continuation))


# ---- top_logprobs


def top_logprobs_body(wording: Wording, request: ScoreRequest) -> Json:
    """Asks for the likeliest first tokens after the response prefix."""
    body = wording.body(request.messages, _ONE_TOKEN, prefix=request.response_prefix)
    return body | {"logprobs": True, "top_logprobs": MOST_TOP_LOGPROBS}


def read_top_logprobs(content: Json) -> dict[str, float]:
    """Text of each of the likeliest first tokens → its log-probability."""
    found = first_choice(content).get("logprobs")
    tokens = cast("Json", found).get("content") if isinstance(found, dict) else None
    if not isinstance(tokens, list) or not tokens or not isinstance(tokens[0], dict):
        raise malformed("it has no `logprobs.content`")
    first = cast("Json", tokens[0])
    likeliest = first.get("top_logprobs")
    if not isinstance(likeliest, list) or not likeliest:
        raise malformed("it has no `top_logprobs`")
    return dict(_told([first, *cast("list[Any]", likeliest)]))


def _told(entries: Iterable[Any]) -> Iterable[tuple[str, float]]:
    for entry in entries:
        if not isinstance(entry, dict):
            raise malformed("a token is no object")
        token, logp = cast("Json", entry).get("token"), cast("Json", entry).get("logprob")
        if not isinstance(token, str) or not is_logp(logp):
            raise malformed("a token has no text or no log-probability")
        yield token, float(logp)


async def _by_top_logprobs(exchange: Exchange, wording: Wording, request: ScoreRequest) -> Scores:
    content = await exchange.post("/chat/completions", top_logprobs_body(wording, request))
    found = read_top_logprobs(content)
    longest = max(map(len, request.continuations), default=0)
    if longest > len(" A"):
        raise Refusal("not_one_token", "the server tells the likeliest first tokens only; this text has several")
    left = 1.0 - math.fsum(map(math.exp, found.values()))
    unseen = min([*found.values(), math.log(max(left, _SMALLEST_LEFT))])
    return Scores(tuple(found.get(each, unseen) for each in request.continuations), usage(content, (0, 0))[0])
