"""Reading prompts: every row an item, whatever form people keep them in."""

from __future__ import annotations

import gzip
import json
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prompt_files import REPOSITORY, prompts, read, write

from cai.errors import DataError
from constitution.messages import assistant, system, user

# ---- the forms prompts come in


@pytest.mark.parametrize("column", ["prompt", "question", "instruction"])
def test_plain_prompts_are_found_under_their_usual_names(tmp_path: Path, column: str) -> None:
    result = read(write(tmp_path / "p.jsonl", {column: "one", "x": 1}, {column: "two", "x": 2}))
    assert [item.messages for item in result.items] == [(user("one"),), (user("two"),)]
    assert [item.facts for item in result.items] == [{"x": 1}, {"x": 2}]
    assert [item.source for item in result.items] == ["p.jsonl:1", "p.jsonl:2"]


def test_conversations_are_kept_whole(tmp_path: Path) -> None:
    turns = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
    ]
    foreign = [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}, {"from": "human", "value": "c"}]
    result = read(write(tmp_path / "p.jsonl", {"messages": turns}))
    assert result.items[0].messages == (system("Be kind."), user("a"), assistant("b"), user("c"))
    result = read(write(tmp_path / "q.jsonl", {"conversations": foreign}))
    assert result.items[0].messages == (user("a"), assistant("b"), user("c"))


def test_one_table_reads_the_same_from_every_kind_of_file(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq
    from datasets import Dataset, DatasetDict

    rows = [{"id": f"r{n}", "prompt": f'say "{n}", é;\n{{{{ x }}}} <script>', "tags": "a, b"} for n in range(5)]
    write(tmp_path / "p.jsonl", *rows)
    (tmp_path / "p.json").write_text(json.dumps(rows, indent=2), encoding="utf-8")
    (tmp_path / "q.json").write_text(json.dumps(rows), encoding="utf-8")
    (tmp_path / "p.jsonl.gz").write_bytes(gzip.compress((tmp_path / "p.jsonl").read_bytes()))
    for name, delimiter in (("p.csv", ","), ("semicolons.csv", ";"), ("p.tsv", "\t")):
        quoted = ['"{}"'.format(row["prompt"].replace('"', '""')) for row in rows]
        lines = [delimiter.join((row["id"], text, '"a, b"')) for row, text in zip(rows, quoted, strict=True)]
        text = "\r\n".join([delimiter.join(("id", "prompt", "tags")), *lines, ""])
        (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + text.encode())  # as Excel writes it
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "p.parquet")
    Dataset.from_list(rows).save_to_disk(tmp_path / "folder")
    DatasetDict({"train": Dataset.from_list(rows), "test": Dataset.from_list(rows[:1])}).save_to_disk(tmp_path / "splits")

    names = ["p.json", "q.json", "p.jsonl.gz", "p.csv", "semicolons.csv", "p.tsv", "p.parquet", "folder", "splits"]
    expected = [(i.uid, i.messages, i.tags, i.facts) for i in read(tmp_path / "p.jsonl").items]
    assert expected[0] == ("r0", (user('say "0", é;\n{{ x }} <script>'),), ("a", "b"), {})
    for name in names:
        assert [(i.uid, i.messages, i.tags, i.facts) for i in read(tmp_path / name).items] == expected, name
    assert len(read(tmp_path / "splits", split="test").items) == 1
    with pytest.raises(DataError, match=r"no split 'tset'\. Did you mean 'test'"):
        read(tmp_path / "splits", split="tset")


def test_a_text_file_is_one_prompt_a_line(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_bytes('one\r\n\n  \ntwo é, "x"\nHuman: not a turn'.encode())
    result = read(tmp_path / "p.txt")
    assert prompts(result) == ["one", 'two é, "x"', "Human: not a turn"]
    assert [item.source for item in result.items] == ["p.txt:1", "p.txt:4", "p.txt:5"]


def test_nested_messages_come_from_parquet_too(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [{"messages": [{"role": "user", "content": f"p{n}"}], "score": 0.5, "none": None} for n in range(3)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "p.parquet")
    result = read(tmp_path / "p.parquet")
    assert prompts(result) == ["p0", "p1", "p2"]
    assert result.items[0].facts == {"score": 0.5}


def test_the_input_of_an_instruction_belongs_to_the_prompt(tmp_path: Path) -> None:
    path = write(
        tmp_path / "p.jsonl", {"instruction": "Add.", "input": "1 + 2", "output": "3"}, {"instruction": "Sing.", "input": ""}
    )
    result = read(path)
    assert prompts(result) == ["Add.\n\n1 + 2", "Sing."]
    assert result.items[0].facts == {"output": "3"}


def test_conversations_with_their_answer_are_refused_or_cut_as_asked(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    path = write(tmp_path / "p.jsonl", {"messages": turns})
    with pytest.raises(DataError, match="ends_with_assistant"):
        read(path)
    assert read(path, last_reply="drop").items[0].messages == (user("a"),)


# ---- hh-rlhf transcripts


def test_the_real_transcripts_are_read_without_loss(shared_data: Path) -> None:
    path = shared_data / "hh-harmless" / "pairs.jsonl"
    result = read(path)
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    assert (len(result.items), len(result.failures), result.rows, result.prompts_differ) == (1200, 0, 1200, 0)
    assert sum(len(item.messages) > 1 for item in result.items) == 844
    assert len({item.uid for item in result.items}) == 1200
    for item, row in zip(result.items, rows, strict=True):
        turns = [f"\n\n{'Human' if m.role == 'user' else 'Assistant'}: {m.content}" for m in item.messages]
        # Space around a turn's text is not part of it.
        assert "".join([*turns, "\n\nAssistant: ", item.facts["chosen"]]).split() == row["chosen"].split()
        assert row["rejected"].rstrip().endswith(item.facts["rejected"])


def test_the_example_transcripts_are_multi_turn_and_harmless_to_read() -> None:
    result = read(REPOSITORY / "examples" / "prompts" / "hh-style.jsonl")
    assert (len(result.items), len(result.failures)) == (12, 0)
    assert sum(len(item.messages) > 1 for item in result.items) >= 9
    assert all(item.facts["chosen"] != item.facts["rejected"] for item in result.items)


def test_pairs_whose_prompts_differ_give_what_they_share_and_are_counted(tmp_path: Path) -> None:
    def text(*turns: str) -> str:
        return "".join(f"\n\n{'Human' if n % 2 == 0 else 'Assistant'}: {turn}" for n, turn in enumerate(turns))

    good = [{"chosen": text(f"q{n}", "yes"), "rejected": text(f"q{n}", "no")} for n in range(30)]
    result = read(
        write(
            tmp_path / "p.jsonl",
            *good,
            {"chosen": text("a", "b", "c", "d"), "rejected": text("a", "b", "x", "d")},
            {"chosen": text("a", "b"), "rejected": text("z", "b")},
        )
    )
    assert result.prompts_differ == 1
    assert result.items[-1].messages == (user("a"),)
    assert result.items[-1].facts == {}
    assert [failure.cause for failure in result.failures] == ["prompts_differ"]


def test_a_prompt_column_of_transcripts_is_recognised_and_can_be_forced(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", {"prompt": "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant:"})
    assert read(path).items[0].messages == (user("a"), assistant("b"), user("c"))
    assert list(read(path, format="transcripts").items) == list(read(path).items)
    assert len(read(path, format="jsonl").items[0].messages) == 1


def test_conversations_in_chosen_and_rejected_give_their_prompt(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "a"}]
    row = {
        "chosen": [*turns, {"role": "assistant", "content": "b"}],
        "rejected": [*turns, {"role": "assistant", "content": "c"}],
    }
    item = read(write(tmp_path / "p.jsonl", row)).items[0]
    assert item.messages == (user("a"),)
    assert item.facts == {"chosen": "b", "rejected": "c"}


# ---- who an item is


def test_a_uid_is_the_rows_own_id_or_a_hash_that_other_rows_do_not_move(tmp_path: Path) -> None:
    first = read(write(tmp_path / "a.jsonl", {"prompt": "x"}, {"prompt": "y"}, {"prompt": "x"}))
    more = read(
        write(tmp_path / "b.jsonl", {"prompt": "new"}, {"prompt": "y"}, {"prompt": "x"}, {"prompt": "x"}), system="Be kind."
    )
    uids = [item.uid for item in first.items]
    assert uids[2] == f"{uids[0]}#2"
    assert [item.uid for item in more.items][1:] == [uids[1], uids[0], uids[2]]
    own = write(tmp_path / "c.jsonl", *({"prompt": "x", "key": key} for key in (7, "b", "b", None, "")))
    keys = [item.uid for item in read(own, id_column="key").items]
    assert keys == ["7", "b", "b#2", uids[0], uids[2]]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(["a", "b", "a#2", "a#2#2", "p.jsonl:3"]), min_size=1, max_size=12))
def test_uids_are_unique_whatever_ids_people_use(tmp_path_factory: pytest.TempPathFactory, ids: list[str]) -> None:
    path = write(tmp_path_factory.mktemp("u") / "p.jsonl", *({"prompt": "x", "id": uid} for uid in ids), "{broken")
    result = read(path, max_bad_share=1.0)
    uids = [record.uid for record in (*result.items, *result.failures)]
    assert len(set(uids)) == len(ids) + 1


def test_a_shuffled_choice_depends_on_the_seed_and_survives_new_rows(tmp_path: Path) -> None:
    rows = [{"prompt": f"p{n}"} for n in range(200)]
    path = write(tmp_path / "a.jsonl", *rows)
    seven = prompts(read(path, shuffle_seed=7))
    assert sorted(seven) == sorted(row["prompt"] for row in rows)
    assert seven != prompts(read(path, shuffle_seed=8))
    assert prompts(read(path, shuffle_seed=7, limit=20)) == seven[:20]
    grown = prompts(read(write(tmp_path / "b.jsonl", {"prompt": "new"}, *rows), shuffle_seed=7))
    assert [p for p in grown if p != "new"] == seven


def test_a_limit_reads_no_further_than_it_must(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", *({"prompt": f"p{n}"} for n in range(1000)))
    result = read(path, limit=30)
    assert (len(result.items), result.rows) == (30, 30)


def test_system_and_tags_are_added_where_they_are_missing(tmp_path: Path) -> None:
    own = [{"role": "system", "content": "Mine."}, {"role": "user", "content": "b"}]
    path = write(tmp_path / "p.jsonl", {"messages": [own[1]], "tags": ["x", "y"]}, {"messages": own, "tags": None})
    first, second = read(path, system="Be brief.", tags=("all", "x")).items
    assert first.messages == (system("Be brief."), user("b"))
    assert second.messages == (system("Mine."), user("b"))
    assert (first.tags, second.tags) == (("all", "x", "y"), ("all", "x"))


# ---- bad rows and bad files


def test_control_tokens_templates_and_markup_stay_text(tmp_path: Path) -> None:
    text = (
        "<|im_end|>\n<|im_start|>assistant\n{{ 7*7 }} {% raw %} <script>alert(1)</script> \x00\x1b[31m\u202e\u2028 </s>[INST]"
    )
    for name in ("p.jsonl", "q.csv"):
        path = tmp_path / name
        if name == "q.csv":
            path.write_text('prompt\n"{}"\n'.format(text.replace('"', '""')), encoding="utf-8")
        else:
            write(path, {"prompt": text})
        assert prompts(read(path)) == [text]


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.text(st.characters(codec="utf-8"), min_size=1, max_size=40).filter(
            lambda t: t.strip() and not t.startswith(("\n\nHuman", "Human"))
        ),
        min_size=1,
        max_size=6,
    )
)
def test_any_text_comes_through_jsonl_and_parquet_unchanged(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = tmp_path_factory.mktemp("texts")
    rows = [{"prompt": text} for text in texts]
    pq.write_table(pa.Table.from_pylist(rows), folder / "p.parquet")
    assert prompts(read(write(folder / "p.jsonl", *rows))) == texts
    assert prompts(read(folder / "p.parquet")) == texts


def test_facts_of_any_type_survive_the_store(tmp_path: Path) -> None:
    import datetime

    import pyarrow as pa
    import pyarrow.parquet as pq

    when = datetime.datetime(2026, 11, 24, tzinfo=datetime.UTC)
    row = {"prompt": "a", "when": when, "raw": b"\xff", "nan": float("nan"), "deep": {"list": [1, None]}}
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "p.parquet")
    item = read(tmp_path / "p.parquet").items[0]
    assert type(item).model_validate_json(item.model_dump_json()) == item
    assert item.facts["deep"] == {"list": [1, None]}
    assert item.facts["nan"] == "nan"


def test_reading_takes_time_in_proportion_to_the_rows(tmp_path: Path) -> None:
    """A hundred thousand at most three times as long a row as four thousand, by processor time of this very machine."""

    def seconds_a_row(count: int) -> float:
        path = write(tmp_path / f"{count}.jsonl", *({"prompt": f"question {n} " + "word " * 40} for n in range(count)))
        start = time.process_time()
        assert len(read(path).items) == count
        return (time.process_time() - start) / count

    assert seconds_a_row(100_000) < 3 * max(seconds_a_row(4_000) for _ in range(3))
