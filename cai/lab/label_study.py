"""What ways of labelling do to labels and to the model trained on them, against the lab's exact truth.

`cai lab study` asks soft or hard; this asks for more ways, and judges probes besides: a good and a bad reply to one held-out
prompt, real drafts among them. Then, for each seed: the loop drafts, criticises and revises lab prompts; every way judges the
same pairs; each set of labels trains the plain model by DPO; all trained models answer the same held-out prompts. Every call is
kept: killed, the same command goes on. Run it with `python -m cai.lab.label_study OUTPUT`.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cai.engines.local import LocalEngine
from cai.lab.label_table import table
from cai.lab.probes import draw_probes, shipped_drafts
from cai.lab.study.bench import Bench, NothingToTrainOnError
from cai.lab.study.cells import Labelled
from cai.lab.study.recipes import POINTWISE, PRINCIPLES, Labelling, Recipe, labels_by
from cai.lab.study.setup import Setup
from cai.lab.study.steps import CERTAIN_NATS, decided_pairs, labelled, margins_of, turned_round
from cai.lab.suite import as_item
from cai.lab.world import seeded
from cai.labels.candidates import Candidate, Candidates
from cai.labels.debate import with_advocate
from cai.models.loading import open_model
from cai.store import MemoisedEngine, RunFolder, fingerprint, write_bytes_atomically
from constitution.loading import load_constitution


@dataclass(frozen=True, slots=True)
class Way:
    """One way to label.

    Args:
        name: In the table.
        recipe: The demo's, but for its labels and whether revisions are asked for without a critique.
        trained: Whether a model is trained on it, too.
    """

    name: str
    recipe: Recipe
    trained: bool = True


def _way(name: str, labelling: Labelling, *, trained: bool = True, critique_free: bool = False) -> Way:
    return Way(name, Recipe(labelling=labelling, critique_free=critique_free), trained)


def _by(method: str, **changes: Any) -> Labelling:
    return Labelling(settings=labels_by(method, **changes))


def _truth(noise: float = 0.0) -> Labelling:
    return Labelling(hard=True, noise=noise)


_PLAIN_CONTRAST = Labelling(settings=labels_by("contrast"), judge="plain")
_PLAIN_OPPOSITE = Labelling(settings=labels_by("contrast", contrast_against="opposite"), judge="plain")
WAYS: tuple[Way, ...] = (
    _way("pointwise: soft, after a critique, one principle", POINTWISE),
    _way("hard labels", POINTWISE.model_copy(update={"hard": True})),
    _way("verdict without a critique", _by("pointwise", ground_tokens=0)),
    _way("five principles, mean", _by("pointwise", principles=PRINCIPLES)),
    _way("five principles, normalised", _by("pointwise", principles=PRINCIPLES, ensemble="normalised"), trained=False),
    _way("revisions without a critique", POINTWISE, trained=False, critique_free=True),
    _way("letters, one order", Labelling(settings=labels_by("letters"), one_order=True)),
    _way("letters, both orders", _by("letters")),
    _way("letters, both orders, after reasons", _by("letters", reasoning_tokens=48), trained=False),
    _way("letters, both orders, after a debate", _by("letters", debate={"argument_tokens": 48}), trained=False),
    _way(
        "letters, both orders, after a debate of the plain model's",
        _by("letters", debate={"argument_tokens": 48, "advocate": "policy"}),
        trained=False,
    ),
    _way("yes or no", _by("yes_no"), trained=False),
    _way("contrast, judge", _by("contrast")),
    _way("contrast, plain model", _PLAIN_CONTRAST, trained=False),
    _way("contrast with the opposite, plain model", _PLAIN_OPPOSITE, trained=False),
    _way("truth", _truth()),
    _way("truth, 10 % turned round", _truth(0.1)),
    _way("truth, 20 % turned round", _truth(0.2)),
    _way("truth, 30 % turned round", _truth(0.3)),
)


def probe_labels(
    output: Path, n: int, seed: int, ways: Sequence[Way] = WAYS, setup: Setup | None = None
) -> list[dict[str, Any]]:
    """Every way's labels on `n` probes of the shipped principles, whichever answer comes first; one row for each way."""
    setup = setup or Setup()
    constitution = load_constitution(["shipped"]).select(PRINCIPLES)
    rng = seeded(f"{seed}/orders")
    groups: list[Candidates] = []
    truths: list[int] = []
    for number, probe in enumerate(draw_probes("shipped", n, shipped_drafts(), seed=seed)):
        item, good_first = as_item(probe.item), rng.random() < 0.5
        answers = (probe.good.text, probe.bad.text) if good_first else (probe.bad.text, probe.good.text)
        candidates = (Candidate(answers[0]), Candidate(answers[1]))
        groups.append(Candidates(f"{number}", 0, item.messages, candidates, ((0, 1),), (probe.principle,), item.tags))
        truths.append(1 if good_first else -1)
    rows: list[dict[str, Any]] = []
    with RunFolder.open(output / "probes") as run:
        models = {"plain": setup.plain, "feedback": setup.feedback}
        judges = {name: MemoisedEngine(LocalEngine(open_model(spec)), run) for name, spec in models.items()}
        for way in ways:
            labelling = way.recipe.labelling
            if way.recipe.critique_free:
                continue
            asked, margins = groups, turned_round([CERTAIN_NATS * truth for truth in truths], labelling.noise, seed)
            if labelling.settings is not None and labelling.settings.principles == PRINCIPLES:
                asked = [replace(each, principles=constitution.principles) for each in groups]
            if labelling.settings is not None:
                (judge,) = with_advocate([judges[labelling.judge]], lambda: judges["plain"], labelling.settings.debate)
                margins = margins_of(asked, judge, labelling, seed)
            made = labelled(asked, margins, truths, labelling)
            rows.append({"way": way.name, "probes": [each.model_dump() for each in made]})
            print(f"probes: {way.name}", file=sys.stderr, flush=True)
    return rows


def study(
    output: Path,
    seeds: Sequence[int],
    *,
    items: int,
    per_behaviour: int,
    ways: Sequence[Way] = WAYS,
    training: bool = True,
    setup: Setup | None = None,
) -> list[dict[str, Any]]:
    """Label, train and answer by every way, with every seed; one row for each, also kept in `OUTPUT/rows.jsonl`.

    Rows that are there already are not made again, unless by other models, settings or recipes; a model is deleted when it has
    answered. A way that leaves nothing to train on has no answers, and its row says why.
    """
    output.mkdir(parents=True, exist_ok=True)
    path = output / "rows.jsonl"
    rows: list[dict[str, Any]] = [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []
    size = {"items": items, "per_behaviour": per_behaviour if training else 0}
    setup = setup or Setup()
    made_with = {way.name: fingerprint([setup.fingerprint, way.recipe.model_dump(mode="json")]) for way in ways}

    def is_current(row: dict[str, Any]) -> bool:
        return row["size"] == size and row.get("made_with") == made_with.get(row["way"], "")

    done = {(row["way"], row["seed"]) for row in rows if is_current(row)}
    bench = Bench(output, setup, items=items, per_behaviour=per_behaviour)
    try:
        for way, seed in ((way, seed) for seed in seeds for way in ways if (way.name, seed) not in done):
            began_s = time.monotonic()
            labels = bench.labels(way.recipe, seed)
            row: dict[str, Any] = {"way": way.name, "seed": seed, "size": size, "made_with": made_with[way.name]}
            row["labels"] = [label.model_dump() for _, label in labels]
            if training and way.trained:
                row |= _trained(bench, way, seed, labels, output / "models" / f"{_slug(way.name)}-{seed}")
            bench.release()
            rows.append(row)
            write_bytes_atomically(path, "".join(json.dumps(each) + "\n" for each in rows).encode())
            told = f"seed {seed}: {way.name}: {len(labels)} pairs, {time.monotonic() - began_s:.0f} s"
            print(f"{told}; {row['untrained']}" if "untrained" in row else told, file=sys.stderr, flush=True)
    finally:
        bench.close()
    return [row for row in rows if is_current(row)]


def _trained(bench: Bench, way: Way, seed: int, labels: Sequence[tuple[Candidates, Labelled]], folder: Path) -> dict[str, Any]:
    """What a model that is trained on these labels answers, or why there is none."""
    try:
        bench.train(way.recipe, seed, decided_pairs(labels), folder)
    except NothingToTrainOnError as error:
        return {"untrained": error.problem}
    answers = bench.answers(folder, seed)
    shutil.rmtree(folder)
    return {
        "answers": [[each.uid, each.behaviour, each.before == "bad", each.after == "bad"] for each in answers],
        "broken": sum(each.after == "broken" for each in answers),
    }


def _slug(name: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in name).strip("-")


def main() -> None:
    parser = argparse.ArgumentParser(description="Ways of labelling against the lab's exact truth.")
    parser.add_argument("output", type=Path, help="folder for calls, models and rows; the same command goes on there")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--items", type=int, default=280, help="prompts for the loop, each seed (default: %(default)s)")
    parser.add_argument("--per-behaviour", type=int, default=20, help="held-out prompts of each (default: %(default)s)")
    parser.add_argument("--probes", type=int, default=120, help="probes that every way labels (default: %(default)s)")
    parser.add_argument("--labels-only", action="store_true", help="train nothing")
    given = parser.parse_args()

    probes = probe_labels(given.output, given.probes, seed=0)
    rows = study(
        given.output, given.seeds, items=given.items, per_behaviour=given.per_behaviour, training=not given.labels_only
    )
    print(table(probes, rows))


if __name__ == "__main__":
    main()
