"""Names for sequences by their content: what is computed of one is found again under its name, whatever stood beside it."""

from __future__ import annotations

import hashlib
import json

from cai.training.packing import TokenGroup


def sequence_keys(model_key: str, group: TokenGroup) -> list[str]:
    """One for each sequence of a group: of the prompt, the tokens and which of them are scored.

    Args:
        model_key: Fingerprint of the model, precision and attention path.
        group: Whose sequences they are.
    """
    keys: list[str] = []
    for reply, tokens in group.sequences:
        unscored = group.unscored[reply] if group.unscored else ()
        content = [model_key, group.prompt_ids, group.replies[reply][:tokens], unscored]
        keys.append(hashlib.sha256(json.dumps(content, separators=(",", ":")).encode()).hexdigest())
    return keys
