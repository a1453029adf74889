"""A run folder as one self-contained HTML page. Imports no torch.

`collecting` reads a run folder into `data`, with the long lists of `listings`; `page` writes the page.
"""

from cai.report.collecting import Beside, collect
from cai.report.data import BesideBehaviour, BesideView, ReportData
from cai.report.page import render_report, write_report

__all__ = ["Beside", "BesideBehaviour", "BesideView", "ReportData", "collect", "render_report", "write_report"]
