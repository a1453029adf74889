"""Step by step beside TRL's SFTTrainer: same model, same conversations, same order, every turn of the assistant learned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import make_checkpoint
from safetensors.torch import load_file
from training_runs import SFT, make_replies, metrics_of, spec_of
from trl_runs import assert_moved_alike, their_arguments, train

from cai.records import SFTRecord
from cai.training.sft import sft_course, train_sft
from constitution.messages import assistant, system, user

MARKED = (  # ChatML, with the marks that TRL takes its mask from
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if m['role'] == 'assistant' %}{% generation %}{{ m['content'] }}"
    "<|im_end|>{% endgeneration %}\n{% else %}{{ m['content'] }}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SETTINGS = SFT.model_copy(update={"lora": None, "turns": "all", "epochs": 1, "batch_rows": 4})


def conversations() -> list[SFTRecord]:
    """Twelve: single turns, several, a system turn, and three replies to one prompt."""
    long = (
        system("Be kind."),
        user("Which is the capital of France, and what is it known for? Say it in one sentence, please."),
    )
    chain = [
        SFTRecord(uid="item", round=n, messages=long, reply=text)
        for n, text in enumerate(("Paris.", "Paris, on the Seine.", "Paris, on the Seine, known for its towers."))
    ]
    turns = [
        SFTRecord(
            uid=f"turns-{n}",
            messages=(user("2 + 2?"), assistant("5." + " Surely." * n), user("Are you sure?")),
            reply="No, it is 4.",
        )
        for n in range(3)
    ]
    return [*chain, *turns, *make_replies(6)]


def test_losses_gradients_and_weights_go_the_same_way(tmp_path: Path) -> None:
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    folder = make_checkpoint(tmp_path / "model")
    (folder / "chat_template.jinja").write_text(MARKED)
    rows = conversations()
    ours = train_sft(spec_of(folder), rows, SETTINGS, tmp_path / "ours")
    course = sft_course(spec_of(folder), rows, SETTINGS)
    order = [at for step in course.plan for at in step.rows]
    assert [len(step.rows) for step in course.plan] == [4, 4, 4]
    told = [
        {"messages": [{"role": m.role, "content": m.content} for m in (*rows[at].messages, assistant(rows[at].reply))]}
        for at in order
    ]
    trainer: Any = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32),
        args=SFTConfig(assistant_only_loss=True, **their_arguments(SETTINGS, batch=4, steps=3, folder=tmp_path / "theirs")),
        train_dataset=Dataset.from_list(told),
        processing_class=AutoTokenizer.from_pretrained(folder),
    )
    theirs, by_them = train(trainer)
    lines = metrics_of(ours.folder)
    assert len(lines) == len(theirs) == 3
    for line, their_line in zip(lines, theirs, strict=True):
        assert line["loss"] == pytest.approx(their_line["loss"], abs=1e-4), line["step"]
        assert line["grad_norm"] == pytest.approx(their_line["grad_norm"], rel=1e-3), line["step"]
    before, after = load_file(folder / "model.safetensors"), load_file(ours.folder / "model.safetensors")
    assert_moved_alike(before, after, by_them, within=0.01)
