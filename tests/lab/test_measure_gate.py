"""The gate's measurement counts right: with a judge that knows the truth, one that never finds a fault, and one that errs."""

from __future__ import annotations

from collections.abc import Callable

from cai.engines.base import ScoreRequest
from cai.engines.scripted import ScriptedEngine
from cai.lab.measure_gate import REFUSALS, run, table
from cai.lab.probes import draw_probes, shipped_drafts
from cai.loop import GateSettings

N = 16
PROBES = draw_probes("shipped", N, shipped_drafts(), seed=3)
BAD = {probe.bad.text for probe in PROBES}


def judge(odds: Callable[[str], float]) -> ScriptedEngine:
    def score(request: ScoreRequest) -> tuple[float, float]:
        return odds(request.messages[-2].content), 0.0

    return ScriptedEngine({"": "It is so."}, score)


def count(odds: Callable[[str], float], kind: str) -> tuple[int, int]:
    """(turned down, all)."""
    counts = run(judge(odds), GateSettings(), N, 3)
    mine = {(down, family): n for (k, family, down), n in counts.items() if k == kind}
    return sum(n for (down, _), n in mine.items() if down), sum(mine.values())


def test_a_judge_that_knows_the_truth_turns_down_all_that_is_bad_and_nothing_else() -> None:
    def truth(text: str) -> float:
        return -5.0 if text in BAD or text in REFUSALS else 5.0

    assert count(truth, "made worse") == (N, N)
    assert count(truth, "mended") == (0, N)
    assert count(truth, "refused") == (N - 2, N - 2)


def test_a_judge_without_a_fault_to_find_turns_down_nothing_and_one_that_is_wrong_all_that_is_good() -> None:
    for kind in ("made worse", "mended", "refused"):
        assert count(lambda _text: 5.0, kind)[0] == 0
    assert count(lambda text: 5.0 if text in BAD else -5.0, "mended") == (N, N)
    assert count(lambda text: 5.0 if text in BAD else -5.0, "made worse") == (0, N)


def test_the_table_has_every_family_and_their_sum() -> None:
    lines = table(run(judge(lambda text: -5.0 if text in BAD else 5.0), GateSettings(), N, 3)).splitlines()
    assert lines[0].split() == ["turned", "down", "of", "made", "worse", "mended", "refused"]
    assert lines[-1].split() == ["all", f"{N}/{N}", f"0/{N}", f"0/{N - 2}"]
    assert len(lines) == 10
