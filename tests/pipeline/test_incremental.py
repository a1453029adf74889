"""A run again after an edit makes only what the edit touched, as planned, and comes to what a fresh run comes to."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from checkpoints import make_checkpoint
from edited_runs import PRINCIPLES, Case, Place, files_of
from hypothesis import given, settings
from hypothesis import strategies as st
from whole_runs import output_files

from cai.config import read_config
from cai.pipeline import open_session, read_inputs, run
from cai.records import RecordKind, RevisionRecord, Stage
from cai.store import RunFolder

BASE = Case()
NEW = {"id": "calm", "principle": "Stay calm and plain.", "weight": 1.5}
EDITS: dict[str, Case] = {
    "text": BASE.with_principle(0, principle="Be as brief as you can."),
    "added": Case(principles=(*PRINCIPLES, NEW)),
    "removed": Case(principles=PRINCIPLES[1:]),
    "weight": BASE.with_principle(2, weight=3.0),
    "more prompts": Case(prompts=("A new first prompt?", *BASE.prompts, "And a last one?")),
    "fewer prompts": Case(prompts=BASE.prompts[2:-3]),
    "other order of prompts": Case(prompts=BASE.prompts[::-1]),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Place:
    place = Place(tmp_path_factory.mktemp("finished") / "base", model)
    place.do(BASE)
    return place


@pytest.mark.parametrize("edit", EDITS)
def test_a_run_after_an_edit_equals_a_fresh_one_and_its_plan(tmp_path: Path, model: Path, finished: Place, edit: str) -> None:
    again, fresh, edited = finished.copy(tmp_path / "again"), Place(tmp_path / "fresh", model), EDITS[edit]
    planned = {each.name: each for each in again.plan(edited).calls}
    before = again.calls()
    again.do(edited)
    fresh.do(edited)
    assert again.outcome() == fresh.outcome()
    made = {stage: calls - before.get(stage, 0) for stage, calls in again.calls().items()}
    known = ("draft",) if "prompts" in edit else ("draft", "critique")
    for stage in known:  # they hang on no answer that is not there
        assert made[stage] == planned[stage].certain == planned[stage].calls
    for stage, count in made.items():
        assert planned[stage].certain <= count
        assert planned[stage].calls == pytest.approx(count, abs=4, rel=0.4)
    fresh_calls = fresh.calls()
    if edit == "other order of prompts":
        assert not any(made.values())
    else:
        assert sum(made.values()) < sum(fresh_calls.values())
    assert again.plan(edited).nothing_to_do


def test_only_rows_that_use_the_edited_principle_are_planned_with_the_field_that_changed(finished: Place) -> None:
    found = finished.plan(EDITS["text"])
    with RunFolder.open(finished.run, read_only=True) as folder:
        used = {r.uid for r in folder.records(RecordKind.REVISION, RevisionRecord) if r.rounds[0].principle_id == "brief"}
    assert {row.uid for row in found.rows} == used
    assert 0 < len(used) < found.all_rows
    assert {(row.stage, row.why) for row in found.rows} == {("critique", "brief: principle changed")}
    (change,) = found.changes
    assert (change.kind, change.name, change.what, change.rows) == ("principle", "brief", ("principle",), len(used))


def test_a_plan_names_what_was_added_removed_drawn_otherwise_and_set(finished: Place) -> None:
    added = finished.plan(EDITS["added"])
    assert [(c.name, c.what) for c in added.changes] == [("calm", ("added",))]
    assert {row.why for row in added.rows} <= {f"draws calm instead of {each['id']}" for each in PRINCIPLES}
    removed = finished.plan(EDITS["removed"])
    assert [(c.name, c.what) for c in removed.changes] == [("brief", ("removed",))]
    assert {row.why.split()[-1] for row in removed.rows} == {"brief"}
    prompts = finished.plan(EDITS["more prompts"])
    assert [(c.kind, c.name, c.what) for c in prompts.changes] == [("prompts", "added", ("2 of 20",))]
    hotter = finished.plan(Case(settings={"loop": {"draft": {"max_tokens": 11}, "critique": {"max_tokens": 12}}}))
    changed = {change.name: change.what for change in hotter.changes}
    assert changed["loop.draft.max_tokens"] == ("12 → 11",)
    assert {row.stage for row in hotter.rows} == {"draft"}


@pytest.mark.parametrize(
    "edit", [{"rationale": "Nobody reads long replies."}, {"tests": [{"prompt": "a", "better": "b", "worse": "c"}]}]
)
def test_an_edited_rationale_or_test_leaves_nothing_to_do_and_nothing_is_done(
    tmp_path: Path, finished: Place, edit: dict[str, Any]
) -> None:
    again, edited = finished.copy(tmp_path / "again"), BASE.with_principle(0, **edit)
    found = again.plan(edited)
    assert found.nothing_to_do
    assert not found.rows
    assert [(c.name, c.what) for c in found.changes] == [("brief", tuple(edit))]
    calls, data = again.calls(), files_of(again.run / "datasets")
    again.do(edited)
    assert again.calls() == calls
    assert files_of(again.run / "datasets") == data
    with RunFolder.open(again.run, read_only=True) as folder:
        described = folder.manifest["constitution"]["principles"][0]
    assert all(described[name] == value for name, value in edit.items())


def test_another_name_of_the_constitution_is_written_into_the_card(tmp_path: Path, model: Path, finished: Place) -> None:
    again, fresh = finished.copy(tmp_path / "again"), Place(tmp_path / "fresh", model)
    for place in (again, fresh):
        place.inputs(BASE)
        file = place.folder / "mine.yaml"
        file.write_text(file.read_text().replace("name: mine", "name: ours"))
        with open_session(read_inputs(read_config(place.folder / "run.yaml", (), {}).config)) as session:
            run(session, until=Stage.EXPORT)
    assert again.outcome() == fresh.outcome()
    assert b"ours" in (again.run / "datasets" / "README.md").read_bytes()


def test_a_plan_changes_no_byte_makes_no_folder_and_reads_no_weights(
    tmp_path: Path, model: Path, finished: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a plan reads no weights")

    monkeypatch.setattr("cai.models.loading.load_weights", refuse)
    before = files_of(finished.run)
    finished.plan(EDITS["text"])
    assert files_of(finished.run) == before
    new = Place(tmp_path / "new", model).plan(BASE)
    assert not (tmp_path / "new" / "run").exists()
    assert not new.begun
    assert {row.why for row in new.rows} == {"new run"}
    assert all(each.reused == 0 and (each.seconds is None or not each.calls) for each in new.calls)
    assert next(each for each in new.calls if each.name == "draft").most_new_tokens > 0


def test_a_plan_works_beside_a_process_that_holds_the_run(tmp_path: Path, finished: Place) -> None:
    again = finished.copy(tmp_path / "again")
    with RunFolder.open(again.run):
        assert len(again.plan(EDITS["text"]).rows) == len(finished.plan(EDITS["text"]).rows)


def test_what_an_interrupted_run_lacks_is_planned_as_not_finished(tmp_path: Path, model: Path) -> None:
    place = Place(tmp_path / "run", model)
    place.do(BASE, until=Stage.GENERATE)
    found = place.plan(BASE)
    assert [(each.stage, each.state) for each in found.stages] == [
        (Stage.GENERATE, "finished"),
        (Stage.LABEL, "to do"),
        (Stage.EXPORT, "to do"),
    ]
    assert {row.why for row in found.rows} == {"not finished yet"}


def test_a_whole_run_with_training_and_evaluation_equals_a_fresh_one(tmp_path: Path, model: Path) -> None:
    training = {"epochs": 1, "batch_pairs": 4, "learning_rate": 1e-3, "lora": {"r": 4, "alpha": 8}}
    whole = Case(settings={"dpo": training})
    again, fresh = Place(tmp_path / "again", model), Place(tmp_path / "fresh", model)
    again.do(whole, until=Stage.EVALUATE)
    assert again.plan(whole, until=Stage.EVALUATE).nothing_to_do
    prose = whole.with_principle(0, rationale="Other words.")
    assert again.plan(prose, until=Stage.EVALUATE).nothing_to_do
    edited = Case(principles=EDITS["text"].principles, settings=whole.settings)
    found = again.plan(edited, until=Stage.EVALUATE)
    states = {each.stage: each for each in found.stages}
    assert states[Stage.DPO].state == states[Stage.EVALUATE].state == "to do"
    assert states[Stage.DPO].seconds is not None
    assert found.seconds is not None
    again.do(edited, until=Stage.EVALUATE)
    fresh.do(edited, until=Stage.EVALUATE)
    assert again.outcome() == fresh.outcome()
    assert output_files(again.run) == output_files(fresh.run)
    # A weight that moves no draw trains nothing: the pairs are the same.
    lighter = Case(principles=edited.with_principle(0, weight=2.0000001).principles, settings=whole.settings)
    plan = again.plan(lighter, until=Stage.EVALUATE)
    assert {each.stage: each.state for each in plan.stages}[Stage.DPO] == "finished"
    assert not plan.rows


# ---- any edits

_TEXTS = ("Be brief.", "Say why.", "Be kind to all.", "Do not guess.", "Name the fact first.")
_PRINCIPLE = st.fixed_dictionaries(
    {"principle": st.sampled_from(_TEXTS), "weight": st.sampled_from([0.5, 1.0, 3.0])},
    optional={"applies_to": st.sampled_from([["claims"], ["other"]]), "rationale": st.sampled_from(["a", "b"])},
)
_CASES = st.builds(
    lambda principles, prompts, labels, rounds: Case(
        principles=tuple({"id": name, **each} for name, each in principles.items()),
        prompts=tuple(prompts),
        settings={
            "labels": labels,
            "loop": {"rounds": rounds, "draft": {"max_tokens": 10}, "critique": {"temperature": 0.0, "max_tokens": 10}},
        },
    ),
    st.dictionaries(st.sampled_from(["one", "two", "three", "four"]), _PRINCIPLE, min_size=1),
    st.lists(st.sampled_from(BASE.prompts), min_size=4, max_size=9),
    st.sampled_from(
        [
            {"ground_tokens": 6, "min_margin_nats": 0.0},
            {"ground_tokens": 6, "min_margin_nats": 0.0, "principles": "applicable"},
            {"method": "letters", "min_margin_nats": 0.0, "principles": "applicable"},
        ]
    ),
    st.integers(1, 2),
)


def _edited_again_and_again(cases: list[Case], model: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        again = Place(Path(folder) / "again", model)
        for case in cases:
            again.do(case)
        fresh = Place(Path(folder) / "fresh", model)
        fresh.do(cases[-1])
        assert again.outcome() == fresh.outcome()


@settings(max_examples=3, derandomize=True)
@given(cases=st.lists(_CASES, min_size=2, max_size=2))
def test_after_any_edits_a_run_equals_a_fresh_one(model: Path, cases: list[Case]) -> None:
    _edited_again_and_again(cases, model)


@pytest.mark.slow
@settings(max_examples=25)
@given(cases=st.lists(_CASES, min_size=2, max_size=4))
def test_after_many_more_edits_a_run_equals_a_fresh_one(model: Path, cases: list[Case]) -> None:
    _edited_again_and_again(cases, model)
