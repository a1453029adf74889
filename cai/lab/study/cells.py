"""What is kept of a cell: enough to compute every figure again. One JSON file each, there whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeAlias

from pydantic import BaseModel, ConfigDict, ValidationError

from cai.evaluation.suites import Outcome
from cai.lab.study.recipes import Recipe
from cai.store import write_bytes_atomically

FOLDER = "cells"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Labelled(_Frozen):
    """One pair as it was labelled.

    `margin_nats`: that the first answer (of draft and revision, the revision) is better; 0: undecided. `p_first`: the label.
    `truth`: 1: the first is good and the second is not; −1: the other way; 0: both the same. `failed`: the judge gave no
    answer, so that it is undecided.
    """

    uid: str
    margin_nats: float
    p_first: float
    truth: int
    failed: bool = False


class Answered(_Frozen):
    """A held-out prompt before and after; `words` of both answers."""

    uid: str
    behaviour: str
    before: Outcome
    after: Outcome
    words: tuple[int, int]


class Divergence(_Frozen):
    """log π(y | x) − log start(y | x) of one answer that the trained model sampled at temperature 1."""

    uid: str
    nats: float
    tokens: int


class Price(_Frozen):
    """What this cell took itself: what an earlier one had made costs nothing again.

    `seconds` pass on the clock, `cpu_seconds` are those of all cores that this process had.
    """

    prompt_tokens: int
    completion_tokens: int
    trained_tokens: int
    reused_calls: int
    seconds: float
    cpu_seconds: float


class Made(_Frozen):
    """With what and when. `at` is a date and time in UTC, in ISO form."""

    at: str
    packages: dict[str, str] = {}
    environment: dict[str, Any] = {}
    commit: str = ""


Failure: TypeAlias = str


class CellResult(_Frozen):
    """One recipe with one seed, done. `failure`: why it came to no model; then nothing was answered.

    `lost`: rows of its own chains, labels and answers that came to nothing, by reason: filtered, failed, cut short. None where
    they were not counted.
    """

    recipe: Recipe
    seed: int
    items: int
    per_behaviour: int
    setup: str
    records: int
    changed: int
    labels: tuple[Labelled, ...]
    pairs: int
    anchors: int
    answers: tuple[Answered, ...] = ()
    divergences: tuple[Divergence, ...] = ()
    failure: Failure = ""
    lost: dict[str, int] | None = None
    price: Price
    made: Made


def write_cell(folder: Path, key: str, result: CellResult) -> None:
    """Durable when it returns."""
    write_bytes_atomically(folder / FOLDER / f"{key}.json", result.model_dump_json().encode())


def read_cell(folder: Path, key: str) -> CellResult | None:
    """None where it is not done, or its file is damaged: then it is done again."""
    try:
        return CellResult.model_validate_json((folder / FOLDER / f"{key}.json").read_bytes())
    except (FileNotFoundError, ValidationError):
        return None
