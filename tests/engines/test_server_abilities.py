"""What a server can do is found out, and what it cannot do is told or made up for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from checkpoints import make_checkpoint
from naive import OpenTiny
from server_requests import WARM, ask, engine_for
from small_server import Behaviour, Fault, SmallServer, running

from cai.engines.base import (
    Generation,
    GenerationRequest,
    RequestFailure,
    SamplingParams,
)
from cai.engines.server.bodies import seed_of
from cai.errors import EngineError
from constitution.messages import assistant, system, user


@pytest.mark.parametrize(
    ("fields", "dialect", "seen"),
    [
        (Behaviour().fields, "fields", {"top_k": 5}),
        (frozenset({"stop"}), "openai", {}),
    ],
)
def test_the_richest_words_that_a_server_takes_are_used(
    served: SmallServer, fields: frozenset[str], dialect: str, seen: dict[str, Any]
) -> None:
    with engine_for(served, Behaviour(fields=fields)) as engine:
        assert engine.facts["sampling parameters"] == dialect
        if dialect == "openai":
            with pytest.raises(EngineError, match="has no word for top_k"):
                list(engine.generate([ask("x", SamplingParams(top_k=5))]))
            list(engine.generate([ask("x")]))
            assert "top_k" not in served.bodies[0]
            assert served.bodies[0]["seed"] == seed_of(ask("x").noise_key)
        else:
            list(engine.generate([ask("x", SamplingParams(top_k=5))]))
            assert served.bodies[0].items() >= seen.items()


@pytest.mark.parametrize(("seeded", "fact"), [(True, "equal texts"), (False, "other texts")])
def test_whether_seeds_are_heeded_is_found_out(served: SmallServer, seeded: bool, fact: str) -> None:
    with engine_for(served, Behaviour(seeded=seeded)) as engine:
        assert engine.facts["equal seeds"] == fact


@pytest.mark.parametrize("refusal", ["400", "500"])
def test_a_template_without_a_system_turn_gets_its_text_in_the_users(served: SmallServer, refusal: Fault) -> None:
    """Where the template raises, vLLM answers 400 and `transformers serve` 500."""

    def refuses_system(number: int, body: dict[str, Any]) -> Fault | None:
        return refusal if body["messages"][0]["role"] == "system" else None

    with engine_for(served, Behaviour(fault=refuses_system)) as engine:
        request = GenerationRequest((system("Be brief."), user("Hi")), WARM, "k")
        assert isinstance(dict(engine.generate([request]))[0], Generation)
        assert served.bodies[0]["messages"] == [{"role": "user", "content": "Be brief.\n\nHi"}]


def test_a_prompt_that_is_too_long_fails_alone_and_a_tight_one_gets_the_room_there_is(served: SmallServer) -> None:
    long, tight, short = "word " * 300, "word " * 60, "word"
    with engine_for(served, Behaviour(context_tokens=400)) as engine:
        assert engine.context_tokens == 400
        tokens = engine.count_tokens((user(tight),))
        room = 400 - tokens
        params = SamplingParams(temperature=0.0, max_tokens=room + 7)
        answers = dict(engine.generate([ask(text, params) for text in (long, tight, short)]))
    assert isinstance(answers[0], RequestFailure)
    assert answers[0].cause == "prompt_too_long"
    assert isinstance(answers[1], Generation)
    assert answers[1].completion_tokens <= room
    assert isinstance(answers[2], Generation)


@pytest.mark.parametrize("tokenizes", [True, False])
@pytest.mark.parametrize("at_hand", [True, False])
def test_tokens_are_counted_exactly_where_anybody_can(
    served: SmallServer, open_tiny: OpenTiny, tmp_path: Path, tokenizes: bool, at_hand: bool
) -> None:
    spec = {"tokenizer": str(make_checkpoint(tmp_path / "m"))} if at_hand else {}
    with engine_for(served, Behaviour(tokenizes=tokenizes), **spec) as engine:
        messages = (user("How many?"), assistant("Three."), user("Really – 三?"))
        exact = open_tiny("llama").tokenizer.count(messages)
        counted = engine.count_tokens(messages)
        by = engine.facts["tokens counted by"]
        if tokenizes or at_hand:
            assert counted == exact
            assert by.startswith("the model's own tokenizer" if at_hand else "the server")
        else:
            assert counted > 0
            assert by.startswith("an estimate")


def test_a_tokenizer_that_counts_otherwise_is_not_used(served: SmallServer, tmp_path: Path) -> None:
    other = make_checkpoint(tmp_path / "other", "mistral")
    with engine_for(served, Behaviour(tokenizes=False), tokenizer=str(other)) as engine:
        assert "estimate" in engine.facts["tokens counted by"]


def test_the_fingerprint_is_the_served_models_wherever_it_is(served: SmallServer, open_tiny: OpenTiny) -> None:
    with running(open_tiny("llama")) as other:
        with engine_for(served) as one, engine_for(other) as two:
            assert one.fingerprint == two.fingerprint
            assert one.request_key(ask("x")) == two.request_key(ask("x"))
        with engine_for(other, Behaviour(name="b", listed=("b",)), name="b") as two:
            assert one.fingerprint != two.fingerprint
