"""Methods on a small real model without sense: what they teach says nothing, but what they cost is kept to."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from checkpoints import make_checkpoint

from cai.data.filters.settings import FilterRules
from cai.engines.base import Generation, GenerationRequest, generate_all
from cai.engines.local import LocalEngine
from cai.lab.comparison.best_drafts import best_drafts
from cai.lab.comparison.contest import Contest
from cai.lab.comparison.entries import Entry
from cai.lab.comparison.methods import METHODS, MethodId, chosen_methods
from cai.lab.comparison.rounds import Comparison, work
from cai.lab.comparison.setup import ContestSetup
from cai.lab.settings import LabSettings
from cai.lab.study.cells import Made
from cai.lab.study.recipes import POINTWISE, PRINCIPLES, Size
from cai.lab.study.setup import Setup
from cai.lab.study.steps import reference_tokens_of, tokens_of
from cai.lab.suite import loop_items
from cai.labels.settings import LabelSettings
from cai.loop import LoopSettings
from cai.models.loading import open_model
from cai.models.spec import ModelSpec
from cai.records import PreferenceRecord
from cai.rl.margins import MarginReward
from cai.rl.rewards import Reply
from cai.training.dpo import dpo_course
from constitution.loading import load_constitution
from constitution.schema import Constitution

REPOSITORY = Path(__file__).resolve().parents[3]
MADE = Made(at="")
KILLED = """
import sys
from pathlib import Path
sys.path[:0] = ["tests", "tests/lab/comparison"]
from test_contest import MADE, small_comparison
from cai.lab.comparison.rounds import work
work(small_comparison(Path(sys.argv[1]), Path(sys.argv[2])), MADE, lambda: None, lambda *told: None)
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("models") / "tiny", vocab=400)


@pytest.fixture(scope="module")
def constitution() -> Constitution:
    return load_constitution(["shipped"]).select(PRINCIPLES)


def small_setup(model: Path) -> ContestSetup:
    spec = ModelSpec(name=str(model), dtype="float32")
    short = {"max_tokens": 8}
    loop = LoopSettings.model_validate({"draft": short, "critique": short, "revision": short})
    off = {name: False for name, value in FilterRules().model_dump().items() if isinstance(value, bool)}
    study = Setup(plain=spec, feedback=spec, loop=loop, filters=FilterRules.model_validate(off))
    study = study.model_copy(update={name: getattr(study, name).model_copy(update={"epochs": 1}) for name in ("sft", "dpo")})
    shorter = {"prompts_per_step": 2, "max_tokens": 8}
    online = {name: getattr(ContestSetup(), name).model_copy(update=shorter) for name in ("online_dpo", "rloo")}
    return ContestSetup(study=study, **online)


def small_comparison(folder: Path, model: Path) -> Comparison:
    setup = small_setup(model)
    return Comparison(folder, chosen_methods(["sl_cai", "dpo", "online_dpo"]), (0,), Size(8, 1), setup, setup.fingerprint)


@pytest.mark.parametrize("method", [method.id for method in METHODS if method.id != "dpo"])
def test_every_method_spends_its_budget_and_hardly_more(
    method: MethodId, model: Path, constitution: Constitution, tmp_path: Path
) -> None:
    contest = Contest(small_setup(model), constitution, items=12)
    budget = contest.carry_out("dpo", 0, None, tmp_path / "dpo").passes.cost
    outcome = contest.carry_out(method, 0, budget, tmp_path / method)
    assert outcome.model is not None
    assert (outcome.model / "model.safetensors").exists()
    # A prompt, or a step of an online method, is the least that can be added.
    least = outcome.passes.cost / (outcome.steps if "online" in method or "rloo" in method else outcome.prompts)
    assert abs(outcome.passes.cost - budget) <= least
    assert min(outcome.passes.read, outcome.passes.drawn, outcome.passes.trained) > 0
    assert (outcome.passes.scored == 0) == (method == "sl_cai")  # that nothing judges


def test_the_reference_takes_the_prompts_asked_for(model: Path, constitution: Constitution, tmp_path: Path) -> None:
    assert Contest(small_setup(model), constitution, items=12).carry_out("dpo", 0, None, tmp_path).prompts == 12


def test_training_costs_each_prompt_once_with_its_replies_in_every_epoch(model: Path) -> None:
    spec = ModelSpec(name=str(model), dtype="float32")
    pairs = [
        PreferenceRecord.model_validate(
            {
                "uid": f"{n}",
                "prompt": [{"role": "user", "content": f"What is {n}?"}],
                "chosen": "A number." * (n + 1),
                "rejected": "Nobody knows.",
                "chosen_source": "revision",
                "rejected_source": "draft",
                "p_chosen": 0.9,
                "margin_nats": 2.2,
                "method": "pointwise",
                "principle_ids": [],
            }
        )
        for n in range(3)
    ]
    course = dpo_course(spec, pairs, [], Setup().dpo.model_copy(update={"epochs": 4}))
    tokenizer = open_model(spec).tokenizer
    once = 0
    for pair in pairs:
        replies = [tokenizer.encode_reply(pair.prompt, text) for text in (pair.chosen, pair.rejected)]
        once += len(replies[0][0]) + sum(len(reply) for _, reply in replies)
    assert reference_tokens_of(course) == once
    assert tokens_of(course) == 4 * once


def test_the_best_draft_is_the_one_with_the_largest_margin(model: Path, constitution: Constitution) -> None:
    setup = small_setup(model)
    items = loop_items(LabSettings(items=4, seed=5))
    engine = LocalEngine(open_model(setup.study.plain))
    reward = MarginReward(engine, constitution, POINTWISE.settings or LabelSettings(), per_reply=None, seed=5)
    rows, lost = best_drafts(items, engine, reward, setup.study.loop.draft, 4, 5)
    found = {row.uid: row.reply for row in rows}
    assert len(found) + lost["label: no principle applies, or no answer"] == len(items)
    assert found
    for item in items:
        requests = [GenerationRequest(item.messages, setup.study.loop.draft, f"5/{item.uid}/{n}/draft/0") for n in range(4)]
        drafts = [each for _, each in sorted(generate_all(engine, requests), key=lambda found: found[0])]
        texts = [each.text for each in drafts if isinstance(each, Generation) and each.text]
        margins = [reward.rewards([Reply(item, text, 0)])[0] for text in texts]
        best = [text for margin, text in zip(margins, texts, strict=True) if margin >= max(margins) - 1e-4]
        assert (found[item.uid] in best) if item.uid in found else all(map(math.isnan, margins))


def test_nothing_to_train_on_is_an_outcome_with_its_price(model: Path, tmp_path: Path) -> None:
    nobody = load_constitution(["shipped"]).select(("courtesy-without-flattery",))
    outcome = Contest(small_setup(model), nobody, items=1).carry_out("dpo", 0, None, tmp_path)
    assert outcome.model is None
    assert outcome.failure.startswith("there is no pair to train on")
    assert outcome.passes.drawn > 0  # it was paid for all the same


def test_where_dpo_comes_to_no_model_the_others_fail_visibly_and_are_tried_again(model: Path, tmp_path: Path) -> None:
    setup = small_setup(model)
    study = setup.study.model_copy(update={"filters": FilterRules()})  # which drops replies that stop in the middle: all
    setup = setup.model_copy(update={"study": study})
    made = Comparison(tmp_path, chosen_methods(["sl_cai"]), (0,), Size(4, 1), setup, setup.fingerprint)
    (failed,) = work(made, MADE, lambda: None, lambda *_: None)
    assert failed.work == Entry("sl_cai", 0)
    assert "there is no budget" in failed.problem
    (result,) = made.results()
    assert result.failure.startswith("there is no pair to train on")
    assert sum(result.lost.values()) == 4, "each prompt that came to nothing is counted"
    assert len(work(made, MADE, lambda: None, lambda *_: None)) == 1


@pytest.mark.slow
def test_a_comparison_killed_at_any_moment_loses_at_most_the_entry_in_work(model: Path, tmp_path: Path) -> None:
    straight = small_comparison(tmp_path / "straight", model)
    work(straight, MADE, lambda: None, lambda *_: None)
    command = [sys.executable, "-c", KILLED, str(tmp_path / "killed"), str(model)]
    entries = tmp_path / "killed" / "entries"
    for wanted in (0, 1, 2):
        process = subprocess.Popen(command, cwd=REPOSITORY, env=os.environ | {"PYTHONPATH": str(REPOSITORY)})
        while process.poll() is None and not (entries.is_dir() and len(list(entries.glob("*.json"))) >= wanted):
            time.sleep(0.05)
        time.sleep(0.5)
        before = {file.name: file.read_bytes() for file in entries.glob("*.json")} if entries.is_dir() else {}
        process.send_signal(signal.SIGKILL)
        process.wait()
        after = {file.name: file.read_bytes() for file in entries.glob("*.json")} if entries.is_dir() else {}
        assert {name: after[name] for name in before} == before
    subprocess.run(command, cwd=REPOSITORY, env=os.environ | {"PYTHONPATH": str(REPOSITORY)}, check=True)
    for one, other in zip(straight.results(), small_comparison(tmp_path / "killed", model).results(), strict=True):
        assert (one.method, one.answers, one.passes) == (other.method, other.answers, other.passes)
