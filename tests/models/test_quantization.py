"""Quantised weights: made while they are read, or stored so; what is missing is said before anything is loaded.

The tests of bitsandbytes and torchao run where those are installed; both work on CPUs.
"""

from __future__ import annotations

import importlib.util
import json
import logging
from pathlib import Path
from typing import Any, cast

import peft
import pytest
import torch
from checkpoints import make_checkpoint, make_tokenizer
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, GptOssConfig

from cai.config import RunConfig
from cai.engines.base import Generation, GenerationRequest, SamplingParams
from cai.engines.local import LocalEngine
from cai.errors import ModelError, ProblemList
from cai.models.checking import check_model, check_trainable
from cai.models.loading import LoadedModel, load_model, open_model
from cai.models.spec import ModelSpec, Quantization
from cai.pipeline.preflight import read_inputs
from cai.training.policy import open_policy
from cai.training.settings import DPOSettings
from constitution.messages import user

PACKAGES: dict[Quantization, str] = {
    "bnb-4bit": "bitsandbytes",
    "bnb-8bit": "bitsandbytes",
    "torchao-int8": "torchao",
    "torchao-fp8": "torchao",
}
LARGEST_ERROR: dict[Quantization, float] = {"bnb-4bit": 0.5, "bnb-8bit": 0.1, "torchao-int8": 0.1, "torchao-fp8": 0.2}
"""Of the logits, as a share of their largest; measured: 0.31, 0.04, 0.03 and 0.11."""
WANTED = tuple(PACKAGES)
IDS = torch.arange(3, 40)[None]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    size: dict[str, Any] = {"hidden_size": 128, "intermediate_size": 256}
    return make_checkpoint(tmp_path_factory.mktemp("quantised") / "model", "llama", **size)


def spec(folder: Path, **settings: Any) -> ModelSpec:
    return ModelSpec.model_validate({"name": str(folder), "dtype": "bfloat16", "device": "cpu"} | settings)


def logits(loaded: LoadedModel) -> Tensor:
    with torch.inference_mode():
        return cast("Any", loaded.model)(IDS).logits.float()


def stored_as(folder: Path, **settings: Any) -> Path:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": settings}))
    return folder


@pytest.mark.parametrize("wanted", WANTED)
def test_quantised_weights_are_smaller_and_nearly_the_same(
    folder: Path, wanted: Quantization, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip(PACKAGES[wanted])
    caplog.set_level(logging.INFO, logger="cai.models")
    full, small = load_model(spec(folder)), load_model(spec(folder, quantization=wanted))
    expected = logits(full)
    assert float((logits(small) - expected).abs().max()) < LARGEST_ERROR[wanted] * float(expected.abs().max())
    assert full.fingerprint != small.fingerprint
    whole, reduced = caplog.messages
    assert whole.endswith("361k parameters, bfloat16, cpu, 722 kB of weights.")
    assert f"361k parameters, {wanted}, computing in bfloat16, cpu, " in reduced
    assert int(reduced.rpartition(", ")[2].split(" kB")[0]) < 450
    ((_, answer),) = LocalEngine(small).generate([GenerationRequest((user("Hi"),), SamplingParams(max_tokens=4), "key")])
    assert isinstance(answer, Generation)
    assert answer.completion_tokens == 4


@pytest.mark.parametrize("wanted", ["bnb-4bit", "torchao-int8"])
def test_an_adapter_stays_beside_quantised_weights(folder: Path, tmp_path: Path, wanted: Quantization) -> None:
    pytest.importorskip(PACKAGES[wanted])
    model = cast("Any", AutoModelForCausalLM).from_pretrained(folder)
    wrapped = peft.get_peft_model(model, peft.LoraConfig(r=4, lora_alpha=16, target_modules=["q_proj", "v_proj"]))
    torch.manual_seed(0)
    with torch.no_grad():
        for name, weight in wrapped.named_parameters():
            if "lora_" in name:
                weight.normal_(std=0.1)
    wrapped.save_pretrained(str(tmp_path))
    exact = logits(load_model(spec(folder, adapter=str(tmp_path))))
    beside = logits(load_model(spec(folder, adapter=str(tmp_path), quantization=wanted)))
    without = logits(load_model(spec(folder, quantization=wanted)))
    assert float((beside - exact).abs().max()) < 0.5 * float((without - exact).abs().max())


@pytest.mark.parametrize("wanted", ["bnb-4bit", "bnb-8bit", "torchao-int8"])
def test_a_checkpoint_that_was_saved_quantised_is_loaded_as_it_is(
    folder: Path, tmp_path: Path, wanted: Quantization, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip(PACKAGES[wanted])
    small = load_model(spec(folder, quantization=wanted))
    cast("Any", small.model).save_pretrained(tmp_path)
    cast("Any", small.tokenizer.tokenizer).save_pretrained(tmp_path)
    caplog.set_level(logging.INFO, logger="cai.models")
    again = load_model(spec(tmp_path))
    torch.testing.assert_close(logits(again), logits(small))
    assert PACKAGES[wanted] in str(again.quantization)
    assert f"{again.quantization}, computing in bfloat16" in caplog.messages[-1]
    assert again.fingerprint not in {small.fingerprint, open_model(spec(folder)).fingerprint}
    (problem,) = check_model(spec(tmp_path, quantization=wanted))
    assert "cannot be quantised again" in problem.problem


@pytest.mark.parametrize("wanted", WANTED)
def test_a_package_that_is_missing_is_named_before_anything_is_loaded(
    folder: Path, wanted: Quantization, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in PACKAGES.values() else find(name))
    (problem,) = check_model(spec(folder, quantization=wanted))
    assert problem.problem == f"quantization {wanted} needs the package `{PACKAGES[wanted]}`."
    assert problem.hint == f"Install: pip install {PACKAGES[wanted]}"
    with pytest.raises(ModelError, match="needs the package"):
        open_model(spec(folder, quantization=wanted))


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({"quant_method": "awq", "bits": 4}, "gptqmodel"),
        ({"quant_method": "gptq", "bits": 4}, "optimum gptqmodel"),
        ({"quant_method": "compressed-tensors"}, "compressed-tensors"),
        ({"load_in_4bit": True}, "bitsandbytes"),
    ],
)
def test_what_a_quantised_checkpoint_needs_is_named(
    tmp_path: Path, settings: dict[str, Any], names: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    (problem,) = check_model(spec(stored_as(make_checkpoint(tmp_path / "m", "llama"), **settings)))
    assert f"pip install {names}" in problem.hint


def test_a_method_that_transformers_does_not_know_is_refused(tmp_path: Path) -> None:
    """transformers only warns, and reads the packed integers as weights."""
    (problem,) = check_model(spec(stored_as(make_checkpoint(tmp_path / "m", "llama"), quant_method="secret-3bit")))
    assert "`secret-3bit`" in problem.problem


def eight_bit_floats(weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Weights in FP8, their scales for each block of 128 × 128, and what they stand for."""
    scale = weight.abs().max() / 448
    packed = (weight / scale).to(torch.float8_e4m3fn)
    blocks = [(size + 127) // 128 for size in weight.shape]
    return packed, torch.full(blocks, float(scale)), packed.float() * scale


def test_an_fp8_checkpoint_becomes_ordinary_weights_where_no_kernels_are(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As DeepSeek V3 and the FP8 variants of Qwen 3 are stored."""
    size: dict[str, Any] = {"hidden_size": 128, "intermediate_size": 256}
    folder = stored_as(
        make_checkpoint(tmp_path / "m", "llama", **size), quant_method="fp8", weight_block_size=[128, 128], fmt="e4m3"
    )
    stored: dict[str, Tensor] = {}
    expected: dict[str, Tensor] = {}
    for name, weight in load_file(folder / "model.safetensors").items():
        stored[name] = weight
        if "proj" in name:
            stored[name], stored[f"{name}_scale_inv"], expected[name] = eight_bit_floats(weight)
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    caplog.set_level(logging.INFO, logger="cai.models")
    loaded = load_model(spec(folder, dtype="float32"))
    weights = dict(loaded.model.named_parameters())
    assert len(expected) == 14
    for name, weight in expected.items():
        torch.testing.assert_close(weights[name].detach(), weight)
    assert "float32 from fp8" in caplog.messages[-1]


def test_an_mxfp4_checkpoint_becomes_ordinary_weights_where_no_kernels_are(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As gpt-oss is stored: experts in blocks of 32 numbers of 4 bits with a common exponent."""
    config = GptOssConfig(
        vocab_size=512,
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        num_local_experts=2,
        num_experts_per_tok=1,
        pad_token_id=0,
        eos_token_id=0,
    )
    cast("Any", AutoModelForCausalLM).from_config(config).to(torch.bfloat16).save_pretrained(tmp_path)
    make_tokenizer("llama").save_pretrained(tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    for name in [each for each in stored if each.endswith(("experts.gate_up_proj", "experts.down_proj"))]:
        experts, inputs, outputs = stored.pop(name).shape
        stored[f"{name}_blocks"] = torch.full((experts, outputs, inputs // 32, 16), 0x42, dtype=torch.uint8)
        stored[f"{name}_scales"] = torch.full((experts, outputs, inputs // 32), 126, dtype=torch.uint8)
    save_file(stored, tmp_path / "model.safetensors", metadata={"format": "pt"})
    stored_as(tmp_path, quant_method="mxfp4", modules_to_not_convert=["lm_head"])
    caplog.set_level(logging.INFO, logger="cai.models")
    loaded = load_model(spec(tmp_path))
    weight = dict(loaded.model.named_parameters())["model.layers.0.mlp.experts.down_proj"].detach().float()
    assert weight.shape == (2, 64, 64)
    # E2M1: 0x2 stands for 1, 0x4 for 2; the exponent 126 for 2^-1.
    assert weight.unique().tolist() == [0.5, 1.0]
    assert "bfloat16 from mxfp4" in caplog.messages[-1]


def test_a_quantised_policy_is_refused_for_training_before_anything_is_loaded(folder: Path, tmp_path: Path) -> None:
    stored = stored_as(make_checkpoint(tmp_path / "m", "llama"), quant_method="fp8")
    for refused in (spec(folder, quantization="bnb-4bit"), spec(stored)):
        (problem,) = check_trainable(refused)
        assert "cannot hold the small steps of training" in problem.problem
    with pytest.raises(ModelError, match="small steps of training"):
        open_policy(spec(stored), DPOSettings())
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "Hi"}\n')
    config = {"policy": {"name": str(stored)}, "prompts": {"path": str(prompts)}, "run": str(tmp_path / "run")}
    with pytest.raises(ProblemList, match="small steps of training"):
        read_inputs(RunConfig.model_validate(config))
    assert read_inputs(RunConfig.model_validate(config | {"dpo": None})).items
