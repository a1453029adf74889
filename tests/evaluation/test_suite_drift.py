"""Drift on suites: lengths, beginnings, and the distance of real models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import make_checkpoint
from suite_contestants import ask, contestant, many, saying

from cai.engines.base import GenerationRequest, RequestFailure, ScoreRequest
from cai.engines.local import LocalEngine
from cai.evaluation.drift import alike_share, closing, log_ratios, nats_per_token, numbered, opening, own_logps
from cai.evaluation.suite_results import MeasureChange, SuiteResult
from cai.evaluation.wording import got_worse, sentences
from cai.models.loading import load_model
from cai.models.spec import ModelSpec
from constitution.messages import user

DRIFT: dict[str, Any] = {"drift": {"prompts": [{"for_each": ["rows"], "prompt": "Tell me of {{ n }}."}]}}


def changes_of(result: SuiteResult) -> dict[str, MeasureChange]:
    return {each.measure: each for each in result.comparisons[0].measures}


def test_longer_answers_that_all_begin_alike_are_seen(tmp_path: Path) -> None:
    def plain(request: GenerationRequest) -> str:
        return f"Number {request.messages[-1].content.split()[-1]} it is"

    def boilerplate(request: GenerationRequest) -> str:
        return f"I hope you are well and like {request.messages[-1].content.split()[-1]} very much"

    level: Callable[[ScoreRequest], list[float]] = lambda request: [-2.0]  # noqa: E731
    found = ask(
        tmp_path, many(**DRIFT), contestant("a", saying(plain, level)), contestant("b", saying(boilerplate, level))
    ).result
    changes = changes_of(found)
    assert (changes["length"].before, changes["length"].after) == (4.0, 10.0)
    assert (changes["openings"].before, changes["openings"].after) == (0.0, 1.0)
    assert changes["openings"].clear
    assert "two answers that begin alike" in got_worse(found.comparisons[0])


def test_how_alike_is_the_share_of_all_pairs_of_different_clusters() -> None:
    units = ["a", "a", "b", "", "a", "b", ""]
    clusters = ["1", "1", "2", "2", "3", "3", "4"]
    pairs = [(i, j) for i in range(7) for j in range(7) if clusters[i] != clusters[j]]
    wanted = sum(units[i] == units[j] != "" for i, j in pairs) / len(pairs)
    assert alike_share(numbered(units), numbered(clusters)) == pytest.approx(wanted)
    assert alike_share(numbered(["a", "a"]), numbered(["1", "1"])) == 0.0
    assert (opening("Well, I don't know it."), closing("Well, I don't know it.")) == ("well i don't", "don't know it")


def test_nats_a_token_are_those_of_all_tokens_and_not_of_the_mean_answer() -> None:
    assert nats_per_token(np.array([2.0, 1.0]), np.array([1, 4])) == pytest.approx(3 / 5)


def test_an_answer_that_fails_takes_no_other_answer_out_of_the_distance(tmp_path: Path) -> None:
    def failing(request: GenerationRequest) -> str | RequestFailure:
        return RequestFailure("timeout", "no answer") if request.messages[-1].content.endswith(" 0.") else "so"

    level: Callable[[ScoreRequest], list[float]] = lambda request: [-2.0]  # noqa: E731
    found = ask(tmp_path, many(**DRIFT), contestant("a", saying("so", level)), contestant("b", saying(failing, level))).result
    assert (changes_of(found)["kl"].rows, changes_of(found)["length"].rows) == (39, 39)
    assert found.models[1].failures["drift: timeout"] == 1


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("models")
    return make_checkpoint(folder / "a", seed=0), make_checkpoint(folder / "b", seed=1)


def test_the_distance_of_two_real_models_is_that_of_their_logits(tiny: tuple[Path, Path]) -> None:
    """Oracle: the models' own logits over prompt and answer, summed by hand."""
    specs = [ModelSpec(name=str(path), device="cpu", dtype="float32") for path in tiny]
    engines = [LocalEngine(load_model(spec)) for spec in specs]
    conversation, text = (user("Tell me of the moon."),), " The moon is made of cheese."
    (found,) = log_ratios(*(own_logps(engine, [(conversation, text)]) for engine in engines))
    assert not isinstance(found, RequestFailure)
    wanted: list[float] = []
    for spec in specs:
        loaded = load_model(spec)
        prompt = loaded.tokenizer.encode_chat(conversation)
        whole = loaded.tokenizer.encode_chat(conversation, text)
        with torch.no_grad():
            logps = torch.log_softmax(loaded.model(torch.tensor([list(whole)])).logits[0].float(), dim=-1)
        wanted.append(sum(float(logps[at - 1, whole[at]]) for at in range(len(prompt), len(whole))))
        assert found.tokens == len(whole) - len(prompt)
    assert found.nats == pytest.approx(wanted[0] - wanted[1], abs=1e-4)


def test_a_model_is_at_no_distance_from_itself_and_at_some_from_another(tmp_path: Path, tiny: tuple[Path, Path]) -> None:
    one, other = (LocalEngine(load_model(ModelSpec(name=str(path), device="cpu", dtype="float32"))) for path in tiny)
    content = many(6, **DRIFT)
    found = ask(tmp_path, content, contestant("a", one), contestant("a again", one), contestant("b", other)).result
    figures = [{each.measure: each for each in model.measures} for model in found.models]
    assert "kl" not in figures[0]
    assert figures[1]["kl"].value == pytest.approx(0.0, abs=1e-5)
    assert figures[2]["kl"].value > 0.01
    assert figures[2]["kl"].unit == "nats a token"
    assert np.isfinite(figures[2]["kl"].high)


def test_to_be_away_from_the_start_is_shown_and_is_not_getting_worse(tmp_path: Path) -> None:
    """Every trained model is: --strict used to refuse each of them."""
    level: Callable[[ScoreRequest], list[float]] = lambda request: [-2.0]  # noqa: E731
    near: Callable[[ScoreRequest], list[float]] = lambda request: [-1.0]  # noqa: E731
    found = ask(tmp_path, many(**DRIFT), contestant("a", saying("so", level)), contestant("b", saying("so", near))).result
    (comparison,) = found.comparisons
    distance = changes_of(found)["kl"]
    assert distance.difference > 0
    assert distance.clear
    assert any("distance from the first model" in line and "(changed)" in line for line in sentences(comparison))
    assert got_worse(comparison) == []
