"""The formats that can be imported, found by their content, and those that can be written again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from constitution.errors import ConstitutionError, PrincipleFileError
from constitution.importing import (
    inverse_cai,
    langchain,
    llm_swarm,
    markdown_list,
    paper_comparisons,
    paper_critiques,
    paper_few_shots,
    paper_preferences,
    prose,
    salmon,
)
from constitution.importing.gathering import Gathering
from constitution.importing.sources import Source
from constitution.schema import Constitution

Form: TypeAlias = Literal["json", "lines", "text"]


@dataclass(frozen=True)
class Format:
    """One format. `says`: the fields of a principle that it can write; without `needs` there is nothing to write."""

    name: str
    title: str
    shape: str
    licence: str
    recognise: Callable[[Source], bool]
    read: Callable[[Gathering], None]
    write: Callable[[Constitution], object] | None = None
    form: Form = "json"
    says: frozenset[str] = frozenset()
    needs: Literal["tests", "demonstrations"] | None = None


_REQUESTS = frozenset({"critique_request", "revision_request"})
_PAPER_LICENCE = "the paper's repository (anthropics/ConstitutionalHarmlessnessPaper) states none"

FORMATS = (
    Format(
        "paper-critiques",
        "critique and revision requests of the Constitutional AI paper",
        '{"NAME": {"prompt": ["\\n\\nCritiqueRequest: …"], "edit_request": "…"}}',
        _PAPER_LICENCE,
        paper_critiques.recognise,
        paper_critiques.read,
        paper_critiques.write,
        says=_REQUESTS,
    ),
    Format(
        "paper-preferences",
        "preference principles of the Constitutional AI paper",
        '["\\n… Options:", …]',
        _PAPER_LICENCE,
        paper_preferences.recognise,
        paper_preferences.read,
        paper_preferences.write,
        says=frozenset({"principle"}),
    ),
    Format(
        paper_few_shots.NAME,
        "worked examples of the Constitutional AI paper",
        '["\\n\\nHuman: … CritiqueRequest: … Critique: … RevisionRequest: … Revision: …", …]',
        _PAPER_LICENCE,
        paper_few_shots.recognise,
        paper_few_shots.read,
        paper_few_shots.write,
        says=_REQUESTS | {"demonstrations"},
        needs="demonstrations",
    ),
    Format(
        paper_comparisons.NAME,
        "comparisons of the Constitutional AI paper (HHH evaluations)",
        '{"prompt": "… (A) [[[…]]]\\n (B) [[[…]]]…", "corrects": [" (A)"], "incorrects": [" (B)"]} a line',
        _PAPER_LICENCE,
        paper_comparisons.recognise,
        paper_comparisons.read,
        paper_comparisons.write,
        form="lines",
        says=frozenset({"principle", "tests"}),
        needs="tests",
    ),
    Format(
        llm_swarm.NAME,
        "Hugging Face's constitutions (llm-swarm)",
        '{"constitutions": [{"critic", "revision"}], "system_chat": [[{"role", "content"}]]}',
        "llm-swarm's own files are under MIT",
        llm_swarm.recognise,
        llm_swarm.read,
        llm_swarm.write,
        says=_REQUESTS | {"demonstrations"},
    ),
    Format(
        langchain.NAME,
        "LangChain's constitutional principles",
        '[{"name", "critique_request", "revision_request"}] in JSON or YAML, or Python with ConstitutionalPrinciple(…)',
        "LangChain's own list is under MIT",
        langchain.recognise,
        langchain.read,
        langchain.write,
        says=_REQUESTS,
    ),
    Format(
        salmon.NAME,
        "SALMON's principle collections",
        '[{"dimension", "definition", "negative_definition"?, "weight"?}] in JSON or YAML',
        "SALMON's code is under GPL-3.0 and its data under CC BY-NC 4.0",
        salmon.recognise,
        salmon.read,
        salmon.write,
        says=frozenset({"principle", "weight"}),
    ),
    Format(
        inverse_cai.NAME,
        "results of Inverse Constitutional AI (icai)",
        '"1. …\\n2. …", ["…"], {"0": "…"}, or annotated pairs {"annotators", "comparisons"}',
        "that of whoever ran it and of the preferences",
        inverse_cai.recognise,
        inverse_cai.read,
        inverse_cai.write,
        says=frozenset({"principle"}),
    ),
    Format(
        markdown_list.NAME,
        "a Markdown list of rules",
        "- one rule a bullet, its reasons indented below it",
        "that of the file",
        markdown_list.recognise,
        markdown_list.read,
        markdown_list.write,
        form="text",
        says=frozenset({"principle", "rationale"}),
    ),
    Format(
        "prose",
        "a prose document with headings",
        "# Heading, and paragraphs below it",
        "that of the file",
        prose.recognise,
        prose.read,
    ),
)
BY_NAME = {each.name: each for each in FORMATS}
WRITABLE = {each.name: each for each in FORMATS if each.write is not None}


def find_format(source: Source) -> Format:
    """The one format that a file's content fits.

    Raises:
        ConstitutionError: If it fits none, or more than one.
    """
    found = [each for each in FORMATS if each.recognise(source)]
    if len(found) == 1:
        return found[0]
    if _is_principle_file(source):
        problem, hint = "this is a principle file already", "use it as it is"
    elif found:
        problem = f"it could be {' or '.join(each.name for each in found)}"
        hint = "name one of them with --from"
    else:
        problem = f"no known format: {source.kind} that looks like none of them"
        hint = "known are\n" + "\n".join(f"    {each.name:18} {each.shape}" for each in FORMATS)
    raise ConstitutionError([PrincipleFileError(str(source.path), 0, 0, problem, hint)])


def _is_principle_file(source: Source) -> bool:
    return isinstance(source.mapping.get("principles"), list)
