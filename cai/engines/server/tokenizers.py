"""The tokenizer of a model that runs on a server, where this machine has it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cai.errors import CaiError
from cai.models.spec import ModelSpec

if TYPE_CHECKING:
    from cai.models.chat import ChatTokenizer


def tokenizer_at_hand(spec: ModelSpec) -> tuple[ChatTokenizer | None, int | None]:
    """The model's tokenizer and context length: as `tokenizer` names it, or under the model's own name on this machine."""
    if spec.tokenizer is None and not _at_hand(spec.name):
        return None, None
    from cai.models.loading import open_tokenizer

    try:
        return open_tokenizer(spec)
    except CaiError:
        if spec.tokenizer is not None:
            raise
        return None, None


def _at_hand(name: str) -> bool:
    """Whether a name leads to files here; nothing is fetched for a model that runs elsewhere."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    if Path(name).expanduser().is_dir():
        return True
    try:
        return isinstance(try_to_load_from_cache(name, "tokenizer_config.json"), str)
    except HFValidationError:
        return False
