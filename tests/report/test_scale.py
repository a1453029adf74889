"""A report of many rows: how large it gets, and how much memory it takes."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[2] / "examples" / "benchmarks"


def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("report_scale", BENCHMARKS / "report_scale.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["report_scale"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_ten_thousand_rows_take_less_than_five_megabytes_and_are_all_there(tmp_path: Path) -> None:
    scale = benchmark()
    scale.write_run(tmp_path / "run", 10_000, words=60)
    _, processor_seconds, peak_bytes = scale.build(tmp_path / "run", tmp_path / "page.html")
    source = (tmp_path / "page.html").read_text()
    assert len(source) < 5e6
    assert "All 10,000 are here." in source
    assert peak_bytes < 400e6
    assert processor_seconds < 60


@pytest.mark.slow
def test_of_longer_rows_a_sample_fits_and_says_so(tmp_path: Path) -> None:
    scale = benchmark()
    scale.write_run(tmp_path / "run", 10_000, words=240)
    _, _, peak_bytes = scale.build(tmp_path / "run", tmp_path / "page.html")
    source = (tmp_path / "page.html").read_text()
    sample = re.search(r"([\d,]+) of 10,000 transcripts are in this file", source)
    assert sample is not None
    assert 2000 < int(sample[1].replace(",", "")) < 10_000
    assert 3.5e6 < len(source) < 5e6
    assert peak_bytes < 400e6
