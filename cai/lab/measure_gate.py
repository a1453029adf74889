"""How good the gate is, against the lab's exact truth: held-out probes, real drafts among them, through `cai.loop.gate`.

Three kinds of revision are put before it: good replies made bad under another principle (to be turned down), bad replies made
good (to be let in), and replies replaced by a bare refusal (to be turned down wherever the request was harmless).
Run it with `python -m cai.lab.measure_gate`.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from cai.engines.base import Engine, RequestFailure
from cai.lab.probes import Probe, draw_probes, shipped_drafts
from cai.lab.suite import as_item
from cai.loop.gate import Candidate, Case, Gate, Ruled
from cai.loop.settings import GateSettings
from cai.models.spec import ModelSpec
from constitution.loading import load_constitution
from constitution.schema import Constitution, Principle

Kind: TypeAlias = Literal["made worse", "mended", "refused"]
REFUSALS = ("I'm sorry, but I can't help with that.", "I won't help with that.")


@dataclass(frozen=True, slots=True)
class Trial:
    """One revision of a reply; `family` is the lab item's."""

    kind: Kind
    family: str
    case: Case
    after: str


def trials(probes: Sequence[Probe], constitution: Constitution) -> Iterator[Trial]:
    """What is put before the gate. Courtesy has no request to refuse, so its probes have two kinds."""
    manner, facts = (constitution.by_id(name) for name in ("courtesy-without-flattery", "correct-false-claims"))
    for number, probe in enumerate(probes):
        other = manner if probe.principle.id != manner.id else facts
        good, bad = probe.good.text, probe.bad.text
        yield Trial("made worse", probe.item.family, _case(probe, number, good, other, (probe.principle,)), bad)
        yield Trial("mended", probe.item.family, _case(probe, number, bad, probe.principle, ()), good)
        if probe.item.family != "courtesy":
            yield Trial(
                "refused", probe.item.family, _case(probe, number, good, other, (probe.principle,)), REFUSALS[number % 2]
            )


def _case(probe: Probe, number: int, before: str, own: Principle, earlier: tuple[Principle, ...]) -> Case:
    item = as_item(probe.item)
    return Case(
        conversation=item.messages,
        tags=item.tags,
        before=before,
        own=own,
        earlier=earlier,
        grounds={},
        name=(str(number), 0),
        noise_key=f"0/{number}/0/gate/0",
    )


def measure(asked: Sequence[Trial], gate: Gate) -> Counter[tuple[Kind, str, bool]]:
    """(kind, family, turned down) → how many.

    Raises:
        RuntimeError: If a verdict could not be had.
    """
    drawn = [Candidate(trial.after, "", cut=False) for trial in asked]
    counts: Counter[tuple[Kind, str, bool]] = Counter()
    for place, found in gate.rule([trial.case for trial in asked], drawn, lambda _places, _attempt: {}).items():
        counts[asked[place].kind, asked[place].family, _turned_down(found)] += 1
    return counts


def _turned_down(found: Ruled | RequestFailure) -> bool:
    if isinstance(found, Ruled):
        return found.candidate is None
    raise RuntimeError(f"a revision could not be judged: {found.cause}: {found.detail}")


def table(counts: Counter[tuple[Kind, str, bool]]) -> str:
    """Turned down of all, by family and kind."""
    kinds: tuple[Kind, ...] = ("made worse", "mended", "refused")
    families = sorted({family for _, family, _ in counts})

    def cell(kind: Kind, some: Iterable[str]) -> str:
        down, let_in = (sum(counts[kind, family, turned_down] for family in some) for turned_down in (True, False))
        return f"{down}/{down + let_in}"

    rows = [("turned down of", *kinds)]
    rows += [(family, *(cell(kind, [family]) for kind in kinds)) for family in families]
    rows.append(("all", *(cell(kind, families) for kind in kinds)))
    return "\n".join("".join(f"{text:>16}" for text in row) for row in rows)


def run(engine: Engine, settings: GateSettings, n: int, seed: int) -> Counter[tuple[Kind, str, bool]]:
    """Draw the probes of the shipped principles and put them before a gate."""
    constitution = load_constitution(["shipped"])
    probes = draw_probes("shipped", n, shipped_drafts(), seed=seed)
    return measure(list(trials(probes, constitution)), Gate(engine, settings, constitution))


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the loop's gate against exact truth.")
    parser.add_argument("--adapter", default="feedback", help="adapter folder, or `feedback` for the one that comes along")
    parser.add_argument("--model", default="smollm2-135m", help="the plain model (default: %(default)s)")
    parser.add_argument("--n", type=int, default=48, help="probes (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--tolerance", type=float, default=GateSettings().tolerance_nats, help="nats (default: %(default)s)")
    arguments = parser.parse_args()

    from cai.engines.local import LocalEngine
    from cai.models.loading import open_model

    started = time.monotonic()
    engine = LocalEngine(open_model(ModelSpec(name=arguments.model, adapter=arguments.adapter)))
    settings = GateSettings(tolerance_nats=arguments.tolerance)
    print(table(run(engine, settings, arguments.n, arguments.seed)))
    print(f"{time.monotonic() - started:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
