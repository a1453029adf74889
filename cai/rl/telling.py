"""What a finished run's figures say that its reader should know. No torch."""

from __future__ import annotations

from collections.abc import Sequence

from cai.rl.results import RLResult

_COLLAPSED_NATS = 0.1
_SAME = 0.5
_REPEATS = 0.2


def warnings_of(result: RLResult, failures: Sequence[str]) -> list[str]:
    """In words, the gravest first.

    Args:
        result: Its own warnings are not read.
        failures: What rewards did not judge, and why, as far as it was kept.
    """
    first, last = result.first, result.last
    warnings: list[str] = []
    if result.stopped:
        warnings.append(f"stopped after step {result.steps} of {result.planned_steps}: {result.stopped}")
    elif result.truth is not None and last.get("reward", 0) > first.get("reward", 0) and _fell(result):
        warnings.append(
            f"the reward rose from {first['reward']:.3g} to {last['reward']:.3g}, and the truth ({result.truth}) fell from "
            f"{first['truth']:.3g} to {last['truth']:.3g}: raise rl.beta"
        )
    if result.truth is None:
        warnings.append("no rl.truth was given: nothing here can say whether the reward was gamed")
    if result.failed_rewards:
        shown = "; ".join(failures[:3])
        warnings.append(f"{result.failed_rewards} of {result.replies} replies had no reward" + (f" ({shown})" if shown else ""))
    if result.failed_truths:
        warnings.append(f"{result.failed_truths} of {result.replies} replies could not be judged by {result.truth}, the truth")
    if result.failed_draws:
        warnings.append(f"{result.failed_draws} replies could not be drawn")
    if result.idle_steps:
        warnings.append(f"nothing could be learned in {result.idle_steps} of {result.steps} steps: no reward, or no difference")
    if last.get("entropy", 1) < _COLLAPSED_NATS < first.get("entropy", 1):
        warnings.append(f"the policy hardly varies any more: {last['entropy']:.2g} nats of entropy a token")
    if last.get("duplicates", 0) > _SAME > first.get("duplicates", 0):
        warnings.append(f"{last['duplicates']:.0%} of the replies to a prompt equal another one to it")
    if last.get("repeated", 0) > _REPEATS > first.get("repeated", 0):
        warnings.append(f"{last['repeated']:.0%} of the words repeat a phrase of the same reply")
    return warnings


def _fell(result: RLResult) -> bool:
    return "truth" in result.first and "truth" in result.last and result.last["truth"] < result.first["truth"]
