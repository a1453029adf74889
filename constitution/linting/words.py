"""The words of a text that carry its topic: no function words, no verbs of asking, endings cut off. Plain English."""

from __future__ import annotations

import re

_WORD = re.compile(r"[^\W\d_]{3,}")
_ENDINGS = re.compile(r"(?:ies|ing|ed|es|s|y)$")
_NO_TOPIC = frozenset(
    """
    about above after again against all also although always and another any anyone anything are because been before
    being below best better between both but can cannot cause come could day did different does doing don done down
    each either else enough even ever every example few find first for from gave get give given gives going good got
    great had has have having help her here him his how however into isn its just keep kind know known last less let
    like little long look made make makes many may maybe mean might more most much must myself need needs never new
    nor not nothing now off often old one ones only other others our out over own people person please put really
    reply right said same say says see seem seems shall she should show since small some someone something still such
    sure take tell than that the their them then there these they thing things think this those though three through
    time told too toward try two under until use used user users using very want was way well were what when where
    whether which while who whole whom whose why will with within without won word words work would write written
    wrong year yes yet you your yours explain describe suggest answer question list text sentence short
    """.split()  # noqa: SIM905 - ten lines are easier to read than two hundred strings
)


def topic_words(text: str) -> frozenset[str]:
    """The topic words of a text, in lower case and without their endings."""
    words = (word.casefold() for word in _WORD.findall(text))
    return frozenset(_ENDINGS.sub("", word) if len(word) > 4 else word for word in words if word not in _NO_TOPIC)
