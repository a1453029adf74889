"""The page says what came out, what is missing, and what made no difference; nothing of whose machine it was."""

from __future__ import annotations

from pathlib import Path

import pytest
from comparison_entries import entry
from lab_cells import answered

from cai.lab.comparison.comparison_page import comparison_page
from cai.lab.comparison.entries import Entry, EntryResult, write_entry
from cai.lab.comparison.methods import METHODS, chosen_methods
from cai.lab.comparison.rounds import Comparison, plan
from cai.lab.comparison.setup import ContestSetup
from cai.lab.study.recipes import Size
from cai.lab.study.setup import Setup
from cai.models.spec import ModelSpec
from cai.pipeline.comparing import write_comparison


def comparison(
    folder: Path, *results: EntryResult, methods: tuple[str, ...] = ("sl_cai",), seeds: tuple[int, ...] = (0, 1)
) -> Comparison:
    made = Comparison(folder, chosen_methods(methods), seeds, Size(8, 1), ContestSetup(), "setup")
    for result in results:
        write_entry(folder, Entry(result.method, result.seed).key(made.size, "setup"), result)
    return made


def answers(mended: int, of: int = 40):
    faults = (answered(f"f{n}", "wrong", "bad", "good" if n < mended else "bad") for n in range(of))
    return (*faults, *(answered(f"c{n}", "benign", "good", "good") for n in range(of)))


def test_each_method_is_compared_with_the_plain_model_and_with_dpo(tmp_path: Path) -> None:
    entries = [entry("dpo", seed, answers(20)) for seed in (0, 1)] + [entry("sl_cai", seed, answers(2)) for seed in (0, 1)]
    page = comparison_page(comparison(tmp_path, *entries), "cai lab compare", None)
    assert "- **DPO**, against the plain model: fewer faults (−50 [" in page
    assert "- **SL-CAI**, against the plain model: " in page
    assert "  - Against DPO: more faults (+45 [" in page
    assert "no difference shown in bad controls (+0 [+0, +0] points)" in page
    assert "| the plain model | 2 | 100% |" in page
    assert "| **DPO** | 2 | 50% | −50 [" in page


def test_cost_is_told_as_a_share_of_what_dpo_took(tmp_path: Path) -> None:
    entries = (entry("dpo", 0, answers(1)), entry("sl_cai", 0, answers(1), budget=4000.0))
    page = comparison_page(comparison(tmp_path, *entries, seeds=(0,)), "cai lab compare", None)
    assert "| DPO | 8 | 6 | 3 | 1.0 | 0.5 | 0.5 | 0.5 | sets it: 3 | 60 s | 30 s |" in page
    assert "| SL-CAI | 8 | 6 | 3 | 1.0 | 0.5 | 0.5 | 0.5 | 75% | 60 s | 30 s |" in page


def test_a_page_of_a_comparison_cut_off_says_what_is_missing(tmp_path: Path) -> None:
    page = comparison_page(comparison(tmp_path, entry("dpo", 0, answers(20))), "cai lab compare", None)
    assert "**3 of 4 entries are missing**" in page
    assert "- **SL-CAI**: not finished." in page
    assert "- **DPO** (1 of 2 seeds), against the plain model" in page
    nothing = comparison_page(comparison(tmp_path / "empty"), "cai lab compare", None)
    assert "**4 of 4 entries are missing**" in nothing


def test_a_method_that_came_to_no_model_says_why(tmp_path: Path) -> None:
    failed = entry("sl_cai", 0, failure="there is no row\nto train on")
    page = comparison_page(comparison(tmp_path, failed, entry("dpo", 0, answers(20)), seeds=(0,)), "cai lab compare", None)
    assert "- **SL-CAI**: came to no model (seed 0: there is no row to train on)." in page
    assert "| SL-CAI | 0 | no model: seed 0: there is no row to train on |" in page


def test_rows_that_came_to_nothing_are_told_by_reason(tmp_path: Path) -> None:
    entries = (entry("dpo", 0, answers(1), lost={"filter cut_short": 3}), entry("sl_cai", 0, answers(1)))
    page = comparison_page(comparison(tmp_path, *entries, seeds=(0,)), "cai lab compare", None)
    assert "filter cut_short 1.5." in page


def test_a_damaged_entry_counts_as_not_done(tmp_path: Path) -> None:
    made = comparison(tmp_path, entry("dpo", 0, answers(20)))
    (file,) = (tmp_path / "entries").iterdir()
    file.write_bytes(file.read_bytes()[:100])
    assert made.results() == []
    assert not any(each.done for each in plan(made))


def test_dpo_comes_first_in_the_order_of_work_and_is_always_there(tmp_path: Path) -> None:
    every = comparison(tmp_path, methods=tuple(method.id for method in METHODS), seeds=(3, 4))
    assert [(each.method, each.seed) for each in every.entries[:3]] == [("dpo", 3), ("dpo", 4), ("best_of", 3)]
    assert len(every.entries) == 2 * len(METHODS)
    assert [method.id for method in chosen_methods(["rloo"])] == ["dpo", "rloo"]
    with pytest.raises(ValueError, match="no method is called ppo"):
        chosen_methods(["rloo", "ppo"])


def test_the_plan_foretells_from_the_same_method_or_else_from_all(tmp_path: Path) -> None:
    done = (entry("dpo", 0, answers(1), seconds=100.0), entry("dpo", 1, answers(1), seconds=50.0))
    planned = plan(comparison(tmp_path, *done, entry("sl_cai", 0, answers(1), seconds=30.0), seeds=(0, 1, 2)))
    assert [(each.work.method, each.seconds, each.done) for each in planned] == [
        ("dpo", 100.0, True),
        ("dpo", 50.0, True),
        ("dpo", 75.0, False),
        ("sl_cai", 30.0, True),
        ("sl_cai", 30.0, False),
        ("sl_cai", 30.0, False),
    ]


def test_page_and_picture_are_written_together_and_name_no_folder(tmp_path: Path) -> None:
    folder = tmp_path / "secret" / "model"
    folder.mkdir(parents=True)
    spec = ModelSpec(name=str(folder))
    made = comparison(tmp_path, entry("dpo", 0, answers(20)), entry("sl_cai", 0, answers(2)))
    setup = ContestSetup(study=Setup(plain=spec, feedback=spec))
    own = Comparison(made.folder, made.methods, made.seeds, made.size, setup, made.fingerprint)
    write_comparison(own, "cai lab compare", tmp_path / "page" / "COMPARISON.md")
    page = (tmp_path / "page" / "COMPARISON.md").read_text()
    assert "(figures/methods.svg)" in page
    assert "<svg" in (tmp_path / "page" / "figures" / "methods.svg").read_text()
    assert "secret" not in page
