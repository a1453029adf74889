"""What of a manifest can be shown: paths and addresses are taken out, and put back as they were."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cai.store import RunFolder
from cai.store.places import with_places, without_places

TEXTS = st.text(max_size=12) | st.sampled_from(
    ["/home/me/x.jsonl", "~/x", "../y", "C:\\u\\z.json", "http://h:1/v1", "folder /a/b", ""]
)
TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXTS,
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(max_size=6), below, max_size=3),
    max_leaves=12,
)


@given(st.dictionaries(st.text(max_size=8), TREES, max_size=4))
def test_both_parts_together_are_the_manifest(tree: dict[str, Any]) -> None:
    shown, places = without_places(tree)
    assert with_places(shown, places) == tree


def test_two_keys_that_differ_in_their_signs_alone_have_two_places() -> None:
    """RFC 6901: ~ is written ~0 before / is written ~1. The other way round both keys would be `a~01b`."""
    tree = {"a/b": "/home/me/x", "a~1b": "/home/me/y"}
    shown, places = without_places(tree)
    assert places == {"/a~1b": "/home/me/x", "/a~01b": "/home/me/y"}
    assert with_places(shown, places) == tree


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/home/me/prompts.jsonl", "prompts.jsonl"),
        ("/", "…"),
        ("~/models/mine", "mine"),
        ("../../me/x", "x"),
        ("..", "…"),
        (r"C:\Users\me\x.json", "x.json"),
        (r"\\server\share\x", "x"),
        ("scripted:/home/me/answers.yaml", "scripted:answers.yaml"),
        ("folder /home/me/model", "folder model"),
        ("http://user:key@machine:8000/v1", "http://…"),
        ("server http://machine:8000/v1", "server http://…"),
        # nobody's machine
        ("Qwen/Qwen2.5-7B-Instruct", "Qwen/Qwen2.5-7B-Instruct"),
        ("shipped:style", "shipped:style"),
        ("examples/prompts.jsonl", "examples/prompts.jsonl"),
        ("hub owner/name@0123", "hub owner/name@0123"),
        ("...", "..."),
    ],
)
def test_paths_and_addresses_are_not_shown(text: str, shown: str) -> None:
    assert without_places({"config": {"a": [text]}})[0] == {"config": {"a": [shown]}}


def test_words_for_models_and_principles_stay_whatever_they_begin_with() -> None:
    tree = {
        "config": {"evaluation": {"system": "/no_think", "showcase": ["/etc is what?"]}, "loop": {"draft": {"stop": ["//"]}}},
        "constitution": {"principles": [{"principle": "/ is a slash.", "source": {"file": "/home/me/rules.md"}}]},
    }
    shown, places = without_places(tree)
    assert shown["config"] == tree["config"]
    assert shown["constitution"]["principles"][0] == {"principle": "/ is a slash.", "source": {"file": "rules.md"}}
    assert places == {"/constitution/principles/0/source/file": "/home/me/rules.md"}


def test_what_is_private_lies_beside_the_manifest_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path / "run") as run:
        run.write_manifest({"version": 2, "config": {"prompts": {"path": str(tmp_path / "p.jsonl")}}})
        assert run.manifest["config"] == {"prompts": {"path": "p.jsonl"}}
        assert run.whole_manifest["config"] == {"prompts": {"path": str(tmp_path / "p.jsonl")}}
    assert str(tmp_path) not in (tmp_path / "run" / "manifest.json").read_text()
    private = tmp_path / "run" / "private.json"
    assert json.loads(private.read_text())["places"] == {"/config/prompts/path": str(tmp_path / "p.jsonl")}
    assert private.stat().st_mode & 0o077 == 0
    private.unlink()
    with RunFolder.open(tmp_path / "run") as run:
        assert run.whole_manifest == run.manifest


def test_a_manifest_of_an_earlier_version_is_kept_before_it_is_written_anew(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path / "run") as run:
        old = '{"version": 1, "seed": 3}'
        (run.path / "manifest.json").write_text(old)
        assert run.manifest == {"version": 1, "seed": 3}
        for _ in range(2):
            run.write_manifest({"version": 2, "seed": 3})
        assert [each.read_text() for each in run.path.glob("manifest-version-*.json")] == [old]
