"""The README's section on servers: its configuration is valid, and its command runs, against a small server that is real."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from checkpoints import make_checkpoint
from fences import blocks
from small_server import Behaviour, running
from whole_runs import cai

from cai.config import read_config
from cai.data.prompts import read_items
from cai.models.loading import load_model
from cai.models.spec import ModelSpec
from cai.records import Outcome
from cai.store import RunFolder

REPOSITORY = Path(__file__).resolve().parents[2]
README = REPOSITORY / "README.md"


def test_the_readmes_served_model_is_a_valid_one(tmp_path: Path) -> None:
    (block,) = [each for each in blocks(README) if each.kind == "yaml server"]
    (tmp_path / "run.yaml").write_text(f"{block.text}prompts: {{path: prompts.jsonl}}\ndpo: null\n")
    policy = read_config(tmp_path / "run.yaml", (), {}).config.policy
    assert (policy.server, policy.api_key_env) == ("http://localhost:8000/v1", "MY_SERVER_KEY")


@pytest.mark.slow
def test_the_example_over_a_server_runs_by_its_own_command(tmp_path: Path) -> None:
    (block,) = [each for each in blocks(README) if each.kind == "sh server"]
    ((name, *arguments),) = [shlex.split(line) for line in block.commands]
    assert name == "cai"
    for folder in ("examples", "principles"):
        (tmp_path / folder).symlink_to(REPOSITORY / folder)
    model = make_checkpoint(tmp_path / "model")
    behaviour = Behaviour(name="Qwen/Qwen2.5-7B-Instruct", listed=("Qwen/Qwen2.5-7B-Instruct",))
    with running(load_model(ModelSpec(name=str(model), dtype="float32", device="cpu")), behaviour) as server:
        changes = [
            f"policy.server={server.url}",
            *(f"loop.{stage}.max_tokens=8" for stage in ("draft", "critique", "revision")),
        ]
        changes += ["filters.cut_short=false", "filters.empty=false", "labels.min_margin_nats=0"]
        changes += ["labels.allow_weak_labels=true", "labels.max_mass_outside=1"]  # the weights are random
        done = cai(*arguments, *(part for change in changes for part in ("--set", change)), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    config = read_config(REPOSITORY / "examples" / "served.yaml", (), {}).config
    assert config.prompts is not None
    rows = len(read_items(config.prompts.model_copy(update={"path": str(REPOSITORY / config.prompts.path)})).items)
    with RunFolder.look_at(tmp_path / "runs" / "served") or pytest.fail("no run") as folder:
        counts = folder.ledger_counts()
    assert sum(counts.values()) == rows
    assert counts[Outcome.PENDING] == counts[Outcome.FAILED] == 0
