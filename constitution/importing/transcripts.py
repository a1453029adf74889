r"""Several turns in one text, as the paper's files write them: `\n\nHuman: …\n\nAssistant: …`.

A principle's tests and demonstrations have one `prompt`. Earlier turns go into it in this form, without the first label: in a
plain rendering it then reads exactly as the conversation would.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

HUMAN = "\n\nHuman: "
ASSISTANT = "\n\nAssistant: "
_TURN = re.compile(r"\n\n(Human|Assistant): ")
_ROLES = {"Human": "user", "Assistant": "assistant"}


def prompt_of(transcript: str) -> str | None:
    """A transcript that begins with a human turn, as the text of a `prompt`; None when it does not."""
    return transcript[len(HUMAN) :] if transcript.startswith(HUMAN) else None


def told(prompts: Iterable[str], what: str) -> list[str]:
    """A remark on those of the prompts that hold earlier turns; none when there are none."""
    count = sum(ASSISTANT in prompt for prompt in prompts)
    subject = f"1 {what} has" if count == 1 else f"{count} {what}s have"
    return [f"{subject} several turns: the earlier ones stand in `prompt` as a transcript."] if count else []


def joined(turns: list[dict[str, str]]) -> str:
    """Messages (`role`, `content`) as one transcript."""
    return "".join((HUMAN if turn["role"] == "user" else ASSISTANT) + turn["content"] for turn in turns)


def split(prompt: str) -> list[dict[str, str]]:
    """The messages of a `prompt`: the reverse of `joined` and `prompt_of`, unless a message holds such a label itself."""
    _, *parts = _TURN.split(HUMAN + prompt)
    return [{"role": _ROLES[name], "content": text} for name, text in zip(parts[::2], parts[1::2], strict=True)]
