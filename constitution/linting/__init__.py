"""What is wrong with principle files, and what is legal but unwise. Knows no model; starts in milliseconds.

`lint` finds, `fix` mends what is safe to mend, `RULES` says what is looked for and why. The documents of the rules are written
by `python -m constitution.linting.documentation`.
"""

from constitution.linting.checking import Report, lint
from constitution.linting.findings import Edit, Finding, Fix
from constitution.linting.fixing import FixedFile, FixingError, fix, fixed_files
from constitution.linting.layout import LINE_BY_LINE
from constitution.linting.registry import RULES
from constitution.linting.rules import Example, Rule

__all__ = [
    "LINE_BY_LINE",
    "RULES",
    "Edit",
    "Example",
    "Finding",
    "Fix",
    "FixedFile",
    "FixingError",
    "Report",
    "Rule",
    "fix",
    "fixed_files",
    "lint",
]
