"""The errors a user can meet. Each carries what is wrong and what to do; the command line prints them without a traceback."""

from __future__ import annotations

from collections.abc import Sequence


class CaiError(Exception):
    """Root of every error this package raises on purpose.

    Args:
        problem: What is wrong, with the place (file:line, row, key) where there is one.
        hint: What the user can do about it.
    """

    def __init__(self, problem: str, hint: str = "") -> None:
        super().__init__(problem)
        self.problem = problem
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.problem}\n  → {self.hint}" if self.hint else self.problem


class ProblemList(CaiError):
    """Several problems of one input, reported together so that they can be mended together."""

    def __init__(self, title: str, problems: Sequence[CaiError]) -> None:
        super().__init__("\n".join([title, *(f"- {problem}" for problem in problems)]))
        self.problems = tuple(problems)


class ConfigError(CaiError):
    """A run configuration that cannot be used."""


class ModelError(CaiError):
    """A model or tokenizer that cannot be found, loaded or used."""


class DataError(CaiError):
    """Input rows, or a file of them, that cannot be read."""


class StoreError(CaiError):
    """A run folder that is locked, foreign, corrupt or cannot be written."""


class TrainingError(CaiError):
    """Training data or settings that cannot be trained on."""


class EngineError(CaiError):
    """The engine as a whole cannot go on (one bad request is a `RequestFailure`, not this)."""
