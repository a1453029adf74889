"""The report's section on `cai rl`: curves of what was measured, replies as text, nothing where nothing was done."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from cai.report.collecting import collect
from cai.report.leash import distance_plots, leash_plots, leash_view
from cai.report.page import render_report
from cai.store import RunFolder
from tests.report.runs import build_finished


def metrics(count: int = 30) -> list[dict[str, float]]:
    return [
        {"step": n, "reward": n / 10, "truth": 1 - (n / 10 - 1) ** 2, "kl": n * n / 4, "kl/k3": n * n / 5, "length": 20.0 + n}
        for n in range(1, count + 1)
    ]


def test_each_measured_curve_is_drawn_and_what_was_not_measured_is_left_out() -> None:
    plots = leash_plots(metrics())
    assert [plot.title for plot in plots] == ["reward", "truth", "kl", "length"]
    assert leash_plots([]) == []


def test_reward_and_truth_are_also_drawn_over_the_root_of_kl() -> None:
    reward, truth = distance_plots(metrics())
    assert (reward.title, truth.title) == ("reward by √KL", "truth by √KL")
    assert float(truth.x_ticks[-1].label) == pytest.approx(math.sqrt(30 * 30 / 4))
    assert distance_plots([{"step": 1, "reward": 1.0, "kl": 1.0}]) == []


def test_the_view_has_the_first_and_last_replies_and_ends_at_a_torn_line(tmp_path: Path) -> None:
    rows = [{"step": n, "uid": "i", "prompt": "Say", "reply": f"<b>{n}</b>", "reward": 1.0, "kl": None} for n in range(1, 20)]
    (tmp_path / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"step": 20, "pro')
    view = leash_view(tmp_path, metrics())
    assert view is not None
    assert [each["step"] for each in view.first] == [1, 2, 3, 4, 5, 6]
    assert [each["step"] for each in view.last] == [14, 15, 16, 17, 18, 19]
    assert view.first[0]["truth"] is None
    assert view.result is None
    assert leash_view(tmp_path, []) is None


def test_the_page_has_the_section_and_replies_stay_text(tmp_path: Path) -> None:
    build_finished(tmp_path / "run")
    place = tmp_path / "run" / "rl"
    place.mkdir()
    (place / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in metrics()))
    sample = {"step": 1, "uid": "i", "prompt": "Say", "reply": "<script>alert(1)</script>", "reward": 1.0, "truth": 0.0}
    (place / "samples.jsonl").write_text(json.dumps(sample) + "\n")
    with RunFolder.open(tmp_path / "run", read_only=True) as folder:
        page = render_report(collect(folder))
    assert 'id="leash"' in page
    assert 'href="#leash"' in page
    assert "<script>alert(1)" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "truth by √KL" in page
