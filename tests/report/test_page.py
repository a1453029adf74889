"""The page itself: all in one file, nothing hidden silently, hostile text inert. `test_browser` has it in a real browser."""

from __future__ import annotations

import re
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
from cai.shown_text import is_ordinary, visible
from cai.store import RunFolder
from tests.report.packed import packed_rows
from tests.report.runs import build_finished, build_started, evaluation, item

PACKED = re.compile(r"[A-Za-z0-9+/]+=*")
"""A chunk of a long list."""
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
        page = Page(source)
        own = [text for parent, text in page.texts if parent in {"style", "script"} and not PACKED.fullmatch(text)]
        assert len(own) == 2
        assert not any(
            re.search(r"url\(|@import|https?:|fetch|import\(|XMLHttp|innerHTML|insertAdjacent", text) for text in own
        )
        (policy,) = (attributes["content"] for tag, attributes in page.tags if "http-equiv" in attributes and tag == "meta")
        assert (policy or "").startswith("default-src 'none'; script-src 'sha256-"), "what is not named may not be loaded"
        scripts = [attributes for tag, attributes in page.tags if tag == "script"]
        assert [attributes.get("type") for attributes in scripts[:-1]] == ["application/octet-stream"] * (len(scripts) - 1)


def test_ids_are_unique_and_the_navigation_leads_to_sections(finished: str) -> None:
    page = Page(finished)
    assert len(page.ids) == len(set(page.ids))
    links = {(a["href"] or "")[1:] for tag, a in page.tags if tag == "a" and "?" not in (a["href"] or "")}
    assert {"outcome", "ledger", "transcripts", "answers", "labels", "training", "constitution", "cost", "reproduce"} <= links
    assert links <= set(page.ids)


def test_a_finished_run_shows_each_of_its_parts(finished: str) -> None:
    text = f"{Page(finished).text} {' '.join(row.text for row in packed_rows(finished, 'transcripts'))}"
    for words in (
        "2 of 4 faults fell, by 88 % to 94 %; 1 of 3 controls got worse: “misses known facts” by 8 points; "
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
        source = render_report(collect(folder, budget_bytes=4500))
    for name, words, total in (("transcripts", "transcripts", 57), ("answers", "pairs of answers", 40)):
        shown = len(packed_rows(source, name))
        assert 0 < shown < total
        assert f"{shown} of {total} {words} are in this file" in Page(source).text
        assert f"the other {total - shown} are in the run folder" in Page(source).text


def test_a_diff_on_the_page_gives_back_both_texts_to_the_last_sign(hostile: str) -> None:
    (row,) = packed_rows(hostile, "transcripts")
    (revision,) = [texts for kind, _, *texts in row.turns if kind == "revision"]
    assert revision == [visible(HOSTILE), visible(f"new {HOSTILE}")]


def test_hostile_text_adds_no_element_and_no_sign_that_cannot_be_seen(hostile: str) -> None:
    page = Page(hostile)
    tags = [tag for tag, _ in page.tags]
    assert tags.count("style") == sum("type" not in attributes for tag, attributes in page.tags if tag == "script") == 1
    assert not {"img", "plaintext", "iframe", "object"} & set(tags)
    packed = " ".join(row.text for name in ("transcripts", "answers") for row in packed_rows(hostile, name))
    assert not re.search(
        "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\U000e0000-\U000e007f]", hostile + packed
    )
    assert "⟦U+202E⟧right to left" in hostile
    assert "nul␀" in hostile
    assert (hostile + packed).count("{{ 7 * 7 }}") > 60  # once for each place in which a text can stand


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


def test_ordinary_text_is_text_whose_every_sign_can_be_seen() -> None:
    """Oracle: each sign by itself, of all that there are."""
    signs = [chr(code) for code in range(0x110000)]
    assert all(visible(f"\x00{sign}") == f"␀{sign}" for sign in signs if is_ordinary(sign))
    assert sum(map(is_ordinary, signs)) > 48_000


def test_a_folder_in_the_place_of_the_report_is_told_to_be_one(tmp_path: Path) -> None:
    """It was told after all work was done, with the advice to make the folder writable and go on where it stopped."""
    build_started(tmp_path / "run", items=3)
    (tmp_path / "reports").mkdir()
    with RunFolder.open(tmp_path / "run") as folder, pytest.raises(StoreError, match="a folder, and no file") as caught:
        write_report(folder, tmp_path / "reports")
    assert caught.value.hint == f"Name a file: {tmp_path / 'reports' / 'NAME'}."
    assert not list((tmp_path / "reports").iterdir())


def test_a_report_that_cannot_be_written_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build_started(tmp_path / "run", items=3)
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    with RunFolder.open(tmp_path / "run") as folder, pytest.raises(StoreError, match="cannot be written"):
        write_report(folder, blocked / "report.html")
    assert blocked.read_text() == "not a folder"
