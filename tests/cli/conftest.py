"""Runs the command line as `main` does, in this process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import pytest

from cai.cli import main


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str


Cai: TypeAlias = Callable[..., Result]


@pytest.fixture
def cai(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cai:
    """`cai("check", "file.yaml")` → exit code, stdout and stderr of that command, errors handled as in the entry point."""

    def run(*arguments: object) -> Result:
        monkeypatch.setattr("sys.argv", ["cai", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main()
        out, err = capsys.readouterr()
        return Result(int(stopped.value.code or 0), out, err)

    return run
