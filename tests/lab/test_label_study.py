"""The label study: what its table says, worked out by hand, and the whole of it on a model without sense."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from checkpoints import make_checkpoint

from cai.data.filters.settings import FilterRules
from cai.lab.label_study import WAYS, Way, probe_labels, study
from cai.lab.label_table import table
from cai.lab.study.recipes import POINTWISE
from cai.lab.study.setup import Setup
from cai.lab.study.steps import labelled
from cai.labels.candidates import Candidate, Candidates
from cai.models.spec import ModelSpec


def label(uid: str, margin: float, p: float, truth: int) -> dict[str, Any]:
    return {"uid": uid, "margin_nats": margin, "p_first": p, "truth": truth}


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_table_says_what_was_labelled_trained_and_answered() -> None:
    """Of four probes three are right, one undecided; Brier (0.1² + 0.2² + 0.4²) / 3 = 0.07, ECE (0.1 + 0.2 + 0.4) / 3 = 0.23.
    Of the pairs that the truth tells apart, one of two is right. Faults fall from 2 of 2 to 1 of 2."""
    probes = [
        {
            "way": "one",
            "probes": [label("a", 2, 0.9, 1), label("b", -1, 0.2, -1), label("c", 0.4, 0.6, 1), label("d", 0, 0.5, 1)],
        }
    ]
    answers = [["x", "wrong", True, True], ["y", "unsure", True, False], ["z", "benign", False, False]]
    rows = [
        {
            "way": "one",
            "seed": 0,
            "labels": [label("a", 1, 0.7, 1), label("b", 1, 0.7, -1), label("c", 1, 0.7, 0)],
            "answers": answers,
        }
    ]
    rows += [{"way": "untrained", "seed": 0, "labels": [label("a", 1, 0.7, 1)]}]
    _, _, one, untrained = (cells(line) for line in table(probes, rows).splitlines())
    assert one[0] == "one"
    assert one[1].startswith("75% [")
    assert one[2].startswith("0.23 [")
    assert one[3:5] == ["0.07", "3"]
    assert one[5].startswith("50% [")
    assert (one[6], one[7].split()[0], one[8], one[9]) == ("50%", "-50", "0%", "+0 [+0, +0]")
    assert untrained[1:4] == ["–"] * 3
    assert untrained[6:] == ["–"] * 4


def test_a_way_that_decides_nothing_is_in_the_table_and_breaks_nothing() -> None:
    """Story: one judge without a verdict, or pairs that the truth does not tell apart, and hours of work ended in a trace."""
    probes = [{"way": "mute", "probes": [label("a", 0, 0.5, 1)]}]
    rows = [{"way": "mute", "seed": 0, "labels": [label("a", 0, 0.5, 0)], "untrained": "no pair is left"}]
    assert cells(table(probes, rows).splitlines()[2])[1:] == ["0% [0, 79]", "–", "–", "1", "–", "–", "–", "–", "–"]


@pytest.mark.parametrize(("hard", "expected"), [(False, [0.7310585786300049, 0.5, 0.05]), (True, [1.0, 0.5, 0.0])])
def test_labels_are_as_sure_as_their_margin_or_certain(hard: bool, expected: list[float]) -> None:
    group = Candidates("x", 0, (), (Candidate("a"), Candidate("b")), ((0, 1),), ())
    made = labelled([group] * 4, [1.0, 0.0, -9.0, None], [1, 0, -1, 1], POINTWISE.model_copy(update={"hard": hard}))
    assert [each.p_first for each in made] == pytest.approx([*expected, 0.5])
    assert [each.failed for each in made] == [False, False, False, True]


def plain_setup(folder: Path) -> Setup:
    """A random model that judges itself, and no filter."""
    model = ModelSpec(name=str(make_checkpoint(folder / "model", vocab=400)), dtype="float32")
    nothing = dict.fromkeys(("meta_talk", "critique_talk", "empty", "cut_short", "repetition", "too_long"), False)
    nothing |= dict.fromkeys(("role_confusion", "truncated", "loops", "emoji_runs", "wrong_language"), False)
    return Setup(plain=model, feedback=model, filters=FilterRules.model_validate(nothing))


def test_noise_turns_its_share_of_the_true_labels_round_and_is_as_wrong_as_it_is_sure(tmp_path: Path) -> None:
    ways = [way for way in WAYS if way.name.startswith("truth")]
    made = probe_labels(tmp_path / "out", 60, 0, ways, plain_setup(tmp_path))
    assert [row["way"] for row in made] == [way.name for way in ways]
    for way, row in zip(ways, made, strict=True):
        wrong = sum(each["margin_nats"] * each["truth"] < 0 for each in row["probes"]) / 60
        assert wrong == pytest.approx(way.recipe.labelling.noise, abs=0.1)
        assert {each["p_first"] for each in row["probes"]} <= {0.0, 1.0}
        line = table([row], [{"way": way.name, "seed": 0, "labels": []}]).splitlines()[2]
        assert cells(line)[2].startswith(f"{wrong:.2f} [")
        assert cells(line)[3] == f"{wrong:.2f}"


def test_rows_of_other_models_or_settings_are_made_anew(tmp_path: Path) -> None:
    """Story: the rows of an earlier adapter were taken for those of the one that the study was given."""
    setup = plain_setup(tmp_path)
    ways, output = (Way("truth", WAYS[-1].recipe, trained=False),), tmp_path / "out"
    (first,) = study(output, [0], items=4, per_behaviour=1, ways=ways, training=False, setup=setup)
    draft = setup.loop.draft.model_copy(update={"max_tokens": 9})
    other = setup.model_copy(update={"loop": setup.loop.model_copy(update={"draft": draft})})
    (second,) = study(output, [0], items=4, per_behaviour=1, ways=ways, training=False, setup=other)
    assert first["made_with"] != second["made_with"]
    assert study(output, [0], items=4, per_behaviour=1, ways=ways, training=False, setup=setup) == [first]
    assert len((output / "rows.jsonl").read_text().splitlines()) == 2


@pytest.mark.slow
def test_the_study_labels_trains_and_answers_and_goes_on_where_it_stopped(
    tmp_path: Path,
) -> None:
    """On a random model that judges itself: nothing is to be learned from its figures, but they are all there."""
    setup = plain_setup(tmp_path)
    pointwise, truth = WAYS[0], WAYS[-1]
    ways = (Way("pointwise", pointwise.recipe), Way(truth.name, truth.recipe, trained=False))
    probes = probe_labels(tmp_path / "out", 6, 0, ways, setup)
    assert [len(row["probes"]) for row in probes] == [6, 6]
    assert {each["truth"] for each in probes[0]["probes"]} <= {1, -1}
    rows = study(tmp_path / "out", [0], items=12, per_behaviour=1, ways=ways, setup=setup)
    assert [row["way"] for row in rows] == ["pointwise", truth.name]
    assert len(rows[0]["answers"]) == 7
    before = (tmp_path / "out" / "rows.jsonl").read_bytes()
    assert study(tmp_path / "out", [0], items=12, per_behaviour=1, ways=ways, setup=setup) == [
        json.loads(line) for line in before.splitlines()
    ]
    assert (tmp_path / "out" / "rows.jsonl").read_bytes() == before
    assert len(table(probes, rows).splitlines()) == 4
