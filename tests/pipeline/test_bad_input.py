"""What users get wrong is refused before a model loads, all at once, in words: never with a traceback."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import pytest
from checkpoints import make_checkpoint
from whole_runs import cai, write_config, write_prompts

from cai.config import read_config
from cai.errors import CaiError, DataError, ProblemList, StoreError
from cai.pipeline import open_session, read_inputs
from cai.store import RunFolder


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("llama"))


def refused(config: Path) -> str:
    with pytest.raises(CaiError) as caught:
        read_inputs(read_config(config, (), {}).config)
    return str(caught.value)


def test_everything_wrong_is_said_at_once(tmp_path: Path) -> None:
    broken = tmp_path / "broken.yaml"
    broken.write_text(
        "name: x\nprinciples:\n- id: a\n  principle: Be brief.\n  critque_request: Is it?\n- id: a\n  principle: ''\n"
    )
    config = write_config(tmp_path, tmp_path / "no-model", tmp_path / "no-prompts.jsonl", constitution=[str(broken)])
    text = refused(config)
    assert f"{broken}:5:3" in text
    assert "critique_request" in text
    assert "no-model" in text
    assert "no-prompts.jsonl" in text


def test_an_unknown_key_names_the_nearest_and_its_line(tmp_path: Path, llama: Path) -> None:
    config = write_config(tmp_path, llama, write_prompts(tmp_path / "p.jsonl"))
    config.write_text(config.read_text().replace("epochs:", "epoch:"))
    with pytest.raises(ProblemList, match=r"run\.yaml:\d+:3: unknown key `dpo\.epoch`\n.*did you mean `epochs`"):
        read_config(config, (), {})


def test_a_model_without_a_chat_template_is_refused_with_the_ways_out(tmp_path: Path) -> None:
    model = make_checkpoint(tmp_path / "base", chat=False)
    text = refused(write_config(tmp_path, model, write_prompts(tmp_path / "p.jsonl")))
    assert "no chat template" in text
    assert "base_model_form: plain" in text


def test_one_bad_row_in_a_hundred_is_counted_and_more_than_a_few_are_refused(tmp_path: Path, llama: Path) -> None:
    prompts = write_prompts(tmp_path / "p.jsonl", 99)
    with prompts.open("a") as file:
        file.write("{not json\n")
    inputs = read_inputs(read_config(write_config(tmp_path, llama, prompts), (), {}).config)
    assert [failure.cause for failure in inputs.failures] == ["broken_json"]
    with prompts.open("a") as file:
        file.write("{not json\n" * 20)
    assert "rows are broken" in refused(tmp_path / "run.yaml")


def test_a_conversation_that_ends_with_the_assistant_is_one_failure(tmp_path: Path, llama: Path) -> None:
    prompts = write_prompts(tmp_path / "p.jsonl", 40)
    with prompts.open("a") as file:
        file.write(json.dumps({"prompt": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}) + "\n")
    inputs = read_inputs(read_config(write_config(tmp_path, llama, prompts), (), {}).config)
    assert [failure.cause for failure in inputs.failures] == ["ends_with_assistant"]


def test_two_processes_cannot_have_one_run(tmp_path: Path, llama: Path) -> None:
    config = write_config(tmp_path, llama, write_prompts(tmp_path / "p.jsonl"))
    with RunFolder.open(tmp_path / "run"):
        done = cai("run", config)
    assert done.returncode == 1
    assert "is using this run folder" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_damaged_run_folder_is_refused_and_left_alone(tmp_path: Path, llama: Path) -> None:
    config = write_config(tmp_path, llama, write_prompts(tmp_path / "p.jsonl"))
    inputs = read_inputs(read_config(config, (), {}).config)
    with open_session(inputs):
        pass
    database = tmp_path / "run" / "run.sqlite"
    content = b"SQLite format 3\x00" + b"\xff" * 5000
    for extra in (tmp_path / "run").glob("run.sqlite-*"):
        extra.unlink()
    database.write_bytes(content)
    with pytest.raises(StoreError, match="damaged"), open_session(inputs):
        pass
    assert database.read_bytes() == content


def test_wrong_input_on_the_command_line_is_two_lines_not_a_traceback(tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "run", ignore_errors=True)
    for arguments in (
        ("run", tmp_path / "nothing.yaml"),
        ("report", tmp_path),
        ("dpo", "--data", tmp_path / "x.jsonl", "--model", "m", "--output", "o"),
    ):
        done = cai(*arguments)
        assert done.returncode == 1, arguments
        assert done.stderr.startswith("cai: "), done.stderr
        assert "→" in done.stderr
        assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


def test_refusing_takes_no_model_library(tmp_path: Path) -> None:
    began = time.monotonic()
    done = cai("run", tmp_path / "nothing.yaml")
    assert done.returncode == 1
    assert time.monotonic() - began < 5


def test_an_empty_prompts_file_is_refused(tmp_path: Path, llama: Path) -> None:
    (tmp_path / "p.jsonl").write_text("")
    with pytest.raises(CaiError) as caught:
        read_inputs(read_config(write_config(tmp_path, llama, tmp_path / "p.jsonl"), (), {}).config)
    assert any(isinstance(problem, DataError) for problem in getattr(caught.value, "problems", [caught.value]))


def test_two_samples_without_a_second_draft_are_refused(tmp_path: Path, llama: Path) -> None:
    config = write_config(tmp_path, llama, write_prompts(tmp_path / "p.jsonl"), labels={"candidates": "samples"})
    with pytest.raises(ProblemList, match=r"loop\.replicas: 2"):
        read_config(config, (), {})


def test_a_judging_principle_that_is_not_in_use_is_refused_and_one_missing_model_is_said_once(tmp_path: Path) -> None:
    """Judging by a principle that `principles` left out used to fall away in silence."""
    config = write_config(
        tmp_path,
        tmp_path / "no-model",
        write_prompts(tmp_path / "p.jsonl"),
        feedback={"name": str(tmp_path / "no-model"), "adapter": "feedback"},
        principles=["support-claims"],
        labels={"principles": ["own-limits"]},
    )
    text = refused(config)
    assert "`labels.principles`: there is no principle `own-limits` here" in text
    assert text.count("there is no such folder") == 1
