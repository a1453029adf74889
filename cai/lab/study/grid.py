"""Goes through the cells, one after another. Killed at any moment it loses the one in work; a second start goes on."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cai.lab.series import Failed, Planned, planned, work_through
from cai.lab.study.bench import Bench, NothingToTrainOnError
from cai.lab.study.cells import Answered, CellResult, Divergence, Made, Price, read_cell, write_cell
from cai.lab.study.recipes import DEFAULT, Cell, Question, Size, cells_of
from cai.lab.study.setup import DIVERGENCE_EVERY, Setup
from cai.lab.study.steps import Tell, decided_pairs


@dataclass(frozen=True, slots=True)
class Grid:
    """A study as it is to be.

    Args:
        folder: Where cells, calls and models are kept. Cells of other sizes may lie there too, and are left alone.
        questions: In the order of work.
        seeds: Of each recipe.
        size: Of each cell.
        setup: What all cells have in common.
        fingerprint: Of the setup.
    """

    folder: Path
    questions: tuple[Question, ...]
    seeds: tuple[int, ...]
    size: Size
    setup: Setup
    fingerprint: str

    @property
    def cells(self) -> tuple[Cell, ...]:
        return cells_of(self.questions, self.seeds)

    def result(self, cell: Cell) -> CellResult | None:
        """None while it is not done."""
        return read_cell(self.folder, cell.key(self.size, self.fingerprint))

    def results(self) -> list[CellResult]:
        """Those that are done, in the order of work."""
        return [found for cell in self.cells if (found := self.result(cell)) is not None]


def plan(grid: Grid) -> list[Planned[Cell]]:
    """Every cell, done or with a forecast: the mean of its recipe's other seeds, else of all finished cells.

    Those of the first recipe are left out where there are others: they made what all have in common.
    """
    found = {cell: result for cell in grid.cells if (result := grid.result(cell)) is not None}
    seconds = {cell: result.price.seconds for cell, result in found.items()}
    return planned(grid.cells, seconds, kin=lambda cell: cell.recipe, typical=lambda cell: cell.recipe != DEFAULT)


def work(grid: Grid, made: Made, on_end: Callable[[], None], tell: Tell) -> list[Failed[Cell]]:
    """Do every cell that is not done.

    Args:
        grid: What is to be done.
        made: With what; the date is put in for each cell.
        on_end: Called after each, done (then it is on the disk) or failed.
        tell: Told how far the cell in work is.

    Returns:
        Those that failed; the others are done.

    Raises:
        CaiError: If several fail one after another, or the folder cannot be used.
    """
    waiting = [cell for cell in grid.cells if grid.result(cell) is None]
    if not waiting:
        return []
    with Bench(grid.folder, grid.setup, items=grid.size.items, per_behaviour=grid.size.per_behaviour, tell=tell) as bench:

        def do(cell: Cell) -> None:
            write_cell(grid.folder, cell.key(grid.size, grid.fingerprint), _done(bench, grid, cell, made))

        return work_through(waiting, do, on_end)


def _done(bench: Bench, grid: Grid, cell: Cell, made: Made) -> CellResult:
    began_s, cpu_s = time.monotonic(), time.process_time()
    before, tokens = bench.usage, bench.trained_tokens
    recipe, seed = cell.recipe, cell.seed
    records = bench.records(recipe, seed)
    labels = bench.labels(recipe, seed) if "dpo" in recipe.training else []
    pairs = decided_pairs(labels)
    folder = grid.folder / "models" / cell.key(grid.size, grid.fingerprint)
    answers: Sequence[Answered] = ()
    divergences: Sequence[Divergence] = ()
    lost = bench.lost_chains(recipe, seed) + Counter(
        {"label: the judge gave no answer": sum(each.failed for _, each in labels)}
    )
    failure = ""
    try:
        trained = bench.train(recipe, seed, pairs, folder)
    except NothingToTrainOnError as error:
        failure = error.problem
    else:
        answers = bench.answers(trained, seed)
        divergences = bench.divergences(trained, seed)
        trials = bench.suite(seed).trials
        lost["answer: one of the two models gave none"] = len(trials) - len(answers)
        lost["distance: no sample, or an empty one"] = len(trials[::DIVERGENCE_EVERY]) - len(divergences)
    bench.release()
    shutil.rmtree(folder, ignore_errors=True)
    after = bench.usage
    return CellResult(
        recipe=recipe,
        seed=seed,
        items=grid.size.items,
        per_behaviour=grid.size.per_behaviour,
        setup=grid.fingerprint,
        records=len(records),
        changed=sum(record.changed for record in records),
        labels=tuple(label for _, label in labels),
        pairs=len(pairs),
        anchors=len(bench.anchors(recipe, seed, pairs)),
        answers=tuple(answers),
        divergences=tuple(divergences),
        failure=failure,
        lost=dict(+lost),
        price=Price(
            prompt_tokens=after.prompt_tokens - before.prompt_tokens,
            completion_tokens=after.completion_tokens - before.completion_tokens,
            trained_tokens=bench.trained_tokens - tokens,
            reused_calls=after.reused - before.reused,
            seconds=time.monotonic() - began_s,
            cpu_seconds=time.process_time() - cpu_s,
        ),
        made=made.model_copy(update={"at": datetime.now(UTC).isoformat(timespec="seconds")}),
    )
