"""The errors a user can meet. Each carries what is wrong and what to do; the command line prints them without a traceback."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from constitution.nearest import nearest

_SHOWN_IDS = 40


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


class UnknownPrincipleError(ConfigError):
    """A principle is asked for that the constitution in use does not hold. The hint names the nearest one, or those there are.

    Args:
        name: The id that was given.
        known: The ids of the principles in use.
        key: The setting that names it, where it is one.
        advice: What can be done besides naming another.
    """

    def __init__(self, name: str, known: Sequence[str], *, key: str = "", advice: str = "") -> None:
        near = nearest(name, known)
        shown = ", ".join(sorted(known)[:_SHOWN_IDS])
        more = f" and {len(known) - _SHOWN_IDS} more" if len(known) > _SHOWN_IDS else ""
        told = f"did you mean `{near}`?" if near else f"there are {shown}{more}"
        super().__init__(
            f"{f'`{key}`: ' if key else ''}there is no principle `{name}` here", f"{told}{advice and f'; {advice}'}"
        )


def unknown_principles(names: Iterable[str], known: Iterable[str], *, key: str = "") -> list[CaiError]:
    """A problem for each of `names` that is not among `known`, in their order; `key` as in `UnknownPrincipleError`."""
    ids = tuple(known)
    held = frozenset(ids)
    return [UnknownPrincipleError(name, ids, key=key) for name in dict.fromkeys(names) if name not in held]


class ModelError(CaiError):
    """A model or tokenizer that cannot be found, loaded or used."""


class DataError(CaiError):
    """Input rows, or a file of them, that cannot be read."""


class StoreError(CaiError):
    """A run folder that is locked, foreign, corrupt or cannot be written."""


class FolderInUse(StoreError):
    """A run folder that another process works in: one may wait for it."""


class TrainingError(CaiError):
    """Training data or settings that cannot be trained on."""


class EngineError(CaiError):
    """The engine as a whole cannot go on (one bad request is a `RequestFailure`, not this)."""
