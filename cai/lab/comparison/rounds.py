"""Goes through methods and seeds. Killed at any moment it loses the entry in work; a second start goes on."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cai.errors import CaiError
from cai.lab.comparison.contest import Contest
from cai.lab.comparison.entries import Entry, EntryResult, read_entry, write_entry
from cai.lab.comparison.methods import REFERENCE, Method
from cai.lab.comparison.setup import ContestSetup
from cai.lab.series import Failed, Planned, planned, work_through
from cai.lab.study.bench import Bench
from cai.lab.study.cells import Answered, Divergence, Made
from cai.lab.study.recipes import PRINCIPLES, Size
from cai.lab.study.setup import DIVERGENCE_EVERY
from cai.lab.study.steps import Tell
from constitution.loading import load_constitution


@dataclass(frozen=True, slots=True)
class Comparison:
    """A comparison as it is to be.

    Args:
        folder: Where entries and the answers of the plain model are kept.
        methods: The reference among them.
        seeds: Of each method.
        size: `items` are the prompts that the reference takes.
        setup: What all methods have in common.
        fingerprint: Of the setup.
    """

    folder: Path
    methods: tuple[Method, ...]
    seeds: tuple[int, ...]
    size: Size
    setup: ContestSetup
    fingerprint: str

    @property
    def entries(self) -> tuple[Entry, ...]:
        """In the order of work: the reference first, whose cost is the others' budget."""
        ordered = sorted(self.methods, key=lambda method: method.id != REFERENCE)
        return tuple(Entry(method.id, seed) for method in ordered for seed in self.seeds)

    def result(self, entry: Entry) -> EntryResult | None:
        """None while it is not done."""
        return read_entry(self.folder, entry.key(self.size, self.fingerprint))

    def results(self) -> list[EntryResult]:
        """Those that are done, in the order of work."""
        return [found for entry in self.entries if (found := self.result(entry)) is not None]


def plan(comparison: Comparison) -> list[Planned[Entry]]:
    """Every entry, done or with a forecast: the mean of its method's other seeds, else of all that is done."""
    found = {entry: result for entry in comparison.entries if (result := comparison.result(entry)) is not None}
    seconds = {entry: result.seconds for entry, result in found.items()}
    return planned(comparison.entries, seconds, kin=lambda entry: entry.method, typical=lambda _: True)


def work(comparison: Comparison, made: Made, on_end: Callable[[], None], tell: Tell) -> list[Failed[Entry]]:
    """Do every entry that is not done.

    Args:
        comparison: What is to be done.
        made: With what; the date is put in for each entry.
        on_end: Called after each, done (then it is on the disk) or failed.
        tell: Told how far the entry in work is.

    Returns:
        Those that failed; the others are done.

    Raises:
        CaiError: If several fail one after another, or the folder cannot be used.
    """
    waiting = [entry for entry in comparison.entries if comparison.result(entry) is None]
    if not waiting:
        return []
    size, study = comparison.size, comparison.setup.study
    constitution = load_constitution(["shipped"]).select(PRINCIPLES)
    contest = Contest(comparison.setup, constitution, items=size.items, tell=tell)
    with Bench(comparison.folder, study, items=size.items, per_behaviour=size.per_behaviour, tell=tell) as bench:

        def do(entry: Entry) -> None:
            result = _done(comparison, contest, bench, entry, made)
            write_entry(comparison.folder, entry.key(size, comparison.fingerprint), result)

        return work_through(waiting, do, on_end)


def _done(comparison: Comparison, contest: Contest, bench: Bench, entry: Entry, made: Made) -> EntryResult:
    budget = _budget(comparison, entry)
    folder = comparison.folder / "models" / entry.key(comparison.size, comparison.fingerprint)
    began_s, cpu_s = time.monotonic(), time.process_time()
    outcome = contest.carry_out(entry.method, entry.seed, budget, folder)
    took_s, took_cpu_s = time.monotonic() - began_s, time.process_time() - cpu_s
    answers: Sequence[Answered] = ()
    divergences: Sequence[Divergence] = ()
    lost = Counter(outcome.lost)
    if outcome.model is not None:
        answers = bench.answers(outcome.model, entry.seed)
        divergences = bench.divergences(outcome.model, entry.seed)
        trials = len(bench.suite(entry.seed).trials)
        lost["answer: one of the two models gave none"] = trials - len(answers)
        lost["distance: no sample, or an empty one"] = len(range(0, trials, DIVERGENCE_EVERY)) - len(divergences)
    bench.release()
    shutil.rmtree(folder, ignore_errors=True)
    return EntryResult(
        method=entry.method,
        seed=entry.seed,
        items=comparison.size.items,
        per_behaviour=comparison.size.per_behaviour,
        setup=comparison.fingerprint,
        budget=budget,
        passes=outcome.passes,
        prompts=outcome.prompts,
        rows=outcome.rows,
        steps=outcome.steps,
        answers=tuple(answers),
        divergences=tuple(divergences),
        lost=dict(+lost),
        failure=outcome.failure,
        seconds=took_s,
        cpu_seconds=took_cpu_s,
        made=made.model_copy(update={"at": datetime.now(UTC).isoformat(timespec="seconds")}),
    )


def _budget(comparison: Comparison, entry: Entry) -> float | None:
    if entry.method == REFERENCE:
        return None
    reference = comparison.result(Entry(REFERENCE, entry.seed))
    if reference is None or reference.failure:
        raise CaiError(
            f"{entry.method}, seed {entry.seed}: there is no budget, as {REFERENCE} came to no model with this seed",
            "see why it failed, or leave the seed out",
        )
    return reference.passes.cost
