"""A run folder as one self-contained HTML page. Imports no torch.

`diffs` compares two texts word by word, for the terminal too; `collecting` reads a run folder into `data`; `page` writes the
page.
"""

from cai.report.collecting import collect
from cai.report.data import ReportData
from cai.report.diffs import Piece, word_diff
from cai.report.page import render_report, write_report

__all__ = ["Piece", "ReportData", "collect", "render_report", "word_diff", "write_report"]
