"""How sure labels are and who prefers what, in exports: margins of reward rows, votes of principles."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from exported_rows import exported
from hypothesis import given, settings
from hypothesis import strategies as st
from labelled_runs import labelled_pair, write_labelled_run

from cai.data.exporting.inverse_cai import principle_votes
from cai.data.exporting.trl import LARGEST_MARGIN_NATS, margin_nats


@settings(max_examples=30)
@given(st.floats(0.5, 1.0))
def test_the_margin_of_a_reward_row_is_the_difference_of_rewards_that_gives_the_label(p_chosen: float) -> None:
    """Bradley and Terry: p = 1 / (1 + exp(−margin)); and no margin that no reward model would reach."""
    expected = min(p_chosen, 0.99)
    assert 1 / (1 + math.exp(-margin_nats(p_chosen))) == pytest.approx(expected)
    assert 0.0 <= margin_nats(p_chosen) <= LARGEST_MARGIN_NATS == pytest.approx(4.595, abs=1e-3)


def test_principles_vote_for_the_reply_that_their_own_comparisons_prefer(tmp_path: Path) -> None:
    """Also where the chosen reply stood second: then the margins, which speak of the first, are below zero together."""
    first = labelled_pair(margins=(("kind", 2.0), ("brief", -0.5), ("unasked", 0.0)))
    second = labelled_pair(margins=(("kind", -2.0), ("brief", 0.5)), chosen_is_first=False)
    assert principle_votes(first) == principle_votes(second) == {"kind": True, "brief": False}
    run = write_labelled_run(tmp_path / "run", [labelled_pair(str(n)) for n in range(30)])
    exported(run, "inverse-cai", tmp_path / "out")
    content = json.loads((tmp_path / "out" / "annotated_pairs.json").read_text())
    default = content["metadata"]["default_annotator"]
    assert {name for name, each in content["annotators"].items() if each["type"] == "principle"} == {"kind", "brief", "unasked"}
    slots = set()
    for each in content["comparisons"]:
        better = each["annotations"][default]["pref"]
        slots.add(better)
        assert each[f"response_{better}"]["text"] == "a better reply"
        assert each["annotations"]["kind"]["pref"] == better != each["annotations"]["brief"]["pref"]
    assert slots == {"a", "b"}
    assert len({each["id"] for each in content["comparisons"]}) == 30


def test_our_own_import_reads_inverse_cais_pairs_back(run: Path, tmp_path: Path) -> None:
    from constitution.importing import import_file

    exported(run, "inverse-cai", tmp_path / "out")
    found = import_file(tmp_path / "out" / "annotated_pairs.json")
    text = str(found)
    assert all(principle in text for principle in ("Be brief.", "Be | unasked."))
