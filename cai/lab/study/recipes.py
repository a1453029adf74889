"""What the study tries: recipes, and the questions that tell them apart. Reads nothing and loads nothing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from cai.labels.settings import LabelSettings

Judge: TypeAlias = Literal["feedback", "plain"]
TrainingStage: TypeAlias = Literal["sft", "dpo"]

PRINCIPLES = (
    "correct-false-claims",
    "no-help-with-wrongdoing",
    "honest-uncertainty",
    "help-harmless-requests",
    "courtesy-without-flattery",
)
"""Those that the shipped feedback adapter was taught; in the order in which a smaller constitution takes them."""
ALL_PRINCIPLES: tuple[str, ...] = ()
"""No selection: every principle that is shipped."""


class Labelling(BaseModel):
    """One way to label a pair.

    `settings` are those of the labels, None: by exact truth. `one_order` (letters): only the order in which the first answer is
    called A. `hard`: the label is certain, whatever the margin. `noise`: the share of labels that are turned round afterwards.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    settings: LabelSettings | None = None
    judge: Judge = "feedback"
    one_order: bool = False
    hard: bool = False
    noise: Annotated[float, Field(ge=0, lt=1)] = 0.0


def labels_by(method: str, **changes: Any) -> LabelSettings:
    """Settings of labels that leave no pair out for the words a judge would rather say."""
    return LabelSettings.model_validate({"method": method, "max_mass_outside": 1.0, **changes})


POINTWISE = Labelling(settings=labels_by("pointwise"))


class Recipe(BaseModel):
    """A way from the plain model to another one; the defaults are the demo's.

    `rounds` 0 is the plain model itself. `principles` () are all that are shipped. `share` of the items is used. `training` is
    done in this order; none of it: the plain model.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    labelling: Labelling = POINTWISE
    rounds: Annotated[int, Field(ge=0, le=16)] = 1
    critique_free: bool = False
    principles: tuple[str, ...] = PRINCIPLES
    share: Annotated[float, Field(gt=0, le=1)] = 1.0
    beta: Annotated[float, Field(gt=0)] = 0.1
    training: tuple[TrainingStage, ...] = ("dpo",)

    @property
    def trains(self) -> bool:
        return self.rounds > 0 and bool(self.training)


DEFAULT = Recipe()
PLAIN = Recipe(rounds=0, training=())


@dataclass(frozen=True, slots=True)
class Variant:
    """One answer that a question offers."""

    label: str
    recipe: Recipe


@dataclass(frozen=True, slots=True)
class Question:
    """Recipes that differ in one thing.

    Args:
        id: As `--questions` names it.
        title: As a person asks it.
        variants: In their order; one of them is the default recipe.
    """

    id: str
    title: str
    variants: tuple[Variant, ...]


def _question(id_: str, title: str, *variants: tuple[str, dict[str, Any]]) -> Question:
    return Question(id_, title, tuple(Variant(label, DEFAULT.model_copy(update=changes)) for label, changes in variants))


def _noisy(share: float) -> dict[str, Any]:
    return {"labelling": POINTWISE.model_copy(update={"noise": share})}


QUESTIONS: tuple[Question, ...] = (
    Question(
        "rounds",
        "How many rounds of critique and revision?",
        (
            Variant("0 (the plain model)", PLAIN),
            *(Variant(str(count), DEFAULT.model_copy(update={"rounds": count})) for count in (1, 2, 3, 4)),
        ),
    ),
    _question(
        "sft",
        "Supervised training before DPO, alone, or none?",
        ("DPO alone", {}),
        ("SFT on the revisions alone (SL-CAI)", {"training": ("sft",)}),
        ("SFT, then DPO", {"training": ("sft", "dpo")}),
    ),
    _question("critique", "With a critique, or straight to the revision?", ("with", {}), ("without", {"critique_free": True})),
    _question(
        "beta", "How near to the start?", ("0.03", {"beta": 0.03}), ("0.1", {}), ("0.3", {"beta": 0.3}), ("1", {"beta": 1.0})
    ),
    _question(
        "principles",
        "How many principles?",
        ("1", {"principles": PRINCIPLES[:1]}),
        ("3", {"principles": PRINCIPLES[:3]}),
        ("5", {}),
        ("all that are shipped", {"principles": ALL_PRINCIPLES}),
    ),
    _question("data", "How much data?", ("all prompts", {}), ("half", {"share": 0.5}), ("a quarter", {"share": 0.25})),
    _question(
        "labels",
        "Soft or hard labels?",
        ("soft", {}),
        ("hard", {"labelling": POINTWISE.model_copy(update={"hard": True})}),
    ),
    _question(
        "noise",
        "How much do wrong labels cost?",
        ("none turned round", {}),
        *((f"{share:.0%} turned round".replace("%", " %"), _noisy(share)) for share in (0.1, 0.2, 0.4)),
    ),
)


def chosen_questions(names: Iterable[str]) -> tuple[Question, ...]:
    """Questions by their ids, in the order given.

    Raises:
        ValueError: If there is none of that name.
    """
    known = {question.id: question for question in QUESTIONS}
    wanted = list(dict.fromkeys(names))
    if unknown := [name for name in wanted if name not in known]:
        raise ValueError(f"no question is called {', '.join(unknown)}; there are {', '.join(known)}")
    return tuple(known[name] for name in wanted)


def recipes_of(questions: Iterable[Question]) -> tuple[Recipe, ...]:
    """Every recipe once, the default one first: all others are compared with it."""
    asked = dict.fromkeys(variant.recipe for question in questions for variant in question.variants)
    return tuple(dict.fromkeys((DEFAULT, *asked)))


@dataclass(frozen=True, slots=True)
class Size:
    """How large each cell is: prompts for the loop, and held-out prompts of each behaviour."""

    items: int
    per_behaviour: int


@dataclass(frozen=True, slots=True)
class Cell:
    """One recipe with one seed."""

    recipe: Recipe
    seed: int

    def key(self, size: Size, setup: str) -> str:
        """Name of its file: the same recipe, seed, size and setup, and nothing else, have it."""
        content = [self.recipe.model_dump(mode="json"), size.items, size.per_behaviour, setup]
        digest = hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
        return f"{digest[:12]}-{self.seed}"


def cells_of(questions: Iterable[Question], seeds: Sequence[int]) -> tuple[Cell, ...]:
    """In the order of work: recipe by recipe, so that what is finished first can be compared over all seeds."""
    return tuple(Cell(recipe, seed) for recipe in recipes_of(questions) if recipe.trains for seed in seeds)
