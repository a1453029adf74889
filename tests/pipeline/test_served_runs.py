"""Whole runs over HTTP: what a healthy server gives, a faulty one gives too; nothing is lost, and the key is nowhere."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from checkpoints import make_checkpoint
from small_server import Behaviour, Fault, SmallServer, running
from whole_runs import cai, write_config, write_prompts

from cai.config import read_config
from cai.config.settings import RunConfig
from cai.errors import CaiError, ModelError
from cai.models.loading import load_model
from cai.models.spec import ModelSpec
from cai.pipeline import open_session, plan, read_inputs, run
from cai.pipeline.running import RunSummary
from cai.records import FailureRecord, Outcome, RecordKind
from cai.store import RunFolder

KEY = "sk-Zq7-secret/key+1"
ROWS = 10
KINDS: tuple[Fault, ...] = ("503", "429", "reset", "short_body", "not_json", "truncated_json", "empty_choices", "key_in_500")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def served(model: Path) -> Iterator[SmallServer]:
    with running(load_model(ModelSpec(name=str(model), dtype="float32", device="cpu"))) as server:
        yield server


@pytest.fixture(autouse=True)
def the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMALL_KEY", KEY)


def config_at(folder: Path, server: SmallServer, **changes: Any) -> Path:
    folder.mkdir(exist_ok=True)
    policy = {"name": "tiny", "server": server.url, "api_key_env": "SMALL_KEY"}
    prompts = write_prompts(folder / "prompts.jsonl", ROWS)
    return write_config(folder, Path("unused"), prompts, **({"policy": policy, "dpo": None} | changes))


def read(path: Path) -> RunConfig:
    return read_config(path, (), {}).config


def perform(path: Path) -> RunSummary:
    with open_session(read_inputs(read(path))) as session:
        return run(session)


def data_sets(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted((path.parent / "run" / "datasets").glob("*.jsonl"))}


def places_of(secret: str, folder: Path) -> list[str]:
    return [str(file) for file in folder.rglob("*") if file.is_file() and secret.encode() in file.read_bytes()]


def every(share: int) -> Callable[[int, dict[str, Any]], Fault | None]:
    """Every so-many-th request breaks, each in another way; those that find out what the server can do do not."""
    count, lock = [0], threading.Lock()

    def decide(number: int, body: dict[str, Any]) -> Fault | None:
        if str(body.get("messages", [{}])[0].get("content", "")).startswith("Count with me"):
            return None
        with lock:
            count[0] += 1
            return KINDS[count[0] // share % len(KINDS)] if count[0] % share == 0 else None

    return decide


@pytest.mark.slow
def test_a_run_through_a_faulty_server_is_the_run_through_a_healthy_one(tmp_path: Path, served: SmallServer) -> None:
    served.behaviour = Behaviour(key=KEY)
    healthy = config_at(tmp_path / "healthy", served)
    first = perform(healthy)
    served.behaviour = Behaviour(key=KEY, fault=every(6), retry_after="0")
    served.faults.clear()
    faulty = config_at(tmp_path / "faulty", served)
    second = perform(faulty)
    assert len(served.faults) == len(KINDS)
    assert first.ledger == second.ledger
    assert sum(second.ledger.values()) == ROWS
    assert second.ledger[Outcome.PENDING] == second.ledger[Outcome.FAILED] == 0
    assert data_sets(healthy) == data_sets(faulty)
    assert any(data_sets(healthy).values())
    assert places_of(KEY, tmp_path) == []
    report = second.report.read_text()
    for fact in ("feedback: scores", "prompt_logprobs", "feedback: equal seeds", "server 1.2.3"[-5:]):
        assert fact in report


def test_a_row_that_the_server_always_breaks_on_is_one_failure(tmp_path: Path, served: SmallServer) -> None:
    config = config_at(tmp_path / "poison", served)
    poison = read_inputs(read(config)).training_items[-1].messages[-1].content
    served.behaviour = Behaviour(
        key=KEY, fault=lambda number, body: "key_in_400" if body.get("messages", [{}])[0].get("content") == poison else None
    )
    summary = perform(config)
    assert summary.ledger[Outcome.FAILED] == 1
    assert summary.ledger[Outcome.PENDING] == 0
    with RunFolder.open(config.parent / "run") as folder:
        (failure,) = folder.records(RecordKind.FAILURE, FailureRecord)
    assert (failure.stage, failure.cause) == ("draft", "refused_by_server")
    assert "[api key]" in failure.detail
    assert places_of(KEY, tmp_path) == []


def test_a_server_that_goes_stops_the_run_and_it_goes_on_where_it_stopped(tmp_path: Path, served: SmallServer) -> None:
    served.behaviour = Behaviour(key=KEY)
    whole = config_at(tmp_path / "whole", served)
    perform(whole)
    asked, lock = [0], threading.Lock()

    def goes(number: int, body: dict[str, Any]) -> Fault | None:
        with lock:
            asked[0] += 1
            if asked[0] == 32:  # it begins to refuse the key: nobody gets in any more
                served.behaviour.key = "another"
        return None

    config = config_at(tmp_path / "stopped", served)
    served.behaviour = Behaviour(key=KEY, fault=goes)
    with pytest.raises(ModelError, match="refuses the key"):
        perform(config)
    with RunFolder.look_at(config.parent / "run") or pytest.fail("no run") as folder:
        kept = sum(usage.calls for usage in folder.usage().values())
    assert kept > 0
    served.behaviour = Behaviour(key=KEY)
    served.bodies.clear()
    summary = perform(config)
    assert summary.ledger[Outcome.PENDING] == summary.ledger[Outcome.FAILED] == 0
    assert data_sets(config) == data_sets(whole)
    with (
        RunFolder.look_at(config.parent / "run") or pytest.fail("no run") as folder,
        RunFolder.look_at(whole.parent / "run") or pytest.fail("no run") as other,
    ):
        assert sum(u.calls for u in folder.usage().values()) == sum(u.calls for u in other.usage().values())


def test_letters_do_with_first_tokens_and_the_report_says_so(tmp_path: Path, served: SmallServer) -> None:
    served.behaviour = Behaviour(key=KEY, scoring=frozenset({"top_logprobs"}))
    letters = {"method": "letters", "min_margin_nats": 0.0}
    summary = perform(config_at(tmp_path / "letters", served, labels=letters))
    assert summary.ledger[Outcome.PENDING] == 0
    assert "among the 20 likeliest" in summary.report.read_text()


# ---- told before anything starts


def refused(path: Path) -> str:
    with pytest.raises(CaiError) as caught:
        read_inputs(read(path))
    assert not (path.parent / "run").exists()
    return str(caught.value)


def test_training_a_served_policy_is_refused_with_all_else_that_is_wrong(tmp_path: Path, served: SmallServer) -> None:
    served.behaviour = Behaviour(key=KEY, scoring=frozenset({"top_logprobs"}))
    gated = {"draft": {"max_tokens": 12}, "gate": {}}
    text = refused(config_at(tmp_path / "a", served, dpo={}, sft={"epochs": 1}, loop=gated, constitution=["nowhere"]))
    assert "cannot be trained there" in text
    assert "`sft: null` and `dpo: null`" in text
    assert "`labels.method: pointwise` needs" in text
    assert "`loop.gate` needs" in text
    assert "nowhere" in text


def test_a_local_policy_may_be_trained_with_a_served_feedback_model(tmp_path: Path, served: SmallServer, model: Path) -> None:
    served.behaviour = Behaviour(key=KEY)
    feedback = {"name": "tiny", "server": served.url, "api_key_env": "SMALL_KEY"}
    policy = {"name": str(model), "device": "cpu"}
    assert read_inputs(read(config_at(tmp_path / "a", served, policy=policy, feedback=feedback, dpo={}))).items
    served.behaviour = Behaviour(key=KEY, scoring=frozenset({"top_logprobs"}))
    text = refused(config_at(tmp_path / "b", served, policy=policy, feedback=feedback, dpo={}, labels={"method": "letters"}))
    assert "`evaluation.suite: auto` needs" in text


def test_a_wrong_name_and_a_missing_key_are_told_at_once(
    tmp_path: Path, served: SmallServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    served.behaviour = Behaviour(key=KEY)
    policy = {"name": "tinny", "server": served.url, "api_key_env": "SMALL_KEY"}
    assert "It has tiny." in refused(config_at(tmp_path / "a", served, policy=policy))
    monkeypatch.delenv("SMALL_KEY")
    assert "$SMALL_KEY is not set" in refused(config_at(tmp_path / "b", served))


def test_a_plan_asks_for_no_answer_and_names_the_calls(tmp_path: Path, served: SmallServer) -> None:
    served.behaviour = Behaviour(key=KEY)
    inputs = read_inputs(read(config_at(tmp_path / "a", served)))
    served.bodies.clear()
    found = plan(inputs)
    drafts = next(calls for calls in found.calls if calls.name == "draft")
    assert drafts.certain == len(inputs.training_items)
    assert drafts.prompt_tokens > 0
    asked = [body for body in served.bodies if "max_tokens" in body]
    assert len(asked) < 20
    assert all(body["messages"][-1]["content"] in {"Write sixteen random words.", "A"} for body in asked)
    assert not (tmp_path / "a" / "run").exists()


@pytest.mark.slow
def test_the_command_line_stops_when_the_server_is_gone_and_prints_no_key(tmp_path: Path, served: SmallServer) -> None:
    """With the waits of a real run: a server that resets every connection is given up after about a minute."""
    config = config_at(tmp_path / "gone", served)
    asked, lock = [0], threading.Lock()

    def goes(number: int, body: dict[str, Any]) -> Fault | None:
        with lock:
            asked[0] += 1
            return None if asked[0] < 40 else "reset" if asked[0] % 2 else "key_in_500"

    served.behaviour = Behaviour(key=KEY, fault=goes)
    gone = cai("run", config, timeout_s=400)
    assert gone.returncode == 1, gone.stderr
    assert "answers nothing any more" in gone.stderr
    assert "what is finished is kept" in gone.stderr
    assert "Traceback" not in gone.stderr
    served.behaviour = Behaviour(key=KEY)
    done = cai("run", config, timeout_s=400)
    assert done.returncode == 0, done.stderr
    for text in (gone.stdout, gone.stderr, done.stdout, done.stderr):
        assert KEY not in text
    assert places_of(KEY, tmp_path) == []
