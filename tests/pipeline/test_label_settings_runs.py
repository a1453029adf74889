"""Whole runs under settings of the labels that are not the default: several models, ensembles, candidates and methods.

Each of two configurations combines several settings, on two tiny real models.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from checkpoints import CORPUS, make_checkpoint, make_tokenizer
from whole_runs import environment, write_config, write_prompts

from cai.config import read_config
from cai.pipeline import ProgressEvent, RunSummary, StageProgress, metering, open_session, plan, read_inputs, run
from cai.pipeline.merging import merge
from cai.pipeline.sharding import Shard
from cai.records import ComparedPair, Outcome, PreferenceRecord, RecordKind, Stage, UndecidedRecord
from cai.store import RunFolder

SHORT = {"draft": {"max_tokens": 12}, "critique": {"max_tokens": 8}, "revision": {"max_tokens": 12}}
SAMPLES: dict[str, Any] = {
    "loop": {**SHORT, "replicas": 3},
    "labels": {"method": "yes_no", "candidates": "samples", "ensemble": "normalised", "max_mass_outside": 1.0},
}
CHAIN: dict[str, Any] = {
    "loop": {**SHORT, "rounds": 2, "critique_free": True},
    "labels": {"method": "contrast", "contrast_against": "opposite", "candidates": "chain", "ensemble": "weighted"},
}
PRINCIPLES = """
name: two
principles:
  - {id: kind, principle: Be kind., weight: 3.0}
  - {id: brief, principle: Be brief.}
"""
SETTINGS = pytest.mark.parametrize("changes", [SAMPLES, CHAIN], ids=["samples", "chain"])


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two tiny models to which yes and no are tokens."""
    folder = tmp_path_factory.mktemp("models")
    make_tokenizer(corpus=(CORPUS, "Yes No Yes No " * 40), vocab=600).save_pretrained(folder / "words")
    return (
        make_checkpoint(folder / "one", tokenizer_from=folder / "words"),
        make_checkpoint(folder / "other", tokenizer_from=folder / "words", seed=7),
    )


def written(folder: Path, models: tuple[Path, Path], changes: dict[str, Any], rows: int = 10) -> Path:
    """A configuration in which both models label by all principles, to the last bit."""
    folder.mkdir(parents=True, exist_ok=True)
    specs = [{"name": str(path), "device": "cpu", "dtype": "float32"} for path in models]
    labels = {"models": specs, "principles": "applicable", "min_margin_nats": 0.01, "chunk_items": 3, **changes["labels"]}
    prompts = write_prompts(folder / "prompts.jsonl", rows)
    (folder / "two.yaml").write_text(PRINCIPLES)
    more = {"constitution": [str(folder / "two.yaml")], "engine": {"exact": True}, "dpo": None, "export_format": "jsonl"}
    return write_config(folder, models[0], prompts, **{**more, **changes, "labels": labels})


def complete(config: Path, *flags: str, until: Stage = Stage.EXPORT, shard: Shard | None = None) -> RunSummary:
    read = read_config(config, flags, {}).config
    with open_session(read_inputs(read if shard is None else shard.placed(read), shard)) as session:
        return run(session, until=until)


def compared(folder: Path) -> list[ComparedPair]:
    with RunFolder.open(folder, read_only=True) as opened:
        return [
            *opened.records(RecordKind.PREFERENCE, PreferenceRecord),
            *opened.records(RecordKind.UNDECIDED, UndecidedRecord),
        ]


def outcome(folder: Path) -> tuple[Any, ...]:
    """All that labels come to."""
    with RunFolder.open(folder, read_only=True) as opened:
        return compared(folder), list(opened.ledger()), opened.stage(Stage.LABEL)


@SETTINGS
def test_a_run_names_all_models_that_label_and_judges_every_pair_by_each(
    tmp_path: Path, models: tuple[Path, Path], changes: dict[str, Any]
) -> None:
    config = written(tmp_path, models, changes)
    inputs = read_inputs(read_config(config, (), {}).config)
    before = plan(inputs, until=Stage.EXPORT)
    assert not before.nothing_to_do
    assert next(each for each in before.calls if each.name == "score").calls > 0
    summary = complete(config)
    assert summary.ledger[Outcome.PENDING] == 0
    assert {reason for (state, reason) in summary.reasons if state is Outcome.FAILED} <= {"draft: empty_draft"}
    pairs = compared(summary.folder)
    assert summary.quality is not None
    assert (summary.quality.pairs + summary.quality.undecided, summary.quality.method) == (
        len(pairs),
        changes["labels"]["method"],
    )
    assert any(pair.number > 1 for pair in pairs), "an item makes several pairs"
    for pair in pairs:
        voices = [(each.labeller, each.principle_id) for each in pair.comparisons]
        assert sorted(voices) == sorted((n, principle) for n in (0, 1) for principle in pair.principle_ids)
    assert summary.quality.agreement_of_labellers is not None
    with RunFolder.open(summary.folder, read_only=True) as folder:
        described = folder.manifest["models"]
    assert {*described} == {"policy", "feedback", "labeller 1", "labeller 2"}
    assert described["labeller 1"]["fingerprint"] == described["policy"]["fingerprint"]
    assert described["labeller 2"]["fingerprint"] != described["policy"]["fingerprint"]
    card = (summary.folder / "datasets" / "README.md").read_text()
    for number, name in enumerate(("one", "other"), start=1):
        assert f"| model: labeller {number} | {name}, fingerprint" in card
    for name in ("method", "candidates", "ensemble"):
        assert str(changes["labels"][name]).replace("_", "\\_") in card
    assert plan(inputs, until=Stage.EXPORT).nothing_to_do


def test_a_plan_says_which_labelling_model_is_another_now(tmp_path: Path, models: tuple[Path, Path]) -> None:
    """Story: of models that changed in their place only policy and feedback were named, and rows waited without a cause."""
    other = make_checkpoint(tmp_path / "other", tokenizer_from=models[1], seed=7)
    config = written(tmp_path, (models[0], other), CHAIN, rows=4)
    inputs = read_inputs(read_config(config, (), {}).config)
    complete(config, until=Stage.LABEL)
    make_checkpoint(other, tokenizer_from=models[1], seed=8)
    found = plan(inputs, until=Stage.LABEL)
    assert [(each.kind, each.name) for each in found.changes] == [("model", "labeller 2")]
    assert found.rows
    assert {(row.stage, row.why) for row in found.rows} == {("label", "model labeller 2 changed")}


class Stop(Exception):
    """Somebody has had enough."""


@SETTINGS
def test_labels_that_were_interrupted_go_on_to_the_same_pairs(
    tmp_path: Path, models: tuple[Path, Path], changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    straight = complete(written(tmp_path / "straight", models, changes), until=Stage.LABEL)
    config = written(tmp_path / "stopped", models, changes)
    monkeypatch.setattr(metering, "LOOK_EVERY_S", 0.0)
    asked = 0

    def stop(event: ProgressEvent) -> None:
        nonlocal asked
        if isinstance(event, StageProgress) and event.stage == "label":
            asked += 1
            if asked == 10:
                raise Stop

    with pytest.raises(Stop), open_session(read_inputs(read_config(config, (), {}).config), stop) as session:
        run(session, until=Stage.LABEL)
    assert outcome(complete(config, until=Stage.LABEL).folder) == outcome(straight.folder)


@SETTINGS
def test_shards_merge_to_the_pairs_of_one_run(tmp_path: Path, models: tuple[Path, Path], changes: dict[str, Any]) -> None:
    """Scales are those of all margins, so that normalised labels are put together again, from stored calls."""
    config = written(tmp_path, models, changes)
    straight = complete(config, f"run={tmp_path / 'straight'}", until=Stage.LABEL)
    shards = [complete(config, until=Stage.LABEL, shard=Shard(n, 2)).folder for n in (1, 2)]
    merged = merge(tmp_path / "run", shards)
    assert merged.labelled == (changes["labels"]["ensemble"] != "normalised")
    with open_session(read_inputs(read_config(config, (), {}).config)) as session:
        run(session, until=Stage.LABEL)
        assert session.usage().calls == 0
    assert outcome(tmp_path / "run") == outcome(straight.folder)


KILLED = """
import os, signal, sys
from pathlib import Path
from cai.config import read_config
from cai.pipeline import metering
from cai.pipeline import StageProgress, open_session, read_inputs, run
from cai.records import Stage
left = int(sys.argv[2])
metering.LOOK_EVERY_S = 0.0
def told(event):
    global left
    if isinstance(event, StageProgress) and event.stage == "label":
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
with open_session(read_inputs(read_config(Path(sys.argv[1]), (), {}).config), told) as session:
    run(session, until=Stage.LABEL)
"""


@pytest.mark.slow
@SETTINGS
def test_labels_that_were_killed_go_on_to_the_same_pairs(
    tmp_path: Path, models: tuple[Path, Path], changes: dict[str, Any]
) -> None:
    straight = complete(written(tmp_path / "straight", models, changes), until=Stage.LABEL)
    config = written(tmp_path / "killed", models, changes)
    for calls in (5, 40):
        command = [sys.executable, "-c", KILLED, str(config), str(calls)]
        done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == -signal.SIGKILL, done.stderr
    assert outcome(complete(config, until=Stage.LABEL).folder) == outcome(straight.folder)
