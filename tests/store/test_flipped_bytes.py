"""A flipped byte anywhere in the database is never used in silence: it is refused, told, or as if that row were not there."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cai.errors import StoreError
from cai.records import FailureRecord, Item, LedgerEntry, Outcome, RevisionRecord
from cai.store import RunFolder, StoredCall
from constitution.messages import user

ITEMS = 40
KEYS = [f"{n:064d}" for n in range(3 * ITEMS)]
UNREADABLE = FailureRecord(uid="p.jsonl:41", stage="read", cause="broken_json", detail="line 41")
FLIPS = 200


def build(folder: Path) -> bytes:
    """A run with every table filled, closed as a finished process leaves it."""
    with RunFolder.open(folder) as run:
        items = [Item(uid=f"i{n}", messages=(user(f"prompt {n} " * (1 + n % 7)),)) for n in range(ITEMS)]
        run.put_items(items, failures=[UNREADABLE])
        calls = [
            StoredCall(key, "generate", f"s{n % 3}", f'{{"text": "{"word é " * (n % 40)}"}}', n, n, n / 7)
            for n, key in enumerate(KEYS)
        ]
        run.calls.add(*calls)
        records = [RevisionRecord(uid=i.uid, messages=i.messages, draft=f"draft of {i.uid} " * 9, rounds=()) for i in items]
        run.put_records("revision", records)
        run.put_measurements("evaluation", [UNREADABLE] * 3)
        run.settle(LedgerEntry(uid=i.uid, outcome=Outcome.KEPT, reason=f"reason {n % 3}") for n, i in enumerate(items))
        run.put_stage("generate", "f1", {"records": ITEMS})
    return (folder / "run.sqlite").read_bytes()


def seen(run: RunFolder) -> dict[str, Any]:
    """Everything that can be read of a run; what is refused is its error."""

    def told(read: Callable[[], Any]) -> Any:
        try:
            return read()
        except StoreError as error:
            return error

    return {
        "calls": run.calls.find(KEYS),
        "items": told(lambda: list(run.items())),
        "read failures": told(lambda: list(run.read_failures())),
        "ledger": told(lambda: list(run.ledger())),
        "reasons": told(run.ledger_reasons),
        "records": told(lambda: list(run.records("revision", RevisionRecord))),
        "measurements": told(lambda: list(run.measurements("evaluation", FailureRecord))),
        "stage": told(lambda: run.stage("generate")),
        "usage": told(run.usage),
    }


@pytest.mark.parametrize("read_only", [False, True])
def test_a_flipped_byte_is_refused_or_told_or_as_if_the_row_were_not_there(tmp_path: Path, read_only: bool) -> None:
    content = build(tmp_path / "run")
    with RunFolder.open(tmp_path / "run", read_only=True) as run:
        sound = seen(run)
    chance = random.Random(20)
    outcomes = {"refused": 0, "same": 0, "told": 0, "not there": 0}
    file = tmp_path / "run" / "run.sqlite"
    for _ in range(FLIPS):
        place, change = chance.randrange(len(content)), chance.choice((1 << chance.randrange(8), chance.randrange(1, 256)))
        file.write_bytes(content[:place] + bytes([content[place] ^ change]) + content[place + 1 :])
        try:
            with RunFolder.open(tmp_path / "run", read_only=read_only) as run:
                found = seen(run)
                damaged_calls = run.calls.damaged
        except StoreError:
            outcomes["refused"] += 1
            continue
        calls = found.pop("calls")
        assert calls.items() <= sound["calls"].items(), f"byte {place} ^ {change}: another answer"
        assert len(calls) + damaged_calls == len(KEYS), f"byte {place} ^ {change}: a call is gone without a word"
        for name, value in found.items():
            at_rest = value == sound[name] or isinstance(value, StoreError) or (name == "stage" and value is None)
            assert at_rest, f"byte {place} ^ {change}: another {name}"
        told = any(isinstance(value, StoreError) or value is None for value in found.values())
        outcomes["told" if told else "not there" if damaged_calls else "same"] += 1
    assert min(outcomes.values()) > FLIPS // 50, outcomes


def test_damaged_calls_are_counted_told_and_put_right_by_the_next_commit(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    content = bytearray(build(tmp_path / "run"))
    place = content.rindex("word é".encode())
    content[place] ^= 1
    (tmp_path / "run" / "run.sqlite").write_bytes(content)
    with RunFolder.open(tmp_path / "run") as run:
        found = run.calls.find(KEYS)
        assert run.calls.find(KEYS) == found
        (lost,) = set(KEYS) - set(found)
        assert run.calls.damaged == 1
        assert [record.getMessage().partition(": ")[2] for record in caplog.records] == [
            "a stored model call is damaged and will be computed again; `cai doctor` says more."
        ]
        again = StoredCall(lost, "generate", "s0", '{"text": "again"}')
        run.calls.add(again)
        run.calls.flush()
        assert run.calls.damaged == 0
        assert run.calls.find(KEYS) == found | {lost: again}
    with RunFolder.open(tmp_path / "run") as run:
        assert run.calls.find([lost]) == {lost: again}


def test_a_damaged_record_is_counted_and_refused_until_it_is_put_again(tmp_path: Path) -> None:
    content = bytearray(build(tmp_path / "run"))
    content[content.index(b"draft of i7")] ^= 1
    (tmp_path / "run" / "run.sqlite").write_bytes(content)
    with RunFolder.open(tmp_path / "run") as run:
        assert (run.damaged("revision"), run.damaged("evaluation")) == (1, 0)
        with pytest.raises(StoreError, match="damaged") as caught:
            list(run.records("revision", RevisionRecord))
        assert "cai run" in caught.value.hint
        sound = [RevisionRecord(uid="i7", messages=(user("x"),), draft="again", rounds=())]
        run.put_records("revision", sound)
        assert run.damaged("revision") == 0
        assert list(run.records("revision", RevisionRecord)) == sound


@pytest.mark.parametrize("keep", [0, 1, 31, 32, 33, 0.25, 0.5, 0.9, 0.999])
def test_a_log_that_was_cut_short_gives_an_earlier_state_and_no_half_of_one(tmp_path: Path, keep: float) -> None:
    """A power cut may leave the last pages of the write-ahead log unwritten."""
    with RunFolder.open(tmp_path / "run") as run:
        run.put_items([Item(uid=f"i{n}", messages=(user("hello"),)) for n in range(50)])
        for batch in range(20):
            run.calls.add(*(StoredCall(f"{batch}-{n}", "generate", "draft", f'"{"x" * 300}"') for n in range(10)))
            run.calls.flush()
        copy = tmp_path / "copy"
        copy.mkdir()
        log = (run.path / "run.sqlite-wal").read_bytes()
        (copy / "run.sqlite").write_bytes((run.path / "run.sqlite").read_bytes())
    (copy / "run.sqlite-wal").write_bytes(log[: int(keep) if keep >= 1 else int(len(log) * keep)])
    with RunFolder.open(copy) as run:
        found = [len(run.calls.find([f"{batch}-{n}" for n in range(10)])) for batch in range(20)]
        assert set(found) <= {0, 10}
        assert found == sorted(found, reverse=True)
        assert run.calls.damaged == 0
        run.assert_balanced()


def test_a_flipped_byte_in_the_log_gives_an_earlier_state_and_no_half_of_one(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path / "run") as run:
        for batch in range(20):
            run.calls.add(*(StoredCall(f"{batch}-{n}", "generate", "draft", f'"{"x" * 300}"') for n in range(10)))
            run.calls.flush()
        log = (run.path / "run.sqlite-wal").read_bytes()
        content = (run.path / "run.sqlite").read_bytes()
    chance = random.Random(3)
    for n in range(40):
        copy = tmp_path / f"copy-{n}"
        copy.mkdir()
        place = chance.randrange(len(log))
        (copy / "run.sqlite").write_bytes(content)
        (copy / "run.sqlite-wal").write_bytes(log[:place] + bytes([log[place] ^ (1 << chance.randrange(8))]) + log[place + 1 :])
        with RunFolder.open(copy) as run:
            found = [len(run.calls.find([f"{batch}-{n}" for n in range(10)])) for batch in range(20)]
            assert set(found) <= {0, 10}
            assert found == sorted(found, reverse=True)
