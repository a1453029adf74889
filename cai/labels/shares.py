"""A share of something counted, with its interval: what every figure about a labeller is stated as."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from cai.statistics import Interval, wilson_interval


class Share(BaseModel):
    """`count` of `n`, and the 95 % interval (Wilson 1927) of the share. What cannot be told apart counts half."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    count: float
    n: int
    share: float
    low: float
    high: float

    @classmethod
    def of(cls, count: float, n: int) -> Share | None:
        """The share; None of nothing."""
        if not n:
            return None
        interval = wilson_interval(count, n)
        return cls(count=count, n=n, share=count / n, low=interval.low, high=interval.high)

    @property
    def interval(self) -> Interval:
        return Interval(self.low, self.high)

    def __str__(self) -> str:
        return f"{self.share:.0%} of {self.n} (95 % interval {self.low:.0%} to {self.high:.0%})"
