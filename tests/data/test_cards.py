"""The card of a data set."""

from __future__ import annotations

import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from test_rows import PAIRS, RECORDS, pair

from cai.data.cards import DatasetFacts, FilterFact, dataset_card
from cai.data.front_matter import size_category
from cai.data.length_gaps import LengthGap, LengthGaps
from cai.data.readable import readable
from cai.data.rows import preference_rows, sft_rows, write_rows
from cai.records import PreferenceRecord

FACTS = DatasetFacts(
    name="My *set* <script>",
    files={"sft": {"train": "sft.jsonl"}, "preferences": {"train": "preferences.jsonl"}},
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
    facts = replace(FACTS, files={name: {"train": f"{name}.{suffix}"} for name in FACTS.files})
    (tmp_path / "set" / "README.md").write_text(dataset_card(facts), encoding="utf-8")
    write_rows(tmp_path / "set" / f"sft.{suffix}", sft_rows(RECORDS), "sft")
    write_rows(tmp_path / "set" / f"preferences.{suffix}", preference_rows(PAIRS), "preferences")
    for name, count in (("sft", 4), ("preferences", 2)):
        loaded: Any = load_dataset(str(tmp_path / "set"), name, cache_dir=str(tmp_path / "cache"))
        assert len(loaded["train"]) == count


def test_the_card_accounts_for_every_input_and_names_what_made_it() -> None:
    card = dataset_card(FACTS)
    front = yaml.safe_load(card.split("---")[1])
    assert {each["config_name"]: each["data_files"] for each in front["configs"]} == {
        "sft": [{"split": "train", "path": "sft.jsonl"}],
        "preferences": [{"split": "train", "path": "preferences.jsonl"}],
    }
    assert "license" not in front
    assert "Nobody has said under which licence" in card
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
    assert "<script>" not in card.split("---\n", 2)[2], "below the front matter, which is data"
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


RICH = replace(
    FACTS,
    licence="cc-by-4.0",
    languages=("en", "de"),
    principles={"kind": "Be kind | and *plain*.\n# not a heading"},
    making={"loop: rounds": "1"},
    label_quality={"longer won share": "61.0%"},
    filters=(FilterFact("meta_talk", "drop", 1, 2, "talk"),),
    length_gap=LengthGap(9.0, 8.0, 0.75),
    columns={"sft": {"messages": "the `conversation`"}},
    loading={"sft": '`load_dataset("json")` | more'},
    told=("2 rows left out: a `mark` <b>",),
    warnings=("the judge was **weak**",),
)


def test_huggingface_hub_reads_the_cards_metadata(tmp_path: Path) -> None:
    from huggingface_hub import DatasetCard, DatasetCardData

    (tmp_path / "README.md").write_text(dataset_card(RICH), encoding="utf-8")
    data = DatasetCard.load(tmp_path / "README.md").data
    assert isinstance(data, DatasetCardData)
    known = data.to_dict()
    assert (known["license"], known["language"], known["size_categories"]) == ("cc-by-4.0", ["en", "de"], ["n<1K"])
    assert known["task_categories"] == ["text-generation"]
    assert known["pretty_name"] == RICH.name
    # What `DatasetCardData` knows by name, besides what the hub allows in any card.
    assert set(known) <= set(DatasetCardData().__dict__) | {"license", "language", "tags", "configs"}


def test_the_card_tells_principles_labels_filters_and_limits_and_warns_in_bold() -> None:
    card = dataset_card(RICH)
    for text in (
        r"> **Warning: the judge was \*\*weak\*\***",
        r"| kind | Be kind \| and \*plain\*. # not a heading |",
        "| longer won share | 61.0% |",
        r"| meta\_talk | drop | 1 | 2 | talk |",
        "- 2 rows left out: a `mark` &lt;b&gt;",
        r'| sft | `load_dataset("json")` \| more |',
        "| sft | messages | the `conversation` |",
        "This data set: cc-by-4.0.",
        "In 75% of the pairs the longer reply was chosen",
        "Only 2 pairs",
    ):
        assert text in card, text
    assert "The model that was taught also judged" not in card
    assert "The model that was taught also judged" in dataset_card(
        replace(RICH, models=dict.fromkeys(("policy", "feedback"), "m"))
    )


@pytest.mark.parametrize(
    ("rule", "limit"),
    [
        ("leakage", "Rows were not compared with any evaluation set"),
        ("boilerplate", "Openings and sentences that many replies share were not sought out"),
        ("near_duplicate", "Rows that are nearly alike were not sought out"),
        ("pii", "Rows were not searched for personal data"),
    ],
)
def test_what_no_rule_looked_for_is_a_known_limit(rule: str, limit: str) -> None:
    """Story: a data set that was never held against an evaluation set was silent about it; the rule is off without one."""
    asked = {each: dataset_card(replace(RICH, filters=(FilterFact(rule, each, 0, 0),))) for each in ("drop", "flag", "off")}
    assert [limit in asked[each] for each in asked] == [False, False, True]


@settings(max_examples=50)
@given(st.text())
def test_no_text_of_a_user_breaks_a_table_or_becomes_markup(text: str) -> None:
    import re

    from markdown_it import MarkdownIt

    card = dataset_card(replace(FACTS, principles={"p": text, "last": "end"}, settings={}))
    html = MarkdownIt("commonmark", {"html": True}).enable("table").render(card.partition("---\n")[2].partition("---\n")[2])
    rows = html[html.index("<th>principle</th>") :].partition("</table>")[0]
    assert rows.count("<tr>") == 2
    assert set(re.findall(r"</?(\w+)", rows)) <= {"th", "tr", "thead", "tbody", "td"}


def test_sizes_are_named_as_the_hub_names_them() -> None:
    rows = (0, 999, 1_000, 99_999, 100_000, 9_999_999, 10_000_000)
    names = ["n<1K", "n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M"]
    assert [size_category(each) for each in rows] == names


def test_a_summary_of_any_shape_becomes_lines() -> None:
    lines = readable(
        {
            "pairs": 1234,
            "longer_won_share": 0.5,
            "mean_margin_nats": 1.23456,
            "nothing": None,
            "sure": True,
            "by_method": {"letters": {"agreement_share": 0.25}, "hidden": 1},
            "reasons": ["a", "b"],
            "hidden": 2,
        },
        leaving_out=("hidden",),
    )
    assert lines == {
        "pairs": "1,234",
        "longer won share": "50.0%",
        "mean margin nats": "1.235",
        "sure": "yes",
        "by method: letters: agreement share": "25.0%",
        "reasons": "a, b",
    }
