"""A report can be shown to anybody: it says nothing of the machine that it was made on."""

from __future__ import annotations

import getpass
import socket
from pathlib import Path

import pytest

from cai.report import collect, render_report
from cai.store import RunFolder
from tests.checkpoints import make_checkpoint
from tests.report.packed import packed_rows
from tests.report.suite_runs import write_claims
from tests.whole_runs import cai, write_config, write_prompts


@pytest.mark.slow
def test_no_path_user_host_or_key_is_in_a_report_with_suites(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Model, prompts (one row broken) and suites all lie under a folder that names a person."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    home = tmp_path / "home-of-alice"
    home.mkdir()
    model, prompts = make_checkpoint(home / "model"), write_prompts(home / "prompts.jsonl")
    prompts.write_text(prompts.read_text() + '{"prompt": 7}\n')
    config = write_config(home, model, {"path": str(prompts), "tags": ["claims"], "max_bad_share": 0.5})
    done = cai("run", config)
    assert done.returncode in (0, 3), done.stderr
    done = cai("eval", home / "run", "--suite", write_claims(home), "--prompts", "2", "--temperature", "0")
    assert done.returncode in (0, 3), done.stderr
    with RunFolder.open(home / "run", read_only=True) as folder:
        data = collect(folder)
        source = render_report(data)
    assert len(data.suites[0].models) == 2
    lists = [packed_rows(source, name) for name in ("transcripts", "answers", "suite-answers")]
    assert all(lists)
    page = source.partition('<script type="application/octet-stream"')[0]
    text = page + " ".join(row.text for rows in lists for row in rows)
    host, user = socket.gethostname(), getpass.getuser()
    for private in (
        str(tmp_path),
        "alice",
        f"{Path.home()}/",
        f"/{user}/",
        f'"{user}"',
        f"{host}/",
        f"{host}:",
        "sk-very-secret",
    ):
        assert private not in text, private
