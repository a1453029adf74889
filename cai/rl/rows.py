"""One row of metrics for each step: what the policy wrote, what was said of it, how far it has gone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, pstdev
from typing import Any, cast

from cai.data.filters.repetition import repeated_share
from cai.rl.advantages import k1, k3, reply_sums
from cai.rl.experience import Batch, Known
from cai.rl.leash import KL, REWARD, TRUTH
from cai.rl.rewards import Judgement
from cai.rl.sampling import Rollout


@dataclass(frozen=True, slots=True)
class Tokens:
    """That have gone through the models so far, by what was done with them."""

    read: int
    drawn: int
    scored: int
    trained: int


def reply_row(step: int, rollouts: Sequence[Rollout], reward: Judgement, truth: Judgement | None) -> dict[str, float]:
    """What is known before the policy is moved.

    - `reward`, `reward/std`, `reward/min`, `reward/max`: of the replies that have one; `reward/failed`: how many have none.
    - `truth`, `truth/failed`: likewise, by the second reward.
    - `length`: tokens of a reply; `ended`: share that came to its end; `repeated`: share of words in a phrase said before in
      the same reply; `duplicates`: share of replies that another one to the same prompt equals.
    """
    samples = [sample for rollout in rollouts for sample in rollout.samples]
    row: dict[str, float] = {"step": step, "replies": len(samples), "draws/failed": sum(each.failures for each in rollouts)}
    row |= _statistics(REWARD, reward)
    if truth is not None:
        row |= {name: value for name, value in _statistics(TRUTH, truth).items() if name in {TRUTH, f"{TRUTH}/failed"}}
    if samples:
        row["length"] = fmean(len(sample.ids) for sample in samples)
        row["ended"] = fmean(sample.ended for sample in samples)
        row["repeated"] = fmean(repeated_share(sample.text) for sample in samples)
        distinct = sum(len({sample.text for sample in rollout.samples}) for rollout in rollouts)
        row["duplicates"] = 1 - distinct / len(samples)
    return row


def tokens_row(before: Tokens, after: Tokens) -> dict[str, float]:
    """What a step took of the policy and its reference; what the reward took is not in it.

    - `tokens/read`, `tokens/drawn`: prompts that were read, replies that were drawn.
    - `tokens/scored`: that went forward once more, through policy or reference; `tokens/trained`: forward and backward.
    """
    return {f"tokens/{name}": float(getattr(after, name) - getattr(before, name)) for name in Tokens.__slots__}


def distance_row(batch: Batch, known: Known) -> dict[str, float]:
    """How far the policy that drew the replies is from its reference.

    - `kl`, `kl/k3`: two estimates of KL(policy ‖ reference), nats a reply; `kl/token`: the first, a token.
    - `entropy`: −log-probability of the drawn tokens, nats a token: an unbiased estimate of the policy's entropy.
    """
    count = len(batch.lengths)
    kl_M = k1(known.logps, known.ref_logps)
    return {
        KL: float(kl_M.sum()) / count,
        "kl/k3": float(k3(known.logps, known.ref_logps).sum()) / count,
        "kl/token": float(kl_M.mean()),
        "entropy": -float(known.logps.mean()),
    }


def sample_rows(
    step: int,
    rollouts: Sequence[Rollout],
    reward: Judgement,
    truth: Judgement | None,
    batch: Batch | None,
    known: Known | None,
    count: int,
) -> list[dict[str, Any]]:
    """The first reply to each of the first prompts, as rows to be read."""
    divergences = _divergences(batch, known)
    rows: list[dict[str, Any]] = []
    place = 0
    for rollout in rollouts:
        if rollout.samples and len(rows) < count:
            row: dict[str, Any] = {
                "step": step,
                "uid": rollout.item.uid,
                "prompt": rollout.item.messages[-1].content,
                "reply": rollout.samples[0].text,
                "reward": _finite(reward.rewards[place]),
                "kl": divergences.get(rollout.item.uid),
            }
            if truth is not None:
                row["truth"] = _finite(truth.rewards[place])
            rows.append(row)
        place += len(rollout.samples)
    return rows


def _divergences(batch: Batch | None, known: Known | None) -> dict[str, float]:
    """Of the first usable reply to each prompt."""
    if batch is None or known is None:
        return {}
    sums: list[float] = cast("Any", reply_sums(k1(known.logps, known.ref_logps), batch.lengths)).tolist()
    found: dict[str, float] = {}
    place = 0
    for rollout in batch.rollouts:
        found[rollout.item.uid] = sums[place]
        place += len(rollout.samples)
    return found


def _statistics(name: str, judgement: Judgement) -> dict[str, float]:
    usable = [each for each in judgement.rewards if math.isfinite(each)]
    row: dict[str, float] = {f"{name}/failed": judgement.failed}
    if usable:
        row |= {
            name: fmean(usable),
            f"{name}/std": pstdev(usable),
            f"{name}/min": min(usable),
            f"{name}/max": max(usable),
        }
    return row


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def mean_row(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """The mean of each metric over rows that have it, without `step`."""
    names = {name: None for row in rows for name in row if name != "step"}
    return {name: round(fmean(row[name] for row in rows if name in row), 6) for name in names}
