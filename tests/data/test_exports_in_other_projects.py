"""Exports through the loaders of the projects they are for, where those are installed: their real code, no trainer.

Not part of the development environment: each wants other versions of the same libraries. For what is imported here it is enough
to `pip install --no-deps` llamafactory, axolotl, inverse-cai and alignment-handbook, with addict, colorama, loguru and posthog;
LLaMA-Factory's encoding wants torchaudio, too. The `__init__` modules of some packages, which import everything (LangChain, a
data set of the hub), are passed over: the modules that read data are imported as they are.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from checkpoints import make_checkpoint
from labelled_runs import NASTY, PAIRS, TURNS, labelled_pair, write_labelled_run

from cai.data.exporting import format_named
from cai.pipeline.run_exports import export_run
from constitution.messages import user

ORDINARY = [{"role": each.role, "content": each.content} for each in TURNS]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("model") / "model")


@pytest.fixture
def tokenizer(checkpoint: Path) -> Any:
    """A fresh one for each test: LLaMA-Factory puts a chat template of its own into it."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(checkpoint)


@pytest.fixture
def clean_modules() -> Iterator[None]:
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.partition(".")[0] in {"llamafactory", "axolotl", "inverse_cai", "alignment"}:
            del sys.modules[name]


def real(module: str, *bare: str) -> Any:
    """A module of another project, or a skip; packages in `bare` are entered without their `__init__`."""
    if importlib.util.find_spec(module.partition(".")[0]) is None:
        pytest.skip(f"{module.partition('.')[0]} is not installed")
    for name in bare:
        spec = importlib.util.find_spec(name)
        assert spec is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        return importlib.import_module(module)
    except ImportError as error:
        pytest.skip(f"{module} cannot be imported here: {error}")


def exported(name: str, tmp_path: Path) -> Path:
    run = write_labelled_run(tmp_path / "run")
    export_run(run, format_named(name), tmp_path / "out")
    return tmp_path / "out"


def in_llama_factory(kind: str, tmp_path: Path) -> tuple[Any, Any, Any]:
    """The rows as LLaMA-Factory aligns them, its loader and its arguments."""
    from transformers import Seq2SeqTrainingArguments

    folder = exported("llama-factory", tmp_path)
    loader = real("llamafactory.data.loader", "llamafactory", "llamafactory.data")
    arguments = real("llamafactory.hparams.data_args", "llamafactory.hparams").DataArguments(
        dataset_dir=str(folder), template="chatml"
    )
    (attributes,) = real("llamafactory.data.parser").get_dataset_list([f"cai_{kind}"], str(folder))
    assert attributes.ranking is (kind == "preferences")
    where = SimpleNamespace(cache_dir=str(tmp_path / "cache"), hf_hub_token=None)
    training = Seq2SeqTrainingArguments(output_dir=str(tmp_path / "o"), use_cpu=True, report_to="none")
    return loader._load_single_dataset(attributes, where, arguments, training), loader, arguments


@pytest.mark.usefixtures("clean_modules")
@pytest.mark.parametrize("kind", ["preferences", "sft"])
def test_llama_factory_finds_and_aligns_every_row(kind: str, tmp_path: Path) -> None:
    loaded, _, _ = in_llama_factory(kind, tmp_path)
    assert len(loaded) == (4 if kind == "preferences" else 3)
    first = loaded[0]
    assert (first["_system"], first["_prompt"]) == ("Be kind.", ORDINARY[1:])
    replies = ["a better reply", "a worse reply"] if kind == "preferences" else ["a better reply"]
    assert [each["content"] for each in first["_response"]] == replies


@pytest.mark.usefixtures("clean_modules")
@pytest.mark.parametrize("kind", ["preferences", "sft"])
def test_llama_factory_encodes_every_row(kind: str, tmp_path: Path, tokenizer: Any) -> None:
    loaded, loader, arguments = in_llama_factory(kind, tmp_path)
    template = real("llamafactory.data.template").get_template_and_fix_tokenizer(tokenizer, arguments)
    processor = loader._get_dataset_processor(arguments, "rm" if kind == "preferences" else "sft", template, tokenizer, None)
    encoded = processor.preprocess_dataset(loaded.to_dict())
    assert {len(column) for column in encoded.values()} == {len(loaded)}


@pytest.mark.usefixtures("clean_modules")
def test_axolotl_renders_pairs_and_finds_every_reply_again(
    tmp_path: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AXOLOTL_DO_NOT_TRACK", "1")
    folder = exported("axolotl", tmp_path)
    strategy = real("axolotl.prompt_strategies.dpo.chat_template", "axolotl.prompt_strategies")
    wrap = real("axolotl.utils.dict").DictDefault
    settings = wrap(yaml.safe_load((folder / "axolotl-preferences.yml").read_text()))
    assert settings.rl == "dpo"
    assert settings.datasets[0]["type"] == "chat_template.default"
    transform, _ = strategy.default(settings)
    rows = [transform(row, tokenizer) for row in _loaded(folder / settings.datasets[0]["path"], tmp_path)]
    assert [row["chosen"] for row in rows] == [f"{pair.chosen}<|im_end|>" for pair in PAIRS]
    assert [row["rejected"] for row in rows] == [f"{pair.rejected}<|im_end|>" for pair in PAIRS]
    assert rows[0]["prompt"] == tokenizer.apply_chat_template(ORDINARY, tokenize=False, add_generation_prompt=True)


@pytest.mark.usefixtures("clean_modules")
def test_axolotl_learns_the_last_reply_and_nothing_else(
    tmp_path: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AXOLOTL_DO_NOT_TRACK", "1")
    folder = exported("axolotl", tmp_path)
    strategies = real("axolotl.prompt_strategies.chat_template")
    wrap = real("axolotl.utils.dict").DictDefault
    settings = wrap(yaml.safe_load((folder / "axolotl-sft.yml").read_text()))
    one = settings.datasets[0]
    strategy = strategies.load(tokenizer, wrap({"sequence_len": 512, "chat_template": "tokenizer_default"}), ds_cfg=one)
    for row, reply in zip(_loaded(folder / one["path"], tmp_path), ["a better reply", NASTY, "a better reply"], strict=True):
        made = strategy.tokenize_prompt(row)
        learned = [token for token, label in zip(made["input_ids"], made["labels"], strict=True) if label != -100]
        assert tokenizer.decode(learned) == f"{reply}<|im_end|>"


@pytest.mark.usefixtures("clean_modules")
def test_inverse_cai_loads_the_pairs_and_merges_them(tmp_path: Path) -> None:
    folder = exported("inverse-cai", tmp_path)
    standard = real("inverse_cai.data.loader.standard", "inverse_cai", "inverse_cai.data", "inverse_cai.data.loader")
    frame = standard.load(folder / "annotated_pairs.json", merge_prompts=False)
    assert len(frame) == len(PAIRS)
    for pair, (_, row) in zip(PAIRS, frame.iterrows(), strict=True):
        other = {"text_a": "text_b", "text_b": "text_a"}[row["preferred_text"]]
        assert (row[row["preferred_text"]], row[other]) == (pair.chosen, pair.rejected)
    assert frame["prompt"][1] == "q"
    pairs_format = real("inverse_cai.data.annotated_pairs_format")
    content = pairs_format.load_annotated_pairs_from_file(folder / "annotated_pairs.json")
    assert content["metadata"]["version"] == pairs_format.FORMAT_VERSION
    merged = pairs_format.merge_annotated_pairs([content, content])
    assert merged["comparisons"] == content["comparisons"]


@pytest.mark.usefixtures("clean_modules")
def test_inverse_cai_loads_hh_rlhf_as_anthropics_data(tmp_path: Path) -> None:
    run = write_labelled_run(tmp_path / "run", PAIRS[1:])
    export_run(run, format_named("hh-rlhf"), tmp_path / "out", threshold=0.5)
    anthropic = real("inverse_cai.data.loader.anthropic", "inverse_cai", "inverse_cai.data", "inverse_cai.data.loader")
    frame = anthropic.load_original_jsonl_file(tmp_path / "out" / "preferences.jsonl")
    assert list(frame["preferred_text"]) == ["text_a"] * 3
    assert frame["text_a"][2] == "\n\nHuman: x\n\nAssistant: y\n\nHuman: z\n\nAssistant: a better reply"


@pytest.mark.usefixtures("clean_modules")
@pytest.mark.parametrize("split", [None, 0.5])
def test_the_alignment_handbook_mixes_the_splits_and_renders_them(
    split: float | None, tmp_path: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    more = [labelled_pair(str(n), prompt=(user(f"question {n}"),)) for n in range(9)]
    run = write_labelled_run(tmp_path / "run", [*PAIRS, *more])
    folder = tmp_path / "out"
    export_run(run, format_named("alignment-handbook"), folder, test_share=split)
    data = real("alignment.data", "alignment")
    for name, column in (("preferences", "chosen"), ("sft", "messages")):
        recipe = yaml.safe_load((folder / f"recipe-{name}.yaml").read_text())
        mixed = data.get_datasets(
            {str(folder): recipe["dataset_mixer"]["PATH"]},
            splits=recipe["dataset_splits"],
            configs=recipe["dataset_configs"],
            columns_to_keep=["chosen", "rejected", "messages"],
            shuffle=False,
        )
        assert set(mixed) == ({"train"} if split is None else {"train", "test"})
        rows = [row for part in mixed.values() for row in part]
        assert len(rows) == (13 if name == "preferences" else 12)
        row = next(each for each in rows if each[column][0]["content"] == "Be kind.")
        task = "dpo" if name == "preferences" else "sft"
        made = data.apply_chat_template(row, tokenizer, task, auto_insert_empty_system_msg=False)
        if task == "dpo":
            assert made["text_prompt"] == tokenizer.apply_chat_template(ORDINARY, tokenize=False)
            assert made["text_chosen"] == "<|im_start|>assistant\na better reply<|im_end|>\n"
        else:
            assert made["text"].endswith("<|im_start|>assistant\na better reply<|im_end|>\n")


def _loaded(path: Path, tmp_path: Path) -> Any:
    from datasets import load_dataset

    return load_dataset("json", data_files=str(path), split="train", cache_dir=str(tmp_path / "cache"))
