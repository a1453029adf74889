"""Applies the safe edits of findings to the files they are about, and nothing else: every other byte stays as it is.

Safe means that no text which a model would read is changed. Edits of layout are kept only if the file reads the same
afterwards; the others mend an error, so that the file could not be read before.
"""

from __future__ import annotations

import codecs
import difflib
import io
import os
import shutil
import tempfile
from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from constitution.documents import read_document
from constitution.linting.checking import Report, lint
from constitution.linting.findings import Edit, Finding
from constitution.markdown import read_markdown
from constitution.reading import ReadFile

ROUNDS = 20
"""One fix can make place for another: an id that is put in quotes is then seen not to be a proper id."""
_MARK = "\ufeff"
_Span: TypeAlias = tuple[tuple[int, int], tuple[int, int]]
"""Line and column of the beginning and of the end."""


@dataclass(frozen=True)
class FixedFile:
    """A file's text before and after, and what was mended in it. A byte order mark is no part of the texts: `marked`."""

    path: Path
    before: str
    after: str
    mended: tuple[Finding, ...]
    marked: bool = False

    def diff(self) -> str:
        """A unified diff, ready for `patch -p0`, which knows no end of a line but LF: all others stand in the lines."""
        # A control character in the name could make lines of its own.
        name = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in str(self.path))
        lines = difflib.unified_diff(self._lines(self.before), self._lines(self.after), name, name)
        # A last line without its end is marked as `diff` marks it.
        return "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)

    def _lines(self, text: str) -> Sequence[str]:
        return io.StringIO(_MARK * self.marked + text, newline="\n").readlines()


class FixingError(Exception):
    """A file cannot be written."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: cannot be written ({reason})")


def fixed_files(report: Report) -> Sequence[FixedFile]:
    """What `write` would change: for each file with fixable findings, its text with all edits that are safe."""
    fixable: dict[str, list[Finding]] = defaultdict(list)
    for finding in report.findings:
        if finding.fix is not None:
            fixable[finding.path].append(finding)
    changed = (_fixed(file, fixable[str(file.path)]) for file in report.files if str(file.path) in fixable)
    return [each for each in changed if each.after != each.before]


def fix(paths: Sequence[str | Path]) -> tuple[Sequence[FixedFile], Report]:
    """Mend files until nothing safe is left to mend.

    Returns:
        Each file that was written, and what the check says afterwards.

    Raises:
        FixingError: If a file cannot be written, or was changed by somebody else meanwhile. Files that were written stay so.
    """
    written: dict[Path, FixedFile] = {}
    report = lint(paths)
    for _ in range(ROUNDS):
        changes = fixed_files(report)
        if not changes:
            break
        for each in changes:
            write(each)
            first = written.get(each.path, each)
            mended = each.mended if first is each else first.mended + each.mended
            written[each.path] = FixedFile(each.path, first.before, each.after, mended, each.marked)
        report = lint(paths)
    return tuple(written.values()), report


def _fixed(file: ReadFile, findings: Sequence[Finding]) -> FixedFile:
    before = file.document.text
    layout: dict[str, list[Finding]] = defaultdict(list)
    for finding in findings:
        if finding.severity != "error":
            layout[finding.rule].append(finding)
    safe = {id(finding) for of_one_rule in layout.values() for finding in _safe(file, of_one_rule)}
    taken: list[_Span] = []
    edits, mended = list[Edit](), list[Finding]()
    for finding in findings:
        its_own = finding.fix.edits if finding.fix else ()
        if (finding.severity == "error" or id(finding) in safe) and _take(its_own, taken):
            edits += its_own
            mended.append(finding)
    return FixedFile(file.path, before, apply_edits(before, edits), tuple(mended), file.marked)


def _safe(file: ReadFile, findings: Sequence[Finding]) -> Sequence[Finding]:
    """Those of one rule after which the file reads the same: tried together, and by halves only where that fails."""
    edits = [edit for finding in findings if finding.fix for edit in finding.fix.edits]
    if _reads_the_same(file, file.document.text, apply_edits(file.document.text, edits)):
        return findings
    half = len(findings) // 2
    return [*_safe(file, findings[:half]), *_safe(file, findings[half:])] if half else []


def _take(edits: Sequence[Edit], taken: list[_Span]) -> bool:
    """Note the places of edits that touch nothing in `taken`, which is kept in order; else the next round finds them again."""
    spans = [((edit.line, edit.column), (edit.end_line, edit.end_column)) for edit in edits]
    for start, end in spans:
        at = bisect_left(taken, (start, end))
        if (at > 0 and taken[at - 1][1] >= start) or (at < len(taken) and taken[at][0] <= end):
            return False
    for span in spans:
        insort(taken, span)
    return True


def _reads_the_same(file: ReadFile, before: str, after: str) -> bool:
    if file.is_markdown:
        return _bullets(before) == _bullets(after)
    old, new = read_document(before), read_document(after)
    readable = old.wholly_read and new.wholly_read  # else nobody can say what was changed
    return readable and bool(old.value == new.value) and len(old.problems) == len(new.problems)


def _bullets(text: str) -> tuple[str, list[str], list[str]]:
    found = read_markdown(text)
    return found.title, found.prose, [bullet.text for bullet in found.bullets]


def apply_edits(text: str, edits: Iterable[Edit]) -> str:
    """The text with all edits made; they must not overlap."""
    lines = text.splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))
    spans = sorted(
        (starts[edit.line - 1] + edit.column - 1, starts[edit.end_line - 1] + edit.end_column - 1, edit.text) for edit in edits
    )
    parts: list[str] = []
    at = 0
    for start, end, new in spans:
        parts += text[at:start], new
        at = end
    return "".join([*parts, text[at:]])


def write(change: FixedFile) -> None:
    """Put the new text in place of the old one, whole or not at all; a link stays a link, and the rights stay as they are.

    Raises:
        FixingError: If it cannot be written, or the file does not hold the old text any more.
    """
    target = change.path.resolve()
    try:
        raw = target.read_bytes()
        if raw.decode("utf-8-sig", errors="replace") != change.before:
            raise FixingError(change.path, "it was changed meanwhile; nothing was written to it")
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write((_MARK * raw.startswith(codecs.BOM_UTF8) + change.after).encode())
                file.flush()
                os.fsync(file.fileno())
            shutil.copymode(target, name)
            Path(name).replace(target)
        except BaseException:
            with suppress(OSError):
                Path(name).unlink()
            raise
    except OSError as error:
        raise FixingError(change.path, error.strerror or str(error)) from error
