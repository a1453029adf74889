"""Writes the documents that are made from code: `python -m constitution.linting.documentation`.

`principles/rules/README.md` explains every rule with its example, and `principles/principle-file.schema.json` is what editors
complete and check by. A test fails when either is stale. Neither is read as principles: a folder's README.md is left out, and
so are the folders inside it.
"""

from __future__ import annotations

import json
from pathlib import Path

from constitution.linting.registry import RULES
from constitution.linting.rules import Example, Rule
from constitution.schema import json_schema

RULES_FILE = Path("rules", "README.md")
SCHEMA_FILE = Path("principle-file.schema.json")

_HEAD = """\
# What `cai check` looks for

Written by `python -m constitution.linting.documentation` from the rules themselves; each example is run as a test.

`cai check FILES` prints each finding as `file:line:column C101 error: what is wrong (what to do)`. Exit code 4 means that there
are errors; warnings count too with `--strict`. `cai check --explain C206` prints one entry of this page.

An error cannot be allowed. A warning can, by a comment with its id and, for people, the reason:

```yaml
# cai: allow C208 tests follow next week       above everything else: the whole file
name: mine
principles:
  - id: kind # cai: allow C201 C206 we mean it    on the first line of a principle: all of it
    principle: Always be kind.
    # cai: allow C205                             on a line of its own: what begins on the next line
    preference_question: Which reply is kinder and more polite?
```

In a Markdown file the comment is `<!-- cai: allow C206 -->`, at the end of a bullet or on the line above it.

## In an editor

Editors with a YAML language server (VS Code with its YAML extension, Neovim, JetBrains and others) complete keys, explain them
and mark mistakes while you type, given the JSON Schema of a principle file. It is shipped as
[principle-file.schema.json](../principle-file.schema.json); `cai check --schema` prints it. Name it in the first line of a
file, by a path from that file:

```yaml
# yaml-language-server: $schema=principle-file.schema.json
name: mine
```

`cai init` writes both. The schema knows keys and kinds of values; ids that are used twice, templates and wording are for
`cai check`.
"""


def rules_page() -> str:
    """The page about all rules."""
    parts = [_HEAD]
    for severity, title in (("error", "Errors"), ("warning", "Warnings")):
        chosen = [rule for rule in RULES.values() if rule.severity == severity]
        rows = "\n".join(f"| [{rule.id}](#{_anchor(rule)}) | {rule.title} | {_yes(fixable=rule.fixable)} |" for rule in chosen)
        parts.append(f"## {title}\n\n| id | what | `--fix` |\n| --- | --- | --- |\n{rows}\n")
        parts += [f"### {rule.id}: {rule.title}\n\n{explanation(rule)}" for rule in chosen]
    return "\n".join(parts)


def explanation(rule: Rule) -> str:
    """Why the rule is there, and its example, as Markdown."""
    fix = " `--fix` mends it." if rule.fixable else ""
    told = f"{rule.why}{fix}\n"
    if rule.example is None:
        return f"{told}\n{rule.situation}\n"
    language = "markdown" if rule.example.form == "markdown" else "yaml"
    bad, mended = (_shown(rule.example, text) for text in (rule.example.bad, rule.example.mended))
    return f"{told}\nInstead of\n\n```{language}\n{bad}\n```\n\nwrite\n\n```{language}\n{mended}\n```\n"


def _shown(example: Example, text: str) -> str:
    """An example's text with what cannot be seen made visible, and very long lines cut."""
    marks = {"\u200b": "<U+200B>", "\x07": "<U+0007>", "\t": "<tab>", "\r": "<CR>"}
    if example.form == "yaml":
        text = text if text.endswith("\n") else f"{text}<no newline>"
        text = text.replace("  \n", "<space><space>\n")
    visible = "".join(marks.get(character, character) for character in text.rstrip("\n"))
    return "\n".join(line if len(line) <= 120 else f"{line[:100]} …" for line in visible.splitlines())


def _anchor(rule: Rule) -> str:
    kept = "".join(c for c in f"{rule.id}: {rule.title}".lower() if c.isalnum() or c in " -_")
    return kept.replace(" ", "-")


def _yes(*, fixable: bool) -> str:
    return "yes" if fixable else ""


def schema_text() -> str:
    """The JSON Schema of a principle file, as it is shipped."""
    return json.dumps(json_schema(), indent=1, ensure_ascii=False) + "\n"


def documents() -> dict[Path, str]:
    """Each document's text, by its path in the folder of the shipped principles."""
    return {RULES_FILE: rules_page(), SCHEMA_FILE: schema_text()}


def main() -> None:
    folder = Path(__file__).resolve().parents[2] / "principles"
    for path, text in documents().items():
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
