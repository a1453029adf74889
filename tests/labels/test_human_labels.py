"""A labeller against people: figures by hand, baselines, soft labels, bad rows, and real pairs where they are at hand."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from checkpoints import make_checkpoint
from judges import always_a, coin, pointwise_judge

from cai.data.human_pairs import read_human_pairs
from cai.engines.base import Engine, RequestFailure, ScoreRequest
from cai.engines.local import LocalEngine
from cai.engines.scripted import ScriptedEngine
from cai.errors import DataError
from cai.labels import LabelSettings
from cai.labels.human_labels import HumanAgreement, HumanPair, HumanSet, compare_with_people
from cai.labels.settings import HumanLabelSettings
from cai.labels.shares import Share
from cai.models.loading import load_model
from cai.models.spec import ModelSpec
from constitution.messages import user
from constitution.schema import Constitution, Principle

KIND = Principle(id="kind", principle="Be kind.")
BRIEF = Principle(id="brief", principle="Be brief.", applies_to=("long",))
BOTH = Constitution(name="both", principles=(KIND, BRIEF))
ONE = Constitution(name="one", principles=(KIND,))
ASKED = HumanLabelSettings(path="people.jsonl")
POINTWISE = LabelSettings(max_p_chosen=1.0, min_margin_nats=0.1)


def human_set(pairs: list[HumanPair]) -> HumanSet:
    return HumanSet("people.jsonl", len(pairs) + 1, tuple(pairs), 1, ("people.jsonl:7: an answer is empty",), "f")


def pair(n: int, first: str, second: str, p_first: float = 1.0, **more: tuple[str, ...]) -> HumanPair:
    return HumanPair(f"human-{n}", (user(f"question {n}"),), first, second, p_first, **more)


def measured(
    pairs: list[HumanPair], judge: Engine, settings: LabelSettings = POINTWISE, constitution: Constitution = ONE
) -> HumanAgreement:
    return compare_with_people(human_set(pairs), constitution, [judge], settings, ASKED, seed=0)


def test_agreement_coverage_and_baselines_worked_out_by_hand() -> None:
    """The judge likes answers by the number they hold; people chose as `p_first` says."""
    pairs = [
        pair(1, "3 long long", "1"),  # right; the longer and the first
        pair(2, "1", "2 longer", 0.0),  # right; the longer, the second
        pair(3, "5 x", "1 longer", 0.0),  # wrong; the longer, the second
        pair(4, "1", "1", 1.0),  # no margin: half right, undecided; equal lengths
        pair(5, "9", "1 people are divided", 0.5),  # no side: in no agreement
        pair(6, "2.05", "2", 1.0),  # right, but below the least margin: undecided; the longer, the first
    ]
    found = measured(pairs, pointwise_judge(lambda reply: float(reply.split()[0])))
    assert (found.pairs, found.failed, found.ties, found.rows, found.invalid) == (6, 0, 1, 7, 1)
    assert found.agreement == Share.of(3.5, 5)
    assert found.coverage == Share.of(4, 6)
    assert found.decided_agreement == Share.of(2, 3)
    assert found.longer_wins == Share.of(4.5, 5)
    assert found.always_first == Share.of(3, 5)
    assert found.always_a == Share.of(2.5, 5)
    assert found.calibration is not None
    assert found.calibration.labels == 4  # the divided pair too: its label should have been a coin's
    assert found.fit is None  # too few


def test_each_principle_is_measured_alone_and_tags_and_rows_choose_them() -> None:
    likes = {"kind": 1.0, "brief": -1.0}

    def score(request: ScoreRequest) -> list[float]:
        principle = "kind" if "Be kind." in request.messages[-1].content else "brief"
        good = any(each.content == "good" for each in request.messages if each.role == "assistant")
        keep = 4 * likes[principle] * (1 if good else -1) * (1 if principle == "kind" else 0.5)
        return [keep, 0.0]

    judge = ScriptedEngine({"": "So. Nothing to change."}, score)
    pairs = [
        pair(1, "good", "bad", tags=("short",)),  # kind alone applies
        pair(2, "good", "bad", tags=("long",)),  # both apply, and kind is louder
        pair(3, "good", "bad", principle_ids=("brief",)),  # its row names the principle
    ]
    found = measured(pairs, judge, constitution=BOTH)
    assert found.decided_agreement == Share.of(2, 3)
    assert {each.principle_id: each.agreement for each in found.by_principle} == {
        "brief": Share.of(0, 2),
        "kind": Share.of(2, 2),
    }
    nothing_applies = Constitution(name="none", principles=(BRIEF,))
    assert measured(pairs[:1], judge, constitution=nothing_applies).unjudged == 1


def test_overconfident_labels_are_mended_by_the_fitted_temperature() -> None:
    """People agree with four of five; the judge is as sure as can be, and then as sure as it is right."""
    pairs = [pair(n, "good", "bad", float(n % 5 > 0)) for n in range(200)]
    found = measured(pairs, pointwise_judge(lambda reply: 3.0 if reply == "good" else -3.0))
    fit = found.fit
    assert fit is not None
    assert fit.temperature is not None
    assert fit.after is not None
    assert (fit.fitted_on, fit.before.labels) == (100, 100)
    assert fit.before.ece == pytest.approx(1 / (1 + math.exp(-6)) - fit.before.bins[0].mean_target)
    assert fit.after.ece < 0.1 < fit.before.ece
    assert fit.after.brier < fit.before.brier
    # sigmoid(6 / T) = the share that is right in the half it was fitted on
    assert 1 / (1 + math.exp(-6 / fit.temperature)) == pytest.approx(0.8, abs=0.08)


def test_pairs_of_one_prompt_are_not_taken_for_so_many_independent_ones() -> None:
    """Story: forty prompts of five pairs each gave the narrow intervals of two hundred, and stood on both sides of the fit."""
    judge = pointwise_judge(lambda reply: 3.0 if reply.startswith("good") else -3.0)

    def of(prompts: int) -> HumanAgreement:
        each = 200 // prompts
        made = [
            HumanPair(f"human-{n}", (user(f"question {n // each}"),), f"good {n}", f"bad {n}", float(n // each % 4 > 0))
            for n in range(200)
        ]
        return measured(made, judge)

    few, many = of(40), of(200)
    assert few.calibration is not None
    assert many.calibration is not None
    assert few.calibration.ece == pytest.approx(many.calibration.ece)
    widths = [each.ece_interval.high - each.ece_interval.low for each in (few.calibration, many.calibration)]
    assert widths[0] > 1.5 * widths[1]
    assert few.fit is not None
    assert few.fit.fitted_on == 100
    assert of(8).fit is not None
    uneven = of(25).fit
    assert uneven is not None
    assert (uneven.fitted_on % 8, uneven.before.labels % 8) == (0, 0)


def test_a_judge_that_errs_more_than_it_is_right_gets_no_temperature() -> None:
    pairs = [pair(n, "good", "bad", 0.0) for n in range(60)]
    found = measured(pairs, pointwise_judge(lambda reply: 1.0 if reply == "good" else -1.0))
    assert found.fit is not None
    assert (found.fit.temperature, found.fit.after) == (None, None)
    assert found.decided_agreement == Share.of(0, 60)


def test_an_always_a_judge_decides_nothing_and_is_half_right() -> None:
    letters = LabelSettings(method="letters")
    found = measured([pair(n, "one", "other") for n in range(30)], always_a, letters)
    assert found.coverage == Share.of(0, 30)
    assert found.agreement == Share.of(15, 30)
    assert found.decided_agreement is None
    assert found.calibration is None


def test_a_judge_that_fails_on_some_pairs_is_measured_on_the_others() -> None:
    def score(request: ScoreRequest) -> list[float] | RequestFailure:
        reply = next(each.content for each in request.messages if each.role == "assistant")
        return [math.nan, 0.0] if reply == "broken" else [1.0 if reply == "good" else -1.0, 0.0]

    judge = ScriptedEngine({"": "So. Nothing to change."}, score)
    found = measured([pair(1, "good", "bad"), pair(2, "good", "broken"), pair(3, "broken", "bad")], judge)
    assert (found.pairs, found.failed) == (3, 2)
    assert found.decided_agreement == Share.of(1, 1)


def test_margins_are_normalised_over_these_pairs_where_the_ensemble_asks_for_it() -> None:
    settings = POINTWISE.model_copy(update={"ensemble": "normalised"})
    found = measured([pair(n, "good", "bad") for n in range(4)], pointwise_judge(lambda r: float(r == "good")), settings)
    assert found.decided_agreement == Share.of(4, 4)


# ---- reading


def write(path: Path, rows: list[object]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def test_hard_and_soft_labels_in_every_form_are_read_and_bad_rows_are_counted(tmp_path: Path) -> None:
    rows = [
        {"prompt": "q", "chosen": "yes", "rejected": "no"},
        {"prompt": "q", "chosen": "yes", "rejected": "no!", "p_chosen": 0.25, "tags": ["claims"], "principle_ids": ["kind"]},
        {"prompt": "q", "chosen": "a", "rejected": "b", "p_chosen": 0},
        {"chosen": "\n\nHuman: q\n\nAssistant: yes", "rejected": "\n\nHuman: q\n\nAssistant: nope"},
        {"prompt": "q", "chosen": "same", "rejected": "same"},
        {"prompt": "q", "chosen": "yes"},
        {"prompt": "q", "chosen": "yes", "rejected": "no", "p_chosen": 1.5},
    ]
    found = read_human_pairs(write(tmp_path / "p.jsonl", rows), 10)
    assert (found.rows, found.invalid, len(found.pairs)) == (7, 3, 4)
    assert [problem.split(": ", 1)[1] for problem in found.problems] == [
        "both answers are the same",
        "no rejected; the row has prompt, chosen",
        "p_chosen is 1.5, not a share from 0 to 1",
    ]
    people = {frozenset((p.first, p.second)): {p.first: p.p_first, p.second: 1 - p.p_first} for p in found.pairs}
    assert people[frozenset(("yes", "no"))] == {"yes": 1.0, "no": 0.0}
    assert people[frozenset(("yes", "no!"))] == {"yes": 0.25, "no!": 0.75}
    assert people[frozenset("ab")] == {"a": 0.0, "b": 1.0}
    assert people[frozenset(("yes", "nope"))]["yes"] == 1.0
    assert {p.principle_ids for p in found.pairs if p.tags == ("claims",)} == {("kind",)}


def test_which_pairs_are_drawn_and_which_answer_stands_first_hangs_on_their_text_alone(tmp_path: Path) -> None:
    rows: list[object] = [{"prompt": f"q{n}", "chosen": "yes", "rejected": "no"} for n in range(400)]
    one = read_human_pairs(write(tmp_path / "a.jsonl", rows), 100)
    other = read_human_pairs(write(tmp_path / "b.jsonl", rows[::-1]), 100)
    assert one.pairs == other.pairs
    assert one.fingerprint == other.fingerprint
    assert 30 < sum(p.first == "yes" for p in one.pairs) < 70
    turned: list[object] = [{"prompt": f"q{n}", "chosen": "no", "rejected": "yes"} for n in range(400)]
    assert [p.first for p in read_human_pairs(write(tmp_path / "c.jsonl", turned), 100).pairs] == [p.first for p in one.pairs]


def test_a_file_of_something_else_is_refused_with_its_rows(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"2 of 2 rows are no pairs(.|\n)*no chosen and no rejected"):
        read_human_pairs(write(tmp_path / "p.jsonl", [{"prompt": "q"}, {"prompt": "q"}]), 10)
    with pytest.raises(DataError, match="no such file"):
        read_human_pairs(str(tmp_path / "missing.jsonl"), 10)


# ---- real pairs


@pytest.fixture(scope="module")
def harmless(shared_data: Path) -> HumanSet:
    path = shared_data / "hh-harmless" / "pairs.jsonl"
    if not path.is_file():
        pytest.skip("hh-harmless is not here")
    return read_human_pairs(str(path), 200)


def test_real_pairs_are_read_with_their_few_bad_rows(harmless: HumanSet) -> None:
    assert len(harmless.pairs) == 200
    assert 0 < harmless.invalid < harmless.rows / 100
    assert 70 < sum(pair.p_first for pair in harmless.pairs) < 130


def test_a_coin_agrees_with_people_in_half_of_real_pairs(harmless: HumanSet) -> None:
    found = compare_with_people(harmless, ONE, [pointwise_judge(coin)], POINTWISE, ASKED, seed=0)
    assert found.agreement is not None
    assert found.agreement.low < 0.5 < found.agreement.high


def test_random_weights_agree_with_people_in_about_half_of_real_pairs(
    harmless: HumanSet, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = make_checkpoint(tmp_path_factory.mktemp("random"), max_position_embeddings=4096)
    engine = LocalEngine(load_model(ModelSpec(name=str(folder), device="cpu", dtype="float32")))
    short = tuple(each for each in harmless.pairs if sum(len(m.content) for m in each.conversation) < 300)[:60]
    some = HumanSet(harmless.source, harmless.rows, short, harmless.invalid, harmless.problems, "")
    found = compare_with_people(some, ONE, [engine], LabelSettings(ground_tokens=0, min_margin_nats=0.0), ASKED, seed=0)
    assert found.failed == 0
    assert found.agreement is not None
    assert found.agreement.low < 0.5 < found.agreement.high
