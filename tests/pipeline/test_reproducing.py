"""A run done again is the same to the byte, or it is said what is not, and why."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from checkpoints import make_checkpoint
from scripted_runs import write_scripted_run
from whole_runs import cai, cai_here, output_files, write_config, write_prompts

from cai.config import RunConfig
from cai.errors import ProblemList, StoreError
from cai.pipeline import open_session, read_inputs, run
from cai.pipeline.reproducing import prepare, reproduce
from cai.records import HumanVerdict, Judgement, PreferenceRecord, RecordKind, RevisionRecord, Stage
from cai.review.answers import reply_fingerprint
from cai.store import RunFolder, VerdictFile
from cai.store.manifest import read_manifest, write_manifest

TIMES = {"dpo/training.json": "same but for times"}
"""What two trainings of one model leave of difference; nothing where both took the same milliseconds."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run up to the data sets on a script, with one row that cannot be read, in a folder of its own."""
    folder = tmp_path_factory.mktemp("made")
    assert cai_here("run", write_scripted_run(folder, 30)).returncode == 3
    return folder


@pytest.fixture
def place(made: Path, tmp_path: Path) -> Path:
    """A copy of the run alone: configuration, principles and prompts stay where they were."""
    shutil.copytree(made / "run", tmp_path / "run")
    return tmp_path


def edit_manifest(run: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    """As if the run had been made elsewhere: the checksum fits."""
    with RunFolder.open(run) as folder:
        whole = folder.whole_manifest
    edit(whole)
    write_manifest(run, whole)


def refused(run: Path, into: Path, **options: Any) -> str:
    with pytest.raises(ProblemList) as caught:
        prepare(run, into, **options)
    assert not into.exists()
    return str(caught.value)


def test_a_run_done_again_is_the_same_byte_for_byte_without_its_files(place: Path, tmp_path: Path) -> None:
    """Neither the configuration's file nor that of the prompts is read: the run folder has them."""
    edit_manifest(place / "run", lambda whole: whole["config"]["prompts"].update(path="nowhere.jsonl"))
    done = cai_here("reproduce", place / "run", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["same"], told["until"]) == (True, "export")
    assert told["stages"] == {"generate": True, "label": True, "export": True}
    files = {path.name: path.read_bytes() for path in (place / "run" / "datasets").iterdir()}
    assert files == {path.name: path.read_bytes() for path in (place / "run-again" / "datasets").iterdir()}
    with RunFolder.open(place / "run-again", read_only=True) as folder:
        assert sum(usage.calls for usage in folder.usage().values()) > 0  # computed, not copied
    assert "the same" in cai_here("reproduce", place / "run").stdout  # and it goes on where it stands


def test_a_whole_run_of_a_real_model_is_the_same_byte_for_byte(tmp_path: Path) -> None:
    config = write_config(tmp_path, make_checkpoint(tmp_path / "model"), write_prompts(tmp_path / "prompts.jsonl", 14))
    assert cai_here("run", config).returncode in (0, 3)
    done = cai("reproduce", tmp_path / "run", "--json")  # in another process, whose sets are in another order
    assert done.returncode == 0, done.stderr
    assert output_files(tmp_path / "run") == output_files(tmp_path / "run-again")
    told = json.loads(done.stdout)
    assert list(told["stages"]) == ["generate", "label", "export", "dpo", "evaluate"]
    states = {each["path"]: each["state"] for each in told["effects"]["files"] if each["state"] != "same"}
    assert states in ({}, TIMES), "two trainings may take the same milliseconds"


def test_a_whole_run_on_another_path_with_the_model_elsewhere_is_the_same(tmp_path: Path) -> None:
    """The adapter's settings name the model it was trained on by its path, and the training was told to differ."""
    (tmp_path / "here").mkdir()
    prompts = write_prompts(tmp_path / "here" / "prompts.jsonl", 14)
    config = write_config(tmp_path / "here", make_checkpoint(tmp_path / "here" / "model"), prompts)
    assert cai_here("run", config).returncode in (0, 3)
    (tmp_path / "here").rename(tmp_path / "there")
    run = tmp_path / "there" / "run"
    refused = cai_here("reproduce", run)
    assert refused.returncode == 1
    assert "--set policy.name=PATH" in refused.stderr
    done = cai_here("reproduce", run, "--set", f"policy.name={tmp_path / 'there' / 'model'}", "--json")
    assert done.returncode == 0, done.stdout
    told = json.loads(done.stdout)
    states = {each["path"]: each["state"] for each in told["effects"]["files"] if each["state"] != "same"}
    assert TIMES | states == {"dpo/adapter/adapter_config.json": "same but for where the model lies", **TIMES}


def test_what_came_out_otherwise_is_told_stage_by_stage_with_how_much(place: Path, tmp_path: Path) -> None:
    """One stored transcript of the original is another one: as on a machine that rounds otherwise."""
    with RunFolder.open(place / "run") as folder:
        records = list(folder.records(RecordKind.REVISION, RevisionRecord))
        records[3] = records[3].model_copy(update={"draft": "Rounded otherwise."})
        folder.put_records(RecordKind.REVISION, records)
    edit_manifest(place / "run", lambda whole: whole["environment"].update(threads=64, cpu="Another"))
    done = cai_here("reproduce", place / "run")
    assert done.returncode == 4
    assert f"transcripts: {len(records)} in both, 1 of them not the same" in done.stdout
    assert records[3].uid in done.stdout
    assert "environment: cpu: Another → " in done.stdout
    assert "generate  DIFFERS" in done.stdout
    assert "export    the same" in done.stdout
    assert "different here: cpu: Another → " in done.stderr


def test_another_package_version_stops_nothing_and_is_told(place: Path, tmp_path: Path) -> None:
    edit_manifest(place / "run", lambda whole: whole["packages"].update(pydantic="1.0"))
    done = cai_here("reproduce", place / "run", "--until", "generate")
    assert done.returncode == 0, done.stderr
    assert "different here: pydantic: 1.0 → " in done.stderr
    assert "packages: pydantic: 1.0 → " in done.stdout


def test_all_that_is_missing_or_changed_is_told_at_once(place: Path, made: Path, tmp_path: Path) -> None:
    script = tmp_path / "other.yaml"
    script.write_text((made / "script.yaml").read_text().replace("That is how it is.", "That is not how it is."))

    def change(whole: dict[str, Any]) -> None:
        whole["constitution"]["principles"][0]["principle"] = "Be rude."
        whole["packages"]["pydantic"] = "1.0"
        whole["environment"]["cores"] = 999

    edit_manifest(place / "run", change)
    with RunFolder.open(place / "run") as folder:
        items = list(folder.items())
        folder.put_items(items[1:], failures=list(folder.read_failures()))
    told = refused(place / "run", tmp_path / "again", changes=[f"policy.name=scripted:{script}"])
    assert "the constitution in the manifest is not the one of the run" in told
    assert "prompts: the rows in run.sqlite are not those of the run" in told
    assert "model policy: " in told
    assert "pydantic: 1.0 then" in told
    assert "cores: 999 then" in told


def test_what_only_torch_knows_of_the_machine_is_not_told_to_differ_before_torch_is_loaded(place: Path, tmp_path: Path) -> None:
    """A model that was not there stopped it before torch was loaded; it went on to say “threads: 1 then, None here”."""
    of_torch = {"device": "NVIDIA H200", "gpus": 1, "cuda": "13.0", "threads": 1, "instructions": "AVX512"}
    edit_manifest(place / "run", lambda whole: whole["environment"].update(of_torch, cores=999))
    done = cai("reproduce", place / "run", "--set", f"policy.name={tmp_path / 'nowhere'}")
    assert done.returncode == 1
    assert "cores: 999 then" in done.stderr
    assert done.stderr.count("nowhere") == 1
    assert "--set policy.name=PATH" in done.stderr
    assert not [name for name in of_torch if f"{name}: " in done.stderr]


def test_a_repeated_sample_is_no_run_to_do_again_and_says_so(place: Path, tmp_path: Path) -> None:
    assert cai_here("reproduce", place / "run", "--sample", 3, "--into", tmp_path / "some").returncode == 0
    told = refused(tmp_path / "some", tmp_path / "again")
    assert "If it repeats a sample of another run, name that run" in told


def test_a_manifest_without_a_configuration_is_told_to_be_that(place: Path, tmp_path: Path) -> None:
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "manifest.json").write_text('{"version": 1}')
    with pytest.raises(StoreError, match="holds no configuration"):
        prepare(tmp_path / "bare", tmp_path / "again")


def test_a_tracker_that_is_not_here_stops_no_reproduction(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its figures are in the tracker's run of the original; the reproduction has none, and was refused all the same."""
    edit_manifest(place / "run", lambda whole: whole["config"]["tracking"].update(to=["wandb"]))
    monkeypatch.setattr("cai.training.tracker_packages.find_spec", lambda _name: None)
    ready = prepare(place / "run", tmp_path / "again")
    assert ready.inputs.config.tracking.to == ()


def test_a_model_in_two_roles_that_is_another_is_told_once(tmp_path: Path) -> None:
    config = write_config(tmp_path, make_checkpoint(tmp_path / "model"), write_prompts(tmp_path / "prompts.jsonl", 2), dpo=None)
    assert cai_here("generate", config).returncode in (0, 3)
    other = make_checkpoint(tmp_path / "other", seed=1)
    told = refused(tmp_path / "run", tmp_path / "again", changes=[f"policy.name={other}"])
    assert told.count("is not the one of the run") == 1


def test_a_manifest_alone_is_enough_where_the_named_files_are_here(place: Path, made: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.copy(place / "run" / "manifest.json", alone)
    shutil.copy(made / "prompts.jsonl", tmp_path / "mine.jsonl")
    script = f"policy.name=scripted:{made / 'script.yaml'}"
    told = refused(alone, tmp_path / "again", changes=[script])
    assert "prompts.jsonl" in told  # which is not here under its own name
    changes = ["--set", script, "--set", f"prompts.path={tmp_path / 'mine.jsonl'}"]
    done = cai_here("reproduce", alone, "--into", tmp_path / "again", *changes, "--json")
    assert done.returncode == 0, done.stderr + done.stdout
    found = json.loads(done.stdout)
    assert found["stages"] == {"label": True, "export": True}
    with (tmp_path / "mine.jsonl").open("a") as file:
        file.write('{"prompt": "One more?"}\n')
    told = refused(alone, tmp_path / "once more", changes=changes[1::2])
    assert "are not those of the run" in told


def test_a_sample_is_compared_with_the_rows_it_repeats(place: Path, tmp_path: Path) -> None:
    done = cai_here("reproduce", place / "run", "--sample", 4, "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["effects"]["items"] == {"common": 4, "different": 0, "only_first": 0, "only_second": 0}
    assert told["effects"]["revisions"]["common"] == 4
    assert (told["until"], told["sample"]) == ("label", 4)
    with RunFolder.open(place / "run-again", read_only=True) as folder:
        assert folder.count_items() == 4


def test_a_reproduction_never_goes_on_in_the_folder_of_another_run(place: Path, tmp_path: Path) -> None:
    before = (place / "run" / "manifest.json").read_bytes()
    for into in (place / "run",):
        with pytest.raises(StoreError, match="holds another run"):
            prepare(place / "run", into)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("mine")
    ready = prepare(place / "run", tmp_path / "thesis")
    with pytest.raises(StoreError, match="not a run folder"), open_session(ready.inputs):
        pass
    assert (place / "run" / "manifest.json").read_bytes() == before


def test_a_shard_and_a_folder_without_a_manifest_are_refused(place: Path, tmp_path: Path) -> None:
    edit_manifest(place / "run", lambda whole: whole.update(shard="1/2"))
    with pytest.raises(StoreError, match="a shard"):
        prepare(place / "run", tmp_path / "again")
    (place / "run" / "manifest.json").unlink()
    with pytest.raises(StoreError, match=r"no manifest\.json"):
        prepare(place / "run", tmp_path / "again")


def test_a_run_whose_manifest_is_of_the_first_version_is_done_again_too(place: Path, tmp_path: Path) -> None:
    """It noted paths in the manifest itself, two packages among the environment, and no origins, ledger or outputs."""
    with RunFolder.open(place / "run") as folder:
        whole = folder.whole_manifest
    kept = ("program", "seed", "config", "constitution", "models", "prompts", "human_labels", "shard")
    old = {name: whole[name] for name in kept} | {"version": 1, "environment": {"python": "3.11", "torch": "2.0"}}
    (place / "run" / "manifest.json").write_text(json.dumps(old))
    (place / "run" / "private.json").unlink()
    ready = prepare(place / "run", tmp_path / "again", until=Stage.EXPORT)
    found = reproduce(ready)
    assert found.same
    assert "packages" in found.causes.unknown
    assert read_manifest(tmp_path / "again")["version"] == 2


def test_what_an_early_manifest_did_not_note_is_neither_another_run_nor_set_otherwise(place: Path) -> None:
    """Its rows lie in the run, and were told not to be those of the run; settings that came later were set "None → None"."""

    def make_early(whole: dict[str, Any]) -> None:
        whole["prompts"].pop("fingerprint")
        for name in ("debate", "ensemble"):
            whole["config"]["labels"].pop(name)

    edit_manifest(place / "run", make_early)
    done = cai_here("reproduce", place / "run", "--until", "generate", "--set", "labels.max_p_chosen=0.9")
    assert done.returncode == 0, done.stderr
    told = [line for line in done.stderr.splitlines() if "labels." in line]
    assert told[0].startswith("set otherwise: labels.max_p_chosen: ")
    assert told[1:] == ["not noted by the run, which is older: labels.ensemble, labels.debate"]


def prefers(pair: PreferenceRecord, better: str) -> HumanVerdict:
    names = sorted(reply_fingerprint(pair.prompt, reply) for reply in (pair.chosen, pair.rejected))
    first = names[0] == reply_fingerprint(pair.prompt, better)
    return HumanVerdict(
        replies=tuple(names),
        uid=pair.uid,
        reviewer="ann",
        judgement=Judgement.FIRST if first else Judgement.SECOND,
        shown="first_second",
        at="2026-11-28T12:00:00Z",
        by="terminal",
    )


def test_what_people_said_is_not_asked_again_and_counts_again(place: Path, tmp_path: Path) -> None:
    """A verdict against the first pair's label, exported with the run before it is done again."""
    with RunFolder.open(place / "run") as folder:
        pair = next(folder.records(RecordKind.PREFERENCE, PreferenceRecord))
    said = prefers(pair, pair.rejected)
    with VerdictFile.open(place / "run") as verdicts:
        verdicts.add([said])
    with RunFolder.open(place / "run") as folder:
        config = RunConfig.model_validate(folder.whole_manifest["config"]).model_copy(update={"run": place / "run"})
    with open_session(read_inputs(config)) as session:
        run(session, until=Stage.EXPORT)
        exported = (place / "run" / "datasets" / "preferences.jsonl").read_bytes()
        assert json.loads(exported.splitlines()[0])["chosen"][0]["content"] == pair.rejected
        assert next(session.folder.records(RecordKind.PREFERENCE, PreferenceRecord)).chosen == pair.chosen  # the AI's own
    found = reproduce(prepare(place / "run", tmp_path / "again"))
    assert found.same
    assert (tmp_path / "again" / "datasets" / "preferences.jsonl").read_bytes() == exported
    with VerdictFile.look_at(tmp_path / "again") as verdicts:
        assert [each for _, each in verdicts.history()] == [said]
