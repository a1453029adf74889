"""Shards of a run: each row in exactly one, and together the run there would have been without them."""

from __future__ import annotations

import shutil
import sqlite3
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted_runs import write_scripted_run
from whole_runs import cai, cai_here

from cai.config import read_config
from cai.errors import ConfigError, ProblemList, StoreError
from cai.pipeline import RunSummary, open_session, read_inputs, run
from cai.pipeline.merging import merge
from cai.pipeline.sharding import Shard
from cai.records import FailureRecord, PreferenceRecord, RecordKind, RevisionRecord, Stage
from cai.store import RunFolder

MODELS: dict[RecordKind, Any] = {
    RecordKind.REVISION: RevisionRecord,
    RecordKind.PREFERENCE: PreferenceRecord,
    RecordKind.FAILURE: FailureRecord,
}


def complete(config: Path, *flags: str, shard: Shard | None = None, until: Stage = Stage.LABEL) -> RunSummary:
    read = read_config(config, flags, {}).config
    with open_session(read_inputs(read if shard is None else shard.placed(read), shard)) as session:
        return run(session, until=until)


def made(config: Path, count: int, *flags: str, until: Stage = Stage.LABEL) -> list[Path]:
    return [complete(config, *flags, shard=Shard(n, count), until=until).folder for n in range(1, count + 1)]


def contents(folder: Path) -> dict[str, Any]:
    """Everything of a run that its later stages see."""
    with RunFolder.open(folder, read_only=True) as run_folder:
        return {
            "items": list(run_folder.items()),
            "unreadable": list(run_folder.read_failures()),
            "ledger": list(run_folder.ledger()),
            "stages": [run_folder.stage(stage) for stage in (Stage.GENERATE, Stage.LABEL)],
            **{kind: [r.model_dump_json() for r in run_folder.records(kind, model)] for kind, model in MODELS.items()},
        }


@given(st.text(st.characters(codec="utf-8"), max_size=20), st.integers(1, 50))
def test_every_row_is_in_exactly_one_shard(uid: str, count: int) -> None:
    assert sum(Shard(number, count).takes(uid) for number in range(1, count + 1)) == 1


def test_shards_are_of_about_one_size() -> None:
    sizes = Counter(next(n for n in range(1, 9) if Shard(n, 8).takes(f"row-{row}")) for row in range(8000))
    assert min(sizes.values()) > 850
    assert max(sizes.values()) < 1150


@pytest.mark.parametrize("text", ["0/8", "9/8", "1/0", "2", "a/b", "1/8/2", "-1/8", "1/8 "])
def test_what_names_no_part_of_a_whole_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="not a part of a whole"):
        Shard.parse(text)


@pytest.mark.parametrize("changes", [{}, {"loop": {"replicas": 2}, "labels": {"candidates": "samples"}}])
def test_merged_shards_equal_the_run_of_all_rows(tmp_path: Path, changes: dict[str, Any]) -> None:
    config = write_scripted_run(tmp_path, **changes)
    straight = complete(config, f"run={tmp_path / 'straight'}").folder
    shards = made(config, 3)
    assert {path.name for path in shards} == {f"shard-{n}-of-3" for n in (1, 2, 3)}
    merged = merge(tmp_path / "run", [shards[2], shards[0], shards[1]])
    assert merged.labelled
    assert sum(merged.ledger.values()) == 60 * (1 if not changes else 2) - bool(changes)
    assert contents(tmp_path / "run") == contents(straight)


def test_a_run_goes_on_from_merged_shards_without_asking_anything(tmp_path: Path) -> None:
    config = write_scripted_run(tmp_path)
    complete(config, f"run={tmp_path / 'straight'}", until=Stage.EXPORT)
    merge(tmp_path / "run", made(config, 2))
    with open_session(read_inputs(read_config(config, (), {}).config)) as session:
        before = session.folder.usage()
        run(session, until=Stage.EXPORT)
        assert session.folder.usage() == before
    files = [sorted((tmp_path / name / "datasets").iterdir()) for name in ("run", "straight")]
    assert [path.read_bytes() for path in files[0]] == [path.read_bytes() for path in files[1]]


def test_labels_are_made_after_the_merge_where_a_shard_had_none(tmp_path: Path) -> None:
    config = write_scripted_run(tmp_path)
    straight = complete(config, f"run={tmp_path / 'straight'}").folder
    shards = [complete(config, shard=Shard(1, 2)).folder, complete(config, shard=Shard(2, 2), until=Stage.GENERATE).folder]
    assert not merge(tmp_path / "run", shards).labelled
    complete(config)
    assert contents(tmp_path / "run") == contents(straight)


def test_everything_that_speaks_against_a_merge_is_told_at_once(tmp_path: Path) -> None:
    config = write_scripted_run(tmp_path)
    whole = complete(config, f"run={tmp_path / 'whole'}").folder
    first, second, _ = made(config, 3)
    other = complete(config, "seed=9", f"run={tmp_path / 'other'}", shard=Shard(2, 3)).folder
    fourth = complete(config, f"run={tmp_path / 'fourth'}", shard=Shard(4, 4)).folder
    unfinished = Shard(1, 3).placed(read_config(config, (f"run={tmp_path / 'unfinished'}",), {}).config)
    with open_session(read_inputs(unfinished, Shard(1, 3))):
        pass
    with pytest.raises(ProblemList) as caught:
        merge(tmp_path / "out", [first, second, whole, other, fourth, unfinished.run, tmp_path / "nowhere"])
    told = str(caught.value)
    for part in (
        f"{whole}: not the folder of a shard",
        f"{other}: differs from {first} in",
        "seed",
        f"{fourth}: is shard 4/4, others are of 3",
        "there twice: 1/3, 2/3",
        "not there: 3/3",
        f"{unfinished.run}: its generation is not finished",
        f"{tmp_path / 'nowhere'}: no run in this folder",
    ):
        assert part in told, part
    assert not (tmp_path / "out").exists()


def test_a_shard_with_a_row_too_few_is_no_part_of_a_whole(tmp_path: Path) -> None:
    """Items may vanish only with their ledger lines, so the balance alone would not tell."""
    shards = made(write_scripted_run(tmp_path), 2)
    with sqlite3.connect(shards[0] / "run.sqlite") as connection:
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("DELETE FROM items WHERE uid = (SELECT min(uid) FROM items WHERE readable)")
    connection.close()
    with pytest.raises(StoreError, match="not the input they were made of"):
        merge(tmp_path / "out", shards)


def test_a_row_in_two_shards_is_refused(tmp_path: Path) -> None:
    config = write_scripted_run(tmp_path)
    first, second = made(config, 2)
    shutil.rmtree(second)
    shutil.copytree(first, second)
    manifest = (second / "manifest.json").read_text()
    (second / "manifest.json").write_text(manifest.replace('"shard": "1/2"', '"shard": "2/2"'))
    with pytest.raises(ProblemList, match="not finished"):
        merge(tmp_path / "out", [first, second])


def test_another_run_is_not_merged_over(tmp_path: Path) -> None:
    config = write_scripted_run(tmp_path)
    taken = complete(config, "seed=9", f"run={tmp_path / 'taken'}").folder
    before = contents(taken)
    with pytest.raises(StoreError, match="holds another run"):
        merge(taken, made(config, 2))
    assert contents(taken) == before


def test_a_shard_of_a_newer_schema_is_refused_with_the_way_out(tmp_path: Path) -> None:
    shards = made(write_scripted_run(tmp_path), 2)
    with RunFolder.open(tmp_path / "run") as folder:
        with sqlite3.connect(shards[1] / "run.sqlite") as connection:
            connection.execute("PRAGMA user_version = 9")
        connection.close()
        with pytest.raises(StoreError, match="newer version"):
            folder.join(shards)
        assert folder.stage(Stage.GENERATE) is None


def test_an_interrupted_merge_is_begun_again(tmp_path: Path) -> None:
    config = write_scripted_run(tmp_path)
    shards = made(config, 2)
    with RunFolder.open(tmp_path / "run") as folder:
        folder.join(shards[:1])
        assert folder.stage(Stage.GENERATE) is None
    merge(tmp_path / "run", shards)
    assert contents(tmp_path / "run") == contents(complete(config, f"run={tmp_path / 'straight'}").folder)


def test_shards_and_merge_on_the_command_line(tmp_path: Path) -> None:
    config = write_scripted_run(tmp_path)
    for number in (1, 2):
        done = cai("run", config, "--shard", f"{number}/2")
        assert done.returncode in (0, 3), done.stderr
    shards = sorted((tmp_path / "run").glob("shard-*"))
    done = cai("merge", tmp_path / "run", *shards)
    assert done.returncode == 0, done.stderr
    assert "60 input rows from 2 shards" in done.stdout
    done = cai_here("export", config)
    assert done.returncode == 3, done.stderr
    assert (tmp_path / "run" / "datasets" / "sft.jsonl").is_file()
