"""The review as a web page on this machine: HTTP on 127.0.0.1, for those who know the token.

The token stands in the fragment of the printed address, which no browser sends anywhere: it is in no log and no Referer. The
page's script takes it out of the address and sends it in a header, which no other site can set without asking first, and it is
not allowed to. (Not a cookie: browsers send these to every port of a machine.) Host and Origin are compared exactly, so neither
another site nor a name that is made to point here gets an answer.
"""

from __future__ import annotations

import hmac
import json
import logging
import secrets
from collections.abc import Callable
from functools import cache
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cai.diffs import word_diff
from cai.errors import CaiError
from cai.review.answers import Answers
from cai.review.desk import LONGEST_NAME, LONGEST_NOTE, Desk, Question, ReviewError
from cai.shown_text import visible
from constitution.tool_text import as_text

LOG = logging.getLogger(__name__)
ADDRESS = "127.0.0.1"
TOKEN_HEADER = "X-Review-Token"  # noqa: S105 - the name of a header
MOST_BODY_BYTES = 128 * 1024
"""Of a request; the longest note has at most half of it."""
QUIET_CONNECTION_S = 60.0
SHOWN_CONFLICTS = 100

_FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/review.css": ("review.css", "text/css; charset=utf-8"),
    "/review.js": ("review.js", "text/javascript; charset=utf-8"),
}
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class _Asked(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    reviewer: Annotated[str, Field(max_length=4 * LONGEST_NAME)]


class _AboutPair(_Asked):
    pair: Annotated[str, Field(max_length=100)]


class _Verdict(_AboutPair):
    said: Annotated[str, Field(max_length=20)]
    note: Annotated[str, Field(max_length=LONGEST_NOTE)] = ""
    seconds: Annotated[float, Field(ge=0.0, le=1e7, allow_inf_nan=False)] | None = None


Body = TypeVar("Body", bound=BaseModel)


class ReviewServer:
    """Serves one desk until `close`. Requests are answered in threads of their own.

    Args:
        desk: What is asked and answered.
        port: To listen on; 0: any free one.

    Raises:
        ReviewError: If the port is taken.
    """

    def __init__(self, desk: Desk, port: int = 0) -> None:
        self.token = secrets.token_urlsafe(32)
        handler = type("_BoundHandler", (_Handler,), {"desk": desk, "token": self.token, "own": self})
        try:
            self._server = ThreadingHTTPServer((ADDRESS, port), handler)
        except OSError as error:
            raise ReviewError(f"Port {port} cannot be listened on: {error.strerror}.", "Name another with --port.") from error
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])

    @property
    def url(self) -> str:
        """What reviewers open, token included: whoever has it may judge."""
        return f"http://{ADDRESS}:{self.port}/#token={self.token}"

    def serve(self) -> None:
        """Answer until `stop` is called from another thread, or Ctrl-C."""
        self._server.serve_forever(poll_interval=0.1)

    def stop(self) -> None:
        self._server.shutdown()

    def close(self) -> None:
        self._server.server_close()


class _Refusal(Exception):
    """A request that is not answered, with its status."""

    def __init__(self, status: HTTPStatus, problem: str) -> None:
        super().__init__(problem)
        self.status = status


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server_version = "cai"
    sys_version = ""
    timeout = QUIET_CONNECTION_S
    desk: ClassVar[Desk]
    token: ClassVar[str]
    own: ClassVar[ReviewServer]

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Nothing: a reviewer's terminal is not a log."""

    def do_GET(self) -> None:
        self._answered(self._file)

    def do_POST(self) -> None:
        self._answered(self._api)

    # ---- who may ask

    def _answered(self, answer: Callable[[], tuple[str, bytes]]) -> None:
        try:
            self._check_origin()
            kind, content = answer()
        except _Refusal as refusal:
            self.close_connection = True  # its body, if any, was not read
            self._send(refusal.status, "application/json", _json({"error": str(refusal)}))
        except ReviewError as error:
            self._send(HTTPStatus.CONFLICT, "application/json", _json({"error": str(error)}))
        except CaiError as error:
            LOG.exception("review")
            self._send(HTTPStatus.INTERNAL_SERVER_ERROR, "application/json", _json({"error": str(error)}))
        else:
            self._send(HTTPStatus.OK, kind, content)

    def _check_origin(self) -> None:
        here = f"{ADDRESS}:{self.own.port}"
        if self.headers.get_all("Host") != [here]:
            raise _Refusal(HTTPStatus.MISDIRECTED_REQUEST, "this server answers under its own address only")
        origins = self.headers.get_all("Origin") or []
        if origins not in ([f"http://{here}"], []) or (self.command == "POST" and not origins):
            raise _Refusal(HTTPStatus.FORBIDDEN, "asked from another origin")
        if self.headers.get("Sec-Fetch-Site", "none") not in ("same-origin", "none"):
            raise _Refusal(HTTPStatus.FORBIDDEN, "asked from another site")

    def _check_token(self) -> None:
        given = self.headers.get(TOKEN_HEADER, "").encode("utf-8", "replace")
        if not hmac.compare_digest(given, self.token.encode()):
            raise _Refusal(HTTPStatus.UNAUTHORIZED, "the token is missing or wrong: open the address that `cai review` printed")

    # ---- what is answered

    def _file(self) -> tuple[str, bytes]:
        if self.path not in _FILES:
            raise _Refusal(HTTPStatus.NOT_FOUND, "no such page")
        name, kind = _FILES[self.path]
        return kind, _own_file(name)

    def _api(self) -> tuple[str, bytes]:
        self._check_token()
        if self.path == "/api/next":
            asked = self._body(_Asked)
            content = self._with_progress(asked.reviewer, self.desk.next(asked.reviewer))
        elif self.path == "/api/verdict":
            said = self._body(_Verdict)
            self.desk.judge(said.reviewer, said.pair, said.said, note=said.note, seconds=said.seconds)
            content = self._with_progress(said.reviewer, self.desk.next(said.reviewer))
        elif self.path == "/api/undo":
            asked = self._body(_Asked)
            content = self._with_progress(asked.reviewer, self.desk.undo(asked.reviewer))
        elif self.path == "/api/difference":
            about = self._body(_AboutPair)
            content = self._difference(about)
        elif self.path == "/api/overview":
            content = self._overview(self._body(_Asked))
        else:
            raise _Refusal(HTTPStatus.NOT_FOUND, "no such question")
        return "application/json", _json(content)

    def _body(self, model: type[Body]) -> Body:
        if self.headers.get_content_type() != "application/json":
            raise _Refusal(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "the body is not JSON")
        length = self.headers.get("Content-Length", "")
        if "Transfer-Encoding" in self.headers or not length.isascii() or not length.isdigit():
            raise _Refusal(HTTPStatus.LENGTH_REQUIRED, "the body has no length")
        if int(length) > MOST_BODY_BYTES:
            raise _Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body has more than {MOST_BODY_BYTES} bytes")
        content = self.rfile.read(int(length))
        try:
            return model.model_validate_json(content)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            raise _Refusal(HTTPStatus.BAD_REQUEST, f"{place or 'the body'}: {first['msg']}") from error

    def _with_progress(self, reviewer: str, question: Question | None) -> dict[str, Any]:
        progress = self.desk.progress(reviewer)
        return {
            "run": visible(self.desk.name),
            "question": None if question is None else _shown(question),
            "progress": {"left": progress.open_for, "judged": progress.judged_by, "queued": progress.queued},
        }

    def _difference(self, about: _AboutPair) -> dict[str, Any]:
        question = self.desk.question(about.pair, about.reviewer)
        if question is None or question.answers.single:
            raise _Refusal(HTTPStatus.NOT_FOUND, "there are no two answers of this name")
        pieces = word_diff(*question.shown)
        sides = [[each for each in pieces if each.kind in ("kept", only)] for only in ("removed", "added")]
        return {"answers": [[{"same": e.kind == "kept", "text": visible(e.text)} for e in side] for side in sides]}

    def _overview(self, asked: _Asked) -> dict[str, Any]:
        progress = self.desk.progress(asked.reviewer)
        waiting = self.desk.waiting()
        disputed = self.desk.conflicts()
        return {
            "queued": progress.queued,
            "open": progress.open,
            "waiting": str(waiting) if waiting else "",
            "reviewers": [{"name": name, "verdicts": count} for name, count in self.desk.reviewers().items()],
            "conflicts": [
                {
                    "uid": visible(opinion.verdicts[0].uid),
                    "prompt": "" if answers is None else visible(_last_turn(answers)),
                    "said": [
                        {"reviewer": each.reviewer, "judgement": _in_words(each.judgement.value), "note": visible(each.note)}
                        for each in opinion.verdicts
                    ],
                }
                for opinion, answers in disputed[:SHOWN_CONFLICTS]
            ],
            "more_conflicts": max(0, len(disputed) - SHOWN_CONFLICTS),
        }

    def _send(self, status: HTTPStatus, kind: str, content: bytes) -> None:
        try:
            self.send_response(status)
            for name, value in {"Content-Type": kind, "Content-Length": str(len(content)), **_HEADERS}.items():
                self.send_header(name, value)
            if self.close_connection:
                self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(content)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True  # the page was closed; what was said is on the disk


def _shown(question: Question) -> dict[str, Any]:
    """What the page gets: nothing in it tells which answer is the draft, or what AI feedback made of them."""
    return {
        "pair": question.answers.key,
        "prompt": [{"role": each.role, "text": visible(each.content)} for each in as_text(question.answers.prompt)],
        "answers": [visible(text) for text in question.shown],
        "may_say": question.may_say,
    }


def _last_turn(answers: Answers) -> str:
    return as_text(answers.prompt)[-1].content[:300]


def _in_words(judgement: str) -> str:
    """Conflicts are shown by content, not by place: which answer stood at A was another for each reviewer."""
    return {"first": "one answer is better", "second": "the other answer is better"}.get(judgement, judgement.replace("_", " "))


def _json(content: object) -> bytes:
    return json.dumps(content, ensure_ascii=False).encode()


@cache
def _own_file(name: str) -> bytes:
    return resources.files("cai.review").joinpath("page", name).read_bytes()
