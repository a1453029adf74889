"""The study as a page in Markdown: tables, pictures, what they say, and how to make them again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from cai.lab.study.cells import CellResult
from cai.lab.study.figures import RecipeFigures, VariantFigures, question_figures
from cai.lab.study.grid import Grid
from cai.lab.study.phrases import (
    NOTHING,
    behaviour_table,
    behaviours_alone,
    days,
    lost_rows,
    machines,
    markdown,
    named,
    nats,
    points,
    said,
    share,
    versions,
)
from cai.lab.study.recipes import DEFAULT, Question, Recipe
from cai.lab.study.setup import DIVERGENCE_EVERY
from cai.lab.suite import BEHAVIOURS

HEADER = (
    "variant",
    "seeds",
    "faults",
    "change",
    "against the default",
    "controls",
    "change",
    "against the default",
    "KL, nats a token",
    "labels right",
)
PRICE_HEADER = (
    "variant",
    "pairs",
    "kept drafts",
    "words",
    "broken",
    "tokens read",
    "tokens drawn",
    "tokens trained",
    "CPU time",
)


@dataclass(frozen=True, slots=True)
class Answer:
    """One question with what is known of it."""

    question: Question
    variants: tuple[VariantFigures, ...]


def answers(questions: Iterable[Question], results: Sequence[CellResult]) -> list[Answer]:
    return [Answer(question, tuple(question_figures(question, results))) for question in questions]


def results_page(grid: Grid, command: str, pictures: Mapping[str, str]) -> str:
    """The whole page.

    Args:
        grid: With the cells that are done.
        command: That makes it again.
        pictures: Question → address of its picture.
    """
    results, cells = grid.results(), grid.cells
    found = answers(grid.questions, results)
    parts = [
        "# The method, question by question",
        _about(grid, results, command),
        "## In short",
        "\n".join([*_default_in_short(found), *(line for each in found for line in sentences(each, len(grid.seeds)))]),
        "## How to read it",
        f"{_reading(found)}\n{_lost(results)}",
    ]
    if missing := [cell for cell in cells if grid.result(cell) is None]:
        told = f"**{len(missing)} of {len(cells)} cells are missing**; the same command goes on. Where no seed of a variant is"
        parts.insert(2, f"{told} finished its row says so, and `seeds` says how many the others rest on.")
    for answer in found:
        parts += [f"## {answer.question.title}", table(answer)]
        if answer.question.id in pictures:
            parts.append(f"![{answer.question.title}]({pictures[answer.question.id]})")
    parts += [
        "## Every behaviour",
        "Bad answers before → after; in bold where the interval of the change leaves out 0.",
        behaviour_table(_every_recipe(found)),
        "## What it took",
        _prices(found),
    ]
    return "\n\n".join(parts) + "\n"


def _default_in_short(found: Sequence[Answer]) -> list[str]:
    """What the default recipe does, and each behaviour that it changes alone: a mean hides what goes the other way."""
    figures = next((f for a in found for v in a.variants if v.variant.recipe == DEFAULT and (f := v.figures)), None)
    if figures is None:
        return []
    return [
        f"- **The default against the plain model**: {said(figures.change['fault'], 'faults')}; "
        f"{said(figures.change['control'], 'bad controls')}. Each alone:",
        *behaviours_alone(figures),
    ]


def sentences(answer: Answer, seeds: int) -> list[str]:
    """What each variant does against the default, whether that is a difference or none; lines of a list."""
    default = next((each.variant.label for each in answer.variants if each.variant.recipe == DEFAULT), "")
    lines = [f"- **{answer.question.title}** Against *{default}*:"]
    for each in answer.variants:
        name, figures = f"  - *{each.variant.label}*", each.figures
        lines += [f"{name}: came to no model ({failure})." for failure in each.failures]
        if figures is None:
            lines += [] if each.failures else [f"{name}: not finished."]
        elif each.variant.recipe != DEFAULT and figures.against_default:
            rest = "" if len(figures.seeds) == seeds else f" ({len(figures.seeds)} of {seeds} seeds)"
            faults, controls = figures.against_default["fault"], figures.against_default["control"]
            lines.append(f"{name}{rest}: {said(faults, 'faults')}; {said(controls, 'bad controls')}.")
    return lines


def table(answer: Answer) -> str:
    """One line for each variant."""
    return markdown(HEADER, (_row(each) for each in answer.variants))


def _row(each: VariantFigures) -> tuple[str, ...]:
    found = each.figures
    name = f"**{each.variant.label}**" if each.variant.recipe == DEFAULT else each.variant.label
    if found is None:
        why = "no model: " + "; ".join(each.failures) if each.failures else "not finished"
        return (name, "0", why, *[NOTHING] * (len(HEADER) - 3))
    against = found.against_default
    return (
        name,
        str(len(found.seeds)),
        f"{found.bad['fault']:.0%}",
        points(found.change["fault"]),
        points(against["fault"]) if against else NOTHING,
        f"{found.bad['control']:.0%}",
        points(found.change["control"]),
        points(against["control"]) if against else NOTHING,
        nats(found),
        share(found.right),
    )


def _prices(found: Sequence[Answer]) -> str:
    """What a seed of each recipe took, in the mean."""
    rows: list[Sequence[str]] = []
    for name, figures in _every_recipe(found):
        price, seeds = figures.price, len(figures.seeds)
        tokens = (price.prompt_tokens, price.completion_tokens, price.trained_tokens)
        rows.append(
            (
                name,
                f"{figures.pairs:.0f}",
                f"{figures.anchors:.0f}",
                f"{figures.words[0]:.0f} → {figures.words[1]:.0f}",
                f"{figures.broken[0]:.1%} → {figures.broken[1]:.1%}",
                *(f"{count / seeds:,.0f}" for count in tokens),
                f"{price.cpu_seconds / seeds:.0f} s",
            )
        )
    return markdown(PRICE_HEADER, rows)


def _every_recipe(found: Sequence[Answer]) -> list[tuple[str, RecipeFigures]]:
    """Each once, though several questions ask for it, with a name that says what it changes."""
    once: dict[Recipe, tuple[str, RecipeFigures]] = {}
    for answer in found:
        for each in answer.variants:
            if each.figures is not None and each.variant.recipe not in once:
                default = each.variant.recipe == DEFAULT
                name = "**default**" if default else f"{answer.question.id}: {each.variant.label}"
                once[each.variant.recipe] = name, each.figures
    return list(once.values())


def _about(grid: Grid, results: Sequence[CellResult], command: str) -> str:
    made = [result.made for result in results]
    minutes = sum(result.price.seconds for result in results) / 60
    cpu_minutes = sum(result.price.cpu_seconds for result in results) / 60
    lines = [
        f"```\n{command}\n```",
        "\n".join(
            (
                f"- **Made**: {days(made)}; "
                f"{len(results)} of {len(grid.cells)} cells; "
                f"{minutes:.0f} minutes, {cpu_minutes:.0f} of them processor time of one process.",
                f"- **Each cell**: {grid.size.items} prompts for the loop, {grid.size.per_behaviour} held-out prompts for each "
                f"of {len(BEHAVIOURS)} behaviours, answered greedily; seeds {', '.join(map(str, grid.seeds))}: of prompts, "
                "drafts, training and held-out prompts.",
                f"- **Models**: {named(grid.setup.plain)} is trained, {named(grid.setup.feedback)} gives feedback.",
                f"- **Machine**: {machines(made)}.",
                f"- **Versions**: {versions(made)}.",
            )
        ),
        "This page is written by that command, after every cell.",
    ]
    return "\n\n".join(lines)


def _reading(found: Sequence[Answer]) -> str:
    return "\n".join(
        (
            "- Each question changes one thing of the **default** (in bold): one round with a critique, five principles, soft "
            f"pointwise labels, all prompts, DPO alone from the plain model with beta {DEFAULT.beta:g}. Rounds 0 is the plain "
            "model.",
            "- **faults**: bad answers where the plain model tends to be at fault; **controls**: bad answers where it should "
            "keep on as it does. Both by exact truth, less is better; every behaviour has as many prompts. `change`: in "
            "points against the plain model on the same prompts; `against the default`: against its model, seed by seed.",
            "- Intervals are of 95 %. Of changes: a bootstrap of seeds, and of prompts within them. With three seeds it is "
            "rough: in simulations of the statistic it held the truth 98 times in 100 where trainings do not differ, and 91 "
            "times where they differ by a standard deviation of 10 points. Of shares of labels: Wilson's. None is corrected "
            "for the number of comparisons: of twenty without a difference, about one would leave out 0 by chance, and the "
            f"smallest of those that do are the likeliest to be such. {_resolution(found)}",
            f"- **KL**: the trained model's distance from the plain one, from its own samples at temperature 1 on every "
            f"{DIVERGENCE_EVERY}th held-out prompt; **words** of an answer, before → after; **broken**: answers that are no "
            "sentences; **labels right**: of pairs in which the truth prefers one answer, as they were trained on (noise "
            "included).",
            "- **What it took** is in the mean of one seed's cells, and of what they made themselves: drafts, chains, labels "
            "and supervised models that an earlier cell had made cost nothing again. Kept drafts are what no critique objected "
            "to; they anchor DPO.",
        )
    )


def _lost(results: Sequence[CellResult]) -> str:
    """Rows that came to nothing, over all cells."""
    counted = [result.lost for result in results if result.lost is not None]
    if not counted:
        return "- **Lost on the way**: not counted when these cells were made."
    older = f"; not counted in {len(results) - len(counted)} older cells" if len(counted) < len(results) else ""
    return f"- **Lost on the way**, rows in the mean of {len(counted)} cells, by reason: {lost_rows(counted)}{older}."


def _resolution(found: Sequence[Answer]) -> str:
    """How small a difference from the default could be seen."""
    halves = sorted(
        50 * (each.figures.against_default["fault"].interval.high - each.figures.against_default["fault"].interval.low)
        for answer in found
        for each in answer.variants
        if each.figures and each.figures.against_default
    )
    if not halves:
        return "No two recipes can be compared yet."
    middle = halves[len(halves) // 2]
    return (
        f"Half of the intervals against the default are wider than ±{middle:.0f} points (faults): smaller differences cannot "
        "be seen here, and “no difference shown” is not “none”."
    )
