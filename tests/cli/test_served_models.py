"""Commands that take a run's models take those on a server, too, or say what they lack."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from checkpoints import make_checkpoint
from small_server import Behaviour, SmallServer, running
from whole_runs import write_config, write_prompts

from cai.models.loading import load_model
from cai.models.spec import ModelSpec
from tests.cli.conftest import Cai

PRINCIPLES = """
name: brief
principles:
  - id: brief
    principle: Be brief.
    tests: [{prompt: Hi, better: Hello., worse: Well hello and good day to you and all of yours.}]
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def served(model: Path) -> Iterator[SmallServer]:
    with running(load_model(ModelSpec(name=str(model), dtype="float32", device="cpu"))) as server:
        yield server


def config_at(folder: Path, server: SmallServer, **policy: str) -> Path:
    (folder / "brief.yaml").write_text(PRINCIPLES)
    spec = {"name": "tiny", "server": server.url} | policy
    prompts = write_prompts(folder / "prompts.jsonl", 4)
    return write_config(folder, Path("unused"), prompts, policy=spec, dpo=None, constitution=[str(folder / "brief.yaml")])


def test_try_takes_the_models_of_a_run(tmp_path: Path, served: SmallServer, cai: Cai) -> None:
    served.behaviour = Behaviour()
    config = config_at(tmp_path, served)
    done = cai("try", "Hi", "--config", config, "-c", tmp_path / "brief.yaml", "--max-tokens", 8, "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["draft"]


def test_try_names_what_its_gate_lacks(tmp_path: Path, served: SmallServer, cai: Cai) -> None:
    served.behaviour = Behaviour(scoring=frozenset(), continues=False)
    done = cai("try", "Hi", "--config", config_at(tmp_path, served), "--gate")
    assert done.code == 1
    assert "the gate needs the log-probability" in done.err


def test_test_judges_with_a_served_model_or_says_what_it_lacks(tmp_path: Path, served: SmallServer, cai: Cai) -> None:
    served.behaviour = Behaviour()
    config = config_at(tmp_path, served)
    done = cai("test", "--config", config, "--no-cache", "--no-metamorphic", "--allow-undecided", "--json")
    assert done.code in {0, 4}, done.err
    assert json.loads(done.out)
    served.behaviour = Behaviour(scoring=frozenset({"top_logprobs"}))
    lacking = cai("test", "--config", config, "--no-cache")
    assert lacking.code == 1
    assert "the method `pointwise` needs" in lacking.err
    letters = cai("test", "--config", config, "--no-cache", "--no-metamorphic", "--method", "letters", "--allow-undecided")
    assert letters.code in {0, 3, 4}, letters.err


def test_show_needs_a_tokenizer_here_and_no_server(tmp_path: Path, served: SmallServer, model: Path, cai: Cai) -> None:
    served.bodies.clear()
    without = cai("show", "brief", "--config", config_at(tmp_path, served), "--stage", "critique")
    assert without.code == 0, without.err
    assert "The tokenizer of tiny is not at hand" in without.err
    with_one = cai("show", "brief", "--config", config_at(tmp_path, served, tokenizer=str(model)), "--stage", "critique")
    assert with_one.code == 0, with_one.err
    assert "<|im_start|>" in with_one.out
    assert served.bodies == []


def test_training_by_hand_takes_weights_only(tmp_path: Path, served: SmallServer, cai: Cai) -> None:
    done = cai("dpo", config_at(tmp_path, served), "--set", "dpo.epochs=1")
    assert done.code == 1
    assert "cannot be trained there" in done.err
