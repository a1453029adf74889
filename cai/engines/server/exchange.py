"""One HTTP exchange: JSON out, JSON in, or why not. Knows no requests of ours and never tries again."""

from __future__ import annotations

import asyncio
import json
import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any, TypeAlias, cast

import httpx2

from cai.engines.base import RequestFailure
from cai.errors import EngineError
from cai.models.served import CONNECT_LIMIT_S, ServedModel, error_message, shortened

Json: TypeAlias = dict[str, Any]

LARGEST_BODY_BYTES = 64 * 1024 * 1024
"""A larger answer is given up: log-probabilities of a long prompt take a few megabytes."""
LONGEST_PAUSE_S = 300.0
"""No `Retry-After` is waited for longer than this at a time."""
_KEPT_IDLE_S = 4.0
"""Connections idle for longer are not used again: servers close them (uvicorn after 5 s), and that could cross a request."""
_TOO_LONG = re.compile(
    r"context.{0,20}(length|size|window)|maximum.{0,20}(context|length|tokens)|too (long|many tokens)"
    r"|exceeds?.{0,40}(context|token)|context_length_exceeded|exceed_context_size",
    re.IGNORECASE,
)
_OVERLOADED = frozenset({429, 503, 529})
_PASSING = frozenset({408, 409, 425, 500, 502, 504, 520, 521, 522, 523, 524, *_OVERLOADED})


class PassingFailure(Exception):
    """What may go by when the request is sent again: the request was lost, or the server could not answer it now.

    Args:
        cause: Slug of the `RequestFailure` it becomes when it does not go by.
        detail: In words, without the key.
        overloaded: The server has more to do than it can.
        wait_s: How long the server asks to be left alone.
    """

    def __init__(self, cause: str, detail: str, *, overloaded: bool = False, wait_s: float | None = None) -> None:
        super().__init__(detail)
        self.cause = cause
        self.detail = detail
        self.overloaded = overloaded
        self.wait_s = wait_s


class Refusal(Exception):
    """The server understood, and will not; sent again, the request would fare no better."""

    def __init__(self, cause: str, detail: str) -> None:
        super().__init__(detail)
        self.failure = RequestFailure(cause, detail)


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    text: str
    retry_after: str


class Exchange:
    """Sends requests for one model to its server. Used inside one event loop.

    Args:
        served: Where to.
        limit_s: Longest wait for one answer, connection included.
        most: Connections at a time.
    """

    def __init__(self, served: ServedModel, *, limit_s: float, most: int) -> None:
        self.served = served
        self.limit_s = limit_s
        connect_s = min(CONNECT_LIMIT_S, limit_s)
        self._client = httpx2.AsyncClient(
            headers=served.headers,
            timeout=httpx2.Timeout(limit_s, connect=connect_s),
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=most, keepalive_expiry=_KEPT_IDLE_S),
        )

    async def __aenter__(self) -> Exchange:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.aclose()

    async def post(self, path: str, body: Json, *, limit_s: float | None = None) -> Json:
        """The answer to a request below the base URL (`/chat/completions`), or below the server's root (`//tokenize`).

        Raises:
            PassingFailure: If it may be answered when it is sent again.
            Refusal: If it may not.
            ModelError, EngineError: If the server will answer nothing of ours: a key or a model that it refuses.
        """
        # ASCII on purpose: JSON escapes carry also what has no UTF-8 form.
        answer = await self._send("POST", path, json.dumps(body).encode(), limit_s)
        return self._content(answer, path)

    async def get(self, path: str) -> tuple[int, str]:
        """Status and text of an answer. A lost connection is tried once more: the server may have closed it after an error."""
        try:
            answer = await self._send("GET", path, None, None)
        except PassingFailure as failure:
            if failure.cause != "connection":
                raise
            answer = await self._send("GET", path, None, None)
        return answer.status, answer.text

    async def _send(self, method: str, path: str, content: bytes | None, limit_s: float | None) -> _Answer:
        url = f"{self.served.root_url}{path[1:]}" if path.startswith("//") else f"{self.served.base_url}{path}"
        headers = {"Content-Type": "application/json"} if content is not None else {}
        limit = min(limit_s or self.limit_s, self.limit_s)
        read = bytearray()
        try:
            async with asyncio.timeout(limit), self._client.stream(method, url, content=content, headers=headers) as response:
                async for part in response.aiter_bytes():
                    read += part
                    if len(read) > LARGEST_BODY_BYTES:
                        raise Refusal("body_too_large", f"the answer is larger than {LARGEST_BODY_BYTES:,} bytes")
                text = self.served.hide_key(read.decode("utf-8", errors="replace"))
                return _Answer(response.status_code, text, str(response.headers.get("retry-after", "")))
        except (TimeoutError, httpx2.ReadTimeout, httpx2.WriteTimeout) as error:
            raise PassingFailure("time_out", f"no answer within {limit:g} s", overloaded=True) from error
        except httpx2.DecodingError as error:
            raise PassingFailure("damaged_body", "the answer's compression is damaged") from error
        except httpx2.HTTPError as error:
            reason = shortened(self.served.hide_key(str(error))) or type(error).__name__
            raise PassingFailure("connection", f"the connection failed: {reason}") from error

    def _content(self, answer: _Answer, path: str) -> Json:
        if answer.status in {401, 403}:
            raise self.served.refused_key(answer.status)
        if answer.status == 404 and path == "/chat/completions":
            raise _not_there(self.served, error_message(answer.text))
        if answer.status in _PASSING:
            raise PassingFailure(
                "server_overloaded" if answer.status in _OVERLOADED else "server_error",
                f"HTTP {answer.status}: {error_message(answer.text)}",
                overloaded=answer.status in _OVERLOADED,
                wait_s=pause_s(answer.retry_after),
            )
        if not 200 <= answer.status < 300:
            message = error_message(answer.text)
            cause = "prompt_too_long" if _TOO_LONG.search(answer.text[:10_000]) else "refused_by_server"
            raise Refusal(cause, f"HTTP {answer.status}: {message}")
        try:
            content: object = json.loads(answer.text)
        except (ValueError, RecursionError) as error:
            shown = shortened(answer.text) or "nothing"
            raise PassingFailure("not_json", f"the answer is not JSON: {shown}") from error
        if not isinstance(content, dict):
            raise PassingFailure("not_json", f"the answer is no JSON object: {shortened(answer.text)}")
        found = cast("Json", content)
        if "error" in found and found["error"] and "choices" not in found:
            raise PassingFailure("server_error", f"HTTP {answer.status}: {error_message(answer.text)}")
        return found


def pause_s(retry_after: str, now: float | None = None) -> float | None:
    """Seconds that a `Retry-After` header asks for (a number or a date), at most `LONGEST_PAUSE_S`; None if for none."""
    if not retry_after.strip():
        return None
    try:
        asked = float(retry_after)
    except ValueError:
        try:
            when = parsedate_to_datetime(retry_after)
        except (ValueError, TypeError):
            return None
        when = when if when.tzinfo else when.replace(tzinfo=UTC)
        asked = (when - datetime.fromtimestamp(time.time() if now is None else now, UTC)).total_seconds()
    return min(max(asked, 0.0), LONGEST_PAUSE_S) if asked == asked else None  # noqa: PLR0124 - "nan" is a float, too


def _not_there(served: ServedModel, message: str) -> EngineError:
    return EngineError(
        f"model {served.name}: the server at {served.base_url} answers HTTP 404: {message}.",
        "Check the model's name, and the base URL, which usually ends with /v1.",
    )
