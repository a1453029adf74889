"""`cai reward`, `cai score` and `cai sft` one after the other, on files and on a run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from checkpoints import make_checkpoint
from transformers import AutoModelForSequenceClassification
from whole_runs import cai_here, write_config, write_prompts

FLAGS = (
    "--set", "learning_rate=1e-3", "--set", "lora.r=4", "--set", "dtype=float32", "--set", "holdout_share=0.3", "--set",
    "heads=2",
)  # fmt: skip


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("llama"))


def lines(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_pairs_make_a_reward_model_that_scores_samples_whose_best_are_learned(tmp_path: Path, llama: Path) -> None:
    pairs = lines(
        tmp_path / "pairs.jsonl",
        [
            {
                "prompt": f"Is {at} even?",
                "chosen": f"Yes, {at}.",
                "rejected": "I am sorry.",
                "p_chosen": 0.9,
                "uid": f"\x1b{at}",
            }
            for at in range(16)
        ],
    )
    common = ("reward", "--data", pairs, "--model", llama, *FLAGS)
    tried = cai_here(*common, "--dry-run")
    assert tried.returncode == 0, tried.stderr
    assert "a dry run" in tried.stdout
    assert {path.name for path in tmp_path.iterdir()} == {"pairs.jsonl"}
    trained = cai_here(*common, "--output", tmp_path / "rm")
    assert trained.returncode == 0, trained.stderr
    for said in ("held-out pairs", "the longer reply wins", "calibration error", "2 heads", "chosen"):
        assert said in trained.stdout, said
    assert "\x1b" not in trained.stdout
    again = json.loads(cai_here(*common, "--output", tmp_path / "rm", "--json").stdout)
    assert again["quality"]["pairs"] + again["training"]["trained_rows"] == 16
    assert AutoModelForSequenceClassification.from_pretrained(tmp_path / "rm").config.num_labels == 2

    samples = lines(
        tmp_path / "samples.jsonl",
        [{"prompt": f"Is {at} odd?", "completion": reply} for at in range(3) for reply in ("Yes.", "No, it is not.", "Well.")],
    )
    scored = cai_here("score", samples, "--reward", tmp_path / "rm", "--out", tmp_path / "scored.jsonl", "--dtype", "float32")
    assert scored.returncode == 0, scored.stderr
    assert "9 replies in 9 rows" in scored.stdout
    best = cai_here("score", tmp_path / "scored.jsonl", "--best-of", "3", "-o", tmp_path / "best.jsonl")
    assert best.returncode == 0, best.stderr
    assert "0.432" in best.stdout  # log 3 − 2/3
    tuned = cai_here("sft", "--data", tmp_path / "best.jsonl", "--model", llama, "--output", tmp_path / "tuned", *FLAGS[:6])
    assert tuned.returncode == 0, tuned.stderr
    assert "3 rows" in tuned.stdout

    bad = lines(tmp_path / "bad.jsonl", [{"prompt": "Hi.", "completion": "Hello."}, {"prompt": "Hi.", "completion": ""}])
    failed = cai_here("score", bad, "--reward", tmp_path / "rm", "--json")
    assert failed.returncode == 3
    assert json.loads(failed.stdout)["failures"] == {"empty_reply": 1}


def test_what_cannot_be_meant_is_refused_before_a_model_is_looked_for(tmp_path: Path) -> None:
    rows = lines(tmp_path / "rows.jsonl", [{"prompt": "Hi.", "completion": "Hello."}])
    for arguments, said in (
        (("score", rows), "--reward"),
        (("score", rows, "--reward", "./nowhere", "-o", rows), "is the file that is read"),
        (("score", rows, "--reward", "./nowhere", "-o", tmp_path / "out.csv"), "JSONL"),
        (("score", rows, "--reward", "./nowhere"), "no such folder"),
        (("reward", "--data", rows, "--model", "./nowhere", "--output", tmp_path / "out"), "no chosen and no rejected"),
        (("reward", "--data", rows, "--model", "./nowhere"), "--output"),
        (("reward",), "CONFIG.yaml"),
    ):
        done = cai_here(*arguments)
        assert done.returncode in {1, 2}, arguments
        assert said in done.stderr, (arguments, done.stderr)
    assert {path.name for path in tmp_path.iterdir()} == {"rows.jsonl"}


def test_a_run_has_a_reward_model_of_its_pairs_beside_it(tmp_path: Path, llama: Path) -> None:
    config = write_config(tmp_path, llama, write_prompts(tmp_path / "prompts.jsonl", 10))
    settings = [f"reward.{flag}" if flag != "--set" else flag for flag in FLAGS]
    missing = cai_here("reward", config)
    assert missing.returncode == 2
    assert "no `reward` section" in missing.stderr
    early = cai_here("reward", config, *settings, "--dry-run")
    assert early.returncode == 1
    assert "cai label" in early.stderr
    done = cai_here("reward", config, *settings, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    run = Path(result["training"]["folder"]).parent
    assert (run / "reward" / "model.safetensors").is_file()
    assert "Reward model" in (run / "report.html").read_text(encoding="utf-8")
    assert not (run / "dpo").exists(), "nothing else is trained"
    scored = cai_here("score", run, "--reward", run / "reward", "--best-of", "1", "-o", tmp_path / "best.jsonl")
    assert scored.returncode == 0, scored.stderr
    assert (tmp_path / "best.jsonl").read_text().count("\n") >= 1
    assert cai_here("status", run).returncode == 0
    assert cai_here("doctor", run).returncode == 0
