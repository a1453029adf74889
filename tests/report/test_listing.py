"""Long lists, packed: what a sample that fits holds."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import pytest

from cai.report.listing import Facet, Listing, Row, is_drawn, pack, turn

FACETS = (Facet("kind", "Kind"), Facet("size", "Size"))


def row(number: int) -> Row:
    """Of very different sizes, some larger than a chunk."""
    text = f"{number} “word” \x1b[31m ".join("ab" * (1 if number % 7 else 2_000)) if number % 5 else "short"
    return Row(
        name=f"row {number}",
        line=f"line {number}",
        tags=(("good", "tag"),),
        turns=(turn("user", "user", body=text),),
        end=("end",),
        facets={"kind": [str(number % 3)], "size": ["large" if number % 7 else "small"]},
    )


def packed(numbers: Iterable[int], budget: float) -> tuple[Listing, list[str]]:
    made: list[str] = []
    every = list(numbers)

    def rows(wanted: Callable[[str], bool]) -> Iterable[Row]:
        for number in every:
            if wanted(f"row {number}"):
                made.append(f"row {number}")
                yield row(number)

    listing = pack(rows, 120, FACETS, budget_bytes=budget)
    assert listing is not None
    return listing, made


@pytest.mark.parametrize("budget", [0, 1_500, 4_000, 8_000])
def test_a_sample_is_what_its_rows_alone_would_be_and_no_row_is_made_twice(budget: float) -> None:
    """Rows were made again, from the first on, whenever they did not fit: two thirds of the time of a large report."""
    whole, made = packed(range(120), math.inf)
    assert (whole.shown, whole.total, len(made)) == (120, 120, 120)
    sample, made = packed(range(120), budget)
    assert sample.size_bytes <= budget or not sample.shown
    assert sample.shown < whole.shown
    assert len(set(made)) == len(made)
    low, high = 0.0, 1.0
    for _ in range(60):  # the smallest share of which this is the sample
        middle = (low + high) / 2
        enough = sum(is_drawn(f"row {n}", middle) for n in range(120)) >= sample.shown
        low, high = (low, middle) if enough else (middle, high)
    share = high if sample.shown else 0.0
    drawn = [n for n in range(120) if is_drawn(f"row {n}", share)]
    assert len(drawn) == sample.shown
    again, _ = packed(drawn, math.inf)
    assert (sample.index, sample.chunks, sample.facets) == (again.index, again.chunks, again.facets)
    assert budget < 8_000 or sample.shown > 5
