"""Bad rows are counted failures, bad files are refused, and no content whatever ends in a traceback."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prompt_files import prompts, read, write
from pydantic import ValidationError

from cai.data.prompts import PromptsSource
from cai.errors import DataError

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
    ({"prompt": [{"role": "critic", "content": "a"}]}, "unknown_role"),
    ({"prompt": [{"role": "tool", "content": "a"}]}, "tool_calls"),
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


def test_settings_of_a_source_are_strict() -> None:
    for wrong in ({"path": ""}, {"path": "p", "limit": 0}, {"path": "p", "fromat": "csv"}, {"path": "p", "max_bad_share": 2}):
        with pytest.raises(ValidationError):
            PromptsSource.model_validate(wrong)


def test_causes_are_counted_apart(tmp_path: Path) -> None:
    rows: list[Any] = [{"prompt": f"p{n}"} for n in range(100)]
    result = read(write(tmp_path / "p.jsonl", *rows, {"prompt": ""}, {"prompt": ""}, {"prompt": 1}))
    assert Counter(f.cause for f in result.failures) == {"empty_prompt": 2, "wrong_type": 1}
