"""Every command and example in the documents is executed; a document that lies fails."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from checkpoints import make_checkpoint
from fences import blocks

from cai.cli.demo import demo_config
from cai.config import read_config
from cai.models.checking import check_model
from cai.models.spec import ModelSpec
from cai.pipeline import open_session, read_inputs, run
from cai.records import Outcome, Stage
from constitution.loading import load_constitution

REPOSITORY = Path(__file__).resolve().parents[2]
README = REPOSITORY / "README.md"
OWN = REPOSITORY / "examples" / "own-constitution" / "README.md"
EMBEDDED = ModelSpec(name="smollm2-135m", adapter="feedback")


def checkout(folder: Path) -> Path:
    """What the commands of the documents need of the repository, to be written into freely."""
    for name in ("examples", "principles"):
        shutil.copytree(REPOSITORY / name, folder / name)
    return folder


def cai_line(line: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    import os

    name, *arguments = shlex.split(line)
    assert name == "cai", f"only `cai` commands are known here: {line}"
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "cai.cli", *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=900, check=False)


def run_blocks(document: Path, kinds: set[str], cwd: Path) -> int:
    count = 0
    for block in blocks(document):
        for line in block.commands if block.kind in kinds else []:
            done = cai_line(line, cwd)
            assert done.returncode == 0, f"{line}\n{done.stderr[-2000:]}"
            count += 1
    return count


def needs_embedded() -> None:
    problems = check_model(EMBEDDED)
    if problems:
        pytest.skip(str(problems[0]))


def test_the_two_commands_of_the_readme_are_make_targets_and_ci_runs_the_tests_by_the_same_one() -> None:
    makefile = (REPOSITORY / "Makefile").read_text()
    first = next(block for block in blocks(README) if "make demo" in block.text)
    for line in first.commands:
        target = line.split()[1]
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), line
    assert "make test" in (REPOSITORY / ".ci" / "run").read_text()


def test_the_quick_commands_of_the_readme_work(tmp_path: Path) -> None:
    needs_embedded()
    assert run_blocks(README, {"sh"}, checkout(tmp_path)) >= 4


@pytest.mark.slow
def test_the_slow_commands_of_the_readme_work(tmp_path: Path) -> None:
    needs_embedded()
    assert run_blocks(README, {"sh slow"}, checkout(tmp_path)) >= 1


def test_the_python_of_the_readme_runs() -> None:
    for block in blocks(README):
        if block.kind == "python":
            done = subprocess.run(
                [sys.executable, "-c", block.text], cwd=REPOSITORY, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, done.stderr
            assert "correct" in done.stdout.lower()


def test_the_yaml_of_the_readme_is_valid(tmp_path: Path) -> None:
    principles, config = (block.text for block in blocks(README) if block.kind == "yaml")
    (tmp_path / "mine.yaml").write_text(principles)
    assert load_constitution([tmp_path / "mine.yaml"]).principles[0].id == "short-answers"
    (tmp_path / "run.yaml").write_text(config)
    assert read_config(tmp_path / "run.yaml", (), {}).config.loop.rounds == 2


@pytest.mark.slow
def test_every_command_of_my_own_constitution_works(tmp_path: Path) -> None:
    needs_embedded()
    assert run_blocks(OWN, {"sh"}, checkout(tmp_path)) >= 7


def test_the_seven_billion_example_runs_on_a_tiny_model_of_the_same_architecture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkout(tmp_path)
    monkeypatch.chdir(tmp_path)
    make_checkpoint(tmp_path / "tiny", "qwen2")
    config = tmp_path / "examples" / "seven-billion.yaml"
    flags = [
        "policy.name=tiny",
        "policy.device=cpu",
        "loop.draft.max_tokens=8",
        "loop.critique.max_tokens=8",
        "loop.revision.max_tokens=8",
        "labels.require_agreement=false",
        "labels.min_margin_nats=0",
        "filters.cut_short=false",
        "filters.empty=false",
        "evaluation.max_tokens=8",
        "holdout_share=0.2",
    ]
    with open_session(read_inputs(read_config(config, flags, {}).config)) as session:
        summary = run(session)
    assert summary.ledger[Outcome.PENDING] == 0
    assert set(summary.training) == {Stage.SFT, Stage.DPO}
    assert (summary.folder / "datasets" / "preferences.parquet").is_file()


def test_the_demo_is_the_file_in_the_examples() -> None:
    assert demo_config() == REPOSITORY / "examples" / "demo.yaml"
    content: dict[str, Any] = yaml.safe_load(demo_config().read_text())
    assert content["policy"]["name"] == "smollm2-135m"
    shipped = {principle.id for principle in load_constitution(["shipped"]).principles}
    assert set(content["principles"]) <= shipped


def test_every_link_between_documents_leads_somewhere() -> None:
    for document in (README, OWN, REPOSITORY / "cai" / "lab" / "README.md", REPOSITORY / "examples" / "cluster" / "README.md"):
        for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text()):
            assert (document.parent / target).exists(), f"{document}: {target}"
