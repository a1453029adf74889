"""Before and after on lab prompts that nothing was chosen by: `python examples/benchmarks/fresh_prompts.py MODEL …`.

The demo prints the share of bad answers on the prompts of seed 0, and its settings were chosen by that very table. This leaves
those prompts out, draws others from the held-out part of the world, and answers each greedily and three times at temperature 1.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence

from rich.console import Console

from cai.cli.summary import print_evaluation
from cai.config.settings import EngineSettings
from cai.engines.opening import open_engine
from cai.evaluation.before_after import evaluate
from cai.evaluation.results import EvaluationResult
from cai.evaluation.settings import EvaluationSettings
from cai.evaluation.suites import Trial
from cai.lab.suite import LabSuite
from cai.models.spec import ModelSpec

DEMO_PROMPTS = 20
DEMO_SEED = 0
SPARE = 10
"""More prompts are drawn than are wanted: some of them are the demo's."""


def fresh_trials(per_behaviour: int, seed: int) -> tuple[Trial, ...]:
    """Up to `per_behaviour` trials of each behaviour, none with a prompt of the demo's evaluation."""
    seen = {trial.item.messages for trial in LabSuite.draw(DEMO_PROMPTS, seed=DEMO_SEED).trials}
    chosen: dict[str, list[Trial]] = {}
    for trial in LabSuite.draw(per_behaviour + SPARE, seed=seed).trials:
        if trial.item.messages not in seen:
            chosen.setdefault(trial.behaviour, []).append(trial)
    return tuple(trial for trials in chosen.values() for trial in trials[:per_behaviour])


def measure(before: ModelSpec, after: ModelSpec, trials: tuple[Trial, ...], *, seeds: int, seed: int) -> EvaluationResult:
    """Both models on the same prompts with the same noise."""
    suite = LabSuite(trials)
    settings = EvaluationSettings(temperatures=(0.0, 1.0), seeds=seeds, max_tokens=40, showcase=())
    limits = EngineSettings()
    return evaluate(open_engine(before, limits), open_engine(after, limits), suite, settings, seed=seed)


def spread(results: Sequence[EvaluationResult]) -> Iterator[str]:
    """What several trainings of one recipe came to: a line per behaviour, of all answers together and of each temperature."""
    tables = {
        "all": [each.rows for each in results],
        **{name: [each.by_temperature[name] for each in results] for name in results[0].by_temperature},
    }
    for name, trainings in tables.items():
        for rows in zip(*trainings, strict=True):
            after = [row.after for row in rows]
            low, mean, high = min(after), sum(after) / len(after), max(after)
            found = f"{rows[0].before:.1%} → {mean:.1%}  ({low:.1%} to {high:.1%}, {len(rows)} trainings)"
            yield f"{name:<7} {rows[0].label:<32} {found}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="+", metavar="MODEL", help="trained models, for example runs/demo/dpo")
    parser.add_argument("--before", default="smollm2-135m", help="the model before training (default: %(default)s)")
    parser.add_argument("--prompts", type=int, default=40, help="prompts for each behaviour (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="answers to each prompt at temperature 1 (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=7, help="which prompts, and the noise (default: %(default)s)")
    given = parser.parse_args()
    trials = fresh_trials(given.prompts, given.seed)
    console = Console(highlight=False)
    results: list[EvaluationResult] = []
    for model in given.models:
        result = measure(ModelSpec(name=given.before), ModelSpec(name=model), trials, seeds=given.seeds, seed=given.seed)
        print_evaluation(result, console)
        for name, rows in result.by_temperature.items():
            for row in rows:
                console.print(f"{name:<7} {row.label:<32} {row.before:.1%} → {row.after:.1%}  ({row.answers} answers)")
        results.append(result)
    for line in spread(results) if len(results) > 1 else ():
        console.print(line)


if __name__ == "__main__":
    main()
