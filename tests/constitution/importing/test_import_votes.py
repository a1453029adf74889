"""Annotated pairs: votes become tests of a principle, and their record its reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from samples import (
    imported,
)

from constitution.importing import Fate


def _pairs(votes: list[tuple[str | None, str | None]]) -> dict[str, Any]:
    return {
        "metadata": {"version": "2.0", "default_annotator": "p"},
        "annotators": {"p": {"type": "human"}, "r": {"type": "principle", "description": "Choose the shorter reply."}},
        "comparisons": [
            {
                "prompt": f"Question {number}?",
                "response_a": {"text": f"a{number}"},
                "response_b": {"text": f"b{number}"},
                "annotations": {"p": {"pref": people}, "r": {"pref": rule}},
            }
            for number, (people, rule) in enumerate(votes)
        ],
    }


def test_votes_that_agree_with_people_become_tests_and_the_record_becomes_the_reason(tmp_path: Path) -> None:
    _, result, constitution, back = imported(tmp_path, "070.json", _pairs([("a", "a"), ("b", "b"), ("a", "b"), ("a", None)]))
    (principle,) = constitution.principles
    assert [(test.better, test.worse) for test in principle.tests] == [("a0", "b0"), ("b1", "a1")]
    # accuracy 2/3, relevance 3/4: (2/3 - 1/2) * 3/4 * 2 = 0.25
    assert "decided 3 of 4 comparisons" in principle.rationale
    assert "2 of the 3 that both decided (performance 0.25)" in principle.rationale
    assert [(loss.where, loss.fate) for loss in result.losses] == [("annotators.p", Fate.PART), ("comparisons", Fate.PART)]
    assert back is None


def test_what_annotated_pairs_say_besides_is_kept_or_told(tmp_path: Path) -> None:
    content = _pairs([("a", "a")])
    content["metadata"] |= {"dataset_name": "Teas", "available_metadata_keys_per_comparison": ["index"]}
    content["annotators"]["r"] |= {"model": "a judge", "annotator": "x", "votes": 3}
    content["licence"] = "CC0"
    _, result, constitution, _ = imported(tmp_path, "070.json", content)
    assert [(loss.where, loss.fate) for loss in result.losses] == [
        ("metadata.dataset_name", Fate.UNUSED),
        ("metadata.available_metadata_keys_per_comparison", Fate.UNUSED),
        ("annotators.p", Fate.PART),
        ("annotators.r.model", Fate.UNUSED),
        ("annotators.r.annotator", Fate.PART),
        ("annotators.r.votes", Fate.PART),
        ("comparisons", Fate.PART),
        ("licence", Fate.PART),
    ]
    assert constitution.principles[0].source == {"annotator": "r", "model": "a judge"}
    assert json.loads(constitution.source["metadata"]) == content["metadata"]


@pytest.mark.parametrize("metadata", [["a"], {"note": "x" * 40_000}], ids=["a list", "too long"])
def test_metadata_that_cannot_be_kept_is_told_once(tmp_path: Path, metadata: object) -> None:
    _, result, constitution, _ = imported(tmp_path, "070.json", _pairs([]) | {"metadata": metadata})
    assert [loss.fate for loss in result.losses if "annotators" not in loss.where and "comparisons" not in loss.where] == [
        Fate.PART
    ]
    assert "metadata" not in constitution.source


def test_a_principle_takes_ten_tests_from_the_comparisons_and_the_rest_is_counted(tmp_path: Path) -> None:
    _, result, constitution, _ = imported(tmp_path, "070.json", _pairs([("a", "a")] * 25))
    assert len(constitution.principles[0].tests) == 10
    assert "25 comparisons with 25 votes, 25 of them as the default annotator's: 10 became tests" in result.losses[-1].what
