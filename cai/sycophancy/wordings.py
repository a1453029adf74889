"""How users press, read from a data file: every text is a sandboxed template, and every problem is told at once."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from cai.errors import CaiError, ConfigError, ProblemList
from constitution.templating import BadTemplateError, check_template, render_text

MAX_FILE_BYTES = 1_000_000
_Text: TypeAlias = Annotated[str, Field(min_length=1, max_length=2000)]
_Name: TypeAlias = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,39}$")]
_Several: TypeAlias = Annotated[tuple[_Text, ...], Field(min_length=1)]
PARAPHRASE = "paraphrase"
"""The move in which a model writes the new wording."""


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Variant(_Section):
    """One way to make a move: the new prompt, and the turns put before it (user, assistant, …)."""

    prompt: _Text
    history: tuple[_Text, ...] = ()

    @model_validator(mode="after")
    def _turns_alternate(self) -> Variant:
        if len(self.history) % 2:
            raise ValueError("`history` ends with a turn of the assistant: give an even number of turns")
        return self

    def rendered(self, prompt: str) -> tuple[tuple[str, ...], str]:
        """The turns before, and the new prompt; `prompt` is data."""
        values = {"prompt": prompt}
        return tuple(render_text(each, values) for each in self.history), render_text(self.prompt, values)


class Debates(_Section):
    """How two people argue before the model: `frames` show both, one of them `presses`, the other `states`."""

    frames: _Several
    states: _Several
    presses: Annotated[dict[_Name, _Several], Field(min_length=1)]


class Wordings(_Section):
    """The file."""

    pushes: Annotated[dict[_Name, _Several], Field(min_length=1)]
    holds: _Several
    yields: _Several
    moves: Annotated[dict[_Name, Annotated[tuple[Variant, ...], Field(min_length=1)]], Field(min_length=1)]
    paraphrase: _Text
    debates: Debates | None = None

    @model_validator(mode="after")
    def _no_move_is_called_paraphrase(self) -> Wordings:
        if PARAPHRASE in self.moves:
            raise ValueError(f"`{PARAPHRASE}` is the move that a model makes: take another name")
        return self


_REFUSED = "These wordings cannot be used:"


def read_wordings(path: Path | None = None) -> Wordings:
    """Read a file of wordings; None: the one that comes along.

    Raises:
        ProblemList: With everything that is wrong with it.
    """
    place = path or Path(str(resources.files("cai.sycophancy").joinpath("wordings.yaml")))
    try:
        if place.stat().st_size > MAX_FILE_BYTES:
            raise ProblemList(_REFUSED, [ConfigError(f"{place}: is larger than {MAX_FILE_BYTES} bytes", "give fewer wordings")])
        found: Any = yaml.safe_load(place.read_text(encoding="utf-8"))
        wordings = Wordings.model_validate(found)
    except (OSError, UnicodeDecodeError) as error:
        raise ProblemList(
            _REFUSED, [ConfigError(f"{place}: cannot be read ({error})", "name a YAML file of wordings")]
        ) from error
    except yaml.YAMLError as error:
        mark = error.problem_mark if isinstance(error, yaml.MarkedYAMLError) else None
        where = f":{mark.line + 1}:{mark.column + 1}" if mark is not None else ""
        why = error.problem if isinstance(error, yaml.MarkedYAMLError) and error.problem else str(error)
        raise ProblemList(_REFUSED, [ConfigError(f"{place}{where}: no YAML: {why}", "mend it there")]) from error
    except ValidationError as error:
        problems: list[CaiError] = [
            ConfigError(f"{place}: {'.'.join(map(str, each['loc'])) or 'the file'}: {each['msg']}") for each in error.errors()
        ]
        raise ProblemList(_REFUSED, problems) from error
    problems = [ConfigError(f"{place}: {where}: {problem}") for where, problem in _bad_templates(wordings)]
    if problems:
        raise ProblemList(_REFUSED, problems)
    return wordings


def _bad_templates(wordings: Wordings) -> list[tuple[str, str]]:
    asked = [(f"pushes.{name}.{n}", text, "claim") for name, texts in wordings.pushes.items() for n, text in enumerate(texts)]
    asked += [(f"holds.{n}", text, "answer") for n, text in enumerate(wordings.holds)]
    asked += [(f"yields.{n}", text, "claim") for n, text in enumerate(wordings.yields)]
    for name, variants in wordings.moves.items():
        for n, each in enumerate(variants):
            asked += [(f"moves.{name}.{n}", text, "prompt") for text in (*each.history, each.prompt)]
    found: list[tuple[str, str]] = []
    if (debates := wordings.debates) is not None:
        asked += [(f"debates.states.{n}", text, "claim") for n, text in enumerate(debates.states)]
        for name, texts in debates.presses.items():
            asked += [(f"debates.presses.{name}.{n}", text, "claim") for n, text in enumerate(texts)]
        found += _bad_frames(debates.frames)
    for where, text, name in asked:
        try:
            check_template(text, frozenset({name}))
        except BadTemplateError as error:
            found.append((where, error.problem))
            continue
        if not where.startswith("moves") and "{{" not in text:
            found.append((where, f"`{{{{ {name} }}}}` is missing"))
    for name, variants in wordings.moves.items():
        for n, each in enumerate(variants):
            if "{{" not in each.prompt:
                found.append((f"moves.{name}.{n}", "`{{ prompt }}` is missing"))
    return found


def _bad_frames(frames: tuple[str, ...]) -> list[tuple[str, str]]:
    names = ("question", "first", "second")
    found: list[tuple[str, str]] = []
    for n, text in enumerate(frames):
        try:
            check_template(text, frozenset(names))
        except BadTemplateError as error:
            found.append((f"debates.frames.{n}", error.problem))
            continue
        shown = render_text(text, {name: f"<{name}>" for name in names})
        found += [(f"debates.frames.{n}", f"`{{{{ {name} }}}}` is missing") for name in names if f"<{name}>" not in shown]
    return found
