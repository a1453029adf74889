"""Revisions that call tools as they cannot be called, in the report: counted, marked, and to be filtered."""

from __future__ import annotations

from pathlib import Path

from cai.records import BAD_CALL_KEPT, RevisionRecord, Round, Verdict
from cai.report import collect, render_report
from cai.store import RunFolder
from constitution.messages import Tool, user, with_tools
from tests.report.packed import packed_rows
from tests.report.runs import build_started
from tests.report.test_page import Page

DRAFT = '<tool_call>\n{"name": "delete", "arguments": {"path": "/home/ann"}}\n</tool_call>'


def with_call(n: int, *, bad: bool) -> RevisionRecord:
    note = f"{BAD_CALL_KEPT}: there is no tool 'wipe'; there are delete" if bad else ""
    only = Round(
        round=0,
        principle_id="brief-refusal",
        critique="It deletes unasked.",
        verdict=Verdict.FAULT,
        revision=None if bad else "Shall I delete /home/ann?",
        note=note,
    )
    messages = with_tools((user(f"Clean up number {n}."),), (Tool(name="delete"),))
    return RevisionRecord(uid=f"i{n}", messages=messages, draft=DRAFT, rounds=(only,))


def page_of(run: Path, records: tuple[RevisionRecord, ...]) -> str:
    build_started(run, items=5, records=records)
    with RunFolder.open(run) as folder:
        return render_report(collect(folder))


def test_revisions_with_calls_that_cannot_be_made_are_counted_and_can_be_found(tmp_path: Path) -> None:
    page = page_of(tmp_path / "run", (with_call(0, bad=True), with_call(1, bad=False), with_call(2, bad=True)))
    assert (
        "2 revisions call a tool that there is not, or with arguments that do not fit it: the text before was kept."
        in Page(page).text
    )
    assert 'href="#transcripts?calls=bad"' in page
    rows = packed_rows(page, "transcripts")
    assert [row.facets["calls"] for row in rows] == [["bad"], [], ["bad"]]
    assert "there is no tool 'wipe'" in rows[0].text


def test_one_is_told_as_one_and_none_is_not_told(tmp_path: Path) -> None:
    one = page_of(tmp_path / "one", (with_call(0, bad=True),))
    assert "1 revision calls a tool that there is not" in Page(one).text
    none = page_of(tmp_path / "none", (with_call(0, bad=False),))
    assert "a tool that there is not" not in none
    assert '<select name="calls">' not in none
