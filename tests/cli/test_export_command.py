"""`cai export` with --to: on a run's folder, or by its configuration; and wrong calls in words."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from labelled_runs import write_labelled_run
from scripted_runs import write_scripted_run

Cai = Callable[..., Any]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_labelled_run(tmp_path_factory.mktemp("run") / "run")


def test_a_run_folder_is_exported_and_all_of_it_told(cai: Cai, run: Path, tmp_path: Path) -> None:
    done = cai("export", run, "--to", "hh-rlhf", "--output", tmp_path / "out", "--threshold", 0.7)
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert lines[0] == f"{tmp_path / 'out' / 'preferences.jsonl'}: 2 rows"
    assert "- preferences: 1 pair below p=0.7 left out" in lines
    assert any("1 row left out: a system turn" in line for line in lines)


def test_the_result_as_json(cai: Cai, run: Path, tmp_path: Path) -> None:
    done = cai(
        "export", run, "--to", "trl", "-o", tmp_path / "out", "--split", 0.4, "--json", "--licence", "mit", "--language", "en"
    )
    content = json.loads(done.out)
    assert (content["format"], [each["name"] for each in content["tables"]]) == ("trl", ["preferences", "reward", "sft"])
    assert [sum(each["rows"].values()) for each in content["tables"]] == [4, 4, 3]
    assert all(Path(file).is_file() for each in content["tables"] for file in each["files"].values())
    assert "license: mit\nlanguage:\n- en\n" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")


def test_a_configuration_names_the_run_and_the_stage_still_writes_its_own_files(cai: Cai, tmp_path: Path) -> None:
    config = write_scripted_run(
        tmp_path / "mine", rows=20, labels={"min_margin_nats": 0.0}, export_licence="mit", export_languages=["en"]
    )
    early = cai("export", config, "--to", "trl", "-o", tmp_path / "out")
    assert early.code == 1
    assert "no run in this folder" in early.err
    assert cai("export", config).code == 3  # one broken row among the prompts
    stage = (tmp_path / "mine" / "run" / "datasets" / "README.md").read_text(encoding="utf-8")
    assert "license: mit" in stage
    done = cai("export", config, "--to", "trl", "-o", tmp_path / "out")
    assert done.code == 0, done.err
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "license: mit" in card
    for heading in ("## Principles", "## Quality of the labels", "## What was filtered", "## Known limits"):
        assert heading in stage
        assert heading in card
    before = (tmp_path / "mine" / "run" / "datasets" / "preferences.jsonl").read_bytes()
    assert (tmp_path / "out" / "preferences.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--to", "trll", "-o", "x"], 1, "did you mean `trl`?"),
        (["--to", "trl"], 2, "--to needs --output"),
        ([], 2, "is a folder: say in which form"),
        (["--threshold", "0.7"], 2, "belong to --to"),
        (["--to", "trl", "-o", "x", "--threshold", "0.4"], 2, "0.4 is not from 0.5 and at most 1"),
        (["--to", "trl", "-o", "x", "--split", "0"], 2, "0 is not above 0 and at most 0.9"),
        (["--to", "trl", "-o", "x", "--licence", "MIT License"], 2, "is not like apache-2.0"),
        (["--to", "trl", "-o", "x", "--language", "English"], 2, "is not like en"),
        (["--to", "trl", "-o", "x", "--private"], 2, "--private is of --push"),
        (["--to", "trl", "-o", "x", "--plan"], 2, "--plan is of the stage"),
        (["--to", "trl", "-o", "x", "--push", "me/it"], 1, "HF_HUB_OFFLINE is set"),
        (["--to", "trl", "-o", "x", "--tokenizer", "./nowhere"], 1, "there is no such folder"),
    ],
)
def test_wrong_calls_are_refused_in_words_and_write_nothing(
    arguments: list[str], code: int, said: str, cai: Cai, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("COLUMNS", "200")
    done = cai("export", run, *arguments)
    assert (done.code, said in " ".join(done.err.split())) == (code, True), done.err
    assert not list(tmp_path.iterdir())
