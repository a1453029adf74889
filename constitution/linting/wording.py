"""Warnings about how a principle and its questions are worded. Patterns of plain English: other languages find nothing."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from constitution.linting.findings import Finding
from constitution.linting.placed import PlacedPrinciple
from constitution.linting.rules import Example, Rule

MAX_WORDS = 60
MAX_QUESTION_CHARS = 800_000
"""Of `QUESTIONS`, in all files together: a million characters of the worst take more than a second."""

PRESUPPOSES_GUILT = Rule(
    "C203",
    "the critique is asked for faults, and may not find none",
    "A model that is asked what is wrong will name something, and a good draft is rewritten for nothing. Ask a question that "
    "can be answered with no, or say what to write when there is no fault.",
    Example(
        "principle: Be kind.\ncritique_request: Identify specific ways in which the reply is harmful.",
        "principle: Be kind.\ncritique_request: Is the reply harmful to anyone?",
    ),
)
LEADING = Rule(
    "C204",
    "a question that suggests its answer",
    "A question that expects a yes gets one, whatever the reply says; one that names an answer's letter decides the label.",
    Example(
        "principle: Be kind.\ncritique_request: Isn't the reply clearly rude?",
        "principle: Be kind.\ncritique_request: Is the reply rude?",
    ),
)
DOUBLE_BARRELLED = Rule(
    "C205",
    "two questions or rules in one",
    "When one half holds and the other does not, no single answer is right, and nobody can see which half decided.",
    Example(
        "principle: Be kind.\npreference_question: Which reply is kinder and more correct?",
        "principle: Be kind.\npreference_question: Which reply is kinder?",
    ),
)
ABSOLUTE = Rule(
    "C206",
    "an absolute word",
    "Words that allow no exception make a model obey the letter where the sense says otherwise. Say what is meant, or allow "
    "the word where a rule really has no exception.",
    Example("principle: Always name a source.", "principle: Name a source for what few people know."),
)
LONG = Rule(
    "C207",
    f"a principle of more than {MAX_WORDS} words",
    "Small models lose a long rule, and its critiques pick one half. Reasons belong into `rationale`, further rules into "
    "principles of their own.",
    Example("principle: " + " ".join(["Say it plainly and say it once."] * 9), "principle: Say it plainly and say it once."),
)

UNSEEN = Rule(
    "C218",
    "more questions than are looked at",
    f"To look for unwise wording takes time. The questions of all files together are looked at up to {MAX_QUESTION_CHARS:,} "
    "characters, which is more than five thousand principles have.",
    situation="A file of 4 MB made of nothing but questions.",
)

RULES = (PRESUPPOSES_GUILT, LEADING, DOUBLE_BARRELLED, ABSOLUTE, LONG, UNSEEN)

_QUOTED_WORDS = 3
QUESTIONS = ("critique_request", "preference_question")

_FAULT = (
    r"harm\w*|hurt\w*|unethical|immoral|racis[tm]\w*|sexis[tm]\w*|toxic\w*|illegal\w*|dangerous\w*|offensive\w*|inappropriate\w*"
    r"|wrong\w*|bad|worse|faults?|faulty|flaws?|flawed|problem\w*|mistake\w*|errors?|issues?|violat\w*|breaks?|fail\w*|rude\w*"
    r"|mislead\w*|false|untrue|bias\w*|unfair\w*|lies?|lying|dishonest\w*|unhelpful\w*|insult\w*|preach\w*|flatter\w*|unsafe"
    r"|unsupported|incorrect\w*|inaccura\w*|objectionable|insensitive|manipulat\w*|deceptive\w*|deceiv\w*"
)
_HAS_FAULT = re.compile(rf"\b(?:{_FAULT})\b", re.IGNORECASE)
_ASKS_FOR_IT = re.compile(
    r"\s*(?:please\s+)?(?:identify|list|explain|point out|describe|find|name|quote|highlight|enumerate|discuss|outline|state"
    r"|tell|say|show|note|mention|specify|why|how|where|in (?:what|which) ways?|what|which)\b",
    re.IGNORECASE,
)
_REPLY = r"(?:reply|response|answer|draft|message|text|output|assistant)"
_STATES_A_FAULT = re.compile(
    rf"\s*(?:(?:the|this|that|its|your)\s+(?:[\w’']+\s+){{0,2}}{_REPLY}|it|this)\s+"
    rf"(?:(?:is|was|has|had|contains?|gives?|gave|makes?|made|shows?|tells?|told|does|did)\s+[^?]*?\b(?:{_FAULT})\b"
    r"|(?:harms|hurts|misleads|lies|fails|insults|preaches|flatters|deceives|violates|breaks)\b)",
    re.IGNORECASE,
)
_NAMED_GUILTY = re.compile(
    rf"\b(?:this|that|the|your|its|such an?)\s+(?:\w+\s+){{0,2}}?(?:\w+(?:,|\s+and)\s+)?(?:{_FAULT})\s+"
    rf"(?:\w+\s+)?{_REPLY}\b(?!\s+to\b)",
    re.IGNORECASE,
)
_DENIES = re.compile(r"\b(?:not|no|never|free of|without)\b|n['’]t\b", re.IGNORECASE)
_OPEN_QUESTION = re.compile(
    r"\s*(?:and |or |so,? )?(?:is|are|was|were|does|do|did|has|have|had|can|could|will|would|should|may|might)\s[^?]*\?",
    re.IGNORECASE,
)
_SENTENCES = re.compile(r"(?<=[.?!:;])[\"'”’)]*\s+|\n+")
_WAY_OUT = re.compile(
    r"\b(?:if|whether|nothing|none|no faults?|any\s+(?:\w+\s+)?(?:that|which|at all)|or not|in case|unless"
    r"|where there (?:is|are))\b",
    re.IGNORECASE,
)
_NOT = r"(?:isn|aren|doesn|don|didn|wouldn|won|shouldn|couldn|hasn|haven|hadn|wasn|weren|can|ain)['’‘ʼ´`]?t"
_LEADING = (
    re.compile(
        rf"(?:^|(?<=[.?!:;,]\s)|(?<=\n))\s*(?:(?:and|but|so|then|well),?\s+)?(?:{_NOT}\s+(?!\w+ (?:is|are)\b)[^?]*\?"
        r"|(?:is|are|was|were|does|do|did|has|have|would|should|can|could|will) (?:not\b[^?]*\?"
        rf"|(?:it|they|you|(?:the|this|that|either|one)(?: \w+)? {_REPLY}|the user) not\b))",
        re.IGNORECASE,
    ),
    re.compile(
        rf",\s*(?:{_NOT} (?:it|you|they|he|she|we)|(?:is|does|has) it not|right|correct|agreed|no|yes)\b[^?]*\?", re.IGNORECASE
    ),
    re.compile(
        r"\b(?:surely|of course|obviously|undoubtedly|undeniably|unquestionably|no doubt|without (?:a )?doubt|needless to say"
        r"|as (?:everyone|you) knows?|do(?:n['’]t)? you agree|would(?:n['’]t)? you (?:say|agree))\b"
        rf"|\b(?:clearly|plainly|evidently)\s+(?:{_FAULT}|better|good|right|kinder|worse)\b",
        re.IGNORECASE,
    ),
)
_NAMES_A_LETTER = re.compile(r"\b(?:[Rr]eply|[Aa]nswer|[Rr]esponse|[Oo]ption)\s+\(?[AB]\b\)?|\([AB]\)")
_TWO_CRITERIA = re.compile(
    r"\b(?:more|less|most|least)\s+\w+\s+and\s+\w+|\band\s+(?:more|less|most|least)\s+\w+"
    r"|\b\w+er\s+and\s+\w+er\b|\b\w+,\s+\w+,?\s+and\s+\w+",
    re.IGNORECASE,
)
_TWO_STATES = re.compile(r"(?:is|are|was|were)\b[^?]*\b\w+\s+(?:and|as well as)\s+(?:\w+\s+)?\w+\s*\?", re.IGNORECASE)
_TWO_ACTS = re.compile(
    r"(?:does|do|did|has|have|can|will|would)\b[^?]*?,?\s\b(?:and|as well as)\s+(?:\w+\s+){1,}\w+", re.IGNORECASE
)
_TWO_CLAUSES = re.compile(
    r"\band(?:\s+also)?,?\s+(?:is|are|was|were|does|do|did|has|have|can|could|will|would|should)\s+(?:it|they|he|she|this|that"
    rf"|(?:the|this|that|either|its)(?:\s+\w+)?\s+\w+|{_REPLY})\b"
    r"|\band(?:\s+also)?,?\s+(?:which|what|why|how|where|who)\s+(?:one|reply|is|does|are|do)\b"
    r"|\band\s+also\b|\band/or\b|\bas\s+well\s+as\b",
    re.IGNORECASE,
)
_WHETHER = re.compile(r"\bwhether\b", re.IGNORECASE)
_AND_WHETHER = re.compile(r"\band(?:\s+also)?,?\s+whether\b", re.IGNORECASE)
_TWO_RULES = re.compile(r"\band/or\b|\band also\b|\bin addition\b|\bfurthermore\b|\bas well as\b", re.IGNORECASE)
_ABSOLUTE = re.compile(
    r"\b(?:always|never|under no circumstances?|no matter what|at all times|at any cost|in (?:all|every|any) cases?"
    r"|without (?:any )?exceptions?|absolutely|completely|totally|entirely|perfectly|every single)\b|\b100\s?%",
    re.IGNORECASE,
)


def check_wording(principles: Sequence[PlacedPrinciple]) -> Iterable[Finding]:
    """All that `RULES` say about each principle."""
    asked_chars = 0
    for placed in principles:
        yield from _texts(placed)
        questions = [(key, text) for key, text in placed.texts() if key in QUESTIONS]
        already = asked_chars
        asked_chars += sum(len(text) for _, text in questions)
        if asked_chars <= MAX_QUESTION_CHARS:
            for key, text in questions:
                yield from _question(placed, key, text)
        elif already <= MAX_QUESTION_CHARS:
            problem = f"more than {MAX_QUESTION_CHARS} characters of questions; none is looked at from here on"
            yield UNSEEN.of(placed, placed.position(), problem, "check the files one by one")


def _texts(placed: PlacedPrinciple) -> Iterable[Finding]:
    for key, text in placed.texts():
        first: dict[str, str] = {}
        for found in _ABSOLUTE.finditer(text):
            first.setdefault(found[0].lower(), found[0])
        for word in first.values():
            hint = "say when it holds, or allow it: `# cai: allow C206` and why"
            yield ABSOLUTE.of(placed, placed.position_of(word, key), f"`{key}`: “{word}” allows no exception", hint)
    text = placed.principle.principle  # "" where it cannot be read, and then nothing is found
    found = _TWO_RULES.search(text)
    if found:
        problem = f"`principle`: “{found[0]}” joins two rules"
        yield DOUBLE_BARRELLED.of(placed, placed.position_of(found[0], "principle"), problem, "make them two principles")
    words = len(text.split())
    if words > MAX_WORDS:
        hint = "keep the rule, and move its reasons to `rationale`"
        yield LONG.of(placed, placed.position("principle"), f"`principle` has {words} words", hint)


def _question(placed: PlacedPrinciple, key: str, text: str) -> Iterable[Finding]:
    if key == "critique_request" and _presupposes_guilt(text):
        problem = "`critique_request` presupposes a fault and gives no way out"
        yield PRESUPPOSES_GUILT.of(placed, placed.position(key), problem, "ask whether: “Does the reply …?”")
    leading = next((found[0] for each in _LEADING if (found := each.search(text))), None)
    letter = _NAMES_A_LETTER.search(text) if key == "preference_question" else None
    if leading:
        words = " ".join(leading.strip(" ,\n").split()[:_QUOTED_WORDS])
        problem = f"`{key}`: “{words.rstrip('?')}” suggests the answer"
        yield LEADING.of(placed, placed.position_of(words, key), problem, "ask it as one who does not know")
    elif letter:
        problem = f"`{key}` names one answer, “{letter[0]}”"
        yield LEADING.of(placed, placed.position_of(letter[0], key), problem, "ask “Which reply …?”")
    two = _two_in_one(key, text)
    if two:
        hint = "ask one thing; a second rule is a second principle"
        yield DOUBLE_BARRELLED.of(placed, placed.position(key), f"`{key}` asks two things: {two}", hint)


def _presupposes_guilt(text: str) -> bool:
    """Whether a fault is taken for granted: stated, asked for, or put into the name of what is criticised."""
    if _WAY_OUT.search(text):
        return False
    if _NAMED_GUILTY.search(text):
        return True
    sentences = _SENTENCES.split(text)
    if any(map(_OPEN_QUESTION.match, sentences)):
        return False
    return any(
        (_ASKS_FOR_IT.match(each) and _HAS_FAULT.search(each))
        or (not each.rstrip().endswith("?") and _STATES_A_FAULT.match(each) and not _DENIES.search(each))
        for each in sentences
    )


def _two_in_one(key: str, text: str) -> str:
    if text.count("?") > 1:
        return f"it has {text.count('?')} question marks"
    if key == "preference_question":
        found = _TWO_CRITERIA.search(text) or _TWO_CLAUSES.search(text)
    else:
        found = _TWO_STATES.match(text.strip()) or _TWO_ACTS.match(text.strip()) or _TWO_CLAUSES.search(text)
        if not found and (first := _WHETHER.search(text)):
            found = _AND_WHETHER.search(text, first.end())
    if not found:
        return ""
    around = re.search(r"\S+\s+(?:and|as well as)\s+\S+", found[0], re.IGNORECASE)
    return f"“{around[0].rstrip('?')}”" if around else "it has an “and”"
