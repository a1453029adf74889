"""Numbers as people read them, and long texts cut to a line. Knows no HTML."""

from __future__ import annotations


def percent(share: float) -> str:
    """A share of answers; one that is not quite none or all is not called so."""
    if 0 < share < 0.005:
        return "< 1 %"
    if 0.995 <= share < 1:
        return "> 99 %"
    return f"{share:.0%}".replace("%", " %")


def points(difference: float) -> str:
    """A difference of shares, in percentage points."""
    return signed(100 * difference)


def signed(number: float) -> str:
    """A whole number with its sign; 0 has none."""
    return f"{round(number):+d}".replace("-", "−") if round(number) else "0"


def p_value(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.2g}" if p < 0.1 else f"{p:.2f}"


def plain(number: float, digits: int = 6) -> str:
    """A number of any size, with a true minus sign."""
    return f"{number:.{digits}g}".replace("-", "−")


def thousands(number: float) -> str:
    return f"{number:,.0f}"


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def shortened(text: str, limit: int = 180) -> str:
    """The beginning of a text on one line."""
    line = " ".join(text.split())
    return line if len(line) <= limit else f"{line[: limit - 1].rstrip()}…"


def signed_nats(nats: float) -> str:
    """Log-odds, with their sign and unit."""
    return f"{nats:+.2f} nats".replace("-", "−")
