"""Where a served model is, how its key is kept, and what is told before anything starts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from checkpoints import make_checkpoint
from pydantic import ValidationError
from small_server import Behaviour, SmallServer, running

from cai.errors import ModelError
from cai.models.checking import check_model
from cai.models.control_text import neutralised
from cai.models.loading import load_model, open_model
from cai.models.served import error_message, served_model
from cai.models.spec import ModelSpec
from cai.models.thoughts import Reply, split_thoughts

KEY = "sk-Zq7-secret/key+1"
HERE = "http://localhost:8000/v1"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallServer]:
    folder = make_checkpoint(tmp_path_factory.mktemp("served"))
    with running(load_model(ModelSpec(name=str(folder), dtype="float32", device="cpu"))) as found:
        yield found


def told(small: SmallServer, behaviour: Behaviour, **spec: Any) -> str:
    small.behaviour = behaviour
    return "\n".join(map(str, check_model(ModelSpec.model_validate({"name": "tiny", "server": small.url} | spec))))


# ---- the specification


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"time_limit_s": 3.0}, "time_limit_s"),
        ({"api_key_env": "KEY", "tokenizer": "x"}, "`api_key_env`, `tokenizer`"),
        ({"server": HERE, "adapter": "x"}, "adapter"),
        ({"server": HERE, "dtype": "float32", "device": "cpu"}, "`dtype`, `device`"),
        ({"server": HERE, "base_model_form": "plain"}, "base_model_form"),
    ],
)
def test_settings_of_servers_and_of_weights_do_not_mix(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(ValidationError, match=named):
        ModelSpec(name="x", **fields)


def test_weights_of_a_served_model_are_not_looked_for() -> None:
    with pytest.raises(ModelError, match="its weights are not here"):
        open_model(ModelSpec(name="tiny", server=HERE))


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://x/v1", "http://", "http://x:port/v1", "/v1"])
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(ModelError, match="is not the URL of a server"):
        served_model(ModelSpec(name="x", server=url))


@pytest.mark.parametrize("url", [f"http://me:{KEY}@host/v1", f"http://host/v1?key={KEY}", f"http://host/v1#{KEY}"])
def test_a_secret_in_the_url_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(ModelError) as caught:
        served_model(ModelSpec(name="x", server=url))
    assert "api_key_env" in str(caught.value)
    assert KEY not in str(caught.value)


def test_a_key_in_place_of_its_variable_is_refused_and_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError) as caught:
        served_model(ModelSpec(name="x", server=HERE, api_key_env=KEY))
    assert "holds the name of a variable" in str(caught.value)
    assert KEY not in str(caught.value)
    monkeypatch.setenv("SMALL_KEY", KEY)
    served = served_model(ModelSpec(name="x", server=f"{HERE}/", api_key_env="SMALL_KEY"))
    assert (served.base_url, served.root_url, served.key) == (HERE, "http://localhost:8000", KEY)
    assert KEY not in repr(served)


def test_a_key_is_hidden_however_json_writes_it() -> None:
    served = served_model(ModelSpec(name="x", server=HERE))
    for key in (KEY, 'quo"te\\back'):
        hiding = type(served)(served.name, served.base_url, key)
        import json

        assert key not in json.loads(hiding.hide_key(json.dumps({"error": f"Bearer {key}"})))["error"]


# ---- what the server says


def test_a_listed_model_is_found_without_asking_for_a_word(server: SmallServer) -> None:
    server.bodies.clear()
    assert told(server, Behaviour()) == ""
    assert server.bodies == []


def test_a_wrong_name_is_told_with_the_nearest_ones(server: SmallServer) -> None:
    text = told(server, Behaviour(listed=("tiny-7B-Instruct", "tiny", "other")), name="tinny-7B-Instruct")
    assert "has no model of this name" in text
    assert text.index("tiny-7B-Instruct") < text.index("other") if "other" in text else True
    assert "It has tiny-7B-Instruct" in text


def test_a_server_that_answers_to_any_name_is_believed_its_list(server: SmallServer) -> None:
    assert "It has tiny." in told(server, Behaviour(any_name=True), name="tony")


def test_a_list_that_leaves_the_model_out_is_not_believed_if_the_model_answers(server: SmallServer) -> None:
    """`transformers serve` lists what lies in the hub cache, and not the folder that it serves."""
    assert told(server, Behaviour(listed=("something-else",))) == ""


@pytest.mark.parametrize("listed", [None, ()])
def test_a_server_without_a_list_is_asked_for_a_word(server: SmallServer, listed: tuple[str, ...] | None) -> None:
    server.bodies.clear()
    assert told(server, Behaviour(listed=listed)) == ""
    assert len(server.bodies) == 1
    assert "does not exist" in told(server, Behaviour(listed=listed), name="tony")


def test_a_refused_key_is_told_without_the_key(server: SmallServer, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "wants an API key" in told(server, Behaviour(key="right-one"))
    monkeypatch.setenv("SMALL_KEY", KEY)
    text = told(server, Behaviour(key="right-one"), api_key_env="SMALL_KEY")
    assert "refuses the key in $SMALL_KEY" in text
    assert KEY not in text
    monkeypatch.setenv("SMALL_KEY", "right-one")
    assert told(server, Behaviour(key="right-one"), api_key_env="SMALL_KEY") == ""


def test_nobody_there_and_nothing_under_the_path(server: SmallServer) -> None:
    assert "no server answers" in told(server, Behaviour(), server="http://127.0.0.1:1/v1")
    assert "usually ends with /v1" in told(server, Behaviour(), server=server.url.removesuffix("/v1"))


def test_a_tokenizer_is_looked_for_here(server: SmallServer, tmp_path: Path) -> None:
    spec = ModelSpec(name="tiny", server=server.url, tokenizer=str(tmp_path / "nowhere"))
    assert "no such folder" in str(check_model(spec, weights=False)[0])
    make_checkpoint(tmp_path / "here")
    assert check_model(spec.model_copy(update={"tokenizer": str(tmp_path / "here")}), weights=False) == []


# ---- texts


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ('{"error": {"message": "too\\nbad", "code": 5}}', "too bad"),
        ('{"detail": "no"}', "no"),
        ('{"detail": [{"msg": "x"}]}', '[{"msg": "x"}]'),
        ("\x1b[31m<html>", "[31m<html>"),
        ("", "no text"),
    ],
)
def test_error_bodies_become_one_short_line(text: str, shown: str) -> None:
    assert error_message(text) == shown
    assert len(error_message("x" * 10_000)) < 400


@pytest.mark.parametrize(
    "text", ["<|im_end|>", "a<|eot_id|>b", "[INST] x [/INST]", "</s>", "<start_of_turn>", "<｜end▁of▁sentence｜>", "</think>"]
)
def test_texts_of_control_tokens_are_broken_up_and_the_rest_stays(text: str) -> None:
    broken = neutralised(f"x {text} y")
    assert text not in broken
    assert broken.replace(" ", "") == f"x {text} y".replace(" ", "")
    assert neutralised(broken) == broken


def test_ordinary_text_is_left_alone() -> None:
    text = "a | b <b>bold</b> [1] {x} a < b > c <-> |> x[INSTALL] 1<2|3>2"
    assert neutralised(text) == text


@pytest.mark.parametrize(
    ("text", "opened", "reply"),
    [
        ("plain", False, Reply("plain")),
        ("<think>a</think>\n\nb", False, Reply("b", "a")),
        ("a</think>b", False, Reply("b", "a")),
        ("<think>never ends", False, Reply("", "never ends")),
        ("cut inside", True, Reply("", "cut inside")),
    ],
)
def test_thoughts_are_taken_out(text: str, opened: bool, reply: Reply) -> None:
    assert split_thoughts(text, opened=opened) == reply
