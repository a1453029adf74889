"""What a rule of the linter is: an id that never changes its meaning, why it is there, and an example that a test runs.

`C1xx` are errors: with one, `cai check` refuses a file, and but for C131 and C132 so does every other command. `C2xx` are
warnings: legal, but unwise. A warning can be allowed in the file itself (see `allowances`), an error cannot.
"""

from __future__ import annotations

from dataclasses import dataclass
from textwrap import indent
from typing import Literal, TypeAlias

from constitution.linting.findings import Finding, Fix, Severity
from constitution.linting.placed import PlacedPrinciple, Position

Form: TypeAlias = Literal["principle", "yaml", "markdown"]


@dataclass(frozen=True, slots=True)
class Example:
    """A text with the fault, and the same without it.

    `form` says what the texts are: the lines of one principle (an id is added, and a test where there is none), a list of
    principles (each begins with `- `), a whole YAML file, or a whole Markdown file.
    """

    bad: str
    mended: str
    form: Form = "principle"

    @property
    def suffix(self) -> str:
        return ".md" if self.form == "markdown" else ".yaml"

    def file(self, text: str) -> str:
        """The whole file that an example's text stands for."""
        if self.form != "principle":
            return text
        if not text.startswith("- "):
            text = "- id: example\n" + indent(text, "  ") + ("" if "tests:" in text else f"\n{_TESTS}")
        return "principles:\n" + indent(text.rstrip("\n"), "  ") + "\n"


_TESTS = """\
  tests:
    - prompt: Where is the key?
      better: On the hook beside the door.
      worse: I won't tell you that.
"""


@dataclass(frozen=True, slots=True)
class Rule:
    """`why` is for people; `situation` describes what no file can show, where there is no example."""

    id: str
    title: str
    why: str
    example: Example | None = None
    situation: str = ""
    fixable: bool = False

    @property
    def severity(self) -> Severity:
        return "error" if self.id.startswith("C1") else "warning"

    def at(self, path: str, position: Position, problem: str, hint: str, fix: Fix | None = None) -> Finding:
        """A finding of this rule at a 1-based (line, column) of a file."""
        return Finding(path, *position, self.id, self.severity, problem, hint, fix)

    def of(self, placed: PlacedPrinciple, position: Position, problem: str, hint: str) -> Finding:
        """A finding of this rule in a principle."""
        return self.at(str(placed.file.path), position, problem, hint)
