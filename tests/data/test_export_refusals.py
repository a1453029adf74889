"""What cannot be exported: unknown formats, nothing at all, runs without labels or of a newer version."""

from __future__ import annotations

from pathlib import Path

import pytest
from exported_rows import ALL, exported, told
from labelled_runs import labelled_pair, write_labelled_run

from cai.data.exporting import FORMATS, format_named
from cai.errors import ConfigError, DataError, StoreError


def test_an_unknown_format_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean `llama-factory`"):
        format_named("llamafactory")
    with pytest.raises(ConfigError, match="there are trl, trl-standard"):
        format_named("zzz")


@ALL
def test_no_file_is_empty_and_nothing_at_all_is_refused(name: str, tmp_path: Path) -> None:
    run = write_labelled_run(tmp_path / "run", [labelled_pair(p_chosen=0.6)])
    if FORMATS[name].supervised:
        outcome = exported(run, name, tmp_path / "out", threshold=0.9)
        assert [each.table.name for each in outcome.written()] == ["sft"]
        assert "preferences: no rows, and so no file" in told(outcome)
        left = [p for p in (tmp_path / "out").rglob("*") if "preferences" in p.name or "reward" in p.name]
        assert not left
    else:
        with pytest.raises(DataError, match="There are no pairs to write") as caught:
            exported(run, name, tmp_path / "out", threshold=0.9)
        assert "1 pair below p=0.9 left out" in str(caught.value)
        assert list(tmp_path.iterdir()) == [tmp_path / "run"]


def test_a_run_without_labels_says_what_is_missing(tmp_path: Path) -> None:
    run = write_labelled_run(tmp_path / "run", labelled=False)
    with pytest.raises(StoreError, match=r"the labels are not made yet \(finished: generate; rows: 3 pair, 1 filtered\)"):
        exported(run, "trl", tmp_path / "out")


def test_a_run_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    import sqlite3

    run = write_labelled_run(tmp_path / "run")
    with sqlite3.connect(run / "run.sqlite") as database:
        database.execute("PRAGMA user_version = 99")
    with pytest.raises(StoreError, match="newer version"):
        exported(run, "trl", tmp_path / "out")
