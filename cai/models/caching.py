"""Where this program keeps what it can make again: converted models and file digests."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def cache_folder() -> Path:
    """`CAI_CACHE`, else the platform's cache folder for `cai` (`~/.cache/cai` on Linux). Not made here."""
    chosen = os.environ.get("CAI_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "cai" / "cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "cai"
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "cai"
