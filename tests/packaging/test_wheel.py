"""What is installed is whole: a wheel in an environment of its own checks principles and finds all it brings."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_a_wheel_brings_principles_templates_the_demo_and_the_adapter(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(REPOSITORY)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("constitution_cai-*.whl")
    installed = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(installed)
    code = (
        "from pathlib import Path; import cai, constitution\n"
        "from cai.cli.demo import demo_config; from cai.config import read_config; from cai.pipeline import read_inputs\n"
        "assert Path(cai.__file__).is_relative_to(Path.cwd()), cai.__file__\n"
        "inputs = read_inputs(read_config(demo_config(), (), {}).config.model_copy(update={'feedback': None}))\n"
        "from cai.models.resolving import shipped_adapter; assert (shipped_adapter() / 'adapter_model.safetensors').is_file()\n"
        "from cai.evaluation.suite_reading import read_suites, shipped_suites\n"
        "assert len(read_suites([*shipped_suites()])) == 7\n"
        "from cai.evaluation.exporting import export_tasks; export_tasks(read_suites(['harm']), 'inspect', Path('tasks'))\n"
        "print(len(inputs.items), len(inputs.constitution.principles))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=installed, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["280", "5"]
    scaffold = [sys.executable, "-m", "cai.cli", "init", "mine"]
    assert subprocess.run(scaffold, cwd=installed, capture_output=True, check=False).returncode == 0
    check = [sys.executable, "-m", "cai.cli", "check", "shipped", "mine/constitution"]
    done = subprocess.run(check, cwd=installed, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
