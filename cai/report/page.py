"""`ReportData` → one HTML file that needs nothing else: style, script and pictures are inside, and a browser loads nothing.

All text on the page passes `visible` and jinja2's escaping, without exception: no template marks anything as safe. Rows of long
lists are packed (`listing`), and their texts become text nodes. Besides, the page's own policy lets the browser run this one
script and no other.
"""

from __future__ import annotations

import base64
import hashlib
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from cai.diffs import kept_share, word_diff
from cai.evaluation.wording import amount, sentences
from cai.records import Outcome, Stage
from cai.report import charts, texts, verdict
from cai.report.collecting import Beside, collect
from cai.report.data import ReportData
from cai.report.labels_in_words import (
    calibration_in_words,
    exam_in_words,
    human_in_words,
    label_warnings,
    quality_in_words,
)
from cai.report.leash import distance_plots, leash_plots
from cai.report.review_in_words import review_in_words
from cai.report.reward_in_words import reward_in_words
from cai.report.transcript_rows import OUTCOMES
from cai.shown_text import visible
from cai.store import RunFolder, refuse_folder, write_bytes_atomically

REPORT_NAME = "report.html"

STAGES: dict[Stage, str] = {
    Stage.GENERATE: "draft, critique, revise",
    Stage.LABEL: "label",
    Stage.EXPORT: "export",
    Stage.SFT: "supervised training",
    Stage.DPO: "preference training",
    Stage.EVALUATE: "before and after",
}


def write_report(
    folder: RunFolder, output: Path | None = None, *, budget_bytes: float | None = None, beside: Beside | None = None
) -> Path:
    """Write the report of a run, whole or not at all; default: `report.html` in its folder.

    Args:
        folder: Of the run.
        output: Where to.
        budget_bytes: Most that transcripts and answers take in the file; default: by their number.
        beside: Another run to show beside it.

    Raises:
        StoreError: If the folder is damaged or the file cannot be written.
    """
    path = output or folder.path / REPORT_NAME
    refuse_folder(path)  # before all is read
    data = collect(folder, budget_bytes=budget_bytes, beside=beside)
    write_bytes_atomically(path, render_report(data).encode())
    return path


def render_report(data: ReportData) -> str:
    """The page. Equal data give equal text."""
    style, script = _own_file("page.css"), _own_file("page.js")
    page = _environment().get_template("page.html.j2")
    return page.render(
        data=data,
        style=Markup(style),  # noqa: S704 - a file of this package
        script=Markup(script),  # noqa: S704 - likewise
        policy=(
            f"default-src 'none'; script-src {_source(script)}; style-src {_source(style)}; img-src data:; "
            "base-uri 'none'; form-action 'none'"
        ),
        headline=_headline(data),
        lists=(("transcripts", data.transcripts), ("answers", data.answers), ("suite-answers", data.suite_answers)),
        config_text=yaml.safe_dump(data.config, sort_keys=False, allow_unicode=True) if data.config else "",
    )


def _headline(data: ReportData) -> str:
    found: list[str] = []
    if data.evaluation is not None:
        found.append(verdict.headline(data.evaluation.rows))
    if rows := [row for suite in data.suites if suite.comparisons for row in suite.comparisons[-1].rows]:
        found.append(f"{'In the suites: ' if found else ''}{verdict.headline(rows)}")
    if found:
        return " ".join(found)
    counts, rows = data.ledger.counts, data.ledger.rows
    settled = rows - counts[Outcome.PENDING]
    if not rows:
        return "This run has no input yet."
    state = f"{settled:,} of {rows:,} input rows are finished, {counts[Outcome.PAIR]:,} of them as pairs"
    return f"{state}; before and after has not been measured yet."


def _source(text: str) -> str:
    """The content of an inline script or style, as a content security policy names it."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


@lru_cache(maxsize=2)
def _own_file(name: str) -> str:
    text = resources.files("cai.report").joinpath("templates", name).read_text(encoding="utf-8")
    return f"\n{text}"


@lru_cache(maxsize=1)
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("cai.report"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters: dict[str, Any] = {
        "amount": amount,
        "duration": texts.duration,
        "p_value": texts.p_value,
        "percent": texts.percent,
        "plain": texts.plain,
        "points": texts.points,
        "shortened": texts.shortened,
        "thousands": texts.thousands,
    }
    names: dict[str, Any] = {
        "OUTCOMES": OUTCOMES,
        "STAGES": STAGES,
        "box": {"width": charts.WIDTH, "height": charts.HEIGHT, "left": charts.LEFT, "right": charts.WIDTH - charts.RIGHT}
        | {"top": charts.TOP, "bottom": charts.HEIGHT - charts.BOTTOM},
        "broken_shares": verdict.broken_shares,
        "by_kind": verdict.by_kind,
        "kept_share": kept_share,
        "histogram": charts.histogram,
        "calibration_in_words": calibration_in_words,
        "exam_in_words": exam_in_words,
        "human_in_words": human_in_words,
        "label_warnings": label_warnings,
        "quality_in_words": quality_in_words,
        "review_in_words": review_in_words,
        "models_plot": charts.models_plot,
        "read_figure": verdict.read_figure,
        "reward_in_words": reward_in_words,
        "reliability": charts.reliability,
        "sentences": sentences,
        "read_row": verdict.read_row,
        "stacked": charts.stacked,
        "distance_plots": distance_plots,
        "leash_plots": leash_plots,
        "training_plots": charts.training_plots,
        "with_twins": verdict.with_twins,
        "word_diff": word_diff,
    }
    environment.filters.update(filters)  # pyright: ignore[reportUnknownMemberType] - jinja2 leaves their type open
    environment.globals.update(names)  # pyright: ignore[reportUnknownMemberType]
    return environment


def _shown(value: object) -> object:
    """Every value on its way into the page, before it is escaped."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value
