"""Measures a feedback adapter: `python -m cai.lab.measure_adapter ADAPTER_FOLDER [--n 100] [--out measured.json]`.

Goes the product's own way: `cai.loop` with the given replies as drafts, then both kinds of labels of `cai.labels`, all on the
local engine. What is asked is in `cai.lab.probes`, what is right is decided by exact truth. The table gives shares with 95 %
Wilson intervals, over all replies, and apart for real drafts of the plain model and for synthetic ones.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias, TypeVar, get_args

from pydantic import BaseModel, ConfigDict

from cai.engines.base import Engine, GenerationRequest, RequestFailure
from cai.engines.scripted import ScriptedEngine
from cai.lab.probes import PROBE_SETS, TITLES, Probe, ProbeSet, Reply, draw_probes, shipped_drafts
from cai.lab.suite import as_item
from cai.labels.letters import Compared, LetterMargins, compare
from cai.labels.settings import LabelSettings
from cai.loop.chain import run_loop
from cai.loop.settings import LoopSettings
from cai.models.spec import ModelSpec
from cai.records import Item, RevisionRecord, Verdict
from cai.statistics import wilson_interval
from cai.verdicts import Judged, VerdictOdds, judge
from constitution.rendering import read_critique
from constitution.schema import Constitution, Principle

Measure: TypeAlias = Literal["flaw found", "good kept", "unrelated kept", "revision good", "pointwise right", "letters right"]
MEASURES: tuple[Measure, ...] = get_args(Measure)
Source: TypeAlias = Literal["real", "synthetic"]
Result = TypeVar("Result")


class Cell(BaseModel):
    """How often the adapter was right on one kind of question. `group` is the items' family, or the kind of rule."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    probe_set: ProbeSet
    group: str
    measure: Measure
    source: Source
    """Of the reply under review; of a pair, "real" when one side is a draft of the plain model."""
    right: int
    n: int


class Measurement(BaseModel):
    """All cells, and what they were measured with."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    fingerprint: str
    n: int
    seed: int
    seconds: float
    cells: tuple[Cell, ...]

    def count(
        self, measure: Measure, *, probe_set: ProbeSet, source: Source | None = None, group: str | None = None
    ) -> tuple[int, int]:
        """(right, n) over all cells that match."""
        found = [
            cell
            for cell in self.cells
            if cell.measure == measure
            and cell.probe_set == probe_set
            and source in (None, cell.source)
            and group in (None, cell.group)
        ]
        return sum(cell.right for cell in found), sum(cell.n for cell in found)

    def to_json(self) -> str:
        """One line a cell, so that two measurements can be compared line by line."""
        head = json.dumps(self.model_dump(mode="json", exclude={"cells"}), indent=1).removesuffix("\n}")
        cells = ",\n".join(f"  {cell.model_dump_json()}" for cell in self.cells)
        return f'{head},\n "cells": [\n{cells}\n ]\n}}\n'

    def table(self) -> str:
        """Every set by source, then the shipped principles by family, and the rules by kind."""
        lines: list[str] = []
        measured = {cell.probe_set for cell in self.cells}
        for probe_set in TITLES:
            if probe_set not in measured:
                continue
            lines += ["", TITLES[probe_set]]
            lines.append(f"  {'':16}{'all':>28}{'real drafts':>28}{'synthetic':>28}")
            for measure in MEASURES:
                sources: tuple[Source | None, ...] = (None, "real", "synthetic")
                shares = [_share(*self.count(measure, probe_set=probe_set, source=source)) for source in sources]
                lines.append(f"  {measure:16}" + "".join(f"{share:>28}" for share in shares))
            lines.append(f"  {'by group':16}" + "".join(f"{measure:>17}" for measure in MEASURES))
            for group in dict.fromkeys(cell.group for cell in self.cells if cell.probe_set == probe_set):
                counts = (self.count(measure, probe_set=probe_set, group=group) for measure in MEASURES)
                lines.append(f"  {group:16}" + "".join(f"{_short(*each):>17}" for each in counts))
        return "\n".join(lines).strip("\n")


def _share(right: int, n: int) -> str:
    if n == 0:
        return "–"
    interval = wilson_interval(right, n)
    return f"{right / n:6.1%} [{interval.low:.0%}, {interval.high:.0%}] n={n}"


def _short(right: int, n: int) -> str:
    return f"{right / n:.0%} of {n}" if n else "–"


@dataclass
class _Tally:
    """Counts by cell, and what was wrong, in words."""

    counts: dict[tuple[ProbeSet, str, Measure, Source], list[int]] = field(
        default_factory=dict[tuple[ProbeSet, str, Measure, Source], list[int]]
    )
    misses: dict[tuple[ProbeSet, Measure], list[str]] = field(default_factory=dict[tuple[ProbeSet, Measure], list[str]])

    def add(self, probe: Probe, measure: Measure, replies: Sequence[Reply], *, right: bool, said: str) -> None:
        source: Source = "real" if any(each.real for each in replies) else "synthetic"
        count = self.counts.setdefault((probe.probe_set, probe.group, measure, source), [0, 0])
        count[0] += right
        count[1] += 1
        if not right:
            shown = " / ".join(each.text for each in replies)
            principle = probe.unrelated if measure == "unrelated kept" else probe.principle
            text = f"{probe.item.prompt}\n    reply: {shown}\n    principle: {principle.principle}\n    said: {said}"
            self.misses.setdefault((probe.probe_set, measure), []).append(text)

    def cells(self) -> tuple[Cell, ...]:
        return tuple(
            Cell(probe_set=probe_set, group=group, measure=measure, source=source, right=right, n=n)
            for (probe_set, group, measure, source), (right, n) in self.counts.items()
        )


@dataclass(frozen=True)
class _Question:
    """One reply under one principle, as an item of the loop."""

    probe: Probe
    role: Literal["good", "bad", "unrelated"]
    reply: Reply
    principle: Principle

    @property
    def expected(self) -> Verdict:
        return Verdict.FAULT if self.role == "bad" else Verdict.NOTHING_TO_CHANGE

    @property
    def measure(self) -> Measure:
        measures: Mapping[str, Measure] = {"bad": "flaw found", "good": "good kept", "unrelated": "unrelated kept"}
        return measures[self.role]


def measure(probes: Sequence[Probe], feedback: Engine) -> _Tally:
    """Critique, revise and label every probe."""
    tally = _Tally()
    questions = list(_questions(probes))
    records = _critiqued(questions, feedback)
    for question, record in zip(questions, records, strict=True):
        done = record.rounds[0]
        right = done.verdict is question.expected
        tally.add(question.probe, question.measure, (question.reply,), right=right, said=done.critique)
        if question.role == "bad" and right:
            said = f"{done.critique} → {record.final}"
            good = record.changed and question.probe.mended(record.final)
            tally.add(question.probe, "revision good", (question.reply,), right=good, said=said)
    grounds = {
        (id(question.probe), question.role): read_critique(record.rounds[0].critique).ground
        for question, record in zip(questions, records, strict=True)
    }
    _label_by_verdicts(probes, feedback, grounds, tally)
    _label_by_letters(probes, feedback, tally)
    return tally


def _questions(probes: Iterable[Probe]) -> Iterator[_Question]:
    for number, probe in enumerate(probes):
        yield _Question(probe, "bad", probe.bad, probe.principle)
        yield _Question(probe, "good", probe.good, probe.principle)
        yield _Question(probe, "unrelated", (probe.good, probe.bad)[number % 2], probe.unrelated)


def _critiqued(questions: Sequence[_Question], feedback: Engine) -> list[RevisionRecord]:
    """One round of the loop, each question under its own principle: a tag of its own makes it the only one that applies."""
    names: dict[str, str] = {}
    for question in questions:
        names.setdefault(question.principle.fingerprint, f"probe-{len(names)}")
    ids = [names[question.principle.fingerprint] for question in questions]
    principles = {
        identity: question.principle.model_copy(update={"id": identity, "applies_to": (identity,)})
        for identity, question in zip(ids, questions, strict=True)
    }
    items = [
        Item(uid=str(number), messages=as_item(question.probe.item).messages, tags=(identity,))
        for number, (identity, question) in enumerate(zip(ids, questions, strict=True))
    ]
    given = ScriptedEngine(lambda request: questions[_number(request)].reply.text, name="given replies")
    constitution = Constitution(name="probes", principles=tuple(principles.values()))
    records = list(run_loop(items, constitution, given, feedback, LoopSettings(), seed=0))
    failed = [record for record in records if not isinstance(record, RevisionRecord)]
    if failed:
        raise RuntimeError(
            f"{len(failed)} of {len(records)} probes could not be critiqued: {failed[0].cause}: {failed[0].detail}"
        )
    return [record for record in records if isinstance(record, RevisionRecord)]


def _number(request: GenerationRequest) -> int:
    return int(request.noise_key.split("/")[1])


def _label_by_verdicts(
    probes: Sequence[Probe], feedback: Engine, grounds: Mapping[tuple[int, str], str], tally: _Tally
) -> None:
    asked = [
        Judged(as_item(probe.item).messages, text, probe.principle, "", grounds[id(probe), role])
        for probe in probes
        for role, text in (("good", probe.good.text), ("bad", probe.bad.text))
    ]
    odds = judge(feedback, asked, ground_tokens=LabelSettings().ground_tokens)
    for number, probe in enumerate(probes):
        good, bad = (_answered(odds[2 * number + side], VerdictOdds) for side in (0, 1))
        margin = good.log_odds_nats - bad.log_odds_nats
        tally.add(probe, "pointwise right", (probe.good, probe.bad), right=margin > 0, said=f"margin {margin:+.2f} nats")


def _label_by_letters(probes: Sequence[Probe], feedback: Engine, tally: _Tally) -> None:
    asked = [Compared(as_item(each.item).messages, each.good.text, each.bad.text, each.principle) for each in probes]
    for probe, found in zip(probes, compare(feedback, asked), strict=True):
        margins = _answered(found, LetterMargins).margins_nats
        said = f"margins {margins[0]:+.2f} and {margins[1]:+.2f} nats"
        tally.add(probe, "letters right", (probe.good, probe.bad), right=sum(margins) > 0, said=said)


def _answered(result: Result | RequestFailure, kind: type[Result]) -> Result:
    if isinstance(result, kind):
        return result
    raise RuntimeError(f"a probe could not be labelled: {result}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure a feedback adapter on held-out probes.")
    parser.add_argument("adapter", help="adapter folder, or `feedback` for the one that comes along")
    parser.add_argument("--model", default="smollm2-135m", help="the plain model (default: %(default)s)")
    parser.add_argument("--n", type=int, default=100, help="probes per set (default: %(default)s)")
    parser.add_argument("--cells", nargs="+", choices=PROBE_SETS, default=list(PROBE_SETS), help="which sets (default: all)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="JSON file for the counts")
    parser.add_argument("--misses", type=int, default=0, metavar="K", help="show K wrong answers of each kind")
    arguments = parser.parse_args()

    from cai.engines.local import LocalEngine
    from cai.models.loading import open_model

    started = time.monotonic()
    loaded = open_model(ModelSpec(name=arguments.model, adapter=arguments.adapter))
    drafts = shipped_drafts()
    tally = _Tally()
    for probe_set in arguments.cells:
        found = measure(draw_probes(probe_set, arguments.n, drafts, seed=arguments.seed), LocalEngine(loaded))
        tally.counts |= found.counts
        tally.misses |= found.misses
        print(f"{TITLES[probe_set]}: {time.monotonic() - started:.0f} s", file=sys.stderr)
    measurement = Measurement(
        model=str(loaded.spec.model_copy(update={"adapter": Path(arguments.adapter).name})),
        fingerprint=loaded.fingerprint,
        n=arguments.n,
        seed=arguments.seed,
        seconds=round(time.monotonic() - started, 1),
        cells=tally.cells(),
    )
    for (probe_set, kind), texts in tally.misses.items():
        for text in texts[: arguments.misses]:
            print(f"[{probe_set}: not {kind}] {text}")
    print(measurement.table())
    if arguments.out:
        arguments.out.write_text(measurement.to_json(), encoding="utf-8")


if __name__ == "__main__":
    main()
