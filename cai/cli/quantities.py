"""Times, amounts and rates in words, as short as they are true. Loads nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cai.store.heartbeat import Estimate, Figures

_UNITS_OF_TIME = ((86_400.0, "d", 3600.0, "h"), (3600.0, "h", 60.0, "min"), (60.0, "min", 1.0, "s"))
_UNITS_OF_MEMORY = ("B", "KiB", "MiB", "GiB", "TiB")


def duration(seconds: float) -> str:
    """`8 s`, `2 min 5 s`, `3 h 20 min`, `2 d 4 h`."""
    whole = round(max(0.0, seconds))
    for size, name, smaller, smaller_name in _UNITS_OF_TIME:
        if whole >= size:
            large, rest = divmod(whole, int(size))
            return f"{large} {name}" + (f" {rest // int(smaller)} {smaller_name}" if rest // int(smaller) else "")
    return f"{whole} s"


def between(estimate: Estimate) -> str:
    """`12–15 min`, `50 s – 2 min`, `12 min` where both ends round alike, `over 12 min` without an upper bound."""
    low_unit, low = _scaled(estimate.low_s, estimate.low_s)
    if estimate.high_s is None:
        return f"over {low} {low_unit}"
    unit, high = _scaled(estimate.high_s, estimate.high_s)
    _, same = _scaled(estimate.low_s, estimate.high_s)
    if same == high:
        return f"{high} {unit}"
    return f"{same}–{high} {unit}" if same != "0" else f"{low} {low_unit} – {high} {unit}"


def _scaled(seconds: float, like_s: float) -> tuple[str, str]:
    """The unit fit for `like_s`, and `seconds` in it."""
    if like_s >= 2 * 86_400:
        return "d", f"{seconds / 86_400:.1f}"
    if like_s >= 2 * 3600:
        return "h", f"{seconds / 3600:.1f}"
    return ("min", f"{seconds / 60:.0f}") if like_s >= 100 else ("s", f"{seconds:.0f}")


def memory(amount_bytes: float) -> str:
    """`1.2 GiB`."""
    unit = 0
    while amount_bytes >= 1024 and unit < len(_UNITS_OF_MEMORY) - 1:
        amount_bytes, unit = amount_bytes / 1024, unit + 1
    return f"{amount_bytes:.0f} {_UNITS_OF_MEMORY[unit]}" if unit < 2 else f"{amount_bytes:.1f} {_UNITS_OF_MEMORY[unit]}"


def rate(per_second: float) -> str:
    """`1,234`, `12`, `0.3`."""
    return f"{per_second:,.0f}" if per_second >= 10 else f"{per_second:.1f}"


def speed_and_memory(figures: Figures) -> list[str]:
    """Tokens a second, occupancy, memory: what is known of them."""
    parts: list[str] = []
    rates = [
        f"{name} {rate(value)}"
        for name, value in (("in", figures.prompt_tokens_per_s), ("out", figures.completion_tokens_per_s))
        if value is not None
    ]
    if rates:
        parts.append(f"tokens/s {' '.join(rates)}")
    if figures.occupancy is not None:
        parts.append(f"batch {figures.occupancy:.0%} full")
    if figures.running or figures.waiting:
        parts.append(f"{figures.running:,} in work, {figures.waiting:,} waiting")
    if figures.rss_bytes:
        parts.append(f"memory {memory(figures.rss_bytes)}")
    if figures.gpu_bytes is not None and figures.gpu_total_bytes is not None:
        parts.append(f"GPU {memory(figures.gpu_bytes)} of {memory(figures.gpu_total_bytes)}")
    return parts


def calls_and_reuse(figures: Figures) -> list[str]:
    """Calls made and remembered, prompt tokens that were not computed again, and trouble that was overcome."""
    parts: list[str] = []
    if figures.computed or figures.remembered:
        parts.append(f"calls {figures.computed:,} made, {figures.remembered:,} remembered")
    if figures.reused_share is not None:
        parts.append(f"{figures.reused_share:.0%} of prompt tokens reused")
    if figures.retries:
        parts.append(f"{figures.retries:,} sent again")
    if figures.smaller_batches:
        parts.append(f"out of memory {figures.smaller_batches} times, gone on with smaller batches")
    return parts


def failures(figures: Figures) -> list[str]:
    """Failed calls by kind and cause, the commonest first."""
    return [f"{count:,} {name}" for name, count in sorted(figures.failed_calls.items(), key=lambda entry: -entry[1])]
