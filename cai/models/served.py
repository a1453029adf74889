"""Models that an OpenAI-compatible server has: its address and key, the names it knows, and what is wrong with any of them.

Knows HTTP, and nothing of conversations beyond one word. The key comes from the environment; no text made here holds it.
"""

from __future__ import annotations

import difflib
import json
import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit, urlunsplit

from cai.errors import CaiError, ModelError
from cai.models.spec import ModelSpec

if TYPE_CHECKING:
    import httpx2

CONNECT_LIMIT_S = 10.0
"""Longest wait for a connection."""
_HIDDEN = "[api key]"
_VARIABLE = re.compile(r"^[A-Z_][A-Z0-9_]*$")
_SECRET_BYTES = 6
"""A shorter key would be found in ordinary words."""
_NO_SUCH_MODEL = "no-such-model-5e1f"
_LISTED = 5
_CLOSED = frozenset({401, 403})
_SHOWN_CHARACTERS = 300
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]+")


@dataclass(frozen=True, slots=True)
class ServedModel:
    """Where to ask for a model.

    Args:
        name: What the server calls it.
        base_url: Without a slash at its end; usually ends with `/v1`.
        key: Sent as a bearer token; "" for none.
        key_variable: Where it comes from.
    """

    name: str
    base_url: str
    key: str = field(default="", repr=False)
    key_variable: str | None = None

    @property
    def root_url(self) -> str:
        """The server itself, without the API's path."""
        return self.base_url.removesuffix("/v1")

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"} if self.key else {}

    def hide_key(self, text: str) -> str:
        """The text without the key, however JSON has written it."""
        if len(self.key) < _SECRET_BYTES:
            return text
        for form in {self.key, json.dumps(self.key)[1:-1], json.dumps(self.key, ensure_ascii=False)[1:-1]}:
            text = text.replace(form, _HIDDEN)
        return text

    def refused_key(self, status: int) -> ModelError:
        """The server does not let us in."""
        if self.key_variable is None:
            return ModelError(
                f"model {self.name}: the server at {self.base_url} wants an API key (HTTP {status}).",
                "Put it into an environment variable, and the variable's name into `api_key_env`.",
            )
        return ModelError(
            f"model {self.name}: the server at {self.base_url} refuses the key in ${self.key_variable} (HTTP {status}).",
            "Check the variable, and that the key is allowed to use this model.",
        )

    def unknown(self, names: tuple[str, ...]) -> ModelError:
        """The server has no model of this name."""
        near = difflib.get_close_matches(self.name, names, n=_LISTED, cutoff=0.3) or list(names[:_LISTED])
        hint = f"It has {', '.join(near)}{' and others' if len(names) > len(near) else ''}." if near else "Ask what it serves."
        return ModelError(f"model {self.name}: the server at {self.base_url} has no model of this name.", hint)


def served_model(spec: ModelSpec) -> ServedModel:
    """The place a specification names.

    Raises:
        ModelError: If the URL cannot be used, or the key's variable is not set.
    """
    assert spec.server is not None, "a model on a server"
    parts = urlsplit(spec.server)
    if "@" in spec.server or parts.query or parts.fragment:
        raise ModelError(
            f"model {spec.name}: `server` holds a user, a password or a query, and would be written into the run's records.",
            "Give the bare URL; a key belongs into an environment variable that `api_key_env` names.",
        )
    if parts.scheme not in {"http", "https"} or not parts.hostname or not _has_port(spec.server):
        raise ModelError(
            f"model {spec.name}: `server: {spec.server}` is not the URL of a server.", "Such as http://localhost:8000/v1"
        )
    url = urlunsplit((parts.scheme, parts.netloc, parts.path.rstrip("/"), "", ""))
    if spec.api_key_env is None:
        return ServedModel(spec.name, url)
    key = os.environ.get(spec.api_key_env, "").strip()
    if not key:
        # What is not the name of a variable may be the key itself.
        shown = f"${spec.api_key_env}" if _VARIABLE.match(spec.api_key_env) else "the variable that `api_key_env` names"
        raise ModelError(
            f"model {spec.name}: {shown} is not set.", "Export it; `api_key_env` holds the name of a variable, not the key."
        )
    if not key.isascii() or not key.isprintable():
        raise ModelError(f"model {spec.name}: the key in ${spec.api_key_env} is not plain ASCII text.", "Export it again.")
    return ServedModel(spec.name, url, key, spec.api_key_env)


def check_served(spec: ModelSpec) -> list[CaiError]:
    """Whether the server is there, lets us in and has the model: a few requests, one of a single token.

    A server that does not list its models is asked for a token instead.
    """
    import httpx2

    try:
        served = served_model(spec)
    except ModelError as error:
        return [error]
    ask = _Asking(served, httpx2.Timeout(spec.time_limit_s, connect=min(CONNECT_LIMIT_S, spec.time_limit_s)))
    try:
        problem = _problem(served, ask)
    except httpx2.HTTPError as error:
        reason = served.hide_key(str(error)).strip() or type(error).__name__
        problem = ModelError(
            f"model {spec.name}: no server answers at {served.base_url} ({reason}).", "Start it, or correct `server`."
        )
    return [problem] if problem else []


def listed_models(status: int, text: str) -> dict[str, dict[str, Any]] | None:
    """Name → entry of an answer to `GET /v1/models`; None if it is no such list."""
    try:
        content = json.loads(text) if status == 200 else None
        entries = cast("list[Any]", cast("dict[str, Any]", content)["data"])
        return {str(entry["id"]): cast("dict[str, Any]", entry) for entry in entries}
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


def _problem(served: ServedModel, ask: _Asking) -> ModelError | None:
    listed, status = ask.models()
    if served.name in listed:
        return None
    said = ""
    if status not in _CLOSED:
        status, said = ask.a_word(served.name)
    if status in _CLOSED:
        return served.refused_key(status)
    if status in {408, 429} or status >= 500:
        return None  # it may be loading the model; the engine asks again, and waits
    if status == 200 and (not listed or ask.a_word(_NO_SUCH_MODEL)[0] != 200):
        return None  # some servers list what lies in a cache; a server that answers to any name is believed its list
    if listed:
        return served.unknown(tuple(listed))
    return ModelError(
        f"model {served.name}: the server at {served.base_url} refuses it (HTTP {status}): {said}",
        "Check the model's name, and the base URL, which usually ends with /v1.",
    )


@dataclass(frozen=True, slots=True)
class _Asking:
    """Asks each question over a connection of its own: a server that broke on one has closed it."""

    served: ServedModel
    limits: httpx2.Timeout

    def models(self) -> tuple[dict[str, dict[str, Any]], int]:
        """The models it lists, and the answer's status; none where it fails to list them, which is no fault of the model."""
        import httpx2

        try:
            answer = httpx2.get(f"{self.served.base_url}/models", headers=self.served.headers, timeout=self.limits)
        except (httpx2.ReadError, httpx2.RemoteProtocolError):
            return {}, 0
        return listed_models(answer.status_code, answer.text) or {}, answer.status_code

    def a_word(self, name: str) -> tuple[int, str]:
        """Status and error text of the shortest conversation with a model."""
        import httpx2

        body = {"model": name, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
        url = f"{self.served.base_url}/chat/completions"
        answer = httpx2.post(url, json=body, headers=self.served.headers, timeout=self.limits)
        return answer.status_code, error_message(self.served.hide_key(answer.text))


def error_message(text: str) -> str:
    """What an error's body says, in one short line without control characters."""
    try:
        found: object = json.loads(text)
    except (ValueError, RecursionError):
        return shortened(text) or "no text"
    for key in ("error", "detail", "message"):
        if isinstance(found, dict) and cast("dict[str, Any]", found).get(key):
            found = cast("dict[str, Any]", found)[key]
    return shortened(found if isinstance(found, str) else json.dumps(found)) or "no text"


def shortened(text: str) -> str:
    """The beginning of a text of somebody else's, on one line, without what would steer a terminal."""
    short = _CONTROLS.sub(" ", text[: 4 * _SHOWN_CHARACTERS]).strip()
    return short if len(short) <= _SHOWN_CHARACTERS else f"{short[:_SHOWN_CHARACTERS]} …"


def _has_port(url: str) -> bool:
    """Whether the port, if there is one, is a port."""
    try:
        return urlsplit(url).port != 0
    except ValueError:
        return False
