"""Which model gives feedback, for commands that take it from `--model` and `--feedback`."""

from __future__ import annotations

from cai.errors import ConfigError
from cai.models.embedded import EMBEDDED_NAME
from cai.models.spec import ModelSpec


def feedback_of(model: str, feedback: str | None) -> ModelSpec:
    """The feedback model: `NAME` or `NAME+ADAPTER`; by default the policy, and for the embedded one its adapter with it.

    Raises:
        ConfigError: If a name is empty.
    """
    if feedback is None:
        name, adapter = model, "feedback" if model == EMBEDDED_NAME else None
    else:
        name, plus, rest = feedback.partition("+")
        adapter = rest.strip() if plus else None
    if not name.strip() or adapter == "":
        raise ConfigError("the name of the feedback model is empty", "write --feedback NAME or --feedback NAME+ADAPTER")
    return ModelSpec(name=name.strip(), adapter=adapter)
