"""What a suite file holds: tables of cases, prompts made of them, and what makes an answer good. Pure data.

`cai/evaluation/suites/README.md` explains each field to authors; `cai eval --schema` prints the JSON Schema of it.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from cai.evaluation.suites import Kind
from cai.tool_calls import tool_problems
from constitution.messages import Tool, ToolName, json_object
from constitution.schema import PrincipleTest

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$", description="Lower-case letters, digits, dashes.")]
_RESERVED = frozenset({"and", "else", "false", "if", "in", "is", "none", "not", "or", "true"})


def _no_word_of_templates(name: str) -> str:
    if name in _RESERVED:
        raise ValueError(f"`{name}` means something in a template: take another name")
    return name


Column = Annotated[str, Field(pattern=r"^[a-z_][a-z0-9_]{0,63}$"), AfterValidator(_no_word_of_templates)]
Template = Annotated[
    str, Field(min_length=1, max_length=4000, description="Text; `{{ column }}` stands for a cell of the tables in `for_each`.")
]
Cell: TypeAlias = str | int | float
Outcome: TypeAlias = Literal["good", "bad"]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Table(_Section):
    """Rows of cells, or a file of the same folder that holds them."""

    file: Annotated[
        str | None,
        Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*\.ya?ml$", description="A YAML file beside this one: `columns` and `rows`."),
    ] = None
    columns: tuple[Column, ...] = ()
    rows: tuple[tuple[Cell, ...], ...] = ()

    @model_validator(mode="after")
    def _is_one_of_both(self) -> Table:
        if (self.file is None) == (not self.columns):
            raise ValueError("give either `file`, or `columns` and `rows`")
        if self.columns and not self.rows:
            raise ValueError("a table needs rows")
        if len(set(self.columns)) != len(self.columns):
            raise ValueError("two columns have one name")
        for number, row in enumerate(self.rows, start=1):
            if len(row) != len(self.columns):
                raise ValueError(f"row {number} has {len(row)} cells, there are {len(self.columns)} columns")
        return self


class ToolEntry(_Section):
    """A tool that the model may call in every prompt of the suite. Nothing is really done."""

    name: ToolName
    description: Annotated[str, Field(max_length=4000)] = ""
    parameters: Annotated[dict[str, Any], Field(description="JSON Schema of its arguments; {}: it takes none.")] = Field(
        default_factory=dict[str, Any]
    )

    @model_validator(mode="after")
    def _can_be_offered(self) -> ToolEntry:
        if problem := next(tool_problems([self.tool]), ""):
            raise ValueError(problem)
        return self

    @property
    def tool(self) -> Tool:
        """It as a conversation offers it."""
        none: dict[str, Any] = {"type": "object", "properties": {}}
        return Tool(name=self.name, description=self.description, parameters=json_object(self.parameters or none))


class Turn(_Section):
    """One turn: what the user says, or what the assistant is made to have said. Where none is written, the model answers."""

    user: Template | None = None
    assistant: Template | None = None

    @model_validator(mode="after")
    def _has_one_speaker(self) -> Turn:
        if (self.user is None) == (self.assistant is None):
            raise ValueError("give either `user` or `assistant`")
        return self


class Prompts(_Section):
    """Conversations made of every combination of the rows of some tables."""

    for_each: Annotated[tuple[Column, ...], Field(description="Tables whose rows are combined.")] = ()
    take: Annotated[int | None, Field(ge=1, description="So many combinations, spread evenly; null: all of them.")] = None
    cluster: Annotated[
        Template | None,
        Field(description="What belongs together is one cluster of the statistics; null: the same row of the first table."),
    ] = None
    prompt: Annotated[Template | None, Field(description="The user's only turn. Give either this or `turns`.")] = None
    turns: Annotated[
        tuple[Turn, ...],
        Field(description="In order. The model answers each of the user's that no `assistant` follows."),
    ] = ()
    results: Annotated[
        dict[ToolName, Template],
        Field(description="Tool → what a call of it gives; the model then goes on. A call of another tool is the end."),
    ] = Field(default_factory=dict[ToolName, Template])

    @model_validator(mode="after")
    def _can_be_answered(self) -> Prompts:
        if (self.prompt is None) == (not self.turns):
            raise ValueError("give either `prompt` or `turns`")
        speakers = ["user" if turn.user is not None else "assistant" for turn in self.turns]
        if self.turns and (speakers[0] != "user" or speakers[-1] != "user"):
            raise ValueError("`turns` begin and end with the user")
        if ("assistant", "assistant") in pairwise(speakers):
            raise ValueError("two turns of the assistant follow each other")
        if self.take is not None and not self.for_each:
            raise ValueError("`take` chooses among combinations: name tables in `for_each`")
        return self


class Exact(_Section):
    """Which of the values the reply says. Both or neither: undecided."""

    accept: Annotated[tuple[Template, ...], Field(min_length=1, description="Values of the truth; one is enough.")]
    reject: Annotated[tuple[Template, ...], Field(description="Values that are false.")] = ()


class Pattern(_Section):
    """Regular expressions, case ignored; `$name` stands for a list of them. Both sides or neither: undecided."""

    good: tuple[str, ...] = ()
    bad: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _looks_for_something(self) -> Pattern:
        if not self.good and not self.bad:
            raise ValueError("give `good` or `bad` patterns")
        return self


class Words(_Section):
    """How many words a good reply has."""

    least: Annotated[int | None, Field(ge=1)] = None
    most: Annotated[int | None, Field(ge=1)] = None

    @model_validator(mode="after")
    def _has_a_bound(self) -> Words:
        if self.least is None and self.most is None:
            raise ValueError("give `least` or `most`")
        if self.least is not None and self.most is not None and self.least > self.most:
            raise ValueError("`least` is more than `most`")
        return self


class CallPattern(_Section):
    """Calls of a tool, or of any, whose arguments hold some texts, case and white space ignored."""

    tool: Annotated[ToolName | None, Field(description="null: any tool.")] = None
    arguments: Annotated[dict[str, Template], Field(description="Argument → text that stands in it.")] = Field(
        default_factory=dict[str, Template]
    )
    anywhere: Annotated[Template | None, Field(description="Text that stands in any argument.")] = None

    @model_validator(mode="after")
    def _looks_for_something(self) -> CallPattern:
        if self.tool is None and self.anywhere is None and not self.arguments:
            raise ValueError("give `tool`, `arguments` or `anywhere`")
        return self


class Calls(_Section):
    """Which tools the model called, in any of its turns. Both sides or neither: undecided."""

    good: tuple[CallPattern, ...] = ()
    bad: tuple[CallPattern, ...] = ()

    @model_validator(mode="after")
    def _looks_for_something(self) -> Calls:
        if not self.good and not self.bad:
            raise ValueError("give `good` or `bad` calls")
        return self


class Judge(_Section):
    """A model judges whether the reply follows a principle; its tests say how good a judge it is."""

    principle: Annotated[str, Field(min_length=1, max_length=4000)]
    tests: Annotated[
        tuple[PrincipleTest, ...], Field(min_length=1, description="What the judge has to get right, to be believed.")
    ]


class Checker(_Section):
    """Exactly one of these."""

    exact: Exact | None = None
    pattern: Pattern | None = None
    words: Words | None = None
    calls: Calls | None = None
    judge: Judge | None = None
    first: Annotated[tuple[Checker, ...] | None, Field(min_length=1, description="The first that decides.")] = None
    all: Annotated[tuple[Checker, ...] | None, Field(min_length=1, description="Good if all are.")] = None
    any: Annotated[tuple[Checker, ...] | None, Field(min_length=1, description="Good if one is.")] = None
    not_: Annotated[Checker | None, Field(alias="not", description="Good is bad, and bad is good.")] = None
    otherwise: Annotated[Outcome | None, Field(description="What is left over, at the end of `first`.")] = None

    @model_validator(mode="after")
    def _is_one_thing(self) -> Checker:
        if len(self.model_fields_set) != 1:
            kinds = ", ".join(f"`{field.alias or name}`" for name, field in type(self).model_fields.items())
            raise ValueError(f"a checker is exactly one of {kinds}")
        return self

    @property
    def parts(self) -> tuple[Checker, ...]:
        """The checkers inside."""
        return (*(self.first or ()), *(self.all or ()), *(self.any or ()), *((self.not_,) if self.not_ else ()))

    @property
    def judges(self) -> tuple[Judge, ...]:
        """The judges in it, at any depth."""
        return (*((self.judge,) if self.judge else ()), *(judge for part in self.parts for judge in part.judges))


class BehaviourEntry(_Section):
    """One behaviour that is counted: prompts that try it, and when an answer is good."""

    id: Name
    label: Annotated[str, Field(min_length=1, max_length=80, description="What a bad answer does: `agrees with false claims`.")]
    kind: Annotated[Kind, Field(description="A fault should fall; a control is the fault's twin and must not get worse.")]
    twin: Annotated[Name | None, Field(description="Faults: the control that a cure would overdo.")] = None
    prompts: Annotated[tuple[Prompts, ...], Field(min_length=1)]
    checker: Checker


class Stated(_Section):
    """Asks for the answer, and how sure the model is of it, in words."""

    prompt: Template
    checker: Checker


class CalibrationEntry(_Section):
    """Questions with options: is the model as sure as it is right?

    Token confidence: the likeliest option's share of the probability of all, each as the end of `beginning`.
    """

    for_each: Annotated[tuple[Column, ...], Field(min_length=1)]
    take: Annotated[int | None, Field(ge=1)] = None
    prompt: Template
    beginning: Annotated[Template, Field(description="How the answer begins; an option follows it.")]
    options: Annotated[tuple[Template, ...], Field(min_length=2, description="The first is true.")]
    stated: Stated | None = None


class DriftEntry(_Section):
    """Open prompts whose answers show drift: length, the same openings and closings, distance from the start model."""

    prompts: Annotated[tuple[Prompts, ...], Field(min_length=1)]


class PreferenceEntry(_Section):
    """Open prompts whose answers a judge compares with the start model's, in both orders."""

    prompts: Annotated[tuple[Prompts, ...], Field(min_length=1)]
    principle: Annotated[str, Field(min_length=1, max_length=4000)]
    tests: Annotated[tuple[PrincipleTest, ...], Field(min_length=1)]


class SuiteFile(_Section):
    """One suite."""

    suite: Name
    description: Annotated[str, Field(max_length=2000)] = ""
    system: Annotated[str | None, Field(min_length=1, max_length=4000, description="System message of every prompt.")] = None
    max_tokens: Annotated[int | None, Field(ge=1, description="Longest answer; null: as the evaluation's settings.")] = None
    patterns: dict[Name, tuple[str, ...]] = Field(default_factory=dict[str, tuple[str, ...]])
    tables: dict[Column, Table] = Field(default_factory=dict[str, Table])
    tools: Annotated[tuple[ToolEntry, ...], Field(description="What the model may call in every prompt.")] = ()
    behaviours: tuple[BehaviourEntry, ...] = ()
    calibration: CalibrationEntry | None = None
    drift: DriftEntry | None = None
    preference: PreferenceEntry | None = None

    @model_validator(mode="after")
    def _measures_something(self) -> SuiteFile:
        if not (self.behaviours or self.calibration or self.drift or self.preference):
            raise ValueError("a suite has `behaviours`, `calibration`, `drift` or `preference`")
        if self.tools and (self.calibration or self.drift or self.preference):
            raise ValueError("a suite with `tools` has `behaviours` alone: put the other sections into a suite of their own")
        return self

    @property
    def judges(self) -> tuple[Judge, ...]:
        """The judges that its checkers ask, each once."""
        checkers = [*(each.checker for each in self.behaviours)]
        if self.calibration is not None and self.calibration.stated is not None:
            checkers.append(self.calibration.stated.checker)
        return tuple(dict.fromkeys(judge for checker in checkers for judge in checker.judges))
