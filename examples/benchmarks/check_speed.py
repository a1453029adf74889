"""How long `cai check` takes on many principles: `python examples/benchmarks/check_speed.py`.

Writes a constitution of varied principles, once into one file and once into a file for each, and checks both. Imports are no
part of the times; reading the files from the disk is.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import rapidfuzz.process  # noqa: F401 - the linter imports it when it first compares principles

from constitution.linting import lint
from constitution.loading import load_constitution

VERBS = (
    "Explain",
    "Name",
    "Give",
    "Offer",
    "Keep",
    "Check",
    "Correct",
    "Admit",
    "Mention",
    "Describe",
    "Mark",
    "Prefer",
    "Show",
)
TOPICS = ("sources", "dates", "prices", "names", "risks", "feelings", "rules", "figures", "plans", "secrets", "steps", "tools")
TOPICS += (
    "limits",
    "reasons",
    "doubts",
    "facts",
    "habits",
    "recipes",
    "letters",
    "maps",
    "songs",
    "trains",
    "gardens",
    "boats",
)
TOPICS += ("schools", "clinics", "courts", "banks", "markets", "farms", "rivers", "bridges", "engines")
MANNERS = (
    "kind",
    "brief",
    "exact",
    "calm",
    "open",
    "fair",
    "plain",
    "honest",
    "careful",
    "friendly",
    "patient",
    "modest",
    "clear",
)


def principle(number: int, draw: random.Random) -> str:
    """One principle with all that a principle may have, as an entry of a YAML list."""
    verb, manner = draw.choice(VERBS), draw.choice(MANNERS)
    one, two, three, four = draw.sample(TOPICS, 4)
    condition = "{% if words > 20 %} or two{% endif %}" if number % 5 == 0 else ""
    return f"""\
  - id: {verb.lower()}-{one}-{number}
    principle: {verb} {one} in a {manner} way when {two} or {three} come up, in at most {{{{ words }}}} words{condition}.
    rationale: >-
      People who read about {one} want {two}
      more than {four}, and case {number} showed it.
    weight: {draw.uniform(0.1, 3):.2f}
    applies_to: [{one}, {two}]
    parameters: {{words: {draw.randint(5, 50)}}}
    critique_request: Does the reply leave {one} out, or take more than {{{{ words }}}} words about {two}?
    revision_request: Rewrite the reply so that it is {manner} about {one} in {{{{ words }}}} words.
    preference_question: Which reply is more {manner} about {one}?
    tests:
      - prompt: Tell me about {two}, number {number}.
        better: Here is what I know about {two}, {manner} and plain.
        worse: There is nothing at all to say about {four}, I fear.
      - prompt: What of {three} number {number}?
        better: It depends on {one}, as far as I can tell.
        worse: Go away with your {two} now and then.
"""


def write_constitution(folder: Path, count: int, *, files: int) -> Sequence[Path]:
    """Write `count` principles, spread evenly over `files` files."""
    draw = random.Random(0)  # noqa: S311 - the same constitution every time is the point
    entries = [principle(number, draw) for number in range(count)]
    share = -(-count // files)
    paths: list[Path] = []
    for number in range(files):
        path = folder / f"part-{number:04}.yaml"
        path.write_text(f"name: part {number}\nprinciples:\n" + "\n".join(entries[number * share : (number + 1) * share]))
        paths.append(path)
    return paths


@dataclass(frozen=True)
class Timing:
    """Seconds of processor time, the best of several; `findings` are those of the check."""

    files: int
    check: float
    load: float
    findings: int


def measure(count: int, *, files: int, times: int) -> Timing:
    """Check and load one constitution several times."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_constitution(folder, count, files=files)
        checks: list[float] = []
        loads: list[float] = []
        findings = 0
        for _ in range(times):
            started = time.process_time()
            findings = len(lint([folder]).findings)
            checks.append(time.process_time() - started)
            started = time.process_time()
            load_constitution([folder])
            loads.append(time.process_time() - started)
        return Timing(files, min(checks), min(loads), findings)


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--principles", type=int, default=1000, help="how many principles (default: %(default)s)")
    parser.add_argument("--times", type=int, default=3, help="the best of so many (default: %(default)s)")
    given = parser.parse_args(arguments)
    for files in (1, given.principles):
        timing = measure(given.principles, files=files, times=given.times)
        print(
            f"{given.principles} principles in {files:>4} file{'s' * (files > 1)}: check {timing.check:.2f} s, "
            f"load {timing.load:.2f} s, {timing.findings} findings"
        )


if __name__ == "__main__":
    main(sys.argv[1:])
