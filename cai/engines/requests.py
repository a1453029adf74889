"""Requests → token ids and keys: what a local engine decides before its model is asked."""

from __future__ import annotations

import json
from hashlib import sha256

from cai.engines.base import GenerationRequest, RequestFailure, ScoreRequest
from cai.engines.beginnings import common_prefix
from cai.engines.scoring import ScoredSequences
from cai.errors import ModelError
from cai.models.chat import ChatTokenizer


def encode_scored(tokenizer: ChatTokenizer, index: int, request: ScoreRequest) -> ScoredSequences:
    """Token ids of prompt and continuation, and where in them the continuation begins.

    Prefix and continuation are encoded together, as the model would read them; the tokens after the longest common prefix with
    the encoding of the prompt alone are the continuation's. Where the border falls inside a token (a prefix that ends with a
    space), that token counts as the continuation's for every continuation it differs in.
    """
    prompt = tokenizer.encode_chat(request.messages, request.response_prefix)
    sequences: list[tuple[int, ...]] = []
    starts: list[int] = []
    for continuation in request.continuations:
        whole = tokenizer.encode_chat(request.messages, request.response_prefix + continuation) if continuation else prompt
        sequences.append(tuple(whole))
        starts.append(max(1, common_prefix(prompt, whole)))
    return ScoredSequences(index, tuple(sequences), tuple(starts))


def request_key(fingerprint: str, tokenizer: ChatTokenizer, request: GenerationRequest | ScoreRequest) -> str:
    """SHA-256 of exactly what determines the answer.

    A request that cannot be encoded has a key too: of its text, so that it can be remembered as the failure it is. Greedy
    answers do not depend on the noise key, so it is left out of theirs.
    """
    try:
        if isinstance(request, ScoreRequest):
            encoded = encode_scored(tokenizer, 0, request)
            content: object = ["score", encoded.sequences, encoded.starts]
        else:
            params = request.params.model_dump(mode="json")
            greedy = request.params.temperature == 0.0
            if greedy:
                decisive = ("max_tokens", "stop", "repetition_penalty")
                params = {name: params[name] for name in decisive} | {"greedy": True}
            prompt = tokenizer.encode_chat(request.messages, request.response_prefix)
            # Whether there was a prefix decides how the answer's first space is read.
            content = ["generate", prompt, bool(request.response_prefix), params, "" if greedy else request.noise_key]
    except ModelError:
        content = ["refused", repr(request)]
    return sha256(json.dumps([fingerprint, content], sort_keys=True).encode()).hexdigest()


def refusal(error: ModelError) -> RequestFailure:
    """The model's chat template does not take this conversation."""
    return RequestFailure("refused_by_template", error.problem)


def too_long(prompt_tokens: int, context_tokens: int) -> RequestFailure:
    """The prompt (with a continuation to score) leaves no room."""
    return RequestFailure("prompt_too_long", f"the prompt has {prompt_tokens:,} tokens; the model takes {context_tokens:,}")


def out_of_memory(tokens: int) -> RequestFailure:
    return RequestFailure("out_of_memory", f"{tokens:,} tokens do not fit into memory, even alone")
