"""Which beginnings of prompts lie in a paged cache, and which are being computed. Knows token ids; knows no model and no cache.

A page is a run of tokens together with all that come before it, so equal pages have equal keys and values. This is what a
scheduler knows beforehand; what is found in the cache in the end, the cache decides.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence


class PageIndex:
    """Pages that were computed lately.

    Args:
        page_tokens: Tokens of a page.
        most_pages: As many as the cache holds; the pages used longest ago are forgotten.
    """

    def __init__(self, page_tokens: int, most_pages: int) -> None:
        self._page_tokens = page_tokens
        self._most_pages = most_pages
        self._computed: OrderedDict[int, None] = OrderedDict()
        self._begun: dict[int, object] = {}

    def pages(self, tokens: Sequence[int]) -> list[int]:
        """The whole pages of a sequence; equal beginnings give equal pages."""
        found: list[int] = []
        before = 0
        for start in range(0, len(tokens) - self._page_tokens + 1, self._page_tokens):
            before = hash((before, *tokens[start : start + self._page_tokens]))
            found.append(before)
        return found

    def shared(self, pages: Sequence[int]) -> int:
        """How many of the first pages are computed."""
        for place, page in enumerate(pages):
            if page not in self._computed:
                return place
        return len(pages)

    def is_begun(self, pages: Sequence[int]) -> bool:
        """Whether the first page that is missing is just being computed: a little later it need not be computed again."""
        missing = self.shared(pages)
        return missing < len(pages) and pages[missing] in self._begun

    def begin(self, pages: Sequence[int], owner: object) -> None:
        """These pages will be computed for `owner`."""
        for page in pages:
            if page not in self._computed:
                self._begun.setdefault(page, owner)

    def finish(self, pages: Sequence[int], owner: object) -> None:
        """These pages are computed."""
        self.give_up(pages, owner)
        for page in pages:
            self._computed[page] = None
            self._computed.move_to_end(page)
        while len(self._computed) > self._most_pages:
            self._computed.popitem(last=False)

    def give_up(self, pages: Sequence[int], owner: object) -> None:
        """`owner` computes them no longer."""
        for page in pages:
            if self._begun.get(page) is owner:
                del self._begun[page]
