"""Replies in another language than their prompt, by py3langid (139 languages; a retrained langid.py, Lui and Baldwin 2012).

Short texts are never judged: a detector that has to name some language guesses there. The model is loaded when the first text
is long enough, and takes about 76 MiB.
"""

from __future__ import annotations

import re
from functools import lru_cache
from importlib import import_module
from typing import Any

from cai.data.filters.findings import Finding, Reply, Rule
from cai.data.filters.settings import FilterRules

MIN_LETTERS = 60
"""Of either text; a sign of a script without an alphabet counts for three."""
LOOKED_AT = 4000
"""Characters at the beginning of a text that the detector sees."""
_NO_PROSE = re.compile(r"```[^`]*(?:```|\Z)|`[^`\n]*`|https?://\S+|\"[^\"\n]*\"|“[^”\n]*”|«[^»\n]*»")
_ASKS_FOR_LANGUAGE = re.compile(
    r"\btranslat|\blanguage|\bbilingual|\bphrase|traduc|tradui|tradot|übersetz|vertaal|перевед|перевод|翻译|翻譯|翻訳|번역|ترجم|"
    r"\b(?:arabic|bengali|chinese|czech|danish|dutch|english|finnish|french|german|greek|hebrew|hindi|hungarian|indonesian|"
    r"italian|japanese|korean|latin|malay|mandarin|norwegian|persian|farsi|polish|portuguese|punjabi|romanian|russian|"
    r"spanish|swahili|swedish|tagalog|tamil|thai|turkish|ukrainian|urdu|vietnamese|welsh|"
    r"deutsch|englisch|französisch|español|inglés|anglais|français|inglese|italiano|português|inglês|英語|英语|日本語|中文)\b",
    re.IGNORECASE,
)
_NEIGHBOURS = (
    frozenset({"no", "nb", "nn", "da", "sv"}),
    frozenset({"hr", "bs", "sr", "sh", "sl", "mk", "bg"}),
    frozenset({"id", "ms", "jv", "su"}),
    frozenset({"es", "gl", "ca", "pt", "ast", "oc", "an"}),
    frozenset({"cs", "sk"}),
    frozenset({"ru", "uk", "be"}),
    frozenset({"hi", "mr", "ne"}),
    frozenset({"de", "lb", "nds"}),
    frozenset({"nl", "af", "fy"}),
    frozenset({"zh", "yue", "wuu", "ja"}),
    frozenset({"az", "tr"}),
    frozenset({"fa", "ps", "ur", "ar"}),
    frozenset({"en", "sco", "cy", "la"}),
)
"""Languages that a detector takes for each other; a change between two of them is not told."""


def _wrong_language(reply: Reply, rules: FilterRules) -> Finding | None:
    question, answer = _prose(reply.question), _prose(reply.text)
    if _letters(question) < MIN_LETTERS or _letters(answer) < MIN_LETTERS:
        return None
    if any(_ASKS_FOR_LANGUAGE.search(message.content) for message in reply.prompt):
        return None
    asked, asked_p = _detected(question)
    given, given_p = _detected(answer)
    limit = rules.min_language_probability
    if asked == given or min(asked_p, given_p) < limit or any({asked, given} <= near for near in _NEIGHBOURS):
        return None
    return Finding(
        "wrong_language",
        f"the prompt is in {asked!r} ({asked_p:.3f}), the reply in {given!r} ({given_p:.3f})",
        (0, len(reply.text)),
        score=min(asked_p, given_p),
        limit=limit,
    )


def _prose(text: str) -> str:
    """The text without code, addresses and quotations."""
    return _NO_PROSE.sub(" ", text[:LOOKED_AT])


def _letters(text: str) -> int:
    return sum(3 if ord(c) > 0x2FFF else 1 for c in text if c.isalpha())


def _detected(text: str) -> tuple[str, float]:
    language, probability = _identifier().classify(text)
    return str(language), float(probability)


@lru_cache(maxsize=1)
def _identifier() -> Any:
    langid: Any = import_module("py3langid.langid")
    return langid.LanguageIdentifier.from_model_file(langid.MODEL_FILE, norm_probs=True)


WRONG_LANGUAGE = Rule(
    "wrong_language",
    "The reply is in another language than its prompt; both are long enough to be sure.",
    limits=("min_language_probability",),
    look=_wrong_language,
)
