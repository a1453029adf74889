"""The review over real HTTP: who gets an answer, who does not, and what an answer never tells."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path

import pytest

from cai.records import Judgement
from cai.review.server import MOST_BODY_BYTES, ReviewServer
from cai.store import VerdictFile
from tests.review.reviewed_runs import pair, undecided, write_run
from tests.review.served import served


@pytest.fixture
def run(tmp_path: Path) -> Path:
    pairs = [pair(f"p{n}", tags=["medical"]) for n in range(6)]
    return write_run(tmp_path / "run", pairs, [undecided("u")], review={"tags": ["medical"], "double_share": 0.0})


@pytest.fixture
def server(run: Path) -> Iterator[ReviewServer]:
    with served(run) as found:
        yield found


def ask(
    server: ReviewServer,
    path: str,
    body: object = None,
    *,
    method: str = "POST",
    changes: Mapping[str, str | None] | None = None,
    raw: bytes | None = None,
) -> tuple[int, dict[str, str], bytes]:
    """One request as the page sends it; `changes` replace headers, None takes one away."""
    here = f"127.0.0.1:{server.port}"
    headers: dict[str, str | None] = {"Host": here}
    content = raw if raw is not None else json.dumps(body or {"reviewer": "Ann"}).encode()
    if method == "POST":
        headers |= {
            "Origin": f"http://{here}",
            "Content-Type": "application/json",
            "X-Review-Token": server.token,
            "Content-Length": str(len(content)),
        }
    headers |= changes or {}
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)) as connection:
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in headers.items():
            if value is not None:
                connection.putheader(name, value)
        connection.endheaders(content if method == "POST" else None)
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()


def test_a_reviewer_judges_undoes_and_judges_again(server: ReviewServer, run: Path) -> None:
    status, _, content = ask(server, "/api/next")
    found = json.loads(content)
    assert status == 200
    question = found["question"]
    assert found["progress"] == {"left": 7, "judged": 0, "queued": 7}
    said = {"reviewer": "Ann", "pair": question["pair"], "said": "a", "note": "why", "seconds": 2.5}
    status, _, content = ask(server, "/api/verdict", said)
    assert status == 200
    assert json.loads(content)["question"]["pair"] != question["pair"]
    with VerdictFile.look_at(run) as file:
        ((_, made),) = file.history()
    assert (made.reviewer, made.seconds, made.by, made.note) == ("Ann", 2.5, "page", "why")
    assert made.judgement in (Judgement.FIRST, Judgement.SECOND)
    status, _, content = ask(server, "/api/undo")
    assert json.loads(content)["question"] == question
    assert json.loads(ask(server, "/api/undo")[2])["question"] is None


def test_no_answer_tells_which_is_the_draft_or_what_ai_feedback_said(server: ReviewServer) -> None:
    seen = [ask(server, "/api/next")[2]]
    question = json.loads(seen[0])["question"]
    seen.append(ask(server, "/api/difference", {"reviewer": "Ann", "pair": question["pair"]})[2])
    text = b"".join(seen).decode()
    for answer in question["answers"]:
        text = text.replace(answer, "")
    assert set(question) == {"pair", "prompt", "answers", "may_say"}
    for word in ("p_chosen", "chosen", "rejected", "margin", "undecided", "medical", "uid", "revision"):
        assert word not in json.dumps(question | {"answers": [], "prompt": []})
        assert f'"{word}"' not in text


def test_differences_hold_both_texts_whole(server: ReviewServer) -> None:
    question = json.loads(ask(server, "/api/next")[2])["question"]
    sides = json.loads(ask(server, "/api/difference", {"reviewer": "Ann", "pair": question["pair"]})[2])["answers"]
    assert ["".join(piece["text"] for piece in side) for side in sides] == question["answers"]
    assert any(not piece["same"] for side in sides for piece in side)


# ---- who is not answered


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"X-Review-Token": None}, 401),
        ({"X-Review-Token": ""}, 401),
        ({"X-Review-Token": "wrong"}, 401),
        ({"Origin": None}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "http://127.0.0.1"}, 403),
        ({"Origin": "http://127.0.0.1:{port}.evil.example"}, 403),
        ({"Origin": "http://localhost:{port}"}, 403),
        ({"Origin": "https://127.0.0.1:{port}"}, 403),
        ({"Host": "evil.example"}, 421),
        ({"Host": "evil.example:{port}", "Origin": "http://evil.example:{port}"}, 421),
        ({"Host": "localhost:{port}"}, 421),
        ({"Host": "127.0.0.1"}, 421),
        ({"Host": "127.0.0.1:{port}.evil.example"}, 421),
        ({"Host": None}, 421),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
        ({"Content-Length": None, "Transfer-Encoding": "chunked"}, 411),
        ({"Content-Length": "-1"}, 411),
        ({"Content-Length": "99999999999"}, 413),
    ],
)
def test_requests_of_others_are_refused_and_store_nothing(
    server: ReviewServer, run: Path, changes: dict[str, str | None], status: int
) -> None:
    pair_name = json.loads(ask(server, "/api/next")[2])["question"]["pair"]
    filled = {name: value and value.replace("{port}", str(server.port)) for name, value in changes.items()}
    said = {"reviewer": "Eve", "pair": pair_name, "said": "a"}
    got, headers, content = ask(server, "/api/verdict", said, changes=filled)
    assert got == status
    assert server.token.encode() not in content
    assert "access-control-allow-origin" not in headers
    with VerdictFile.look_at(run) as file:
        assert not list(file.history())


def test_a_preflight_and_other_methods_get_no_permission(server: ReviewServer) -> None:
    for method in ("OPTIONS", "PUT", "DELETE", "HEAD", "TRACE"):
        status, headers, _ = ask(server, "/api/next", method=method, changes={"Origin": "http://evil.example"})
        assert status in (403, 501)
        assert not [name for name in headers if name.startswith("access-control")]


def test_two_hosts_or_a_get_from_another_site_are_refused(server: ReviewServer) -> None:
    here = f"127.0.0.1:{server.port}"
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as raw:
        raw.sendall(f"GET / HTTP/1.1\r\nHost: {here}\r\nHost: evil.example\r\n\r\n".encode())
        assert raw.recv(100).startswith(b"HTTP/1.1 421")
    assert ask(server, "/", method="GET", changes={"Origin": "http://evil.example"})[0] == 403
    assert ask(server, "/", method="GET", changes={"Sec-Fetch-Site": "cross-site"})[0] == 403
    assert ask(server, "/", method="GET", changes={"Sec-Fetch-Site": "none"})[0] == 200


@pytest.mark.parametrize(
    "path", ["/../../etc/passwd", "/review.sqlite", "/%2e%2e/run.sqlite", "//evil", "/index.html", "/?x=1"]
)
def test_only_the_pages_own_files_are_served(server: ReviewServer, path: str) -> None:
    assert ask(server, path, method="GET")[0] == 404


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b"{",
        b"[" * 60_000,
        b'{"reviewer": 3}',
        b'{"reviewer": "Ann", "more": 1}',
        b"\xff\xfe",
        b'{"reviewer": "Ann"',
        b'{"reviewer": "\\ud83d"}',
    ],
)
def test_a_senseless_body_is_told_and_the_next_request_answered(server: ReviewServer, raw: bytes) -> None:
    assert ask(server, "/api/next", raw=raw)[0] == 400
    assert ask(server, "/api/next")[0] == 200


def test_verdicts_that_make_no_sense_are_told_in_words(server: ReviewServer) -> None:
    name = json.loads(ask(server, "/api/next")[2])["question"]["pair"]
    for change in ({"said": "first"}, {"said": "good"}, {"pair": "nothing"}, {"reviewer": ""}):
        status, _, content = ask(server, "/api/verdict", {"reviewer": "Ann", "pair": name, "said": "a"} | change)
        assert status == 409
        assert json.loads(content)["error"]
    for change in ({"seconds": -1}, {"note": "x" * 10_001}):
        assert ask(server, "/api/verdict", {"reviewer": "Ann", "pair": name, "said": "a"} | change)[0] == 400
    assert ask(server, "/api/next", raw=b" " * (MOST_BODY_BYTES + 1))[0] == 413


def test_the_page_may_run_its_own_script_alone_and_is_kept_nowhere(server: ReviewServer) -> None:
    status, headers, content = ask(server, "/", method="GET")
    assert status == 200
    policy = headers["content-security-policy"]
    for rule in ("default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "form-action 'none'", "base-uri 'none'"):
        assert rule in policy
    assert "unsafe" not in policy
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == "no-store"
    assert headers["x-content-type-options"] == "nosniff"
    assert server.token.encode() not in content
    assert b"<script>" not in content
    assert b"style=" not in content
    assert b" onclick" not in content
    assert server.url == f"http://127.0.0.1:{server.port}/#token={server.token}"
    assert len(server.token) >= 43


def test_the_server_listens_on_this_machine_alone(server: ReviewServer) -> None:
    own = socket.gethostbyname(socket.gethostname())
    if own.startswith("127."):
        pytest.skip("this machine has no other address")
    with pytest.raises(OSError, match="refused"):
        socket.create_connection((own, server.port), timeout=5)


def test_texts_that_could_mislead_are_made_visible(tmp_path: Path) -> None:
    nasty = "safe \u202eevil\u202c \x1b[31m nul\x00 <script>alert(1)</script>"
    run = write_run(tmp_path / "nasty", [pair("p", chosen=nasty, prompt=nasty)])
    with served(run) as server:
        content = ask(server, "/api/next")[2].decode()
    for sign in ("\u202e", "\x1b", "\x00", "\\u202e", "\\u001b"):
        assert sign not in content
    assert "⟦U+202E⟧evil" in content
    assert "<script>alert(1)</script>" in content  # as JSON text: the page puts it in as text
