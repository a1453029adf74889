"""The gate on the page: what it turned down is counted, shown as a word diff, and never passes for a revision that counts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cai.loop import gate_tally
from cai.records import GateCheck, GateRuling, RecordKind, RejectedRevision, RevisionRecord, Round, Stage, Verdict
from cai.report import collect, render_report
from cai.store import RunFolder
from tests.report.packed import packed_rows
from tests.report.runs import build_started, exchange, item
from tests.report.test_page import HOSTILE, Page


def check(principle: str, role: str, before: float, after: float, *, worse: bool) -> GateCheck:
    return GateCheck.model_validate(
        {"principle_id": principle, "role": role, "before_nats": before, "after_nats": after, "worse": worse}
    )


OWN = check("correct-false-claims", "own", -3.25, 2.5, worse=False)


def gated(n: int, *, accepted: bool, rejected: tuple[str, ...]) -> RevisionRecord:
    _, draft, critique, revised = exchange(n)
    worse = (OWN, check("brief-refusal", "helpfulness", 4.0, -1.5, worse=True))
    ruling = GateRuling(
        accepted=accepted,
        checks=(OWN,) if accepted else (),
        rejected=tuple(RejectedRevision(revision=text, checks=worse) for text in rejected),
    )
    only = Round(
        round=0,
        principle_id="correct-false-claims",
        critique=critique,
        verdict=Verdict.FAULT,
        revision=revised if accepted else None,
        gate=ruling,
    )
    return RevisionRecord(uid=f"i{n}", messages=item(n).messages, draft=draft, rounds=(only,))


RECORDS = (
    gated(0, accepted=True, rejected=()),
    gated(1, accepted=True, rejected=("I refuse to say more.",)),
    gated(2, accepted=False, rejected=("I cannot help with that.", HOSTILE)),
)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("gated") / "run"
    build_started(path, items=5, records=RECORDS)
    with RunFolder.open(path) as folder:
        folder.put_stage(Stage.GENERATE, "g", {"gate": gate_tally(RECORDS).model_dump(mode="json")})
        return render_report(collect(folder))


def test_the_gate_is_counted_by_the_principle_that_asked(page: str) -> None:
    text = Page(page).text
    assert "1 of 3 revisions were turned down (33 %)" in text
    assert "3 were drawn again" not in text
    assert "2 were drawn again" in text
    (row,) = re.findall(r'<tr><th scope="row" class="mono">(.*?)</tr>', page)
    cells = [re.sub("<.*?>", "", cell) for cell in re.split("</t[hd]>", row)][:6]
    assert cells == ["correct-false-claims", "3", "1", "33 %", "1", "brief-refusal (helpfulness) 3"]


def test_a_transcript_shows_what_was_turned_down_and_why(page: str) -> None:
    rows = packed_rows(page, "transcripts")
    text = " ".join(row.text for row in rows)
    assert text.count("turned down by the gate") == 3
    assert "I cannot help with that." in text
    assert "worse under brief-refusal (helpfulness): +4.00 nats → −1.50 nats" in text
    assert "no worse under correct-false-claims (own): −3.25 nats → +2.50 nats" in text
    assert [row.facets["gate"] for row in rows] == [["open"], ["open"], ["closed"]]
    assert [row.facets["changed"] for row in rows] == [["yes"], ["yes"], ["no"]]
    assert [row.facets["changed_by"] for row in rows] == [["correct-false-claims"], ["correct-false-claims"], []]


def test_a_revision_that_was_turned_down_is_as_inert_as_any_text(page: str) -> None:
    parsed = Page(page)
    assert sum(tag == "script" and "type" not in attributes for tag, attributes in parsed.tags) == 1
    assert not {"img", "plaintext"} & {tag for tag, _ in parsed.tags}


def test_without_a_gate_the_page_says_nothing_of_one(tmp_path: Path) -> None:
    build_started(tmp_path / "run", items=5)
    with RunFolder.open(tmp_path / "run") as folder:
        assert folder.count_records(RecordKind.REVISION)
        source = render_report(collect(folder))
    assert 'id="gate"' not in source
    assert '<select name="gate">' not in source
