"""Small real runs whose principles and prompts are edited: the run that goes on, and the fresh one it must equal."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml
from whole_runs import PROMPTS, write_config

from cai.config import read_config
from cai.pipeline import Inputs, Plan, RunSummary, open_session, plan, read_inputs, run
from cai.records import FailureRecord, PreferenceRecord, RecordKind, RevisionRecord, Stage
from cai.store import RunFolder

PRINCIPLES: tuple[dict[str, Any], ...] = (
    {"id": "brief", "principle": "Be brief.", "rationale": "Time is short.", "weight": 2.0},
    {"id": "kind", "principle": "Be kind to the user.", "applies_to": ["questions"]},
    {"id": "honest", "principle": "Say only what is true.", "critique_request": "Is all of it true?"},
)


@dataclass(frozen=True)
class Case:
    """What a run is made of; everything else is the same for all."""

    principles: tuple[dict[str, Any], ...] = PRINCIPLES
    prompts: tuple[Any, ...] = (*PROMPTS, *(f"Tell me about number {n}." for n in range(12)))
    settings: dict[str, Any] = field(default_factory=dict[str, Any])

    def with_principle(self, number: int, **changes: Any) -> Case:
        each = {**self.principles[number], **changes}
        return replace(self, principles=(*self.principles[:number], each, *self.principles[number + 1 :]))


@dataclass(frozen=True)
class Place:
    """A folder with principle file, prompts, configuration and run."""

    folder: Path
    model: Path

    @property
    def run(self) -> Path:
        return self.folder / "run"

    def inputs(self, case: Case) -> Inputs:
        """Write the files of a case, and read them as a user's."""
        self.folder.mkdir(exist_ok=True)
        principles, prompts = self.folder / "mine.yaml", self.folder / "prompts.jsonl"
        principles.write_text(yaml.safe_dump({"name": "mine", "principles": list(case.principles)}))
        prompts.write_text("".join(json.dumps({"prompt": row}) + "\n" for row in case.prompts))
        source = {"path": str(prompts), "tags": ["claims"]}
        # To the last bit: the runs are compared by their bytes.
        settings = {"constitution": [str(principles)], "dpo": None, "engine": {"exact": True}, **case.settings}
        return read_inputs(read_config(write_config(self.folder, self.model, source, **settings), (), {}).config)

    def do(self, case: Case, until: Stage = Stage.EXPORT) -> RunSummary:
        with open_session(self.inputs(case)) as session:
            return run(session, until=until)

    def plan(self, case: Case, until: Stage = Stage.EXPORT) -> Plan:
        return plan(self.inputs(case), until=until)

    def copy(self, folder: Path) -> Place:
        shutil.copytree(self.folder, folder)
        return Place(folder, self.model)

    def calls(self) -> dict[str, int]:
        with RunFolder.open(self.run, read_only=True) as folder:
            return {stage: usage.calls for stage, usage in folder.usage().items()}

    def outcome(self) -> dict[str, Any]:
        """Everything a run says of its rows: records, outcomes, and the bytes of its data sets."""
        with RunFolder.open(self.run, read_only=True) as folder:
            kinds = ((RecordKind.REVISION, RevisionRecord), (RecordKind.PREFERENCE, PreferenceRecord))
            return {
                **{kind: [each.model_dump_json() for each in folder.records(kind, model)] for kind, model in kinds},
                "failures": sorted(each.model_dump_json() for each in folder.records(RecordKind.FAILURE, FailureRecord)),
                "ledger": list(folder.ledger()),
                **{path.name: path.read_bytes() for path in sorted((self.run / "datasets").iterdir())},
            }


def files_of(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Every file below a folder with its bytes and the time of its last change."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}
