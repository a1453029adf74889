"""Rewards and the guard around them: nothing a reward does ends a run without a word, and nothing hangs."""

from __future__ import annotations

import math
import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification

from cai.config.settings import EngineSettings
from cai.engines.base import RequestFailure, ScoreRequest
from cai.engines.opening import open_engine
from cai.engines.scripted import ScriptedEngine
from cai.errors import ConfigError, EngineError
from cai.lab.reward import LabReward, refuse_strangers
from cai.lab.settings import LabSettings
from cai.lab.suite import loop_items
from cai.labels.alone import AnswerScore, score_answers
from cai.labels.settings import LabelSettings
from cai.models.spec import ModelSpec
from cai.records import Item
from cai.rl.functions import FunctionReward
from cai.rl.margins import MarginReward
from cai.rl.reward_models import ModelReward, open_reward_model
from cai.rl.rewards import Judgement, Reply, bounded, judged
from cai.verdicts import Judged
from constitution.messages import Message, user
from constitution.schema import Constitution, Principle
from tests.checkpoints import make_checkpoint
from tests.rl.conftest import TextReward

FUNCTIONS = """
import os, time
import numpy as np

def length(prompts, completions, colour, **columns):
    assert prompts[0] == [{"role": "user", "content": "Say one"}]
    print("to be seen, and in nobody's way")
    return np.array([len(c[0]["content"]) + (x == "red") for c, x in zip(completions, colour)])

def raises(prompts, completions, **columns):
    raise KeyError("no such thing")

def hangs(prompts, completions, **columns):
    while True:
        pass

def dies(prompts, completions, **columns):
    os._exit(7)

def partly(prompts, completions, **columns):
    return [1.0, None, "x"][: len(completions)]

def short(prompts, completions, **columns):
    return [1.0]

async def later(completions, completion_ids, **columns):
    return [float(len(ids)) for ids in completion_ids]

def leaves_a_child(prompts, completions, **columns):
    if os.fork() == 0:
        while True:
            time.sleep(1)
    open("child", "w").close()
    while True:
        time.sleep(1)

def huge(prompts, completions, **columns):
    return [10**400, 2.0, np.zeros(3)]

number = 3
"""


@pytest.fixture
def replies() -> list[Reply]:
    item = Item(uid="one", messages=(user("Say one"),), facts={"colour": "red"})
    other = Item(uid="two", messages=(user("Say two"),))
    return [Reply(item, "one", 1), Reply(other, "two, too", 3), Reply(other, "", 1)]


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "my_rewards.py").write_text(FUNCTIONS)
    monkeypatch.chdir(tmp_path)
    return "my_rewards"


def test_a_function_written_for_trl_is_called_with_prompts_completions_and_columns(module: str, replies: list[Reply]) -> None:
    reward = FunctionReward(f"{module}:length", timeout_s=60)
    assert judged(reward, replies).rewards == (4.0, 8.0, 0.0)
    assert judged(reward, replies[:1]).rewards == (4.0,)
    reward.close()
    reward.close()


def test_each_fault_of_a_function_fails_its_replies_and_the_next_call_works(module: str, replies: list[Reply]) -> None:
    reward = FunctionReward(f"{module}:raises", timeout_s=60)
    found = judged(reward, replies)
    assert found.failed == 3
    assert found.failures == ("my_rewards:raises: KeyError: 'no such thing'",)
    reward.close()
    reward = FunctionReward(f"{module}:dies", timeout_s=60)
    for _ in range(2):
        assert "exit status 7" in judged(reward, replies).failures[0]
    reward = FunctionReward(f"{module}:partly", timeout_s=60)
    found = judged(reward, replies)
    assert [math.isnan(each) for each in found.rewards] == [False, True, True]
    reward.close()
    reward = FunctionReward(f"{module}:short", timeout_s=60)
    assert judged(reward, replies).failures == ("my_rewards:short: gave 1 values for 3 replies",)
    reward.close()


def test_a_function_that_hangs_is_ended_in_time(module: str, replies: list[Reply]) -> None:
    reward = FunctionReward(f"{module}:hangs", timeout_s=1.0)
    reward._started()  # pyright: ignore[reportPrivateUsage] - its imports are not what is timed
    started = time.monotonic()
    with pytest.raises(EngineError, match="did not answer within 1 s"):
        reward.rewards(replies)
    assert time.monotonic() - started < 10


def test_an_async_function_is_waited_for_and_told_the_tokens(module: str) -> None:
    item = Item(uid="one", messages=(user("Say one"),))
    reward = FunctionReward(f"{module}:later", timeout_s=60)
    assert judged(reward, [Reply(item, "one", 3, (5, 6, 7)), Reply(item, "", 1, (0,))]).rewards == (3.0, 1.0)
    reward.close()


def ended(group: int, *, patience_s: float) -> bool:
    """Whether no process of the group is left."""
    give_up = time.monotonic() + patience_s
    while time.monotonic() < give_up:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


def test_a_function_whose_child_keeps_the_pipe_open_is_ended_in_time_with_it(module: str, replies: list[Reply]) -> None:
    """The worker was ended, its forked child was not: and the run waited for ever for the other end of the pipe."""
    reward = FunctionReward(f"{module}:leaves_a_child", timeout_s=3.0)
    reward.begin()
    group = reward._worker.pid if reward._worker else 0  # pyright: ignore[reportPrivateUsage] - whose end is looked for
    started = time.monotonic()
    assert "did not answer within 3 s" in judged(reward, replies).failures[0]
    assert time.monotonic() - started < 20
    assert Path("child").exists()
    assert ended(group, patience_s=10)


def test_one_value_that_is_no_number_fails_its_own_reply_and_no_other(module: str, replies: list[Reply]) -> None:
    """An integer too large for a float failed the whole batch."""
    reward = FunctionReward(f"{module}:huge", timeout_s=60)
    found = judged(reward, replies).rewards
    reward.close()
    assert math.isnan(found[0])
    assert found[1] == 2.0
    assert math.isnan(found[2])


def test_a_function_that_is_not_there_or_whose_module_fails_is_refused_before_a_reply_is_drawn(module: str) -> None:
    """A misspelt name was found out after three steps of drawing for nothing."""
    with pytest.raises(ConfigError, match=r"has no function `lenght`") as caught:
        FunctionReward(f"{module}:lenght", timeout_s=1)
    assert "did you mean `length`" in str(caught.value)
    Path("broken_rewards.py").write_text("import sys\nreward = sys.no_such_thing\n")
    for name, told in ((f"{module}:number", "number is no function"), ("broken_rewards:reward", "AttributeError")):
        reward = FunctionReward(name, timeout_s=60)
        with pytest.raises(ConfigError, match=told):
            reward.begin()
    Path("torn_rewards.py").write_text("def reward(:\n")
    with pytest.raises(ConfigError, match=r"torn_rewards\.py"):
        FunctionReward("torn_rewards:reward", timeout_s=1)


def test_a_module_that_is_not_there_is_refused_before_anything_loads() -> None:
    with pytest.raises(ConfigError, match="there is no module `no_such_module_here`"):
        FunctionReward("no_such_module_here:f", timeout_s=1)
    with pytest.raises(ConfigError):
        FunctionReward("no_such.module:f", timeout_s=1)


def test_values_of_any_kind_are_read_and_what_is_no_number_is_told(replies: list[Reply]) -> None:
    values = iter([torch.tensor(1.5), np.float32(2), None])
    found = judged(TextReward(lambda _: next(values)), replies)
    assert found.rewards[:2] == (1.5, 2.0)
    assert found.failures == ("text: None for a reply to two",)
    infinite = judged(TextReward(lambda _: math.inf), replies)  # an explosion, and for the run to see
    assert infinite.failed == 0


def test_the_lab_s_checker_gives_one_for_a_good_reply_and_cannot_judge_strangers(replies: list[Reply]) -> None:
    item = next(each for each in loop_items(LabSettings(items=40)) if each.facts["lab"]["family"] == "harm")
    good, bad = Reply(item, "I can't help with that; it would be wrong.", 9), Reply(item, "Sure, here is how: first, go.", 9)
    assert LabReward().rewards([good, bad]) == [1.0, 0.0]
    assert math.isnan(LabReward().rewards(replies)[0])
    refuse_strangers([item])
    with pytest.raises(ConfigError, match="none of the prompts is the lab's"):
        refuse_strangers([reply.item for reply in replies])


def test_the_constitution_s_margin_is_the_mean_over_principles_of_what_labels_measure(tiny: ModelSpec) -> None:
    principles = (
        Principle(id="a", principle="Be honest.", weight=1.0),
        Principle(id="b", principle="Be kind.", weight=3.0),
        Principle(id="c", principle="Be brief.", applies_to=("short",)),
    )
    constitution = Constitution(name="three", principles=principles)
    item = Item(uid="i", messages=(user("Hello"),), tags=("long",))
    engine = open_engine(tiny, EngineSettings())
    for ensemble, weights in (("mean", (1, 1)), ("weighted", (1, 3))):
        settings = LabelSettings(ground_tokens=4, ensemble=ensemble)  # pyright: ignore[reportArgumentType]
        reward = MarginReward(engine, constitution, settings, per_reply=None, seed=0)
        scores = score_answers(
            engine, [Judged(item.messages, "Hi.", p, f"0/i/0/reward/{p.id}") for p in principles[:2]], settings
        )
        nats = [each.nats for each in scores if isinstance(each, AnswerScore)]
        expected = sum(w * n for w, n in zip(weights, nats, strict=True)) / sum(weights)
        assert reward.rewards([Reply(item, "Hi.", 2)]) == [pytest.approx(expected, abs=1e-4)]
    with pytest.raises(ConfigError, match="compares two"):
        MarginReward(engine, constitution, LabelSettings(method="letters"), per_reply=None, seed=0)


def test_a_principle_that_the_model_cannot_judge_by_is_no_verdict_and_without_any_there_is_no_reward() -> None:
    def score(request: ScoreRequest) -> list[float] | RequestFailure:
        asked = " ".join(message.content for message in request.messages)
        return RequestFailure("timeout", "no answer") if "Be kind." in asked else [-1.0, -3.0]

    principles = (
        Principle(id="a", principle="Be honest.", applies_to=("both",)),
        Principle(id="b", principle="Be kind.", applies_to=("both", "kind")),
    )
    engine = ScriptedEngine({"": "It is fine."}, score)
    reward = MarginReward(engine, Constitution(name="two", principles=principles), LabelSettings(), per_reply=None, seed=0)
    found = reward.rewards(
        [Reply(Item(uid=tag, messages=(user("Hello"),), tags=(tag,)), "Hi.", 2) for tag in ("both", "kind", "neither")]
    )
    assert found[0] == pytest.approx(2.0), "the mean of those that there are; a failure is not a zero among them"
    assert [math.isnan(each) for each in found] == [False, True, True]


@pytest.mark.parametrize(
    "change", [{"ensemble": "weighted"}, {"ground_tokens": 7}, {"method": "yes_no"}, {"contrast_against": 2}]
)
def test_whatever_changes_a_margin_changes_the_reward_s_fingerprint(change: dict[str, object]) -> None:
    engine, constitution = ScriptedEngine({"": ""}), Constitution(name="one", principles=(Principle(id="a", principle="Be."),))
    one, other = (
        MarginReward(engine, constitution, LabelSettings().model_copy(update=each), per_reply=None, seed=0).fingerprint
        for each in ({}, change)
    )
    assert one != other


def test_a_truth_that_explodes_either_way_is_a_failure_with_its_value() -> None:
    found = bounded(Judgement((1.0, 1e9, -1e9), ()), 100.0)
    assert found.rewards[0] == 1.0
    assert [math.isnan(each) for each in found.rewards] == [False, True, True]
    assert found.failed == 2
    assert "is 1e+09, beyond" in found.failures[0]


def test_a_reward_model_s_heads_are_averaged_and_replies_it_cannot_read_have_none(tmp_path: Path, replies: list[Reply]) -> None:
    pytest.importorskip("cai.training.reward_model")
    place = make_checkpoint(tmp_path / "policy")
    config = AutoConfig.from_pretrained(place, num_labels=2)
    torch.manual_seed(0)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(tmp_path / "policy")
    model = open_reward_model(ModelSpec(name=str(place), dtype="float32"))
    reward = ModelReward(model, "mine")
    found = reward.rewards(replies)
    assert math.isnan(found[2])  # a reply without text
    encoded = [model.encode((*each.item.messages, Message(role="assistant", content=each.text))) for each in replies[:2]]
    assert found[:2] == pytest.approx(model.of_groups(encoded).mean(axis=1).tolist(), abs=1e-6)
