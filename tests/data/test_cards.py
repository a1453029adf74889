"""The card of a data set."""

from __future__ import annotations

import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from test_rows import PAIRS, RECORDS, pair

from cai.data.cards import DatasetFacts, LengthGap, LengthGaps, dataset_card
from cai.data.rows import preference_rows, sft_rows, write_rows
from cai.records import PreferenceRecord

FACTS = DatasetFacts(
    name="My *set* <script>",
    files={"sft": "sft.jsonl", "preferences": "preferences.jsonl"},
    rows={"sft": 4, "preferences": 2},
    ledger={"pair": 2, "kept: nothing to change": 5, "filtered: meta_talk": 1},
    models={"policy": "smollm2-135m", "feedback": "a | b"},
    constitution="honesty",
    constitution_fingerprint="0123456789abcdef0123",
    seed=7,
    kept_share=0.625,
    length_gap=LengthGap(-3.25, -2.0, 0.4),
    settings={"rounds": "1"},
)


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_datasets_finds_the_files_by_the_card(suffix: str, tmp_path: Path) -> None:
    from datasets import load_dataset

    (tmp_path / "set").mkdir()
    facts = replace(FACTS, files={name: f"{name}.{suffix}" for name in FACTS.files})
    (tmp_path / "set" / "README.md").write_text(dataset_card(facts), encoding="utf-8")
    write_rows(tmp_path / "set" / f"sft.{suffix}", sft_rows(RECORDS), "sft")
    write_rows(tmp_path / "set" / f"preferences.{suffix}", preference_rows(PAIRS), "preferences")
    for name, count in (("sft", 4), ("preferences", 2)):
        loaded: Any = load_dataset(str(tmp_path / "set"), name, cache_dir=str(tmp_path / "cache"))
        assert len(loaded["train"]) == count


def test_the_card_accounts_for_every_input_and_names_what_made_it() -> None:
    card = dataset_card(FACTS)
    front = yaml.safe_load(card.split("---")[1])
    assert {each["config_name"]: each["data_files"] for each in front["configs"]} == FACTS.files
    for line in ("| pair | 2 | 25.0% |", "| kept: nothing to change | 5 | 62.5% |", "| all | 8 | 100.0% |"):
        assert line in card
    for text in (
        "smollm2-135m",
        "`0123456789abcdef`",
        "| seed | 7 |",
        "mean -3.2, median -2.0",
        "| drafts kept as they were | 62.5% |",
    ):
        assert text in card
    assert card == dataset_card(FACTS)


def test_markup_in_values_does_not_become_markup() -> None:
    card = dataset_card(FACTS)
    assert "<script>" not in card
    assert r"My \*set\*" in card
    assert r"a \| b" in card


def test_a_card_of_nothing_is_a_card() -> None:
    empty = DatasetFacts(
        name="n", files={}, rows={}, ledger={}, models={}, constitution="c", constitution_fingerprint="f", length_gap=None
    )
    card = dataset_card(empty)
    assert "configs" not in card
    assert "| all | 0 | – |" in card


def length_gap(*pairs: PreferenceRecord) -> LengthGap | None:
    gaps = LengthGaps()
    for each in pairs:
        gaps.add(each)
    return gaps.result()


def test_length_gaps_by_hand() -> None:
    found = length_gap(
        pair("a", chosen="12345", rejected="12"),
        pair("b", chosen="1", rejected="123"),
        pair("c", chosen="12", rejected="1"),
    )
    assert found is not None
    assert (found.mean, found.median, found.chosen_longer_share) == pytest.approx((2 / 3, 1.0, 2 / 3))
    assert length_gap() is None


@given(st.lists(st.integers(-4, 4), min_size=1, max_size=30))
def test_length_gaps_are_those_of_the_list_of_all(gaps: list[int]) -> None:
    found = length_gap(*(pair("a", chosen="x" * (5 + gap), rejected="x" * 5) for gap in gaps))
    assert found is not None
    assert (found.mean, found.median) == pytest.approx((statistics.fmean(gaps), statistics.median(gaps)))
