"""Whole runs on small real models: every stage connected, every row accounted for, nothing done twice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from checkpoints import ARCHITECTURES, Architecture, make_checkpoint
from whole_runs import cai, output_files, write_config, write_prompts

from cai.config import read_config
from cai.evaluation.results import EvaluationResult
from cai.pipeline import RunSummary, open_session, read_inputs, run
from cai.pipeline.exporting import review_of
from cai.pipeline.learning import anchors
from cai.records import EVALUATION, FailureRecord, Outcome, RecordKind, RevisionRecord, Stage


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("llama"))


def complete(config: Path, *flags: str, until: Stage = Stage.EVALUATE) -> RunSummary:
    with open_session(read_inputs(read_config(config, flags, {}).config)) as session:
        return run(session, until=until)


def assert_only_silence_fails(summary: RunSummary) -> None:
    """A random model may end its turn at once; nothing else may go wrong."""
    failed = {reason for (outcome, reason), _ in summary.reasons.items() if outcome is Outcome.FAILED}
    assert failed <= {"draft: empty_draft", "critique: empty_critique"}
    assert summary.ledger[Outcome.PAIR] > 0


def test_every_input_row_has_one_outcome_and_every_file_is_written(tmp_path: Path, llama: Path) -> None:
    prompts = write_prompts(tmp_path / "prompts.jsonl", 40)
    with prompts.open("a") as file:
        file.write('{"prompt": "  "}\n')
    config = write_config(tmp_path, llama, prompts, export_format="both", sft={"epochs": 1, "batch_rows": 8})
    summary = complete(config)
    assert sum(summary.ledger.values()) == 41
    assert summary.ledger[Outcome.PENDING] == 0
    assert summary.reasons[Outcome.FILTERED, "held out for the evaluation"] == 8
    assert summary.reasons[Outcome.FAILED, "read: empty_prompt"] == 1
    assert set(summary.training) == {Stage.SFT, Stage.DPO}
    assert summary.evaluation is not None
    files = {path.relative_to(summary.folder).as_posix() for path in summary.folder.rglob("*") if path.is_file()}
    assert files >= {
        "manifest.json",
        "evaluation.json",
        "report.html",
        "datasets/README.md",
        "datasets/sft.jsonl",
        "datasets/preferences.parquet",
        "dpo/model.safetensors",
        "dpo/config.json",
        "sft/model.safetensors",
    }
    rows = [json.loads(line) for line in (summary.folder / "datasets" / "preferences.jsonl").open()]
    assert len(rows) == summary.ledger[Outcome.PAIR]
    assert summary.ledger[Outcome.PAIR] + summary.ledger[Outcome.KEPT] == sum(
        1 for _ in (summary.folder / "datasets" / "sft.jsonl").open()
    )


def test_the_second_run_asks_the_model_nothing_and_changes_no_file(tmp_path: Path, llama: Path) -> None:
    config = write_config(tmp_path, llama, write_prompts(tmp_path / "prompts.jsonl"))
    first = complete(config)
    before = output_files(first.folder)
    with open_session(read_inputs(read_config(config, (), {}).config)) as session:
        calls = session.folder.usage()
        run(session)
        assert session.folder.usage() == calls
    assert output_files(first.folder) == before


def test_more_prompts_keep_what_was_drafted(tmp_path: Path, llama: Path) -> None:
    prompts = write_prompts(tmp_path / "prompts.jsonl", 8)
    config = write_config(tmp_path, llama, prompts, holdout_share=0.0)

    def drafts() -> tuple[dict[str, str], int]:
        with open_session(read_inputs(read_config(config, (), {}).config)) as session:
            run(session, until=Stage.GENERATE)
            records = session.folder.records(RecordKind.REVISION, RevisionRecord)
            return {record.uid: record.draft for record in records}, session.folder.usage()["draft"].calls

    few, calls = drafts()
    write_prompts(prompts, 12)
    more, more_calls = drafts()
    assert few.items() <= more.items()
    assert more_calls == calls + 4


def test_an_edited_principle_runs_only_its_own_rows_again(tmp_path: Path, llama: Path) -> None:
    principles = tmp_path / "mine.yaml"
    principles.write_text("name: mine\nprinciples:\n- {id: brief, principle: Be brief.}\n- {id: kind, principle: Be kind.}\n")
    prompts = write_prompts(tmp_path / "prompts.jsonl", 12)
    config = write_config(tmp_path, llama, prompts, constitution=[str(principles)], holdout_share=0.0)

    def usage() -> tuple[dict[str, int], dict[str, int]]:
        with open_session(read_inputs(read_config(config, (), {}).config)) as session:
            run(session, until=Stage.GENERATE)
            drawn: dict[str, int] = {}
            for record in session.folder.records(RecordKind.REVISION, RevisionRecord):
                drawn[record.rounds[0].principle_id] = drawn.get(record.rounds[0].principle_id, 0) + 1
            return {stage: each.calls for stage, each in session.folder.usage().items()}, drawn

    first, drawn = usage()
    principles.write_text(principles.read_text().replace("Be kind.", "Be kind and calm."))
    second, _ = usage()
    assert second["draft"] == first["draft"]
    # Equal conversations share their greedy critique: duplicates among the prompts are asked once.
    assert 0 < second["critique"] - first["critique"] <= drawn["kind"]


@pytest.mark.parametrize("architecture", [a for a in ARCHITECTURES if a != "llama"])
def test_other_architectures_run_from_principles_to_a_model_that_loads(tmp_path: Path, architecture: Architecture) -> None:
    from transformers import AutoModelForCausalLM

    model = make_checkpoint(tmp_path / "model", architecture)
    form = {"base_model_form": "plain"} if architecture == "gpt2" else {}
    config = write_config(
        tmp_path,
        model,
        write_prompts(tmp_path / "prompts.jsonl", 8),
        policy={"name": str(model), "device": "cpu", "dtype": "float32", **form},
    )
    summary = complete(config)
    assert_only_silence_fails(summary)
    assert summary.model is not None
    AutoModelForCausalLM.from_pretrained(summary.model)


def test_a_qwen_shaped_model_with_the_real_tokenizer_goes_all_the_way(tmp_path: Path, shared_data: Path) -> None:
    model = make_checkpoint(tmp_path / "model", "qwen2", tokenizer_from=shared_data / "tokenizers" / "qwen2.5", hidden_size=32)
    summary = complete(write_config(tmp_path, model, write_prompts(tmp_path / "prompts.jsonl", 8)))
    assert_only_silence_fails(summary)
    assert summary.training[Stage.DPO].trained_rows == summary.ledger[Outcome.PAIR] > 0


def test_real_red_team_conversations_go_through_the_whole_pipeline(tmp_path: Path, shared_data: Path, llama: Path) -> None:
    source = {"path": str(shared_data / "hh-harmless" / "pairs.jsonl"), "limit": 24, "shuffle_seed": 1, "tags": ["requests"]}
    config = write_config(tmp_path, llama, source, constitution=["shipped"])
    summary = complete(config)
    assert sum(summary.ledger.values()) == 24
    assert summary.ledger[Outcome.PENDING] == 0
    assert summary.ledger[Outcome.PAIR] > 0


def test_a_prompt_of_a_hundred_thousand_tokens_fails_alone(tmp_path: Path, llama: Path) -> None:
    prompts = write_prompts(tmp_path / "prompts.jsonl", 6)
    with prompts.open("a") as file:
        file.write(json.dumps({"uid": "long", "prompt": "word " * 100_000}) + "\n")
    config = write_config(tmp_path, llama, prompts, holdout_share=0.0)
    with open_session(read_inputs(read_config(config, (), {}).config)) as session:
        summary = run(session, until=Stage.LABEL)
        failures = list(session.folder.records(RecordKind.FAILURE, FailureRecord))
    assert [(f.uid, f.stage, f.cause) for f in failures] == [("long", "draft", "prompt_too_long")]
    assert summary.ledger[Outcome.FAILED] == 1


def test_the_command_ends_with_3_when_rows_failed_and_prints_json(tmp_path: Path, llama: Path) -> None:
    prompts = write_prompts(tmp_path / "prompts.jsonl", 30)
    with prompts.open("a") as file:
        file.write('{"prompt": ""}\n')
    done = cai("export", write_config(tmp_path, llama, prompts), "--json")
    assert done.returncode == 3, done.stderr
    content = json.loads(done.stdout)
    assert content["ledger"]["failed"] == 1
    assert sum(content["ledger"].values()) == 31


def test_an_edited_constitution_leaves_no_older_training_or_evaluation_in_the_run(tmp_path: Path, llama: Path) -> None:
    """A report used to show the figures of a model that was trained on other records beside the new transcripts."""
    prompts = write_prompts(tmp_path / "prompts.jsonl", 20)
    complete(write_config(tmp_path, llama, prompts))
    edited = write_config(tmp_path, llama, prompts, constitution=["shipped:style"])
    with open_session(read_inputs(read_config(edited, (), {}).config)) as session:
        summary = run(session, until=Stage.LABEL)
        assert session.folder.stage(Stage.DPO) is None
        assert session.folder.stage(Stage.EVALUATE) is None
        assert not list(session.folder.measurements(EVALUATION, EvaluationResult))
    assert summary.model is None


def test_a_run_that_comes_to_no_pair_measures_no_model_of_an_earlier_run(tmp_path: Path, llama: Path) -> None:
    config = write_config(tmp_path, llama, write_prompts(tmp_path / "prompts.jsonl", 20))
    first = complete(config)
    assert (first.folder / "dpo" / "model.safetensors").is_file()
    again = complete(config, "labels.min_margin_nats=1000")
    assert again.ledger[Outcome.PAIR] == 0
    assert again.training == {}
    assert again.evaluation is None
    assert again.model is None


def test_the_reply_that_was_rejected_is_no_anchor_when_two_samples_are_compared(tmp_path: Path, llama: Path) -> None:
    config = write_config(
        tmp_path,
        llama,
        write_prompts(tmp_path / "prompts.jsonl", 16),
        loop={"replicas": 2, "draft": {"max_tokens": 12}, "critique": {"max_tokens": 12}, "revision": {"max_tokens": 12}},
        labels={"candidates": "samples", "principles": "applicable", "ground_tokens": 8, "min_margin_nats": 0.0},
    )
    with open_session(read_inputs(read_config(config, (), {}).config)) as session:
        run(session, until=Stage.LABEL)
        with_pair = {pair.uid for pair in review_of(session).pairs_of(session.folder)}
        assert with_pair
        assert not with_pair & {anchor.uid for anchor in anchors(session, review_of(session))}
