"""The filters in whole runs: dropped rows under their rules, flags beside rows that stay, the same after an interruption."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from scripted_runs import SCRIPT, write_scripted_run

from cai.config import read_config
from cai.data.filters.stored import rules_of, stored_overview
from cai.errors import ProblemList, StoreError
from cai.pipeline import RunSummary, generating, open_session, plan, read_inputs, run
from cai.pipeline.describing import dataset_facts
from cai.pipeline.merging import merge
from cai.pipeline.sharding import Shard
from cai.pipeline.sifting import explain, trial_overview
from cai.records import FindingRecord, LedgerEntry, Outcome, PreferenceRecord, RecordKind, RevisionRecord, Stage
from cai.store import RunFolder
from cai.store.examination import examine

ANSWERS: dict[str, Any] = {
    "answers": {
        **SCRIPT["answers"],
        "Write only the new reply": [
            "Here is a kinder way to say it.",
            "Human: a kinder way. That is how it is said.",
            "Write to ann@firm.co.uk, who knows.",
            "What is known is this, and the rest is not.",
        ],
    }
}
WHOLE = {"boilerplate": "flag", "near_duplicate": "drop", "evaluation_sets": ["held-out"], "boilerplate_share": 0.1}


def written(folder: Path, rows: int = 60, **filters: Any) -> Path:
    config = write_scripted_run(folder, rows, filters=filters)
    (folder / "script.yaml").write_text(yaml.safe_dump(ANSWERS, sort_keys=False))
    return config


def complete(config: Path, *flags: str, shard: Shard | None = None, until: Stage = Stage.EXPORT) -> RunSummary:
    read = read_config(config, ("loop.chunk_items=8", "labels.chunk_items=8", *flags), {}).config
    with open_session(read_inputs(read if shard is None else shard.placed(read), shard)) as session:
        return run(session, until=until)


def contents(path: Path) -> dict[str, Any]:
    with RunFolder.open(path, read_only=True) as folder:
        return {
            "ledger": list(folder.ledger()),
            "findings": list(folder.records(RecordKind.FINDING, FindingRecord)),
            "pairs": list(folder.records(RecordKind.PREFERENCE, PreferenceRecord)),
            "label": folder.stage(Stage.LABEL),
        }


def dropped(ledger: list[LedgerEntry], rule: str) -> set[tuple[str, int]]:
    return {(e.uid, e.replica) for e in ledger if (e.outcome, e.reason) == (Outcome.FILTERED, rule)}


def test_dropped_rows_stand_in_the_ledger_flags_beside_rows_that_stay(tmp_path: Path) -> None:
    summary = complete(written(tmp_path))
    assert sum(summary.ledger.values()) == 60
    assert summary.ledger[Outcome.PENDING] == 0
    made = contents(summary.folder)
    found = {rule: {(f.uid, f.replica) for f in made["findings"] if f.rule == rule} for rule in ("role_confusion", "pii")}
    assert len(found["role_confusion"]) > 1
    assert dropped(made["ledger"], "role_confusion") == found["role_confusion"]
    assert len(found["pii"]) > 1
    ended = {(e.uid, e.replica): e.outcome for e in made["ledger"]}
    assert {ended[key] for key in found["pii"]} <= {Outcome.PAIR, Outcome.KEPT}
    with RunFolder.open(summary.folder, read_only=True) as folder:
        texts = {(r.uid, r.replica): r.final for r in folder.records(RecordKind.REVISION, RevisionRecord)}
    for each in made["findings"]:
        if each.rule == "pii":
            assert texts[each.uid, each.replica][slice(*each.span)] == "ann@firm.co.uk"
    learned = (summary.folder / "datasets" / "sft.jsonl").read_text()
    assert "Human:" not in learned
    assert "ann@firm.co.uk" in learned


def test_a_rule_that_drops_instead_of_flagging_keeps_its_rows_out(tmp_path: Path) -> None:
    config = written(tmp_path)
    flagged = contents(complete(config).folder)
    summary = complete(config, "filters.pii=drop", "filters.role_confusion=flag")
    again = contents(summary.folder)
    pii = {(f.uid, f.replica) for f in flagged["findings"] if f.rule == "pii"}
    assert dropped(again["ledger"], "pii") == pii
    assert not dropped(again["ledger"], "role_confusion")
    assert "ann@firm.co.uk" not in (summary.folder / "datasets" / "sft.jsonl").read_text()


@pytest.mark.parametrize("ensemble", ["mean", "normalised"])  # the second goes through the rows once more beforehand
def test_what_is_stored_is_what_the_same_rules_find_anew(tmp_path: Path, ensemble: str) -> None:
    config = written(tmp_path, 120, **WHOLE)
    with RunFolder.open(complete(config, f"labels.ensemble={ensemble}").folder, read_only=True) as folder:
        stored = stored_overview(folder)
        assert stored == trial_overview(folder, rules_of(folder))
        by_rule = {each.rule: each for each in stored.rules}
        assert by_rule["near_duplicate"].dropped > 0
        assert by_rule["boilerplate"].found > 0
        assert stored.dropped == sum(each.dropped for each in stored.rules)
        assert examine(folder.path).is_sound


def test_a_revision_that_the_labels_find_worse_is_flagged_or_dropped(tmp_path: Path) -> None:
    config = written(tmp_path)
    flagged = contents(complete(config, "filters.made_worse_p=0.6").folder)
    worse = {(p.uid, p.replica) for p in flagged["pairs"] if p.chosen_source == "draft" and p.p_chosen >= 0.6}
    assert worse
    assert {(f.uid, f.replica) for f in flagged["findings"] if f.rule == "made_worse"} == worse
    summary = complete(config, "filters.made_worse_p=0.6", "filters.made_worse=drop")
    again = contents(summary.folder)
    assert dropped(again["ledger"], "made_worse") == worse
    assert not worse & {(p.uid, p.replica) for p in again["pairs"]}
    uid = min(worse)[0]
    with RunFolder.open(summary.folder, read_only=True) as folder:
        looked = {each.rule.id: each.finding for each in explain(folder, uid, rules_of(folder)).looked}
    assert looked["made_worse"] is not None
    assert "the draft is better" in looked["made_worse"].detail


class Left(KeyboardInterrupt):
    """Ctrl-C at a certain moment."""


def leave(config: Path, calls: int) -> None:
    """Run, and stop when so many labels have been asked for."""
    left = calls
    read = read_config(config, ("loop.chunk_items=8", "labels.chunk_items=8"), {}).config
    with open_session(read_inputs(read)) as session:
        told = session.tell

        def tell(stage: str, done: int, total: int, note: str = "", *, growing: bool = False) -> None:
            nonlocal left
            left -= stage == "label"
            if not left:
                raise Left
            told(stage, done, total, note, growing=growing)

        session.tell = tell
        run(session, until=Stage.EXPORT)


def test_a_run_left_among_its_labels_ends_as_if_it_never_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generating, "ROWS_PER_COMMIT", 7)
    config = written(tmp_path, **WHOLE)
    straight = complete(config, f"run={tmp_path / 'straight'}").folder
    for calls in (3, 20):
        with pytest.raises(Left):
            leave(config, calls)
    folder = complete(config).folder
    assert contents(folder) == contents(straight)
    for path in sorted((straight / "datasets").iterdir()):
        assert (folder / "datasets" / path.name).read_bytes() == path.read_bytes()


def test_rules_of_the_whole_are_asked_after_a_merge_and_then_all_is_as_without_shards(tmp_path: Path) -> None:
    config = written(tmp_path, **WHOLE)
    straight = contents(complete(config, f"run={tmp_path / 'straight'}").folder)
    shards = [complete(config, shard=Shard(n, 2), until=Stage.LABEL).folder for n in (1, 2)]
    for shard in shards:
        rules = {each.rule for each in contents(shard)["findings"]}
        assert rules & {"pii", "role_confusion"}
        assert not rules & {"near_duplicate", "boilerplate", "leakage"}
    assert not merge(tmp_path / "run", shards).labelled
    assert contents(complete(config).folder) == straight


def test_findings_of_shards_are_merged_where_rows_are_judged_alone(tmp_path: Path) -> None:
    config = written(tmp_path)
    straight = contents(complete(config, f"run={tmp_path / 'straight'}").folder)
    shards = [complete(config, shard=Shard(n, 2), until=Stage.LABEL).folder for n in (1, 2)]
    assert merge(tmp_path / "run", shards).labelled
    assert contents(tmp_path / "run") == straight


def test_another_evaluation_file_is_seen_though_its_name_is_the_same(tmp_path: Path) -> None:
    exam = tmp_path / "exam.jsonl"
    exam.write_text(json.dumps({"question": "nothing of the kind stands in any row of this run at all"}) + "\n")
    config = written(tmp_path, evaluation_sets=[str(exam)])
    assert not dropped(contents(complete(config).folder)["ledger"], "leakage")
    exam.write_text(json.dumps({"answer": "Here is what you asked for, in a few words."}) + "\n")
    planned = {each.stage: each.state for each in plan(read_inputs(read_config(config, (), {}).config)).stages}
    assert planned[Stage.LABEL] == "to do"
    leaked = dropped(contents(complete(config).folder)["ledger"], "leakage")
    assert leaked
    with RunFolder.open(tmp_path / "run", read_only=True) as folder:
        (fact,) = (each for each in dataset_facts(folder).filters if each.rule == "leakage")
    assert fact.meaning.endswith("Compared with: exam.jsonl."), "the card names what was looked for, and no folder"
    exam.unlink()
    with pytest.raises(ProblemList, match="evaluation_sets"):
        complete(config)


def test_an_unknown_row_is_refused_and_one_that_never_came_so_far_is_told(tmp_path: Path) -> None:
    with RunFolder.open(complete(written(tmp_path)).folder, read_only=True) as folder:
        with pytest.raises(StoreError, match="no row 'nobody'"):
            explain(folder, "nobody", rules_of(folder))
        held = next(entry for entry in folder.ledger() if entry.reason == generating.HELD_OUT)
        told = explain(folder, f"{held.uid}#0", rules_of(folder))
    assert (told.reply, told.looked) == (None, ())
    assert told.outcome == f"filtered: {generating.HELD_OUT}"
