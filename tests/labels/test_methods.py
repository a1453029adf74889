"""Methods of labelling beyond the first two, and judges that cannot judge."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from candidate_answers import BOTH, BRIEF, KIND, TALK, settings, two
from checkpoints import CORPUS, make_checkpoint, make_tokenizer
from pydantic import ValidationError

from cai.engines.base import GenerationRequest, RequestFailure, ScoreRequest
from cai.engines.local import LocalEngine
from cai.engines.scripted import ScriptedEngine
from cai.errors import EngineError
from cai.labels import (
    AnswerScore,
    Compared,
    Judged,
    LabelSettings,
    LetterMargins,
    Reasoning,
    check_labeller,
    compare,
    label_candidates,
    score_answers,
)
from cai.models.loading import load_model
from cai.models.spec import ModelSpec
from cai.records import Method, Outcome
from constitution.messages import assistant
from constitution.rendering import COMPARISON_PREFIX, render_contrast, render_yes_no

# ---- yes or no


def test_yes_and_no_are_summed_over_their_spellings() -> None:
    """P(Yes) = 0.3 + 0.1, P(No) = 0.1 + 0.1 for the first reply, even for the second: log-odds log 2, 0.4 and 0.6 outside."""

    def score(request: ScoreRequest) -> tuple[float, ...]:
        assert request.continuations == ("Yes", " Yes", "No", " No")
        good = assistant("good") in request.messages
        return tuple(math.log(p) for p in ((0.3, 0.1, 0.1, 0.1) if good else (0.1, 0.1, 0.1, 0.1)))

    engine = ScriptedEngine({}, score)
    good, bad = score_answers(engine, [Judged(TALK, r, KIND, "k") for r in ("good", "bad")], settings("yes_no"))
    assert isinstance(good, AnswerScore)
    assert isinstance(bad, AnswerScore)
    assert (good.nats, good.mass_outside) == pytest.approx((math.log(2), 0.4))
    assert (bad.nats, bad.mass_outside) == pytest.approx((0.0, 0.6))
    assert engine.asked[0].messages == render_yes_no(KIND, TALK, "good")
    (made,) = label_candidates([two("good", "bad")], [engine], settings("yes_no"), seed=0)
    assert made.pairs == ()
    assert (made.entry.outcome, made.entry.reason) == (Outcome.KEPT, "undecided: the judge answers with other words")
    (made,) = label_candidates([two("good", "bad")], [engine], settings("yes_no", max_mass_outside=0.6), seed=0)
    assert made.pairs[0].p_chosen == pytest.approx(2 / 3)


# ---- contrast


@pytest.mark.parametrize("against", ["none", "opposite"])
def test_contrast_is_the_ratio_of_an_answers_probabilities(against: str) -> None:
    """The principle makes `kind words` e³ times as likely, and `rude words` e⁻¹ times: a margin of 4 nats."""
    odds = {"kind words": (-10.0, -13.0), "rude words": (-12.0, -11.0)}

    def score(request: ScoreRequest) -> tuple[float, ...]:
        follows = request.messages == render_contrast(KIND, TALK, follow=True)
        plain = TALK if against == "none" else render_contrast(KIND, TALK, follow=False)
        assert follows or request.messages == plain
        return tuple(odds[each][0 if follows else 1] for each in request.continuations)

    engine = ScriptedEngine({}, score)
    made = label_candidates([two("rude words", "kind words")], [engine], settings("contrast", contrast_against=against), seed=0)
    assert (made[0].pairs[0].chosen, made[0].pairs[0].margin_nats) == ("kind words", pytest.approx(4.0))
    assert made[0].pairs[0].comparisons[0].margin_nats == pytest.approx(-4.0), "of the first answer"


def test_without_the_principle_an_answer_is_scored_once_for_all_principles() -> None:
    engine = ScriptedEngine({}, lambda request: tuple(-1.0 for _ in request.continuations))
    score_answers(engine, [Judged(TALK, "reply", p, "k") for p in (KIND, BRIEF)], settings("contrast"))
    assert [each.messages for each in engine.asked].count(TALK) == 1
    assert len(engine.asked) == 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model to which yes and no are tokens."""
    words = tmp_path_factory.mktemp("words")
    make_tokenizer(corpus=(CORPUS, "Yes No Yes No A B " * 40), vocab=700).save_pretrained(words)
    return make_checkpoint(tmp_path_factory.mktemp("model"), tokenizer_from=words)


@pytest.fixture(scope="module")
def local(folder: Path) -> LocalEngine:
    return LocalEngine(load_model(ModelSpec(name=str(folder), device="cpu", dtype="float32")))


def test_contrast_of_a_real_model_is_that_of_plain_forward_passes(local: LocalEngine, folder: Path) -> None:
    """Log-probabilities summed over the reply's tokens, by transformers alone."""
    loaded = load_model(ModelSpec(name=str(folder), device="cpu", dtype="float32"))

    def logp(conversation: Any, reply: str) -> float:
        prompt = loaded.tokenizer.encode_chat(conversation)
        whole = loaded.tokenizer.encode_chat(conversation, reply)
        with torch.inference_mode():
            logits = loaded.model(input_ids=torch.tensor([whole])).logits[0].double().log_softmax(-1)
        return sum(float(logits[n - 1, whole[n]]) for n in range(len(prompt), len(whole)))

    replies = ["The sum is 4.", "The sum is 5, not 4; here is why."]
    found = score_answers(local, [Judged(TALK, reply, KIND, "k") for reply in replies], settings("contrast"))
    for reply, each in zip(replies, found, strict=True):
        assert isinstance(each, AnswerScore)
        ratio = logp(render_contrast(KIND, TALK, follow=True), reply) - logp(TALK, reply)
        assert each.nats == pytest.approx(ratio, abs=1e-4)


@pytest.mark.parametrize("method", ["pointwise", "letters", "yes_no", "contrast"])
def test_swapping_the_answers_turns_the_sign_of_every_method(method: Method, local: LocalEngine) -> None:
    """With a real model, whose odds nobody made up."""
    chosen = settings(method, max_mass_outside=1.0, ground_tokens=6)
    texts = [("Yes.", "No, thank you."), ("4", "2 + 2 = 5"), ("short", "a much longer reply of many words")]
    straight = label_candidates([two(a, b, BOTH.principles) for a, b in texts], [local], chosen, seed=0)
    swapped = label_candidates([two(b, a, BOTH.principles) for a, b in texts], [local], chosen, seed=0)
    for one, other in zip(straight, swapped, strict=True):
        assert (one.pairs[0].chosen, one.pairs[0].rejected) == (other.pairs[0].chosen, other.pairs[0].rejected)
        assert one.pairs[0].p_chosen == pytest.approx(other.pairs[0].p_chosen, abs=1e-6)
        assert one.pairs[0].chosen_is_first != other.pairs[0].chosen_is_first


# ---- reasons before the letter


def reasoning_judge(p_a: float) -> ScriptedEngine:
    def score(request: ScoreRequest) -> tuple[float, ...]:
        assert request.response_prefix == f"A is longer. B is wrong.\n\n{COMPARISON_PREFIX}"
        assert "First weigh both replies" in request.messages[-1].content
        straight = request.messages[-1].content.index("first") < request.messages[-1].content.index("second")
        p = p_a if straight else 1 - p_a
        return tuple(math.log(q / 2) for q in (p, p, 1 - p, 1 - p))

    return ScriptedEngine({"": "A is longer. B is wrong. "}, score)


@pytest.mark.parametrize(("p_a", "max_p", "held"), [(0.99, 0.6, 0.6), (0.01, 0.6, 0.4), (0.55, 0.6, 0.55), (0.99, 1.0, 0.99)])
def test_after_reasons_a_probability_is_held_between_forty_and_sixty_percent(p_a: float, max_p: float, held: float) -> None:
    engine = reasoning_judge(p_a)
    (found,) = compare(engine, [Compared(TALK, "first", "second", KIND)], reasoning=Reasoning(32, max_p))
    assert isinstance(found, LetterMargins)
    assert found.margins_nats == pytest.approx([math.log(held / (1 - held))] * 2)
    written = [each for each in engine.asked if isinstance(each, GenerationRequest)]
    assert [(each.params.temperature, each.params.max_tokens) for each in written] == [(0.0, 32)] * 2


def test_reasons_that_fail_fail_their_pair_alone() -> None:
    def write(request: GenerationRequest) -> str | RequestFailure:
        return RequestFailure("prompt_too_long", "long") if "second" in request.messages[-1].content else "Good."

    engine = ScriptedEngine(write, lambda request: tuple(-1.0 for _ in request.continuations))
    asked = [Compared(TALK, "first", "second", KIND), Compared(TALK, "first", "third", KIND)]
    failed, fine = compare(engine, asked, reasoning=Reasoning(8))
    assert isinstance(failed, RequestFailure)
    assert failed.cause == "prompt_too_long"
    assert isinstance(fine, LetterMargins)


# ---- judges that cannot judge


def test_a_model_to_which_the_letters_are_several_tokens_is_refused(tmp_path: Path) -> None:
    class Characters(ScriptedEngine):
        def count_tokens(self, messages: Any, response_prefix: str = "") -> int:
            return sum(len(each.content) for each in messages) + 2 * len(response_prefix)

    engine = Characters({}, lambda request: tuple(-1.0 for _ in request.continuations))
    for method in ("letters", "yes_no"):
        with pytest.raises(EngineError, match="more than one token"):
            check_labeller(engine, method)
        with pytest.raises(EngineError, match="pointwise"):
            label_candidates([two("first", "second")], [engine], settings(method), seed=0)
    check_labeller(engine, "pointwise")
    check_labeller(engine, "contrast")
    assert not engine.asked


def test_a_spelling_of_two_tokens_is_not_asked_for() -> None:
    """To this model " A" is two tokens, whose probability would be that of " And" too."""

    class NoSpaces(ScriptedEngine):
        def count_tokens(self, messages: Any, response_prefix: str = "") -> int:
            return len(response_prefix.replace(COMPARISON_PREFIX, ""))

    engine = NoSpaces({}, lambda request: tuple(-1.0 for _ in request.continuations))
    compare(engine, [Compared(TALK, "first", "second", KIND)])
    assert {each.continuations for each in engine.asked if isinstance(each, ScoreRequest)} == {("A", "B")}


@pytest.mark.parametrize("method", ["pointwise", "letters", "yes_no", "contrast"])
def test_a_judge_that_computes_no_number_fails_its_pair_and_is_named(method: Method) -> None:
    engine = ScriptedEngine({"": "Ground. Fault: x"}, lambda request: tuple(math.nan for _ in request.continuations))
    (made,) = label_candidates([two("first", "second")], [engine], settings(method), seed=0)
    assert made.pairs == ()
    assert made.failure is not None
    assert (made.entry.outcome, made.failure.cause) == (Outcome.FAILED, "not_a_number")


def test_options_of_another_method_are_refused() -> None:
    of_others = (
        {"require_agreement": True},
        {"reasoning_tokens": 8},
        {"max_p_reasoned": 0.7},
        {"contrast_against": "opposite"},
    )
    for option in of_others:
        with pytest.raises(ValidationError, match="is an option of `method:"):
            LabelSettings.model_validate({"method": "pointwise", **option})
