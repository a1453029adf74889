"""The card of a trained model: a README.md that says what it was made from, by what, on what, and how it came out.

Of plain values of the result, settings and model; no weights. Front matter as the hub reads it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeAlias

from cai.data.front_matter import as_front_matter
from cai.data.markdown import table, text
from cai.data.readable import readable
from cai.models.loading import LoadedModel
from cai.training.results import TrainingResult
from cai.training.settings import DPOSettings, RewardSettings, SFTSettings

AnySettings: TypeAlias = DPOSettings | SFTSettings | RewardSettings

CARD = "README.md"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_FIGURES = (
    "loss",
    "nll/replies",
    "rewards/accuracies",
    "rewards/margins",
    "logps_per_token/chosen",
    "logps_per_token/rejected",
    "drift/chosen",
    "drift/rejected",
    "length/chosen",
    "length/rejected",
    "kl",
    "kl/data",
)
_LEFT_OUT = {"reference_cache", "save_every_steps", "logging_steps", "learning_rate", "mix"}
"""Settings that do not decide what was trained, or are told otherwise."""


def model_card(
    result: TrainingResult,
    model: LoadedModel,
    settings: AnySettings,
    *,
    label_strength: float | None,
) -> str:
    """The card, as Markdown. Values are written as text: markup in them does not become markup.

    Args:
        result: How training ended.
        model: What it started from.
        settings: Of the training.
        label_strength: Mean `p_chosen` of the trained pairs; None without pairs.
    """
    method = "supervised" if isinstance(settings, SFTSettings) else "preference"
    method = "reward" if isinstance(settings, RewardSettings) else method
    name = base_name(model)
    title = f"{name} after {method} training"
    parts = [_head(result, name, settings), f"# {text(title)}"]
    parts += [f"> **Warning: {text(each)}**" for each in result.warnings]
    parts += [_introduction(name, settings), "## How to load it", _loading(result, settings)]
    parts += ["## What it was made from", table(("property", "value"), list(_origin(name, model, result, settings)))]
    parts += ["## What it was trained on", table(("rows", "count"), list(_rows(result, label_strength)))]
    parts += ["## How it came out", _outcome(result)]
    told = readable(settings.model_dump(mode="json"), leaving_out=_LEFT_OUT)
    parts += ["## Settings", table(("setting", "value"), list(told.items()))]
    parts += [
        "## Licence",
        "Nobody has said under which licence these weights are: they come under that of the model they were made from, and "
        "perhaps under terms of the data. Before you publish them, name it above as `license`, and the rows as `datasets` if "
        "they are on the hub.",
    ]
    return "\n\n".join(parts) + "\n"


def base_name(model: LoadedModel) -> str:
    """What may be told of where a model came from: its hub id or short name, and of a path on this machine the last part."""
    return _place_name(model.spec.name)


def _place_name(name: str) -> str:
    """A hub id or short name as it is; of a path the last part."""
    return name if _HUB_ID.fullmatch(name) and not Path(name).exists() else Path(name).name


def _head(result: TrainingResult, name: str, settings: AnySettings) -> str:
    alone = result.adapter is not None and not settings.merge
    task = "text-classification" if isinstance(settings, RewardSettings) else "text-generation"
    content: dict[str, Any] = {"library_name": "peft" if alone else "transformers", "pipeline_tag": task}
    if _HUB_ID.fullmatch(name):
        content |= {"base_model": name, "base_model_relation": "adapter" if alone else "finetune"}
    content["tags"] = [
        "constitutional-ai",
        "rlaif",
        *_kind(settings),
    ]
    if settings.lora is not None:
        content["tags"].append("lora")
    return as_front_matter(content)


def _kind(settings: AnySettings) -> list[str]:
    if isinstance(settings, RewardSettings):
        return ["reward-model"]
    return ["sft"] if isinstance(settings, SFTSettings) else ["dpo", settings.loss]


def _introduction(name: str, settings: AnySettings) -> str:
    if isinstance(settings, RewardSettings):
        target = "soft labels" if settings.labels == "soft" else "the chosen reply as the better one"
        heads = f" with {settings.heads} heads" if settings.heads > 1 else ""
        how = f"made a reward model{heads} and trained on pairs of replies (Bradley and Terry's loss, {target})"
    elif isinstance(settings, SFTSettings):
        how = "fine-tuned on replies (their negative log-likelihood; prompts are not learnt)"
    else:
        how = f"trained on pairs of replies with soft labels (loss `{settings.loss}`, beta {settings.beta:g})"
    weights = "through a low-rank adapter" if settings.lora is not None else "in all its weights"
    return (
        f"{text(name)}, {how}, {weights}, with the Constitutional AI toolkit. What it learnt are labels or replies that a "
        "model made, not people's judgements; nobody has vouched for what it says."
    )


_REWARDS = """```python
from transformers import AutoModelForSequenceClassification, AutoTokenizer

model = AutoModelForSequenceClassification.from_pretrained("FOLDER").eval()
tokenizer = AutoTokenizer.from_pretrained("FOLDER")
texts = [tokenizer.apply_chat_template(messages, tokenize=False) for messages in conversations]
batch = tokenizer(texts, return_tensors="pt", padding=True, padding_side="right", add_special_tokens=False)
rewards = model(**batch).logits.mean(-1)
```

The logits are one reward for each of the {heads} head(s); their mean is the reward, and what they differ by says how unsure it
is. Each conversation ends with the assistant's turn. Only differences between replies to one prompt mean anything:
σ(difference) is the probability that the one reply is better than the other."""


def _loading(result: TrainingResult, settings: AnySettings) -> str:
    if isinstance(settings, RewardSettings):
        also = f"\n\nThe adapter alone lies in `{result.adapter.name}/`." if result.adapter is not None else ""
        return _REWARDS.replace("{heads}", str(settings.heads)) + also
    merged = any(result.folder.glob("*.safetensors"))
    adapter = result.adapter.name if result.adapter is not None else None
    lines = ["```python", "from transformers import AutoModelForCausalLM, AutoTokenizer", ""]
    if merged:
        lines += [
            'model = AutoModelForCausalLM.from_pretrained("FOLDER")',
            'tokenizer = AutoTokenizer.from_pretrained("FOLDER")',
        ]
    if adapter is not None and not merged:
        lines[1:2] = ["from peft import AutoPeftModelForCausalLM", "from transformers import AutoTokenizer"]
        lines += [
            f'model = AutoPeftModelForCausalLM.from_pretrained("FOLDER/{adapter}")',
            f'tokenizer = AutoTokenizer.from_pretrained("FOLDER/{adapter}")',
        ]
    lines.append("```")
    also = f"\n\nThe adapter alone lies in `{adapter}/`." if merged and adapter is not None else ""
    return "\n".join(lines) + also


def _origin(name: str, model: LoadedModel, result: TrainingResult, settings: AnySettings) -> Iterator[tuple[str, str]]:
    yield "base model", name
    place, _, commit = model.source.rpartition("@")
    if place == name or model.spec.revision:
        yield "revision", commit if place == name else str(model.spec.revision)
    yield "fingerprint of the base model", model.fingerprint[:16]
    if model.spec.adapter is not None:
        yield "adapter merged in before", Path(model.spec.adapter).name
    yield "fingerprint of the training", result.fingerprint[:16]
    yield "precision of the passes", result.dtype
    yield "learning rate at its peak", f"{settings.peak_learning_rate:g}"
    yield "attention path", result.path
    for library in ("torch", "transformers", "peft"):
        yield library, version(library)


def _rows(result: TrainingResult, label_strength: float | None) -> Iterator[tuple[str, str]]:
    yield "trained on", f"{result.trained_rows:,}"
    if result.anchors:
        yield "anchors (kept drafts)", f"{result.anchors:,}"
    if result.held_out:
        yield "held out", f"{result.held_out:,}"
    for each in result.mixed:
        yield f"mixed in from {_place_name(each.path)}", f"{each.rows:,} ({each.share:.1%} of the tokens learned)"
    for reason, count in sorted(result.dropped_counts.items()):
        yield f"left out: {reason}", f"{count:,}"
    if label_strength is not None:
        yield "mean sureness of the labels (p_chosen)", f"{label_strength:.3f}"


def _outcome(result: TrainingResult) -> str:
    steps = f"{result.steps:,} optimizer steps" + (f"; {text(result.ending)}." if result.ending else ".")
    sides: list[tuple[str, Mapping[str, float], str]] = [
        ("first step", result.first_metrics, ""),
        ("last step", result.last_metrics, ""),
    ]
    if result.held_out_metrics:
        sides.append(("held out", result.held_out_metrics, "eval/"))
    rows = [
        (name, *(_figure(metrics, f"{prefix}{name}") for _, metrics, prefix in sides))
        for name in _FIGURES
        if any(f"{prefix}{name}" in metrics for _, metrics, prefix in sides)
    ]
    header = ("figure", *(side for side, _, _ in sides))
    told = "Log-probabilities and losses in nats. Ranges in brackets are 95 % intervals."
    return f"{steps} {told}\n\n{table(header, rows)}"


def _figure(metrics: Mapping[str, float], name: str) -> str:
    if name not in metrics:
        return ""
    low, high = metrics.get(f"{name}/low"), metrics.get(f"{name}/high")
    return f"{metrics[name]:.4g}" + (f" [{low:.4g}, {high:.4g}]" if low is not None and high is not None else "")
