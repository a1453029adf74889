"""A calibration: real calls on a sample of a run's own prompts, and what they tell of the time that the rest will take.

First a few prompts go all the way, so that every kind of call is seen; then as many together as the time allows, since a full
batch is cheaper a token than a small one. The calls are those of the run itself: they are kept, and it makes none again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, pvariance
from typing import Any

from cai.engines.opening import SLOTS
from cai.loop import run_loop
from cai.pipeline.generating import labels
from cai.pipeline.plans import Plan, PlannedCalls
from cai.pipeline.preflight import Inputs
from cai.pipeline.session import Session
from cai.pipeline.speeds import Seconds, Speeds, Stretch, Work, fit
from cai.records import Item, RevisionRecord, Stage
from cai.store import MemoisedEngine, RunFolder, Usage
from cai.store.canonical import fingerprint

PILOT_ITEMS = 4
PILOT_SHARE = 3.0
"""The first few may take so many times as long as was asked for: before they are through, there is little to say."""
LEAST_STRETCH_S = 0.3
_BY_POLICY = ("draft", "evaluate")
SCORE = "score"
ARGUE = "argue"
_BY_LABELLERS = (SCORE, "verdict", "reason", ARGUE)
"""The kind of call that is scored; every other one is drawn."""
EXAMPLES = 1000


@dataclass(frozen=True, slots=True)
class Calibration:
    """What was seen of the engines.

    Args:
        seconds: It took, loading of models included.
        items: Prompts that went through.
        names: Of the models; one where the policy gives its own feedback.
        speeds: None where too little was seen.
        occupancy: Of each model's slots, while it decoded (0: it drew nothing).
        rows_at_once: So many rows were in work together, at most.
        computed_share: Of the prompt tokens of each model's calls, those that went through it; the others were there already.
    """

    seconds: float
    items: int
    names: tuple[str, ...]
    speeds: Speeds | None
    occupancy: tuple[float, ...]
    rows_at_once: int
    computed_share: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class CallsForecast:
    """One kind of call and the seconds its calls will take; None where nothing tells."""

    name: str
    calls: int
    seconds: Seconds | None


@dataclass(frozen=True, slots=True)
class Forecast:
    """A calibrated plan: how long the model calls that are still to be made will take, kind by kind and together."""

    calibration: Calibration
    calls: tuple[CallsForecast, ...]
    total: Seconds | None

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        calibration = self.calibration
        models = [
            {
                "name": name,
                "prompt_tokens_per_s": speeds.prompt_tokens_per_s(n) if (speeds := calibration.speeds) else None,
                "completion_tokens_per_s": (
                    speeds.completion_tokens_per_s(n, calibration.occupancy[n]) if (speeds := calibration.speeds) else None
                ),
                "occupancy": calibration.occupancy[n],
            }
            for n, name in enumerate(calibration.names)
        ]
        return {
            "calibration": {"seconds": calibration.seconds, "items": calibration.items, "models": models},
            "calls": [asdict(each) for each in self.calls],
            "total": asdict(self.total) if self.total else None,
        }


def calibrate(session: Session, *, seconds: float, until: Stage = Stage.EVALUATE) -> Calibration:
    """Make calls of the run for about so many seconds after the first answer; fewer, where the run has no more to ask.

    Raises:
        ModelError: If a model cannot be used after all.
    """
    with session.meter.phase("calibrate"):
        return _Calibrating(session, seconds, label=until is not Stage.GENERATE).run()


class _TimeIsUpError(Exception):
    """Ends the calls in work; what is finished is kept."""


class _Calibrating:
    def __init__(self, session: Session, seconds: float, *, label: bool) -> None:
        self._session = session
        self._seconds = seconds
        self._label = label
        config = session.inputs.config
        self._specs = list(dict.fromkeys(config.models.values()))
        self._engines: list[MemoisedEngine] = [session.engine(spec) for spec in self._specs]
        self._stretches: list[Stretch] = []
        self._before: list[_Amounts] = []
        self._at_s = time.monotonic()
        self._first_s: float | None = None
        """When the first answer came: before it, weights were read."""
        self._patience_s = PILOT_SHARE * seconds
        self._batch_began: list[_Amounts] = []

    def run(self) -> Calibration:
        session, config = self._session, self._session.inputs.config
        began_s = time.monotonic()
        # By their names' digests: the sample does not hang on the order of the rows, and is the same the next time.
        wanted = list(session.inputs.training_items)
        wanted.sort(key=lambda item: fingerprint([config.seed, "calibration", item.uid]))
        pilot, rest = wanted[:PILOT_ITEMS], wanted[PILOT_ITEMS:]
        self._start_batch()
        done = self._go(pilot)
        pilot_s = self._worked_s()
        rows = len(pilot)
        left_s = self._seconds - pilot_s
        self._patience_s = self._seconds
        if done == len(pilot) and rest and left_s > 0:
            fitting = round(left_s / max(pilot_s, 1e-3) * len(pilot))
            rows = max(len(pilot), min(fitting, (config.engine.max_batch or SLOTS) // config.loop.replicas, len(rest)))
            self._start_batch()
            while rest and self._worked_s() < self._seconds:
                done += self._go(rest[:rows])
                rest = rest[rows:]
        decoded = [
            (now.row_steps - then.row_steps, now.slot_steps - then.slot_steps)
            for now, then in zip(self._amounts(), self._batch_began, strict=True)
        ]
        return Calibration(
            seconds=time.monotonic() - began_s,
            items=done,
            names=tuple(map(str, self._specs)),
            speeds=fit(self._stretches, len(self._engines)),
            occupancy=tuple(used / there if there else 0.0 for used, there in decoded),
            rows_at_once=rows * config.loop.replicas,
            computed_share=tuple(self._computed_share(n) for n in range(len(self._engines))),
        )

    def _go(self, items: Sequence[Item]) -> int:
        """Take these all the way; returns how many got there before the time was up."""
        session, config = self._session, self._session.inputs.config
        constitution, seed = session.inputs.constitution, config.seed
        made: list[RevisionRecord] = []
        try:
            loop = run_loop(
                items,
                constitution,
                session.policy,
                session.feedback,
                config.loop,
                seed=seed,
                on_event=lambda event: self._note(event.stage, event.done, event.total),
            )
            made += [each for each in loop if isinstance(each, RevisionRecord)]
            if self._label:
                for _ in labels(
                    lambda: made, session.inputs, session.labellers, lambda done, total, _: self._note("label", done, total)
                ):
                    pass  # asked for, not kept
        except _TimeIsUpError:
            return 0
        return len(items)

    def _note(self, stage: str, done: int, total: int) -> None:
        self._session.tell(f"calibrate: {stage}", done, total)
        now = time.monotonic()
        self._first_s = self._first_s or now
        if now - self._at_s >= LEAST_STRETCH_S:
            self._look(now)
        if self._worked_s() >= self._patience_s:
            raise _TimeIsUpError

    def _worked_s(self) -> float:
        return 0.0 if self._first_s is None else time.monotonic() - self._first_s

    def _look(self, now: float) -> None:
        """Book the stretch since the last look to the engine that worked in it; one in which two did is nobody's."""
        amounts = self._amounts()
        worked = [n for n, (before, after) in enumerate(zip(self._before, amounts, strict=True)) if before != after]
        # The first stretch of an engine holds the reading of its weights.
        if len(worked) == 1 and self._before[worked[0]] != _Amounts():
            before, after = self._before[worked[0]], amounts[worked[0]]
            self._stretches.append(
                Stretch(
                    worked[0],
                    now - self._at_s,
                    after.prompt_tokens - before.prompt_tokens,
                    after.slot_steps - before.slot_steps,
                    after.completion_tokens - before.completion_tokens,
                    after.scored_tokens - before.scored_tokens,
                )
            )
        self._before, self._at_s = amounts, now

    def _start_batch(self) -> None:
        self._before = self._batch_began = self._amounts()
        self._at_s = time.monotonic()

    def _amounts(self) -> list[_Amounts]:
        return [_Amounts.of(engine) for engine in self._engines]

    def _computed_share(self, number: int) -> float:
        told = self._engines[number].statistics()
        asked = told.prompt_tokens + told.reused_tokens
        return told.prompt_tokens / asked if asked else 1.0


@dataclass(frozen=True, slots=True)
class _Amounts:
    """What an engine has done so far."""

    prompt_tokens: int = 0
    slot_steps: int = 0
    completion_tokens: int = 0
    scored_tokens: int = 0
    row_steps: int = 0

    @classmethod
    def of(cls, engine: MemoisedEngine) -> _Amounts:
        told, scored = engine.statistics(), engine.usage().get(SCORE, Usage())
        return cls(told.prompt_tokens, told.slot_steps, told.completion_tokens, scored.prompt_tokens, told.row_steps)


def foretell(plan: Plan, inputs: Inputs, calibration: Calibration) -> Forecast:
    """How long the calls of a plan (made after the calibration) will take."""
    with RunFolder.open(inputs.config.run, read_only=True) as folder:
        lengths = {each.name: _lengths(folder, each.name) for each in plan.calls}
    works = {each.name: _work(each, plan, inputs, calibration, lengths) for each in plan.calls if each.calls}
    speeds = calibration.speeds
    calls = [
        CallsForecast(each.name, each.calls, speeds.seconds([works[each.name]]) if speeds and each.calls else None)
        for each in plan.calls
    ]
    return Forecast(calibration, tuple(calls), speeds.seconds([*works.values()]) if speeds else None)


def _lengths(folder: RunFolder, name: str) -> Sequence[int]:
    """Tokens of stored answers of one kind."""
    found = (json.loads(text) for text in folder.calls.examples(name, "generate", EXAMPLES))
    return [each["completion_tokens"] for each in found]


def _work(
    calls: PlannedCalls, plan: Plan, inputs: Inputs, calibration: Calibration, lengths: Mapping[str, Sequence[int]]
) -> Work:
    config = inputs.config
    asked = config.policy if calls.name in _BY_POLICY else config.feedback_or_policy
    debate = config.labels.debate
    if calls.name == ARGUE and debate is not None and debate.advocate == "policy":
        asked = config.policy
    elif calls.name in _BY_LABELLERS:
        asked = config.labellers[0]  # several are taken to be alike
    engine = list(dict.fromkeys(config.models.values())).index(asked)
    variance = _relative_variance(calls, plan, lengths)
    if calls.name == SCORE:
        return Work(engine, 0, 0, 0, calls.prompt_tokens, variance)
    slots = config.engine.max_batch or SLOTS
    rows = min(slots, max(1, calls.calls))
    filled = calibration.occupancy[engine] * slots / max(1, min(calibration.rows_at_once, slots))
    occupancy = min(1.0, filled * rows / slots)
    return Work(
        engine,
        calls.prompt_tokens * calibration.computed_share[engine],
        calls.new_tokens / occupancy if occupancy else 0.0,
        calls.new_tokens,
        relative_variance=variance,
    )


def _relative_variance(calls: PlannedCalls, plan: Plan, lengths: Mapping[str, Sequence[int]]) -> float:
    """Of an amount of work: answers differ in length, and how many calls there will be may hang on other answers."""
    seen = lengths[calls.name]
    variance = 0.0
    if len(seen) > 1 and (mean := fmean(seen)) > 0:
        variance += pvariance(seen) / mean**2 * (1 / len(seen) + 1 / calls.calls)
    if calls.certain < calls.calls:
        most = max(plan.all_rows, calls.calls)
        share = calls.calls / most
        samples = max(1, len(lengths.get("draft", ())))
        variance += (1 - share) / share * (1 / samples + 1 / most)
    return variance
