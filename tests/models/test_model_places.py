"""Finding a model, and saying what is wrong with it before anything is loaded: each problem with what to do about it."""

from __future__ import annotations

import importlib.util
import json
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from checkpoints import make_checkpoint
from safetensors.torch import save_file

from cai.errors import CaiError, ModelError
from cai.models.checking import check_model
from cai.models.resolving import resolve, resolve_tokenizer
from cai.models.spec import ModelSpec


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_checkpoint(tmp_path / "model", "llama")


def problem(spec: ModelSpec | str | Path, **settings: Any) -> CaiError:
    """The one problem of a model."""
    asked = spec if isinstance(spec, ModelSpec) else ModelSpec(name=str(spec), **settings)
    (only,) = check_model(asked)
    return only


def edit(file: Path, **changes: Any) -> None:
    content = json.loads(file.read_text())
    file.write_text(json.dumps({name: value for name, value in (content | changes).items() if value is not None}))


def test_a_folder_that_save_pretrained_wrote_is_fine(folder: Path) -> None:
    spec = ModelSpec(name=str(folder))
    assert check_model(spec) == []
    place = resolve(spec)
    assert (place.folder, place.adapter, place.source) == (folder, None, f"folder {folder}")


@pytest.mark.parametrize("name", ["./missing", "/no/such/model", "~/no such model", "two words"])
def test_a_folder_that_is_not_there_is_said_to_be_missing(name: str) -> None:
    found = problem(name)
    assert "there is no such folder" in found.problem
    assert "`smollm2-135m`" in found.hint
    with pytest.raises(ModelError, match="there is no such folder"):
        resolve(ModelSpec(name=name))


@pytest.mark.parametrize("name", ["smollm2-135", "smolm2-135m", "SmolLM2-135M-Instruct"])
def test_a_name_that_is_nearly_the_embedded_models_gets_a_hint(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "Did you mean `smollm2-135m`?" in problem(name).hint


def test_a_tokenizer_fetched_for_a_preview_is_no_model_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`cai show` leaves config and tokenizer in the hub cache; a run then still has the weights to fetch."""
    snapshot = tmp_path / "models--some--model" / "snapshots" / "abc"
    make_checkpoint(snapshot, hidden_size=16)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("abc")
    look = huggingface_hub.try_to_load_from_cache
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", partial(look, cache_dir=tmp_path))
    spec = ModelSpec(name="some/model")
    assert check_model(spec) == []
    for weights in snapshot.glob("*.safetensors"):
        weights.unlink()
    assert check_model(spec, weights=False) == []
    (problem,) = check_model(spec)
    assert "not in the local hub cache" in problem.problem


def test_a_preview_fetches_no_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def fetch(name: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append(allow_patterns)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    assert resolve_tokenizer(ModelSpec(name="some/model")) == tmp_path
    assert resolve(ModelSpec(name="some/model")).folder == tmp_path
    tokenizer, everything = asked
    assert not any(fnmatch("model-00001-of-00002.safetensors", pattern) for pattern in tokenizer)
    assert all(any(fnmatch(name, pattern) for pattern in tokenizer) for name in ("tokenizer.json", "chat_template.jinja"))
    assert set(everything) - set(tokenizer) == {"*.safetensors"}


def test_a_hub_id_offline_says_how_to_bring_it_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    found = problem("some-org/some-model-7b")
    assert "HF_HUB_OFFLINE is set" in found.problem
    assert "hf download some-org/some-model-7b" in found.hint
    assert "Did you mean" not in found.hint
    with pytest.raises(ModelError, match="HF_HUB_OFFLINE"):
        resolve(ModelSpec(name="some-org/some-model-7b"))


def test_weights_that_are_missing_cut_off_or_pickled_are_told_apart(folder: Path) -> None:
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-100])
    assert "cut off or damaged" in problem(folder).problem
    weights.write_bytes(b"not weights at all")
    assert "cut off or damaged" in problem(folder).problem
    weights.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n")
    assert "git lfs pull" in problem(folder).hint
    weights.unlink()
    assert "has no .safetensors weights" in problem(folder).problem
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04N.")
    assert "pickles" in problem(folder).problem
    assert "save_pretrained" in problem(folder).hint


def test_a_weight_file_that_the_index_names_and_the_folder_lacks_is_missed(folder: Path) -> None:
    index = {"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors", "c": "model-3.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "2 weight files are missing (model-2.safetensors, model-3.safetensors)" in problem(folder).problem


def test_a_folder_without_config_or_tokenizer_is_no_model(folder: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    assert "has no tokenizer" in problem(folder).problem
    (folder / "config.json").unlink()
    assert {"has no config.json", "has no tokenizer"} <= {
        str(each.problem).split(": ")[1].rstrip(".") for each in check_model(ModelSpec(name=str(folder)))
    }


def test_a_tokenizer_in_a_format_that_nothing_here_reads_is_said_before_loading(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Story: what came up was that `tiktoken` is missing, which would not have helped."""
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.model").write_bytes(b"pieces")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    found = problem(folder)
    assert "its tokenizer (tokenizer.model) is in SentencePiece's format" in found.problem
    assert "pip install sentencepiece" in found.hint


def test_a_folder_of_gguf_files_is_told_from_one_that_lacks_things(tmp_path: Path) -> None:
    (tmp_path / "model.Q4_K_M.gguf").write_bytes(b"GGUF")
    assert "is a folder of GGUF files" in problem(tmp_path).problem


def test_all_problems_are_said_at_once(folder: Path) -> None:
    (folder / "config.json").write_text("{broken")
    (folder / "model.safetensors").unlink()
    problems = check_model(ModelSpec(name=str(folder), adapter="./nowhere", chat_template=Path("none.jinja")))
    assert len(problems) == 4


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_a_file_of_settings_that_is_no_object_is_named(folder: Path, name: str) -> None:
    (folder / name).write_text("[1]")
    assert any(f"{name}: is JSON, but not an object" in str(each) for each in check_model(ModelSpec(name=str(folder))))


def test_a_file_is_no_model_but_its_folder_is(folder: Path) -> None:
    found = problem(folder / "model.safetensors")
    assert "is a file" in found.problem
    assert "folder" in found.hint


def test_an_encoder_decoder_is_refused(folder: Path) -> None:
    edit(folder / "config.json", is_encoder_decoder=True)
    assert "encoder-decoder" in problem(folder).problem


def test_a_base_model_is_refused_with_three_ways_out(tmp_path: Path) -> None:
    base = make_checkpoint(tmp_path / "base", "gpt2")
    found = problem(base)
    assert "no chat template" in found.problem
    assert "chat_template: FILE" in found.hint
    assert "base_model_form: plain" in found.hint
    assert check_model(ModelSpec(name=str(base), base_model_form="plain")) == []
    template = tmp_path / "t.jinja"
    template.write_text("{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}")
    assert check_model(ModelSpec(name=str(base), chat_template=template)) == []


def test_a_broken_template_file_is_refused_with_its_line(folder: Path, tmp_path: Path) -> None:
    template = tmp_path / "t.jinja"
    template.write_text("fine\n{% for m in messages %}\n{{ m.content }\n{% endfor %}")
    assert f"{template}:3" in problem(folder, chat_template=template).problem
    template.write_bytes(b"\xff\xfe")
    assert "UTF-8" in problem(folder, chat_template=template).problem


def adapter(folder: Path, width: int = 64) -> Path:
    folder.mkdir()
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    save_file(
        {"base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight": torch.zeros(4, width)},
        folder / "adapter_model.safetensors",
    )
    return folder


def test_an_adapter_is_checked_too(folder: Path, tmp_path: Path) -> None:
    good = adapter(tmp_path / "good")
    assert check_model(ModelSpec(name=str(folder), adapter=str(good))) == []
    assert resolve(ModelSpec(name=str(folder), adapter=str(good))).adapter == good
    assert "128 wide" in problem(folder, adapter=str(adapter(tmp_path / "other", 128))).problem
    assert "is an adapter, not a model" in check_model(ModelSpec(name=str(good)))[0].problem
    assert "there is no such folder" in problem(folder, adapter="./nowhere").problem
    (good / "adapter_model.safetensors").unlink()
    (good / "adapter_model.bin").write_bytes(b"\x80\x04N.")
    assert "pickles" in problem(folder, adapter=str(good)).problem
    (good / "adapter_config.json").unlink()
    assert "adapter_config.json" in problem(folder, adapter=str(good)).problem


@pytest.mark.parametrize("settings", [{"dtype": "int8"}, {"device": "gpu"}, {"name": ""}, {"unknown": 1}])
def test_settings_that_mean_nothing_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="validation error"):
        ModelSpec.model_validate({"name": "x"} | settings)
