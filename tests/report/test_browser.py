"""The report in a real browser, opened from the disk: what one sees, finds, filters and links to, and what stays inert."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest

from cai.pipeline.side_by_side import write_report_beside
from cai.records import RecordKind, RevisionRecord
from cai.report import collect, render_report, write_report
from cai.store import RunFolder
from tests.axe import faults
from tests.chromium import Chromium, Tab, chromium
from tests.report.runs import build_finished
from tests.report.suite_runs import add_suites, evaluated
from tests.report.test_page import HOSTILE, hostile_run

READY = "document.documentElement.dataset.ready === 'yes'"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    with chromium(tmp_path_factory.mktemp("chromium")) as running:
        yield running


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run with suites (`one`), another without its last revisions (`two`), and the report of the first beside that."""
    folder = tmp_path_factory.mktemp("runs")
    build_finished(folder / "one", items=130)
    add_suites(folder / "one", [evaluated(folder)])
    build_finished(folder / "two", items=130)
    with RunFolder.open(folder / "two") as run:
        records = [
            record.model_copy(update={"rounds": record.rounds[1:]}) if n % 2 else record
            for n, record in enumerate(run.records(RecordKind.REVISION, RevisionRecord))
        ]
        run.put_records(RecordKind.REVISION, records)
    write_report_beside(folder / "one", folder / "two", folder / "page.html")
    return folder


@pytest.fixture(scope="module")
def page(runs: Path) -> Path:
    return runs / "page.html"


def show(browser: Chromium, page: Path, address: str = "") -> Tab:
    tab = browser.tab()
    tab.open(page.as_uri() + address)
    tab.wait(READY)
    return tab


def names(tab: Tab, which: str = "transcripts") -> list[str]:
    return json.loads(
        tab.evaluate(
            f"JSON.stringify([...document.querySelectorAll('[data-rows={which}] .row')].map((row) => row.dataset.name))"
        )
    )


def count(tab: Tab, which: str = "transcripts") -> str:
    return tab.evaluate(f"document.querySelector('form[data-for={which}] .count').textContent")


def choose(tab: Tab, name: str, value: str, which: str = "transcripts") -> None:
    before = count(tab, which)
    tab.evaluate(
        f"(() => {{ const field = document.querySelector('form[data-for={which}]').elements[{json.dumps(name)}]; "
        f"field.value = {json.dumps(value)}; field.dispatchEvent(new Event('input', {{ bubbles: true }})); }})()"
    )
    tab.wait(f"document.querySelector('form[data-for={which}] .count').textContent !== {json.dumps(before)}")


def stored(runs: Path, name: str = "one") -> list[RevisionRecord]:
    with RunFolder.open(runs / name, read_only=True) as run:
        return list(run.records(RecordKind.REVISION, RevisionRecord))


def test_rows_are_filtered_searched_and_paged_and_the_address_keeps_the_choice(
    browser: Chromium, runs: Path, page: Path
) -> None:
    tab, records = show(browser, page), stored(runs)
    assert (count(tab), len(names(tab))) == (f"All {len(records)} rows.", 50)
    assert count(tab, "answers") == "All 40 rows."

    choose(tab, "changed_by", "brief-refusal")
    wanted = [r.uid for r in records if r.rounds[0].principle_id == "brief-refusal" and r.changed]
    assert names(tab) == wanted
    assert count(tab) == f"{len(wanted)} of {len(records)} rows."
    assert tab.evaluate("location.hash") == "#transcripts?changed_by=brief-refusal"

    choose(tab, "search", "LOCKER 2")
    tab.wait("location.hash.includes('search')")
    wanted = [r.uid for r in records if "locker 2" in f"{r.messages[-1].content} {r.draft}".lower() and r.uid in wanted]
    assert 0 < len(wanted) < 20
    assert names(tab) == wanted
    address = tab.evaluate("location.hash")
    assert names(show(browser, page, address)) == wanted

    choose(tab, "search", "")
    choose(tab, "changed_by", "")
    tab.evaluate("document.querySelector('[data-pager=transcripts] [data-turn=\"1\"]').click()")
    tab.wait("location.hash.includes('page=2')")
    assert names(tab) == [r.uid for r in records][50:100]
    assert names(show(browser, page, "#transcripts?page=3")) == [r.uid for r in records][100:]
    assert tab.console == []


def test_search_finds_what_stands_in_either_text_of_a_diff_across_its_changes(browser: Chromium, tmp_path: Path) -> None:
    """The texts of a diff were searched joined, `the oldnew thing`, so that no phrase across a change was ever found."""
    build_finished(tmp_path / "run", items=6)
    with RunFolder.open(tmp_path / "run") as folder:
        first, *others = folder.records(RecordKind.REVISION, RevisionRecord)
        round_ = first.rounds[0].model_copy(update={"revision": "Keep the new \u212aing's thing, “İ”, and all the rest of it."})
        draft = "Keep the old queen's thing, “İ”, and all the rest of it."
        folder.put_records(RecordKind.REVISION, [first.model_copy(update={"draft": draft, "rounds": (round_,)}), *others])
        records = list(folder.records(RecordKind.REVISION, RevisionRecord))
        tab = show(browser, write_report(folder))
    shown = "document.querySelector('form[data-for=transcripts] .count').textContent"
    found: dict[str, int] = {}
    for search in (
        "the",
        "the n",
        "the new",
        "the new king's thing",
        "old queen's thing",
        "oldnew",
        "\u212a",
        "“i",
        "zz",
        "i̇",
        "o",
    ):
        wanted = [r.uid for r in records if any(search.lower() in text.lower() for text in said_in(r))]
        tab.evaluate(f"lists.get('transcripts').form.elements.search.value = {json.dumps(search)}")
        tab.evaluate("lists.get('transcripts').apply()")
        assert names(tab) == wanted, search
        assert tab.evaluate(shown).startswith("All" if len(wanted) == len(records) else f"{len(wanted)} of")
        found[search] = len(wanted)
    assert found["the new king's thing"] == found["old queen's thing"] == 1
    assert found["oldnew"] == 0
    assert tab.console == []


def said_in(record: RevisionRecord) -> list[str]:
    said = [text for each in record.rounds for text in (each.critique, each.revision or "")]
    return [*(message.content for message in record.messages), record.draft, *said]


def test_a_link_leads_to_one_row_and_a_senseless_address_to_none(browser: Chromium, runs: Path, page: Path) -> None:
    uid = stored(runs)[77].uid
    tab = show(browser, page, f"#transcripts?{urlencode({'row': uid})}")
    box = f"document.querySelector('[data-name={uid}]')"
    assert tab.evaluate(f"{box}.open")
    assert tab.evaluate(f"Math.abs({box}.getBoundingClientRect().top) < innerHeight / 2")
    assert tab.evaluate(f"{box}.querySelector('a.link').hash") == f"#transcripts?row={uid}"
    for address in (
        "#transcripts?row=nobody",
        "#transcripts?nonsense=1",
        "#transcripts?changed_by=%22%5D&search=%E0%A4%A",
        "#%E0",
    ):
        tab = show(browser, page, address)
        assert names(tab) == [] if "?" in address else len(names(tab)) == 50
        assert count(tab, "answers") == "All 40 rows."
        assert tab.console == []


def test_a_revision_is_shown_as_a_word_diff_of_the_text_before_it(browser: Chromium, runs: Path, page: Path) -> None:
    record = next(r for r in stored(runs) if r.changed)
    tab = show(browser, page, f"#transcripts?row={record.uid}")
    text = "document.querySelector('.row[open] .turn.revision .text')"
    without = (
        "[...{0}.firstChild.childNodes].filter((node) => node.nodeName !== '{1}').map((node) => node.textContent).join('')"
    )
    assert tab.evaluate(without.format(text, "INS")) == record.draft
    assert tab.evaluate(without.format(text, "DEL")) == record.final
    assert tab.evaluate(f"{text}.querySelectorAll('ins').length > 0 && {text}.querySelectorAll('del').length > 0")


def test_two_runs_stand_side_by_side_row_by_row(browser: Chromium, runs: Path, page: Path) -> None:
    here, there = stored(runs), {r.uid: r for r in stored(runs, "two")}
    tab = show(browser, page, "#transcripts?beside=other")
    wanted = [r.uid for r in here if r.final != there[r.uid].final]
    assert 0 < len(wanted) < len(here)
    assert count(tab) == f"{len(wanted)} of {len(here)} rows."
    record = here[[r.uid for r in here].index(wanted[0])]
    tab.evaluate("document.querySelector('[data-rows=transcripts] .row').openUp()")
    texts = [
        tab.evaluate(f"document.querySelectorAll('[data-rows=transcripts] .row[open] .sides .text')[{n}].textContent")
        for n in (0, 1)
    ]
    assert texts == [record.final, there[record.uid].final]
    told = tab.evaluate("document.getElementById('beside').innerText")
    assert f"transcripts: {len(here)} in both" in told
    assert "Bad answers after training, on the same prompts" in told


def test_no_foreign_script_runs_with_the_policy_or_without(browser: Chromium, tmp_path: Path) -> None:
    """Without the policy, texts alone must hold; a script that is let through on purpose shows that the test can fail."""
    hostile_run(tmp_path / "run")
    with RunFolder.open(tmp_path / "run", read_only=True) as folder:
        hostile = render_report(collect(folder))
    bare = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", hostile)
    assert bare != hostile
    leak = "<script>document.title = 'owned'</script></body>"
    for name, source, owned in (
        ("policy", hostile, False),
        ("bare", bare, False),
        ("policy-leak", hostile.replace("</body>", leak), False),
        ("bare-leak", bare.replace("</body>", leak), True),
    ):
        path = tmp_path / f"{name}.html"
        path.write_text(source)
        tab = show(browser, path)
        assert tab.evaluate("document.querySelector('.row[open] .turn.draft .text').textContent").startswith(HOSTILE[:40])
        assert tab.evaluate("document.querySelectorAll('main img, main iframe, main plaintext, main script').length") == 0
        assert tab.evaluate("[...document.links].every((link) => link.getAttribute('href').startsWith('#'))")
        assert (tab.evaluate("document.title") == "owned") == owned, name


def test_a_row_of_a_megabyte_is_cut_until_somebody_wants_all_of_it(browser: Chromium, tmp_path: Path) -> None:
    build_finished(tmp_path / "run", items=6)
    with RunFolder.open(tmp_path / "run") as folder:
        first, *others = folder.records(RecordKind.REVISION, RevisionRecord)
        long = first.model_copy(update={"draft": "<b>word</b> \x1b[31m " * 60_000})
        folder.put_records(RecordKind.REVISION, [long, *others])
        path = write_report(folder)
    assert path.stat().st_size < 500_000
    tab = show(browser, path)
    box = "document.querySelector('.row[open] .turn.draft .text')"
    assert 19_000 < tab.evaluate(f"{box}.textContent.length") <= 20_000
    tab.evaluate("document.querySelector('.row[open] .turn.draft .more').click()")
    shown = tab.evaluate(f"{box}.textContent.length")
    assert shown == len(long.draft)
    assert tab.evaluate(f"[...{box}.children].every((each) => each.matches('.block') && !each.children.length)")
    assert "\x1b" not in tab.evaluate(f"{box}.textContent.slice(0, 100)")
    assert tab.console == []


def test_keys_alone_open_a_row(browser: Chromium, page: Path) -> None:
    tab = show(browser, page, "#transcripts?page=2")
    tab.evaluate("document.querySelector('[data-rows=transcripts] summary').focus()")
    tab.press("Enter")
    tab.wait("document.querySelector('[data-rows=transcripts] .row').open && document.querySelector('.row .body')")


def test_the_printed_page_has_what_was_open_and_no_controls(browser: Chromium, page: Path) -> None:
    tab = show(browser, page)
    tab.send("Emulation.setEmulatedMedia", media="print")
    visible = "[...document.querySelectorAll('{0}')].filter((each) => each.getClientRects().length).length"
    assert tab.evaluate(visible.format("form, nav, .pager, .link")) == 0
    assert tab.evaluate(visible.format("[data-rows=transcripts] > .row")) == 2
    assert tab.evaluate(visible.format("#outcome table, #suites table, #training svg")) > 3
    assert len(tab.send("Page.printToPDF")["data"]) > 10_000


@pytest.mark.parametrize(
    ("width", "phone", "dark"),
    [
        pytest.param(1280, False, False, id="light"),
        pytest.param(1280, False, True, id="dark", marks=pytest.mark.slow),
        pytest.param(390, True, False, id="phone", marks=pytest.mark.slow),
    ],
)
def test_axe_finds_nothing_serious_and_nothing_is_wider_than_the_screen(
    browser: Chromium, page: Path, *, width: int, phone: bool, dark: bool
) -> None:
    tab = browser.tab()
    tab.resize(width, 900, phone=phone, dark=dark)
    tab.open(page.as_uri())
    tab.wait(READY)
    tab.evaluate(
        "for (const [n, each] of [...document.querySelectorAll('details')].entries()) "
        "if (!each.matches('.row') || n % 25 === 0) each.open = true"
    )
    tab.wait("[...document.querySelectorAll('.row[open]')].every((row) => row.querySelector('.body'))")
    assert faults(tab) == []
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
