"""Requests → the JSON that a server is sent. Pure: the same request gives the same bytes, and its key is their hash.

Every sampling parameter is sent, also those at their defaults: servers have defaults of their own (a top-k of 40, the model's
generation config), and those must not decide.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Literal, TypeAlias

from cai.engines.base import GenerationRequest, SamplingParams
from cai.engines.server.exchange import Json
from cai.models.tool_turns import definitions, mapped, template_turns
from constitution.messages import Conversation, Message, user

Dialect: TypeAlias = Literal["fields", "fields_0", "generation_config", "openai", "openai_unseeded"]
"""How sampling parameters are written.

`fields`: beside OpenAI's, where −1 means no top-k (vLLM, SGLang, llama.cpp); `fields_0`: the same where 0 means it
(llama-cpp-python); `generation_config`: in that field, as JSON (`transformers serve`); `openai`: temperature and top-p alone.
"""
DIALECTS: tuple[Dialect, ...] = ("fields", "fields_0", "generation_config", "openai", "openai_unseeded")
"""From the most that a server may take to the least."""

CONTINUED: Json = {"continue_final_message": True, "add_generation_prompt": False}
"""Go on with the assistant's last turn instead of beginning one (vLLM, SGLang)."""
_THINKING_SWITCHES = ("enable_thinking", "thinking")
"""What the families' templates call it."""


@dataclass(frozen=True, slots=True)
class Wording:
    """How this server is spoken to.

    Args:
        model: What it calls the model.
        dialect: How parameters are written.
        thinking: Asked of templates that have a switch for it.
        takes_system: Whether the template has a system turn; else its text goes before the first user turn's.
        neutralised: Makes ordinary text of the texts of control tokens: the server will encode them without care.
    """

    model: str
    dialect: Dialect
    thinking: bool
    takes_system: bool
    neutralised: Callable[[str], str]

    def conversation(self, messages: Conversation) -> list[Json]:
        """The messages as JSON; what they say is data, so no text in them ends a turn."""
        merged = messages if self.takes_system else _merged_system(messages)
        return template_turns([mapped(each, self.neutralised) for each in merged], arguments_as_text=True)

    def body(self, messages: Conversation, params: SamplingParams, noise_key: str = "", *, prefix: str = "") -> Json:
        """Of `POST /chat/completions`.

        Args:
            messages: Ends with a user turn.
            params: See `SamplingParams`; at temperature 0 no seed is sent, since nothing is drawn.
            noise_key: What the seed is made from.
            prefix: The assistant's turn begins with it.
        """
        turns = self.conversation(messages)
        body: Json = {"model": self.model, "messages": turns, "max_tokens": params.max_tokens, "stream": False}
        if prefix:
            turns.append({"role": "assistant", "content": self.neutralised(prefix)})
            body |= CONTINUED
        if tools := [tool for each in messages for tool in mapped(each, self.neutralised).tools]:
            body["tools"] = definitions(tools)
        if params.stop:
            body["stop"] = list(params.stop)
        return body | self.sampling(params, noise_key) | self.template_switches()

    def sampling(self, params: SamplingParams, noise_key: str = "") -> Json:
        """Sampling parameters and seed, as the server takes them."""
        greedy = params.temperature == 0.0
        fields: Json = {"temperature": params.temperature, "top_p": 1.0 if greedy else params.top_p}
        if not greedy and self.dialect != "openai_unseeded":
            fields["seed"] = seed_of(noise_key)
        if self.dialect == "generation_config":
            config = {
                "do_sample": not greedy,
                "temperature": None if greedy else params.temperature,
                "top_p": None if greedy else params.top_p,
                "top_k": None if greedy else params.top_k,
                "min_p": None if greedy else params.min_p or None,
                "repetition_penalty": params.repetition_penalty,
                "max_new_tokens": params.max_tokens,
            }
            return fields | {"generation_config": json.dumps(config)}
        if self.dialect in {"fields", "fields_0"}:
            nothing = -1 if self.dialect == "fields" else 0
            fields["top_k"] = nothing if greedy else params.top_k or nothing
            fields["min_p"] = 0.0 if greedy else params.min_p
            # vLLM's and SGLang's name for it, and llama.cpp's.
            fields |= dict.fromkeys(("repetition_penalty", "repeat_penalty"), params.repetition_penalty)
        return fields

    def template_switches(self) -> Json:
        """Whether to think first, for templates that can be told."""
        if self.dialect.startswith("openai"):
            return {}
        return {"chat_template_kwargs": dict.fromkeys(_THINKING_SWITCHES, self.thinking)}

    def not_taken(self, params: SamplingParams) -> list[str]:
        """Parameters that the server has no word for."""
        if not self.dialect.startswith("openai"):
            return []
        neutral = SamplingParams()
        return [name for name in ("top_k", "min_p", "repetition_penalty") if getattr(params, name) != getattr(neutral, name)]


def seed_of(noise_key: str) -> int:
    """The server's seed (31 bits, which all of them take) for a noise key."""
    return int.from_bytes(sha256(noise_key.encode(errors="surrogatepass")).digest()[:4], "big") >> 1


def generation_body(wording: Wording, request: GenerationRequest) -> Json:
    """The body for a request."""
    return wording.body(request.messages, request.params, request.noise_key, prefix=request.response_prefix)


def _merged_system(messages: Conversation) -> Conversation:
    if not messages or messages[0].role != "system":
        return messages
    first, rest = messages[0], messages[1:]
    if rest and rest[0].role == "user":
        return (user(f"{first.content}\n\n{rest[0].content}"), *rest[1:])
    return (Message(role="user", content=first.content), *rest)
