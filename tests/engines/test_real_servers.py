"""Servers that other people wrote: `transformers serve`, started here, and llama-cpp-python's where it is installed.

`transformers serve` needs `fastapi`, `uvicorn` and `openai` (`pip install "transformers[serving]"`). llama-cpp-python has to be
compiled, so its tests run where CAI_LLAMA_PYTHON names a Python that has `llama-cpp-python[server]`.
"""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from checkpoints import make_checkpoint, make_tokenizer

from cai.engines.base import Generation, GenerationRequest, SamplingParams, ScoreRequest, Scores
from cai.engines.local import LocalEngine
from cai.engines.server import ServerEngine, check_scoring
from cai.errors import EngineError
from cai.models.checking import check_model
from cai.models.loading import load_model
from cai.models.spec import ModelSpec
from constitution.messages import assistant, system, user

pytestmark = pytest.mark.slow

LLAMA_PYTHON = os.environ.get("CAI_LLAMA_PYTHON", "")
SERVING = all(importlib.util.find_spec(name) for name in ("fastapi", "uvicorn", "openai"))
START_LIMIT_S = 300.0


@dataclass(frozen=True)
class Running:
    """A server, what it calls its model, and where that model's weights and tokenizer are."""

    url: str
    name: str
    folder: Path

    def spec(self, **changes: Any) -> ModelSpec:
        return ModelSpec.model_validate({"name": self.name, "server": self.url} | changes)


@contextmanager
def started(command: list[str], port: int, log: Path, environment: dict[str, str]) -> Iterator[str]:
    """A server process, from when it answers to the end of the block."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=os.environ | environment)
    try:
        deadline = time.monotonic() + START_LIMIT_S
        while True:
            assert process.poll() is None, log.read_text(errors="replace")[-3000:]
            assert time.monotonic() < deadline, f"it did not start:\n{log.read_text(errors='replace')[-3000:]}"
            try:
                httpx2.get(f"http://127.0.0.1:{port}/v1/nothing", timeout=5)
                break
            except httpx2.HTTPError:
                time.sleep(0.3)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture(scope="module")
def transformers_serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    if not SERVING:
        pytest.skip('`transformers serve` needs fastapi, uvicorn and openai: pip install "transformers[serving]"')
    folder = make_checkpoint(tmp_path_factory.mktemp("serve") / "tiny")
    port = free_port()
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(folder), "--host", "127.0.0.1"]
    command += ["--port", str(port), "--device", "cpu", "--dtype", "float32"]
    quiet = {"HF_HOME": str(folder.parent / "hub"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    with started(command, port, folder.parent / "log.txt", quiet) as url:
        yield Running(url, str(folder), folder)


@pytest.fixture(scope="module")
def llama_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    if not LLAMA_PYTHON:
        pytest.skip("CAI_LLAMA_PYTHON names no Python with llama-cpp-python[server]")
    pytest.importorskip("gguf")
    from tests.models.tiny_gguf import make_gguf

    folder = tmp_path_factory.mktemp("llama")
    make_gguf(folder / "tiny.gguf").save_pretrained(folder / "tiny")
    make_tokenizer("llama").save_pretrained(folder / "tiny")
    port = free_port()
    command = [LLAMA_PYTHON, "-m", "llama_cpp.server", "--model", str(folder / "tiny.gguf"), "--host", "127.0.0.1"]
    command += ["--port", str(port), "--logits_all", "true", "--n_ctx", "1024", "--n_threads", "1", "--model_alias", "tiny"]
    clean = {"PYTHONPATH": ""}
    with started(command, port, folder / "log.txt", clean) as url:
        yield Running(url, "tiny", folder / "tiny")


def local(server: Running) -> LocalEngine:
    return LocalEngine(load_model(ModelSpec(name=str(server.folder), dtype="float32", device="cpu")))


def greedy_requests() -> list[GenerationRequest]:
    params = SamplingParams(temperature=0.0, max_tokens=24)
    conversations = [
        *((user(f"What is {n}?"),) for n in range(4)),
        (system("Be brief."), user("Why?")),
        (user("Hi."), assistant("Hello!"), user("Who are you?")),
    ]
    return [GenerationRequest(each, params, "k") for each in conversations]


SCORED = [
    ScoreRequest((user("Which reply?"),), (" A", "A", " B", "B"), "The better reply is"),
    ScoreRequest((user("Check it."),), ("Nothing to change", "Fault:")),
]


def texts(answers: dict[int, Any]) -> list[tuple[str, str]]:
    assert all(isinstance(answer, Generation) for answer in answers.values()), answers
    return [(answers[n].text, answers[n].finish_reason.value) for n in sorted(answers)]


def test_transformers_serve_writes_what_the_model_writes(transformers_serve: Running) -> None:
    assert check_model(transformers_serve.spec()) == []
    engine = ServerEngine(transformers_serve.spec())
    assert engine.facts["sampling parameters"] == "generation config"
    assert engine.facts["tokens counted by"].startswith("the model's own tokenizer")  # its name is a folder here
    assert engine.context_tokens == 2048
    requests = greedy_requests()
    found, expected = dict(engine.generate(requests)), dict(local(transformers_serve).generate(requests))
    assert texts(found) == texts(expected)
    for number, answer in found.items():
        assert getattr(answer, "prompt_tokens", None) == getattr(expected[number], "prompt_tokens", None)
    engine.close()


def test_transformers_serve_draws_from_what_it_is_told_to(transformers_serve: Running) -> None:
    """Its own default is 50 likeliest tokens, and no sampling at all unless a generation config says so."""
    engine = ServerEngine(transformers_serve.spec())
    warm = [GenerationRequest((user("Say it."),), SamplingParams(max_tokens=16), f"k{n}") for n in range(5)]
    assert len(set(texts(dict(engine.generate(warm))))) == 5
    first = [GenerationRequest(r.messages, SamplingParams(max_tokens=16, top_k=1), r.noise_key) for r in warm]
    assert len(set(texts(dict(engine.generate(first))))) == 1
    engine.close()


def test_transformers_serve_gives_no_log_probabilities_and_is_refused_for_labels(transformers_serve: Running) -> None:
    (problem,) = check_scoring(transformers_serve.spec(), {"`labels.method: letters`": "letters"})
    assert "`labels.method: letters` needs" in str(problem)
    engine = ServerEngine(transformers_serve.spec())
    with pytest.raises(EngineError, match="likeliest first tokens"):
        list(engine.score(SCORED))
    engine.close()


def test_transformers_serve_does_not_know_another_model(transformers_serve: Running) -> None:
    (problem,) = check_model(transformers_serve.spec(name="another"))
    assert "Server is pinned to" in str(problem)


def test_llama_cpp_scores_as_the_model_does(llama_server: Running) -> None:
    assert check_model(llama_server.spec()) == []
    engine = ServerEngine(llama_server.spec(tokenizer=str(llama_server.folder)))
    assert engine.facts["sampling parameters"] == "fields 0"
    assert "(text)" in engine.facts["scores"]
    found, expected = dict(engine.score(SCORED)), dict(local(llama_server).score(SCORED))
    for number in range(len(SCORED)):
        one, other = found[number], expected[number]
        assert isinstance(one, Scores)
        assert isinstance(other, Scores)
        assert one.logps == pytest.approx(other.logps, abs=2e-2)  # its arithmetic is its own
    answers = dict(engine.generate(greedy_requests()))
    assert all(isinstance(answer, Generation) for answer in answers.values())
    engine.close()


def test_llama_cpp_answers_to_any_name_and_is_believed_its_list(llama_server: Running) -> None:
    (problem,) = check_model(llama_server.spec(name="tinny"))
    assert "It has tiny." in str(problem)
