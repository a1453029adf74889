"""Draws runs of `cai rl` beside each other: reward, truth and KL by step, and truth by √KL.

python curves.py runs/loose runs/leashed > curves.svg      # the table goes to stderr
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from statistics import fmean

WINDOW = 5
WIDTH, HEIGHT, MARGIN = 320, 200, 52
COLOURS = ("#c2410c", "#1d4ed8", "#15803d")
PANELS = (
    ("reward (cautious words)", "step", "reward"),
    ("truth (share of good replies)", "step", "truth"),
    ("KL to the reference (nats a reply)", "step", "kl"),
    ("truth by √KL", "root_kl", "truth"),
)
TABLE = ("reward", "truth", "kl", "entropy", "length", "repeated", "duplicates")

Row = dict[str, float]


def read(folder: Path) -> list[Row]:
    """Means of `WINDOW` steps each (the last may have fewer): a step's 24 replies are few."""
    rows: list[Row] = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    names = ("step", *TABLE)
    last = int(rows[-1]["step"])
    means = [
        {name: fmean(row[name] for row in rows[at : at + WINDOW] if name in row) for name in names}
        for at in range(0, len(rows), WINDOW)
    ]
    ends = range(WINDOW, last + WINDOW, WINDOW)
    return [
        {**row, "root_kl": math.sqrt(max(0.0, row["kl"])), "first": end - WINDOW + 1, "last": min(end, last)}
        for row, end in zip(means, ends, strict=True)
    ]


def panel(title: str, x: str, y: str, runs: dict[str, list[Row]], left: float, top: float) -> list[str]:
    """One plot as SVG elements."""
    xs = [row[x] for rows in runs.values() for row in rows]
    ys = [row[y] for rows in runs.values() for row in rows]
    low, high = min(0.0, *ys), max(ys) or 1.0
    first, last = min(0.0, *xs), max(xs) or 1.0

    def place(row: Row) -> tuple[float, float]:
        across = left + MARGIN + (row[x] - first) / (last - first) * (WIDTH - MARGIN - 20)
        down = top + HEIGHT - MARGIN - (row[y] - low) / (high - low) * (HEIGHT - MARGIN - 30)
        return round(across, 1), round(down, 1)

    lines = [f'<text x="{left + 8}" y="{top + 18}" font-weight="bold">{title}</text>']
    for value in (low, (low + high) / 2, high):
        _, down = place({x: first, y: value})
        lines.append(f'<line x1="{left + MARGIN}" x2="{left + WIDTH - 20}" y1="{down}" y2="{down}" stroke="#ddd"/>')
        lines.append(f'<text x="{left + MARGIN - 5}" y="{down + 4}" text-anchor="end">{value:.3g}</text>')
    for value in (first, last):
        across, _ = place({x: value, y: low})
        lines.append(f'<text x="{across}" y="{top + HEIGHT - MARGIN + 16}" text-anchor="middle">{value:.3g}</text>')
    for colour, rows in zip(COLOURS, runs.values(), strict=False):
        points = " ".join(f"{across},{down}" for across, down in map(place, rows))
        lines.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        lines += [f'<circle cx="{a}" cy="{b}" r="2.5" fill="{colour}"/>' for a, b in map(place, rows)]
    return lines


def main() -> None:
    runs = {Path(name).name: read(Path(name)) for name in sys.argv[1:]}
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {2 * WIDTH} {2 * HEIGHT + 24}" font-family="sans-serif" '
        'font-size="11"><rect width="100%" height="100%" fill="white"/>'
    ]
    for number, each in enumerate(PANELS):
        parts += panel(*each, runs, WIDTH * (number % 2), HEIGHT * (number // 2))
    for number, (colour, name) in enumerate(zip(COLOURS, runs, strict=False)):
        parts.append(f'<text x="{20 + 120 * number}" y="{2 * HEIGHT + 14}" fill="{colour}" font-weight="bold">{name}</text>')
    print("\n".join([*parts, "</svg>"]))
    for name, rows in runs.items():
        print(f"\n| {name}: steps | " + " | ".join(TABLE) + " |\n|" + " --- |" * (len(TABLE) + 1), file=sys.stderr)
        for row in rows:
            steps = f"{row['first']:.0f}–{row['last']:.0f}"
            print(f"| {steps} | " + " | ".join(f"{row[each]:.2f}" for each in TABLE) + " |", file=sys.stderr)


if __name__ == "__main__":
    main()
