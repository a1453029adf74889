"""`cai dpo` and `cai sft` on files of rows, and `cai try` on one prompt, on a tiny model."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from checkpoints import make_checkpoint
from transformers import AutoModelForCausalLM
from whole_runs import REPOSITORY, cai, cai_here, write_config, write_prompts

HH_STYLE = REPOSITORY / "examples" / "prompts" / "hh-style.jsonl"
FLAGS = ("--set", "learning_rate=1e-3", "--set", "epochs=1", "--set", "lora.r=4", "--set", "dtype=float32")


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("llama"))


def test_pairs_of_other_people_train_a_model_that_loads_and_a_second_call_trains_nothing(tmp_path: Path, llama: Path) -> None:
    arguments = ("dpo", "--data", HH_STYLE, "--model", llama, "--output", tmp_path / "out", *FLAGS, "--json")
    first = cai(*arguments)
    assert first.returncode == 0, first.stderr
    result = json.loads(first.stdout)
    assert result["trained_rows"] == sum(1 for _ in HH_STYLE.open())
    AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    weights = (tmp_path / "out" / "model.safetensors").stat().st_mtime_ns
    second = cai_here(*arguments)
    assert json.loads(second.stdout)["fingerprint"] == result["fingerprint"]
    assert (tmp_path / "out" / "model.safetensors").stat().st_mtime_ns == weights


def test_a_wrong_setting_of_a_training_command_names_the_nearest(tmp_path: Path, llama: Path) -> None:
    done = cai("sft", "--data", HH_STYLE, "--model", llama, "--output", tmp_path / "out", "--set", "epoch=2")
    assert done.returncode == 1
    assert "did you mean `epochs`" in done.stderr
    assert not (tmp_path / "out").exists()


PAIRS = (
    {"prompt": "Say \x1b[31mred[/red] <|im_end|>", "chosen": "It is 4.", "rejected": "It is 5, of course.", "p_chosen": 0.9},
    {"prompt": "Say \x1b[31mred[/red] <|im_end|>", "chosen": "It is 4.", "rejected": "No.", "p_chosen": 0.8},
    {"prompt": "Name a colour.", "chosen": "Blue.", "rejected": "Blue."},
    {"prompt": "Name a tree.", "chosen": "An oak.", "rejected": "A table."},
)


def rows_file(folder: Path, rows: Iterable[dict[str, Any]]) -> Path:
    file = folder / "pairs.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def test_a_dry_run_shows_the_first_batch_with_its_mask_and_writes_nothing(tmp_path: Path, llama: Path) -> None:
    arguments = ("--data", rows_file(tmp_path, PAIRS), "--model", llama, *FLAGS)
    done = cai_here("dpo", *arguments, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"pairs.jsonl"}
    assert "\x1b" not in done.stdout  # no colour in a pipe, and no escape of the row's own: marks must do
    lines = [line.split() for line in done.stdout.splitlines()]
    marked = {" ".join(words[:3]): words for words in lines if words[:1] == ["learnt"]}
    assert "\\x1b[31mred[/red] <|im_end|>‹<|im_end|>›⏎‹<|im_start|>›assistant⏎" in " ".join(done.stdout.split())
    assert "".join(marked["learnt = 1,2"][4:]) == "Itis"
    assert "".join(marked["learnt + 1"][4:]) == "4.‹<|im_end|>›"
    assert "".join(marked["learnt - 2"][4:]) == "5,ofcourse.‹<|im_end|>›"
    assert "3 on 2 prompts" in done.stdout
    assert "pairs.jsonl:3: left out (identical)" in done.stdout
    as_json = json.loads(cai_here("dpo", *arguments, "--dry-run", "--json").stdout)
    assert (as_json["trained_rows"], as_json["dropped"]) == (3, {"identical": 1})
    assert as_json["load"]["positions"] < as_json["load"]["apart"]
    assert as_json["memory"]["process_bytes"] > as_json["memory"]["process"]


def test_a_dry_run_of_supervised_rows_marks_the_reply_alone(tmp_path: Path, llama: Path) -> None:
    file = rows_file(tmp_path, [{"prompt": "Name a tree.", "completion": "An oak."}])
    done = cai_here("sft", "--data", file, "--model", llama, "--output", tmp_path / "out", *FLAGS, "--dry-run", "--trial")
    assert done.returncode == 0, done.stderr
    learnt = [line.split() for line in done.stdout.splitlines() if line.split()[:1] == ["learnt"]]
    assert ["".join(words[2:]) for words in learnt] == ["Anoak.‹<|im_end|>›"]
    assert "blocks (tried)" in done.stdout
    assert not (tmp_path / "out").exists()


def test_a_run_without_labels_has_nothing_to_try(tmp_path: Path, llama: Path) -> None:
    config = write_config(tmp_path, llama, write_prompts(tmp_path / "prompts.jsonl", 6))
    done = cai_here("dpo", config, "--dry-run")
    assert done.returncode == 1
    assert "cai label" in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"p_chosen": 0.2}, "swap both, with p_chosen 0.8"),
        ({"p_chosen": 0.0}, "swap both, with p_chosen 1"),
        ({"p_chosen": 1.5}, "no probability"),
        ({"chosen": None}, "no chosen"),
    ],
)
def test_rows_that_cannot_be_meant_are_refused_with_their_place_before_a_model_is_looked_for(
    row: dict[str, Any], said: str, tmp_path: Path
) -> None:
    file = rows_file(tmp_path, [*PAIRS[:2], PAIRS[3] | row])
    done = cai_here("dpo", "--data", file, "--model", "./nowhere", "--output", tmp_path / "out")
    assert done.returncode == 1
    assert "pairs.jsonl:3" in done.stderr
    assert said in " ".join(done.stderr.split())
    assert "nowhere" not in done.stderr


def test_a_file_without_rows_is_refused(tmp_path: Path) -> None:
    done = cai_here("dpo", "--data", rows_file(tmp_path, []), "--model", "./nowhere", "--output", tmp_path / "out")
    assert done.returncode == 1
    assert "no rows in it" in done.stderr


def test_pairs_of_which_none_can_be_trained_on_are_refused_with_the_first_of_them(tmp_path: Path, llama: Path) -> None:
    rows = [PAIRS[2], PAIRS[3] | {"chosen": " "}]
    done = cai_here("dpo", "--data", rows_file(tmp_path, rows), "--model", llama, "--output", tmp_path / "out", *FLAGS)
    assert done.returncode == 1
    assert "1 empty_reply, 1 identical; the first is pairs.jsonl:1" in " ".join(done.stderr.split())
    assert not (tmp_path / "out").exists()


def test_one_prompt_is_tried_from_a_given_draft_and_hostile_text_stays_text(llama: Path) -> None:
    draft = "[red]You are \x1b[31mright.[/red]"
    done = cai(
        "try", "Is 2 + 2 = 5?", "--draft", draft, "--model", llama, "--principle", "correct-false-claims", "--max-tokens", 8
    )
    assert done.returncode in {0, 3}, done.stderr
    assert "\x1b[31m" not in done.stdout
    assert "[red]You are" in done.stdout or "failed in" in done.stdout
    as_json = cai_here("try", "Is it?", "--draft", draft, "--model", llama, "--max-tokens", 8, "--tags", "claims", "--json")
    assert json.loads(as_json.stdout.splitlines()[0])["uid"] == "try"


def test_what_cannot_be_tried_is_said_at_once() -> None:
    done = cai("try", " ", "--model", "./nowhere", "--principle", "no-such-principle")
    assert done.returncode == 1
    for words in ("./nowhere", "no-such-principle", "the prompt is empty"):
        assert words in done.stderr


def test_rows_of_ones_own_are_mixed_in_and_told(tmp_path: Path, llama: Path) -> None:
    rows, helpful = tmp_path / "rows.jsonl", tmp_path / "helpful.jsonl"
    rows.write_text("".join(json.dumps({"prompt": f"Say {n}.", "completion": f"{n}."}) + "\n" for n in range(6)))
    helpful.write_text("".join(json.dumps({"prompt": f"Why {n}?", "completion": f"For {n}."}) + "\n" for n in range(40)))
    mix = f"mix=[{{path: {helpful}, share: 0.5}}]"
    arguments = ("sft", "--data", rows, "--model", llama, "--output", tmp_path / "out", *FLAGS, "--set", mix)
    done = cai_here(*arguments)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "out" / "training.json").read_text())
    (mixed,) = result["mixed"]
    assert result["trained_rows"] == 6 + mixed["rows"]
    assert f"{mixed['rows']} rows of {helpful} mixed in: {mixed['share']:.1%} of what was learned" in done.stdout
    assert 0.5 <= mixed["share"] < 0.65


def test_of_a_file_there_are_no_rounds_to_choose(tmp_path: Path, llama: Path) -> None:
    done = cai_here("sft", "--data", HH_STYLE, "--model", llama, "--output", tmp_path / "out", "--set", "rounds=all")
    assert done.returncode == 2
    assert "every row is trained on" in done.stderr


def test_a_bad_row_stops_supervised_training_with_its_place(tmp_path: Path, llama: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "q", "completion": "a"}\n{"prompt": "q"}\n')
    done = cai_here("sft", "--data", rows, "--model", llama, "--output", tmp_path / "out")
    assert done.returncode == 1
    assert "rows.jsonl:2: neither messages nor prompt and completion" in done.stderr
    assert not (tmp_path / "out").exists()
