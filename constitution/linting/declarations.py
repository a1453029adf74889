"""Parameters that are declared and not used, or used in the wrong way; tags that look like a slip of the pen."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence

from constitution.linting.findings import Finding
from constitution.linting.placed import PlacedPrinciple
from constitution.linting.rules import Example, Rule
from constitution.template_places import TEMPLATED

NEARLY_SAME_TAG = 85.0
"""Tags that are this many percent alike (rapidfuzz's normalised indel similarity)."""

MAX_TAG_PAIRS = 2_500_000
"""So many pairs of a rare and a common tag are compared, which takes half a second: fifteen hundred of each."""

_KIND = (
    "- id: kind\n  principle: Be kind.\n  applies_to: [requests]\n  tests:\n    - {prompt: Hi, better: Hello., worse: Go.}\n"
)
UNUSED = Rule(
    "C214",
    "a parameter that no text uses",
    "Changing it changes nothing, which is seldom what its author believes.",
    Example(
        "principle: Answer in few words.\nparameters: {words: 20}",
        "principle: Answer in at most {{ words }} words.\nparameters: {words: 20}",
    ),
)
SINGLE_BRACES = Rule(
    "C215",
    "a parameter's name in single braces",
    "Only double braces are filled in; the model would read the braces.",
    Example(
        "principle: Answer in at most {words} of {{ words }} words.\nparameters: {words: 20}",
        "principle: Answer in at most {{ words }} words.\nparameters: {words: 20}",
    ),
)
ODD_TAG = Rule(
    "C216",
    "a tag that is nearly another one",
    "`applies_to` and the tags of prompts match by the letter: a principle with a misspelt tag is used only where there are no "
    "tags at all.",
    Example(
        _KIND + "- id: calm\n  principle: Do not shout.\n  applies_to: [requests]\n"
        "  tests:\n    - {prompt: Hi, better: Hello., worse: HELLO.}\n"
        "- id: plain\n  principle: Use everyday words.\n  applies_to: [request]\n"
        "  tests:\n    - {prompt: Hi, better: Hello., worse: Salutations.}",
        _KIND + "- id: calm\n  principle: Do not shout.\n  applies_to: [requests]\n"
        "  tests:\n    - {prompt: Hi, better: Hello., worse: HELLO.}\n"
        "- id: plain\n  principle: Use everyday words.\n  applies_to: [requests]\n"
        "  tests:\n    - {prompt: Hi, better: Hello., worse: Salutations.}",
    ),
)

RULES = (UNUSED, SINGLE_BRACES, ODD_TAG)


def check_parameters(placed: PlacedPrinciple) -> Iterable[Finding]:
    """Parameters of one principle against its own texts."""
    parameters = placed.principle.parameters
    if not parameters:
        return
    texts = dict(placed.texts())
    tags = [tag for text in texts.values() for tag in re.findall(r"\{\{.*?\}\}|\{%.*?%\}", text, re.DOTALL)]
    used = {word for tag in tags for word in re.findall(r"[a-z_][a-z0-9_]*", tag)}
    for name in parameters:
        if name not in used and placed.whole(*TEMPLATED):
            position = placed.position("parameters", name)
            yield UNUSED.of(placed, position, f"no text uses the parameter `{name}`", f"write {{{{ {name} }}}}, or delete it")
        for key, text in texts.items():
            found = re.search(rf"(?<!\{{)\{{\s*{name}\s*\}}(?!\}})", text)
            if found:
                problem = f"`{key}`: `{found[0]}` is not filled in"
                yield SINGLE_BRACES.of(placed, placed.position_of(found[0], key), problem, f"write {{{{ {name} }}}}")


def check_tags(principles: Sequence[PlacedPrinciple]) -> Iterable[Finding]:
    """Tags that are used once in all files, and are nearly a tag that is used more often; or stand twice in one list."""
    places: dict[str, list[tuple[PlacedPrinciple, int]]] = defaultdict(list)
    for placed in principles:
        here: set[str] = set()
        for index, tag in enumerate(placed.principle.applies_to):
            if tag in here:
                position = placed.position("applies_to", index)
                yield ODD_TAG.of(placed, position, f"the tag `{tag}` stands here twice", "delete one of them")
            else:
                here.add(tag)
                places[tag].append((placed, index))
    common = [tag for tag, uses in places.items() if len(uses) > 1]
    once = [tag for tag, uses in places.items() if len(uses) == 1]
    if not common or not once:
        return
    if len(once) * len(common) > MAX_TAG_PAIRS:
        once = once[: MAX_TAG_PAIRS // len(common)]
    from rapidfuzz import process
    from rapidfuzz.distance import Indel

    for tag in once:
        near = process.extractOne(tag, common, scorer=Indel.normalized_similarity, score_cutoff=NEARLY_SAME_TAG / 100)
        if near is not None:
            placed, index = places[tag][0]
            problem = f"the tag `{tag}` is used only here, and `{near[0]}` {len(places[near[0]])} times"
            yield ODD_TAG.of(placed, placed.position("applies_to", index), problem, f"did you mean `{near[0]}`?")
