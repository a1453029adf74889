"""Every command and example in the documents is executed; a document that lies fails."""

from __future__ import annotations

import json
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
from labelled_runs import write_labelled_run
from whole_runs import cai, cai_here

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
DOCUMENTS = [README, *sorted(each for name in ("cai", "examples", "principles") for each in (REPOSITORY / name).rglob("*.md"))]
EMBEDDED = ModelSpec(name="smollm2-135m", adapter="feedback")


def checkout(folder: Path) -> Path:
    """What the commands of the documents need of the repository, to be written into freely."""
    for name in ("examples", "principles"):
        shutil.copytree(REPOSITORY / name, folder / name)
    return folder


def cai_line(line: str, cwd: Path, *, apart: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a command, in a process of its own or in this one."""
    name, *arguments = shlex.split(line)
    assert name == "cai", f"only `cai` commands are known here: {line}"
    return cai(*arguments, cwd=cwd, timeout_s=900) if apart else cai_here(*arguments, cwd=cwd)


def run_blocks(document: Path, kinds: set[str], cwd: Path) -> int:
    count = 0
    for block in blocks(document):
        for line in block.commands if block.kind in kinds else []:
            done = cai_line(line, cwd)
            assert done.returncode == 0, f"{line}\n{done.stderr[-2000:]}"
            count += 1
    return count


def anchors(document: Path) -> set[str]:
    """What links to headings of a Markdown file end in, as GitHub makes it of them."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in headings}


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


def test_the_commands_on_data_sets_work_on_a_finished_run(tmp_path: Path) -> None:
    write_labelled_run(tmp_path / "runs" / "demo")
    assert run_blocks(README, {"sh exports"}, tmp_path) == 2
    assert (tmp_path / "exported" / "README.md").is_file()


def test_the_commands_on_a_finished_run_tell_about_it(tmp_path: Path) -> None:
    write_labelled_run(tmp_path / "runs" / "demo")
    assert run_blocks(README, {"sh finished"}, tmp_path) == 4
    assert (tmp_path / "runs" / "demo" / "report.html").is_file()


@pytest.mark.slow
def test_the_labeller_is_compared_with_people_as_the_readme_does(tmp_path: Path) -> None:
    needs_embedded()
    checkout(tmp_path)
    pair = {"prompt": "Is 2 + 2 = 5?", "chosen": "No, 2 + 2 is 4.", "rejected": "Yes, you are right."}
    (tmp_path / "pairs.jsonl").write_text(json.dumps(pair) + "\n")
    assert run_blocks(README, {"sh people"}, tmp_path) == 1


@pytest.mark.slow
def test_the_training_commands_of_the_readme_work_on_files_of_ones_own(tmp_path: Path) -> None:
    needs_embedded()
    checkout(tmp_path)
    pairs = [
        {"prompt": f"Is {n} + 2 = 5?", "chosen": f"No, {n} + 2 is {n + 2}.", "rejected": "Yes, you are right."}
        for n in range(4, 8)
    ]
    replies = [
        {"messages": [{"role": "user", "content": f"Say {n}."}, {"role": "assistant", "content": f"{n}."}]} for n in range(4)
    ]
    for name, rows in (("pairs.jsonl", pairs), ("replies.jsonl", replies)):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert run_blocks(README, {"sh training"}, tmp_path) == 3
    for folder in ("trained", "tuned"):
        assert (tmp_path / folder / "model.safetensors").is_file()
        assert (tmp_path / folder / "README.md").is_file()


@pytest.mark.slow
def test_the_reward_commands_of_the_readme_work_on_prompts_and_a_function_of_ones_own(tmp_path: Path) -> None:
    needs_embedded()
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps({"prompt": f"Say {n}."}) + "\n" for n in range(4)))
    (tmp_path / "mine.py").write_text(
        "def reward(completions, **columns):\n    return [-float(len(each[0]['content'])) for each in completions]\n"
    )
    assert run_blocks(README, {"sh rl"}, tmp_path) == 2
    assert (tmp_path / "optimised" / "model.safetensors").is_file()


@pytest.mark.slow
def test_the_reward_commands_of_the_readme_work_on_files_of_ones_own(tmp_path: Path) -> None:
    needs_embedded()
    checkout(tmp_path)
    pairs = [
        {"prompt": f"Is {n} + 2 = 5?", "chosen": f"No, {n} + 2 is {n + 2}.", "rejected": "Yes, you are right."}
        for n in range(4, 34)
    ]
    samples = [
        {"prompt": f"Is {n} + 3 = 5?", "completion": reply}
        for n in range(3, 6)
        for reply in ("No.", "Yes.", "It is.", "Never.")
    ]
    for name, rows in (("pairs.jsonl", pairs), ("samples.jsonl", samples)):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert run_blocks(README, {"sh rewards"}, tmp_path) == 4
    assert (tmp_path / "best.jsonl").read_text().count("\n") == 3
    assert (tmp_path / "rejection-sampled" / "model.safetensors").is_file()


def test_the_python_of_the_readme_runs() -> None:
    for block in blocks(README):
        if block.kind == "python":
            done = subprocess.run(
                [sys.executable, "-c", block.text], cwd=REPOSITORY, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, done.stderr
            assert "correct" in done.stdout.lower()


def test_the_yaml_of_the_readme_is_valid(tmp_path: Path) -> None:
    (principles,) = (block.text for block in blocks(README) if block.kind == "yaml principles")
    (config,) = (block.text for block in blocks(README) if block.kind == "yaml run")
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
        "labels.allow_weak_labels=true",  # the weights are random
        "labels.max_mass_outside=1",
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


@pytest.mark.slow
def test_the_longer_demo_trains_twice_by_the_commands_at_its_head(tmp_path: Path) -> None:
    needs_embedded()
    text = (checkout(tmp_path) / "examples" / "demo-longer.yaml").read_text()
    head = "\n".join(line.removeprefix("#").strip() for line in text.splitlines() if line.startswith("#"))
    commands = re.findall(r"^cai run .+$", head.replace("\\\n", ""), re.MULTILINE)
    assert len(commands) == 2
    smaller = ("lab.items=8", "dpo.epochs=1", "evaluation.per_behaviour=1", "evaluation.temperatures=[0.0]")
    for command in commands:
        done = cai_line(f"{command} {' '.join(f'--set {each}' for each in smaller)}", tmp_path)
        assert done.returncode == 0, done.stderr[-2000:]
    trained = json.loads((tmp_path / "runs" / "longer-again" / "dpo" / "training.json").read_text())
    assert trained["steps"] > 0


def test_the_demo_is_the_file_in_the_examples() -> None:
    assert demo_config() == REPOSITORY / "examples" / "demo.yaml"
    content: dict[str, Any] = yaml.safe_load(demo_config().read_text())
    assert content["policy"]["name"] == "smollm2-135m"
    shipped = {principle.id for principle in load_constitution(["shipped"]).principles}
    assert set(content["principles"]) <= shipped


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: str(document.relative_to(REPOSITORY)))
def test_every_link_between_documents_leads_somewhere(document: Path) -> None:
    for target, heading in re.findall(r"\]\(([^)#:]*)(?:#([^)]+))?\)", document.read_text()):
        there = document.parent / target if target else document
        assert there.exists(), target
        assert not heading or heading in anchors(there), f"{target}#{heading}"
