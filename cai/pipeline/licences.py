"""Under which licence a model is, by the card in its folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast


def stated_licence(folder: Path) -> str:
    """What the card says; "" where it says nothing, or there is none."""
    card = folder / "README.md"
    if not card.is_file():
        return ""
    import huggingface_hub

    try:
        facts = cast("Any", huggingface_hub).metadata_load(card)
    except (OSError, ValueError):
        return ""
    return str(cast("dict[str, Any]", facts).get("license", "")) if isinstance(facts, dict) else ""
