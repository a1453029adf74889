"""What every form of the exchange holds: answers with the verdicts on them going out, verdicts by place coming in."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, TypeAlias, cast, get_args

from cai.records import HumanVerdict, Judgement
from cai.review.answers import Answers
from cai.review.desk import storable, utc
from constitution.tool_text import as_text

Shown: TypeAlias = Literal["first_second", "second_first", "single", "unknown"]
_SHOWN = get_args(Shown)
FormName: TypeAlias = Literal["csv", "argilla", "label-studio"]
PLACES = {Judgement.FIRST: "a", Judgement.SECOND: "b"}
JUDGEMENTS: dict[str, Judgement] = {
    **{place: judgement for judgement, place in PLACES.items()},
    **{each.value: each for each in Judgement if each not in (*PLACES, Judgement.WITHDRAWN)},
}
"""As other programs say it → judgement. In a file, `a` is the answer whose fingerprint comes first: which one that is tells
nothing of what it is."""


class Senseless(ValueError):
    """A row that cannot be taken for verdicts, and why."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What goes out: answers, and the verdicts on them that count."""

    answers: Answers
    verdicts: Sequence[HumanVerdict]


@dataclass(frozen=True, slots=True)
class Heard:
    """One verdict that came in. What its file does not tell is None."""

    uid: str
    pair: str
    reviewer: str
    judgement: Judgement
    note: str = ""
    at: str | None = None
    seconds: float | None = None
    shown: Shown = "unknown"


@dataclass(frozen=True)
class Form:
    """A form of files.

    Args:
        name: As the command line takes it.
        suffix: Of its file.
        write: Makes the file's text, piece by piece.
        read: The verdicts in one row of such a file, none where nobody judged; raises `Senseless`.
        told: What to know when it is loaded elsewhere.
        beside: Text of a further file that the other program wants, and its suffix; None where there is none.
    """

    name: FormName
    suffix: str
    write: Callable[[Iterator[Asked]], Iterator[str]]
    read: Callable[[dict[str, Any]], list[Heard]]
    told: str
    beside: tuple[str, str] | None = None


def said_of(judgement: Judgement) -> str:
    """As other programs say it."""
    return PLACES.get(judgement, judgement.value)


def judgement_of(said: object) -> Judgement:
    """Raises `Senseless` for what is no verdict."""
    if not isinstance(said, str) or said.strip().lower() not in JUDGEMENTS:
        raise Senseless(f"the verdict is {said!r}, not one of {', '.join(JUDGEMENTS)}")
    return JUDGEMENTS[said.strip().lower()]


def carried(verdict: HumanVerdict) -> dict[str, Any]:
    """A verdict as a record of another program carries it along, in a place that nobody there is shown or asked about.

    Not as one of that program's own answers: it takes these from its own users alone, and refuses a whole file for a stranger.
    And whoever judges a second time there judges blind.
    """
    told = {
        "reviewer": verdict.reviewer,
        "verdict": said_of(verdict.judgement),
        "note": verdict.note,
        "at": verdict.at,
        "seconds": verdict.seconds,
        "shown": verdict.shown,
    }
    return {name: value for name, value in told.items() if value not in ("", None)}


def brought_back(value: object, uid: str, pair: str) -> Heard:
    """What `carried` made; raises `Senseless` for anything else."""
    if not isinstance(value, dict):
        raise Senseless("a verdict that was carried along is no object")
    told = cast("dict[str, Any]", value)
    return Heard(
        uid=uid,
        pair=pair,
        reviewer=text_in(told, "reviewer"),
        judgement=judgement_of(told.get("verdict")),
        note=str(told.get("note") or ""),
        at=moment_of(told.get("at")),
        seconds=seconds_of(told.get("seconds")),
        shown=shown_in(told),
    )


def shown_in(values: dict[str, Any]) -> Shown:
    """Which answer stood where, `unknown` where a row does not say; raises `Senseless` for anything else."""
    value = values.get("shown") or "unknown"
    if value not in _SHOWN:
        raise Senseless(f"shown is {value!r}, not one of {', '.join(_SHOWN)}")
    return value


def conversation_text(answers: Answers) -> str:
    """The prompt as one text."""
    prompt = as_text(answers.prompt)
    if len(prompt) == 1:
        return storable(prompt[0].content)
    return storable("\n\n".join(f"{each.role.capitalize()}: {each.content}" for each in prompt))


def text_in(values: dict[str, Any], name: str) -> str:
    """A text of a row; raises `Senseless` where there is none."""
    value = values.get(name)
    if not isinstance(value, str) or not value:
        raise Senseless(f"{name} is missing, or no text")
    return value


def object_in(values: dict[str, Any], name: str) -> dict[str, Any]:
    """An object of a row, {} where there is none; raises `Senseless` for anything else."""
    value = values.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise Senseless(f"{name} is no object")
    return cast("dict[str, Any]", value)


def list_in(values: dict[str, Any], name: str) -> list[Any]:
    """A list of a row, [] where there is none; raises `Senseless` for anything else."""
    value = values.get(name)
    if value is None:
        return []
    if not isinstance(value, list):
        raise Senseless(f"{name} is no list")
    return cast("list[Any]", value)


def seconds_of(value: object) -> float | None:
    """Raises `Senseless` for what is no time."""
    if value is None or value == "":
        return None
    try:
        seconds = float(cast("Any", value))
    except (TypeError, ValueError):
        seconds = math.nan
    if not (math.isfinite(seconds) and seconds >= 0):
        raise Senseless(f"seconds are {value!r}, not a number from 0 on")
    return seconds


def moment_of(value: object) -> str | None:
    """A moment in ISO 8601, in UTC where it names no zone; raises `Senseless` for what is none."""
    if value is None or value == "":
        return None
    try:
        moment = datetime.fromisoformat(cast("Any", value))
        return utc((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())
    except (TypeError, ValueError, OverflowError) as error:
        raise Senseless(f"the time is {value!r}, not one in ISO 8601") from error
