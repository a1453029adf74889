"""How figures of the study are written: points with their interval, shares, tables in Markdown. Names no place of anybody."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from cai.lab.study.cells import Made
from cai.lab.study.figures import BehaviourChange, Estimate, ModelFigures, Share
from cai.lab.suite import BEHAVIOURS
from cai.models.spec import ModelSpec

NOTHING = "–"


def said(estimate: Estimate, what: str) -> str:
    """A change in words, whether that is one or none."""
    if not estimate.leaves_out_zero:
        return f"no difference shown in {what} ({points(estimate)} points)"
    return f"{'more' if estimate.value > 0 else 'fewer'} {what} ({points(estimate)} points)"


def named(spec: ModelSpec) -> str:
    """A model without the folders of whoever has it."""
    names = (Path(name).name if Path(name).exists() else name for name in (spec.name, spec.adapter) if name)
    return " with the adapter ".join(names)


def days(made: Sequence[Made]) -> str:
    """On which it was made, from the first to the last."""
    dates = sorted({each.at[:10] for each in made})
    return f"{dates[0]} to {dates[-1]}" if len(dates) > 1 else "".join(dates) or "not yet"


def machines(made: Sequence[Made]) -> str:
    """What it was made on."""
    return "; ".join(sorted({_machine(each) for each in made})) or "none yet"


def versions(made: Sequence[Made]) -> str:
    """Of the packages that it was made with."""
    return "; ".join(sorted({_versions(each) for each in made})) or "none yet"


def lost_rows(counted: Sequence[dict[str, int]]) -> str:
    """Rows that came to nothing, in the mean of several pieces of work, by reason."""
    reasons: Counter[str] = Counter()
    for each in counted:
        reasons.update(each)
    return ", ".join(f"{reason} {count / len(counted):.1f}" for reason, count in reasons.most_common()) or "nothing"


def behaviours_alone(figures: ModelFigures) -> list[str]:
    """Lines of a list, one for each behaviour: a mean hides what goes the other way."""
    lines: list[str] = []
    for name, behaviour in BEHAVIOURS.items():
        own = figures.by_behaviour.get(name)
        if own is not None:
            verdict = ("worse" if own.change.value > 0 else "better") if own.change.leaves_out_zero else "no difference shown"
            shares = f"{own.before:.0%} → {own.after:.0%}"
            lines.append(f"  - *{behaviour.label}* ({behaviour.kind}): {shares} ({points(own.change)} points), {verdict}.")
    return lines


def _machine(made: Made) -> str:
    known = made.environment
    return f"{known.get('cpu', 'an unknown processor')}, {known.get('cores', '?')} cores, {known.get('memory_gb', '?')} GB"


def _versions(made: Made) -> str:
    packages = ("constitution-cai", "torch", "transformers", "peft")
    return ", ".join(f"{name} {version}" for name in packages if (version := made.packages.get(name)))


def points(estimate: Estimate) -> str:
    """In points, with its interval."""
    return f"{signed(100 * estimate.value)} [{signed(100 * estimate.interval.low)}, {signed(100 * estimate.interval.high)}]"


def nats(found: ModelFigures) -> str:
    """Distance from the start, a token."""
    if found.nats_per_token is None:
        return NOTHING
    interval = found.nats_per_token.interval
    return f"{found.nats_per_token.value:.2f} [{interval.low:.2f}, {interval.high:.2f}]".replace("-", "−")


def signed(number: float) -> str:
    """A whole number with its sign; what rounds to nothing is never negative."""
    return f"{round(number):+d}".replace("-", "−")


def share(found: Share | None) -> str:
    """Of labels, with its interval."""
    if found is None:
        return NOTHING
    return f"{found.value:.0%} [{100 * found.interval.low:.0f}, {100 * found.interval.high:.0f}]"


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; a bar in a cell is escaped."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |" for cells in lines)


def behaviour_table(rows: Iterable[tuple[str, ModelFigures]]) -> str:
    """Shares of bad answers, before → after; in bold where the interval of the change leaves out 0."""
    header = ("variant", *(f"{b.label} ({b.kind})" for b in BEHAVIOURS.values()))
    lines: list[Sequence[str]] = []
    for name, figures in rows:
        found = [figures.by_behaviour.get(behaviour) for behaviour in BEHAVIOURS]
        lines.append((name, *(NOTHING if each is None else _shares(each) for each in found)))
    return markdown(header, lines)


def _shares(found: BehaviourChange) -> str:
    told = f"{found.before:.0%} → {found.after:.0%}"
    return f"**{told}**" if found.change.leaves_out_zero else told
