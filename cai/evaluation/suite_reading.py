"""Suite files → checked suites: every problem of every file at once, each with file:line:column. Loads no model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from importlib import resources
from itertools import chain
from pathlib import Path
from typing import Any

import regex
import yaml
from pydantic import ValidationError

from cai.errors import CaiError, ConfigError, ProblemList
from cai.evaluation.suite_files import BehaviourEntry, CalibrationEntry, CallPattern, Checker, Prompts, SuiteFile, Table
from constitution.documents import Document, read_document
from constitution.documents import Path as Loc
from constitution.nearest import nearest
from constitution.templating import examine

MAX_FILE_BYTES = 2_000_000
MAX_COMBINATIONS = 100_000
SHIPPED = "cai.evaluation"
LAB_SUITE = "lab"
"""Names the lab's held-out prompts, judged by exact truth: a suite that is no file."""
AGENT_SUITE = "agents"
"""Names the situations in which a model calls tools, judged by what it did: no file either."""
WITHOUT_FILE = (LAB_SUITE, AGENT_SUITE)
PATTERNS_FILE = "patterns.yaml"
TABLES_FOLDER = "tables"


@dataclass(frozen=True)
class ReadSuite:
    """A suite that can be used.

    Args:
        name: As its file says.
        file: What the file holds.
        tables: Name → rows, each as column → cell; those of table files included.
        patterns: Name → regular expressions, the shipped ones included.
        fingerprint: Of all of it.
    """

    name: str
    file: SuiteFile
    tables: Mapping[str, Sequence[Mapping[str, Any]]]
    patterns: Mapping[str, Sequence[str]]
    fingerprint: str


def shipped_suites() -> dict[str, Path]:
    """Name → file of the suites that come along, in the order in which they are told."""
    folder = Path(str(resources.files(SHIPPED).joinpath("suites")))
    return {path.stem: path for path in sorted(folder.glob("*.yaml")) if path.name != PATTERNS_FILE}


def shipped_patterns() -> dict[str, tuple[str, ...]]:
    """The lists of regular expressions that every suite may name as `$name`."""
    text = resources.files(SHIPPED).joinpath("suites", PATTERNS_FILE).read_text(encoding="utf-8")
    return {name: tuple(found) for name, found in yaml.safe_load(text).items()}


def read_suites(names: Sequence[str]) -> list[ReadSuite]:
    """Read suites by the name of a shipped one or the path of a file.

    Raises:
        ProblemList: With every problem of every file.
    """
    problems: list[CaiError] = []
    found: list[ReadSuite] = []
    shipped = shipped_suites()
    for name in dict.fromkeys(names):
        path = shipped.get(name) or Path(name)
        if name not in shipped and path.suffix not in (".yaml", ".yml"):
            near = nearest(name, tuple(shipped))
            hint = (
                f"did you mean `{near}`?"
                if near
                else f"there are {', '.join((*shipped, AGENT_SUITE))} and {LAB_SUITE}; or name a YAML file"
            )
            problems.append(ConfigError(f"there is no suite `{name}`", hint))
            continue
        try:
            found.append(read_suite(path))
        except ProblemList as error:
            problems += error.problems
    twice = [suite.name for number, suite in enumerate(found) if suite.name in {each.name for each in found[:number]}]
    problems += [ConfigError(f"two suites are called `{name}`", "rename one in its file") for name in twice]
    if problems:
        raise ProblemList("These suites cannot be used:", problems)
    return found


def read_suite(path: Path) -> ReadSuite:
    """Read one suite file.

    Raises:
        ProblemList: With every problem of it and of its table files.
    """
    document, problems = _document(path)
    if problems:
        raise ProblemList(f"{path}: not a suite that can be used:", problems)
    try:
        file = SuiteFile.model_validate(document.value)
    except ValidationError as error:
        raise ProblemList(f"{path}: not a suite that can be used:", list(_explained(error, path, document))) from None
    tables: dict[str, list[dict[str, Any]]] = {}
    for name, table in file.tables.items():
        whole = table
        if table.file is not None:
            try:
                whole = _table_file(path, table.file)
            except ProblemList as error:
                problems += error.problems
                continue
        tables[name] = [dict(zip(whole.columns, row, strict=True)) for row in whole.rows]
    patterns = shipped_patterns() | file.patterns
    if not problems:
        problems += _Examiner(path, document, file, tables, patterns).problems()
    if problems:
        raise ProblemList(f"{path}: not a suite that can be used:", problems)
    digest = sha256(repr((file.model_dump_json(), sorted(tables.items()), sorted(patterns.items()))).encode()).hexdigest()
    return ReadSuite(file.suite, file, tables, patterns, digest)


def _table_file(suite: Path, name: str) -> Table:
    """A table beside the suite's file, or in the folder of the shipped ones."""
    beside = suite.parent / name
    path = beside if beside.is_file() else suite.parent / TABLES_FOLDER / name
    document, problems = _document(path)
    if problems:
        raise ProblemList(f"{path}: not a table that can be used:", problems)
    try:
        return Table.model_validate(document.value)
    except ValidationError as error:
        raise ProblemList(f"{path}: not a table:", list(_explained(error, path, document))) from None


def _document(path: Path) -> tuple[Document, list[CaiError]]:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            return Document(), [ConfigError(f"{path}: more than {MAX_FILE_BYTES:,} bytes", "split the suite")]
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return Document(), [ConfigError(f"{path}: there is no such file", "`cai eval --list` names the shipped suites")]
    except (OSError, UnicodeDecodeError) as error:
        return Document(), [ConfigError(f"{path}: cannot be read ({error})", "it has to be a UTF-8 text file")]
    document = read_document(text)
    problems: list[CaiError] = [ConfigError(f"{path}:{p.line}:{p.column}: {p.problem}", p.hint) for p in document.problems]
    if not problems and not isinstance(document.value, dict):
        problems.append(
            ConfigError(f"{path}:1:1: no section of `key: value` lines", "cai/evaluation/suites/README.md shows one")
        )
    return document, problems


def _explained(error: ValidationError, path: Path, document: Document) -> Iterator[CaiError]:
    for detail in error.errors():
        loc = detail["loc"]
        place = document.place(loc)
        name = ".".join(map(str, loc))
        message = detail["msg"].removeprefix("Value error, ")
        told = f"`{loc[-1]}` is no key here" if detail["type"] == "extra_forbidden" else message
        yield ConfigError(f"{path}:{place.line}:{place.column}: {f'{name}: ' if name else ''}{told}")


@dataclass(frozen=True)
class _Examiner:
    """What the schema cannot see: names that lead nowhere, templates and patterns that do not work."""

    path: Path
    document: Document
    file: SuiteFile
    tables: Mapping[str, Sequence[Mapping[str, Any]]]
    patterns: Mapping[str, Sequence[str]]

    def problems(self) -> list[CaiError]:
        found = chain(
            self._tool_names(),
            self._behaviour_ids(),
            *(self._behaviour(("behaviours", n), each) for n, each in enumerate(self.file.behaviours)),
            self._of_calibration(),
            *(self._prompts((section, "prompts", n), each)[1] for section, n, each in self._open_prompts()),
            *(
                self._regex(("patterns", name, n), each)
                for name, some in self.file.patterns.items()
                for n, each in enumerate(some)
            ),
        )
        return sorted(found, key=lambda error: self._line(error.problem))

    def _open_prompts(self) -> Iterator[tuple[str, int, Prompts]]:
        for section, entry in (("drift", self.file.drift), ("preference", self.file.preference)):
            for number, prompts in enumerate(entry.prompts if entry else ()):
                yield section, number, prompts

    def _line(self, problem: str) -> int:
        return int(problem.removeprefix(f"{self.path}:").partition(":")[0])

    def _problem(self, loc: Loc, problem: str, hint: str = "", *, lines_below: int = 0) -> CaiError:
        place = self.document.place(loc)
        line = place.text_line + lines_below if lines_below else place.line
        return ConfigError(f"{self.path}:{line}:{place.column}: {'.'.join(map(str, loc))}: {problem}", hint)

    def _tool_names(self) -> Iterator[CaiError]:
        names = [each.name for each in self.file.tools]
        for number, name in enumerate(names):
            if name in names[:number]:
                yield self._problem(("tools", number, "name"), f"`{name}` is the name of another tool", "rename one of them")

    def _no_tool(self, loc: Loc, name: str) -> CaiError:
        names = tuple(each.name for each in self.file.tools)
        near = nearest(name, names)
        there = f"there are {', '.join(names)}" if names else "define it in `tools`, at the top level of the file"
        return self._problem(loc, f"there is no tool `{name}`", f"did you mean `{near}`?" if near else there)

    def _behaviour_ids(self) -> Iterator[CaiError]:
        kinds = {each.id: each.kind for each in self.file.behaviours}
        for number, each in enumerate(self.file.behaviours):
            loc: Loc = ("behaviours", number)
            if any(each.id == other.id for other in self.file.behaviours[:number]):
                yield self._problem((*loc, "id"), f"`{each.id}` is the id of another behaviour", "give it an id of its own")
            if each.kind == "fault" and each.twin is None:
                hint = "name the control that a cure would overdo: what is over-corrected, over-refused, over-hedged"
                yield self._problem(loc, f"the fault `{each.id}` has no `twin`", hint)
            if each.twin is not None and kinds.get(each.twin) in (None, each.kind):
                other = "control" if each.kind == "fault" else "fault"
                yield self._problem((*loc, "twin"), f"`{each.twin}` is no {other} of this suite", f"name a {other}")

    def _behaviour(self, loc: Loc, entry: BehaviourEntry) -> Iterator[CaiError]:
        names: frozenset[str] | None = None
        for number, each in enumerate(entry.prompts):
            own, problems = self._prompts((*loc, "prompts", number), each)
            yield from problems
            names = own if names is None else names & own
        yield from self._checker((*loc, "checker"), entry.checker, names or frozenset())

    def _prompts(self, loc: Loc, each: Prompts) -> tuple[frozenset[str], list[CaiError]]:
        """The columns that its templates may name, and what is wrong with it."""
        names, problems = self._columns(loc, each.for_each, each.take)
        if each.prompt is not None:
            problems += self._template((*loc, "prompt"), each.prompt, names)
        if each.cluster is not None:
            problems += self._template((*loc, "cluster"), each.cluster, names)
        for number, turn in enumerate(each.turns):
            speaker = "user" if turn.user is not None else "assistant"
            problems += self._template((*loc, "turns", number, speaker), turn.user or turn.assistant or "", names)
        known = {tool.name for tool in self.file.tools}
        for tool, result in each.results.items():
            if tool not in known:
                problems.append(self._no_tool((*loc, "results", tool), tool))
            problems += self._template((*loc, "results", tool), result, names)
        return names, problems

    def _columns(self, loc: Loc, tables: Sequence[str], take: int | None) -> tuple[frozenset[str], list[CaiError]]:
        names: set[str] = set()
        problems: list[CaiError] = []
        combinations = 1
        for number, name in enumerate(tables):
            if name not in self.tables:
                near = nearest(name, tuple(self.tables))
                hint = f"did you mean `{near}`?" if near else f"there are {', '.join(self.tables) or 'none'}"
                problems.append(self._problem((*loc, "for_each", number), f"there is no table `{name}`", hint))
                continue
            own = set(self.tables[name][0])
            if both := names & own:
                told = f"the column `{min(both)}` is in two of these tables"
                problems.append(self._problem((*loc, "for_each", number), told, "rename it in one of them"))
            names |= own
            combinations *= len(self.tables[name])
        if not problems and take is not None and take > combinations:
            told = f"{take} are to be taken of {combinations} combinations"
            problems.append(self._problem((*loc, "take"), told, "add rows, or take fewer"))
        if not problems and take is None and combinations > MAX_COMBINATIONS:
            told = f"{combinations:,} combinations"
            problems.append(self._problem((*loc, "for_each"), told, f"`take` at most {MAX_COMBINATIONS:,} of them"))
        return frozenset(names), problems

    def _of_calibration(self) -> Iterator[CaiError]:
        entry: CalibrationEntry | None = self.file.calibration
        if entry is None:
            return
        loc: Loc = ("calibration",)
        names, problems = self._columns(loc, entry.for_each, entry.take)
        yield from problems
        yield from self._template((*loc, "prompt"), entry.prompt, names)
        yield from self._template((*loc, "beginning"), entry.beginning, names)
        for number, option in enumerate(entry.options):
            yield from self._template((*loc, "options", number), option, names)
        if entry.stated is not None:
            yield from self._template((*loc, "stated", "prompt"), entry.stated.prompt, names)
            yield from self._checker((*loc, "stated", "checker"), entry.stated.checker, names)

    def _template(self, loc: Loc, text: str, names: frozenset[str]) -> list[CaiError]:
        return [
            self._problem(loc, fault.problem, fault.hint, lines_below=fault.line - 1) for fault in examine(text, names).faults
        ]

    def _checker(self, loc: Loc, checker: Checker, names: frozenset[str]) -> Iterator[CaiError]:
        if checker.exact is not None:
            for side, values in (("accept", checker.exact.accept), ("reject", checker.exact.reject)):
                for number, value in enumerate(values):
                    yield from self._template((*loc, "exact", side, number), value, names)
        if checker.pattern is not None:
            for side, values in (("good", checker.pattern.good), ("bad", checker.pattern.bad)):
                for number, value in enumerate(values):
                    yield from self._pattern((*loc, "pattern", side, number), value)
        if checker.calls is not None:
            for side, patterns in (("good", checker.calls.good), ("bad", checker.calls.bad)):
                for number, each in enumerate(patterns):
                    yield from self._call((*loc, "calls", side, number), each, names)
        for kind in ("first", "all", "any"):
            for number, part in enumerate(getattr(checker, kind) or ()):
                yield from self._checker((*loc, kind, number), part, names)
        if checker.not_ is not None:
            yield from self._checker((*loc, "not"), checker.not_, names)

    def _call(self, loc: Loc, each: CallPattern, names: frozenset[str]) -> Iterator[CaiError]:
        tools = {tool.name: tool.parameters for tool in self.file.tools}
        if not tools:
            yield self._problem(loc, "the suite offers no tools that could be called", "define them in `tools`")
            return
        if each.tool is not None and each.tool not in tools:
            yield self._no_tool((*loc, "tool"), each.tool)
        takers = [each.tool] if each.tool in tools else list(tools)
        known = {name for taker in takers for name in tools[taker].get("properties", {})}
        for argument, value in each.arguments.items():
            if argument not in known:
                near = nearest(argument, tuple(known))
                hint = f"did you mean `{near}`?" if near else f"there are {', '.join(sorted(known)) or 'none'}"
                yield self._problem((*loc, "arguments", argument), f"there is no argument `{argument}`", hint)
            yield from self._template((*loc, "arguments", argument), value, names)
        if each.anywhere is not None:
            yield from self._template((*loc, "anywhere"), each.anywhere, names)

    def _pattern(self, loc: Loc, text: str) -> Iterator[CaiError]:
        if not text.startswith("$"):
            yield from self._regex(loc, text)
        elif text[1:] not in self.patterns:
            near = nearest(text[1:], tuple(self.patterns))
            hint = f"did you mean `${near}`?" if near else f"there are {', '.join(f'${name}' for name in self.patterns)}"
            yield self._problem(loc, f"there is no list of patterns `{text}`", hint)

    def _regex(self, loc: Loc, text: str) -> Iterator[CaiError]:
        try:
            regex.compile(text, regex.IGNORECASE | regex.MULTILINE)
        except regex.error as error:
            yield self._problem(loc, f"not a regular expression: {error}")
