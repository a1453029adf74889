"""Exports through TRL's own trainers, on a tiny model: which columns they take, what they learn, and what they leave unread."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import make_checkpoint
from labelled_runs import PAIRS, labelled_pair, write_labelled_run

from cai.data.exporting import ExportOutcome, format_named
from cai.pipeline.run_exports import export_run
from constitution.rendering import render_plain

LOSS_PAIRS = [labelled_pair("sure", p_chosen=0.95), labelled_pair("unsure", chosen="perhaps", p_chosen=0.5)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("model") / "model")


@pytest.fixture(scope="module")
def tokenizer(model: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(model)


def exported(name: str, tmp_path: Path, model: Path, pairs: Any = PAIRS) -> tuple[Path, ExportOutcome]:
    run = write_labelled_run(tmp_path / "run", pairs)
    return tmp_path / "out", export_run(run, format_named(name), tmp_path / "out", tokenizer=str(model))


def loaded(path: Path) -> Any:
    from datasets import load_dataset

    return load_dataset("json", data_files=str(path), split="train", cache_dir=str(path.parent.parent / "cache"))


ARGUMENTS: dict[str, Any] = {"use_cpu": True, "bf16": False, "report_to": "none", "disable_tqdm": True, "save_strategy": "no"}


def dpo_trainer(model: Path, tokenizer: Any, rows: Any, tmp_path: Path) -> Any:
    from transformers import AutoModelForCausalLM
    from trl.trainer.dpo_config import DPOConfig
    from trl.trainer.dpo_trainer import DPOTrainer

    return DPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(model),
        args=DPOConfig(output_dir=str(tmp_path / "dpo"), **ARGUMENTS),
        train_dataset=rows,
        processing_class=tokenizer,
    )


def test_the_dpo_trainer_takes_the_pairs_and_leaves_the_soft_labels_unread(model: Path, tokenizer: Any, tmp_path: Path) -> None:
    folder, outcome = exported("trl", tmp_path, model)
    trainer = dpo_trainer(model, tokenizer, loaded(folder / "preferences.jsonl"), tmp_path)
    for pair, row in zip(PAIRS, trainer.train_dataset, strict=True):
        turns = [{"role": m.role, "content": m.content} for m in pair.prompt]
        prompt = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
        assert row["prompt_ids"] == prompt
        for name, reply in (("chosen_ids", pair.chosen), ("rejected_ids", pair.rejected)):
            whole = tokenizer.apply_chat_template([*turns, {"role": "assistant", "content": reply}], return_dict=False)
            assert row["prompt_ids"] + row[name] == whole
    batch = next(iter(trainer.get_train_dataloader()))
    assert not {"p_chosen", "margin_nats", "uid"} & set(batch)
    from trl.trainer.dpo_config import DPOConfig

    limit = outcome.written()[0].table.limit
    assert limit is not None
    assert DPOConfig(output_dir=str(tmp_path / "x"), use_cpu=True, bf16=False).max_length == limit.tokens


def test_the_dpo_trainer_reads_plain_text_as_our_plain_form_writes_it(model: Path, tokenizer: Any, tmp_path: Path) -> None:
    folder, _ = exported("trl-standard", tmp_path, model)
    trainer = dpo_trainer(model, tokenizer, loaded(folder / "preferences.jsonl"), tmp_path)
    prompt = PAIRS[3].prompt
    row = trainer.train_dataset[3]
    text = tokenizer.decode(row["prompt_ids"] + row["chosen_ids"])
    assert text == f"{render_plain(prompt).removeprefix(chr(10) * 2)}\n\nAssistant: a better reply{tokenizer.eos_token}"


def test_the_reward_trainer_subtracts_the_margin(model: Path, tokenizer: Any, tmp_path: Path) -> None:
    """Its loss is −log σ(Δ − m) with m the log-odds of the label: by the formula, from its own rewards."""
    from transformers import AutoModelForSequenceClassification
    from trl.trainer.reward_config import RewardConfig
    from trl.trainer.reward_trainer import RewardTrainer

    folder, outcome = exported("trl", tmp_path, model, LOSS_PAIRS)
    trainer: Any = RewardTrainer(
        model=AutoModelForSequenceClassification.from_pretrained(model, num_labels=1),
        args=RewardConfig(output_dir=str(tmp_path / "reward"), per_device_train_batch_size=2, **ARGUMENTS),
        train_dataset=loaded(folder / "reward.jsonl"),
        processing_class=tokenizer,
    )
    assert len(trainer.train_dataset) == 2
    batch = trainer.data_collator([trainer.train_dataset[n] for n in range(2)])
    assert batch["margin"].tolist() == pytest.approx([math.log(0.95 / 0.05), 0.0])
    trainer.model.eval()
    with torch.no_grad():
        loss, outputs = trainer.compute_loss(trainer.model, dict(batch), return_outputs=True)
    chosen, rejected = outputs["logits"].squeeze(-1).chunk(2)
    gaps = (chosen - rejected - batch["margin"]).tolist()
    assert float(loss) == pytest.approx(sum(math.log1p(math.exp(-gap)) for gap in gaps) / 2, rel=1e-5)
    limit = outcome.written()[1].table.limit
    assert limit is not None
    assert trainer.args.max_length == limit.tokens


@pytest.mark.parametrize("name", ["trl", "trl-standard"])
def test_the_supervised_trainer_learns_the_reply_and_nothing_else(
    name: str, model: Path, tokenizer: Any, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    folder, outcome = exported(name, tmp_path, model)
    trainer: Any = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(model),
        args=SFTConfig(output_dir=str(tmp_path / "sft"), **ARGUMENTS),
        train_dataset=loaded(folder / "sft.jsonl"),
        processing_class=tokenizer,
    )
    end = "<|im_end|>\n" if name == "trl" else tokenizer.eos_token
    for row, reply in zip(trainer.train_dataset, ("a better reply", PAIRS[1].chosen, "a better reply"), strict=True):
        batch = trainer.data_collator([row])
        learned = [int(token) for token in batch["labels"][0] if token != -100]
        assert tokenizer.decode(learned) == f"{'' if name == 'trl' else ' '}{reply}{end}"
    limit = outcome.written()[-1].table.limit
    assert limit is not None
    assert trainer.args.max_length == limit.tokens


def test_what_is_over_the_limit_by_our_count_is_what_the_reward_trainer_leaves_out(
    model: Path, tokenizer: Any, tmp_path: Path
) -> None:
    from transformers import AutoModelForSequenceClassification
    from trl.trainer.reward_config import RewardConfig
    from trl.trainer.reward_trainer import RewardTrainer

    pairs = [labelled_pair(str(n), chosen="word " * n) for n in (5, 60, 120, 180, 240, 300, 360)]
    folder, outcome = exported("trl", tmp_path, model, pairs)
    trainer: Any = RewardTrainer(
        model=AutoModelForSequenceClassification.from_pretrained(model, num_labels=1),
        args=RewardConfig(output_dir=str(tmp_path / "reward"), **ARGUMENTS),
        train_dataset=loaded(folder / "reward.jsonl"),
        processing_class=tokenizer,
    )
    lengths = outcome.written()[1].lengths
    assert lengths is not None
    assert 0 < lengths.over < len(pairs)
    assert len(trainer.train_dataset) == len(pairs) - lengths.over
