"""Which package may import which, what stays cheap to import, and what is public."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

import constitution

REPOSITORY = Path(__file__).resolve().parents[2]
HEAVY = ("torch", "transformers", "datasets", "peft", "accelerate", "scipy", "pandas", "pyarrow")


def _python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    return done.stdout.strip().splitlines()[-1]


def _heavy_after(statements: str) -> list[str]:
    code = f"import sys, json\n{statements}\nprint()\nprint(json.dumps([name for name in {HEAVY!r} if name in sys.modules]))"
    return list(json.loads(_python(code)))


def test_the_layers_are_kept() -> None:
    """import-linter's contracts in pyproject.toml: data flows one way, `constitution` knows nothing of `cai`."""
    done = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports; raise SystemExit(lint_imports(cache_dir=None))"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 broken" in done.stdout


RUN_MAIN = "import contextlib; from cai.cli import main\nwith contextlib.suppress(SystemExit):\n    sys.argv = {!r}\n    main()"


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["show", "--help"],
        ["run", "--help"],
        ["config", "--help"],
        ["lab", "study", "--help"],
        ["check"],
        ["import", "--formats"],
        ["convert", "shipped:honesty", "--to", "langchain"],
        ["show", "--list"],
        ["show", "correct-false-claims", "--model", "none"],
        ["test", "--principle", "nowhere"],
        ["status", "no-such-run"],
        ["config", "keys"],
        ["config", "show", "examples/demo.yaml"],
    ],
    ids=" ".join,
)
def test_commands_that_need_no_model_import_no_model_library(arguments: list[str]) -> None:
    assert _heavy_after(RUN_MAIN.format(["cai", *arguments])) == []


@pytest.mark.parametrize(
    "module",
    [
        "constitution",
        "constitution.loading",
        "constitution.rendering",
        "constitution.selection",
        "cai.cli",
        "cai.config",
        "cai.records",
        "cai.models.checking",
        "cai.errors",
    ],
)
def test_what_has_to_start_fast_imports_nothing_heavy(module: str) -> None:
    assert _heavy_after(f"import {module}") == []


def test_the_commands_are_there_before_the_store_is() -> None:
    """Opening databases is no part of `cai --help`."""
    assert _python("import sys, cai.cli; print([name for name in sys.modules if name.startswith('cai.store')])") == "[]"


def test_help_takes_little_more_than_the_libraries_it_is_made_with() -> None:
    """Processor time of the best of three; a bound that a slow or busy machine does not move."""

    def seconds(code: str) -> float:
        return min(float(_python(f"{code}\nimport os\nprint(sum(os.times()[:2]))")) for _ in range(3))

    libraries = seconds("import pydantic, rich.columns, rich.markdown, rich.table, rich.traceback, typer.rich_utils, yaml")
    help_ = seconds(
        "import sys, contextlib, io\nfrom cai.cli import main\nsys.argv = ['cai', '--help']\n"
        "with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):\n    main()"
    )
    assert help_ < 3 * libraries


def test_the_public_names_of_the_constitution_package_are_these() -> None:
    assert sorted(constitution.__all__) == [
        "Constitution",
        "ConstitutionError",
        "Conversation",
        "Demonstration",
        "Message",
        "Principle",
        "PrincipleFileError",
        "PrincipleTest",
    ]
    assert all(hasattr(constitution, name) for name in constitution.__all__)


def test_a_principle_file_is_read_in_a_tenth_of_a_second() -> None:
    from constitution.loading import load_constitution

    started = time.process_time()
    load_constitution(["shipped:honesty"])
    assert time.process_time() - started < 0.1


def test_the_module_runs_as_the_command_does() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "cai.cli", "check", "no-such-file"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (4, "1 error and 0 warnings in 1 file\n")
    assert "no-such-file:1:1 C101 error: there is no such file or folder" in done.stdout
