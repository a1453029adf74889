"""Replies out of their role: marks of turns in them, the user's turns written too, or an answer to the critic.

A dialogue that the user asked for, or that the prompt shows, is none of this. The signs are of English and of the usual
templates.
"""

from __future__ import annotations

import re

from cai.data.filters.findings import Finding, Reply, Rule
from cai.data.filters.settings import FilterRules

_MARKS = re.compile(
    r"<\|(?:im_start|im_end|endoftext|eot_id|start_header_id|end_header_id|user|assistant|system|end)\|>"
    r"|\[/?INST\]|<</?SYS>>|<(?:start|end)_of_turn>|^###[ \t]?(?:Instruction|Response|Input|User|Human|Assistant)\b",
    re.IGNORECASE | re.MULTILINE,
)
_USER_TURN = re.compile(r"^[ \t*#>-]{0,4}(?:Human|User|Prompter)[ \t]?\*{0,2}:", re.MULTILINE)
_OWN_TURN = re.compile(r"^[ \t*#>-]{0,4}(?:Assistant|AI|Chatbot)[ \t]?\*{0,2}:", re.MULTILINE)
_DIALOGUE = re.compile(
    r"dialog|conversation|script|interview|role-?\s?play|chat|transcript|screenplay|scene|\bskit|exchange between|\btemplate"
    r"|\bprompt",
    re.IGNORECASE,
)
_TO_THE_CRITIC = re.compile(
    r"""\A\W*(?:
        (?:thank\ you|thanks)(?:\ (?:so|very)\ much)?\ for\ (?:the|your|this)
          \ (?:\w+\ )?(?:feedback|critique|correction|review)\b
        | (?:you(?:'re|’re|\ are)\ (?:absolutely\ |quite\ )?right\W{1,3})?
          (?:my|the)\ (?:previous|last|earlier|original|first)\ (?:reply|response|answer|draft)\b
        | (?:i(?:'m|’m|\ am)?\ )?(?:apologi[sz]e|sorry)\ for\ (?:my|the)\ (?:previous|last|earlier|original|first)\b
        | i(?:'ve|’ve|\ have|\ will|'ll|’ll)?\ (?:address(?:ed)?|taken?|incorporated?)\ (?:your|the|this)
          \ (?:feedback|critique)\b
    )""",
    re.IGNORECASE | re.VERBOSE,
)


def _role_confusion(reply: Reply, _: FilterRules) -> Finding | None:
    text = reply.text
    marks = _MARKS.search(text)
    turn = _USER_TURN.search(text) or _OWN_TURN.search(text)
    critic = _TO_THE_CRITIC.search(text)
    if marks is None and turn is None and critic is None:
        return None
    known = reply.known
    if marks is not None and _MARKS.search(known) is None:
        return Finding("role_confusion", "a mark of turns", marks.span())
    if turn is not None and not (_DIALOGUE.search(reply.question) or _USER_TURN.search(known) or _OWN_TURN.search(known)):
        said = "writes a turn of the user" if _USER_TURN.search(text) else "writes its own name in front"
        return Finding("role_confusion", said, turn.span())
    # After turns of its own, a reply may well speak of an earlier one.
    first = not any(message.role == "assistant" for message in reply.prompt)
    if critic is not None and first and reply.before is not None and _TO_THE_CRITIC.search(reply.before) is None:
        return Finding("role_confusion", "answers the critic, of whom the user knows nothing", critic.span())
    return None


ROLE_CONFUSION = Rule(
    "role_confusion",
    "The reply carries marks of turns, writes the user's turns too, or answers the critic.",
    look=_role_confusion,
)
