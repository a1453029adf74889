"""Draft → critique → revise, with scripted answers for its logic and with a real model for its texts."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence

import pytest
from checkpoints import make_checkpoint
from hypothesis import given
from hypothesis import strategies as st

from cai.engines.base import GenerationRequest, GenerationResult, RequestFailure, SamplingParams
from cai.engines.immediate import ImmediateStream
from cai.engines.local import LocalEngine
from cai.engines.scripted import ScriptedEngine
from cai.loop import LoopEvent, LoopSettings, noise_key, run_loop, tidy_revision
from cai.models.loading import load_model
from cai.models.spec import ModelSpec
from cai.records import FailureRecord, Item, RevisionRecord, Verdict
from constitution.messages import assistant, system, user
from constitution.rendering import render_critique
from constitution.schema import Constitution, Demonstration, Principle

KIND = Principle(id="kind", principle="Be kind.", critique_request="Is it kind?", revision_request="Make it kind.")
BRIEF = Principle(id="brief", principle="Be brief.", critique_request="Is it brief?", revision_request="Make it brief.")
ONE = Constitution(name="one", principles=(KIND,))
TWO = Constitution(name="two", principles=(KIND, BRIEF))
SETTINGS = LoopSettings()


def make_items(count: int) -> list[Item]:
    return [Item(uid=f"i{n}", messages=(user(f"question {n}"),), facts={"n": n}, tags=("t",)) for n in range(count)]


def finished(records: Sequence[RevisionRecord | FailureRecord]) -> list[RevisionRecord]:
    assert all(isinstance(record, RevisionRecord) for record in records), records
    return [record for record in records if isinstance(record, RevisionRecord)]


def run(
    items: Sequence[Item],
    feedback: ScriptedEngine,
    settings: LoopSettings = SETTINGS,
    *,
    constitution: Constitution = ONE,
    policy: ScriptedEngine | None = None,
) -> list[RevisionRecord | FailureRecord]:
    return list(run_loop(items, constitution, policy or ScriptedEngine({"": " a draft\n"}), feedback, settings, seed=0))


def asked(engine: ScriptedEngine, stage: str) -> list[GenerationRequest]:
    return [r for r in engine.asked if isinstance(r, GenerationRequest) and f"/{stage}/" in r.noise_key]


# ---- one round


def test_a_fault_leads_to_a_revision_made_in_the_same_conversation() -> None:
    feedback = ScriptedEngine({"Is it kind?": " It is rude. Fault: it insults. ", "Make it kind.": "\na kind reply "})
    (record,) = finished(run(make_items(1), feedback))
    assert (record.draft, record.final, record.changed) == ("a draft", "a kind reply", True)
    (only,) = record.rounds
    assert (only.round, only.principle_id, only.verdict) == (0, "kind", Verdict.FAULT)
    assert (only.critique, only.revision) == ("It is rude. Fault: it insults.", "a kind reply")
    critique, revision = (asked(feedback, stage)[0].messages for stage in ("critique", "revision"))
    assert critique[:2] == (user("question 0"), assistant("a draft"))
    assert revision[:-2] == critique, "the prefix of the two requests is one"
    assert revision[-2] == assistant(only.critique)
    assert (record.facts, record.tags) == ({"n": 0}, ("t",))


def test_nothing_to_change_keeps_the_draft_and_asks_for_no_revision() -> None:
    feedback = ScriptedEngine({"Is it kind?": "It is kind. Nothing to change."})
    (record,) = finished(run(make_items(1), feedback))
    assert (record.final, record.changed) == ("a draft", False)
    assert record.rounds[0].verdict is Verdict.NOTHING_TO_CHANGE
    assert record.rounds[0].revision is None
    assert not asked(feedback, "revision")


def test_without_critiques_the_revision_is_asked_for_at_once() -> None:
    feedback = ScriptedEngine({"Make it kind.": "a kind reply"})
    (record,) = finished(run(make_items(1), feedback, LoopSettings(critique_free=True)))
    assert record.final == "a kind reply"
    assert record.rounds[0].critique == ""
    assert [len(request.messages) for request in asked(feedback, "revision")] == [3]
    assert not asked(feedback, "critique")


def test_an_empty_revision_keeps_the_text_before_it_and_says_so() -> None:
    feedback = ScriptedEngine({"Is it kind?": "Fault: rude.", "Make it kind.": 'Revision: " "'})
    (record,) = finished(run(make_items(1), feedback))
    assert (record.final, record.changed) == ("a draft", False)
    assert "empty revision" in record.rounds[0].note


def test_what_was_cut_is_marked() -> None:
    settings = LoopSettings(
        draft=SamplingParams(max_tokens=1),
        critique=SamplingParams(temperature=0, max_tokens=2),
        revision=SamplingParams(temperature=0, max_tokens=2),
    )
    feedback = ScriptedEngine({"Is it kind?": "Fault: rude and more", "Make it kind.": "a kind reply"})
    (record,) = finished(run(make_items(1), feedback, settings))
    assert (record.draft, record.draft_cut) == ("a", True)
    assert (record.rounds[0].critique_cut, record.rounds[0].revision_cut, record.final_cut) == (True, True, True)


@pytest.mark.parametrize(
    ("draft", "kept"),
    [
        ("Ask a friend. Then go", ("Ask a friend.", False, True)),
        ("no end in sight here", ("no end in sight here", True, False)),
    ],
)
def test_a_cut_draft_is_trimmed_to_its_whole_sentences_where_it_has_some(draft: str, kept: tuple[str, bool, bool]) -> None:
    settings = LoopSettings(draft=SamplingParams(max_tokens=5), trim_cut_drafts=True)
    policy, feedback = ScriptedEngine({"": draft + " on and on"}), ScriptedEngine({"": "Nothing to change."})
    (record,) = finished(run(make_items(1), feedback, settings, policy=policy))
    assert (record.draft, record.draft_cut, record.draft_trimmed) == kept
    assert asked(feedback, "critique")[0].messages == render_critique(KIND, record.messages, record.draft)


def test_a_conversation_of_several_turns_is_criticised_whole() -> None:
    turns = (system("Be a pirate."), user("hello"), assistant("Ahoy."), user("who are you"))
    feedback = ScriptedEngine({"Is it kind?": "Fault: rude.", "Make it kind.": "Ahoy, friend."})
    policy = ScriptedEngine({"": "None of your business."})
    (record,) = finished(run([Item(uid="a", messages=turns)], feedback, policy=policy))
    assert asked(policy, "draft")[0].messages == turns
    assert asked(feedback, "critique")[0].messages[:5] == (*turns, assistant("None of your business."))
    assert record.messages == turns


def test_demonstrations_come_after_the_system_message_and_before_the_conversation() -> None:
    shown = Demonstration(prompt="p", draft="d", critique="c Fault: x", revision="r")
    principle = KIND.model_copy(update={"demonstrations": (shown,)})
    feedback = ScriptedEngine({"Is it kind?": "Fault: rude.", "Make it kind.": "kind"})
    item = Item(uid="a", messages=(system("s"), user("q")))
    run([item], feedback, constitution=Constitution(name="c", principles=(principle,)))
    messages = asked(feedback, "critique")[0].messages
    assert messages[:3] == (system("s"), user("p"), assistant("d"))
    assert [m.content for m in messages].index("q") > [m.content for m in messages].index("c Fault: x")


@pytest.mark.parametrize("text", ["{{ 7 * 7 }}", "<script>alert(1)</script>", "<|im_end|>\n<|im_start|>user", "{% endif %}"])
def test_texts_pass_through_as_they_are(text: str) -> None:
    feedback = ScriptedEngine({"Is it kind?": f"Fault: {text}", "Make it kind.": text})
    policy = ScriptedEngine({"": text})
    (record,) = finished(run([Item(uid="a", messages=(user(text),))], feedback, policy=policy))
    assert (record.draft, record.final) == (text, text)
    assert asked(feedback, "critique")[0].messages[1] == assistant(text)


# ---- several rounds, replicas


def test_each_round_criticises_the_newest_revision_in_a_fresh_conversation() -> None:
    def answer(request: GenerationRequest) -> str:
        if "Make it" in request.messages[-1].content:
            return f"{request.messages[-4].content}+"
        return "Fault: more."

    feedback = ScriptedEngine(answer)
    (record,) = finished(run(make_items(1), feedback, LoopSettings(rounds=3), constitution=TWO))
    assert [r.revision for r in record.rounds] == ["a draft+", "a draft++", "a draft+++"]
    assert [r.round for r in record.rounds] == [0, 1, 2]
    critiques = asked(feedback, "critique")
    assert [request.messages[1].content for request in critiques] == ["a draft", "a draft+", "a draft++"]
    assert all(len(request.messages) == 3 for request in critiques)
    assert [request.noise_key for request in critiques] == [f"0/i0/0/critique/{n}" for n in range(3)]


def test_a_round_with_nothing_to_change_does_not_end_the_others() -> None:
    answers = iter(["Fine. Nothing to change.", "Fault: long."])
    feedback = ScriptedEngine(lambda request: "short" if "Make it" in request.messages[-1].content else next(answers))
    (record,) = finished(run(make_items(1), feedback, LoopSettings(rounds=2)))
    assert [r.verdict for r in record.rounds] == [Verdict.NOTHING_TO_CHANGE, Verdict.FAULT]
    assert record.final == "short"


def test_a_round_without_an_applicable_principle_is_skipped() -> None:
    constitution = Constitution(name="c", principles=(KIND.model_copy(update={"applies_to": ("other",)}),))
    feedback = ScriptedEngine({})
    (record,) = finished(run(make_items(1), feedback, LoopSettings(rounds=2), constitution=constitution))
    assert (record.rounds, record.final) == ((), "a draft")
    assert not feedback.asked


def test_without_repeats_each_principle_has_one_round_and_the_item_ends_when_all_had_theirs() -> None:
    feedback = ScriptedEngine({"": "Nothing to change."})
    settings = LoopSettings(rounds=4, repeat_principles=False)
    for record in finished(run(make_items(8), feedback, settings, constitution=TWO)):
        assert sorted(each.principle_id for each in record.rounds) == ["brief", "kind"]
    assert len(asked(feedback, "critique")) == 16


def test_replicas_are_threads_of_their_own() -> None:
    policy = ScriptedEngine(lambda request: f"draft of {request.noise_key}")
    feedback = ScriptedEngine({"": "Nothing to change."})
    records = finished(run(make_items(2), feedback, LoopSettings(replicas=3), policy=policy))
    assert [(r.uid, r.replica) for r in records] == [(f"i{i}", n) for i in range(2) for n in range(3)]
    assert [r.draft for r in records] == [f"draft of {noise_key(0, f'i{i}', n, 'draft')}" for i in range(2) for n in range(3)]


# ---- failures


@pytest.mark.parametrize("stage", ["draft", "critique", "revision"])
def test_a_failing_row_fails_alone_and_is_asked_no_more(stage: str) -> None:
    def unless(key: str, otherwise: str, request: GenerationRequest) -> str | RequestFailure:
        return RequestFailure("prompt_too_long", "9 tokens") if request.noise_key == key else otherwise

    key = f"0/i1/0/{stage}/0"
    policy = ScriptedEngine(lambda request: unless(key, "a draft", request))
    feedback = ScriptedEngine(
        lambda request: unless(key, "kind" if "Make it" in request.messages[-1].content else "Fault: rude.", request)
    )
    records = run(make_items(3), feedback, LoopSettings(rounds=2), policy=policy)
    assert [record.uid for record in records] == ["i0", "i1", "i2"]
    assert isinstance(failure := records[1], FailureRecord)
    assert (failure.stage, failure.cause, failure.detail) == (stage, "prompt_too_long", "9 tokens")
    assert len(finished([records[0], records[2]])) == 2
    later = [request for engine in (policy, feedback) for request in engine.asked if isinstance(request, GenerationRequest)]
    keys = [request.noise_key for request in later if "/i1/" in request.noise_key]
    assert keys[-1] == key


@pytest.mark.parametrize(("draft", "critique", "cause"), [("  ", "", "empty_draft"), ("a", " \n", "empty_critique")])
def test_an_empty_answer_is_a_failure(draft: str, critique: str, cause: str) -> None:
    (record,) = run(make_items(1), ScriptedEngine({"": critique}), policy=ScriptedEngine({"": draft}))
    assert isinstance(record, FailureRecord)
    assert record.cause == cause


# ---- batches and order


def test_progress_counts_every_call() -> None:
    events: list[LoopEvent] = []
    feedback = ScriptedEngine({"Is it kind?": "Fault: rude.", "Make it kind.": "kind"})
    settings = LoopSettings(chunk_items=2)
    list(run_loop(make_items(3), ONE, ScriptedEngine({"": "d"}), feedback, settings, seed=0, on_event=events.append))
    for stage in ("draft", "critique", "revision"):
        told = [event for event in events if event.stage == stage]
        assert [event.done for event in told] == [1, 2, 3]
        assert all(event.done <= event.total <= 3 for event in told)
        assert told[-1].total == 3
    assert [event.items_done for event in events] == sorted(event.items_done for event in events)


def test_a_critique_starts_when_its_own_draft_ends_and_not_the_last() -> None:
    """Both models answer in the order in which they are asked; the policy is the feedback model here."""
    engine = ScriptedEngine({"Is it kind?": "Fault: rude.", "Make it kind.": "kind", "": "d"})
    settings = LoopSettings(chunk_items=2)
    records = list(run_loop(make_items(4), ONE, engine, engine, settings, seed=0))
    assert [record.uid for record in records] == ["i0", "i1", "i2", "i3"]
    stages = [request.noise_key.split("/")[-2] for request in engine.asked if isinstance(request, GenerationRequest)]
    assert stages.index("revision") < max(place for place, stage in enumerate(stages) if stage == "draft")


class Steady(ScriptedEngine):
    """A policy whose answers come one by one, closer together than anybody's patience, as those of a busy server."""

    def stream(self) -> ImmediateStream:
        return ServedStream(self.answered)


class Slow(ScriptedEngine):
    """One that takes its time, in this process."""

    def stream(self) -> ImmediateStream:
        return SteadyStream(self.answered)


class SteadyStream(ImmediateStream):
    def results(self, patience_s: float | None = None) -> Iterator[tuple[int, GenerationResult]]:
        for answer in super().results(patience_s):
            time.sleep(0.02)
            yield answer


class ServedStream(SteadyStream):
    @property
    def works_unread(self) -> bool:
        return True


def test_a_model_whose_answers_keep_coming_does_not_keep_the_other_s_waiting() -> None:
    """All drafts used to be read before the first critique, which had been there, unread and so on no disk, for seconds."""
    events: list[str] = []
    records = run_loop(
        make_items(60),
        ONE,
        Steady({"": "a draft"}),
        ScriptedEngine({"Is it kind?": "Nothing to change."}),
        SETTINGS,
        seed=0,
        on_event=lambda event: events.append(event.stage),
    )
    assert len(list(records)) == 60
    assert events.index("critique") < 40
    assert events.count("draft") == events.count("critique") == 60


def test_what_two_models_of_one_process_are_asked_and_when_does_not_depend_on_how_fast_they_are() -> None:
    """Batches would, and with them in bfloat16 the texts."""

    def course(policy: ScriptedEngine) -> list[tuple[str, int]]:
        feedback = ScriptedEngine({"Is it kind?": "Fault: rude.", "Make it kind.": "kind"})
        events: list[tuple[str, int]] = []
        settings = LoopSettings(chunk_items=40)
        told = run_loop(
            make_items(60),
            ONE,
            policy,
            feedback,
            settings,
            seed=0,
            on_event=lambda event: events.append((event.stage, event.done)),
        )
        assert len(list(told)) == 60
        return events

    assert course(Slow({"": "a draft"})) == course(ScriptedEngine({"": "a draft"}))


def test_items_are_read_as_they_are_needed() -> None:
    read: list[str] = []

    def items() -> Iterator[Item]:
        for item in make_items(6):
            read.append(item.uid)
            yield item

    feedback = ScriptedEngine({"": "Nothing to change."})
    records = run_loop(items(), ONE, ScriptedEngine({"": "d"}), feedback, LoopSettings(chunk_items=2), seed=0)
    next(records)
    assert read == ["i0", "i1"]


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> LocalEngine:
    folder = make_checkpoint(tmp_path_factory.mktemp("model"))
    return LocalEngine(load_model(ModelSpec(name=str(folder), device="cpu", dtype="float32")))


def test_texts_of_a_real_model_depend_on_neither_chunks_nor_order(local: LocalEngine) -> None:
    short = SamplingParams(max_tokens=8)
    settings = LoopSettings(rounds=2, replicas=2, draft=short, critique=short, revision=short)
    items = [*make_items(5), Item(uid="turns", messages=(user("a"), assistant("b"), user("c")))]

    def texts(order: list[Item], chunk: int) -> dict[tuple[str, int], RevisionRecord | FailureRecord]:
        changed = settings.model_copy(update={"chunk_items": chunk})
        records = run_loop(order, TWO, local, local, changed, seed=3)
        return {(record.uid, record.replica): record for record in records}

    straight = texts(items, 512)
    shuffled = items[:]
    random.Random(1).shuffle(shuffled)
    assert texts(shuffled, 3) == straight
    assert len(straight) == 12
    drafts = {r.draft for r in straight.values() if isinstance(r, RevisionRecord)}
    assert len(drafts) > 6, "replicas and items have noise of their own"
    assert any(isinstance(r, RevisionRecord) and r.changed for r in straight.values())


def test_a_prompt_longer_than_the_context_fails_alone(local: LocalEngine) -> None:
    short = SamplingParams(max_tokens=4)
    items = [make_items(1)[0], Item(uid="long", messages=(user("word " * 100_000),))]
    settings = LoopSettings(draft=short, critique=short, revision=short)
    records = list(run_loop(items, ONE, local, local, settings, seed=0))
    assert isinstance(records[0], RevisionRecord)
    assert isinstance(records[1], FailureRecord)
    assert records[1].cause == "prompt_too_long"


# ---- tidying


@pytest.mark.parametrize(
    ("text", "tidied"),
    [
        ("Revision: Paris.", "Paris."),
        ("  REVISED REPLY :\n\nParis.", "Paris."),
        ('"Paris."', "Paris."),
        ("Reply: “Paris.”", "Paris."),
        ('"Paris" is right, not "Rome"', '"Paris" is right, not "Rome"'),
        ('He said "Paris".', 'He said "Paris".'),
        ("The answer: Paris.", "The answer: Paris."),
        ("Replying to you: no.", "Replying to you: no."),
        ('""', '""'),
        ("Answer: answer: 4", "answer: 4"),
    ],
)
def test_labels_and_quotes_around_the_whole_are_taken_off(text: str, tidied: str) -> None:
    revision, note = tidy_revision(text)
    assert revision == tidied
    assert (note != "") == (tidied != text.strip())


@pytest.mark.parametrize("text", ["", " \n", "Revision:", 'Reply: "  "'])
def test_nothing_left_is_no_revision(text: str) -> None:
    revision, note = tidy_revision(text)
    assert revision is None
    assert "empty" in note


@given(st.text(alphabet=st.sampled_from('ab:" \n“”«»RevisonplyAw'), max_size=40))
def test_tidying_only_takes_from_the_ends(text: str) -> None:
    revision, note = tidy_revision(text)
    if revision is None:
        return
    assert revision
    assert revision == revision.strip()
    assert revision in text
    assert note or revision == text.strip()


@given(st.text(max_size=30).filter(lambda text: text.strip() and not set(text) & set('"“”«»:')))
def test_a_plain_reply_is_left_alone(text: str) -> None:
    assert tidy_revision(text) == (text.strip(), "")
    assert tidy_revision(f"Revision: {text}")[0] == text.strip()
    assert tidy_revision(f'"{text}"')[0] == text.strip()
