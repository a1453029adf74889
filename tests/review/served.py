"""A served review, for the time of a block."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cai.review.desk import Desk
from cai.review.server import ReviewServer


@contextmanager
def served(run: Path) -> Iterator[ReviewServer]:
    with Desk(run, "page") as desk:
        server = ReviewServer(desk)
        thread = threading.Thread(target=server.serve, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.stop()
            thread.join()
            server.close()
