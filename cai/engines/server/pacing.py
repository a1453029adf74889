"""How many requests a server is given at a time: additive increase, multiplicative decrease. Knows no HTTP and no clock."""

from __future__ import annotations

from dataclasses import dataclass, field

_FIRST = 4.0
_SMOOTHING = 0.2
_STEADY = 4.0
"""The window grows while an answer takes less than this many times the shortest time seen, per token."""
_SLOW = 10.0
"""It shrinks, gently, when an answer takes more than this many times that."""


@dataclass
class Pacing:
    """A window of requests in flight. Times are seconds of one steady clock, whose zero does not matter.

    A full window of answers makes it one larger; a server that is overloaded, or loses a request, halves it, once for all
    requests that were begun before. It also stops growing, and shrinks, when answers become much slower: then requests only
    wait at the server. Times are per token, since longer answers take longer whatever the load.

    Args:
        most: Never more requests than this at a time.
    """

    most: int
    window: float = field(default=0.0, init=False)
    quiet_until: float = field(default=0.0, init=False)
    """The server asked to be left alone until then."""
    cuts: int = field(default=0, init=False)
    """How often the window was halved."""
    _last_cut: float = field(default=float("-inf"), init=False)
    _smooth_s: float | None = field(default=None, init=False)
    _least_s: float | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        if self.most < 1:
            raise ValueError(f"most is {self.most}; it must be at least 1")
        self.window = min(_FIRST, float(self.most))

    def may_begin(self, in_flight: int, now: float) -> bool:
        """Whether one more request may go out."""
        return now >= self.quiet_until and in_flight < int(self.window)

    def answered(self, begun: float, now: float, *, tokens: int, in_flight: int) -> None:
        """A request that was begun then is answered; so many were in flight together with it."""
        took_s = (now - begun) / (tokens + 1)
        self._smooth_s = took_s if self._smooth_s is None else self._smooth_s + _SMOOTHING * (took_s - self._smooth_s)
        self._least_s = self._smooth_s if self._least_s is None else min(self._least_s, self._smooth_s)
        if self._smooth_s > _SLOW * self._least_s and begun > self._last_cut:
            self.window = max(1.0, self.window * 0.9)
            self._last_cut = now
        elif self._smooth_s <= _STEADY * self._least_s and in_flight >= int(self.window):
            self.window = min(float(self.most), self.window + 1.0 / self.window)

    def overloaded(self, begun: float, now: float, wait_s: float | None = None) -> None:
        """A request that was begun then was turned away or lost; the server wants to be left alone for `wait_s`."""
        if wait_s is not None:
            self.quiet_until = max(self.quiet_until, now + wait_s)
        if begun >= self._last_cut:
            self.window = max(1.0, self.window / 2)
            self._last_cut = now
            self.cuts += 1
