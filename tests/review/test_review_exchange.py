"""The review in other programs: files go out and come back, bad rows are named by line, and nothing in a file runs."""

from __future__ import annotations

import csv
import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

from cai.errors import DataError
from cai.records import HumanVerdict, Judgement
from cai.review.exchange import FORMS, export_review, import_review
from cai.store import VerdictFile
from constitution.messages import assistant, user
from tests.review.reviewed_runs import pair, say, unchanged, undecided, verdict, write_run

NASTY = '=HYPERLINK("http://evil.example","click") é 日本語 \U0001f600 "quoted", ;\r\n\tnext <script>'
PAIRS = [
    pair("nasty", chosen=NASTY, rejected="'+1", prompt="@SUM(1)").model_copy(
        update={"prompt": (user("hi"), assistant("=1+1"), user(NASTY))}
    ),
    *(pair(f"p{n}") for n in range(5)),
]
ALONE = unchanged("alone", tags=["x"])
VERDICTS = [
    verdict(PAIRS[0], NASTY, note="-not a formula\nsecond line", seconds=3.25, shown="second_first"),
    verdict(PAIRS[0], Judgement.TIE, "Bob", note="'quoted'"),
    verdict(PAIRS[1], Judgement.BOTH_BAD, by="terminal"),
    verdict(PAIRS[2], Judgement.SKIP, "=Eve()"),
    verdict(undecided("u"), Judgement.SECOND),
    verdict(ALONE, Judgement.GOOD),
]


def build(folder: Path) -> Path:
    return write_run(folder, PAIRS, [undecided("u")], [ALONE], review={"required": True, "tags": ["x"], "double_share": 0.0})


def standing(run: Path) -> dict[tuple[str, str], HumanVerdict]:
    with VerdictFile.look_at(run) as file:
        return file.standing()


def parts(of: HumanVerdict, *names: str) -> tuple[Any, ...]:
    return tuple(getattr(of, name) for name in names)


@pytest.mark.parametrize(("form", "written"), [("argilla", "csv"), ("label-studio", "csv"), ("label-studio", "argilla")])
def test_a_file_of_another_form_is_no_file_of_rows_that_nobody_judged(form: Any, written: Any, tmp_path: Path) -> None:
    """All verdicts in it were passed over, with exit code 0."""
    run = build(tmp_path / "run")
    say(run, *VERDICTS)
    file = tmp_path / f"review{FORMS[written].suffix}"
    export_review(run, FORMS[written], file, which="judged")
    back = import_review(run, FORMS[form], file)
    assert (back.added, back.known, back.empty) == (0, 0, 0)
    assert all("no record of Argilla" in each or "no task of Label Studio" in each for each in back.bad)
    assert back.bad


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["review", "review.txt", "review.of-argilla"])
def test_a_file_whose_name_tells_nothing_is_read_as_the_form_says(form: Any, name: str, tmp_path: Path) -> None:
    """It was written under any name, and then refused for it, with the advice to set an option that there is not."""
    run, copy = build(tmp_path / "run"), build(tmp_path / "copy")
    say(run, *VERDICTS)
    export_review(run, FORMS[form], tmp_path / name, which="all")
    back = import_review(copy, FORMS[form], tmp_path / name)
    assert (back.added, back.bad) == (6, [])


@pytest.mark.parametrize("form", FORMS)
def test_verdicts_go_out_and_come_back_as_they_were(form: Any, tmp_path: Path) -> None:
    run, copy = build(tmp_path / "run"), build(tmp_path / "copy")
    say(run, *VERDICTS)
    file = tmp_path / f"review{FORMS[form].suffix}"
    done = export_review(run, FORMS[form], file, which="all")
    assert (done.questions, done.verdicts) == (8, 6)
    back = import_review(copy, FORMS[form], file)
    assert (back.added, back.known, back.bad) == (6, 0, [])
    kept = ["uid", "number", "reviewer", "judgement", "at", "note", "seconds", "shown"]
    before, after = standing(run), standing(copy)
    assert before.keys() == after.keys()
    for key, one in before.items():
        assert parts(after[key], *kept) == parts(one, *kept)
        assert after[key].by == form
    again = import_review(copy, FORMS[form], file)
    assert (again.added, again.known) == (0, 6)


def test_what_still_wants_a_verdict_goes_out_alone(tmp_path: Path) -> None:
    run = build(tmp_path / "run")
    say(run, *VERDICTS)
    file = tmp_path / "open.csv"
    assert export_review(run, FORMS["csv"], file).questions == 4  # p1 was skipped, p2 to p4 never seen
    assert export_review(run, FORMS["csv"], file, which="judged").questions == 4
    rows = list(csv.DictReader(file.open(newline="", encoding="utf-8")))
    assert {row["uid"] for row in rows} == {"nasty", "p0", "u", "alone"}


def test_a_spreadsheet_finds_no_formula_in_a_reply(tmp_path: Path) -> None:
    run = build(tmp_path / "run")
    say(run, *VERDICTS)
    file = tmp_path / "all.csv"
    export_review(run, FORMS["csv"], file, which="all")
    rows = list(csv.DictReader(file.open(newline="", encoding="utf-8")))
    for row in rows:
        for cell in row.values():
            assert not cell.startswith(("=", "+", "-", "@", "\t", "\r"))
    (nasty,) = {(row["answer_a"], row["answer_b"]) for row in rows if row["uid"] == "nasty"}
    assert f"'{NASTY}" in nasty


def test_a_sheet_filled_in_by_hand_is_taken_and_bad_rows_are_named_by_line(tmp_path: Path) -> None:
    run = build(tmp_path / "run")
    file = tmp_path / "sheet.csv"
    export_review(run, FORMS["csv"], file)
    rows = list(csv.DictReader(file.open(newline="", encoding="utf-8")))
    names = list(rows[0])
    filled = [row for row in rows if row["uid"].startswith("p")]
    changes: list[dict[str, str]] = [
        {"reviewer": "Ann", "verdict": "A"},
        {"reviewer": "Ann", "verdict": "better"},
        {"reviewer": "", "verdict": "b"},
        {"reviewer": "Ann", "verdict": "good"},
        {"reviewer": "Ann", "verdict": "b", "at": "yesterday"},
    ]
    for row, change in zip(filled, changes, strict=True):
        row.update(change)
    foreign = filled[0] | {"pair": "0" * 32 + "-" + "1" * 32}
    with file.open("w", newline="", encoding="utf-8") as out:
        writer = csv.DictWriter(out, names)
        writer.writeheader()
        writer.writerows([*filled, foreign, *(row for row in rows if row["uid"] == "u")])
    done = import_review(run, FORMS["csv"], file)
    assert (done.added, done.empty) == (1, 1)
    assert [each.split(": ")[0] for each in done.bad] == [f"sheet.csv:{line}" for line in (3, 4, 5, 6, 7)]
    for told, word in zip(done.bad, ("'better'", "reviewer", "two answers", "ISO 8601", "holds no answers"), strict=True):
        assert word in told
    (made,) = standing(run).values()
    assert (made.uid, made.judgement, made.shown) == (filled[0]["uid"], Judgement.FIRST, "first_second")


def test_argilla_records_have_its_form_and_its_users_answers_come_in(tmp_path: Path) -> None:
    """Keys and nesting of `rg.Record.to_dict`, responses by question, users as UUIDs (argilla 2)."""
    run = build(tmp_path / "run")
    file = tmp_path / "records.json"
    export_review(run, FORMS["argilla"], file, which="all")
    records: list[dict[str, Any]] = json.loads(file.read_text())
    assert {frozenset(each) for each in records} == {
        frozenset({"id", "fields", "metadata", "suggestions", "responses", "vectors", "_server_id"})
    }
    two = next(each for each in records if len(each["fields"]) == 3)
    stranger = "2f1a7c1e-4a53-4d6f-9f59-0a5a3f1e8b11"
    two["responses"] = {
        "verdict": [{"value": "b", "user_id": stranger}],
        "note": [{"value": "clear", "user_id": stranger}],
    }
    file.write_text(json.dumps(records))
    assert import_review(run, FORMS["argilla"], file).added == 1
    said = {each.reviewer: (each.judgement, each.note) for each in standing(run).values()}
    assert said[stranger] == (Judgement.SECOND, "clear")


def test_label_studio_tasks_fit_their_configuration_and_its_annotations_come_in(tmp_path: Path) -> None:
    run = build(tmp_path / "run")
    file = tmp_path / "tasks.json"
    done = export_review(run, FORMS["label-studio"], file)
    view = ElementTree.fromstring(done.files[1].read_text())
    used = {each.get("value", "")[1:] for each in view.iter() if each.get("value", "").startswith("$")}
    tasks: list[dict[str, Any]] = json.loads(file.read_text())
    assert all(used <= task["data"].keys() for task in tasks)
    controls = {each.get("name"): each.get("toName") for each in view.iter() if each.get("toName")}
    assert controls == {"verdict": "dialogue", "note": "dialogue"}

    def annotation(choice: str, by: object, **more: Any) -> dict[str, Any]:
        result = {"id": "x", "from_name": "verdict", "to_name": "dialogue", "type": "choices", "value": {"choices": [choice]}}
        return {"id": 7, "completed_by": by, "result": [result], "was_cancelled": False, "lead_time": 4.2, **more}

    pairs = [task for task in tasks if task["data"]["answer_b"]]
    pairs[0]["annotations"] = [annotation("a", 10), annotation("both_bad", {"id": 3, "email": "bob@example.org"})]
    pairs[1]["annotations"] = [annotation("a", 10, result=[], was_cancelled=True)]
    pairs[2]["annotations"] = [annotation("a", 10, result=[])]
    pairs[3]["annotations"] = [annotation("perhaps", 10)]
    pairs[4]["annotations"] = [annotation("a", None)]
    file.write_text(json.dumps(tasks))
    outcome = import_review(run, FORMS["label-studio"], file)
    assert outcome.added == 3
    assert [each.split(":")[1] for each in outcome.bad] == [str(tasks.index(pairs[n]) + 1) for n in (2, 3, 4)]
    said = {each.reviewer: each for each in standing(run).values() if each.judgement is not Judgement.SKIP}
    assert said["user 10"].judgement is Judgement.FIRST
    assert said["user 10"].seconds == 4.2
    assert said["bob@example.org"].judgement is Judgement.BOTH_BAD


@pytest.mark.parametrize("form", ["argilla", "label-studio"])
def test_no_answer_goes_out_under_a_name_that_the_other_program_may_not_know(form: Any, tmp_path: Path) -> None:
    """Label Studio refuses a whole file for one unknown annotator, Argilla for one unknown user: none of it could be loaded."""
    run = build(tmp_path / "run")
    say(run, *VERDICTS)
    file = tmp_path / "all.json"
    assert export_review(run, FORMS[form], file, which="all").verdicts == 6
    for each in json.loads(file.read_text()):
        assert not each.get("responses")
        assert not each.get("annotations")


@pytest.mark.parametrize("form", FORMS)
def test_an_old_file_brings_back_no_old_opinion_and_an_edited_one_counts(form: Any, tmp_path: Path) -> None:
    """Ann changed her mind, and Bob took his verdict back, after the file was written."""
    run = build(tmp_path / "run")
    say(run, VERDICTS[0], verdict(PAIRS[0], Judgement.TIE, "Bob"))
    file = tmp_path / f"old{FORMS[form].suffix}"
    export_review(run, FORMS[form], file, which="all")
    later = "2026-11-28T22:00:00.000+00:00"
    changed = verdict(PAIRS[0], Judgement.BOTH_BAD, at=later)
    say(run, changed, verdict(PAIRS[0], Judgement.WITHDRAWN, "Bob", at=later))
    back = import_review(run, FORMS[form], file)
    assert (back.added, back.known) == (0, 2)
    assert standing(run) == {(changed.pair, "Ann"): changed}
    text = file.read_text(encoding="utf-8")
    assert "tie" in text
    file.write_text(text.replace("tie", "skip"), encoding="utf-8")  # Bob's line, edited by hand
    assert import_review(run, FORMS[form], file).added == 1
    assert standing(run)[changed.pair, "Bob"].judgement is Judgement.SKIP


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "row", ['{"annotations": 3}', "[]", '{"data": 1, "annotations": [{}]}', '{"id": 1, "responses": []}', "x"]
)
def test_senseless_rows_end_nothing(form: Any, row: str, tmp_path: Path) -> None:
    run = build(tmp_path / "run")
    file = tmp_path / "rows.jsonl"
    file.write_text(f"{row}\n")
    done = import_review(run, FORMS[form], file)
    assert done.added == 0
    assert len(done.bad) + done.empty in (0, 1)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        import_review(build(tmp_path / "run"), FORMS["csv"], tmp_path / "none.csv")
