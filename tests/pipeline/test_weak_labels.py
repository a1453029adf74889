"""Labellers that are too weak are refused before anything is generated or written, or are allowed, and the run says so."""

from __future__ import annotations

import json
import math
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console
from scripted_runs import SCRIPT, write_scripted_run
from whole_runs import cai

from cai.cli.summary import print_summary
from cai.config import read_config
from cai.engines.base import Engine, ScoreRequest
from cai.engines.scripted import ScriptedEngine
from cai.errors import ProblemList
from cai.labels import LabelQuality
from cai.labels.stop_bar import WeakLabellerError
from cai.pipeline import Meter, RunSummary, Session, generating, open_session, plan, read_inputs, run
from cai.pipeline.describing import dataset_facts
from cai.pipeline.examining import TRIAL_PAIRS
from cai.pipeline.generating import label
from cai.pipeline.merging import merge
from cai.pipeline.sharding import Shard
from cai.records import Outcome, RecordKind, RevisionRecord, Stage
from cai.store import MemoisedEngine, RunFolder

ALWAYS_A = SCRIPT | {"scores": {" A": -0.1, "A": -3.0, " B": -4.0, "B": -5.0}}
FLAG = "labels.allow_weak_labels=true"


def write_run(folder: Path, *, script: dict[str, Any] = SCRIPT, tests: bool = True, **changes: Any) -> Path:
    """A scripted run under one principle, with tests or without; `changes` replace sections."""
    folder.mkdir(parents=True, exist_ok=True)
    principle: dict[str, Any] = {"id": "kind", "principle": "Be kind."}
    if tests:
        principle["tests"] = [
            {"prompt": f"Question {n}?", "better": f"Kindly {n}.", "worse": f"Go away, number {n}."} for n in range(30)
        ]
    (folder / "kind.yaml").write_text(yaml.safe_dump({"name": "kind", "principles": [principle]}))
    labels = {"allow_weak_labels": False} | changes.pop("labels", {})
    config = write_scripted_run(folder, constitution=[str(folder / "kind.yaml")], labels=labels, **changes)
    (folder / "script.yaml").write_text(yaml.safe_dump(script, sort_keys=False))
    return config


def complete(config: Path, *flags: str, until: Stage = Stage.LABEL, shard: Shard | None = None) -> RunSummary:
    read = read_config(config, flags, {}).config
    with open_session(read_inputs(read if shard is None else shard.placed(read), shard)) as session:
        return run(session, until=until)


def printed(summary: RunSummary) -> str:
    """What a command prints of a run, in lines as long as they like."""
    console = Console(file=StringIO(), width=1000, highlight=False)
    print_summary(summary, console)
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def counts(folder: Path) -> dict[RecordKind, int]:
    with RunFolder.open(folder, read_only=True) as opened:
        return {kind: opened.count_records(kind) for kind in RecordKind}


def test_a_judge_that_always_answers_a_is_refused_before_a_single_draft(tmp_path: Path) -> None:
    config = write_run(tmp_path, script=ALWAYS_A, labels={"method": "letters"})
    done = cai("run", config)
    assert done.returncode == 1
    assert "This model's labels are refused, and no pair was written" in done.stderr
    assert "it decides none of 30: 30 undecided" in done.stderr
    assert "--allow-weak-labels" in done.stderr
    assert set(counts(tmp_path / "run").values()) == {0}


def test_without_tests_it_is_refused_on_the_first_pairs_of_the_run_and_none_is_left(tmp_path: Path) -> None:
    config = write_run(tmp_path, script=ALWAYS_A, tests=False, labels={"method": "letters"})
    with pytest.raises(WeakLabellerError, match="both orders name the same letter in 100%"):
        complete(config)
    found = counts(tmp_path / "run")
    assert found[RecordKind.REVISION] > 20
    assert (found[RecordKind.PREFERENCE], found[RecordKind.UNDECIDED]) == (0, 0)


def test_a_refusal_on_the_first_pairs_leaves_no_labels_of_an_earlier_labeller_under_its_name(tmp_path: Path) -> None:
    """Story: the old pairs stayed, beside a manifest, and so a card, that named the labeller that was refused."""
    config = write_run(tmp_path, tests=False)
    assert complete(config).ledger[Outcome.PAIR] > 20
    (tmp_path / "always_a.yaml").write_text(yaml.safe_dump(ALWAYS_A, sort_keys=False))
    refused = {"method": "letters", "models": [{"name": f"scripted:{tmp_path / 'always_a.yaml'}"}]}
    with pytest.raises(WeakLabellerError, match="mostly answers a place"):
        complete(write_run(tmp_path, tests=False, labels=refused))
    with RunFolder.open(tmp_path / "run", read_only=True) as folder:
        assert "labeller 1" in folder.manifest["models"]
        assert folder.stage(Stage.LABEL) is None
        assert folder.ledger_counts()[Outcome.PAIR] == 0
    found = counts(tmp_path / "run")
    assert (found[RecordKind.PREFERENCE], found[RecordKind.UNDECIDED]) == (0, 0)


class Stop(Exception):
    """Somebody has had enough."""


class Turncoat(Session):
    """Labels with a judge that tells answers apart, until it is asked about a later question: then it names A."""

    stops_at: str = "\0"
    """What it is not asked about any more."""

    @property
    def labellers(self) -> list[Engine]:
        def score(request: ScoreRequest) -> list[float]:
            asked = request.messages[-1].content
            if self.stops_at in "".join(each.content for each in request.messages):
                raise Stop
            a, b = asked.split("Reply A:\n")[1].split("\n\nReply B:\n")
            for_a = True if "Later question" in asked else a < b
            return [(-0.1 if for_a else -3.0) if "A" in each else (-3.0 if for_a else -0.1) for each in request.continuations]

        return [MemoisedEngine(ScriptedEngine({}, score), self.folder)]


def test_a_taste_for_a_place_that_shows_after_the_first_pairs_is_refused_at_the_end_and_no_pair_is_left(tmp_path: Path) -> None:
    prompts = [{"prompt": f"{'First' if n < 3 * TRIAL_PAIRS else 'Later'} question {n}?"} for n in range(9 * TRIAL_PAIRS)]
    config = write_run(tmp_path, tests=False, labels={"method": "letters"}, holdout_share=0.0)
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(each) + "\n" for each in prompts))
    complete(config, until=Stage.GENERATE)
    inputs = read_inputs(read_config(config, (), {}).config)
    with RunFolder.open(tmp_path / "run") as folder:
        session = Turncoat(inputs, folder)
        with Meter(None, session.counted) as session.meter, pytest.raises(WeakLabellerError, match="mostly answers a place"):
            label(session)
        assert folder.stage(Stage.LABEL) is None
        assert folder.ledger_counts()[Outcome.PENDING] == len(prompts)
    found = counts(tmp_path / "run")
    assert (found[RecordKind.PREFERENCE], found[RecordKind.UNDECIDED]) == (0, 0)


def test_a_run_that_goes_on_is_judged_on_all_its_pairs_and_not_only_on_those_that_are_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several pairs of an item. The first and the last are judged well: only with those before the interruption it is seen."""
    monkeypatch.setattr(generating, "ROWS_PER_COMMIT", 60)
    words = [f"Answer number {n} to that." for n in range(30)]
    kinds = {"First": TRIAL_PAIRS // 3 + 5, "Later": TRIAL_PAIRS, "Last": 20}
    config = write_run(
        tmp_path,
        script={"answers": {**SCRIPT["answers"], "": words}},
        tests=False,
        loop={"replicas": 3},
        labels={"method": "letters", "candidates": "samples", "chunk_items": 20},
        holdout_share=0.0,
    )
    prompts = [{"prompt": f"{kind} question {n}?"} for kind, count in kinds.items() for n in range(count)]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(each) + "\n" for each in prompts))
    complete(config, until=Stage.GENERATE)
    inputs = read_inputs(read_config(config, (), {}).config)
    drafts: dict[str, set[str]] = {}
    with RunFolder.open(tmp_path / "run") as folder:
        for record in folder.records(RecordKind.REVISION, RevisionRecord):
            drafts.setdefault(record.uid, set()).add(record.draft)
        pairs = sum(math.comb(len(each), 2) for each in drafts.values())
        assert pairs > 2 * len(prompts)
        session = Turncoat(inputs, folder)
        session.stops_at = "Last question"
        with Meter(None, session.counted) as session.meter, pytest.raises(Stop):
            label(session)
        assert TRIAL_PAIRS < folder.count_records(RecordKind.PREFERENCE) + folder.count_records(RecordKind.UNDECIDED) < pairs
        session = Turncoat(inputs, folder)
        told = rf"both orders name the same letter in \d+% of {pairs} "
        with Meter(None, session.counted) as session.meter, pytest.raises(WeakLabellerError, match=told):
            label(session)
        assert folder.stage(Stage.LABEL) is None
        assert folder.count_records(RecordKind.PREFERENCE) == 0


def test_a_coin_is_refused_and_may_be_allowed_which_the_run_then_says(tmp_path: Path) -> None:
    config = write_run(tmp_path)
    with pytest.raises(WeakLabellerError, match="not better than chance: right in"):
        complete(config)
    allowed = cai("label", config, "--allow-weak-labels", "--json")
    summary = json.loads(allowed.stdout)
    assert summary["ledger"]["pair"] > 20
    (reason,) = summary["labels"]["weak_labels_allowed"]
    assert "on the principles' own tests, it is not better than chance" in reason
    with RunFolder.open(tmp_path / "run", read_only=True) as folder:
        stage = folder.stage(Stage.LABEL)
    assert stage is not None
    assert stage.summary["weak_labels_allowed"] == [reason]
    later = complete(config)  # finished: made under the flag, and used without it
    assert f"! Weak labels were allowed (`allow_weak_labels`): {reason}" in printed(later)


def test_a_judge_of_whom_nothing_is_known_passes_and_that_is_said(tmp_path: Path) -> None:
    config = write_run(tmp_path, tests=False)
    assert "! Nothing is known of how good this judge is" in printed(complete(config))


def human_file(path: Path, rows: int = 60) -> Path:
    lines = [{"prompt": f"q {n}", "chosen": f"kind {n}", "rejected": f"rude {n} and longer"} for n in range(rows)]
    path.write_text("".join(json.dumps(each) + "\n" for each in [*lines, {"prompt": "no answers"}]))
    return path


def test_a_coin_is_refused_by_people_too_and_their_figures_are_stored_and_printed(tmp_path: Path) -> None:
    human = {"path": str(human_file(tmp_path / "people.jsonl"))}
    config = write_run(tmp_path, tests=False, labels={"human": human})
    with pytest.raises(WeakLabellerError, match=r"against people \(.*people.jsonl\), it is not better than chance"):
        complete(config)
    summary = complete(config, FLAG)
    quality = summary.quality
    assert quality is not None
    assert quality.human is not None
    assert (quality.human.pairs, quality.human.rows, quality.human.invalid) == (60, 61, 1)
    assert quality.human.longer_wins is not None
    assert quality.human.longer_wins.share == 0.0
    shown = printed(summary)
    assert "Labels against people" in shown
    assert "1 of 61 rows could not be used" in shown
    assert "for a judge that always prefers the longer answer" in shown


def test_other_pairs_of_people_in_the_same_file_are_compared_anew(tmp_path: Path) -> None:
    people = human_file(tmp_path / "people.jsonl", 20)
    config = write_run(tmp_path, tests=False, labels={"human": {"path": str(people)}, "allow_weak_labels": True})
    first = complete(config).quality
    human_file(people, 30)
    second = complete(config).quality
    assert [each.human.pairs for each in (first, second) if each and each.human] == [20, 30]


def test_what_is_wrong_with_peoples_pairs_is_said_before_anything_is_done(tmp_path: Path) -> None:
    human = {"path": str(tmp_path / "nowhere.jsonl"), "principles": ["kindd"]}
    config = write_run(tmp_path, labels={"human": human})
    with pytest.raises(ProblemList, match=r"nowhere\.jsonl(.|\n)*") as refused:
        complete(config)
    assert "labels.human.principles" in str(refused.value)
    assert not (tmp_path / "run").exists()


def test_a_plan_counts_the_examination_and_finds_it_done_after_a_refusal(tmp_path: Path) -> None:
    config = write_run(tmp_path)
    inputs = read_inputs(read_config(config, (), {}).config)
    before = {each.name: each for each in plan(inputs, until=Stage.LABEL).calls}
    with pytest.raises(WeakLabellerError):
        complete(config)
    after = {each.name: each for each in plan(inputs, until=Stage.LABEL).calls}
    assert before["verdict"].certain == 60  # 30 tests of two replies each: a ground, and after it a score
    assert (after["verdict"].certain, after["verdict"].reused) == (0, 60)
    assert (before["score"].reused, after["score"].reused) == (0, 60)


def test_merged_shards_say_the_same_of_their_labeller_as_the_run_of_all_rows(tmp_path: Path) -> None:
    human = {"path": str(human_file(tmp_path / "people.jsonl"))}
    labels = {"human": human, "allow_weak_labels": True, "min_margin_nats": 3.0}
    config = write_run(tmp_path, labels=labels)
    straight = complete(config, f"run={tmp_path / 'straight'}")
    shards = [complete(config, shard=Shard(n, 3)).folder for n in (1, 2, 3)]
    merged = merge(tmp_path / "run", shards)
    assert merged.labelled
    with RunFolder.open(tmp_path / "run", read_only=True) as folder:
        stage = folder.stage(Stage.LABEL)
    assert stage is not None
    assert LabelQuality.model_validate(stage.summary) == straight.quality
    assert straight.quality is not None
    assert straight.quality.undecided > 5
    assert merged.ledger[Outcome.PAIR] == straight.ledger[Outcome.PAIR]


def test_the_card_tells_every_principle_as_a_judge_and_how_many_tests_the_examination_had(tmp_path: Path) -> None:
    """Story: the card gave the share of tests judged right and not of how many, and left out the principles as judges."""
    weak = {"method": "letters", "allow_weak_labels": True}
    with RunFolder.open(complete(write_run(tmp_path, labels=weak)).folder, read_only=True) as folder:
        facts = dataset_facts(folder)
        judged = folder.count_records(RecordKind.PREFERENCE) + folder.count_records(RecordKind.UNDECIDED)
    (judge,) = (meaning for meaning in facts.label_quality if meaning.startswith("kind as a judge of"))
    assert judge.startswith(f"kind as a judge of {judged} pairs: mean margin")
    assert "names the same letter in both orders in" in judge
    assert facts.label_quality[judge].endswith(" nats")
    assert "3 of 10 decided tests" in facts.label_quality["the labeller's examination"]
    assert "20 undecided" in facts.label_quality["the labeller's examination"]


def test_the_card_warns_of_a_judge_of_whom_nothing_is_known(tmp_path: Path) -> None:
    """Story: terminal and report said so, and the card, which is all that goes along with the data, did not."""
    with RunFolder.open(complete(write_run(tmp_path, tests=False)).folder, read_only=True) as folder:
        (warning,) = dataset_facts(folder).warnings
    assert warning.startswith("Nothing is known of how good this judge is")


def test_figures_that_another_version_wrote_are_not_passed_over_in_silence(tmp_path: Path) -> None:
    with RunFolder.open(complete(write_run(tmp_path, labels={"allow_weak_labels": True})).folder) as folder:
        stage = folder.stage(Stage.LABEL)
        assert stage is not None
        folder.put_stage(Stage.LABEL, stage.fingerprint, {**stage.summary, "a_figure_of_tomorrow": 1})
        assert "another version" in dataset_facts(folder).label_quality["the figures"]
