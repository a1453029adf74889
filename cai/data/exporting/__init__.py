"""Data sets in the forms that other programs load: one module a format, one registry, one way of writing them."""

from cai.data.exporting.formats import ExportFormat, Limit, SoftLabels, Table
from cai.data.exporting.lengths import TokenCounter
from cai.data.exporting.outcomes import ExportOutcome, TableOutcome
from cai.data.exporting.registry import FORMATS, format_named
from cai.data.exporting.writing import Choices, Source, write_export

__all__ = [
    "FORMATS",
    "Choices",
    "ExportFormat",
    "ExportOutcome",
    "Limit",
    "SoftLabels",
    "Source",
    "Table",
    "TableOutcome",
    "TokenCounter",
    "format_named",
    "write_export",
]
