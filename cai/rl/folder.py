"""The folder that `cai rl` writes: as `cai.training.folder` has it, and `samples.jsonl`, replies to be read."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cai.errors import TrainingError
from cai.models.fingerprints import write_atomically
from cai.rl.results import RLResult
from cai.training.folder import TrainingFolder


class RLFolder(TrainingFolder):
    """One run's output folder. Args as `TrainingFolder`."""

    def __init__(self, path: Path, fingerprint: str) -> None:
        super().__init__(path, fingerprint)
        self.samples_path = path / "samples.jsonl"
        self._ended_path = path / "training.json"

    def ended(self) -> RLResult | None:
        """The result of a run with this very fingerprint that went to its end, or None."""
        try:
            data = json.loads(self._ended_path.read_text(encoding="utf-8"))
            if data["fingerprint"] != self.fingerprint:
                return None
            adapter = self.path / data["adapter"] if data["adapter"] else None
            return RLResult.model_validate({**data, "folder": self.path, "adapter": adapter})
        except (OSError, ValueError, KeyError, TypeError, ValidationError):
            return None

    def prepare(self, resume_step: int | None) -> bool:
        """As `TrainingFolder.prepare`; samples of later steps go too.

        Raises:
            TrainingError: If another command's model lies there: the policy, or the reward.
        """
        if self._is_another_command_s():
            raise TrainingError(
                f"{self.path}: a model lies here that another command has trained", "give `cai rl` a folder of its own"
            )
        cleared = super().prepare(resume_step)
        if resume_step is None:
            self.samples_path.unlink(missing_ok=True)
        elif self.samples_path.exists():
            kept: list[str] = []
            for line in self.samples_path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True):
                try:
                    if json.loads(line)["step"] <= resume_step:
                        kept.append(line)
                except (ValueError, KeyError, TypeError):
                    break  # a torn last line
            write_atomically(self.samples_path, "".join(kept))
        return cleared

    def _is_another_command_s(self) -> bool:
        """Of finished trainings only `cai rl`'s note names an algorithm."""
        try:
            return "algorithm" not in json.loads(self._ended_path.read_text(encoding="utf-8"))
        except (OSError, ValueError, TypeError):
            return False

    def add_row(self, row: dict[str, float], samples: Sequence[dict[str, Any]]) -> None:
        """A step's metrics and samples, durably: before its checkpoint, so that no checkpoint is without its rows."""
        for path, lines in ((self.samples_path, samples), (self.metrics_path, [row])):
            with path.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
                file.flush()
                os.fsync(file.fileno())

    def end(self, result: RLResult) -> None:
        """Declare the run finished; its checkpoints are no longer needed."""
        write_atomically(self._ended_path, json.dumps(result.as_json(), indent=2) + "\n")
        shutil.rmtree(self.checkpoints, ignore_errors=True)
