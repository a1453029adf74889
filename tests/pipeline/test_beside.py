"""A run's reward model and what `cai rl` made of it: whether they still stand (`cai plan`), and whether two runs' differ."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from checkpoints import make_checkpoint
from whole_runs import cai_here, write_config, write_prompts

RL: dict[str, Any] = {
    "reward": "letters:e",
    "steps": 2,
    "prompts_per_step": 2,
    "samples_per_prompt": 2,
    "max_tokens": 5,
    "dtype": "float32",
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run up to its labels, its reward model, and an optimised model."""
    place = tmp_path_factory.mktemp("beside")
    reward = {"lora": {"r": 2}, "holdout_share": 0.3, "learning_rate": 1e-3, "dtype": "float32"}
    principles = place / "mine.yaml"
    principles.write_text("name: mine\nprinciples:\n- {id: brief, principle: Be brief.}\n- {id: kind, principle: Be kind.}\n")
    model = make_checkpoint(place / "model")
    prompts = write_prompts(place / "prompts.jsonl", 14)
    write_config(place, model, prompts, constitution=[str(principles)], dpo=None, reward=reward, rl=RL)
    (place / "letters.py").write_text("def e(completions, **_):\n    return [len(c[0]['content']) for c in completions]\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        for command in ("label", "reward", "rl"):
            done = cai_here(command, "run.yaml")
            assert done.returncode in {0, 3}, done.stderr
    return place


@pytest.fixture
def here(made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(made)
    return made


def beside(*settings: str) -> dict[str, tuple[str, str]]:
    flags = [part for setting in settings for part in ("--set", setting)]
    done = cai_here("label", "run.yaml", "--plan", "--json", *flags)
    assert done.returncode == 0, done.stderr
    return {each["name"]: (each["state"], each["why"]) for each in json.loads(done.stdout)["beside"]}


def test_what_was_made_of_the_run_as_it_is_stands(here: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (here / "run").rglob("*") if path.is_file()}
    assert {name: state for name, (state, _) in beside().items()} == {"reward": "stands", "rl": "stands"}
    shown = cai_here("label", "run.yaml", "--plan").stdout
    assert "Beside the run: reward stands" in shown
    assert "Nothing to do" in shown
    after = {path: path.stat().st_mtime_ns for path in (here / "run").rglob("*") if path.is_file()}
    assert {path.name for path in after if after[path] != before.get(path)} <= {"run.db-shm", "run.db-wal"}


@pytest.mark.parametrize(
    ("settings", "outdated"),
    [
        (("reward.learning_rate=2e-3",), "reward"),
        (("rl.beta=0.3",), "rl"),
        (("rl.reward_limit=7",), ""),
        (("rl.reward=absent_module:f",), "rl"),
        (("holdout_share=0.5",), "reward rl"),
        (("reward=null",), "reward"),
    ],
    ids=str,
)
def test_what_is_made_of_something_else_now_is_outdated(here: Path, settings: Sequence[str], outdated: str) -> None:
    found = beside(*settings)
    assert {name for name, (state, _) in found.items() if state == "outdated"} == set(outdated.split())
    assert all(why for _, why in found.values())


def test_what_is_unfinished_or_was_never_made_is_told_as_such(here: Path, tmp_path: Path) -> None:
    note = here / "run" / "rl" / "training.json"
    kept = note.read_text()
    note.unlink()
    try:
        assert beside()["rl"] == ("unfinished", "`cai rl` goes on with it")
    finally:
        note.write_text(kept)
    assert beside(f"run={tmp_path / 'new'}") == {
        "reward": ("not made", "`cai reward` makes it of the run's pairs; a run does not")
    }


def differences(other: Path) -> Any:
    done = cai_here("diff", "run", other, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_runs_whose_models_beside_them_differ_are_not_the_same(here: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(here / "run", other)
    same = differences(other)
    assert same["same"]
    assert (same["stages"]["reward"], same["stages"]["rl"]) == (True, True)

    again = cai_here("rl", "run.yaml", "--output", other / "rl", "--set", "rl.seed=5")
    assert again.returncode == 0, again.stderr
    found = differences(other)
    assert not found["same"]
    assert (found["stages"]["reward"], found["stages"]["rl"]) == (True, False)
    assert "rl/model.safetensors" in [each["path"] for each in found["effects"]["files"] if each["state"] == "different"]
    assert {"reward", "kl", "length"} & {each["name"] for each in found["effects"]["metrics"] if each["stage"] == "rl"}
    assert "rl, last step:" in cai_here("diff", "run", other).stdout

    (other / "rl" / "training.json").unlink()
    assert "rl: of the second run it is not finished" in differences(other)["effects"]["not_compared"]
    shutil.rmtree(other / "rl")
    assert "only first" in {each["state"] for each in differences(other)["effects"]["files"] if each["stage"] == "rl"}


def test_the_same_rl_again_is_the_same_but_for_times(here: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(here / "run", other)
    shutil.rmtree(other / "rl")
    assert cai_here("rl", "run.yaml", "--output", other / "rl").returncode == 0
    found = differences(other)
    assert found["same"], [each for each in found["effects"]["files"] if each["state"] not in {"same", "same but for times"}]
