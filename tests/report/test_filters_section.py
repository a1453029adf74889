"""The report's section on the filters: what was found, what was done about it, and texts that cannot break the page."""

from __future__ import annotations

import re
from pathlib import Path

import yaml
from scripted_runs import SCRIPT, write_scripted_run

from cai.config import read_config
from cai.pipeline import open_session, read_inputs, run
from cai.records import Stage
from cai.report.page import REPORT_NAME


def page_of(folder: Path, until: Stage, *revisions: str, **filters: str) -> str:
    config = write_scripted_run(folder, 30, filters=filters)
    answers = {**SCRIPT["answers"], "Write only the new reply": list(revisions)}
    (folder / "script.yaml").write_text(yaml.safe_dump({"answers": answers}, sort_keys=False))
    with open_session(read_inputs(read_config(config, (), {}).config)) as session:
        made = run(session, until=until).folder
    return (made / REPORT_NAME).read_text(encoding="utf-8")


def test_flags_and_drops_are_counted_with_examples_and_escaped(tmp_path: Path) -> None:
    page = page_of(tmp_path, Stage.LABEL, "Human: <script>alert(1)</script>", "Ask ann@firm.co.uk.")
    section = page[page.index('<section id="filters">') : page.index('<section id="transcripts">')]
    rows = dict(re.findall(r'<th scope="row" class="mono">(\w+)</th><td>(\w+)</td>', section))
    assert rows["role_confusion"] == "drop"
    assert rows["pii"] == "flag"
    assert "<mark>ann@firm.co.uk</mark>" in section
    assert "<script>alert" not in section
    assert "&lt;script&gt;alert" in section
    assert 'href="#filters"' in page


def test_a_run_in_which_nothing_was_found_says_so_and_one_before_its_labels_has_no_section(tmp_path: Path) -> None:
    clean = page_of(tmp_path / "clean", Stage.LABEL, "That is one way to say it.", made_worse="off")
    assert "No rule found anything in " in clean
    assert "Off: too_short, leakage, boilerplate, near_duplicate, made_worse." in clean
    assert 'id="filters"' not in page_of(tmp_path / "early", Stage.GENERATE, "That is one way to say it.")
