"""The card of an optimised model: a README.md that says what was optimised, how far it went, and what to mistrust.

Front matter as the hub reads it. Of plain values; no weights.
"""

from __future__ import annotations

from cai.data.front_matter import as_front_matter
from cai.data.markdown import table, text
from cai.data.readable import readable
from cai.models.loading import LoadedModel
from cai.rl.results import RLResult
from cai.rl.settings import RLSettings
from cai.training.card import base_name

_FIGURES = ("reward", "truth", "kl", "kl/k3", "entropy", "length", "ended", "repeated", "duplicates")
_LEFT_OUT = {"save_every_steps", "shown_samples", "learning_rate"}


def rl_card(result: RLResult, model: LoadedModel, settings: RLSettings) -> str:
    """The card, as Markdown. Values are written as text: markup in them does not become markup."""
    name = base_name(model)
    alone = result.adapter is not None and not settings.merge
    head = as_front_matter(
        {
            "library_name": "peft" if alone else "transformers",
            "pipeline_tag": "text-generation",
            "tags": ["constitutional-ai", "rlaif", "reinforcement-learning", settings.algorithm]
            + (["lora"] if settings.lora is not None else []),
        }
    )
    watched = f", watched by “{result.truth}”" if result.truth else ""
    rows = [
        (each, *(f"{figures[each]:.4g}" if each in figures else "–" for figures in (result.first, result.last, result.kept)))
        for each in _FIGURES
        if each in result.last
    ]
    parts = [
        head,
        f"# {text(name)} after optimisation against a reward",
        *(f"> **Warning: {text(each)}**" for each in result.warnings),
        f"{text(name)}, optimised by {result.algorithm} against the reward “{text(result.reward)}”{text(watched)}, with the "
        "Constitutional AI toolkit. A reward is a stand-in for what is wanted: nobody has vouched for what this model says.",
        "## What was done",
        f"{result.steps} of {result.planned_steps} steps, {result.replies} replies to {result.prompts} prompts; the weights "
        f"after step {result.kept_step} were kept. Of the replies, {result.failed_rewards} had no reward.",
        "## How it came out",
        table((f"mean of {settings.leash.window} steps", "first", "last", "kept"), rows),
        "KL is to the model before training, in nats a reply.",
        "## Settings",
        table(("setting", "value"), list(readable(settings.model_dump(mode="json"), leaving_out=_LEFT_OUT).items())),
        "## Licence",
        "Nobody has said under which licence these weights are: they come under that of the model they were made from.",
    ]
    return "\n\n".join(parts) + "\n"
