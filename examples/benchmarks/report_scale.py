"""The report of large runs: `python examples/benchmarks/report_scale.py`.

For each count a run of drawn transcripts, labels and a ledger is written; a process of its own builds the report, and its
peak of resident memory is what the kernel says of it at its end. Then headless Chromium opens the file from the disk, and is
timed until the first rows stand there, at a filter, at the last page, and at a search through all texts; `blocked` is the
longest time for which the page did not answer while it searched. Needs Chromium, and about 8 KB of disk a row.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from cai.labels.quality import label_quality
from cai.records import Item, LedgerEntry, Outcome, PreferenceRecord, RecordKind, RevisionRecord, Round, Stage, Verdict
from cai.store import RunFolder
from constitution.messages import user

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parent))
from scale import MEMORY_LOG

from tests.chromium import Tab, chromium

COUNTS = (10_000, 100_000)
PRINCIPLES = ("honest-uncertainty", "correct-false-claims", "no-help-with-wrongdoing", "courtesy-without-flattery")
RARE = "quicksilver"
"""A word that one row in a thousand holds."""
WORDS = (  # noqa: SIM905
    "the of and to in is that it for as was with be by on not he his but at are this have from or had an they which one "
    "you were her all she there would their we him been has when who will more no if out so said what up its about into "
    "than them can only other new some could time these two may then do first any my now such like our over man me even "
    "most made after also did many before must through back years where much your way well down should because each just "
    "those people mister how too little state good very make world still own see men work long get here between both "
    "life being under never day same another know while last might us great old year off come since against go came "
    "right used take three answer question claim number library river letter colour price city law book story promise "
    "ticket garden window machine teacher doctor kitchen winter summer morning evening mountain island bridge station "
    "harbour market village castle forest meadow engine signal pattern reason purpose measure"
).split()


@dataclass(frozen=True, slots=True)
class Measured:
    """One report: times in seconds, sizes in bytes."""

    rows: int
    rows_shown: int
    build_seconds: float
    processor_seconds: float
    peak_bytes: int
    file_bytes: int
    open_seconds: float
    filter_seconds: float
    page_seconds: float
    search_seconds: float
    blocked_seconds: float


def write_run(folder: Path, rows: int, words: int, seed: int = 0) -> None:
    """A run of `rows` labelled transcripts whose drafts have about so many words."""
    draw = random.Random(seed)  # noqa: S311 (texts, no secrets)
    weights = [1 / (n + 3) for n in range(len(WORDS))]

    def text(least: int, most: int) -> str:
        said = " ".join(draw.choices(WORDS, weights, k=draw.randint(least, most)))
        return f"{said[:1].upper()}{said[1:]}."

    def records() -> Iterator[RevisionRecord]:
        for n in range(rows):
            draft = text(words // 2, 3 * words // 2) + (f" {RARE}" if n % 1000 == 7 else "")
            fault = draw.random() < 0.7
            said = [draw.choice(WORDS) if draw.random() < 0.3 else word for word in draft.split()]
            only = Round(
                round=0,
                principle_id=draw.choice(PRINCIPLES),
                critique=text(words // 4, 3 * words // 4),
                verdict=Verdict.FAULT if fault else Verdict.NOTHING_TO_CHANGE,
                revision=" ".join(said) if fault else None,
            )
            yield RevisionRecord(uid=f"{n:016x}", messages=(user(f"{text(5, 40)} {n}?"),), draft=draft, rounds=(only,))

    with RunFolder.open(folder) as run:
        made = list(records())
        run.put_items([Item(uid=each.uid, messages=each.messages) for each in made])
        run.write_manifest({"program": "benchmark", "config": {"loop": {"rounds": 1}}})
        pairs = [_pair(each, draw) for each in made if each.changed]
        with run.transaction():
            run.put_records(RecordKind.REVISION, made)
            run.put_records(RecordKind.PREFERENCE, pairs)
            run.settle(LedgerEntry(uid=e.uid, outcome=Outcome.PAIR if e.changed else Outcome.KEPT) for e in made)
            run.put_stage(Stage.GENERATE, "g", {"records": len(made), "failures": 0})
            run.put_stage(Stage.LABEL, "l", label_quality(pairs[:1000]).model_dump(mode="json"))


def _pair(record: RevisionRecord, draw: random.Random) -> PreferenceRecord:
    revision_wins = draw.random() < 0.85
    p = 0.5 + 0.5 * draw.random()
    return PreferenceRecord(
        uid=record.uid,
        prompt=record.messages,
        chosen=record.final if revision_wins else record.draft,
        rejected=record.draft if revision_wins else record.final,
        chosen_source="revision" if revision_wins else "draft",
        rejected_source="draft" if revision_wins else "revision",
        p_chosen=p,
        margin_nats=4 * p - 2,
        method="pointwise",
        principle_ids=(record.rounds[0].principle_id,),
    )


def build(run: Path, page: Path) -> tuple[float, float, int]:
    """Seconds, seconds of a processor and peak of memory of `cai report`, the start of the program included."""
    began, used = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-c", MEMORY_LOG, "report", str(run), "--output", str(page)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 (our own command line)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime
    return time.perf_counter() - began, processor, int(done.stderr.split()[-1])


def look(page: Path, profile: Path) -> dict[str, float]:
    """Open, filter, page and search in a browser."""
    with chromium(profile) as browser:
        tab = browser.tab()
        began = time.perf_counter()
        tab.open(page.as_uri())
        tab.wait("document.documentElement.dataset.ready === 'yes' && document.querySelectorAll('.row').length >= 50")
        opened = time.perf_counter() - began
        filtered = _timed(tab, "set('changed_by', 'honest-uncertainty')", "!count().startsWith('All')")
        turned = _timed(tab, "(() => { last().value = last().max; last().dispatchEvent(new Event('change')); })()", "atEnd()")
        _timed(tab, "set('changed_by', '')", "count().startsWith('All')")
        tab.evaluate(
            "globalThis.blocked = 0; globalThis.seen = performance.now(); "
            "setInterval(() => { const now = performance.now(); "
            "blocked = Math.max(blocked, now - seen - 10); seen = now; }, 10)"
        )
        searched = _timed(tab, f"set('search', '{RARE}')", "/^[0-9]+ of/.test(count())", seconds=120)
        blocked = tab.evaluate("blocked") / 1000
        if tab.console:
            raise RuntimeError(f"the page complains: {tab.console}")
    return {
        "open_seconds": opened,
        "filter_seconds": filtered,
        "page_seconds": turned,
        "search_seconds": searched,
        "blocked_seconds": blocked,
    }


HELPERS = """
globalThis.form = document.querySelector("form[data-for=transcripts]");
globalThis.count = () => form.querySelector(".count").textContent;
globalThis.last = () => document.querySelector("[data-pager=transcripts] input");
globalThis.atEnd = () => document.querySelector("[data-pager=transcripts] [data-turn='1']").disabled;
globalThis.set = (name, value) => {
  form.elements[name].value = value;
  form.elements[name].dispatchEvent(new Event("input", { bubbles: true }));
};
"""


def _timed(tab: Tab, action: str, until: str, seconds: float = 60) -> float:
    tab.evaluate(HELPERS)
    began = time.perf_counter()
    tab.evaluate(action)
    tab.wait(until, seconds=seconds)
    return time.perf_counter() - began


def measure(folder: Path, rows: int, words: int) -> Measured:
    """One run of `rows` rows, in an empty folder."""
    write_run(folder / "run", rows, words)
    page = folder / "report.html"
    seconds, processor, peak = build(folder / "run", page)
    times = look(page, folder / "profile")
    source = page.read_text(encoding="utf-8")
    sample = re.search(r"([\d,]+) of [\d,]+ transcripts are in this file", source)
    shown = int(sample[1].replace(",", "")) if sample else rows
    return Measured(rows, shown, seconds, processor, peak, page.stat().st_size, **times)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print one line for each count."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=COUNTS)
    parser.add_argument("--words", type=int, default=60, help="of a draft, on average")
    parser.add_argument("--folder", type=Path, help="where to put runs and reports; default: a temporary folder")
    parser.add_argument("--json", action="store_true")
    wanted = parser.parse_args(arguments)
    found: list[Measured] = []
    for rows in wanted.rows:
        with tempfile.TemporaryDirectory(dir=wanted.folder) as folder:
            found.append(measure(Path(folder), rows, wanted.words))
    if wanted.json:
        print(json.dumps([asdict(each) for each in found]))
        return
    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, "
        f"{psutil.virtual_memory().total / 2**30:.0f} GiB, Python {platform.python_version()}, {time.strftime('%Y-%m-%d')}"
    )
    print(f"{'rows':>8} {'shown':>8} {'build s':>8} {'cpu s':>6} {'MiB':>5} {'file MB':>8}", end=" ")
    print(f"{'open s':>7} {'filter s':>8} {'page s':>7} {'search s':>8} {'blocked s':>9}")
    for each in found:
        print(
            f"{each.rows:>8,} {each.rows_shown:>8,} {each.build_seconds:>8.1f} {each.processor_seconds:>6.1f} "
            f"{each.peak_bytes / 2**20:>5.0f} {each.file_bytes / 1e6:>8.2f} {each.open_seconds:>7.2f} "
            f"{each.filter_seconds:>8.2f} {each.page_seconds:>7.2f} "
            f"{each.search_seconds:>8.2f} {each.blocked_seconds:>9.2f}"
        )


if __name__ == "__main__":
    main()
