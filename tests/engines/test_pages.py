"""What is known of a paged cache beforehand: which beginnings lie in it, and which are under way."""

from __future__ import annotations

from cai.engines.pages import PageIndex


def test_pages_are_equal_where_all_tokens_up_to_their_end_are() -> None:
    index = PageIndex(4, 100)
    one, other = index.pages(range(12)), index.pages([*range(8), 99, 98, 97])
    assert len(one) == 3
    assert other == one[:2]
    assert not set(index.pages([7, *range(1, 12)])) & set(one)


def test_a_beginning_is_shared_as_far_as_it_is_computed_without_a_gap() -> None:
    index = PageIndex(2, 100)
    pages = index.pages(range(10))
    index.finish([pages[0], pages[1], pages[3]], "row")
    assert index.shared(pages) == 2
    assert index.shared(index.pages([5, 5, 5])) == 0


def test_a_row_waits_only_for_the_page_it_lacks_first_and_only_while_someone_computes_it() -> None:
    index = PageIndex(2, 100)
    shots, one = index.pages([1, 2, 3, 4]), index.pages([1, 2, 3, 4, 5, 6])
    other = index.pages([1, 2, 3, 4, 7, 8])
    assert not index.is_begun(other)
    index.begin(one, "one")
    assert index.is_begun(other)
    index.begin(other, "other")
    index.give_up(other, "other")  # it owned its own page only
    assert index.is_begun(shots)
    index.finish(one, "one")
    assert index.shared(other) == 2
    assert not index.is_begun(other)


def test_what_was_used_longest_ago_is_forgotten_first() -> None:
    index = PageIndex(1, 3)
    old, new = index.pages([1, 2]), index.pages([3, 4])
    index.finish(old, "a")
    index.finish(old[:1], "b")
    index.finish(new, "c")
    assert index.shared(new) == 2
    assert index.shared(old) == 1
