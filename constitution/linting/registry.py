"""All rules, by id."""

from __future__ import annotations

from collections.abc import Mapping

from constitution.linting import (
    allowances,
    declarations,
    demonstrations,
    file_rules,
    layout,
    overlap,
    tests_of_principles,
    wording,
)
from constitution.linting.rules import Rule

_MODULES = (file_rules, tests_of_principles, demonstrations, overlap, wording, declarations, layout, allowances)

RULES: Mapping[str, Rule] = {
    rule.id: rule for rule in sorted((rule for module in _MODULES for rule in module.RULES), key=lambda rule: rule.id)
}
ALLOWABLE = frozenset(rule.id for rule in RULES.values() if rule.severity == "warning") - {rule.id for rule in allowances.RULES}
