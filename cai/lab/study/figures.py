"""Finished cells → figures with intervals. Pure functions of what was kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from statistics import fmean
from typing import Protocol

from cai.evaluation.suites import Kind
from cai.lab.study.cells import Answered, CellResult, Divergence, Price
from cai.lab.study.recipes import DEFAULT, PLAIN, Question, Recipe, Variant
from cai.lab.suite import BEHAVIOURS
from cai.statistics import Interval, nested_bootstrap, wilson_interval

KINDS: tuple[Kind, ...] = ("fault", "control")


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over answers with its 95 % interval, over seeds and prompts."""

    value: float
    interval: Interval

    @property
    def leaves_out_zero(self) -> bool:
        return self.interval.low > 0 or self.interval.high < 0


@dataclass(frozen=True, slots=True)
class Share:
    """`count` of `of`, with Wilson's interval; None where there is nothing to count."""

    count: int
    of: int

    @property
    def value(self) -> float:
        return self.count / self.of

    @property
    def interval(self) -> Interval:
        return wilson_interval(self.count, self.of)


@dataclass(frozen=True, slots=True)
class BehaviourChange:
    """Shares of bad answers of one behaviour, and their change."""

    before: float
    after: float
    change: Estimate


class Tried(Protocol):
    """A trained model of one seed, as far as it was tried."""

    @property
    def seed(self) -> int: ...
    @property
    def answers(self) -> tuple[Answered, ...]: ...
    @property
    def divergences(self) -> tuple[Divergence, ...]: ...


@dataclass(frozen=True, slots=True)
class ModelFigures:
    """Models made in one way, over all their seeds.

    Args:
        seeds: That are finished and gave a model.
        bad: Kind of behaviour → share of bad answers of the trained model.
        change: Kind → that share, against the plain model's on the same prompts.
        against_default: Kind → against the model made in the default way with the same seed, on the same prompts; None for the
            default itself, and where there is none yet.
        by_behaviour: Behaviour → the same of it alone.
        nats_per_token: Distance from the start, KL(trained ‖ plain), of samples at temperature 1; None: not measured.
        words: Of an answer (before, after).
        broken: Share of answers that are no sentences (before, after).
    """

    seeds: tuple[int, ...]
    bad: dict[Kind, float]
    change: dict[Kind, Estimate]
    against_default: dict[Kind, Estimate] | None
    by_behaviour: dict[str, BehaviourChange]
    nats_per_token: Estimate | None
    words: tuple[float, float]
    broken: tuple[float, float]


@dataclass(frozen=True, slots=True)
class RecipeFigures(ModelFigures):
    """One recipe over all its finished seeds.

    Args:
        pairs: Trained on, a seed.
        anchors: Drafts that no critique objected to, a seed.
        right: Of the labels of pairs in which the truth prefers one answer; None where nothing was labelled.
        price: Of all its cells together.
        failures: Why cells came to no model.
    """

    pairs: float
    anchors: float
    right: Share | None
    price: Price
    failures: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class VariantFigures:
    """`figures` is None while no seed is finished, or none gave a model; then `failures` may say why."""

    variant: Variant
    figures: RecipeFigures | None
    failures: tuple[str, ...] = ()


def question_figures(question: Question, results: Iterable[CellResult]) -> list[VariantFigures]:
    """Every variant of a question, in its order."""
    by_recipe: dict[Recipe, list[CellResult]] = {}
    for result in results:
        by_recipe.setdefault(result.recipe, []).append(result)
    defaults = by_recipe.get(DEFAULT, [])
    by_recipe[PLAIN] = [_untrained(result) for result in defaults if result.answers]
    found: list[VariantFigures] = []
    for variant in question.variants:
        own = by_recipe.get(variant.recipe, [])
        failures = _failures(own)
        whole = [result for result in own if result.answers]
        made = recipe_figures(whole, [] if variant.recipe == DEFAULT else defaults, failures) if whole else None
        found.append(VariantFigures(variant, made, failures))
    return found


def recipe_figures(
    results: Sequence[CellResult], defaults: Sequence[CellResult], failures: tuple[str, ...] = ()
) -> RecipeFigures:
    """Figures of finished cells of one recipe, compared with those of the default recipe that have the same seeds."""
    labels = [label for result in results for label in result.labels if label.truth]
    right = sum(label.margin_nats * label.truth > 0 for label in labels)
    tried = model_figures(results, defaults)
    return RecipeFigures(
        **{field.name: getattr(tried, field.name) for field in fields(tried)},
        pairs=fmean(result.pairs for result in results),
        anchors=fmean(result.anchors for result in results),
        right=Share(right, len(labels)) if labels else None,
        price=Price(
            prompt_tokens=sum(result.price.prompt_tokens for result in results),
            completion_tokens=sum(result.price.completion_tokens for result in results),
            trained_tokens=sum(result.price.trained_tokens for result in results),
            reused_calls=sum(result.price.reused_calls for result in results),
            seconds=sum(result.price.seconds for result in results),
            cpu_seconds=sum(result.price.cpu_seconds for result in results),
        ),
        failures=failures,
    )


def model_figures(models: Sequence[Tried], defaults: Sequence[Tried]) -> ModelFigures:
    """Figures of models made in one way, compared with those of the default way that have the same seeds."""
    answers = [(str(model.seed), each) for model in models for each in model.answers]
    return ModelFigures(
        seeds=tuple(model.seed for model in models),
        bad={kind: fmean(each.after == "bad" for _, each in _of_kind(answers, kind)) for kind in KINDS},
        change={kind: _estimate(_of_kind(answers, kind), _step) for kind in KINDS},
        against_default=_against(models, defaults),
        by_behaviour={name: _behaviour(own) for name in BEHAVIOURS if (own := [a for a in answers if a[1].behaviour == name])},
        nats_per_token=_divergence(models),
        words=(fmean(each.words[0] for _, each in answers), fmean(each.words[1] for _, each in answers)),
        broken=(fmean(each.before == "broken" for _, each in answers), fmean(each.after == "broken" for _, each in answers)),
    )


def _failures(results: Sequence[CellResult]) -> tuple[str, ...]:
    """Each cause with the seeds it stopped, on one line."""
    causes: dict[str, list[str]] = {}
    for result in results:
        if result.failure:
            causes.setdefault(" ".join(result.failure.split()), []).append(str(result.seed))
    return tuple(f"{'seeds' if len(seeds) > 1 else 'seed'} {', '.join(seeds)}: {cause}" for cause, seeds in causes.items())


_Answers = list[tuple[str, Answered]]
"""(seed, answer)."""


def _step(each: Answered) -> float:
    """1: it got bad, −1: it got better, 0: neither."""
    return float(each.after == "bad") - float(each.before == "bad")


def _behaviour(answers: _Answers) -> BehaviourChange:
    before, after = (fmean(getattr(each, side) == "bad" for _, each in answers) for side in ("before", "after"))
    return BehaviourChange(before, after, _estimate(answers, _step))


def _of_kind(answers: _Answers, kind: Kind) -> _Answers:
    names = {name for name, behaviour in BEHAVIOURS.items() if behaviour.kind == kind}
    return [each for each in answers if each[1].behaviour in names]


def _estimate(answers: _Answers, value: Callable[[Answered], float]) -> Estimate:
    values = [value(each) for _, each in answers]
    interval = nested_bootstrap(values, [seed for seed, _ in answers], [each.uid for _, each in answers])
    return Estimate(fmean(values), interval)


def _against(results: Sequence[Tried], defaults: Sequence[Tried]) -> dict[Kind, Estimate] | None:
    """Differences of bad answers, on prompts that both answered."""
    theirs = {(result.seed, each.uid): each.after == "bad" for result in defaults for each in result.answers}
    shared = [(str(result.seed), each) for result in results for each in result.answers if (result.seed, each.uid) in theirs]
    if not shared:
        return None
    found: dict[Kind, Estimate] = {}
    for kind in KINDS:
        own = _of_kind(shared, kind)
        steps = [float(each.after == "bad") - float(theirs[int(seed), each.uid]) for seed, each in own]
        interval = nested_bootstrap(steps, [seed for seed, _ in own], [each.uid for _, each in own])
        found[kind] = Estimate(fmean(steps), interval)
    return found


def _divergence(results: Sequence[Tried]) -> Estimate | None:
    """Nats a token: each answer's nats over the mean number of tokens, so that the mean is the ratio of the sums."""
    measured = [(str(result.seed), each) for result in results for each in result.divergences]
    if not measured:
        return None
    mean_tokens = fmean(each.tokens for _, each in measured)
    values = [each.nats / mean_tokens for _, each in measured]
    interval = nested_bootstrap(values, [seed for seed, _ in measured], [each.uid for _, each in measured])
    return Estimate(fmean(values), interval)


def _untrained(result: CellResult) -> CellResult:
    """The plain model, as it answered beside a trained one."""
    answers = tuple(
        each.model_copy(update={"after": each.before, "words": (each.words[0], each.words[0])}) for each in result.answers
    )
    nothing = Price(prompt_tokens=0, completion_tokens=0, trained_tokens=0, reused_calls=0, seconds=0.0, cpu_seconds=0.0)
    changes = {"recipe": PLAIN, "answers": answers, "labels": (), "pairs": 0, "anchors": 0, "divergences": (), "price": nothing}
    return result.model_copy(update=changes)
