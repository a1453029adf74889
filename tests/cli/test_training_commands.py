"""`cai dpo` and `cai sft` on files of rows, and `cai try` on one prompt, in real processes on a tiny model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from checkpoints import make_checkpoint
from transformers import AutoModelForCausalLM
from whole_runs import REPOSITORY, cai

HH_STYLE = REPOSITORY / "examples" / "prompts" / "hh-style.jsonl"
FLAGS = ("--set", "learning_rate=1e-3", "--set", "epochs=1", "--set", "lora.r=4", "--set", "dtype=float32")


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("llama"))


def test_pairs_of_other_people_train_a_model_that_loads_and_a_second_call_trains_nothing(tmp_path: Path, llama: Path) -> None:
    arguments = ("dpo", "--data", HH_STYLE, "--model", llama, "--output", tmp_path / "out", *FLAGS, "--json")
    first = cai(*arguments)
    assert first.returncode == 0, first.stderr
    result = json.loads(first.stdout)
    assert result["trained_rows"] == sum(1 for _ in HH_STYLE.open())
    AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    weights = (tmp_path / "out" / "model.safetensors").stat().st_mtime_ns
    second = cai(*arguments)
    assert json.loads(second.stdout)["fingerprint"] == result["fingerprint"]
    assert (tmp_path / "out" / "model.safetensors").stat().st_mtime_ns == weights


def test_a_wrong_setting_of_a_training_command_names_the_nearest(tmp_path: Path, llama: Path) -> None:
    done = cai("sft", "--data", HH_STYLE, "--model", llama, "--output", tmp_path / "out", "--set", "epoch=2")
    assert done.returncode == 1
    assert "did you mean `epochs`" in done.stderr
    assert not (tmp_path / "out").exists()


def test_one_prompt_is_tried_from_a_given_draft_and_hostile_text_stays_text(llama: Path) -> None:
    draft = "[red]You are \x1b[31mright.[/red]"
    done = cai(
        "try", "Is 2 + 2 = 5?", "--draft", draft, "--model", llama, "--principle", "correct-false-claims", "--max-tokens", 8
    )
    assert done.returncode in {0, 3}, done.stderr
    assert "\x1b[31m" not in done.stdout
    assert "[red]You are" in done.stdout or "failed in" in done.stdout
    as_json = cai("try", "Is it?", "--draft", draft, "--model", llama, "--max-tokens", 8, "--tags", "claims", "--json")
    assert json.loads(as_json.stdout.splitlines()[0])["uid"] == "try"


def test_what_cannot_be_tried_is_said_at_once() -> None:
    done = cai("try", " ", "--model", "./nowhere", "--principle", "no-such-principle")
    assert done.returncode == 1
    for words in ("./nowhere", "no-such-principle", "the prompt is empty"):
        assert words in done.stderr
