"""Loading: the weights that the files hold, safetensors only, no code of others, and nothing said that nobody asked for."""

from __future__ import annotations

import json
import logging
import shutil
import time
from pathlib import Path
from typing import Any, cast

import peft
import pytest
import torch
from checkpoints import ARCHITECTURES, Architecture, make_checkpoint
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from cai.errors import ModelError, ProblemList
from cai.models import progress
from cai.models.loading import LoadedModel, choose_dtype, context_length, load_model, load_tokenizer, open_model
from cai.models.spec import ModelSpec
from constitution.messages import user

IDS = torch.arange(3, 40)[None]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("loading") / "model", "llama")


@pytest.fixture(scope="module")
def adapter(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA that changes something: peft begins with zeros."""
    model = cast("Any", AutoModelForCausalLM).from_pretrained(folder)
    wrapped = peft.get_peft_model(model, peft.LoraConfig(r=4, lora_alpha=16, target_modules=["q_proj", "v_proj", "down_proj"]))
    torch.manual_seed(0)
    with torch.no_grad():
        for name, weight in wrapped.named_parameters():
            if "lora_" in name:
                weight.normal_(std=0.1)
    to = tmp_path_factory.mktemp("loading") / "adapter"
    wrapped.save_pretrained(str(to))
    return to


def spec(folder: Path, **settings: Any) -> ModelSpec:
    return ModelSpec.model_validate({"name": str(folder), "dtype": "float32", "device": "cpu"} | settings)


def logits(model: Any) -> Tensor:
    with torch.inference_mode():
        return model(IDS).logits


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_loaded_model_is_the_saved_one(tmp_path: Path, architecture: Architecture) -> None:
    folder = make_checkpoint(tmp_path / "m", architecture)
    loaded = load_model(spec(folder, base_model_form="plain" if architecture == "gpt2" else "auto"))
    expected = cast("Any", AutoModelForCausalLM).from_pretrained(folder, dtype=torch.float32).eval()
    assert torch.equal(logits(loaded.model), logits(expected))
    assert loaded.context_tokens == 2048
    assert not loaded.model.training


def test_the_precision_asked_for_is_the_one_in_memory(folder: Path) -> None:
    loaded = load_model(spec(folder, dtype="bfloat16"))
    assert {weight.dtype for weight in loaded.model.parameters()} == {torch.bfloat16}
    assert choose_dtype(spec(folder), torch.device("cpu")) is torch.float32
    assert choose_dtype(spec(folder, dtype="auto"), torch.device("cpu")) in {torch.float32, torch.bfloat16}


def test_an_adapter_merged_in_equals_the_adapter_around_the_model(folder: Path, adapter: Path) -> None:
    merged = load_model(spec(folder, adapter=str(adapter)))
    around = load_model(spec(folder, adapter=str(adapter)), merge=False)
    plain = load_model(spec(folder))
    assert not isinstance(merged.model, peft.PeftModel)
    assert isinstance(around.model, peft.PeftModel)
    assert any(weight.requires_grad for weight in around.model.parameters())
    torch.testing.assert_close(logits(merged.model), logits(around.model), atol=1e-5, rtol=1e-5)
    assert float((logits(merged.model) - logits(plain.model)).abs().max()) > 0.01


def test_a_small_update_survives_bfloat16(folder: Path, adapter: Path) -> None:
    """Merged in float32 and cast then: as near to the exact weights as bfloat16 gets, half a unit in the last place."""
    exact = dict(load_model(spec(folder, adapter=str(adapter))).model.named_parameters())
    merged = dict(load_model(spec(folder, adapter=str(adapter), dtype="bfloat16")).model.named_parameters())
    for name, weight in merged.items():
        assert torch.equal(weight, exact[name].to(torch.bfloat16))


def fingerprint(folder: Path, **settings: Any) -> str:
    return open_model(spec(folder, **settings)).fingerprint


def test_the_fingerprint_changes_with_what_decides_answers_and_with_nothing_else(
    folder: Path, adapter: Path, tmp_path: Path
) -> None:
    original = fingerprint(folder)
    moved = tmp_path / "moved"
    shutil.copytree(folder, moved)
    (moved / "README.md").write_text("A model card.")
    assert fingerprint(moved) == original

    prints = [original, fingerprint(folder, dtype="bfloat16"), fingerprint(folder, thinking=True)]
    prints.append(fingerprint(folder, base_model_form="plain"))
    prints.append(fingerprint(folder, adapter=str(adapter)))
    template = tmp_path / "t.jinja"
    template.write_text("{% for m in messages %}{{ m.content }}{% endfor %}")
    prints.append(fingerprint(folder, chat_template=template))

    other_adapter = tmp_path / "adapter"
    shutil.copytree(adapter, other_adapter)
    assert fingerprint(folder, adapter=str(other_adapter)) == prints[4]
    nudge(other_adapter / "adapter_model.safetensors")
    prints.append(fingerprint(folder, adapter=str(other_adapter)))

    nudge(moved / "model.safetensors")
    prints.append(fingerprint(moved))
    config = json.loads((moved / "config.json").read_text())
    (moved / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 1e-3}))
    prints.append(fingerprint(moved))
    assert len(set(prints)) == len(prints)


def nudge(file: Path) -> None:
    """Change one number in a weight file."""
    weights = load_file(file)
    first = next(iter(weights.values()))
    first.view(-1)[0] += 1
    save_file(weights, file, metadata={"format": "pt"})


def test_a_weight_file_changed_in_place_has_another_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Digests of large files are kept by path, size and time of change."""
    monkeypatch.setenv("CAI_CACHE", str(tmp_path / "cache"))
    folder = make_checkpoint(tmp_path / "m", "llama", hidden_size=256, intermediate_size=1024)
    assert (folder / "model.safetensors").stat().st_size > 2**20
    first = fingerprint(folder)
    assert fingerprint(folder) == first
    assert len(list((tmp_path / "cache" / "digests").iterdir())) == 1
    nudge(folder / "model.safetensors")
    assert fingerprint(folder) != first
    for kept in (tmp_path / "cache" / "digests").iterdir():
        kept.write_bytes(b"\xff damaged")
    assert fingerprint(folder) != first


def test_weights_are_read_when_they_are_first_needed(folder: Path) -> None:
    opened = open_model(spec(folder))
    assert "model" not in vars(opened)
    assert opened.tokenizer.count((user("Hi"),)) > 0
    assert opened.model is opened.model
    assert load_tokenizer(spec(folder)).template_fingerprint == opened.tokenizer.template_fingerprint


def test_weights_that_no_file_holds_are_refused_and_not_made_up(folder: Path, tmp_path: Path) -> None:
    """Story: transformers fills what is missing with random numbers and only warns."""
    damaged = tmp_path / "m"
    shutil.copytree(folder, damaged)
    weights = load_file(damaged / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, damaged / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"1 of its weights .*layers\.1\.mlp\.up_proj") as caught:
        load_model(spec(damaged))
    assert caught.value.hint


def test_weights_of_another_shape_are_refused(folder: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "m"
    shutil.copytree(folder, damaged)
    config = json.loads((damaged / "config.json").read_text())
    (damaged / "config.json").write_text(json.dumps(config | {"intermediate_size": 96}))
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_model(spec(damaged))


def test_code_that_comes_with_a_model_is_never_run(folder: Path, tmp_path: Path) -> None:
    hostile, ran = tmp_path / "m", tmp_path / "ran"
    shutil.copytree(folder, hostile)
    code = f"from pathlib import Path\nPath({str(ran)!r}).touch()\n"
    code += "from transformers import LlamaConfig as Evil, LlamaForCausalLM as EvilModel\n"
    (hostile / "evil.py").write_text(code)
    config = json.loads((hostile / "config.json").read_text())
    auto_map = {"AutoConfig": "evil.Evil", "AutoModelForCausalLM": "evil.EvilModel"}
    (hostile / "config.json").write_text(json.dumps(config | {"model_type": "evil", "auto_map": auto_map}))
    with pytest.raises(ModelError, match="code from repositories is never run"):
        open_model(spec(hostile))
    # Models that transformers knows often bring code too, for its older versions: its own is used.
    settings = json.loads((hostile / "tokenizer_config.json").read_text())
    (hostile / "tokenizer_config.json").write_text(json.dumps(settings | {"auto_map": {"AutoTokenizer": ["evil.Evil", None]}}))
    (hostile / "config.json").write_text(json.dumps(config | {"auto_map": auto_map}))
    assert torch.equal(logits(load_model(spec(hostile)).model), logits(load_model(spec(folder)).model))
    assert not ran.exists()


def test_problems_that_can_be_seen_are_said_before_loading(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="there is no such folder"):
        open_model(spec(tmp_path / "none"))
    folder = make_checkpoint(tmp_path / "m", "gpt2")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ProblemList) as caught:
        open_model(spec(folder))
    assert len(caught.value.problems) == 2


def test_a_damaged_tokenizer_is_an_error_with_a_hint(folder: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "m"
    shutil.copytree(folder, damaged)
    (damaged / "tokenizer.json").write_text('{"version": "1.0", "model": {"type": "BPE"}}')
    with pytest.raises(ModelError, match="its tokenizer cannot be loaded"):
        open_model(spec(damaged))


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has the device")
def test_a_device_that_is_not_there_is_refused_before_the_weights_are_read(folder: Path) -> None:
    with pytest.raises(ModelError, match="device cuda"):
        open_model(spec(folder, device="cuda"))


@pytest.mark.parametrize(
    ("config", "tokens"),
    [
        ({"max_position_embeddings": 4096}, 4096),
        ({"n_positions": 1024}, 1024),
        ({"text_config": {"max_position_embeddings": 8192}, "max_position_embeddings": 77}, 8192),
        ({}, 2048),
    ],
)
def test_the_context_length_is_the_configs(config: dict[str, Any], tokens: int) -> None:
    assert context_length(config) == tokens


def test_tokens_that_end_an_answer_come_from_the_models_settings_too(tmp_path: Path) -> None:
    """Llama 3 names several; a folder without generation_config.json names them in its config."""
    folder = make_checkpoint(tmp_path / "m", "llama", eos_token_id=[2, 9, 17])
    (folder / "generation_config.json").unlink(missing_ok=True)
    loaded: LoadedModel = open_model(spec(folder))
    assert {2, 9, 17} <= loaded.tokenizer.stop_ids


def test_loading_prints_nothing(folder: Path, adapter: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from transformers.utils import logging as transformers_logging

    transformers_logging.enable_progress_bar()
    try:
        load_model(spec(folder, adapter=str(adapter)))
        assert transformers_logging.is_progress_bar_enabled(), "as it was before"
    finally:
        transformers_logging.disable_progress_bar()
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_what_takes_long_is_said_in_one_line_and_what_does_not_is_not(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, logger="cai.models")
    monkeypatch.setattr(progress, "SLOW_SECONDS", 0.05)
    with progress.said_when_slow("Reading a large model."):
        time.sleep(0.3)
    with progress.said_when_slow("Reading a small model."):
        pass
    time.sleep(0.1)
    assert caplog.messages == ["Reading a large model."]
