"""A real HTTP server over a real tiny model, which can be told to break in every way servers and networks break.

It speaks as vLLM does (or as less: see `Abilities`), and writes and scores with a `LocalEngine`, so that what comes through it
can be compared with what the model itself says.
"""

from __future__ import annotations

import gzip
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal, TypeAlias, cast

import torch

from cai.engines.base import Generation, GenerationRequest, RequestFailure, SamplingParams
from cai.engines.local import LocalEngine
from cai.models.loading import LoadedModel
from constitution.messages import Message

Fault: TypeAlias = Literal[
    "429", "503", "500", "400", "slow", "hang", "half_closed", "reset", "closed", "short_body", "not_json", "truncated_json",
    "no_object", "deep_json", "wrong_type", "huge", "bad_gzip", "empty_choices", "no_message", "null_content", "number_content",
    "half_surrogate",
    "error_in_200", "key_in_500", "key_in_400", "key_in_404", "key_in_text",
]  # fmt: skip
FAULTS: tuple[Fault, ...] = Fault.__args__  # type: ignore[attr-defined]
_STATUS_FAULTS = {"429": 429, "503": 503, "500": 500, "400": 400, "key_in_500": 500, "key_in_400": 400, "key_in_404": 404}


@dataclass
class Behaviour:
    """What the server can do, and how it breaks. May be changed while it runs.

    Args:
        name: Of the model it serves.
        fields: Sampling fields it knows besides OpenAI's; others are refused, as `transformers serve` does.
        continues: Takes `continue_final_message`.
        scoring: Ways to log-probabilities it has.
        listed: Names that `/v1/models` gives; None: no such endpoint.
        any_name: Answers to any model name.
        tokenizes: Has `/tokenize`.
        seeded: Heeds `seed`.
        context_tokens: What it says and enforces.
        key: Wants this bearer token.
        fault: Asked for each chat completion and completion, with its number and body.
        retry_after: Header that goes with 429 and 503.
        delay_s: Before each answer.
    """

    name: str = "tiny"
    fields: frozenset[str] = frozenset(
        {"top_k", "min_p", "repetition_penalty", "repeat_penalty", "chat_template_kwargs", "stop"}
        | {"continue_final_message", "add_generation_prompt", "prompt_logprobs", "logprobs", "top_logprobs", "echo"}
    )
    continues: bool = True
    scoring: frozenset[str] = frozenset({"prompt_logprobs", "echo_ids", "echo_text", "top_logprobs"})
    listed: tuple[str, ...] | None = ("tiny",)
    any_name: bool = False
    tokenizes: bool = True
    seeded: bool = True
    context_tokens: int | None = None
    key: str = ""
    fault: Callable[[int, dict[str, Any]], Fault | None] = lambda number, body: None
    retry_after: str = ""
    delay_s: float = 0.0
    finish_reason: str | None = ""
    change: Callable[[dict[str, Any]], dict[str, Any]] = lambda content: content
    """Last say over a chat completion."""


@dataclass
class SmallServer:
    """A running server. `bodies` holds every body it was sent, `most_at_once` how many requests it had together."""

    url: str
    behaviour: Behaviour
    bodies: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    headers: list[dict[str, str]] = field(default_factory=list[dict[str, str]])
    most_at_once: int = 0
    faults: dict[str, int] = field(default_factory=dict[str, int])


_BASE = {"model", "messages", "prompt", "max_tokens", "temperature", "top_p", "seed", "stream", "n"}


@contextmanager
def running(loaded: LoadedModel, behaviour: Behaviour | None = None) -> Iterator[SmallServer]:
    """Serve a model on a free port for the time of the block."""
    found = SmallServer("", behaviour or Behaviour())
    handler = type(
        "Handler", (_Handler,), {"model": _Model(loaded), "server_state": found, "lock": threading.Lock(), "now": [0]}
    )
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    found.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()


class _Model:
    def __init__(self, loaded: LoadedModel) -> None:
        self.loaded = loaded
        self.engine = LocalEngine(loaded)
        self.lock = threading.Lock()
        self.written: dict[str, Generation | RequestFailure] = {}
        """By what was asked: every engine that is opened asks the same first."""
        self.logps = lru_cache(maxsize=10_000)(self._logps)
        self.likeliest = lru_cache(maxsize=10_000)(self._likeliest)

    def prompt(self, body: dict[str, Any]) -> tuple[tuple[Message, ...], str]:
        turns = tuple(Message(role=each["role"], content=each["content"]) for each in body["messages"])
        if body.get("continue_final_message"):
            return turns[:-1], turns[-1].content
        return turns, ""

    def write(self, body: dict[str, Any], *, seeded: bool) -> Generation | RequestFailure:
        messages, prefix = self.prompt(body)
        top_k = body.get("top_k", 0)
        params = SamplingParams(
            temperature=body.get("temperature", 1.0),
            top_p=body.get("top_p", 1.0),
            top_k=max(0, top_k),
            max_tokens=body.get("max_tokens", 16),
            stop=tuple(body.get("stop", ())),
        )
        seed = body.get("seed") if seeded else time.monotonic_ns()
        request = GenerationRequest(messages, params, str(seed), prefix)
        with self.lock:
            if repr(request) not in self.written:
                ((_, self.written[repr(request)]),) = self.engine.generate([request])
            return self.written[repr(request)]

    def _logps(self, ids: tuple[int, ...]) -> list[float | None]:
        with self.lock, torch.inference_mode():
            model = cast("Any", self.loaded.model)
            logits = model(torch.tensor([list(ids)]), use_cache=False).logits[0].double().log_softmax(-1)
        return [None, *(float(logits[place, token]) for place, token in enumerate(ids[1:]))]

    def _likeliest(self, ids: tuple[int, ...], most: int) -> list[tuple[str, float]]:
        with self.lock, torch.inference_mode():
            model = cast("Any", self.loaded.model)
            logits = model(torch.tensor([list(ids)]), use_cache=False).logits[0, -1].double().log_softmax(-1)
        values, tokens = logits.topk(most)
        decode = self.loaded.tokenizer.decode
        return [(decode([int(token)]), float(value)) for token, value in zip(tokens, values, strict=True)]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and body are two packets: the second would wait 40 ms for the first's receipt
    model: _Model
    server_state: SmallServer
    lock: threading.Lock
    now: list[int]

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        pass

    # ---- endpoints

    def do_GET(self) -> None:
        has = self.server_state.behaviour
        if not self._let_in():
            return
        if self.path == "/v1/models" and has.listed is not None:
            entry = {"object": "model", "created": time.time_ns(), "owned_by": "small", "root": "tiny-root"}
            if has.context_tokens:
                entry["max_model_len"] = has.context_tokens
            self._json(200, {"object": "list", "data": [entry | {"id": name} for name in has.listed]})
        elif self.path == "/version":
            self._json(200, {"version": "1.2.3"})
        else:
            self._json(404, {"detail": "Not Found"})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        state = self.server_state
        with self.lock:
            state.bodies.append(body)
            state.headers.append(dict(self.headers))
            number = len(state.bodies)
            self.now[0] += 1
            state.most_at_once = max(state.most_at_once, self.now[0])
        try:
            if self._let_in():
                self._answer(number, body)
        except (BrokenPipeError, ConnectionResetError, TimeoutError):
            self.close_connection = True
        finally:
            with self.lock:
                self.now[0] -= 1

    def _answer(self, number: int, body: dict[str, Any]) -> None:
        has = self.server_state.behaviour
        if has.delay_s:
            time.sleep(has.delay_s)
        if self.path in {"/v1/chat/completions", "/v1/completions"}:
            fault = has.fault(number, body)
            if fault is not None:
                with self.lock:
                    self.server_state.faults[fault] = self.server_state.faults.get(fault, 0) + 1
                if not self._break(fault, body):
                    return
        if self.path != "/tokenize" and (unknown := set(body) - _BASE - has.fields):
            self._json(422, {"detail": f"Unexpected fields in the request: {unknown}"})
        elif not has.any_name and body.get("model") != has.name:
            self._json(404, {"error": {"message": f"The model `{body.get('model')}` does not exist.", "code": 404}})
        elif self.path == "/v1/chat/completions":
            self._chat(body)
        elif self.path == "/v1/completions":
            self._completion(body)
        elif self.path == "/tokenize" and has.tokenizes:
            ids = self.model.loaded.tokenizer.encode_chat(*self.model.prompt(body))
            self._json(200, {"count": len(ids), "tokens": ids, "max_model_len": has.context_tokens})
        else:
            self._json(404, {"detail": "Not Found"})

    def _chat(self, body: dict[str, Any]) -> None:
        has = self.server_state.behaviour
        if body.get("continue_final_message") and not has.continues:
            self._json(400, {"error": {"message": "continue_final_message is not supported"}})
            return
        content = self._completed(body)
        if content is None:
            return
        ids = self.model.loaded.tokenizer.encode_chat(*self.model.prompt(body))
        if "prompt_logprobs" in body and "prompt_logprobs" in has.scoring:
            content["prompt_logprobs"] = [
                None if logp is None else {str(token): {"logprob": logp, "rank": 1, "decoded_token": "?"}}
                for token, logp in zip(ids, self.model.logps(tuple(ids)), strict=True)
            ]
        if body.get("logprobs") and "top_logprobs" in has.scoring:
            told = [{"token": text, "logprob": logp} for text, logp in self.model.likeliest(tuple(ids), body["top_logprobs"])]
            content["choices"][0]["logprobs"] = {"content": [told[0] | {"top_logprobs": told}]}
        self._json(200, has.change(content))

    def _completed(self, body: dict[str, Any]) -> dict[str, Any] | None:
        has = self.server_state.behaviour
        messages, prefix = self.model.prompt(body)
        length = self.model.loaded.tokenizer.count(messages, prefix)
        if has.context_tokens and length + body["max_tokens"] > has.context_tokens:
            message = f"This model's maximum context length is {has.context_tokens} tokens, you requested {length} and more."
            self._json(400, {"object": "error", "message": message, "code": 400})
            return None
        written = self.model.write(body, seeded=has.seeded)
        if isinstance(written, RequestFailure):
            self._json(400, {"error": {"message": written.detail}})
            return None
        message = {"role": "assistant", "content": written.text}
        usage = {"prompt_tokens": written.prompt_tokens, "completion_tokens": written.completion_tokens}
        finish = written.finish_reason.value if has.finish_reason == "" else has.finish_reason
        choice = {"index": 0, "message": message, "finish_reason": finish}
        return {"id": "x", "object": "chat.completion", "model": body["model"], "choices": [choice], "usage": usage}

    def _completion(self, body: dict[str, Any]) -> None:
        has, prompt = self.server_state.behaviour, body["prompt"]
        way = "echo_text" if isinstance(prompt, str) else "echo_ids"
        if way not in has.scoring or not body.get("echo"):
            self._json(400, {"error": {"message": f"{way} is not supported"}})
            return
        tokenizer = self.model.loaded.tokenizer.tokenizer
        ids = tokenizer.encode(prompt, add_special_tokens=False) if isinstance(prompt, str) else prompt
        logps = [*self.model.logps(tuple(ids)), -1.0]
        choice = {"index": 0, "text": "…", "finish_reason": "length", "logprobs": {"token_logprobs": logps}}
        self._json(200, {"choices": [choice], "usage": {"prompt_tokens": len(ids), "completion_tokens": 1}})

    # ---- how it answers, and how it breaks

    def _let_in(self) -> bool:
        key = self.server_state.behaviour.key
        if key and self.headers.get("Authorization") != f"Bearer {key}":
            self._json(401, {"error": {"message": f"invalid key: {self.headers.get('Authorization')}"}})
            return False
        return True

    def _json(self, status: int, content: object, **headers: str) -> None:
        self._bytes(status, json.dumps(content).encode(), **headers)

    def _bytes(self, status: int, content: bytes, kind: str = "application/json", **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(content)

    def _break(self, fault: Fault, body: dict[str, Any]) -> bool:
        """Break so; whether to answer all the same."""
        said = str(self.headers.get("Authorization"))
        good: dict[str, Any] = {
            "choices": [{"message": {"role": "assistant", "content": "fine"}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 3, "completion_tokens": 1},
        }
        if fault in _STATUS_FAULTS:
            retry = {"Retry_After": self.server_state.behaviour.retry_after} if self.server_state.behaviour.retry_after else {}
            message = f"headers were {said}, that is {said.removeprefix('Bearer ')}" if "key" in fault else "cannot now"
            self._json(_STATUS_FAULTS[fault], {"error": {"message": message}}, **(retry if fault in {"429", "503"} else {}))
            return False
        match fault:
            case "slow":
                time.sleep(0.15)
                return True
            case "wrong_type":
                messages, prefix = self.model.prompt(body)
                content = self._completed(body)
                assert content is not None, (messages, prefix)
                self._bytes(200, json.dumps(content).encode(), "text/html")
            case "hang" | "half_closed":
                if fault == "half_closed":  # part of an answer; then nothing more comes, and nothing is closed either
                    self.wfile.write(
                        b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 900\r\n\r\n{"choices": ['
                    )
                    self.wfile.flush()
                self.connection.settimeout(30)
                self.connection.recv(1)  # until the other side has had enough
                self.close_connection = True
            case "reset":
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()
                self.close_connection = True
            case "closed":
                self.close_connection = True
            case "short_body":
                self.wfile.write(
                    b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 900\r\n\r\n{"choices": ['
                )
                self.close_connection = True
            case "not_json":
                self._bytes(200, b"<html><body>\x1b[31mbusy\x00</body></html>", "text/html")
            case "truncated_json":
                self._bytes(200, json.dumps(good).encode()[:40])
            case "no_object":
                self._json(200, [good])
            case "deep_json":
                self._bytes(200, b"[" * 200_000)
            case "huge":
                self.send_response(200)
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                part = b" " * (1 << 20)
                for _ in range(80):
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
                self.wfile.write(b"0\r\n\r\n")
            case "bad_gzip":
                self._bytes(200, b"x" + gzip.compress(json.dumps(good).encode()), Content_Encoding="gzip")
            case "empty_choices":
                self._json(200, good | {"choices": []})
            case "no_message":
                self._json(200, good | {"choices": [{"text": "x", "finish_reason": "stop"}]})
            case "null_content":
                self._json(200, good | {"choices": [{"message": {"content": None}, "finish_reason": "stop"}]})
            case "number_content":
                self._json(200, good | {"choices": [{"message": {"content": 7}, "finish_reason": "stop"}]})
            case "half_surrogate":
                self._json(200, good | {"choices": [{"message": {"content": "a \ud83d b"}, "finish_reason": "stop"}]})
            case "error_in_200":
                self._json(200, {"error": {"message": "out of memory"}})
            case "key_in_text":
                self._json(200, good | {"choices": [{"message": {"content": f"I saw {said}"}, "finish_reason": "stop"}]})
            case _:
                raise AssertionError(fault)
        return False
