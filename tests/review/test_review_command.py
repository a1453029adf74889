"""`cai review` as people call it: in the terminal, for figures, conflicts and files; and a whole run that waits for them."""

from __future__ import annotations

import io
import json
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from rich.console import Console

from cai.cli import main
from cai.cli.review_terminal import review_in_terminal
from cai.records import HumanVerdict, Judgement, PreferenceRecord, RecordKind, Stage
from cai.store import RunFolder, VerdictFile
from tests.checkpoints import make_checkpoint
from tests.review.reviewed_runs import pair, say, unchanged, verdict, write_run
from tests.scripted_runs import write_scripted_run
from tests.whole_runs import write_config, write_prompts


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str


Cai: TypeAlias = Callable[..., Said]


@pytest.fixture
def cai(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cai:
    def run(*arguments: object) -> Said:
        monkeypatch.setattr("sys.argv", ["cai", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return Said(int(ended.value.code or 0), out, err)

    return run


def in_terminal(run: Path, *keys: str, reviewer: str = "Ann") -> str:
    out = io.StringIO()
    given: Iterator[str] = iter(keys)
    review_in_terminal(run, reviewer, Console(file=out, width=100), read=lambda: next(given, ""))
    return out.getvalue()


def kept(run: Path) -> list[HumanVerdict]:
    with VerdictFile.look_at(run) as file:
        return [each for _, each in file.history()]


def test_a_person_judges_in_the_terminal(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [pair(f"p{n}") for n in range(3)], review={"double_share": 0.0})
    shown = in_terminal(run, "z", "d", "n", "it is kinder", "1", "4\n", "u", "3", "q")
    assert [each.judgement for each in kept(run)][1:] == [Judgement.BOTH_BAD, Judgement.WITHDRAWN, Judgement.TIE]
    first = kept(run)[0]
    assert (first.note, first.by, first.reviewer) == ("it is kinder", "terminal", "Ann")
    assert "'z' is none of these" in shown
    assert "[better" in shown or "[draft" in shown  # what differs is marked without colour, too
    for word in ("p_chosen", "revision", "rejected", "chosen"):
        assert word not in shown
    assert "1 judged, 2 left" in shown
    assert "Nothing is left" in in_terminal(run, "s")


def test_of_a_long_text_a_bounded_part_is_shown_at_once_and_all_of_it_when_asked(tmp_path: Path) -> None:
    """A reply of 110,000 short lines took 25 s for each look at it, and nobody could have read what scrolled by."""
    lines = [f"line {n}" for n in range(110_000)]
    chosen, rejected = "\n".join(lines), "\n".join([*lines[:60_000], "another one\x1b[2J", *lines[60_001:]])
    prompt = "What is this? " + "x" * 9_000 + " Tell me."
    run = write_run(tmp_path / "run", [pair("p", chosen=chosen, rejected=rejected, prompt=prompt)])
    started = time.monotonic()
    shown = in_terminal(run, "q")
    assert time.monotonic() - started < 5
    assert shown.count("\n") < 300
    for text in (
        "│ line 0 ",
        "│ line 39 ",
        "│ line 109999 ",
        "characters in 109,9",
        "What is this? ",
        " Tell me.",
        "[f]ull texts",
    ):
        assert text in shown
    assert "line 41 " not in shown
    different = in_terminal(run, "d", "q").split("[q]uit")[1]
    assert "another one\\x1b[2J" in different
    assert "characters that are the same in both" in different
    assert different.count("\n") < 300
    whole = in_terminal(run, "f", "q")
    assert all(f"\n{line}\n" in whole for line in (*lines[:1_000], *lines[-1_000:-1]))
    assert "x" * 9_000 in whole
    assert "\x1b" not in whole


def test_short_texts_are_shown_whole_and_a_wrong_key_shows_them_no_second_time(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [pair("p")])
    shown = in_terminal(run, "z", " ", "\r", "\x1b[A", "f", "q")
    assert shown.count("╭─ A") == 1
    assert "'z' is none of these" in shown
    assert "[f]ull" not in shown
    assert "the better reply to p\n" in shown  # asked for all the same
    assert kept(run) == []
    in_terminal(run, "\n", " ", "1")  # a blank key ends nothing
    assert len(kept(run)) == 1


def test_the_very_last_verdict_can_be_taken_back_too(tmp_path: Path) -> None:
    """The review ended with it, and began no more."""
    run = write_run(tmp_path / "run", [pair("p")])
    assert "[u]ndo" in in_terminal(run, "3", "u", "4").split("Nothing is left")[1]
    assert in_terminal(run, "u", "3").count("Nothing is left") == 2  # of another day
    given = [each.judgement for each in kept(run)]
    assert given == [Judgement.TIE, Judgement.WITHDRAWN, Judgement.BOTH_BAD, Judgement.WITHDRAWN, Judgement.TIE]
    assert "[u]ndo" not in in_terminal(write_run(tmp_path / "none", []), "u")


def test_hostile_texts_cannot_steer_the_terminal(tmp_path: Path) -> None:
    nasty = "\x1b[2J\x1b]0;owned\x07 \u202eevil [bold red]markup[/] \x9b31m"
    run = write_run(tmp_path / "run", [pair("p", chosen=nasty, prompt=nasty)])
    shown = in_terminal(run, "d", "q")
    assert not set(shown) & set("\x1b\x07\u202e\x9b")
    assert "[bold red]markup[/]" in shown
    assert r"\x1b[2J" in shown


def test_a_single_answer_is_good_or_bad_in_the_terminal(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [], [], [unchanged("k", tags=["x"])], review={"required": True, "tags": ["x"]})
    shown = in_terminal(run, "t", "2")
    assert "0 pairs and 1 supervised rows wait for review" in shown
    assert "'t' is none of these" in shown
    assert [each.judgement for each in kept(run)] == [Judgement.BAD]


def test_figures_and_conflicts_are_told(cai: Cai, tmp_path: Path) -> None:
    pairs = [pair(f"p{n}") for n in range(4)]
    run = write_run(tmp_path / "run", pairs)
    assert "Nobody has reviewed" in cai("review", run, "--figures").out
    assert "Nobody contradicts" in cai("review", run, "--conflicts").out
    say(
        run,
        *(verdict(each, each.chosen) for each in pairs),
        verdict(pairs[0], pairs[0].rejected, "Bob\u2019s", note="look \x1b[31m"),
    )
    told = cai("review", run, "--figures").out
    assert re.search(r"88 % \(\d+–\d+\)\s+of all 4 labels name the answer that people prefer", told)
    assert "verdicts by 2 people" in told
    found = json.loads(cai("review", run, "--figures", "--json").out)
    assert found["right"]["share"] == pytest.approx(3.5 / 4)
    assert found["conflicts"] == 1
    conflicts = cai("review", run, "--conflicts").out
    assert "prefers “the draft of p0”" in conflicts
    assert "\x1b" not in conflicts
    assert len(json.loads(cai("review", run, "--conflicts", "--json").out)) == 1


def test_files_go_out_and_in_and_bad_rows_are_an_exit_code(cai: Cai, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [pair(f"p{n}") for n in range(3)])
    sheet = tmp_path / "sheet.csv"
    assert "3 questions" in cai("review", run, "--export", "csv", "--output", sheet).out
    lines = sheet.read_text().splitlines()
    filled = [line.replace(",,,,,,", f",Ann,{said},,,,", 1) for line, said in zip(lines[1:], "ax", strict=False)]
    sheet.write_text("\n".join([lines[0], *filled]))
    done = cai("review", run, "--import", "csv", "--input", sheet)
    assert done.code == 3
    assert "1 verdict taken; 0 known before; rows that nobody had judged: " in done.out
    assert "sheet.csv:3" in done.err
    assert cai("review", run, "--import", "csv").code == 2
    assert cai("review", run, "--page", "--figures").code == 2
    assert "labels are not made" in cai("review", write_empty(tmp_path / "empty")).err


def test_an_export_replaces_no_file_in_which_verdicts_may_stand(cai: Cai, tmp_path: Path) -> None:
    """Exported again under the same name, a sheet that was filled in by hand was gone."""
    run = write_run(tmp_path / "run", [pair("p")])
    for form, name, beside in (("csv", "sheet.csv", None), ("label-studio", "tasks.json", "tasks.xml")):
        command = ("review", run, "--export", form, "--output", tmp_path / name)
        assert cai(*command).code == 0
        (tmp_path / name).write_text("filled in")
        done = cai(*command)
        assert (done.code, (tmp_path / name).read_text()) == (1, "filled in")
        assert "exists already; nothing was written" in done.err
        assert cai(*command, "--force").code == 0
        assert (tmp_path / name).read_text() != "filled in"
        if beside is not None:
            (tmp_path / name).unlink()
            assert beside in cai(*command).err
            done = cai("review", run, "--export", form, "--output", tmp_path / "new.xml")
            assert "that is where the labelling configuration goes" in done.err
            assert not (tmp_path / "new.xml").exists()
    assert cai("review", run, "--force").code == 2


def write_empty(folder: Path) -> Path:
    with RunFolder.open(folder) as run:
        run.put_items([])
    return folder


# ---- a whole run


def test_a_run_waits_for_people_and_goes_on_with_what_they_say(cai: Cai, tmp_path: Path) -> None:
    """The same command after the review writes the data sets again, and asks no model anything."""
    review: dict[str, Any] = {"required": True, "tags": ["care"], "double_share": 0.0}
    config = write_scripted_run(
        tmp_path,
        30,
        prompts={"path": str(tmp_path / "prompts.jsonl"), "tags": ["format", "style", "care"]},
        review=review,
        filters={"boilerplate": "off", "unchanged": "off"},
    )
    first = cai("run", config)
    assert first.code in (0, 3)
    assert re.search(r"[1-9]\d* pairs and [1-9]\d* supervised rows wait for review", " ".join(first.out.split()))
    run = tmp_path / "run"
    datasets = run / "datasets"
    assert [line for file in datasets.glob("*.jsonl") for line in file.read_text().splitlines()] == []
    assert "wait for review" in " ".join(cai("plan", config).out.split())

    with RunFolder.open(run, read_only=True) as folder:
        labelled = list(folder.records(RecordKind.PREFERENCE, PreferenceRecord))
        calls = folder.usage()
    say(run, *(verdict(each, each.rejected if n % 2 else each.chosen) for n, each in enumerate(labelled)))
    second = cai("run", config, "--json")
    assert json.loads(second.out)["waiting_for_review"]["pairs"] == 0
    rows = [json.loads(line) for line in (datasets / "preferences.jsonl").read_text().splitlines()]
    assert {row["label_source"] for row in rows} == {"people"}
    assert len(rows) == len(labelled)
    by_uid = {each.uid: each for each in labelled}
    turned = sum(row["chosen"][0]["content"] != by_uid[row["uid"]].chosen for row in rows)
    assert turned == len(labelled) // 2
    with RunFolder.open(run, read_only=True) as folder:
        assert folder.usage() == calls
    assert "wait for review" in (datasets / "README.md").read_text()  # rows without a pair still do


@pytest.mark.slow
def test_a_model_that_learned_what_waits_now_is_the_runs_model_no_more(
    cai: Cai, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Trained first, and then told that all of it is of high impact: nothing is trained, and nothing measured."""
    llama = make_checkpoint(tmp_path_factory.mktemp("llama"))
    prompts = write_prompts(tmp_path / "prompts.jsonl")
    folder = tmp_path / "work"
    folder.mkdir()
    assert cai("run", write_config(folder, llama, prompts), "--set", "labels.allow_weak_labels=true").code in (0, 3)
    with RunFolder.open(folder / "run", read_only=True) as run:
        assert run.stage(Stage.DPO) is not None
    config = write_config(folder, llama, prompts, review={"required": True, "tags": ["claims", "questions"]})
    assert cai("run", config, "--set", "labels.allow_weak_labels=true").code in (0, 3)
    with RunFolder.open(folder / "run", read_only=True) as run:
        assert run.stage(Stage.LABEL) is not None
        assert run.stage(Stage.DPO) is None
        assert run.stage(Stage.EVALUATE) is None
    refused = cai("dpo", config, "--set", "labels.allow_weak_labels=true")
    assert refused.code == 1
    assert "wait for review" in refused.err
