"""A small hub on this machine: the part of its HTTP interface that looking up and downloading a repository needs."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "a" * 40


class _Hub(BaseHTTPRequestHandler):
    repositories: Path
    gated: frozenset[str]

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def _answer(self, *, body: bool) -> None:
        path = self.path.partition("?")[0].strip("/").removeprefix("api/models/")
        parts = path.split("/")
        name, rest = "/".join(parts[:2]), parts[2:]
        folder = self.repositories / name
        if name in self.gated:
            return self._refuse(403, "GatedRepo")
        if not folder.is_dir():
            return self._refuse(404, "RepoNotFound")
        if len(rest) > 1 and rest[1] not in {"main", COMMIT}:
            return self._refuse(404, "RevisionNotFound")
        files = sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())
        if rest[:1] == ["resolve"]:
            file = folder.joinpath(*rest[2:])
            if not file.is_file():
                return self._refuse(404, "EntryNotFound")
            return self._send(file.read_bytes(), body=body)
        if rest[:1] == ["tree"]:
            listed = [{"type": "file", "path": each, "size": (folder / each).stat().st_size, "oid": "0" * 40} for each in files]
            return self._send(json.dumps(listed).encode(), body=body)
        about = {"id": name, "sha": COMMIT, "siblings": [{"rfilename": each} for each in files]}
        return self._send(json.dumps(about).encode(), body=body)

    def _send(self, content: bytes, *, body: bool) -> None:
        self.send_response(200)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)

    def _refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Say nothing."""


@contextmanager
def serve_hub(repositories: Path, gated: frozenset[str] = frozenset()) -> Generator[str]:
    """Serve every `owner/name` folder as a repository; gives the address.

    Args:
        repositories: Holds the folders.
        gated: Repositories whose owner asks for consent.
    """
    handler = type("Hub", (_Hub,), {"repositories": repositories, "gated": gated})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
