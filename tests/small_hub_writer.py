"""A small hub on this machine that takes uploads: what `create_repo`, `repo_info` and `upload_folder` need of its interface."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_" + "s" * 34
COMMIT = "b" * 40


@dataclass
class Hub:
    """What came in. `failing` is the status with which commits are answered; 0: they are taken."""

    address: str = ""
    repositories: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    commits: list[tuple[str, dict[str, bytes]]] = field(default_factory=list[tuple[str, dict[str, bytes]]])
    asked: list[str] = field(default_factory=list[str])
    failing: int = 0


class _Writer(BaseHTTPRequestHandler):
    hub: Hub

    def do_GET(self) -> None:
        if self._known():
            self._send(*self._got(self.path.partition("?")[0]))

    def _got(self, path: str) -> tuple[int, Any]:
        if path == "/api/whoami-v2":
            return 200, {"type": "user", "name": "me", "auth": {"accessToken": {"role": "write"}}}
        name = path.removeprefix("/api/datasets/")
        if name in self.hub.repositories:
            return 200, {"id": name, "sha": COMMIT, "private": self.hub.repositories[name].get("visibility") == "private"}
        return 404, {"error": "not here"}

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self._known():
            self._send(*self._posted(self.path.partition("?")[0], content))

    def _posted(self, path: str, content: bytes) -> tuple[int, Any]:
        if path == "/api/repos/create":
            asked = json.loads(content)
            name = f"{asked.get('organization') or 'me'}/{asked['name']}"
            if name.startswith("others/"):
                return 403, {"error": "You don't have the rights to create a dataset under others"}
            if name in self.hub.repositories:
                return 409, {"error": "You already created this dataset repo", "url": f"{self.hub.address}/datasets/{name}"}
            self.hub.repositories[name] = asked
            return 200, {"url": f"{self.hub.address}/datasets/{name}", "id": name}
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}
        if "/preupload/" in path:
            files = [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in json.loads(content)["files"]]
            return 200, {"files": files}
        if "/commit/" in path:
            if self.hub.failing:
                return self.hub.failing, {"error": "Internal Error"}
            files = {}
            for line in content.splitlines():
                entry = json.loads(line)
                if entry["key"] == "file":
                    files[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
            name = path.removeprefix("/api/datasets/").partition("/commit/")[0]
            self.hub.commits.append((name, files))
            url = f"{self.hub.address}/datasets/{name}/commit/{COMMIT}"
            return 200, {"commitOid": COMMIT, "commitUrl": url, "success": True, "hookOutput": ""}
        return 404, {"error": "not here"}

    def _known(self) -> bool:
        self.hub.asked.append(f"{self.command} {self.path}")
        known = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if not known:
            self._send(401, {"error": "Invalid credentials in Authorization header"})
        return known

    def _send(self, status: int, content: Any) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Say nothing."""


@contextmanager
def serve_writable_hub() -> Generator[Hub]:
    """A hub without repositories; owner `others` lets nobody write."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Writer", (_Writer,), {"hub": hub}))
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
