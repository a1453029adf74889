"""The comparison as a page in Markdown: tables, what they say, and how to make them again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from cai.lab.comparison.compute import TRAINED_TOKEN_COST, Passes
from cai.lab.comparison.entries import EntryResult
from cai.lab.comparison.methods import REFERENCE, Method
from cai.lab.comparison.rounds import Comparison
from cai.lab.study.figures import ModelFigures, model_figures
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
    versions,
)
from cai.lab.study.recipes import DEFAULT, PRINCIPLES
from cai.lab.study.setup import DIVERGENCE_EVERY
from cai.lab.suite import BEHAVIOURS
from cai.rl.settings import RLSettings

HEADER = (
    "method",
    "seeds",
    "faults",
    "change",
    "against DPO",
    "controls",
    "change",
    "against DPO",
    "KL, nats a token",
    "words",
    "broken",
)
COST_HEADER = ("method", "prompts", "rows", "steps", "read", "drawn", "scored", "trained", "of the budget", "time", "CPU time")


@dataclass(frozen=True, slots=True)
class MethodFigures:
    """`figures` is None while no seed is finished, or none gave a model; `results` are of all seeds that are done."""

    method: Method
    figures: ModelFigures | None
    results: tuple[EntryResult, ...]

    @property
    def failures(self) -> tuple[str, ...]:
        return tuple(f"seed {each.seed}: {' '.join(each.failure.split())}" for each in self.results if each.failure)


def figures_of(comparison: Comparison) -> list[MethodFigures]:
    """Every method, in order, with what is known of it."""
    results = comparison.results()
    reference = [each for each in results if each.method == REFERENCE and each.answers]
    found: list[MethodFigures] = []
    for method in comparison.methods:
        own = [each for each in results if each.method == method.id]
        whole = [each for each in own if each.answers]
        defaults = [] if method.id == REFERENCE else reference
        found.append(MethodFigures(method, model_figures(whole, defaults) if whole else None, tuple(own)))
    return found


def comparison_page(comparison: Comparison, command: str, picture: str | None) -> str:
    """The whole page.

    Args:
        comparison: With the entries that are done.
        command: That makes it again.
        picture: Its address; None: there is nothing to draw yet.
    """
    found = figures_of(comparison)
    results = comparison.results()
    parts = ["# Ways to a model, at equal compute", _about(comparison, results, command)]
    if missing := len(comparison.entries) - len(results):
        parts.append(f"**{missing} of {len(comparison.entries)} entries are missing**; the same command goes on.")
    parts += ["## In short", "\n".join(sentences(found, len(comparison.seeds)))]
    parts += ["## Behaviours", markdown(HEADER, [_plain_row(found), *map(_row, found)])]
    if picture is not None:
        parts.append(f"![Change of faults and controls against the plain model, by method]({picture})")
    named_figures = [(each.method.label, each.figures) for each in found if each.figures is not None]
    parts += [
        "Bad answers before → after; in bold where the interval of the change leaves out 0.",
        behaviour_table(named_figures),
        "## What it took",
        "In the mean of a seed, in thousands of tokens.",
        markdown(COST_HEADER, [_cost_row(each) for each in found if each.figures is not None]),
        "## The methods",
        "\n".join(f"- **{each.method.label}** (`{each.method.id}`): {each.method.what}" for each in found),
        "## How to read it",
        _reading(comparison, results),
    ]
    return "\n\n".join(parts) + "\n"


def sentences(found: Sequence[MethodFigures], seeds: int) -> list[str]:
    """What each method does against the plain model and against the reference, whether that is a difference or none."""
    lines: list[str] = []
    for each in found:
        figures, name = each.figures, f"- **{each.method.label}**"
        lines += [f"{name}: came to no model ({failure})." for failure in each.failures]
        if figures is None:
            lines += [] if each.failures else [f"{name}: not finished."]
            continue
        rest = "" if len(figures.seeds) == seeds else f" ({len(figures.seeds)} of {seeds} seeds)"
        told = f"{said(figures.change['fault'], 'faults')}; {said(figures.change['control'], 'bad controls')}."
        lines.append(f"{name}{rest}, against the plain model: {told}")
        if figures.against_default:
            faults, controls = figures.against_default["fault"], figures.against_default["control"]
            lines.append(f"  - Against DPO: {said(faults, 'faults')}; {said(controls, 'bad controls')}.")
        else:
            lines += behaviours_alone(figures)
    return lines


def _plain_row(found: Sequence[MethodFigures]) -> tuple[str, ...]:
    """The plain model, as it answered beside the others."""
    figures = next((each.figures for each in found if each.figures is not None), None)
    if figures is None:
        return ("the plain model", *[NOTHING] * (len(HEADER) - 1))
    before = {kind: figures.bad[kind] - figures.change[kind].value for kind in figures.bad}
    faults, controls = (f"{before[kind]:.0%}" for kind in ("fault", "control"))
    words, broken = f"{figures.words[0]:.0f}", f"{figures.broken[0]:.1%}"
    return ("the plain model", str(len(figures.seeds)), faults, *[NOTHING] * 2, controls, *[NOTHING] * 2, "0", words, broken)


def _row(each: MethodFigures) -> tuple[str, ...]:
    found, label = each.figures, each.method.label
    name = f"**{label}**" if each.method.id == REFERENCE else label
    if found is None:
        return (name, "0", "no model: " + "; ".join(each.failures) if each.failures else "not finished", *[NOTHING] * 8)
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
        f"{found.words[1]:.0f}",
        f"{found.broken[1]:.1%}",
    )


def _cost_row(each: MethodFigures) -> tuple[str, ...]:
    own = [result for result in each.results if result.answers]
    counts = [f"{fmean(getattr(result.passes, name) for result in own) / 1000:,.1f}" for name in Passes.model_fields]
    spent = [result.passes.cost / result.budget for result in own if result.budget]
    return (
        each.method.label,
        f"{fmean(result.prompts for result in own):,.0f}",
        f"{fmean(result.rows for result in own):,.0f}",
        f"{fmean(result.steps for result in own):,.0f}",
        *counts,
        f"{fmean(spent):.0%}" if spent else f"sets it: {fmean(result.passes.cost for result in own) / 1000:,.0f}",
        f"{fmean(result.seconds for result in own):,.0f} s",
        f"{fmean(result.cpu_seconds for result in own):,.0f} s",
    )


def _about(comparison: Comparison, results: Sequence[EntryResult], command: str) -> str:
    made = [result.made for result in results]
    minutes = sum(result.seconds for result in results) / 60
    study, size = comparison.setup.study, comparison.size
    lines = [
        f"```\n{command}\n```",
        "\n".join(
            (
                f"- **Made**: {days(made)}; {len(results)} of {len(comparison.entries)} entries; {minutes:.0f} minutes, "
                "trials not counted.",
                f"- **Budget**: what DPO takes with {size.items} prompts, seed by seed, from the plain model to the trained "
                "one.",
                f"- **Trial**: {size.per_behaviour} held-out prompts for each of {len(BEHAVIOURS)} behaviours, answered "
                f"greedily; seeds {', '.join(map(str, comparison.seeds))}: of prompts, drafts, training and held-out prompts.",
                f"- **Models**: {named(study.plain)} is trained, {named(study.feedback)} gives feedback.",
                f"- **Machine**: {machines(made)}.",
                f"- **Versions**: {versions(made)}.",
            )
        ),
        "This page is written by that command, after every entry.",
    ]
    return "\n\n".join(lines)


def _reading(comparison: Comparison, results: Sequence[EntryResult]) -> str:
    setup = comparison.setup
    return f"""\
- **Compute** is counted in tokens that pass through a model: the policy, its reference, or the feedback model, which here are
  of one size. Forward counts 1: read, drawn, scored. A trained token, forward and backward through frozen weights to adapters,
  counts {TRAINED_TOKEN_COST:g}. What an engine shared or remembered did not pass. Methods share no work with each other. The
  trial is not counted, nor what training measures of itself (about 1 %).
- **Equal** is this count, not the clock: a drawn token takes longer than a read one. Both times are in the table.
- Offline methods take as many prompts as pay for themselves and for the training on them; online methods take steps until the
  budget is spent.
- All train a LoRA. SFT and DPO: peak learning rate {setup.study.dpo.learning_rate:g}, {setup.study.dpo.epochs} epochs; DPO with
  beta {DEFAULT.beta:g}, kept drafts as anchors and a likelihood term. Online DPO: {_online_in_words(setup.online_dpo)}.
  RLOO: {_online_in_words(setup.rloo)}.
- Feedback of all methods: pointwise soft labels of one feedback model under {len(PRINCIPLES)} principles.
- **faults**: bad answers where the plain model tends to be at fault; **controls**: bad answers where it should keep on as it
  does. Both by exact truth, less is better; every behaviour has as many prompts. `change`: in points against the plain model on
  the same prompts; `against DPO`: against its model, seed by seed.
- Intervals are of 95 %: a bootstrap of seeds, and of prompts within them; with three seeds it is rough. None is corrected for
  the number of comparisons.
- **KL**: the trained model's distance from the plain one, from its own samples at temperature 1 on every {DIVERGENCE_EVERY}th
  held-out prompt; **words** of an answer; **broken**: answers that are no sentences.
- **Lost on the way**, rows in the mean of an entry, by reason:
  {lost_rows([each.lost for each in results]) if results else NOTHING}."""


def _online_in_words(settings: RLSettings) -> str:
    place = "" if settings.algorithm == "online_dpo" else f" (KL, in the {settings.kl_in})"
    principles = "all principles that apply" if settings.principles_per_reply is None else "a drawn principle for each prompt"
    return (
        f"{settings.peak_learning_rate:g}, beta {settings.beta:g}{place}, {settings.prompts_per_step} × "
        f"{settings.samples_per_prompt} replies a step, judged by {principles}"
    )
