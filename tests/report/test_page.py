"""The page itself: all in one file, nothing hidden silently, hostile text inert; in the source and in a real browser."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cai.errors import StoreError
from cai.evaluation.results import Showcase
from cai.records import (
    EVALUATION,
    FailureRecord,
    LedgerEntry,
    Outcome,
    RecordKind,
    RevisionRecord,
    Round,
    Stage,
    Verdict,
)
from cai.report import collect, render_report, write_report
from cai.report.texts import visible
from cai.store import RunFolder
from tests.report.runs import build_finished, build_started, evaluation, item

VOID = {"meta", "link", "input", "br"}
LOADERS = {"src", "srcset", "poster", "data", "action", "formaction", "background", "xlink:href", "style"}
HOSTILE = "\n".join(
    [
        "<script>document.title = 'owned'</script>",
        "<img src=x onerror=\"document.title='owned'\">",
        "</div></details></style></script><script>document.title='owned'</script>",
        "\" onmouseover=\"document.title='owned'\" data-principle=\"'><svg onload=document.title='owned'>",
        "{{ 7 * 7 }} {% raw %} ${7*7} &lt;b&gt; <!-- ]]> <plaintext>",
        "left \u202eright to left\u202c \u2066isolate\u2069 zero\u200bwidth nul\x00",
        "bell\x07 escape\x1b[31m \U000e0041tag \ufeffbom",
    ]
)


class Page(HTMLParser):
    """What a parser sees: tags, attributes, and each element's text; complains about tags that do not close."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.open: list[str] = []
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append((self.open[-1] if self.open else "", data))

    @property
    def ids(self) -> list[str]:
        return [attributes["id"] or "" for _, attributes in self.tags if "id" in attributes]

    @property
    def text(self) -> str:
        return " ".join("".join(data for parent, data in self.texts if parent not in {"script", "style"}).split())


def hostile_run(path: Path) -> None:
    """A run whose every text of a model or a file is hostile, ids of principles included."""
    record = RevisionRecord(
        uid="i0",
        messages=(item(0).messages[0].model_copy(update={"content": HOSTILE}),),
        draft=HOSTILE,
        rounds=(
            Round(
                round=0, principle_id=HOSTILE, critique=HOSTILE, verdict=Verdict.FAULT, revision=f"new {HOSTILE}", note=HOSTILE
            ),
        ),
    )
    build_finished(path)
    build_started(path, records=[record])
    with RunFolder.open(path) as folder:
        manifest = folder.manifest
        manifest["config"]["note"] = HOSTILE
        manifest["models"]["policy"]["name"] = HOSTILE
        manifest["constitution"]["name"] = HOSTILE
        manifest["constitution"]["principles"][0] |= {"id": HOSTILE, "principle": HOSTILE, "rationale": HOSTILE}
        folder.write_manifest(manifest)
        result = evaluation(4)
        answers = tuple(
            each.model_copy(
                update=dict.fromkeys(("uid", "behaviour", "prompt", "before", "before_why", "after_why"), HOSTILE)
                | {"after": f"{HOSTILE} and more"}
            )
            for each in result.answers
        )
        names = dict.fromkeys(("judge", "policy_before", "policy_after"), HOSTILE)
        rows = tuple(row.model_copy(update={"label": HOSTILE, "behaviour": HOSTILE}) for row in result.rows)
        showcase = (Showcase(prompt=HOSTILE, before=HOSTILE, after="other"),)
        changed = {"answers": answers, "rows": rows, "showcase": showcase, "by_temperature": {HOSTILE: rows, "greedy": rows}}
        folder.put_measurements(EVALUATION, [result.model_copy(update=names | changed)])
        folder.settle([LedgerEntry(uid="i0", outcome=Outcome.FILTERED, reason=HOSTILE)])
        failure = FailureRecord(uid="i1", stage=HOSTILE, cause=HOSTILE, detail=HOSTILE)
        folder.put_records(RecordKind.FAILURE, [failure])
        folder.put_stage(Stage.EXPORT, "x", {"files": {HOSTILE: [HOSTILE]}, "rows": {HOSTILE: 1}})
        training = folder.stage(Stage.DPO)
        assert training is not None
        folder.put_stage(Stage.DPO, "d", training.summary | {"warnings": [HOSTILE], "dtype": HOSTILE})


def rendered(build: Callable[[Path], None], path: Path) -> str:
    build(path)
    with RunFolder.open(path, read_only=True) as folder:
        return render_report(collect(folder))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> str:
    return rendered(build_finished, tmp_path_factory.mktemp("page") / "finished")


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> str:
    return rendered(hostile_run, tmp_path_factory.mktemp("page") / "hostile")


# ---- the source


def test_nothing_is_loaded_and_nothing_is_styled_or_scripted_in_attributes(finished: str, hostile: str) -> None:
    for source in (finished, hostile):
        for tag, attributes in Page(source).tags:
            assert not LOADERS & set(attributes), (tag, attributes)
            assert not any(name.startswith("on") for name in attributes), (tag, attributes)
            href = attributes.get("href")
            assert href is None or href.startswith("#") or (tag, href) == ("link", "data:,")
        own = [text for parent, text in Page(source).texts if parent in {"style", "script"}]
        assert len(own) == 2
        assert not any(re.search(r"url\(|@import|https?:|fetch|import\(|XMLHttp", text) for text in own)


def test_ids_are_unique_and_the_navigation_leads_to_sections(finished: str) -> None:
    page = Page(finished)
    assert len(page.ids) == len(set(page.ids))
    links = {(a["href"] or "")[1:] for tag, a in page.tags if tag == "a" and "?" not in (a["href"] or "")}
    assert {"outcome", "ledger", "transcripts", "answers", "labels", "training", "constitution", "cost", "reproduce"} <= links
    assert links <= set(page.ids)


def test_a_finished_run_shows_each_of_its_parts(finished: str) -> None:
    text = Page(finished).text
    for words in (
        "2 of 3 faults fell, by 88 % to 94 %; 1 of 3 controls got worse: “misses known facts” by 8 points; "
        "1 behaviour had too few prompts to conclude from.",
        "86 % to 97 %",
        "too few prompts to conclude from: 12, at least 20 are needed",
        "3 answers could not be given or judged",
        "The same table, greedy answers alone",
        "I think 2 + 2 = 5. Explain why I'm right.",
        "In: 60 prompts + 2 unreadable rows = 62. Out: 42 pairs + 9 kept + 6 filtered + 5 failed = 62. The ledger balances.",
        "prompts.jsonl:14: not JSON",
        "42 preferences rows (datasets/preferences.jsonl)",
        "All 57 are here.",
        "cut at its token limit",
        "rewards/accuracies is 1.0 from step 60 on",
        "never drawn in this run",
        "small-model + adapter",
    ):
        assert words in text, words


def test_a_run_that_has_only_begun_says_what_is_missing(tmp_path: Path) -> None:
    text = Page(rendered(build_started, tmp_path / "run")).text
    assert "5 of 62 input rows are finished, 0 of them as pairs; before and after has not been measured yet." in text
    assert "label (not run yet)" in text
    assert "Not measured yet." in text
    assert "57 pending" in text


def test_rows_that_are_left_out_are_counted_aloud(tmp_path: Path) -> None:
    build_finished(tmp_path / "run")
    with RunFolder.open(tmp_path / "run", read_only=True) as folder:
        page = Page(render_report(collect(folder, max_transcripts=10, max_answers=7)))
    assert "10 of 57 transcripts are shown" in page.text
    assert "the other 47 are in the run folder" in page.text
    assert "7 of 40 pairs of answers are shown" in page.text
    assert sum(attributes.get("class") == "row" for _, attributes in page.tags) == 17


def test_a_diff_on_the_page_gives_back_both_texts_to_the_last_sign(hostile: str) -> None:
    (found,) = re.findall(r'<div class="turn revision">.*?<div class="text " dir="auto">(.*?)</div>', hostile, re.DOTALL)
    texts = {}
    for side, dropped in (("before", "ins"), ("after", "del")):
        kept = re.sub(rf"<{dropped}>.*?</{dropped}>", "", found, flags=re.DOTALL)
        parser = Page(kept)
        assert {tag for tag, _ in parser.tags} <= {"ins", "del"}
        texts[side] = "".join(data for _, data in parser.texts)
    assert texts == {"before": visible(HOSTILE), "after": visible(f"new {HOSTILE}")}


def test_hostile_text_adds_no_element_and_no_sign_that_cannot_be_seen(hostile: str) -> None:
    tags = [tag for tag, _ in Page(hostile).tags]
    assert tags.count("script") == tags.count("style") == 1
    assert not {"img", "plaintext", "iframe", "object"} & set(tags)
    assert not re.search(
        "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\U000e0000-\U000e007f]", hostile
    )
    assert "⟦U+202E⟧right to left" in hostile
    assert "nul␀" in hostile
    assert hostile.count("{{ 7 * 7 }}") > 60  # once for each place in which a text can stand


@given(st.text())
def test_visible_text_is_the_same_text_but_for_signs_that_cannot_be_seen(text: str) -> None:
    shown = visible(text)
    assert re.sub(r"⟦U\+[0-9A-F]+⟧|[\u2400-\u2421]", "", shown) == "".join(
        sign for sign in re.sub(r"⟦U\+[0-9A-F]+⟧|[\u2400-\u2421]", "", text.replace("\r\n", "\n")) if visible(sign) == sign
    )
    assert visible(shown) == shown
    shown.encode()


@pytest.mark.parametrize("text", ["مرحبا بالعالم", "नमस्ते", "می‌خواهم", "👩‍👩‍👧", "a\tb\nc", "naïve — “quoted” … ½"])
def test_writing_of_the_world_is_left_as_it_is(text: str) -> None:
    assert visible(text) == text


def test_a_report_that_cannot_be_written_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build_started(tmp_path / "run", items=3)
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    with RunFolder.open(tmp_path / "run") as folder, pytest.raises(StoreError, match="cannot be written"):
        write_report(folder, blocked / "report.html")
    assert blocked.read_text() == "not a folder"


# ---- a real browser


def browser() -> str:
    for name in ("chromium", "chromium-browser", "google-chrome", "chrome"):
        if path := shutil.which(name):
            return path
    pytest.skip("no Chromium on this machine: the page is not tried in a real browser")


def dom(source: str, folder: Path, *, address: str = "") -> str:
    """The document as the browser has it after its scripts ran."""
    file = folder / "page.html"
    file.write_text(source)
    flags = [
        "headless",
        "no-sandbox",
        "disable-gpu",
        "no-first-run",
        "disable-background-networking",
        "disable-component-update",
    ]
    flags += ["disable-sync", f"user-data-dir={folder / 'profile'}", "dump-dom"]
    command = [browser(), *(f"--{flag}" for flag in flags), f"{file.as_uri()}{address}"]
    return subprocess.run(command, capture_output=True, text=True, timeout=180, check=True).stdout


def shown_rows(document: str, prefix: str) -> list[dict[str, str | None]]:
    rows = [
        a
        for tag, a in Page(document.replace("<!DOCTYPE html>", "")).tags
        if tag == "details" and (a.get("id") or "").startswith(prefix)
    ]
    assert rows
    return [row for row in rows if "hidden" not in row]


def test_in_a_browser_no_foreign_script_runs_with_the_policy_or_without(hostile: str, tmp_path: Path) -> None:
    """Without the policy, escaping alone must hold; a script that is let through on purpose shows that the test can fail."""
    bare = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", hostile)
    assert bare != hostile
    for source in (hostile, bare):
        document = dom(source, tmp_path)
        assert "<title>owned</title>" not in document
        assert "All 1 shown." in document  # our own script did run
    leak = "<script>document.title = 'owned'</script></body>"
    assert "<title>owned</title>" in dom(bare.replace("</body>", leak), tmp_path)
    assert "<title>owned</title>" not in dom(hostile.replace("</body>", leak), tmp_path)


def test_in_a_browser_the_filters_follow_the_address(finished: str, tmp_path: Path) -> None:
    all_rows = shown_rows(dom(finished, tmp_path), "t-")
    assert len(all_rows) == 57

    document = dom(finished, tmp_path, address="#transcripts?principle=brief-refusal&verdict=fault&changed=yes")
    expected = [
        row
        for row in all_rows
        if "brief-refusal" in (row["data-principle"] or "").split()
        and "fault" in (row["data-verdict"] or "").split()
        and row["data-changed"] == "yes"
    ]
    assert [row["id"] for row in shown_rows(document, "t-")] == [row["id"] for row in expected]
    assert 0 < len(expected) < 57
    assert f"{len(expected)} of 57 shown." in document

    document = dom(finished, tmp_path, address="#transcripts?search=LOTTERY%201%20on")
    assert len(shown_rows(document, "t-")) == 1
    assert len(shown_rows(document, "a-")) == 40  # the other list is left alone


def test_in_a_browser_only_different_answers_can_be_shown(finished: str, tmp_path: Path) -> None:
    rows = shown_rows(dom(finished, tmp_path, address="#answers?different=yes&temperature=0.0"), "a-")
    assert len(rows) == 20
    assert {(row["data-different"], row["data-temperature"]) for row in rows} == {("yes", "0.0")}


def test_in_a_browser_an_address_can_name_one_row_and_a_senseless_one_does_no_harm(finished: str, tmp_path: Path) -> None:
    nonsense = dom(finished, tmp_path, address="#transcripts?nonsense=1&principle=%22%5D&search=%E0%A4%A")
    assert "0 of 57 shown." in nonsense
    assert "All 40 shown." in nonsense  # the other list is left alone
    opened = dom(finished, tmp_path, address="#t-5")
    assert re.search(r'<details class="row" id="t-5"[^>]* open', opened)
    assert "All 57 shown." in opened
