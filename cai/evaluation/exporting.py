"""Suites as tasks of lm-evaluation-harness and inspect_ai: files that those programs run, with the same checks.

The checks are not written twice: `cai.evaluation.checks` itself is put beside the tasks. What a program cannot run is left out
and told.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, cast

import yaml

from cai.errors import ConfigError, ProblemList
from cai.evaluation.data_suites import plan_suite
from cai.evaluation.judging import JudgeModel
from cai.evaluation.suite_cases import CHECK
from cai.evaluation.suite_reading import ReadSuite
from cai.evaluation.suites import Trial
from cai.store.files import write_bytes_atomically
from constitution.messages import Message

FORMATS = ("lm-eval", "inspect")
CHECKS_FILE = "cai_checks.py"
PATTERNS_FILE = "cai_patterns.json"
LM_EVAL_FILE, INSPECT_FILE = "cai_lm_eval.py", "cai_tasks.py"
MAX_TOKENS = 256
"""As `evaluation.max_tokens`, where a suite does not say."""


@dataclass
class Exported:
    """What was written, and what was left out: lines to be shown."""

    lines: list[str] = field(default_factory=list[str])
    tasks: list[str] = field(default_factory=list[str])
    left_out: list[str] = field(default_factory=list[str])


def export_tasks(suites: Sequence[ReadSuite], form: str, folder: Path) -> Exported:
    """Write suites as tasks into a new or empty folder.

    Raises:
        ProblemList: If the format is unknown, or something is in the folder already.
    """
    problems = [] if form in FORMATS else [ConfigError(f"there is no format `{form}`", f"there are {' and '.join(FORMATS)}")]
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        problems.append(ConfigError(f"{folder}: there is something already", "name a new folder"))
    if problems:
        raise ProblemList("These tasks cannot be written:", problems)
    exported = Exported()
    writer: Callable[[ReadSuite, Exported], Iterator[tuple[str, str]]] = _lm_eval if form == "lm-eval" else _inspect
    files: dict[str, str] = {
        CHECKS_FILE: _source("checks.py"),
        PATTERNS_FILE: _json({s.name: s.patterns for s in suites}) + "\n",
    }
    for suite in suites:
        files.update(writer(suite, exported))
    program = LM_EVAL_FILE if form == "lm-eval" else INSPECT_FILE
    files[program] = _source(f"export/{program}.txt") + (_task_functions(exported.tasks) if form == "inspect" else "")
    run = "lm_eval --include_path . --tasks NAME --apply_chat_template" if form == "lm-eval" else f"inspect eval {INSPECT_FILE}"
    needs = "lm-eval (0.4.8 or later)" if form == "lm-eval" else "inspect-ai"
    exported.lines = [
        f"{len(exported.tasks)} tasks in {folder}: {', '.join(exported.tasks)}",
        *(f"left out: {each}" for each in exported.left_out),
        f"They need {needs} and regex. Run them in that folder: {run}",
    ]
    files["README.md"] = "# Tasks written by `cai eval --export`\n\n" + "".join(f"- {line}\n" for line in exported.lines[1:])
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        write_bytes_atomically(folder / name, text.encode())
    return exported


def _source(name: str) -> str:
    return resources.files("cai.evaluation").joinpath(name).read_text(encoding="utf-8")


def _json(content: object) -> str:
    return json.dumps(content, ensure_ascii=False)


def _lines(rows: Sequence[Mapping[str, Any]]) -> str:
    return "".join(f"{_json(row)}\n" for row in rows)


def _unasked() -> Any:
    raise AssertionError("no judge is asked while tasks are written")


@dataclass(frozen=True)
class _Section:
    """What becomes one task."""

    name: str
    label: str
    trials: Sequence[Trial]


def _sections(suite: ReadSuite, exported: Exported) -> Iterator[_Section]:
    """The behaviours that checks alone can judge."""
    plan = plan_suite(suite, JudgeModel("none", _unasked))
    for each in suite.file.behaviours:
        if suite.file.tools:
            exported.left_out.append(f"{suite.name}: {each.id} (offers tools, which these tasks do not)")
        elif each.checker.judges:
            exported.left_out.append(f"{suite.name}: {each.id} (needs a judge model)")
        else:
            own = [trial for trial in plan.suite.trials if trial.behaviour == each.id] if plan.suite is not None else []
            yield _Section(each.id, each.label, own)
    for section, reason in (("drift", "compares a model with another one"), ("preference", "needs a judge model")):
        if getattr(suite.file, section) is not None:
            exported.left_out.append(f"{suite.name}: {section} ({reason})")


def _task_name(suite: str, section: str) -> str:
    return f"cai_{suite}_{section}".replace("-", "_")


# ---- lm-evaluation-harness


def _lm_eval(suite: ReadSuite, exported: Exported) -> Iterator[tuple[str, str]]:
    """YAML and rows for each task; see the harness's docs/task_guide.md for the keys."""
    for section in _sections(suite, exported):
        name = _task_name(suite.name, section.name)
        if any(trial.follow_ups or _several(trial) for trial in section.trials):
            exported.left_out.append(f"{suite.name}: {section.name} (several turns, which the harness does not ask)")
            continue
        yield f"{name}.jsonl", _lines([_lm_eval_row(suite, trial) for trial in section.trials])
        config: dict[str, Any] = {
            **_lm_eval_head(suite, name),
            "output_type": "generate_until",
            "doc_to_text": "{{prompt}}",
            "doc_to_target": "",
            "generation_kwargs": {
                "until": [],
                "max_gen_toks": suite.file.max_tokens or MAX_TOKENS,
                "do_sample": False,
                "temperature": 0.0,
            },
            "process_results": _Function(f"{LM_EVAL_FILE.removesuffix('.py')}.judged"),
            "metric_list": [
                {"metric": metric, "aggregation": "mean", "higher_is_better": False} for metric in ("bad", "broken", "unjudged")
            ],
        }
        exported.tasks.append(name)
        yield f"{name}.yaml", _yaml(config)
    if suite.file.calibration is not None:
        yield from _lm_eval_calibration(suite, exported)


def _lm_eval_calibration(suite: ReadSuite, exported: Exported) -> Iterator[tuple[str, str]]:
    name = _task_name(suite.name, "token_confidence")
    questions = plan_suite(suite, JudgeModel("none", _unasked)).questions
    rows = [
        {
            "id": each.item.uid,
            "prompt": each.item.messages[-1].content,
            "beginning": each.beginning,
            "options": list(each.options),
        }
        for each in questions
    ]
    config = {
        **_lm_eval_head(suite, name),
        "output_type": "multiple_choice",
        "doc_to_text": "{{prompt}}",
        "gen_prefix": "{{beginning}}",
        "doc_to_choice": "{{options}}",
        "doc_to_target": 0,
        "metric_list": [
            {"metric": "acc", "aggregation": "mean", "higher_is_better": True},
            {"metric": "brier_score", "aggregation": "brier_score", "higher_is_better": False},
        ],
    }
    exported.tasks.append(name)
    if any(each.stated is not None for each in questions):
        exported.left_out.append(f"{suite.name}: stated confidence")
    yield f"{name}.jsonl", _lines(rows)
    yield f"{name}.yaml", _yaml(config)


def _lm_eval_head(suite: ReadSuite, name: str) -> dict[str, Any]:
    system = suite.file.system
    return {
        "task": name,
        "tag": f"cai_{suite.name}".replace("-", "_"),
        "custom_dataset": _Function(f"{LM_EVAL_FILE.removesuffix('.py')}.rows"),
        "dataset_kwargs": {"file": f"{name}.jsonl"},
        "test_split": "test",
        **({"description": system} if system else {}),
        "metadata": {"version": 1.0},
    }


def _several(trial: Trial) -> bool:
    return sum(message.role != "system" for message in trial.item.messages) > 1


def _lm_eval_row(suite: ReadSuite, trial: Trial) -> dict[str, Any]:
    return {
        "id": trial.item.uid,
        "prompt": trial.item.messages[-1].content,
        "cluster": trial.cluster_name,
        "suite": suite.name,
        CHECK: _json(trial.item.facts[CHECK]),
    }


class _Function(str):
    """Written as `!function module.name`, which the harness calls."""

    __slots__ = ()


class _Dumper(yaml.SafeDumper):
    """Writes plain values, and functions by their names."""


def _represented(dumper: Any, value: _Function) -> yaml.ScalarNode:
    return cast("yaml.ScalarNode", dumper.represent_scalar("!function", str(value), style=""))


_Dumper.add_representer(_Function, _represented)


def _yaml(config: Mapping[str, Any]) -> str:
    return yaml.dump(dict(config), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


# ---- inspect_ai


def _inspect(suite: ReadSuite, exported: Exported) -> Iterator[tuple[str, str]]:
    """One file of samples for each task; the tasks themselves are functions of one Python file, made from the files' names."""
    for section in _sections(suite, exported):
        name = _task_name(suite.name, section.name)
        exported.tasks.append(name)
        yield f"{name}.jsonl", _lines([_sample(suite, trial) for trial in section.trials])
    if suite.file.calibration is not None:
        exported.left_out.append(f"{suite.name}: calibration (inspect_ai scores no given texts)")


def _task_functions(names: Sequence[str]) -> str:
    """inspect_ai finds tasks by reading the file: each has to stand there as a function."""
    return "".join(f'\n\n@task\ndef {name}():\n    return made("{name}")\n' for name in names)


def _sample(suite: ReadSuite, trial: Trial) -> dict[str, Any]:
    def turns(messages: Sequence[Message]) -> list[dict[str, str]]:
        return [{"role": each.role, "content": each.content} for each in messages]

    return {
        "id": trial.item.uid,
        "input": turns(trial.item.messages),
        "target": "good",
        "metadata": {
            "suite": suite.name,
            "cluster": trial.cluster_name,
            "max_tokens": suite.file.max_tokens or MAX_TOKENS,
            "follow_ups": [turns(group) for group in trial.follow_ups],
            CHECK: trial.item.facts[CHECK],
        },
    }
