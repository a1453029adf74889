"""`cai rl`: on a run's prompts and on a file, what is refused, and what a dry run says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from checkpoints import make_checkpoint

from cai.config import read_config
from cai.pipeline.run_models import models_of_run
from tests.cli.conftest import Cai

FAST = ("rl.steps=2", "rl.prompts_per_step=2", "rl.samples_per_prompt=2", "rl.max_tokens=5", "rl.lora.r=2", "rl.dtype=float32")
FLAGS = tuple(part for flag in FAST for part in ("--set", flag))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    make_checkpoint(tmp_path / "tiny")
    (tmp_path / "run.yaml").write_text("run: out\npolicy: {name: ./tiny, dtype: float32}\nlab: {items: 12}\ndpo: null\n")
    (tmp_path / "mine.py").write_text(
        "def reward(completions, **columns):\n    return [len(c[0]['content']) for c in completions]\n"
    )
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps({"prompt": f"Say {n}"}) + "\n" for n in range(4)))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_run_s_policy_is_optimised_beside_the_run_and_watched_by_exact_truth(cai: Cai, place: Path) -> None:
    done = cai("rl", "run.yaml", "--set", "rl.reward=mine:reward", "--set", "rl.truth=lab", *FLAGS)
    assert done.code == 0, done.err
    assert "rloo against mine:reward, watched by lab, 2 of 2 steps" in " ".join(done.out.split())
    rows = [json.loads(line) for line in (place / "out" / "rl" / "metrics.jsonl").read_text().splitlines()]
    assert all({"reward", "truth", "kl", "kl/k3", "entropy", "length", "repeated", "clip_fraction"} <= set(row) for row in rows)
    assert (place / "out" / "rl" / "model.safetensors").is_file()
    assert "watched by “lab”" in (place / "out" / "rl" / "README.md").read_text()
    with models_of_run(read_config(place / "run.yaml").config, checkpoints=False) as models:
        assert [model.name for model in models][1:] == ["after rl"]
    assert json.loads((place / "out" / "rl" / "samples.jsonl").read_text().splitlines()[0])["step"] == 1


def test_the_constitution_can_be_the_reward(cai: Cai, place: Path) -> None:
    quick = ("--set", "labels.ground_tokens=0", "--set", "rl.principles_per_reply=1", "--set", "rl.algorithm=online_dpo")
    done = cai("rl", "run.yaml", *quick, *FLAGS, "--json")
    assert done.code == 0, done.err
    result = json.loads(done.out)
    assert (result["reward"], result["steps"], result["failed_rewards"]) == ("constitution", 2, result["failed_rewards"])
    assert "reward" in result["last"]


def test_a_dry_run_tells_replies_steps_and_memory_and_writes_nothing(cai: Cai, place: Path) -> None:
    flags = ("--data", "prompts.jsonl", "--model", "./tiny", "--set", "rl.reward=mine:reward", "--dry-run", *FLAGS)
    done = cai("rl", *flags)
    assert done.code == 0, done.err
    assert "watched by nothing: set rl.truth" in done.out
    found = json.loads(cai("rl", *flags, "--json").out)
    assert (found["prompts"], found["replies"], found["optimizer_steps"]) == (4, 8, 2)
    assert sorted(each.name for each in place.iterdir()) == ["mine.py", "prompts.jsonl", "run.yaml", "tiny"]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("rl.reward=lab",), "none of the prompts is the lab's"),
        (("rl.reward=constitution",), "needs principles and a feedback model"),
        (("rl.reward=nowhere",), "there is no such reward"),
        (("rl.reward=absent_module:f",), "there is no module `absent_module`"),
        (("rl.reward=mine:reward", "rl.algorithm=online_dpo", "rl.samples_per_prompt=3"), "set samples_per_prompt to 2"),
        (("rl.reward=mine:reward", "rl.lam=0.5"), "`lam` is an option of `ppo`"),
        (("rl.reward=mine:reward", "rl.truth=mine:reward"), "it would never disagree"),
    ],
)
def test_what_cannot_be_is_refused_before_a_weight_is_read(cai: Cai, place: Path, flags: tuple[str, ...], words: str) -> None:
    given = [part for flag in flags for part in ("--set", flag)]
    done = cai("rl", "--data", "prompts.jsonl", "--model", "./tiny", "--output", "out", *given)
    assert done.code in {1, 2}
    assert words in " ".join(done.err.split())
    assert not (place / "out").exists()


def test_rl_that_comes_first_can_be_run_again_and_the_run_can_begin_after_it(cai: Cai, place: Path) -> None:
    """The folder held `rl` and no run: the same command was refused, and so was every other one of the run."""
    flags = ("--set", "rl.reward=mine:reward", *FLAGS)
    first = cai("rl", "run.yaml", *flags, "--json")
    assert first.code == 0, first.err
    again = cai("rl", "run.yaml", *flags, "--json")
    assert again.code == 0, again.err
    assert json.loads(again.out) == json.loads(first.out)
    assert cai("status", "out").code == 0
    after = cai("generate", "run.yaml")
    assert after.code in {0, 3}, after.err
    assert (place / "out" / "rl" / "model.safetensors").is_file()
