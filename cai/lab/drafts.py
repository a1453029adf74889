"""Drafts of the plain model on the world's prompts: the real replies that lessons are taught on.

The only module of the lab's world that samples from a model; torch is imported where it is used, so that reading drafts
costs nothing. A file of drafts has one JSON object a line: the item's row with `text` and `temperature` added.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from cai.lab.world import FAMILIES, Family, LabItem, Split, World, seeded

FAMILY_WEIGHTS: dict[Family, float] = {
    "wrong": 3,
    "right": 2.5,
    "fact": 2.5,
    "unsure": 2.5,
    "evidence": 2,
    "harm": 2.5,
    "benign": 2,
    "courtesy": 1.5,
}
"""How often each family is drawn for drafts: in proportion to how much its replies differ."""


@dataclass(frozen=True, slots=True)
class Draft:
    """A reply of the plain model. `temperature` is what it was sampled at."""

    item: LabItem
    text: str
    temperature: float


def draw_items(world: World, count: int, seed: int, split: Split) -> list[LabItem]:
    """`count` items of all families in the proportions of `FAMILY_WEIGHTS`, fully determined by the arguments."""
    rng = seeded(f"items/{seed}/{split}")
    families = rng.choices(FAMILIES, [FAMILY_WEIGHTS[f] for f in FAMILIES], k=count)
    return [world.item(rng, family, split) for family in families]


def sample_drafts(
    items: Sequence[LabItem],
    model_folder: Path,
    *,
    seed: int = 0,
    temperatures: Sequence[float] = (0.8, 1.0),
    top_p: float = 0.95,
    max_tokens: int = 40,
    batch: int = 64,
) -> list[Draft]:
    """Lets the model in `model_folder` answer every item once, the temperatures in turn.

    bfloat16 in batches of 64: about 220 tokens a second on two cores. Batches are sorted by length, so the result depends
    on all arguments together, not on an item alone.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = cast("Any", AutoTokenizer).from_pretrained(model_folder, padding_side="left")
    tokenizer.pad_token = tokenizer.eos_token
    model = cast("Any", AutoModelForCausalLM).from_pretrained(model_folder, dtype=torch.bfloat16).eval()
    cast("Any", torch).manual_seed(seed)
    by_temperature = {t: [i for i in range(len(items)) if temperatures[i % len(temperatures)] == t] for t in temperatures}
    drafts: dict[int, Draft] = {}
    for temperature, members in by_temperature.items():
        members.sort(key=lambda i: len(items[i].prompt))
        for start in range(0, len(members), batch):
            rows = members[start : start + batch]
            conversations = [items[i].to_row()["messages"] for i in rows]
            prompts = [tokenizer.apply_chat_template(c, tokenize=False, add_generation_prompt=True) for c in conversations]
            inputs = tokenizer(prompts, return_tensors="pt", padding=True, add_special_tokens=False)
            with torch.inference_mode():
                tokens_BT = model.generate(
                    **inputs,
                    do_sample=True,
                    temperature=temperature,
                    top_p=top_p,
                    top_k=0,
                    max_new_tokens=max_tokens,
                    pad_token_id=tokenizer.pad_token_id,
                )
            for i, tokens in zip(rows, tokens_BT[:, inputs["input_ids"].shape[1] :], strict=True):
                text: str = tokenizer.decode(tokens, skip_special_tokens=True).strip()
                drafts[i] = Draft(items[i], text, temperature)
    return [drafts[i] for i in range(len(items))]


def write_drafts(path: Path, drafts: Iterable[Draft]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps(d.item.to_row() | {"text": d.text, "temperature": d.temperature}, ensure_ascii=False) for d in drafts)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def read_drafts(path: Path) -> Iterator[Draft]:
    """Raises ValueError for a row without the truth of its item."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            yield Draft(LabItem.from_row(row), row["text"], row["temperature"])
