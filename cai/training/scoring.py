"""Rewards for the rows of a data set.

A row that cannot be read, or of which a reply has no reward, is a counted failure that stands in its place; the others go on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias, cast

import numpy as np

from cai.data.exchanges import Exchanges, NoExchange
from cai.data.rows import exchange_columns
from cai.data.training_rows import json_line
from cai.errors import DataError
from cai.store.files import atomic_file
from cai.store.leftovers import abandoned
from cai.training.best_of_n import BestOf
from cai.training.packing import TokenGroup
from cai.training.reward_cache import RewardCache
from cai.training.reward_model import Refused, RewardModel, encode_exchange, lower_bound
from cai.training.reward_quality import RewardQuality, ScoredPair, reward_quality

Row: TypeAlias = Exchanges | NoExchange

ROWS_AT_ONCE = 512
"""Rows that are packed together: samples of one prompt share it where they stand so near."""
SHOWN_FAILURES = 10
FAILURE = "reward_failure"
HEADS = "_heads"
"""Ends the names of columns with a reward of each head."""
_REWARDS = ("reward", "rewards", "reward_chosen", "reward_rejected")
_COLUMNS = frozenset({FAILURE, *_REWARDS, *(f"{name}{HEADS}" for name in _REWARDS)})


@dataclass
class Scoring:
    """What was scored.

    Args:
        rows: With rewards.
        replies: That have one.
        failures: Cause → rows without.
        shown: The first of them, in words.
        total: Sum of rewards.
        total_of_squares: Of their squares.
        spread: Sum of standard deviations over heads.
        heads: Of the model.
        quality: On the labelled pairs among the rows; None without any.
        best: The samples by prompt, where they were asked for.
    """

    heads: int
    rows: int = 0
    replies: int = 0
    failures: dict[str, int] = field(default_factory=dict[str, int])
    shown: list[str] = field(default_factory=list[str])
    total: float = 0.0
    total_of_squares: float = 0.0
    spread: float = 0.0
    quality: RewardQuality | None = None
    best: BestOf | None = None

    @property
    def failed(self) -> int:
        return sum(self.failures.values())

    @property
    def mean(self) -> float | None:
        return self.total / self.replies if self.replies else None

    @property
    def deviation(self) -> float | None:
        """Standard deviation of rewards."""
        if not self.replies:
            return None
        return float(np.sqrt(max(0.0, self.total_of_squares / self.replies - (self.total / self.replies) ** 2)))

    @property
    def mean_spread(self) -> float | None:
        """Mean standard deviation over heads; None with one."""
        return self.spread / self.replies if self.replies and self.heads > 1 else None

    def fail(self, place: str, cause: str, detail: str) -> None:
        self.failures[cause] = self.failures.get(cause, 0) + 1
        if len(self.shown) < SHOWN_FAILURES:
            self.shown.append(f"{place}: {detail}")


def score_rows(
    rows: Iterable[Row],
    model: RewardModel | None,
    *,
    out: Path | None = None,
    best_of: int | None = None,
    pessimism: float = 0.0,
    on_rows: Callable[[int], None] | None = None,
) -> Scoring:
    """Give every row its rewards.

    Interrupted or killed, it goes on where it stopped, and writes the same bytes: rewards are on the disk after every pass, in
    `OUT.unfinished`, until `out` is there.

    Args:
        rows: Of `cai.data.exchanges`; gone through once, and not kept.
        model: Gives them; None: they are in the rows, as an earlier scoring wrote them.
        out: Where to; whole or not at all. Every row as it is, with `reward` more (`reward_chosen` and `reward_rejected` of a
            pair, `rewards` of several samples); with several heads also `…_heads`. A row without a reward has the cause as
            `reward_failure`. Such columns of an earlier scoring go. With `best_of`: supervised rows instead, one a prompt.
        best_of: Samples to choose the best from.
        pessimism: See `lower_bound`.
        on_rows: Told how many rows are done.

    Raises:
        DataError: If no row has a reward; nothing is written then. As `exchanges_in`.
        ModelError: If memory runs out.
        StoreError: If the file cannot be written.
        ValueError: If rewards that are in the rows already are to be lowered by `pessimism`.
    """
    if model is None and pessimism:
        raise ValueError("pessimism is a matter of the heads, whose rewards are not computed here")
    if out is None:
        return _scored(rows, model, None, None, best_of, pessimism, on_rows)
    for part, _ in abandoned(out):
        part.unlink(missing_ok=True)
    cache = RewardCache(out.with_name(f"{out.name}.unfinished"))
    with atomic_file(out) as file:
        found = _scored(rows, model, cache, file, best_of, pessimism, on_rows)
    cache.remove()
    return found


def _scored(
    rows: Iterable[Row],
    model: RewardModel | None,
    cache: RewardCache | None,
    file: BinaryIO | None,
    best_of: int | None,
    pessimism: float,
    on_rows: Callable[[int], None] | None,
) -> Scoring:
    found = Scoring(1 if model is None else model.heads, best=None if best_of is None else BestOf(best_of))
    pairs: list[ScoredPair] = []
    source, done = iter(rows), 0
    while some := list(islice(source, ROWS_AT_ONCE)):
        for row, rewards_NK in _rewarded(some, model, cache):
            values = _use(row, rewards_NK, found, pairs, pessimism)
            if file is not None and found.best is None:
                file.write(json_line(values))
        done += len(some)
        if on_rows is not None:
            on_rows(done)
    if not found.rows:
        raise DataError("\n".join(["no row has a reward:", *(f"- {each}" for each in found.shown)]), "Mend the rows.")
    if file is not None and found.best is not None:
        for row in found.best.rows():
            columns = exchange_columns(row.messages, row.reply)
            file.write(json_line({**columns, "uid": row.uid, "reward": row.reward, "best_of": best_of}))
    found.quality = reward_quality(pairs) if pairs else None
    return found


def _rewarded(
    some: Sequence[Row], model: RewardModel | None, cache: RewardCache | None
) -> Iterator[tuple[Row, np.ndarray | Refused]]:
    """Rows in their order, each with rewards_NK of its replies, or why it has none."""
    if model is None:
        yield from ((row, _kept(row)) for row in some)
        return
    encoded = [
        [encode_exchange(model.opened, row.prompt, reply) for reply in row.replies]
        if isinstance(row, Exchanges)
        else [Refused(row.cause, row.detail)]
        for row in some
    ]
    rewards = iter(model.of_groups([group for each in encoded for group in each if isinstance(group, TokenGroup)], cache))
    for row, each in zip(some, encoded, strict=True):
        own = [next(rewards) for group in each if isinstance(group, TokenGroup)]
        refused = next((group for group in each if isinstance(group, Refused)), None)
        yield row, refused or np.array(own)


def _kept(row: Row) -> np.ndarray | Refused:
    """Rewards that an earlier scoring put into the row."""
    if isinstance(row, NoExchange):
        return Refused(row.cause, row.detail)
    names = _names(row)
    values = row.values.get(names[0]) if row.several else [row.values.get(name) for name in names]
    given = cast("list[Any]", values) if isinstance(values, list) else []
    if len(given) != len(row.replies) or not all(isinstance(each, int | float) for each in given):
        return Refused("no_reward", "the row holds no reward of each of its replies")
    return np.array(given, dtype=float)[:, None]


def _use(
    row: Row, rewards_NK: np.ndarray | Refused, found: Scoring, pairs: list[ScoredPair], pessimism: float
) -> dict[str, Any]:
    """Count the row, and give it as it is to be written."""
    if isinstance(rewards_NK, np.ndarray) and not np.isfinite(rewards_NK).all():
        rewards_NK = Refused("not_finite", "the reward is no finite number")
    others = {name: value for name, value in row.values.items() if name not in _COLUMNS}
    if isinstance(rewards_NK, Refused):
        found.fail(row.place, rewards_NK.cause, rewards_NK.detail)
        return others | {FAILURE: f"{rewards_NK.cause}: {rewards_NK.detail}"}
    assert isinstance(row, Exchanges), "what holds no reply has no reward"
    rewards: list[float] = lower_bound(rewards_NK, pessimism).tolist()
    heads: list[list[float]] | None = rewards_NK.tolist() if found.heads > 1 else None
    found.rows += 1
    found.replies += len(rewards)
    found.total += sum(rewards)
    found.total_of_squares += sum(each * each for each in rewards)
    found.spread += float(rewards_NK.std(axis=1, ddof=1).sum()) if heads else 0.0
    if found.best is not None:
        for reply, reward in zip(row.replies, rewards, strict=True):
            found.best.add(row.uid, row.prompt, reply, reward)
    if row.pair is not None:
        pairs.append(ScoredPair(row.pair, tuple(rewards_NK[0]), tuple(rewards_NK[1])))
    return others | _columns(row, rewards) | (_columns(row, heads, HEADS) if heads else {})


def _names(row: Exchanges) -> tuple[str, ...]:
    if row.pair is not None:
        return "reward_chosen", "reward_rejected"
    return ("rewards",) if row.several else ("reward",)


def _columns(row: Exchanges, of_replies: Sequence[Any], ending: str = "") -> dict[str, Any]:
    """What each reply of the row has, as columns of it."""
    values = [of_replies] if row.several else of_replies
    return {f"{name}{ending}": value for name, value in zip(_names(row), values, strict=True)}
