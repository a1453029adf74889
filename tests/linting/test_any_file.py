"""Whatever a file holds: findings with places, or a constitution; never a traceback, never long, never much memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import hostile_files
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from constitution.errors import ConstitutionError, PrincipleFileError
from constitution.linting import RULES, lint
from constitution.loading import load_constitution

REPOSITORY = Path(__file__).resolve().parents[2]
SECONDS = 2.0
MEBIBYTES = 300

TOKENS = st.sampled_from(
    [
        *(
            "principles:\n",
            "  - id: a\n",
            "  - id: b-c\n",
            "    principle: Be kind.\n",
            "    weight: 2\n",
            "name: x\n",
            "- Be kind.\n",
        ),
        *(
            "    tests:\n",
            "      - prompt: Hi\n",
            "        better: Hello.\n",
            "        worse: no\n",
            "    applies_to: [x, x]\n",
        ),
        *(
            "    parameters: {w: 1}\n",
            "    principle: 'a {{ w }}'\n",
            "    demonstrations: []\n",
            "    critique_request: >-\n      a\n",
        ),
        *(
            "&a ",
            "*a",
            "&b [*a, *a]",
            "<<: *a\n",
            "!!python/object:os.system x",
            "!!binary aGk=",
            "!!set {a}",
            "!!omap [a: b]",
            "? ",
        ),
        *("{{ w }}", "{% if w %}", "{% endif %}", "{{ w.x }}", "{#", "{{ 'a' * 9 }}", "{% raw %}", "\\x00", "\\uD800"),
        *(
            "---\n",
            "...\n",
            "%YAML 1.1\n",
            "%TAG ! tag:x,2000:\n",
            "[",
            "]",
            "{",
            "}",
            ": ",
            ", ",
            "- ",
            "| \n",
            ">9\n",
            "|+\n",
            '"',
            "'",
        ),
        *(
            "\t",
            "\r",
            "\r\n",
            "\n",
            " ",
            "    ",
            "\ufeff",
            "\x00",
            "\x85",
            "\u2028",
            "\u200b",
            "\x1b[31m",
            "é",
            "𝒳",
            "0x1f",
            "1:1:1",
            "1e400",
        ),
        *(
            "# cai: allow C206\n",
            "  # cai: allow C109 x\n",
            "<!-- cai: allow C206 -->",
            "<!--",
            "-->",
            "```\n",
            "# Title\n",
            "always",
            "1. a\n",
        ),
    ]
)
TEXTS = st.one_of(st.lists(TOKENS, max_size=40).map("".join), st.text(max_size=200))
MIXED = st.builds(bytes.__add__, TEXTS.map(lambda t: t.encode(errors="surrogatepass")), st.binary(max_size=30))
RAW = st.one_of(
    st.binary(max_size=300),
    MIXED,
    TEXTS.map(lambda text: text.encode("utf-16", errors="surrogatepass")),
    TEXTS.map(lambda text: b"\xef\xbb\xbf" + text.encode(errors="surrogatepass")),
    TEXTS.map(lambda text: text.encode("latin-1", errors="replace")),
    TEXTS.map(lambda text: text.encode(errors="surrogatepass")),
)


@settings(max_examples=500, deadline=2000)
@given(raw=RAW, suffix=st.sampled_from([".yaml", ".yml", ".md", ".MD"]))
def test_any_bytes_are_findings_with_places_or_a_constitution(
    tmp_path_factory: pytest.TempPathFactory, raw: bytes, suffix: str
) -> None:
    path = tmp_path_factory.mktemp("any") / f"any{suffix}"
    path.write_bytes(raw)
    report = lint([path])
    lines = len(f"{raw.decode(errors='replace')}.".splitlines())
    for finding in report.findings:
        assert finding.path == str(path)
        assert 1 <= finding.line <= lines
        assert finding.column >= 1
        assert finding.severity == RULES[finding.rule].severity
        assert finding.problem
        str(finding).encode(errors="surrogatepass")
    refusals = _refusals(path)
    assert {each.rule for each in refusals} <= set(RULES)
    told = any(finding.severity == "error" and finding.rule not in {"C131", "C132"} for finding in report.findings)
    assert bool(refusals) == told


def _refusals(path: Path) -> Sequence[PrincipleFileError]:
    try:
        load_constitution([path])
    except ConstitutionError as error:
        return error.errors
    return ()


NAMED = (
    "a line of ten megabytes",
    "commas",
    "an alias bomb",
    "aliases in a chain",
    "a cyclic anchor",
    "a number to base sixty",
    "templates",
    "markdown: one bullet of many lines",
)
"""The worst of their kind; the others are among the slow tests."""


def _measured(names: Sequence[str], folder: Path) -> None:
    """Check hostile files, each in a process of its own."""
    command = [sys.executable, hostile_files.__file__, str(folder), *names]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert [result["name"] for result in results] == list(names)
    for result in results:
        assert result["status"] == 0, f"crashed: {result}"
        assert result["rules"], f"none of these is a good file: {result}"
        assert result["seconds"] < SECONDS, result
        assert result["mebibytes"] < MEBIBYTES, result


def test_no_named_file_takes_long_or_much_memory(tmp_path: Path) -> None:
    """Story: PyYAML read `1:1:1:…` to base 60 in quadratic time, and built gigabytes of nodes before any could be counted."""
    _measured(NAMED, tmp_path)


@pytest.mark.slow
def test_no_other_hostile_file_does_either(tmp_path: Path) -> None:
    _measured([name for name in hostile_files.HOSTILE if name not in NAMED], tmp_path)
