"""The manifest of a run says all that the run hangs on, and nothing whose machine it was."""

from __future__ import annotations

import getpass
import hashlib
import json
import os
import socket
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml
from checkpoints import make_checkpoint
from scripted_runs import write_scripted_run
from whole_runs import cai_here, write_config, write_prompts

from cai.cli.run import checked_inputs, read
from cai.config import ReadConfig
from cai.models.loading import open_model
from cai.pipeline import open_session
from cai.pipeline.provenance import packages
from cai.store import RunFolder
from constitution.schema import Constitution


@pytest.fixture(scope="module")
def scripted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scripted")
    config = write_scripted_run(folder, 20)
    assert cai_here("run", config, "--set", "loop.draft.temperature=0.5").returncode == 3  # one row is broken
    return folder


def manifest(run: Path) -> dict[str, Any]:
    return json.loads((run / "manifest.json").read_text())


def test_everything_a_run_hangs_on_is_noted(scripted: Path) -> None:
    run, noted = scripted / "run", manifest(scripted / "run")
    assert noted["version"] == 2
    constitution = {name: value for name, value in noted["constitution"].items() if name != "fingerprint"}
    assert Constitution.model_validate(constitution).fingerprint == noted["constitution"]["fingerprint"]
    assert noted["seeds"] == {"seed": 5, "evaluation.seeds": 1, "rl.seed": 0}
    assert noted["origins"]["seed"] == "run.yaml:2:1"
    assert noted["origins"]["loop.draft.temperature"] == "--set loop.draft.temperature"
    assert "loop.critique.temperature" not in noted["origins"]  # a default
    prompts = (scripted / "prompts.jsonl").read_bytes()
    assert noted["files"]["prompts.path"] == {
        "name": "prompts.jsonl",
        "bytes": len(prompts),
        "sha256": hashlib.sha256(prompts).hexdigest(),
    }
    assert noted["packages"]["pydantic"] == metadata.version("pydantic")
    assert noted["packages"]["constitution-cai"] == noted["program"]
    assert noted["environment"]["cores"] == os.cpu_count()
    assert noted["environment"].keys() >= {"python", "platform", "cpu", "memory_gb", "device"}
    with RunFolder.open(run, read_only=True) as folder:
        assert noted["ledger"]["rows"] == {outcome.value: n for outcome, n in folder.ledger_counts().items()}
        assert noted["ledger"]["reasons"]["failed: read: empty_prompt"] == 1
        written = {file.path: file.sha256 for file in folder.files()}
    assert {path: each["sha256"] for path, each in noted["outputs"].items()} == written
    assert {"datasets/sft.jsonl", "datasets/preferences.jsonl", "datasets/README.md"} == set(written)
    assert set(noted["stages"]) == {"generate", "label", "export"}


def test_git_commits_are_those_that_git_tells(scripted: Path) -> None:
    found = manifest(scripted / "run")["git"]["program"]
    repository = Path(__file__).resolve().parents[2]
    if not (repository / ".git").exists():
        pytest.skip("not a git checkout")
    head = os.popen(f"git -C {repository} rev-parse HEAD").read().strip()
    assert found["commit"] == head
    assert isinstance(found["changed"], bool)


def test_nothing_that_is_shared_says_whose_machine_it_was(tmp_path: Path) -> None:
    """Model, adapter template, prompts, people's pairs and evaluation sets all lie under a folder that names a person."""
    home = tmp_path / "home-of-alice"
    home.mkdir()
    model, prompts = make_checkpoint(home / "model"), write_prompts(home / "prompts.jsonl")
    (home / "exam.jsonl").write_text('{"prompt": "What is asked in the exam of this year?"}\n')
    filters = {"evaluation_sets": [str(home / "exam.jsonl")], "cut_short": False, "empty": False, "max_growth": None}
    config = write_config(home, model, prompts, filters=filters)
    with open_session(checked_inputs(read(config, ["engine.max_batch=4"]), None)) as session:
        session.write_manifest()
    text = (home / "run" / "manifest.json").read_text()
    host, user = socket.gethostname(), getpass.getuser()
    for private in (str(tmp_path), "alice", str(Path.home()) + "/", f"/{user}/", f'"{user}"', host):
        assert private not in text, private
    noted = manifest(home / "run")
    assert noted["config"]["policy"]["name"] == "model"
    assert noted["files"]["filters.evaluation_sets.0"]["name"] == "exam.jsonl"
    opened = open_model(session.inputs.config.policy)
    assert noted["models"]["policy"]["fingerprint"] == opened.fingerprint
    assert noted["models"]["policy"]["tokenizer"] == opened.tokenizer.template_fingerprint
    with RunFolder.open(home / "run", read_only=True) as folder:
        assert folder.whole_manifest["config"] == session.inputs.config.model_dump(mode="json")


def test_a_key_of_a_server_is_in_no_file_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the name of the variable that holds it is a setting; the server's address is private."""
    monkeypatch.setenv("MY_KEY", "sk-very-secret")
    config = yaml.safe_load(write_scripted_run(tmp_path / "place", 8).read_text())
    given = ReadConfig(*_with_server(config))
    with RunFolder.open(tmp_path / "run") as folder:
        folder.write_manifest({"version": 2, "config": given.config.model_dump(mode="json")})
    content = b"".join(path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file())
    assert b"sk-very-secret" not in content
    assert b"internal-machine" not in (tmp_path / "run" / "manifest.json").read_bytes()
    assert manifest(tmp_path / "run")["config"]["policy"]["api_key_env"] == "MY_KEY"


def _with_server(config: dict[str, Any]) -> tuple[Any, dict[Any, str]]:
    from cai.config import RunConfig

    config["policy"] = {"name": "m", "server": "http://internal-machine:8000/v1", "api_key_env": "MY_KEY"}
    return RunConfig.model_validate(config), {}


def test_packages_are_this_program_and_what_it_needs_in_turn() -> None:
    found = packages()
    assert found["typing-extensions"] == metadata.version("typing-extensions")  # needed by what is needed
    assert all(metadata.version(name) == version for name, version in found.items())
