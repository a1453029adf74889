"""A run's configuration: default < file < environment < flag, every problem at once, every value with its origin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cai.config import ReadConfig, RunConfig, read_config, read_section
from cai.errors import ProblemList
from cai.training.settings import DPOSettings

SMALL = "policy: {name: here}\nlab: {items: 3}\n"


def _read(
    folder: Path, text: str = SMALL, flags: Sequence[str] = (), environment: Mapping[str, str] | None = None
) -> ReadConfig:
    file = folder / "run.yaml"
    file.write_text(text, encoding="utf-8")
    return read_config(file, flags, environment or {})


def _problems(
    folder: Path, text: str = SMALL, flags: Sequence[str] = (), environment: Mapping[str, str] | None = None
) -> list[str]:
    with pytest.raises(ProblemList) as caught:
        _read(folder, text, flags, environment)
    return [str(problem).replace(f"{folder}/", "") for problem in caught.value.problems]


def test_what_is_not_given_is_the_default(tmp_path: Path) -> None:
    config = _read(tmp_path).config
    assert config.dpo == DPOSettings()
    assert config.constitution == ("shipped",)


@pytest.mark.parametrize(
    ("flags", "environment", "beta", "origin"),
    [
        ((), {}, 0.3, "run.yaml:4:3"),
        ((), {"CAI_DPO__BETA": "0.5"}, 0.5, "environment CAI_DPO__BETA"),
        (("dpo.beta=0.7",), {"CAI_DPO__BETA": "0.5"}, 0.7, "--set dpo.beta"),
        (("dpo.beta=0.7", "dpo.beta=0.9"), {}, 0.9, "--set dpo.beta"),
    ],
)
def test_flags_win_over_the_environment_and_that_over_the_file(
    tmp_path: Path, flags: Sequence[str], environment: Mapping[str, str], beta: float, origin: str
) -> None:
    read = _read(tmp_path, SMALL + "dpo:\n  beta: 0.3\n  epochs: 2\n", flags, environment)
    assert read.config.dpo is not None
    assert (read.config.dpo.beta, read.config.dpo.epochs) == (beta, 2)
    assert read.origins["dpo", "beta"].replace(f"{tmp_path}/", "") == origin
    assert read.origins["dpo", "epochs"].endswith("run.yaml:5:3")
    assert ("dpo", "learning_rate") not in read.origins


def test_flags_and_environment_speak_yaml(tmp_path: Path) -> None:
    config = _read(tmp_path, flags=["constitution=[a.md, b.md]", "sft={epochs: 2}", "dpo=null"]).config
    assert config.constitution == ("a.md", "b.md")
    assert config.sft is not None
    assert config.sft.epochs == 2
    assert config.dpo is None


def test_a_section_that_was_turned_off_can_be_turned_on_by_one_of_its_keys(tmp_path: Path) -> None:
    read = _read(tmp_path, SMALL + "dpo: null\n", ["dpo.beta=0.2"])
    assert read.config.dpo == DPOSettings(beta=0.2)
    assert ("dpo",) not in read.origins


def test_every_problem_of_file_environment_and_flags_is_reported_at_once(tmp_path: Path) -> None:
    text = (
        "polcy: {name: here}\n"
        "policy: {name: here}\n"
        "lab: {items: 3}\n"
        "lab: {items: 4}\n"
        "loop:\n  draft:\n    temprature: 1\n    top_p: 7\n"
        "seed: yes_please\n"
        "labels: {principles: 3}\n"
    )
    found = _problems(tmp_path, text, ["dpo.x", "dpo.betta=1"], {"CAI_DPOO__BETA": "1"})
    expected = [
        ("run.yaml:1:1:", "unknown key `polcy`", "did you mean `policy`?"),
        ("run.yaml:4:1:", "`lab` is given twice", "delete one"),
        ("run.yaml:7:5:", "unknown key `loop.draft.temprature`", "did you mean `temperature`?"),
        ("run.yaml:8:5:", "`loop.draft.top_p`", "it is 7 now"),
        ("run.yaml:9:1:", "`seed`", "it is 'yes_please' now"),
        ("run.yaml:10:10:", "`labels.principles`", "or it should be a list"),
        ("environment variable CAI_DPOO__BETA", "no setting `dpoo`", "CAI_SECTION__KEY"),
        ("--set dpo.x", "not of the form", "for example"),
        ("--set dpo.betta:", "unknown key `dpo.betta`", "did you mean `beta`?"),
    ]
    for place, problem, hint in expected:
        (told,) = [each for each in found if each.startswith(place)]
        assert problem in told
        assert hint in told
    assert len(found) == len(expected)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("policy:\n\tname: here\n", "run.yaml:2:1: not valid YAML: a tab"),
        (SMALL + "---\nseed: 1\n", "run.yaml:3:1: a second document"),
        (SMALL + "seed: 2024-13-01\n", "run.yaml:3:7: cannot be read"),
        (SMALL + "seed: !!python/name:os.system x\n", "run.yaml:3:7: cannot be read"),
        (SMALL + "dpo: &a\n  x: *a\n", "run.yaml:3:6: an alias that contains itself"),
        ("policy: " + "[" * 3000 + "]" * 3000, "nested too deeply"),
        ("policy: {name: '\x07'}\n", "run.yaml:1:17: not valid YAML: the character U+0007"),
        ("- policy\n", "`key: value` lines"),
        (SMALL + "dpo: 3\n", "run.yaml:3:1: `dpo`: it should be a section of `key: value` lines"),
        (SMALL + "seed: yes\n", "run.yaml:3:1: `seed` is read as True"),
        ("lab: {items: 3}\n", "`policy` is missing"),
        ("policy: {name: here}\n", "give exactly one of `prompts` and `lab`"),
        (SMALL + "prompts: {path: a.jsonl}\n", "give exactly one of `prompts` and `lab`"),
        (SMALL + "prompts:\n  pth: a.jsonl\n", "run.yaml:4:3: unknown key `prompts.pth`\n  → did you mean `path`?"),
    ],
)
def test_a_broken_file_is_explained_and_never_a_crash(tmp_path: Path, text: str, words: str) -> None:
    assert any(words in problem for problem in _problems(tmp_path, text))


def test_a_file_that_is_missing_or_no_text_says_so(tmp_path: Path) -> None:
    with pytest.raises(ProblemList, match=r"cai init FOLDER"):
        read_config(tmp_path / "none.yaml", (), {})
    (tmp_path / "latin.yaml").write_bytes(b"run: caf\xe9\n")
    with pytest.raises(ProblemList, match=r"UTF-8"):
        read_config(tmp_path / "latin.yaml", (), {})


def test_variables_of_the_machine_and_of_others_are_no_settings(tmp_path: Path) -> None:
    environment = {"CAI_CACHE": "/x", "CAI_SHARED": "/y", "PATH": "/bin", "CAIRO": "1"}
    assert _read(tmp_path, environment=environment).config == _read(tmp_path).config


@pytest.mark.parametrize("flag", ["dpo.beta=2024-13-01", "dpo.beta='", "dpo.beta=" + "[" * 3000, "=1", "dpo.=1", "dpo.beta"])
def test_a_flag_that_cannot_be_read_is_a_problem(tmp_path: Path, flag: str) -> None:
    assert all(problem.startswith("--set") for problem in _problems(tmp_path, flags=[flag]))


@given(st.text(max_size=200))
def test_any_text_is_a_configuration_or_a_list_of_problems(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    file = tmp_path_factory.mktemp("any") / "run.yaml"
    file.write_bytes(text.encode(errors="surrogatepass"))
    with pytest.raises(ProblemList):  # no random text names a policy and prompts
        read_config(file, (), {})


def test_one_section_alone_takes_its_keys_with_or_without_its_name() -> None:
    assert read_section(DPOSettings, "dpo", ["beta=0.2", "dpo.epochs=1"]) == DPOSettings(beta=0.2, epochs=1)
    with pytest.raises(ProblemList, match=r"did you mean `beta`"):
        read_section(DPOSettings, "dpo", ["betta=0.2"])


def test_every_setting_says_what_it_means() -> None:
    from cai.cli.config_ import _fields  # pyright: ignore[reportPrivateUsage] - the command's own list

    rows = list(_fields(RunConfig, ""))
    assert {row["key"].split(".")[0] for row in rows} == set(RunConfig.model_fields)
    assert [row["key"] for row in rows if not row["description"]] == []
