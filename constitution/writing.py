"""A constitution as the text of a principle file: YAML that people like to read and edit.

Long texts are folded, texts of several lines stand as blocks, principles are set apart by a blank line. Only what is set is
written. Reading the text again gives the same constitution.
"""

from __future__ import annotations

import re
from typing import Any, cast

import yaml

from constitution.schema import Constitution

WIDTH = 110
_FOLD_FROM = 90
_PRINCIPLES = "principles:\n"
_INVISIBLE = re.compile("[\x00-\x09\x0b-\x1f\x7f-\xa0\u2028\u2029\ufeff]")


def principle_file(constitution: Constitution) -> str:
    """The text of a YAML principle file that reads as `constitution`."""
    data = constitution.model_dump(mode="json", exclude_unset=True)
    for principle in data["principles"]:
        if float(principle.get("weight", 0.5)).is_integer():
            principle["weight"] = int(principle["weight"])
    text = yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=WIDTH, default_flow_style=False)
    # Before `principles:` every line of a block is indented, so the line stands once.
    head, _, body = text.partition("\n" + _PRINCIPLES)
    first, *others = body.split("\n  - id: ")
    return head + "\n" + _PRINCIPLES + "\n\n  - id: ".join([first, *others])


class _Dumper(yaml.SafeDumper):
    """Lists are indented below their key; texts get the style they read best in."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> Any:  # noqa: ARG002, FBT001, FBT002 - PyYAML's own
        return cast("Any", super()).increase_indent(flow, indentless=False)

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - PyYAML's own
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = None
    if _INVISIBLE.search(text) or text != text.strip():
        style = '"'  # where escapes show what is there
    elif "\n" in text:
        style = "|"
    elif len(text) > _FOLD_FROM and "  " not in text:
        style = ">"
    return cast("yaml.ScalarNode", cast("Any", dumper).represent_scalar("tag:yaml.org,2002:str", text, style=style))


_Dumper.add_representer(str, _text)
