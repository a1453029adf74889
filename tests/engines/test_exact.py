"""A text in float32 is the same whatever else is asked at the same time; a score of an exact engine is too, to the last bit."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

import pytest
from checkpoints import ARCHITECTURES, Architecture, make_checkpoint
from naive import conversations, text_of_words

from cai.engines.base import GenerationRequest, GenerationResult, SamplingParams, ScoreRequest, ScoreResult
from cai.engines.decoding import SlotScheduler
from cai.engines.local import LocalEngine
from cai.errors import EngineError
from cai.models.loading import LoadedModel, load_model
from cai.models.spec import ModelSpec
from constitution.messages import user

Opened = Callable[[Architecture, str], LoadedModel]


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Opened:
    kept: dict[tuple[str, str], LoadedModel] = {}

    def open_it(architecture: Architecture, dtype: str) -> LoadedModel:
        if (architecture, dtype) not in kept:
            folder: Path = make_checkpoint(tmp_path_factory.mktemp(f"{architecture}-{dtype}"), architecture)
            spec = ModelSpec.model_validate(
                {
                    "name": str(folder),
                    "device": "cpu",
                    "dtype": dtype,
                    "base_model_form": "plain" if architecture == "gpt2" else "auto",
                }
            )
            kept[architecture, dtype] = load_model(spec)
        return kept[architecture, dtype]

    return open_it


def asked(architecture: Architecture, count: int) -> tuple[list[GenerationRequest], list[ScoreRequest]]:
    """Prompts of all lengths, some with a long beginning in common; greedy and drawn; scores with and without branches."""
    chance = random.Random(architecture)
    prompts = [each for each in conversations(count, 12) if not (architecture == "gemma3" and each[0].role == "system")]
    generations: list[GenerationRequest] = []
    scores: list[ScoreRequest] = []
    for number, prompt in enumerate(prompts):
        greedy = SamplingParams(temperature=0.0, max_tokens=chance.randint(1, 24))
        drawn = SamplingParams(temperature=0.9, max_tokens=chance.randint(1, 24))
        generations.append(GenerationRequest(prompt, chance.choice([greedy, drawn]), f"0/{number}/0/draft/0"))
        continuations = chance.choice([(" A", " B"), (" Nothing to change", " Fault:"), (" The better reply is (A).",)])
        scores.append(ScoreRequest(prompt, continuations, chance.choice(["", "It is"])))
    return generations, scores


def results(
    loaded: LoadedModel, generations: Sequence[GenerationRequest], scores: Sequence[ScoreRequest], max_batch: int = 64
) -> tuple[dict[int, GenerationResult], dict[int, ScoreResult]]:
    engine = LocalEngine(loaded, max_batch=max_batch, exact=True)
    return dict(engine.generate(generations)), dict(engine.score(scores))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_any_part_of_the_requests_gets_what_it_gets_among_all(opened: Opened, architecture: Architecture) -> None:
    loaded = opened(architecture, "float32")
    generations, scores = asked(architecture, 10)
    texts, logps = results(loaded, generations, scores)
    chance = random.Random(architecture)
    for size in (1, 3, 6):
        part = chance.sample(range(len(generations)), size)
        some_texts, some_logps = results(
            loaded, [generations[i] for i in part], [scores[i] for i in part], chance.randint(1, 9)
        )
        assert [some_texts[n] for n in range(size)] == [texts[i] for i in part]
        assert [some_logps[n] for n in range(size)] == [logps[i] for i in part]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_what_begins_alike_is_scored_to_the_last_bit_as_among_others(opened: Opened, architecture: Architecture) -> None:
    """Shards, and pairs that come later, change no byte of a label: each pair comes with all its principles."""
    loaded = opened(architecture, "float32")
    chance = random.Random(architecture)
    families = [
        [
            ScoreRequest(
                (user(f"{text_of_words(number, 20 + 15 * number)} {number}. {text_of_words(n, 4 + n)}"),), (" A", " B c")
            )
            for n in range(1 + number % 4)
        ]
        for number in range(8)
    ]
    together = [request for family in families for request in family]
    chance.shuffle(together)
    found = dict(LocalEngine(loaded).score(together))
    for some in (families[3:4], families[:2], families[5:]):
        requests = [request for family in some for request in family]
        chance.shuffle(requests)
        part = dict(LocalEngine(loaded).score(requests))
        assert [part[n] for n in range(len(requests))] == [found[together.index(request)] for request in requests]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_batch_of_sixty_four_writes_what_a_batch_of_one_writes(opened: Opened, architecture: Architecture) -> None:
    loaded = opened(architecture, "float32")
    generations, _ = asked(architecture, 64)
    together = dict(LocalEngine(loaded, max_batch=64).generate(generations))
    assert dict(LocalEngine(loaded, max_batch=1).generate(generations)) == together
    backwards = list(reversed(generations))
    found = dict(LocalEngine(loaded, max_batch=64).generate(backwards))
    assert [found[63 - place] for place in range(64)] == [together[place] for place in range(64)]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_draws_that_rounding_may_decide_are_decided_alone(opened: Opened, architecture: Architecture) -> None:
    """With a slack so wide that every draw counts as undecided, the texts are those of rows computed alone: no others."""
    loaded = opened(architecture, "float32")
    generations, _ = asked(architecture, 6)
    expected = dict(LocalEngine(loaded).generate(generations))
    engine = LocalEngine(loaded)
    cast("SlotScheduler", engine._scheduler).drawing.slack_nats = 1e3
    assert dict(engine.generate(generations)) == expected


def test_exactness_is_refused_where_rounding_is_coarse(opened: Opened) -> None:
    with pytest.raises(EngineError, match="dtype"):
        LocalEngine(opened("llama", "bfloat16"), exact=True)
