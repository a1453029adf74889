"""What a run asks of rows that are mixed into its supervised training: that none teaches what is evaluated."""

from __future__ import annotations

from collections.abc import Iterator

from cai.data.filters.held_out_prompts import HeldOutPrompts
from cai.pipeline.preflight import Inputs
from constitution.messages import Conversation, user


def held_out_prompts(inputs: Inputs) -> HeldOutPrompts | None:
    """What no row that is mixed in may teach; None where none is mixed in."""
    config = inputs.config
    if config.sft is None or not config.sft.mix:
        return None
    return HeldOutPrompts(_evaluated(inputs), config.filters)


def _evaluated(inputs: Inputs) -> Iterator[Conversation]:
    """Every prompt that the model may be asked before and after."""
    config = inputs.config
    yield from (item.messages for item in inputs.held_out_items)
    yield from ((user(text),) for text in config.evaluation.showcase)
    if config.lab is not None or config.evaluation.suite == "lab":
        from cai.lab.suite import LabSuite

        suite = LabSuite.draw(config.evaluation.per_behaviour, seed=config.seed)
        yield from (trial.item.messages for trial in suite.trials)
