"""Data set rows as others read them: `datasets`, TRL, and our own training commands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from checkpoints import make_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st

from cai.data.cards import DatasetFacts, dataset_card
from cai.data.rows import FileSuffix, RowKind, preference_rows, sft_records, sft_rows, write_files, write_parquet, write_rows
from cai.data.training_rows import LARGEST_MARGIN, read_preference_rows, read_sft_rows
from cai.errors import DataError
from cai.records import PreferenceRecord, RevisionRecord, Round, SFTRecord, Verdict
from constitution.messages import Message, assistant, system, user

NASTY = 'say "hi", é 日本語 \U0001f600;\r\n\t{{ x }} <script> <|im_end|> \u2028 \\'


def round_of(number: int, revision: str | None, principle: str = "kind") -> Round:
    verdict = Verdict.FAULT if revision is not None else Verdict.NOTHING_TO_CHANGE
    return Round(round=number, principle_id=principle, critique="c", verdict=verdict, revision=revision)


def revision_record(uid: str, *rounds: Round, messages: tuple[Message, ...] = (user("question"),)) -> RevisionRecord:
    return RevisionRecord(uid=uid, replica=1, messages=messages, draft="the draft", rounds=rounds, tags=("t",))


def pair(
    uid: str, *, chosen: str = "better", rejected: str = "worse", prompt: tuple[Message, ...] = (user("q"),)
) -> PreferenceRecord:
    return PreferenceRecord(
        uid=uid,
        replica=2,
        prompt=prompt,
        chosen=chosen,
        rejected=rejected,
        chosen_source="revision",
        rejected_source="draft",
        p_chosen=0.875,
        margin_nats=1.25,
        method="pointwise",
        principle_ids=("kind", "brief"),
    )


TURNS = (system("Be kind."), user("a"), assistant("b"), user(NASTY))
RECORDS = [
    revision_record("one", round_of(0, NASTY), messages=TURNS),
    revision_record("kept", round_of(0, None)),
    revision_record("none"),
    revision_record("twice", round_of(0, "first", "a"), round_of(1, None, "b"), round_of(2, "second", "c")),
]
PAIRS = [pair("one", prompt=TURNS), pair("two", chosen=NASTY, rejected="")]


def rows_of(kind: RowKind) -> list[dict[str, Any]]:
    return list(sft_rows(RECORDS)) if kind == "sft" else list(preference_rows(PAIRS))


KINDS = pytest.mark.parametrize("kind", ["sft", "preferences"])
FORMATS = pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])


# ---- which replies


def test_the_final_reply_of_every_item_is_learned_under_the_principles_that_led_to_it() -> None:
    rows = list(sft_rows(RECORDS))
    assert [(row["uid"], row["messages"][-1]["content"], row["changed"], row["principle_ids"]) for row in rows] == [
        ("one", NASTY, True, ["kind"]),
        ("kept", "the draft", False, ["kind"]),
        ("none", "the draft", False, []),
        ("twice", "second", True, ["a", "b", "c"]),
    ]
    assert rows[0]["messages"][:-1] == [{"role": m.role, "content": m.content} for m in TURNS]


def test_the_revisions_of_all_rounds_can_be_learned_and_drafts_only_where_there_is_none() -> None:
    rows = list(sft_rows(RECORDS, rounds="all"))
    assert [(row["uid"], row["messages"][-1]["content"], row["principle_ids"]) for row in rows[2:]] == [
        ("none", "the draft", []),
        ("twice", "first", ["a"]),
        ("twice", "second", ["a", "b", "c"]),
    ]
    records = list(sft_records(RECORDS, rounds="all"))
    assert [(r.uid, r.reply) for r in records] == [(row["uid"], row["messages"][-1]["content"]) for row in rows]
    assert records[0].messages == TURNS


# ---- files


@KINDS
@FORMATS
def test_datasets_loads_what_was_written(kind: RowKind, suffix: str, tmp_path: Path) -> None:
    from datasets import load_dataset

    rows = rows_of(kind)
    path = tmp_path / f"rows{suffix}"
    assert write_rows(path, rows, kind) == len(rows)
    loaded: Any = load_dataset(
        "parquet" if suffix == ".parquet" else "json", data_files=str(path), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert loaded.to_list() == [dict(sorted(row.items())) for row in rows] == rows
    assert not any(value is None for row in loaded for value in row.values())


@KINDS
@FORMATS
def test_equal_rows_are_equal_bytes(kind: RowKind, suffix: str, tmp_path: Path) -> None:
    for name in ("one", "two"):
        shuffled_keys = [dict(reversed(row.items())) if name == "two" else row for row in rows_of(kind)]
        write_rows(tmp_path / f"{name}{suffix}", shuffled_keys, kind)
    assert (tmp_path / f"one{suffix}").read_bytes() == (tmp_path / f"two{suffix}").read_bytes()


@KINDS
def test_parquet_holds_what_jsonl_holds(kind: RowKind, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    for suffix in (".jsonl", ".parquet"):
        write_rows(tmp_path / f"rows{suffix}", rows_of(kind), kind)
    lines = (tmp_path / "rows.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
    table: Any = pq.read_table(tmp_path / "rows.parquet")
    assert table.to_pylist() == [json.loads(line) for line in lines]


@KINDS
def test_a_file_of_no_rows_keeps_its_columns(kind: RowKind, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    assert write_rows(tmp_path / "rows.parquet", [], kind) == 0
    assert set(pq.read_schema(tmp_path / "rows.parquet").names) == set(rows_of(kind)[0])


def test_large_files_are_written_in_groups_without_being_held_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pyarrow.parquet as pq

    monkeypatch.setattr("cai.data.rows.ROWS_PER_GROUP", 3)
    count = write_parquet(
        tmp_path / "rows.parquet", (row for n in range(8) for row in preference_rows([pair(str(n))])), "preferences"
    )
    file: Any = pq.ParquetFile(tmp_path / "rows.parquet")
    assert (count, file.num_row_groups) == (8, 3)
    assert file.read().column("uid").to_pylist() == [str(n) for n in range(8)]


def test_a_writer_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    write_rows(path, rows_of("sft"), "sft")
    before = path.read_bytes()

    def broken():  # noqa: ANN202, RUF100
        yield rows_of("sft")[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_rows(path, broken(), "sft")
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["rows.parquet"]


# ---- TRL


@FORMATS
def test_trl_takes_preference_rows_for_conversations_with_an_explicit_prompt(suffix: str, tmp_path: Path) -> None:
    from trl.data_utils import apply_chat_template, is_conversational, maybe_extract_prompt

    write_rows(tmp_path / f"rows{suffix}", rows_of("preferences"), "preferences")
    tokenizer = make_tokenizer("llama")
    for row in _loaded(tmp_path / f"rows{suffix}"):
        assert is_conversational(row)
        assert maybe_extract_prompt(dict(row)) == row
        text = apply_chat_template({name: row[name] for name in ("prompt", "chosen", "rejected")}, tokenizer)
        assert text["prompt"].endswith("<|im_start|>assistant\n")
        assert text["chosen"] == f"{row['chosen'][0]['content']}<|im_end|>\n"


@FORMATS
def test_trl_takes_supervised_rows_for_conversations(suffix: str, tmp_path: Path) -> None:
    from trl.data_utils import apply_chat_template, is_conversational

    write_rows(tmp_path / f"rows{suffix}", rows_of("sft"), "sft")
    for row in _loaded(tmp_path / f"rows{suffix}"):
        assert is_conversational(row)
        text = apply_chat_template({"messages": row["messages"]}, make_tokenizer("llama"))["text"]
        assert text.endswith(f"{row['messages'][-1]['content']}<|im_end|>\n")


def test_trls_own_trainer_tokenizes_the_rows_as_ours_does(tmp_path: Path) -> None:
    """The prompt, and the replies up to the end of their turn."""
    from checkpoints import make_checkpoint
    from transformers import AutoModelForCausalLM
    from trl.trainer.dpo_config import DPOConfig
    from trl.trainer.dpo_trainer import DPOTrainer

    from cai.models.loading import load_tokenizer
    from cai.models.spec import ModelSpec

    folder = make_checkpoint(tmp_path / "model")
    coder = load_tokenizer(ModelSpec(name=str(folder), device="cpu"))
    pairs = [pair("one", prompt=(*TURNS[:3], user("c"))), pair("two", chosen="é {{ x }}", rejected="no")]
    write_rows(tmp_path / "rows.jsonl", preference_rows(pairs), "preferences")
    arguments = DPOConfig(output_dir=str(tmp_path / "out"), use_cpu=True, bf16=False, report_to="none", disable_tqdm=True)
    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    trainer: Any = DPOTrainer(
        model=model, args=arguments, train_dataset=_loaded(tmp_path / "rows.jsonl"), processing_class=coder.tokenizer
    )
    for record, row in zip(pairs, trainer.train_dataset, strict=True):
        for name, reply in (("chosen_ids", record.chosen), ("rejected_ids", record.rejected)):
            prompt_ids, reply_ids = coder.encode_reply(record.prompt, reply)
            assert row["prompt_ids"] == prompt_ids
            assert row[name][: len(reply_ids)] == reply_ids
            assert coder.decode(row[name][len(reply_ids) :]).strip() == ""


def _loaded(path: Path) -> Any:
    from datasets import load_dataset

    kind = "parquet" if path.suffix == ".parquet" else "json"
    return load_dataset(kind, data_files=str(path), split="train", cache_dir=str(path.parent / "cache"))


# ---- and back


@FORMATS
def test_pairs_come_back_from_files_as_they_were(suffix: str, tmp_path: Path) -> None:
    write_rows(tmp_path / f"rows{suffix}", preference_rows(PAIRS), "preferences")
    assert read_preference_rows(tmp_path / f"rows{suffix}") == tuple(PAIRS)


@FORMATS
def test_supervised_rows_come_back_from_files_as_they_were(suffix: str, tmp_path: Path) -> None:
    write_rows(tmp_path / f"rows{suffix}", sft_rows(RECORDS), "sft")
    found = list(read_sft_rows(tmp_path / f"rows{suffix}"))
    assert [record.source for record in found] == [f"rows{suffix}:{number}" for number in range(1, len(found) + 1)]
    of_a_run = {"tags": (), "round": None, "source": ""}
    assert [record.model_copy(update=of_a_run) for record in found] == [
        record.model_copy(update=of_a_run) for record in sft_records(RECORDS)
    ]


TEXT = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=30)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(TEXT, TEXT, TEXT), min_size=1, max_size=4))
def test_any_text_comes_back_from_both_formats(
    tmp_path_factory: pytest.TempPathFactory, texts: list[tuple[str, str, str]]
) -> None:
    folder = tmp_path_factory.mktemp("rows")
    pairs = [
        pair(f"u{n}", prompt=(user(prompt),), chosen=chosen, rejected=rejected)
        for n, (prompt, chosen, rejected) in enumerate(texts)
    ]
    for suffix in (".jsonl", ".parquet"):
        write_rows(folder / f"rows{suffix}", preference_rows(pairs), "preferences")
        assert read_preference_rows(folder / f"rows{suffix}") == tuple(pairs)


def write(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_the_real_transcripts_are_pairs_to_train_on(shared_data: Path) -> None:
    """hh-rlhf has no explicit prompt: it is what both transcripts begin with, up to the last reply."""
    path = shared_data / "hh-harmless" / "pairs.jsonl"
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    found = read_preference_rows(path)
    assert len(found) == len(lines)
    for record, line in zip(found, lines, strict=True):
        start, _, reply = line["chosen"].rpartition("\n\nAssistant:")
        assert record.chosen == reply.strip()
        assert record.rejected == line["rejected"].rpartition("\n\nAssistant:")[2].strip()
        assert len(record.prompt) == start.count("\n\nHuman:") + start.count("\n\nAssistant:")
        assert record.prompt[-1].content == start.rpartition("\n\nHuman:")[2].strip()


def test_transcripts_that_part_before_the_last_reply_are_refused(tmp_path: Path) -> None:
    start, other = (f"\n\nHuman: a\n\nAssistant: {reply}\n\nHuman: c\n\nAssistant: d" for reply in ("b", "x"))
    with pytest.raises(DataError, match="do not share their prompt"):
        read_preference_rows(write(tmp_path / "p.jsonl", {"chosen": start, "rejected": other}))


def test_transcripts_give_prompt_and_replies(tmp_path: Path) -> None:
    start = "\n\nHuman: a\n\nAssistant: b\n\nHuman: c"
    path = write(tmp_path / "p.jsonl", {"chosen": f"{start}\n\nAssistant: good", "rejected": f"{start}\n\nAssistant: bad"})
    (found,) = read_preference_rows(path)
    assert found.prompt == (user("a"), assistant("b"), user("c"))
    assert (found.chosen, found.rejected, found.uid) == ("good", "bad", "p.jsonl:1")
    assert (found.p_chosen, found.margin_nats) == (1.0, LARGEST_MARGIN)


def test_other_usual_forms_are_read(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "q"}]
    good, bad = ({"role": "assistant", "content": text} for text in ("good", "bad"))
    path = write(
        tmp_path / "p.jsonl",
        {"prompt": "q", "chosen": "good", "rejected": "bad"},
        {"prompt": turns, "chosen": [good], "rejected": [bad]},
        {"chosen": [*turns, good], "rejected": [*turns, bad]},
    )
    for found in read_preference_rows(path):
        assert (found.prompt, found.chosen, found.rejected) == ((user("q"),), "good", "bad")
    path = write(tmp_path / "s.jsonl", {"messages": [*turns, good]}, {"prompt": "q", "completion": "good"})
    records = list(read_sft_rows(path))
    assert len(records) == 2
    for number, record in enumerate(records, start=1):
        assert record == SFTRecord(uid=record.uid, messages=(user("q"),), reply="good", source=f"s.jsonl:{number}")


@pytest.mark.parametrize(
    ("row", "cause"),
    [
        ({"prompt": "q", "chosen": "x"}, "no rejected"),
        ({"chosen": "x", "rejected": "y"}, "ends with an assistant|end with an assistant|share|user turn"),
        ({"prompt": [], "chosen": "x", "rejected": "y"}, "empty"),
        ({"prompt": 3, "chosen": "x", "rejected": "y"}, "neither text nor a list"),
        ({"prompt": [{"role": "assistant", "content": "x"}], "chosen": "x", "rejected": "y"}, "end with a user turn"),
        ({"prompt": "q", "chosen": "x", "rejected": "y", "p_chosen": 0.2}, "p_chosen"),
        ({"prompt": "q", "chosen": "x", "rejected": "y", "p_chosen": "high"}, "not a finite number"),
        ({"prompt": "q", "chosen": "x", "rejected": "y", "p_chosen": float("nan")}, "not a finite number"),
        ({"prompt": "q", "chosen": [{"role": "user", "content": "x"}], "rejected": "y"}, "one assistant message"),
    ],
)
def test_a_row_that_cannot_be_trained_on_is_named_with_its_cause(row: Any, cause: str, tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", {"prompt": "q", "chosen": "good", "rejected": "bad"}, row)
    with pytest.raises(DataError, match=cause) as caught:
        read_preference_rows(path)
    assert "1 of 2 rows" in caught.value.problem
    assert "p.jsonl:2" in caught.value.problem


def test_many_bad_rows_are_counted_and_the_first_ones_shown(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", *[{"messages": [{"role": "user", "content": "q"}]}] * 25)
    with pytest.raises(DataError, match="25 of 25 rows") as caught:
        list(read_sft_rows(path))
    assert "and 15 more" in caught.value.problem
    assert "does not end with an assistant turn" in caught.value.problem


def test_an_empty_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no rows"):
        list(read_sft_rows(write(tmp_path / "p.jsonl")))


def seven_rows() -> list[dict[str, Any]]:
    return list(sft_rows([revision_record(f"row-{n}") for n in range(7)]))


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
@pytest.mark.parametrize(
    ("count", "per_file", "sizes"),
    [(7, 3, [3, 3, 1]), (6, 3, [3, 3]), (3, 3, [3]), (0, 3, [0]), (7, None, [7])],
)
def test_more_rows_than_asked_for_go_to_several_files_and_those_of_before_are_gone(
    tmp_path: Path, suffix: FileSuffix, count: int, per_file: int | None, sizes: list[int]
) -> None:
    import pyarrow.parquet as pq

    def uids(path: Path) -> list[str]:
        if suffix == "parquet":
            return pq.read_table(path)["uid"].to_pylist()
        return [json.loads(line)["uid"] for line in path.read_text().splitlines()]

    (tmp_path / "notes.txt").write_text("mine")
    for before in (1, 2, None):
        write_files(tmp_path, "sft", suffix, seven_rows(), before)
    names, total = write_files(tmp_path, "sft", suffix, iter(seven_rows()[:count]), per_file)
    assert total == count
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*names, "notes.txt"])
    assert [len(uids(tmp_path / name)) for name in names] == sizes
    assert [uid for name in names for uid in uids(tmp_path / name)] == [f"row-{n}" for n in range(count)]
    numbered = tuple(f"sft-{n:05}-of-{len(sizes):05}.{suffix}" for n in range(1, len(sizes) + 1))
    assert names == (numbered if len(sizes) > 1 else (f"sft.{suffix}",))


def test_several_files_are_found_by_the_card_as_one_data_set(tmp_path: Path) -> None:
    from datasets import load_dataset

    (tmp_path / "set").mkdir()
    write_files(tmp_path / "set", "sft", "jsonl", seven_rows(), 3)
    facts = DatasetFacts(
        name="n",
        files={"sft": {"train": "sft-*-of-*.jsonl"}},
        rows={"sft": 7},
        ledger={},
        models={},
        constitution="c",
        constitution_fingerprint="f",
    )
    (tmp_path / "set" / "README.md").write_text(dataset_card(facts), encoding="utf-8")
    loaded: Any = load_dataset(str(tmp_path / "set"), "sft", cache_dir=str(tmp_path / "cache"))
    assert loaded["train"]["uid"][:] == [f"row-{n}" for n in range(7)]
