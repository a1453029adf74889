"""Pairs labelled by people, from the forms in which preference rows come (see `cai.data.training_rows`).

A row that cannot be used is counted and shown; others go on without it.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import cast

from pydantic import ValidationError

from cai.data.tables import container_of, raw_rows
from cai.data.text_files import BadRow, RawRow
from cai.data.training_rows import answers_of, number_of
from cai.errors import DataError
from cai.labels.human_labels import HumanPair, HumanSet
from cai.store.canonical import fingerprint
from constitution.messages import spelt

SHOWN_PROBLEMS = 5


def read_human_pairs(path: str, max_pairs: int) -> HumanSet:
    """Read a file of pairs. Of more than `max_pairs`, those are taken whose text has the smallest hash: in whatever order.

    A pair is a hard label (`chosen` is better) or, with `p_chosen` in [0, 1], a soft one: the share of people who chose it.

    Raises:
        DataError: If the file is missing or cannot be read, or fewer than half of its rows can be used.
    """
    problems: list[str] = []
    good, bad = 0, 0

    def pairs() -> Iterator[HumanPair]:
        nonlocal good, bad
        for row in raw_rows(path, container_of(path)):
            made = _made(row)
            if isinstance(made, HumanPair):
                good += 1
                yield made
            else:
                bad += 1
                if len(problems) < SHOWN_PROBLEMS:
                    problems.append(made)

    numbered = ((pair.uid, number, pair) for number, pair in enumerate(pairs()))
    drawn = tuple(pair for _, _, pair in heapq.nsmallest(max_pairs, numbered, key=lambda each: each[:2]))
    if bad > good or not drawn:
        listed = "\n".join(f"- {problem}" for problem in problems)
        hint = "Give pairs as `prompt`, `chosen` and `rejected`, or as two whole conversations."
        raise DataError(f"{path}: {bad} of {good + bad} rows are no pairs labelled by people:\n{listed}".rstrip(":\n"), hint)
    digest = fingerprint([[pair.uid, pair.p_first, *pair.tags, *pair.principle_ids] for pair in drawn])
    return HumanSet(Path(path).name, good + bad, drawn, bad, tuple(problems), digest)


def _made(row: RawRow | BadRow) -> HumanPair | str:
    """The pair of a row, or what is wrong with it, with its place."""
    if isinstance(row, BadRow):
        return f"{row.place}: {row.detail}"
    try:
        return _pair(row)
    except ValidationError as error:
        return f"{row.place}: {error.errors()[0]['msg']}"
    except ValueError as error:
        return f"{row.place}: {error}"


def _pair(row: RawRow) -> HumanPair:
    values = row.values
    conversation, chosen, rejected = answers_of(values)
    if not chosen.strip() or not rejected.strip():
        raise ValueError("an answer is empty")
    if chosen == rejected:
        raise ValueError("both answers are the same")
    p_chosen = number_of(values, "p_chosen", 1.0)
    if not 0 <= p_chosen <= 1:
        raise ValueError(f"p_chosen is {p_chosen:g}, not a share from 0 to 1")
    # From both answers in either order: it must not tell which of them is the better one.
    text = repr(([tuple(spelt(each)) for each in conversation], sorted((chosen, rejected))))
    digest = blake2b(text.encode(errors="surrogatepass"), digest_size=8)
    chosen_first = (digest.digest()[0] % 2 == 0) == (chosen < rejected)
    return HumanPair(
        uid=f"human-{digest.hexdigest()}",
        conversation=conversation,
        first=chosen if chosen_first else rejected,
        second=rejected if chosen_first else chosen,
        p_first=p_chosen if chosen_first else 1 - p_chosen,
        tags=_names(values.get("tags")),
        principle_ids=_names(values.get("principle_ids")),
    )


def _names(value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    if isinstance(value, str):
        return (value,)
    if isinstance(value, list):
        named = [each for each in cast("list[object]", value) if isinstance(each, str)]
        if len(named) == len(cast("list[object]", value)):
            return tuple(named)
    raise ValueError(f"{value!r} is no list of names")
