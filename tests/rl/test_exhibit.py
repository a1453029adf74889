"""The reward-hacking exhibit: its run can be read, its reward counts, its picture is drawn of rows as `cai rl` writes them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from cai.config import read_config
from cai.rl.functions import FunctionReward
from cai.rl.leash import good_step, snapped
from cai.rl.settings import LeashSettings

PLACE = Path(__file__).resolve().parents[2] / "examples" / "reward-hacking"


def test_the_run_of_the_exhibit_is_watched_by_truth_and_its_reward_can_be_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(PLACE)
    settings = read_config(Path("hack.yaml")).config.rl
    assert settings.truth == "lab"
    assert FunctionReward(settings.reward, timeout_s=1).fingerprint


def test_the_reward_counts_words_of_caution_and_knows_no_end() -> None:
    code = "from caution import reward; print(reward([[{'content': t}] for t in ('Sure!', 'No, not so.', 'No ' * 24)]))"
    done = subprocess.run([sys.executable, "-c", code], cwd=PLACE, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [0.0, 2.0, 24.0]


def test_the_curves_are_drawn_and_tabled(tmp_path: Path) -> None:
    for name in ("loose", "leashed"):
        rows = [
            dict.fromkeys(("reward", "truth", "kl", "entropy", "length", "repeated", "duplicates"), float(n)) | {"step": n}
            for n in range(1, 13)
        ]
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = [sys.executable, str(PLACE / "curves.py"), "loose", "leashed"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("<svg")
    assert done.stdout.count("<polyline") == 8
    assert "| 1–5 | 3.00 |" in done.stderr
    assert "| 11–12 | 11.50 |" in done.stderr


def test_what_the_exhibit_says_of_its_rows_follows_from_them() -> None:
    loose, leashed = (
        [json.loads(line) for line in (PLACE / "figures" / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("loose", "leashed")
    )
    settings = LeashSettings(window=5)
    stops = [snapped(loose[:step], settings) for step in range(1, 24)]
    assert [stop is not None for stop in stops] == [False] * 22 + [True]
    assert stops[-1] is not None
    assert "rose from 2.19 to 9.3 while the truth fell from 0.325 to 0.15" in stops[-1].reason
    assert good_step(loose, [5, 10, 15, 20, 23], 5) == 20
    assert not any(snapped(leashed[:step], settings) for step in range(1, 24))
    good = [round(sum(row["truth"] * row["replies"] for row in rows[20:])) for rows in (loose, leashed)]
    assert good == [6, 30]
    done = subprocess.run(
        [sys.executable, "curves.py", "figures/loose", "figures/leashed"], cwd=PLACE, capture_output=True, text=True, check=True
    )
    assert done.stdout == (PLACE / "curves.svg").read_text()
