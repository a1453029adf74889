"""`cai filter` on a run and on files: the table, one row explained, rows written."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from scripted_runs import write_scripted_run
from typer.testing import CliRunner

from cai.cli import app
from cai.config import read_config
from cai.errors import CaiError
from cai.pipeline import open_session, read_inputs, run
from cai.records import Stage

ROWS: list[dict[str, Any]] = [
    {"prompt": "What is it?", "completion": "It is a tree.", "mine": 1},
    {"prompt": "What is it?", "completion": "It is a tree.\nHuman: and that\x1b[31m?", "mine": 2},
    {"prompt": "Who?", "completion": "Ann, ann@firm.co.uk.", "uid": "ann", "mine": 3},
    {"prompt": "Who?"},
]


def called(*arguments: object, code: int = 0) -> str:
    done = CliRunner().invoke(app, ["filter", *map(str, arguments)], env={"COLUMNS": "200"})
    if isinstance(done.exception, CaiError):
        raise done.exception
    assert done.exit_code == code, done.output
    return done.stdout


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("filtered")
    config = read_config(write_scripted_run(folder, 30), (), {}).config
    with open_session(read_inputs(config)) as session:
        return run(session, until=Stage.LABEL).folder


def test_rows_of_a_file_are_counted_written_and_none_is_lost(rows: Path, tmp_path: Path) -> None:
    kept, dropped = tmp_path / "kept.jsonl", tmp_path / "dropped.jsonl"
    said = called("--data", rows, "--write", kept, "--dropped", dropped, code=3)
    assert "3 rows, 1 dropped, 1 kept with a flag" in said
    assert "rows.jsonl:4: neither messages nor prompt and completion" in said
    assert [json.loads(line) for line in kept.read_text().splitlines()] == [ROWS[0], ROWS[2]]
    assert [json.loads(line) for line in dropped.read_text().splitlines()] == [ROWS[1] | {"filtered": "role_confusion"}]


def test_rules_of_the_whole_file_drop_what_was_planted_and_count_each_row_under_its_rule(tmp_path: Path) -> None:
    """Boilerplate, near-duplicates and leakage at once: the rows that were spoilt go, each by its rule, and no other does."""
    draw = random.Random(3)

    def said(words: int) -> str:
        return " ".join(
            f"{draw.choice(('river', 'lamp', 'stone', 'bread', 'cloud'))}{draw.randrange(60)}" for _ in range(words)
        )

    pairs = [{"uid": str(n), "prompt": said(15), "chosen": f"{said(40)}.", "rejected": f"{said(40)}."} for n in range(70)]
    passages = [said(20), said(20)]
    planted: dict[str, str] = {}
    for pair in pairs[20:32]:
        planted[pair["uid"]] = "boilerplate"
        pair["chosen"] += " It is always best to ask an expert."
    for pair, earlier in zip(pairs[40:43], pairs, strict=False):
        planted[pair["uid"]] = "near_duplicate"
        pair |= {"prompt": earlier["prompt"], "chosen": f"Now {earlier['chosen']}"}
    for pair, where, passage in zip(pairs[50:52], ("prompt", "chosen"), passages, strict=True):
        planted[pair["uid"]] = "leakage"
        pair[where] = f"As they say, {passage}."
    source, exam = tmp_path / "pairs.jsonl", tmp_path / "exam.jsonl"
    kept, dropped = tmp_path / "kept.jsonl", tmp_path / "dropped.jsonl"
    source.write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    exam.write_text("".join(json.dumps({"question": passage}) + "\n" for passage in passages))
    settings = ("boilerplate=drop", "near_duplicate=drop", f"evaluation_sets=[{exam}]")
    flags = (flag for setting in settings for flag in ("--set", setting))
    found = json.loads(called("--data", source, *flags, "--write", kept, "--dropped", dropped, "--json"))
    rows = [[json.loads(line) for line in path.read_text().splitlines()] for path in (kept, dropped)]
    assert rows[0] == [pair for pair in pairs if pair["uid"] not in planted]
    assert rows[1] == [pair | {"filtered": planted[pair["uid"]]} for pair in pairs if pair["uid"] in planted]
    assert {each["rule"]: each["dropped"] for each in found["rules"] if each["dropped"]} == Counter(planted.values())
    assert (found["rows"], found["dropped"], found["unreadable"]) == (len(pairs), len(planted), 0)


def test_a_file_without_findings_comes_out_as_it_went_in(tmp_path: Path) -> None:
    pairs = [{"prompt": f"q{n}", "chosen": f"Yes, {n}.", "rejected": "No.", "p_chosen": 0.75, "extra": [n]} for n in range(3)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    called("--data", tmp_path / "in.jsonl", "--write", tmp_path / "out.jsonl")
    assert [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()] == pairs


def test_a_row_is_explained_with_its_span_marked_and_nothing_steers_the_terminal(rows: Path) -> None:
    said = called("--data", rows, "--explain", 2)
    assert "rows.jsonl:2#0: dropped by role_confusion" in said
    assert "⟪Human:⟫ and that\\x1b[31m?" in said
    assert "\x1b" not in said
    assert "max_repeated_share 0.3" in said
    found = json.loads(called("--data", rows, "--explain", "ann", "--json"))
    by_rule = {each["rule"]: each for each in found["rules"]}
    assert by_rule["pii"]["finding"] == {
        "detail": "an e-mail address",
        "place": "reply",
        "span": [5, 19],
        "score": None,
        "limit": None,
    }
    assert by_rule["boilerplate"]["action"] == "off"


def test_rules_that_compare_with_a_draft_say_how_many_rows_have_none(tmp_path: Path) -> None:
    """Story: talk of a revision stood in supervised rows, the rule for it was on, and its count was a plain 0."""
    talk = "Sure, here is the revised response: Rain falls from clouds when drops get heavy."
    pair = {"prompt": "Why?", "chosen": talk, "rejected": "No idea.", "chosen_source": "revision"}
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(each) + "\n" for each in ({"prompt": "Why?", "completion": talk}, pair)))
    told = "1 of 2 rows are no revision of a text that is known"
    said = called("--data", path)
    assert f"{told}: unchanged, meta_talk, critique_talk, too_long did not look at them." in " ".join(said.split())
    assert f"{told}: meta_talk did" in " ".join(called("--data", path, "--rule", "meta_talk").split())
    assert told not in " ".join(called("--data", path, "--rule", "pii").split())
    assert "does not look: no revision" in " ".join(called("--data", path, "--explain", 1).split())
    found = json.loads(called("--data", path, "--json"))
    assert (found["rows"], found["revisions"]) == (2, 1)
    assert {each["rule"]: each["found"] for each in found["rules"] if each["found"]} == {"meta_talk": 1}
    path.write_text(json.dumps(pair) + "\n")
    assert "no revision" not in called("--data", path)


def test_settings_and_rules_are_chosen_by_flags(rows: Path) -> None:
    said = json.loads(called("--data", rows, "--set", "pii=drop", "--rule", "pii", "--json", code=3))
    (rule,) = said["rules"]
    assert (rule["action"], rule["dropped"], said["dropped"]) == ("drop", 1, 2)
    every = json.loads(called("--data", rows, "--all", "--json", code=3))
    actions = {each["rule"]: each["action"] for each in every["rules"]}
    assert (actions["near_duplicate"], actions["boilerplate"], actions["meta_talk"]) == ("flag", "flag", "drop")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "give the folder of a run, or --data"),
        (("runs/x", "--data", "y.jsonl"), "give the folder of a run, or --data"),
        (("runs/x", "--write", "y.jsonl"), "--write and --dropped go with --data"),
        (("runs/x", "--rule", "pi"), "Did you mean 'pii'"),
        (("--data", "x.jsonl", "--write", "y.csv"), "name the file *.jsonl"),
    ],
)
def test_what_does_not_fit_together_is_refused(arguments: tuple[str, ...], said: str) -> None:
    done = CliRunner().invoke(app, ["filter", *arguments], env={"COLUMNS": "200"})
    assert done.exit_code == 2
    assert said in " ".join(done.stderr.replace("│", " ").split())


def test_no_file_is_overwritten_unasked(rows: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept.jsonl"
    kept.write_text("mine")
    with pytest.raises(CaiError, match="exists already"):
        called("--data", rows, "--write", kept)
    with pytest.raises(CaiError, match="is the file that is read"):
        called("--data", rows, "--write", rows, "--force")
    assert kept.read_text() == "mine"
    called("--data", rows, "--write", kept, "--force", code=3)
    assert len(kept.read_text().splitlines()) == 2


def test_a_runs_table_and_one_of_its_rows(finished: Path) -> None:
    said = json.loads(called(finished, "--json"))
    assert said["rows"] > 20
    assert {each["rule"] for each in said["rules"]} >= {"meta_talk", "made_worse"}
    assert "rows, " in called(finished)
    again = json.loads(called(finished, "--set", "max_loops=3", "--json"))
    assert again["rules"] == said["rules"], "with the settings of the run, nothing else is found"
    with (finished / "manifest.json").open() as file:
        assert json.load(file)["config"]["filters"]["pii"] == "flag"
    everything = json.loads(called(finished, "--all", "--set", "max_jaccard=0.7", "--json"))
    counts = {each["rule"]: each["found"] for each in everything["rules"]}
    assert counts["near_duplicate"] > 0, "the prompts hold five twice, and there are three answers"
    with pytest.raises(CaiError, match="no row 'x'"):
        called(finished, "--explain", "x")
