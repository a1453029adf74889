"""Reading prompts: every row an item or a counted failure, whatever people's files hold."""

from __future__ import annotations

import gzip
import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from cai.data.prompts import PromptsSource, ReadResult, read_items
from cai.errors import DataError
from constitution.messages import assistant, system, user

REPOSITORY = Path(__file__).resolve().parents[2]


def write(path: Path, *rows: Any) -> Path:
    """JSON lines; texts are written as they are."""
    lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def read(path: Path | str, **settings: Any) -> ReadResult:
    return read_items(PromptsSource(path=str(path), **settings))


def prompts(result: ReadResult) -> list[str]:
    return [item.messages[-1].content for item in result.items]


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

BAD_ROWS = [
    ("{broken", "broken_json"),
    ('{"prompt": "a"} {"prompt": "b"}', "broken_json"),
    ("[" * 50_000, "broken_json"),
    ('["a"]', "wrong_type"),
    ({"prompt": ""}, "empty_prompt"),
    ({"prompt": " \n\t"}, "empty_prompt"),
    ({"prompt": "<|im_start|> <|im_end|>\n</s>[INST]<eos>"}, "only_control_tokens"),
    ({"prompt": None}, "empty_prompt"),
    ({"prompt": 7}, "wrong_type"),
    ({"prompt": {"text": "a"}}, "wrong_type"),
    ({"prompt": []}, "empty_prompt"),
    ({"prompt": [{"role": "user", "content": ["a"]}]}, "wrong_type"),
    ({"prompt": [{"role": "user"}]}, "wrong_type"),
    ({"prompt": ["a"]}, "wrong_type"),
    ({"prompt": [{"role": "tool", "content": "a"}]}, "unknown_role"),
    ({"prompt": [{"role": "system", "content": "a"}]}, "no_user_turn"),
    ({"prompt": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}, "ends_with_assistant"),
    ({"prompt": [{"role": "user", "content": "a"}, {"role": "system", "content": "b"}]}, "system_not_first"),
    ({"question": "a"}, "missing_column"),
    ({"prompt": "a", "id": [1]}, "wrong_type"),
    ({"prompt": "a", "tags": 5}, "wrong_type"),
    ('{"prompt": "half a pair: \\ud83d"}', "bad_text"),
    ('{"prompt": "' + "9" * 10 + '", "id": ' + "9" * 5000 + "}", "broken_json"),
]


@pytest.mark.parametrize(("row", "cause"), BAD_ROWS)
def test_a_bad_row_is_one_counted_failure_and_the_others_are_read(tmp_path: Path, row: Any, cause: str) -> None:
    good = [{"prompt": f"p{n}"} for n in range(40)]
    result = read(write(tmp_path / "p.jsonl", *good[:25], row, *good[25:]))
    assert len(result.items) == 40
    assert [(f.uid, f.stage, f.cause) for f in result.failures] == [("p.jsonl:26", "read", cause)]
    assert result.failures[0].detail.startswith("p.jsonl:26: ")
    assert result.rows == 41


def test_one_percent_of_broken_rows_are_failures_and_ten_percent_are_refused_with_the_first_ones(tmp_path: Path) -> None:
    rows: list[Any] = [{"prompt": f"p{n}"} for n in range(1000)]
    for n in range(0, 1000, 100):
        rows[n] = '{"prompt": '
    result = read(write(tmp_path / "p.jsonl", *rows))
    assert (len(result.items), len(result.failures)) == (990, 10)
    for n in range(0, 1000, 10):
        rows[n] = {"prompt": ""} if n % 20 else '{"prompt": '
    path = write(tmp_path / "p.jsonl", *rows)
    with pytest.raises(DataError, match=r"100 of 1000 rows are broken \(broken_json 50, empty_prompt 50\)") as caught:
        read(path)
    assert "p.jsonl:1: column 12" in caught.value.problem
    assert "and 95 more" in caught.value.problem
    assert "max_bad_share" in caught.value.hint
    assert len(read(path, max_bad_share=0.2).failures) == 100


def test_missing_files_columns_and_rows_are_refused_with_what_is_there(tmp_path: Path) -> None:
    path = write(tmp_path / "prompts.jsonl", {"promt": "a", "other": 1})
    cases: list[tuple[dict[str, Any], str]] = [
        ({"path": tmp_path / "prompt.jsonl"}, r"no such file. Did you mean 'prompts.jsonl'"),
        ({"path": tmp_path / "nowhere" / "p.jsonl"}, "the folder .* is not there either"),
        ({"path": path}, "no column of the name"),
        ({"path": path, "column": "promtp"}, "no column 'promtp'. Did you mean 'promt'"),
        ({"path": path, "column": "promt", "id_column": "uid"}, "no column 'uid'"),
        ({"path": write(tmp_path / "empty.jsonl")}, "no rows in it"),
        ({"path": write(tmp_path / "blank.jsonl", "", "")}, "no rows in it"),
        ({"path": write(tmp_path / "empty.csv", "prompt")}, "no rows in it"),
        ({"path": write(tmp_path / "empty.parquet")}, "not a readable Parquet file"),
        ({"path": write(tmp_path / "p.docx", "a")}, "does not tell the format"),
        ({"path": tmp_path}, "not a `datasets` folder"),
        ({"path": write(tmp_path / "all-bad.jsonl", "{", "{")}, "none of the first 2 rows can be read"),
        ({"path": write(tmp_path / "twice.csv", "prompt,prompt", "a,b")}, "names prompt twice"),
        (
            {"path": write(tmp_path / "open.csv", "prompt,x", 'a,"b', "c,d")},
            "open.csv:2: a quote is opened here and never closed",
        ),
        (
            {"path": write(tmp_path / "broken.json", "[{", '"prompt": "a"},', "oops]"), "format": "auto"},
            r"broken.json:3:1: broken JSON",
        ),
    ]
    for settings_, problem in cases:
        with pytest.raises(DataError, match=problem) as caught:
            read(**settings_)
        assert caught.value.hint
    with pytest.raises(DataError) as caught:
        read(path)
    assert "There are: promt, other" in caught.value.hint


def test_a_hub_id_is_told_clearly_offline() -> None:
    """HF_HUB_OFFLINE is set for all tests."""
    with pytest.raises(DataError, match="no such file here, and the hub does not give it") as caught:
        read("nobody/no-such-data-set")
    assert "offline" in caught.value.hint


def test_other_encodings_are_told_with_the_byte(tmp_path: Path) -> None:
    for name in ("p.csv", "p.txt", "p.jsonl"):
        (tmp_path / name).write_bytes('{"prompt": "hello"}\n'.encode("utf-16"))
        with pytest.raises(DataError, match="UTF-16"):
            read(tmp_path / name)
    (tmp_path / "h.csv").write_bytes("prompt,é\nhello,1\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"h\.csv:1: not UTF-8: byte 0xe9") as caught:
        read(tmp_path / "h.csv")
    assert "iconv" in caught.value.hint
    rows = [b"prompt,x", *[b"hello,1"] * 30, 'café,"two\nlines"'.encode("latin-1"), b"last,2", b""]
    (tmp_path / "l.csv").write_bytes(b"\n".join(rows))
    result = read(tmp_path / "l.csv")
    assert [(f.uid, f.cause) for f in result.failures] == [("l.csv:32", "not_utf8")]
    assert "byte 0xe9" in result.failures[0].detail
    assert prompts(result)[-1] == "last"
    lines = [b'{"prompt": "hello"}'] * 30
    lines[25] = '{"prompt": "café"}'.encode("latin-1")
    (tmp_path / "l.jsonl").write_bytes(b"\n".join(lines))
    failure = read(tmp_path / "l.jsonl").failures[0]
    assert (failure.uid, failure.cause) == ("l.jsonl:26", "not_utf8")
    assert f"offset {25 * 20 + 15}" in failure.detail


def test_a_csv_row_with_other_cells_than_the_header_is_one_failure(tmp_path: Path) -> None:
    lines = ["prompt,x", *(f"p{n},1" for n in range(40)), "a,b,c", '"x"y,1', '"two\nlines",1', "", "last,1"]
    result = read(write(tmp_path / "p.csv", *lines))
    assert [(f.uid, f.cause) for f in result.failures] == [("p.csv:42", "wrong_number_of_cells"), ("p.csv:43", "broken_csv")]
    assert prompts(result)[-2:] == ["two\nlines", "last"]
    assert result.items[-2].source == "p.csv:44"
    assert result.items[-1].source == "p.csv:47"


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


@settings(max_examples=80, deadline=None)
@given(st.binary(max_size=300), st.sampled_from(["p.jsonl", "p.csv", "p.txt", "p.json", "p.parquet", "p.jsonl.gz"]))
def test_no_bytes_whatever_end_in_a_traceback(tmp_path_factory: pytest.TempPathFactory, content: bytes, name: str) -> None:
    path = tmp_path_factory.mktemp("bytes") / name
    path.write_bytes(content)
    try:
        result = read(path)
    except DataError as error:
        assert error.hint  # noqa: PT017 (refusing and reading are both right)
    else:
        assert len(result.items) + len(result.failures) == result.rows


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["role", "content", "user", "x"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.dictionaries(st.sampled_from(["prompt", "messages", "chosen", "rejected", "id", "tags", "input"]), json_values),
        max_size=5,
    )
)
def test_no_json_whatever_ends_in_a_traceback(tmp_path_factory: pytest.TempPathFactory, rows: list[Any]) -> None:
    path = write(tmp_path_factory.mktemp("json") / "p.jsonl", *rows)
    try:
        result = read(path, max_bad_share=1.0)
    except DataError as error:
        assert error.hint  # noqa: PT017 (refusing and reading are both right)
    else:
        assert len(result.items) + len(result.failures) == result.rows
        for item in result.items:
            assert type(item).model_validate_json(item.model_dump_json()) == item


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


def test_a_hundred_thousand_rows_take_seconds(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", *({"prompt": f"question {n} " + "word " * 40} for n in range(100_000)))
    start = time.process_time()
    result = read(path)
    assert len(result.items) == 100_000
    assert time.process_time() - start < 5


def test_settings_of_a_source_are_strict() -> None:
    for wrong in ({"path": ""}, {"path": "p", "limit": 0}, {"path": "p", "fromat": "csv"}, {"path": "p", "max_bad_share": 2}):
        with pytest.raises(ValidationError):
            PromptsSource.model_validate(wrong)


def test_causes_are_counted_apart(tmp_path: Path) -> None:
    rows: list[Any] = [{"prompt": f"p{n}"} for n in range(100)]
    result = read(write(tmp_path / "p.jsonl", *rows, {"prompt": ""}, {"prompt": ""}, {"prompt": 1}))
    assert Counter(f.cause for f in result.failures) == {"empty_prompt": 2, "wrong_type": 1}
