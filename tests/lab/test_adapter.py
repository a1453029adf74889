"""The adapter that comes along is the one that was measured, and is what the manual says."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from safetensors import safe_open

from cai.models.resolving import shipped_adapter

MOST_BYTES = 10_000_000


def weights() -> Path:
    return shipped_adapter() / "adapter_model.safetensors"


def test_the_shipped_file_is_the_one_whose_training_is_recorded() -> None:
    record = json.loads((shipped_adapter() / "training.json").read_text())
    assert hashlib.sha256(weights().read_bytes()).hexdigest() == record["sha256"]
    assert weights().stat().st_size <= MOST_BYTES


def test_the_shipped_file_holds_the_layers_of_its_recipe() -> None:
    recipe = json.loads((shipped_adapter() / "training.json").read_text())["recipe"]
    config = json.loads((shipped_adapter() / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"]) == (recipe["rank"], recipe["alpha"])
    with safe_open(weights(), framework="pt") as file:
        names = list(file.keys())
        layers = {int(name.split(".layers.")[1].split(".")[0]) for name in names}
        ranks = {file.get_slice(name).get_shape()[0] for name in names if "lora_A" in name}
    assert layers == set(range(recipe["first_layer"], 30))
    assert ranks == {recipe["rank"]}


def test_the_log_of_the_training_reaches_its_end() -> None:
    record = json.loads((shipped_adapter() / "training.json").read_text())
    lines = [json.loads(line) for line in (shipped_adapter() / "training-log.jsonl").open()]
    assert lines[-1]["step"] > record["recipe"]["steps"] - 20
