"""What is compared. Reads nothing and loads nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias

MethodId: TypeAlias = Literal["best_of", "sl_cai", "dpo", "sl_cai_dpo", "dpo_twice", "online_dpo", "rloo", "sl_cai_rloo"]


@dataclass(frozen=True, slots=True)
class Method:
    """One way.

    Args:
        id: As `--methods` names it.
        label: For tables.
        what: How a model comes out of it, in one sentence.
    """

    id: MethodId
    label: str
    what: str


REFERENCE: MethodId = "dpo"
"""Its cost with the prompts asked for is everybody's budget, and all others are compared with it."""

METHODS: tuple[Method, ...] = (
    Method(
        "best_of",
        "SFT on the best of four drafts",
        "Four drafts to each prompt, supervised training on the one that the constitution's labels like best: rejection "
        "sampling, without a critique or a revision.",
    ),
    Method("sl_cai", "SL-CAI", "Supervised training on the revisions (arXiv 2212.08073, section 3)."),
    Method("dpo", "DPO", "Preference training on draft against revision with soft labels, kept drafts as anchors."),
    Method("sl_cai_dpo", "SL-CAI, then DPO", "Both, one after the other, on the same chains."),
    Method(
        "dpo_twice",
        "DPO twice",
        "Half of the budget for DPO, then the same once more from there: the trained model drafts to new prompts.",
    ),
    Method("online_dpo", "online DPO", "Two replies of the policy at a time, the constitution's labels say which is better."),
    Method("rloo", "RL (RLOO)", "Four replies of the policy at a time, the constitution's margin is the reward, KL the leash."),
    Method(
        "sl_cai_rloo",
        "SL-CAI, then RL (RLOO)",
        "As the paper has it: half of the budget for SL-CAI, then RL from there and on a leash to it.",
    ),
)


def chosen_methods(names: Iterable[str]) -> tuple[Method, ...]:
    """Methods by their ids, in the order of `METHODS`, the reference always among them.

    Raises:
        ValueError: If there is none of that name.
    """
    known = {method.id for method in METHODS}
    wanted = list(names)
    if unknown := [name for name in wanted if name not in known]:
        raise ValueError(f"no method is called {', '.join(unknown)}; there are {', '.join(m.id for m in METHODS)}")
    return tuple(method for method in METHODS if method.id in wanted or method.id == REFERENCE)
