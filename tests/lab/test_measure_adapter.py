"""The measurement, with critics of known quality: one that knows the truth, one never content, one always content."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cai.engines.base import GenerationRequest, ScoreRequest
from cai.engines.local import LocalEngine
from cai.engines.scripted import ScriptedEngine
from cai.lab.measure_adapter import MEASURES, Measurement, measure
from cai.lab.probes import PROBE_SETS, TITLES, Probe, ProbeSet, draw_probes, shipped_drafts
from cai.lab.rules import HELD_OUT, KINDS
from cai.lab.wordings import MAIN_KINDS, Wordings
from cai.lab.world import World
from cai.models.loading import open_model
from cai.models.resolving import cached_embedded, shipped_adapter
from cai.models.spec import ModelSpec
from cai.statistics import wilson_interval
from constitution.messages import Conversation

DRAFTS = shipped_drafts()


def measured(probes: list[Probe], judge: ScriptedEngine) -> Measurement:
    cells = measure(probes, judge).cells()
    return Measurement(model="scripted", fingerprint="", n=len(probes), seed=0, seconds=0.0, cells=cells)


def shares(result: Measurement, probe_set: ProbeSet) -> dict[str, float | None]:
    found = {name: result.count(name, probe_set=probe_set) for name in MEASURES}
    return {name: right / n if n else None for name, (right, n) in found.items()}


def judge_of(probes: list[Probe], finds_fault: Callable[[bool], bool]) -> ScriptedEngine:
    """A feedback model that sees whether a reply is bad under its principle, and answers as `finds_fault` says."""
    bad = {(probe.item.prompt, probe.bad.text, probe.principle.principle): probe for probe in probes}

    def faulty(messages: Conversation) -> Probe | None:
        prompt = next(message.content for message in messages if message.role == "user")
        reply = next(message.content for message in messages if message.role == "assistant")
        request = next(message.content for message in messages if "\nPrinciple: " in message.content)
        return next((each for (p, r, text), each in bad.items() if (p, r) == (prompt, reply) and text in request), None)

    def answer(request: GenerationRequest) -> str:
        found = faulty(request.messages)
        if request.messages[-1].content.endswith("Write only the new reply."):
            assert found is not None
            return found.good.text
        return "It asks a lot. Fault: mend it." if finds_fault(found is not None) else "It asks a lot. Nothing to change."

    def scores(request: ScoreRequest) -> tuple[float, ...]:
        if len(request.continuations) == 2:  # the two verdicts
            return (-5.0, -0.1) if finds_fault(faulty(request.messages) is not None) else (-0.1, -5.0)
        text = request.messages[-1].content
        first = text.split("Reply A:\n")[1].split("\n\nReply B:")[0]
        a_is_bad = first in {probe.bad.text for probe in probes} - {probe.good.text for probe in probes}
        return (-5.0, -6.0, -0.1, -6.0) if finds_fault(a_is_bad) else (-0.1, -6.0, -5.0, -6.0)

    return ScriptedEngine(answer, scores)


@pytest.mark.parametrize("probe_set", PROBE_SETS)
def test_a_critic_that_knows_the_truth_is_right_in_every_cell(probe_set: ProbeSet) -> None:
    probes = draw_probes(probe_set, 14, DRAFTS, seed=1)
    result = shares(measured(probes, judge_of(probes, lambda is_bad: is_bad)), probe_set)
    assert result == dict.fromkeys(MEASURES, 1.0)


def test_a_critic_that_is_never_content_finds_all_flaws_and_keeps_nothing() -> None:
    probes = draw_probes("shipped", 8, DRAFTS, seed=1)
    unrelated_only = ScriptedEngine(
        {"Write only the new reply.": "No.", "": "Fault: all."}, lambda request: [-1.0] * len(request.continuations)
    )
    result = shares(measured(probes, unrelated_only), "shipped")
    assert result["flaw found"] == 1.0
    assert result["good kept"] == result["unrelated kept"] == 0.0
    assert result["pointwise right"] == result["letters right"] == 0.0, "a tie is not right"
    assert result["revision good"] is not None
    assert result["revision good"] < 0.5


def test_a_critic_that_is_always_content_finds_no_flaw_and_writes_no_revision() -> None:
    probes = draw_probes("wordings", 8, DRAFTS, seed=1)
    result = shares(measured(probes, judge_of(probes, lambda _: False)), "wordings")
    assert result["good kept"] == result["unrelated kept"] == 1.0
    assert result["flaw found"] == 0.0
    assert result["revision good"] is None


def test_probes_hold_out_what_their_set_says() -> None:
    world = World.load()
    held = {wording.principle for kind in MAIN_KINDS for wording in Wordings.load().held_out(kind)}
    drawn = {probe_set: draw_probes(probe_set, 16, DRAFTS, seed=2) for probe_set in PROBE_SETS}
    for probe_set, probes in drawn.items():
        assert all(probe.item.split == "test" for probe in probes)
        assert {world.held_out(probe.item) for probe in probes} == {probe_set == "topics"}
        assert {probe.principle.principle in held for probe in probes} == {probe_set == "wordings"}
    assert {probe.group for probe in drawn["new rules"]}.isdisjoint(probe.group for probe in drawn["taught rules"])
    assert any(probe.bad.real for probe in drawn["shipped"])
    assert any(probe.good.real for probe in drawn["shipped"])


def test_good_and_bad_side_of_a_probe_are_what_they_are_called() -> None:
    for probe_set in PROBE_SETS:
        for probe in draw_probes(probe_set, 16, DRAFTS, seed=3):
            assert probe.mended(probe.good.text)
            assert not probe.mended(probe.bad.text)


def test_same_seed_same_probes() -> None:
    assert draw_probes("topics", 8, DRAFTS, seed=4) == draw_probes("topics", 8, DRAFTS, seed=4)
    assert draw_probes("topics", 8, DRAFTS, seed=4) != draw_probes("topics", 8, DRAFTS, seed=5)


def test_table_names_every_measured_set_with_intervals() -> None:
    probes = draw_probes("shipped", 8, DRAFTS, seed=1)
    table = measured(probes, judge_of(probes, lambda is_bad: is_bad)).table()
    assert "shipped principles, held-out words and facts" in table
    assert "100.0% [68%, 100%] n=8" in table
    assert "wordings never seen" not in table


def test_shipped_drafts_are_real_and_held_out() -> None:
    assert len(DRAFTS) >= 1000
    assert {draft.item.split for draft in DRAFTS} == {"test"}


def committed() -> Measurement:
    return Measurement.model_validate_json((shipped_adapter() / "measured.json").read_text(encoding="utf-8"))


def test_the_committed_table_covers_every_set_with_a_hundred_probes() -> None:
    table = committed()
    for probe_set in PROBE_SETS:
        for name in MEASURES:
            if name != "revision good":  # only of the flaws that were found
                assert table.count(name, probe_set=probe_set)[1] >= 100


@pytest.mark.slow
def test_a_sample_measured_again_agrees_with_the_committed_table() -> None:
    if cached_embedded() is None:
        pytest.skip("the embedded model is not here")
    engine = LocalEngine(open_model(ModelSpec(name="smollm2-135m", adapter="feedback")))
    probes = draw_probes("shipped", 16, DRAFTS, seed=committed().seed)
    sample = Measurement(model="", fingerprint="", n=16, seed=0, seconds=0.0, cells=measure(probes, engine).cells())
    for name in MEASURES:
        before = wilson_interval(*committed().count(name, probe_set="shipped"))
        now = wilson_interval(*sample.count(name, probe_set="shipped"))
        assert now.low <= before.high, name
        assert before.low <= now.high, name


@pytest.mark.parametrize("page", ["README.md", "cai/lab/README.md"])
def test_the_figures_in_the_manual_are_the_measured_ones(page: str) -> None:
    """The kinds of rules, which a page counts, stand under what the lessons have today."""
    table, written = committed(), (Path(__file__).parents[2] / page).read_text(encoding="utf-8").splitlines()
    titles: dict[ProbeSet, str] = {
        **TITLES,
        "taught rules": f"{len(KINDS) - len(HELD_OUT)} kinds of rules that were taught",
        "new rules": "kinds of rules never taught",
    }
    for probe_set, title in titles.items():
        counts = [table.count(measure, probe_set=probe_set) for measure in MEASURES]
        cells = [
            f"{100 * right / n:.0f} % [{100 * wilson_interval(right, n).low:.0f}, {100 * wilson_interval(right, n).high:.0f}]"
            for right, n in counts
        ]
        assert f"| {title} | {' | '.join(cells)} |" in written
