"""A share of a run: `--shard 2/8` works on every input row whose uid falls to the second of eight parts."""

from __future__ import annotations

import re
from dataclasses import dataclass
from hashlib import sha256

from cai.config.settings import RunConfig
from cai.errors import ConfigError

_NAME = re.compile(r"(\d+)/(\d+)")


@dataclass(frozen=True, slots=True)
class Shard:
    """Part `number` (from 1) `of` several. Which rows are in it depends on their uids alone: rows added later move no other.

    Replicas of an item stay together; the shares are equal but for chance.
    """

    number: int
    of: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read `2/8`.

        Raises:
            ConfigError: If it names no part of a whole.
        """
        found = _NAME.fullmatch(text)
        if found is None or not 1 <= int(found[1]) <= int(found[2]):
            raise ConfigError(f"--shard {text}: not a part of a whole.", "Give number and count, from 1/8 to 8/8.")
        return cls(int(found[1]), int(found[2]))

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    def takes(self, uid: str) -> bool:
        return int.from_bytes(sha256(uid.encode()).digest()[:8], "big") % self.of == self.number - 1

    def placed(self, config: RunConfig) -> RunConfig:
        """`config` with this shard's own run folder, `RUN/shard-2-of-8`."""
        return config.model_copy(update={"run": config.run / f"shard-{self.number}-of-{self.of}"})
