"""Suites as tasks of other programs: the form that those document, and (slow) their own runners where they are installed.

inspect_ai and lm-eval are not part of the development environment: they want other versions of the same libraries. Install one
into a folder of its own (`pip install --target FOLDER inspect_ai`) and name it: CAI_INSPECT=FOLDER, CAI_LM_EVAL=FOLDER.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from datasets import load_dataset
from suite_texts import PLANETS, write_suite

from cai.errors import ProblemList
from cai.evaluation.checks import verdict
from cai.evaluation.exporting import export_tasks
from cai.evaluation.suite_reading import read_suite, read_suites, shipped_suites

LM_EVAL_KEYS = frozenset(
    [
        "task",
        "task_alias",
        "tag",
        "custom_dataset",
        "dataset_path",
        "dataset_name",
        "dataset_kwargs",
        "training_split",
        "validation_split",
        "test_split",
        "fewshot_split",
        "process_docs",
        "doc_to_text",
        "doc_to_target",
        "doc_to_choice",
        "process_results",
        "use_prompt",
        "description",
        "target_delimiter",
        "fewshot_delimiter",
        "fewshot_config",
        "num_fewshot",
        "metric_list",
        "output_type",
        "generation_kwargs",
        "repeats",
        "filter_list",
        "should_decontaminate",
        "doc_to_decontamination_query",
        "gen_prefix",
        "metadata",
        "unsafe_code",
    ]
)
"""The keys of a task's YAML file, as lm-evaluation-harness documents them (docs/task_guide.md)."""
SAMPLE_KEYS = frozenset({"input", "choices", "target", "id", "metadata", "sandbox", "files", "setup"})
"""The fields of a sample, as inspect_ai documents them (Datasets)."""


class _Loader(yaml.SafeLoader):
    pass


_Loader.add_constructor("!function", lambda loader, node: loader.construct_scalar(node))  # type: ignore[arg-type, type-var]


@pytest.fixture(scope="module")
def lm_eval(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("out") / "lm"
    export_tasks(read_suites(list(shipped_suites())), "lm-eval", folder)
    return folder


@pytest.fixture(scope="module")
def inspect(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("out") / "inspect"
    export_tasks(read_suites(list(shipped_suites())), "inspect", folder)
    return folder


def configs(folder: Path) -> list[dict[str, Any]]:
    return [yaml.load(path.read_text(), _Loader) for path in sorted(folder.glob("*.yaml"))]


def module_of(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_tasks_of_the_harness_have_only_keys_that_it_documents(lm_eval: Path) -> None:
    found = configs(lm_eval)
    assert len(found) == 15
    for config in found:
        assert set(config) <= LM_EVAL_KEYS
        assert config["output_type"] in ("generate_until", "multiple_choice")
        assert config["custom_dataset"] == "cai_lm_eval.rows"
        if config["output_type"] == "generate_until":
            assert config["process_results"] == "cai_lm_eval.judged"
            assert set(config["generation_kwargs"]) == {"until", "max_gen_toks", "do_sample", "temperature"}
    assert len({config["task"] for config in found}) == 15


def test_the_harness_reads_rows_and_scores_as_the_suite_does(lm_eval: Path) -> None:
    module = module_of(lm_eval / "cai_lm_eval.py")
    for config in configs(lm_eval):
        data = module.rows(**config["metadata"], **config["dataset_kwargs"])["test"]
        own = rows(lm_eval / config["dataset_kwargs"]["file"])
        assert [row["id"] for row in data] == [row["id"] for row in own]
        if config["output_type"] == "multiple_choice":
            assert all(len(row["options"]) == 3 for row in data)
            continue
        patterns = json.loads((lm_eval / "cai_patterns.json").read_text())
        for row, reply in zip(data, ["I can't help with that.", "No, it is Mercury.", "", "Sure! First, take it."] * 12):  # noqa: B905
            outcome, _ = verdict(json.loads(row["check"]), reply, patterns[row["suite"]])
            assert module.judged(row, [reply]) == {
                "bad": float(outcome == "bad"),
                "broken": float(outcome == "broken"),
                "unjudged": float(outcome == "undecided"),
            }


def test_rows_load_as_a_data_set(lm_eval: Path) -> None:
    data = load_dataset("json", data_files=str(lm_eval / "cai_harm_refuses_lookalikes.jsonl"), split="train")
    assert len(data) == 44


def test_samples_of_inspect_have_only_fields_that_it_documents_and_every_file_is_a_task(inspect: Path) -> None:
    tree = ast.parse((inspect / "cai_tasks.py").read_text())
    tasks = {
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and any(isinstance(d, ast.Name) and d.id == "task" for d in node.decorator_list)
    }
    assert tasks == {path.stem for path in inspect.glob("*.jsonl")}
    assert len(tasks) == 16
    for name in tasks:
        samples = rows(inspect / f"{name}.jsonl")
        assert len({each["id"] for each in samples}) == len(samples) >= 40
        for each in samples:
            assert set(each) <= SAMPLE_KEYS
            assert all(set(turn) == {"role", "content"} for turn in each["input"])
            assert each["input"][-1]["role"] == "user"


def test_a_conversation_that_the_model_takes_part_in_is_exported_with_its_later_turns(inspect: Path) -> None:
    argued = rows(inspect / "cai_sycophancy_gives_in_when_argued_with.jsonl")
    assert all([len(group) for group in each["metadata"]["follow_ups"]] == [1, 1] for each in argued)


def test_what_cannot_be_exported_is_told(tmp_path: Path) -> None:
    content = {**PLANETS, "drift": {"prompts": [{"prompt": "Tell me a story."}]}}
    judge = {"judge": {"principle": "Be right.", "tests": [{"prompt": "1+1?", "better": "2", "worse": "3"}]}}
    content["behaviours"] = [{**PLANETS["behaviours"][0], "checker": judge}, PLANETS["behaviours"][1]]
    suite = read_suite(write_suite(tmp_path, content))
    found = export_tasks([suite], "lm-eval", tmp_path / "lm")
    assert found.tasks == []
    assert found.left_out == [
        "planets: wrong (needs a judge model)",
        "planets: long (several turns, which the harness does not ask)",
        "planets: drift (compares a model with another one)",
    ]
    assert export_tasks([suite], "inspect", tmp_path / "inspect").tasks == ["cai_planets_long"]


def test_a_folder_with_something_in_it_and_an_unknown_format_are_refused_together(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(ProblemList) as caught:
        export_tasks([], "helm", tmp_path)
    assert [each.problem for each in caught.value.problems] == [
        "there is no format `helm`",
        f"{tmp_path}: there is something already",
    ]


def elsewhere(name: str) -> dict[str, str]:
    """The environment with another program's folder in front, or a skip."""
    folder = os.environ.get(name)
    if folder is None:
        pytest.skip(f"{name} does not name a folder with that program (see the top of this file)")
    return os.environ | {"PYTHONPATH": folder, "HF_DATASETS_OFFLINE": "1", "HF_HUB_OFFLINE": "1"}


RUN_INSPECT = """
import json, sys
from inspect_ai import eval as run
from inspect_ai.model import ModelAPI, ModelOutput, modelapi

@modelapi("fixed")
def fixed():
    class Fixed(ModelAPI):
        async def generate(self, input, tools, tool_choice, config):
            return ModelOutput.from_content("fixed", f"No, that is wrong. {len(input)}")
        async def count_tokens(self, input):  # the default downloads a tokenizer
            return 1
        async def count_text_tokens(self, text):
            return 1
    return Fixed

logs = run(sys.argv[1:], model="fixed/one", limit=3, display="none", log_dir="logs")
print(json.dumps([[log.status, {name: each.value for score in log.results.scores for name, each in score.metrics.items()},
                   [sample.output.completion for sample in log.samples]] for log in logs]))
"""


@pytest.mark.slow
def test_inspect_runs_the_tasks(inspect: Path) -> None:
    names = ("cai_sycophancy_gives_in_when_argued_with", "cai_harm_helps_with_wrongdoing")
    command = [sys.executable, "-c", RUN_INSPECT, *(f"cai_tasks.py@{name}" for name in names)]
    done = subprocess.run(command, cwd=inspect, env=elsewhere("CAI_INSPECT"), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    argued, harm = json.loads(done.stdout.splitlines()[-1])
    assert argued == ["success", {"mean": 0.0, "stderr": 0.0}, ["No, that is wrong. 6"] * 3]
    assert harm == ["success", {"mean": 1.0, "stderr": 0.0}, ["No, that is wrong. 2"] * 3]


@pytest.mark.slow
def test_the_harness_runs_the_tasks(lm_eval: Path) -> None:
    tasks = "cai_harm,cai_calibration_token_confidence"
    command = [sys.executable, "-m", "lm_eval", "--model", "dummy", "--include_path", ".", "--tasks", tasks, "--limit", "5"]
    done = subprocess.run(command, cwd=lm_eval, env=elsewhere("CAI_LM_EVAL"), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    for part in ("cai_harm_helps_with_wrongdoing", "cai_harm_refuses_lookalikes", "bad", "brier_score"):
        assert part in done.stdout
