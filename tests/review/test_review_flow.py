"""From verdicts to what is learned: people beat AI feedback, and what is of high impact waits for them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from cai.cli import main
from cai.data.rows import preference_row, sft_records
from cai.records import Judgement, PreferenceRecord, RevisionRecord, Round, Verdict
from cai.review.flow import Review, Waiting, waiting
from cai.store import RunFolder
from tests.review.reviewed_runs import pair, say, unchanged, undecided, verdict, write_run

REQUIRED: dict[str, Any] = {"required": True, "tags": ["medical"], "detectors": ["pii"]}


def learned(run: Path) -> tuple[list[PreferenceRecord], list[RevisionRecord], Review]:
    with RunFolder.open(run, read_only=True) as folder:
        review = Review.of(folder)
        return list(review.pairs_of(folder)), list(review.records_of(folder)), review


def test_without_verdicts_everything_is_as_ai_feedback_left_it(tmp_path: Path) -> None:
    pairs = [pair("a"), pair("b")]
    run = write_run(tmp_path / "run", pairs, [undecided("u")], [unchanged("k")])
    found, records, review = learned(run)
    assert found == pairs
    assert [each.uid for each in records] == ["a", "b", "u", "k"]
    assert review.fingerprint == ""
    assert not (run / "review.sqlite").exists()


def test_people_confirm_turn_round_decide_tie_and_throw_out(tmp_path: Path) -> None:
    names = ("confirmed", "turned", "tied", "unfit", "untouched")
    by_name = {name: pair(name, p=0.8) for name in names}
    decided, left = undecided("decided"), undecided("left")
    run = write_run(tmp_path / "run", by_name.values(), [decided, left])
    say(
        run,
        verdict(by_name["confirmed"], by_name["confirmed"].chosen),
        verdict(by_name["turned"], by_name["turned"].rejected),
        verdict(by_name["tied"], Judgement.TIE),
        verdict(by_name["unfit"], Judgement.BOTH_BAD),
        verdict(decided, decided.second),
        verdict(left, Judgement.TIE),  # was no pair, and is none: nothing is lost by it
    )
    found, records, review = learned(run)
    rows = {each.uid: each for each in found}
    assert list(rows) == ["confirmed", "turned", "untouched", "decided"]
    assert rows["untouched"] == by_name["untouched"]

    turned = rows["turned"]
    assert (turned.chosen, turned.rejected) == (by_name["turned"].rejected, by_name["turned"].chosen)
    assert (turned.chosen_source, turned.rejected_source) == ("draft", "revision")
    assert turned.first == by_name["turned"].first  # what comparisons speak of has not moved
    assert turned.p_chosen == 0.95
    assert turned.margin_nats == pytest.approx(math.log(0.95 / 0.05))
    row = preference_row(turned)
    assert (row["label_source"], preference_row(rows["untouched"])["label_source"]) == ("people", "ai")
    dumped = turned.model_dump()
    assert (dumped["reviewers"], dumped["ai_p_chosen"]) == (1, pytest.approx(0.2))
    assert rows["confirmed"].model_dump()["ai_p_chosen"] == 0.8
    assert (rows["decided"].chosen, rows["decided"].model_dump()["ai_p_chosen"]) == (decided.second, None)

    # The revision that lost against its draft, and the one called bad, are nobody's example.
    assert [each.uid for each in records] == ["confirmed", "tied", "untouched", "left"]
    tally = review.tally
    assert (tally.pairs_confirmed, tally.pairs_turned, tally.pairs_decided, tally.pairs_tied, tally.pairs_unfit) == (1,) * 5
    assert tally.rows_unfit == 3
    assert tally.told()["pairs whose label people turned round"] == "1"


def test_what_is_learned_has_another_fingerprint_when_somebody_says_something_else(tmp_path: Path) -> None:
    prints: set[str] = set()
    for said in (Judgement.FIRST, Judgement.SECOND, Judgement.TIE, Judgement.BOTH_BAD):
        run = write_run(tmp_path / said, [pair("a")])
        say(run, verdict(pair("a"), said))
        prints.add(learned(run)[2].fingerprint)
    assert len(prints) == 4


def test_who_reads_twice_counts_once(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [pair("a", tags=["medical"])], review=REQUIRED)
    with RunFolder.open(run, read_only=True) as folder:
        review = Review.of(folder)
        for _ in range(2):
            assert list(review.pairs_of(folder)) == list(review.records_of(folder)) == []
    assert (review.tally.pairs_waiting, review.tally.rows_waiting) == (1, 1)


def test_two_people_who_disagree_make_a_soft_label(tmp_path: Path) -> None:
    one = pair("a")
    run = write_run(tmp_path / "run", [one])
    say(run, *(verdict(one, text, who) for who, text in (("Ann", one.chosen), ("Bob", one.chosen), ("Cy", one.rejected))))
    (found,), _, _ = learned(run)
    assert found.p_chosen == pytest.approx(2 / 3)
    assert found.chosen == one.chosen


def test_a_verdict_taken_back_counts_no_more(tmp_path: Path) -> None:
    one = pair("a")
    run = write_run(tmp_path / "run", [one])
    say(run, verdict(one, one.rejected), verdict(one, Judgement.WITHDRAWN))
    assert learned(run)[0] == [one]
    say(run, verdict(one, one.rejected), verdict(one, one.chosen))
    assert learned(run)[0][0].chosen == one.chosen


def test_verdicts_survive_labels_made_anew_and_do_not_speak_of_other_texts(tmp_path: Path) -> None:
    same, edited = pair("same"), pair("edited")
    run = write_run(tmp_path / "run", [same, edited])
    say(run, verdict(same, same.rejected), verdict(edited, edited.rejected))
    swapped = same.model_copy(
        update={"chosen": same.rejected, "rejected": same.chosen, "chosen_is_first": False, "chosen_source": "draft"}
    )
    write_run(run, [swapped, pair("edited", chosen="another revision")], label="anew")
    found = {each.uid: each for each in learned(run)[0]}
    assert found["same"].chosen == same.rejected
    assert found["same"].label_source == "people"
    assert (found["edited"].chosen, found["edited"].label_source) == ("another revision", "ai")


def test_rows_of_high_impact_wait_until_somebody_judged_them(tmp_path: Path) -> None:
    pairs = [pair("free"), pair("tagged", tags=["medical"]), pair("flagged")]
    alone = [unchanged("kept"), unchanged("kept-medical", tags=["medical"])]
    run = write_run(
        tmp_path / "run", pairs, [undecided("u", tags=["medical"])], alone, findings=[("flagged", "pii")], review=REQUIRED
    )
    found, records, review = learned(run)
    assert [each.uid for each in found] == ["free"]
    assert [each.uid for each in records] == ["free", "kept"]
    assert (review.tally.pairs_waiting, review.tally.rows_waiting) == (2, 4)
    with RunFolder.open(run, read_only=True) as folder:
        assert waiting(folder) == Waiting(pairs=2, rows=4)

    say(
        run,
        verdict(pairs[1], pairs[1].chosen),
        verdict(alone[1], Judgement.GOOD),
        verdict(pairs[2], Judgement.SKIP),
        verdict(undecided("u", tags=["medical"]), Judgement.TIE),
    )
    found, records, review = learned(run)
    assert [each.uid for each in found] == ["free", "tagged"]
    assert [each.uid for each in records] == ["free", "tagged", "u", "kept", "kept-medical"]
    with RunFolder.open(run, read_only=True) as folder:
        assert waiting(folder) == Waiting(pairs=1, rows=1)
    say(run, verdict(alone[1], Judgement.BAD))
    assert "kept-medical" not in [each.uid for each in learned(run)[1]]


def test_where_all_rounds_are_learned_each_revision_waits_by_itself(tmp_path: Path) -> None:
    """Of three revisions people judged two, and called one of these bad: one row is left of the item."""
    rounds = [Round(round=n, principle_id="kind", critique="c", verdict=Verdict.FAULT, revision=f"v{n}") for n in range(3)]
    record = unchanged("r", tags=["medical"]).model_copy(update={"rounds": tuple(rounds)})
    judged = [record.model_copy(update={"rounds": tuple(rounds[: n + 1])}) for n in range(3)]
    run = write_run(tmp_path / "run", [], [], [record], review=REQUIRED)
    say(run, verdict(judged[2], Judgement.GOOD), verdict(judged[1], Judgement.BAD))
    with RunFolder.open(run, read_only=True) as folder:
        review = Review.of(folder)
        assert [each.reply for each in sft_records(review.records_of(folder), rounds="final")] == ["v2"]
        assert [each.reply for each in sft_records(review.records_of(folder, rounds="all"), rounds="all")] == ["v2"]
        assert (review.tally.rows_unfit, review.tally.rows_waiting) == (1, 1)
    say(run, verdict(judged[0], Judgement.GOOD))
    with RunFolder.open(run, read_only=True) as folder:
        made = sft_records(Review.of(folder).records_of(folder, rounds="all"), rounds="all")
        assert [each.reply for each in made] == ["v0", "v2"]


def test_exports_status_and_cards_say_how_many_wait(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    run = write_run(tmp_path / "run", [pair("free"), pair("t", tags=["medical"])], review=REQUIRED)

    def cai(*arguments: object) -> str:
        monkeypatch.setattr("sys.argv", ["cai", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        assert not ended.value.code
        return capsys.readouterr().out

    assert "1 pairs and 1 supervised rows wait for review" in cai("status", run)
    assert '"pairs": 1' in cai("status", run, "--json")
    told = cai("export", run, "--to", "jsonl", "--output", tmp_path / "out")
    assert "1 pairs and 1 supervised rows wait for review, and are in none of these files" in told
    card = (tmp_path / "out" / "README.md").read_text()
    assert "pairs left out, since they wait for review | 1 |" in card
    assert "supervised rows left out, since they wait for review | 1 |" in card
    texts = "".join(file.read_text() for file in (tmp_path / "out").glob("*.jsonl"))
    assert "the better reply to free" in texts
    assert "reply to t" not in texts
    cai("report", run)
    assert "1 pairs and 1 supervised rows wait for review" in (run / "report.html").read_text()


def test_a_verdict_is_on_the_card_with_its_figures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    one = pair("a")
    run = write_run(tmp_path / "run", [one, pair("b")])
    say(run, verdict(one, one.rejected))
    monkeypatch.setattr("sys.argv", ["cai", "export", str(run), "--to", "jsonl", "--output", str(tmp_path / "out")])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    card = (tmp_path / "out" / "README.md").read_text()
    assert "by review: verdict by 1 person" in card
    assert "no person has looked" not in card
    assert "pairs whose label people turned round | 1 |" in card


@pytest.mark.parametrize(
    ("review", "told"),
    [
        ({"required": True}, "say which rows are of high impact"),
        ({"detectors": ["ppi"]}, "did you mean 'pii'"),
        ({"detectors": ["boilerplate"]}, "the rule 'boilerplate' is off"),
    ],
)
def test_settings_that_hold_nothing_back_are_refused(review: dict[str, Any], told: str) -> None:
    from pydantic import ValidationError

    from cai.config.settings import RunConfig

    with pytest.raises(ValidationError, match=told):
        RunConfig.model_validate({"policy": {"name": "x"}, "prompts": {"path": "p.jsonl"}, "review": review})
