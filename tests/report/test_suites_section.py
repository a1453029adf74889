"""Behaviour suites in the report: each fault with its twin, every model, too few rows said aloud, how good the judge is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cai.evaluation.judging import JudgeQuality
from cai.evaluation.wording import sentences
from cai.labels.shares import Share
from cai.records import SUITE_RESULTS
from cai.report import collect, render_report
from cai.store import RunFolder
from tests.report.packed import packed_rows
from tests.report.runs import build_started
from tests.report.suite_runs import add_suites, evaluated
from tests.report.test_page import HOSTILE, Page


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("suites")
    build_started(folder / "run", items=6)
    add_suites(folder / "run", [evaluated(folder)])
    return folder / "run"


def source_of(run: Path) -> str:
    with RunFolder.open(run, read_only=True) as folder:
        return render_report(collect(folder))


@pytest.fixture(scope="module")
def page(run: Path) -> str:
    return source_of(run)


def test_a_cure_that_overshoots_is_the_first_thing_that_is_said(page: str) -> None:
    text = Page(page).text
    assert "The fault fell, by 90 %; the control got worse: “denies what is true” by 90 points." in text
    assert text.index("agrees with what is false ↔ denies what is true") < text.index(
        "Every input row ends in exactly one way."
    )


def test_every_model_is_there_with_the_last_one_open(page: str) -> None:
    text = Page(page).text
    assert "Before: base. After: after." in text
    assert "1: base; 2: step 10; 3: step 20; 4: after" in text
    for label, shares in (("agrees with what is false", "100 % → 10 %"), ("denies what is true", "0 % → 90 %")):
        assert f"{label} {shares}" in text
    folds = re.findall(r'<summary><span class="mono">base</span> → <span class="mono">(.*?)</span></summary>', page)
    assert folds == ["step 20", "step 10"]
    assert "corrected for" in text
    assert "Benjamini and Hochberg, false discovery rate" in text


def test_what_the_command_line_says_in_sentences_stands_there_too(page: str, run: Path) -> None:
    text = Page(page).text
    with RunFolder.open(run, read_only=True) as folder:
        (result,) = collect(folder).suites
    assert all(" ".join(line.split()) in text for comparison in result.comparisons for line in sentences(comparison))
    assert "distance from the first model (KL)" in text
    assert "length of an answer" in text


def test_the_answers_of_all_models_to_a_prompt_stand_together(page: str) -> None:
    rows = packed_rows(page, "suite-answers")
    assert len(rows) == 3 * 40
    assert all(
        [heading for kind, heading, *_ in row.turns if kind == "sides"] == ["base", "step 10", "step 20", "after"]
        for row in rows
    )
    worse = [row for row in rows if row.facets["change"] == ["worse"]]
    assert len(worse) == 36
    assert {row.facets["section"][0] for row in worse} == {"denies"}


def test_few_prompts_unmeasured_figures_and_a_judge_like_a_coin_are_said_aloud(run: Path, tmp_path: Path) -> None:
    with RunFolder.open(run, read_only=True) as folder:
        (result,) = collect(folder).suites
    comparison = result.comparisons[-1]
    few = comparison.rows[0].model_copy(update={"clusters": 7})
    unsure = comparison.rows[1].model_copy(
        update={"difference_low": -0.1, "difference_high": 0.2, "p_corrected": 0.4, "clusters_needed": 300}
    )
    model = result.models[-1].model_copy(update={"unmeasured": {"KL": "it gives no log-probabilities"}, "failures": {"cut": 3}})
    judge = JudgeQuality(judge="a small one", principle="Be kind.", right=Share.of(5, 10), same_slot=Share.of(9, 10))
    changed = result.model_copy(
        update={
            "comparisons": (comparison.model_copy(update={"rows": (few, unsure)}),),
            "models": (*result.models[:-1], model),
            "judges": (judge,),
            "description": HOSTILE,
        }
    )
    build_started(tmp_path / "run", items=6)
    with RunFolder.open(tmp_path / "run") as folder:
        folder.put_measurements(SUITE_RESULTS, [changed])
    source = source_of(tmp_path / "run")
    text = Page(source).text
    for words in (
        "too few prompts to conclude from: 7, at least 20 are needed",
        "no change shown, and not enough rows to say there is none: about 300 would do",
        "Both behaviours had too few prompts to conclude from.",
        "KL is not measured: it gives no log-probabilities",
        "3 left out (cut)",
        "It is not shown to be better than a coin",
    ):
        assert words in text, words
    assert sum(tag == "script" and "type" not in attributes for tag, attributes in Page(source).tags) == 1
