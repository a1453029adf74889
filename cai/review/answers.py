"""What people are shown: two answers to one prompt, or a single one; and its name, which depends on the texts alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b

from cai.records import ComparedPair, RevisionRecord
from constitution.messages import Message, spelt

FINGERPRINT_BYTES = 16


def reply_fingerprint(prompt: Sequence[Message], reply: str) -> str:
    """Of an answer with its prompt: 32 hex digits of BLAKE2b over the texts, each with its length before it."""
    digest = blake2b(digest_size=FINGERPRINT_BYTES)
    for text in (*(part for message in prompt for part in spelt(message)), "reply", reply):
        content = text.encode("utf-8", "surrogatepass")
        digest.update(len(content).to_bytes(8))
        digest.update(content)
    return digest.hexdigest()


@dataclass(frozen=True)
class Answers:
    """One answer to a prompt, or two in the order of their fingerprints, which tells nothing of what they are.

    Args:
        uid: Of the item.
        replica: Of the record.
        number: Of the pair among those of its item; 0 for a single answer.
        prompt: Ends with a user turn.
        texts: One or two.
        replies: Their fingerprints.
    """

    uid: str
    replica: int
    number: int
    prompt: tuple[Message, ...]
    texts: tuple[str, ...]
    replies: tuple[str, ...]

    @classmethod
    def of_pair(cls, record: ComparedPair) -> Answers:
        return cls._of(record.uid, record.replica, record.number, record.prompt, (record.first, record.second))

    @classmethod
    def of_record(cls, record: RevisionRecord) -> Answers:
        """The answer that would be learned, alone."""
        return cls._of(record.uid, record.replica, 0, record.messages, (record.final,))

    @classmethod
    def _of(cls, uid: str, replica: int, number: int, prompt: Sequence[Message], texts: tuple[str, ...]) -> Answers:
        named = sorted((reply_fingerprint(prompt, text), text) for text in texts)
        return cls(uid, replica, number, tuple(prompt), tuple(t for _, t in named), tuple(name for name, _ in named))

    @cached_property
    def key(self) -> str:
        """As `HumanVerdict.pair`."""
        return "-".join(self.replies)

    @property
    def single(self) -> bool:
        return len(self.texts) == 1
