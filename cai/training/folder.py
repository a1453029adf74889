"""The folder a training run writes: what is in it, what is finished, what can be resumed.

config.json, *.safetensors, tokenizer …   the trained model, for `from_pretrained`
adapter/                                  the LoRA adapter alone
README.md                                 the model's card
metrics.jsonl                             one line for each logged step
tensorboard/                              the same for TensorBoard, if it was asked for
reference/                                log-probabilities under the reference model, and some whole distributions
checkpoints/                              while training is not finished; then the weights, if they are to be kept
run.json                                  fingerprint of what is trained on what, written first
training.json                             the result, written last: its presence means that the rest is whole
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from filelock import FileLock, Timeout
from pydantic import ValidationError
from safetensors import SafetensorError

from cai.errors import TrainingError
from cai.models.fingerprints import write_atomically
from cai.training.checkpoint_files import COMPLETE, MAKE_ROOM, drop_optimizer, whole_checkpoints
from cai.training.results import TrainingResult

LOCK_NAME = ".lock"


class TrainingFolder:
    """One run's output folder.

    Args:
        path: Made if absent.
        fingerprint: Of model, settings and rows: what an earlier run must have had to be gone on with.
    """

    def __init__(self, path: Path, fingerprint: str) -> None:
        self.path = path
        self.fingerprint = fingerprint
        self.metrics_path = path / "metrics.jsonl"
        self.checkpoints = path / "checkpoints"
        self.adapter = path / "adapter"
        self.tensorboard = path / "tensorboard"
        self._result_path = path / "training.json"
        self._run_path = path / "run.json"

    def finished(self) -> TrainingResult | None:
        """The result of a run with this very fingerprint that went to its end, or None."""
        try:
            data = json.loads(self._result_path.read_text(encoding="utf-8"))
            if data["fingerprint"] != self.fingerprint:
                return None
            adapter = self.path / data["adapter"] if data["adapter"] else None
            return TrainingResult.model_validate({**data, "folder": self.path, "adapter": adapter})
        except (OSError, ValueError, KeyError, TypeError, ValidationError):
            return None

    def resumable(self) -> tuple[Path, int] | None:
        """The newest whole checkpoint of a run with this very fingerprint and its step, or None."""
        if not self._is_ours():
            return None
        found = whole_checkpoints(self.checkpoints)
        return (found[-1][1], found[-1][0]) if found else None

    def _is_ours(self) -> bool:
        try:
            return bool(json.loads(self._run_path.read_text(encoding="utf-8"))["fingerprint"] == self.fingerprint)
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def prepare(self, resume_step: int | None) -> bool:
        """Make the folder ready to train in: from `resume_step`, or from the beginning if None.

        What an earlier run left of later steps goes; with None, everything it left except cached reference values.

        Returns:
            Whether another run's work was cleared away.

        Raises:
            TrainingError: If a model lies there that no training has left.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        if not self._run_path.exists() and (strangers := [*self.path.glob("*.safetensors*"), *self.path.glob("adapter/*")]):
            raise TrainingError(
                f"{self.path}: a model lies here that no training of this program has left ({strangers[0].name})",
                "give another output folder; this one would be overwritten",
            )
        self._result_path.unlink(missing_ok=True)
        if resume_step is None:
            cleared = self._run_path.exists() and not self._is_ours()
            shutil.rmtree(self.checkpoints, ignore_errors=True)
            shutil.rmtree(self.adapter, ignore_errors=True)
            shutil.rmtree(self.tensorboard, ignore_errors=True)
            self.metrics_path.unlink(missing_ok=True)
            for weights in self.path.glob("*.safetensors*"):
                weights.unlink()
            write_atomically(self._run_path, json.dumps({"fingerprint": self.fingerprint}) + "\n")
            return cleared
        for checkpoint in self.checkpoints.glob("checkpoint-*"):
            if not (checkpoint / COMPLETE).exists() or int(checkpoint.name.rpartition("-")[2]) > resume_step:
                shutil.rmtree(checkpoint, ignore_errors=True)
        kept = [line for line in self.metrics() if line["step"] <= resume_step]
        write_atomically(self.metrics_path, "".join(json.dumps(line) + "\n" for line in kept))
        return False

    def add_metrics(self, line: dict[str, float]) -> None:
        with self.metrics_path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def metrics(self) -> list[dict[str, float]]:
        """All whole lines of `metrics.jsonl`."""
        lines: list[dict[str, float]] = []
        if self.metrics_path.exists():
            for text in self.metrics_path.read_text(encoding="utf-8", errors="replace").splitlines():
                try:
                    lines.append(cast("dict[str, float]", json.loads(text)))
                except ValueError:
                    break  # a torn last line
        return lines

    def finish(self, result: TrainingResult, *, keep_checkpoints: bool = False) -> None:
        """Declare the run finished; nobody resumes from its checkpoints any more, and the trained model is one of them."""
        write_atomically(self._result_path, json.dumps(result.as_json(), indent=2) + "\n")
        if not keep_checkpoints:
            shutil.rmtree(self.checkpoints, ignore_errors=True)
            return
        for step, checkpoint in whole_checkpoints(self.checkpoints):
            if step == result.kept_step:
                shutil.rmtree(checkpoint, ignore_errors=True)
            else:
                drop_optimizer(checkpoint)


def finished_files(path: Path) -> list[Path]:
    """The files of a finished run: model, tokenizer, adapter, metrics, result. Reference values are a cache, and are not."""
    return sorted(
        each for folder in (path, path / "adapter") for each in folder.glob("*") if each.is_file() and each.name != LOCK_NAME
    )


@contextmanager
def locked(path: Path, *, main_process: bool) -> Generator[None]:
    """Hold the folder's lock, so that two runs cannot write into one folder.

    Raises:
        TrainingError: If another process holds it.
    """
    if not main_process:
        yield
        return
    path.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path / LOCK_NAME, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise TrainingError(f"{path}: another process is training there", "wait for it, or take another folder") from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def disk_errors(path: Path) -> Generator[None]:
    """Turn a full or read-only disk into a TrainingError that says where, and that nothing finished is lost."""
    try:
        yield
    except OSError as error:
        raise TrainingError(f"{error.filename or path}: {error.strerror or error}", MAKE_ROOM) from error
    except SafetensorError as error:
        raise TrainingError(f"{path}: weights could not be written ({error})", MAKE_ROOM) from error
