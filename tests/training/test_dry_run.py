"""What a dry run foretells, against what a real model keeps and computes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import make_checkpoint
from hypothesis import given
from hypothesis import strategies as st
from labelled_runs import PAIRS as LABELLED
from labelled_runs import write_labelled_run
from torch.utils.flop_counter import FlopCounterMode
from training_runs import DPO, SFT, make_chains, make_pairs, make_replies, spec_of
from transformers import TrainerCallback
from whole_runs import write_config, write_prompts

from cai.config import read_config
from cai.errors import StoreError
from cai.models.loading import LoadedModel, load_tokenizer
from cai.pipeline.rehearsing import stored_course
from cai.records import Stage
from cai.training.dpo import dpo_course, train_dpo
from cai.training.dry_run import dry_run
from cai.training.packing import TokenGroup, pack
from cai.training.policy import load_policy, open_policy
from cai.training.rows import Pair, PreferenceRow
from cai.training.sft import sft_course
from cai.training.shown_batch import shown_row
from cai.training.skeleton import Skeleton


def test_no_weight_is_read_and_nothing_is_written(llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_model: LoadedModel) -> Any:
        raise AssertionError("weights were asked for")

    monkeypatch.setattr(LoadedModel, "model", property(refuse))
    monkeypatch.chdir(tmp_path)
    found = dry_run(dpo_course(spec_of(llama), make_pairs(6), make_replies(2), DPO))
    assert not found.tried
    assert not list(tmp_path.iterdir())


def test_a_training_does_what_its_dry_run_said(llama: Path, tmp_path: Path) -> None:
    settings = DPO.model_copy(update={"holdout_share": 0.3, "epochs": 2})
    pairs = [*make_pairs(14), make_pairs(1)[0].model_copy(update={"rejected": "It is 9."})]
    pairs.append(pairs[3].model_copy(update={"uid": "same", "rejected": pairs[3].chosen}))
    course = dpo_course(spec_of(llama), pairs, make_replies(6), settings)
    foretold = dry_run(course)
    result = train_dpo(spec_of(llama), pairs, make_replies(6), settings, tmp_path / "out")
    names = ("steps", "trained_rows", "anchors", "held_out", "path")
    assert {name: getattr(foretold, name) for name in names} == {name: getattr(result, name) for name in names}
    assert foretold.dropped == result.dropped_counts == {"identical": 1}
    apart = sum(
        len(row.group.prompt_ids) - 1 + len(row.group.replies[reply])
        for step in course.plan[: len(course.plan) // 2]
        for row in (course.rows[at] for at in step.rows)
        if isinstance(row, PreferenceRow)
        for pair in row.sequences
        for reply in pair
    )
    anchors = [course.anchors[at].group for step in course.plan[: len(course.plan) // 2] for at in step.anchors]
    assert foretold.load.apart == apart + sum(group.longest - 1 for group in anchors)
    assert foretold.load.positions < foretold.load.apart


def test_chains_larger_than_a_pass_are_counted_as_they_are_cut(llama: Path, tmp_path: Path) -> None:
    """They were foretold as one pass of all their positions: too few passes, and the largest too large for the memory."""
    settings = DPO.model_copy(update={"batch_pairs": 6, "tokens_per_forward": 50, "anchor_weight": 0.0})
    course = dpo_course(spec_of(llama), make_chains(3), [], settings)
    found = dry_run(course)
    counted: list[int] = []

    class Counting(TrainerCallback):
        def on_train_begin(self, *_: Any, model: torch.nn.Module, **__: Any) -> None:
            def count(_module: Any, _arguments: Any, options: dict[str, Any]) -> None:
                if torch.is_grad_enabled():
                    counted.append(options["input_ids"].numel())

            model.register_forward_pre_hook(count, with_kwargs=True)

    train_dpo(spec_of(llama), make_chains(3), [], settings, tmp_path / "out", callbacks=[Counting()])
    assert (found.load.passes, found.load.positions, found.load.largest) == (len(counted), sum(counted), max(counted))
    assert found.load.passes > 3
    assert len(found.first_batch) < 6


def test_a_trial_loads_the_model_and_times_a_pass(llama: Path) -> None:
    found = dry_run(sft_course(spec_of(llama), make_replies(5), SFT), trial=True)
    assert found.tried
    assert found.path == "blocks"
    assert found.times.train > 0
    assert found.times.reference == 0
    assert dry_run(dpo_course(spec_of(llama), make_pairs(5), make_replies(2), DPO), trial=True).times.reference > 0


@pytest.mark.parametrize("adapted", [True, False])
def test_what_is_counted_without_weights_is_what_the_real_model_keeps_and_computes(adapted: bool, llama: Path) -> None:
    settings = DPO if adapted else DPO.model_copy(update={"lora": None})
    opened = open_policy(spec_of(llama), settings)
    skeleton = Skeleton(opened, settings)
    policy: Any = load_policy(opened, settings).model
    inner = policy.get_base_model() if adapted else policy
    assert skeleton.trainable == sum(weight.numel() for weight in policy.parameters() if weight.requires_grad)
    assert skeleton.parameters == sum(w.numel() for name, w in policy.named_parameters() if "lora_" not in name)
    weights = {each.untyped_storage().data_ptr() for each in (*policy.parameters(), *policy.buffers())}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    tokens = 200
    flops = FlopCounterMode(display=False)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), flops:
        inner.model(input_ids=torch.arange(tokens)[None] % 100, use_cache=False)
    real = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    assert skeleton.cost.counted
    assert skeleton.cost.kept_bytes * tokens == pytest.approx(real, rel=0.08)  # torch's own attention repeats keys for heads
    attention = sum(count for each, count in flops.get_flop_counts()["Global"].items() if "attention" in str(each))
    assert skeleton.cost.flops * tokens == pytest.approx(flops.get_total_flops() - attention, rel=1e-6)


def test_a_model_that_cannot_be_counted_is_taken_roughly(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = open_policy(spec_of(llama), DPO)
    skeleton = Skeleton(opened, DPO)
    counted = skeleton.cost
    rough = Skeleton(opened, DPO)

    def chooses_by_numbers(*_arguments: Any, **_options: Any) -> None:
        bool(torch.zeros((), device="meta"))

    monkeypatch.setattr(rough.inner.model, "forward", chooses_by_numbers)
    assert not rough.cost.counted
    assert 0.5 < rough.cost.kept_bytes / counted.kept_bytes < 2


@given(st.lists(st.lists(st.integers(3, 9), min_size=1, max_size=6), min_size=2, max_size=4), st.integers(0, 5))
def test_every_reply_can_be_read_off_the_pieces(replies: list[list[int]], unscored: int) -> None:
    """Along each reply's pieces stand its tokens; what is learnt is what the batch scores."""
    group = TokenGroup(
        (1, 2, 3),
        tuple(map(tuple, replies)),
        unscored=tuple(((0, unscored),) if unscored < len(reply) else () for reply in replies),
    )
    row = PreferenceRow(group, (Pair("p", 0, 0, 1, 0.9),))
    shown = shown_row(row, TOKENIZER)
    prompt, *branches = shown.pieces
    assert (prompt.replies, prompt.learnt) == ((), False)
    for number, reply in enumerate(replies):
        along = [piece for piece in branches if number in piece.replies]
        assert sum(piece.tokens for piece in along) == len(reply)
    if not unscored:
        assert shown.learnt_tokens == len(pack([group], "tree").slots)
    assert shown.read_tokens == pack([group], "tree").tokens
    assert shown.read_tokens + shown.shared_tokens == sum(map(len, group.inputs()))


def test_turns_that_are_not_learnt_are_shown_as_read() -> None:
    group = TokenGroup((5, 6), ((7, 8, 9, 10),), unscored=(((1, 3),),))
    row = PreferenceRow(group, (Pair("p", 0, 0, 0, 1.0),))
    assert [(piece.tokens, piece.learnt) for piece in shown_row(row, TOKENIZER).pieces] == [
        (2, False),
        (1, True),
        (2, False),
        (1, True),
    ]


def test_a_stage_of_a_run_is_tried_on_the_rows_that_the_run_holds(llama: Path, tmp_path: Path) -> None:
    folder = write_labelled_run(tmp_path / "run")
    held = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    file = write_config(tmp_path, llama, write_prompts(tmp_path / "prompts.jsonl", 4), sft={"epochs": 1})
    config = read_config(file, (), {}).config
    preferences, supervised = (stored_course(config, stage) for stage in (Stage.DPO, Stage.SFT))
    assert dry_run(preferences).trained_rows == len(LABELLED)
    assert dry_run(supervised).trained_rows == len({pair.uid for pair in LABELLED})
    assert preferences.model.place.folder == llama  # the supervised model, of the same shape, is not there yet
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()} == held


def test_unfinished_labels_are_no_rows_to_try(llama: Path, tmp_path: Path) -> None:
    write_labelled_run(tmp_path / "run", labelled=False)
    config = read_config(write_config(tmp_path, llama, write_prompts(tmp_path / "prompts.jsonl", 4)), (), {}).config
    with pytest.raises(StoreError, match="not finished"):
        stored_course(config, Stage.DPO)


PEAK = """
import sys
from pathlib import Path
from training_runs import DPO, make_pairs, spec_of
from cai.training.dpo import train_dpo
settings = DPO.model_copy(update={"lora": DPO.lora if sys.argv[3] == "lora" else None, "batch_pairs": int(sys.argv[4])})
train_dpo(spec_of(Path(sys.argv[1])), make_pairs(int(sys.argv[5])), [], settings, Path(sys.argv[2]))
# Not getrusage: there the peak of the process that forked this one counts too.
(line,) = [line for line in open('/proc/self/status') if line.startswith('VmHWM:')]
print(int(line.split()[1]) * 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(("kind", "batch", "pairs"), [("lora", 12, 24), ("full", 12, 24), ("lora", 6, 240)])
def test_foretold_memory_is_near_the_measured_peak(kind: str, batch: int, pairs: int, tmp_path: Path) -> None:
    """Story: the first two steps were near it, and after forty the process had half as much again, which oneDNN kept."""
    model = make_checkpoint(tmp_path / "model", hidden_size=384, intermediate_size=1536, num_hidden_layers=4)
    settings = DPO.model_copy(update={"lora": DPO.lora if kind == "lora" else None, "batch_pairs": batch})
    foretold = dry_run(dpo_course(spec_of(model), make_pairs(pairs), [], settings)).memory
    command = [sys.executable, "-c", PEAK, str(model), str(tmp_path / "out"), kind, str(batch), str(pairs)]
    folders = {"PYTHONPATH": ":".join(sys.path), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=folders, capture_output=True, text=True, timeout=120, check=True)
    measured = int(done.stdout.split()[-1])
    assert foretold.process_bytes == pytest.approx(measured, rel=0.3), f"{foretold}; measured {measured}"


@pytest.fixture(scope="module", autouse=True)
def _tokenizer(llama: Path) -> None:
    global TOKENIZER  # noqa: PLW0603 - hypothesis calls a test many times: a fixture of its scope would be made once anyway
    TOKENIZER = load_tokenizer(spec_of(llama))


TOKENIZER: Any = None
