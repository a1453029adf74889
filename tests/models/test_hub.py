"""Hub ids, against a hub on this machine: what is there is fetched and loaded, what is not is told apart; offline too."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import peft
import pytest
from checkpoints import make_checkpoint
from hub_server import COMMIT, serve_hub
from transformers import AutoModelForCausalLM

from cai.models.loading import open_model
from cai.models.spec import ModelSpec

CLIENT = Path(__file__).with_name("hub_client.py")


@pytest.fixture(scope="module")
def repositories(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, an adapter for it, a model in pickles, GGUF files only, and one that is gated."""
    root = tmp_path_factory.mktemp("hub")
    model = make_checkpoint(root / "some" / "model", "llama")
    (model / "evil.py").write_text("raise SystemExit")
    (model / "pytorch_model.bin").write_bytes(b"\x80\x04N.")
    weights: Any = AutoModelForCausalLM.from_pretrained(model)
    peft.get_peft_model(weights, peft.LoraConfig(r=2, target_modules=["q_proj"])).save_pretrained(
        str(root / "some" / "adapter")
    )
    pickled = make_checkpoint(root / "some" / "pickles", "llama")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    (root / "some" / "ggufs").mkdir()
    (root / "some" / "ggufs" / "model.Q4_K_M.gguf").write_bytes(b"GGUF")
    (root / "some" / "gated").mkdir()
    return root


@pytest.fixture(scope="module")
def hub(repositories: Path) -> Generator[str]:
    with serve_hub(repositories, gated=frozenset({"some/gated"})) as address:
        yield address


def ask(asked: list[dict[str, Any]], cache: Path, *, endpoint: str, offline: bool = False) -> list[dict[str, Any]]:
    """In a process of its own: the address of the hub is read when its client is imported."""
    settings = {"HF_ENDPOINT": endpoint, "HF_HOME": str(cache), "HF_HUB_OFFLINE": "1" if offline else "0"}
    settings |= {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_XET": "1"}
    ran = subprocess.run(
        [sys.executable, str(CLIENT)],
        input="".join(json.dumps(each) + "\n" for each in asked),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env=os.environ | settings,
    )
    assert ran.returncode == 0, ran.stderr
    return [json.loads(line) for line in ran.stdout.splitlines()]


@pytest.mark.slow
def test_what_is_on_the_hub_is_fetched_and_what_is_not_is_told_apart(hub: str, repositories: Path, tmp_path: Path) -> None:
    """Story: a revision that is not there was said to be a hub that cannot be reached, and so was every adapter offline."""
    adapted = {"name": "some/model", "adapter": "some/adapter"}
    asked: list[dict[str, Any]] = [
        {"name": "some/model", "tokenizer_only": True},
        {"name": "some/model"},
        adapted,
        {"name": "some/model", "revision": "v2"},
        {"name": "some/nothing"},
        {"name": "some/gated"},
        {"name": "some/pickles"},
        {"name": "some/ggufs"},
        {"name": "a--b"},
        {"name": "some/model", "adapter": "some/nothing"},
    ]
    tokenizer, found, with_adapter, *wrong = ask(asked, tmp_path, endpoint=hub)
    local = open_model(ModelSpec(name=str(repositories / "some" / "model")))
    assert tokenizer["tokenizer"] == local.tokenizer.template_fingerprint
    assert found == {"checked": [], "source": f"hub some/model@{COMMIT}", "fingerprint": local.fingerprint}
    assert with_adapter["fingerprint"] != found["fingerprint"]
    problems = [each["problem"] for each in wrong]
    expected = [
        "model some/model: has no branch, tag or commit `v2`.",
        "model some/nothing: there is no such folder here and no such repository on the hub.",
        "model some/gated: its owner asks for consent first.",
        "model some/pickles: its weights are pickles (.bin), which can run code when they are read.",
        "model some/ggufs: has GGUF files only.",
        "model a--b: is neither a folder here nor a possible hub id.",
        "adapter some/nothing: there is no such folder here and no such repository on the hub.",
    ]
    assert [problem.splitlines()[0] for problem in problems] == expected
    assert all("→" in problem for problem in problems)
    fetched = {file.name for file in tmp_path.rglob("snapshots/*/*")}
    assert "model.safetensors" in fetched
    assert not fetched & {"evil.py", "pytorch_model.bin"}, "nothing that could run"

    again = ask([{"name": "some/model"}, adapted, {"name": "some/other"}], tmp_path, endpoint=hub, offline=True)
    assert again[:2] == [found, with_adapter], "from the cache"
    assert "HF_HUB_OFFLINE is set" in again[2]["problem"]
