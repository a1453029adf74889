"""Stored records of an earlier form, as this version has them. They stay in the database as they were written."""

from __future__ import annotations

import json
from typing import Any, cast

from pydantic import BaseModel

from cai.records import PreferenceRecord

_OTHER_SOURCE = {"draft": "revision", "revision": "draft", "sample": "sample"}


def in_this_form(model: type[BaseModel], body: str) -> str | None:
    """The JSON text of a record that an earlier version wrote; None for one that is of no form known."""
    found: object = json.loads(body)
    if model is not PreferenceRecord or not isinstance(found, dict):
        return None
    pair = cast("dict[str, Any]", found)
    source = pair.get("chosen_source")
    if "rejected_source" in pair or source not in _OTHER_SOURCE:
        return None
    # Pairs were of draft and revision, or of two samples; what was compared first was chosen where the margins are positive.
    comparisons: list[dict[str, Any]] = pair.get("comparisons") or []
    margins = [float(each["margin_nats"]) for each in comparisons]
    first = sum(margins) > 0 if margins else source != "draft"
    added = {"rejected_source": _OTHER_SOURCE[source], "chosen_is_first": first}
    if source == "sample":
        added |= {"chosen_index": int(not first), "rejected_index": int(first)}
    return json.dumps(pair | added)
