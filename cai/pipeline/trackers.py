"""Experiment trackers behind one interface: thin adapters, each of which imports its library when it is opened.

Figures of training come through transformers' own callbacks for the same tracker, into the same project and run.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from cai.config.tracking import TrackerName, TrackingSettings


class Tracker(Protocol):
    """A run in a tracker. Its methods may raise whatever the library raises."""

    def log(self, figures: Mapping[str, float], seconds: int) -> None:
        """Note figures, by names such as `ledger/pair`, at a time since the process began."""
        ...

    def callback(self, stage: str) -> Any:
        """Transformers' callback that notes a training stage here."""
        ...

    def log_step(self, stage: str, figures: Mapping[str, float], step: int) -> None:
        """Note the figures of one step of a training that is none of the Trainer's."""
        ...

    def close(self) -> None:
        """Write what waits, and end the run."""
        ...


class TensorBoard:
    """Event files in `place`, and for each training stage in a folder below: another run on the same page."""

    def __init__(self, settings: TrackingSettings, name: str, place: Path) -> None:
        self._place = place / "tensorboard" / settings.project / name
        self._writer = _summary_writer(self._place)
        self._of_stages: dict[str, Any] = {}

    def log(self, figures: Mapping[str, float], seconds: int) -> None:
        for name, value in figures.items():
            self._writer.add_scalar(name, value, seconds)

    def callback(self, stage: str) -> Any:
        return _callbacks().TensorBoardCallback(_summary_writer(self._place / stage))

    def log_step(self, stage: str, figures: Mapping[str, float], step: int) -> None:
        if stage not in self._of_stages:
            self._of_stages[stage] = _summary_writer(self._place / stage)
        for name, value in figures.items():
            self._of_stages[stage].add_scalar(f"train/{name}", value, step)

    def close(self) -> None:
        for writer in (self._writer, *self._of_stages.values()):
            writer.close()


class Wandb:
    """A run of Weights & Biases: files in `place`, to be sent later by `wandb sync`, unless it is online."""

    def __init__(self, settings: TrackingSettings, name: str, place: Path) -> None:
        mode = None if settings.online else "offline"
        options = {"project": settings.project, "name": name, "dir": str(place), "mode": mode}
        self._run: Any = import_module("wandb").init(**options)

    def log(self, figures: Mapping[str, float], seconds: int) -> None:
        self._run.log({**figures, "seconds": seconds})

    def callback(self, stage: str) -> Any:  # noqa: ARG002 - it takes the run that is open, whatever the stage
        return _callbacks().WandbCallback()

    def log_step(self, stage: str, figures: Mapping[str, float], step: int) -> None:
        self._run.log({**_of_stage(stage, figures), f"{stage}/step": step})

    def close(self) -> None:
        self._run.finish()


class MLflow:
    """A run of MLflow: in a database in `place`, unless it is online."""

    def __init__(self, settings: TrackingSettings, name: str, place: Path) -> None:
        address = None if settings.online else f"sqlite:///{(place / 'mlflow.db').resolve()}"
        mlflow: Any = import_module("mlflow")
        if address is not None:
            mlflow.set_tracking_uri(address)
        self._client: Any = mlflow.MlflowClient()
        found = self._client.get_experiment_by_name(settings.project)
        kept = None if settings.online else (place / "mlflow-artifacts").resolve().as_uri()
        experiment = found.experiment_id if found else self._client.create_experiment(settings.project, artifact_location=kept)
        self._run = self._client.create_run(experiment, run_name=name).info.run_id
        self._entities: Any = import_module("mlflow.entities")

    def log(self, figures: Mapping[str, float], seconds: int) -> None:
        self._log(figures, self._client.get_run(self._run).info.start_time + 1000 * seconds, seconds)

    def log_step(self, stage: str, figures: Mapping[str, float], step: int) -> None:
        self._log(_of_stage(stage, figures), round(1000 * time.time()), step)

    def _log(self, figures: Mapping[str, float], now_ms: int, at: int) -> None:
        # It refuses other signs, and with them the whole batch.
        names = {name: re.sub(r"[^\w\-. :/]", "_", name, flags=re.ASCII) for name in figures}
        metrics = [self._entities.Metric(names[name], value, now_ms, at) for name, value in figures.items()]
        self._client.log_batch(self._run, metrics=metrics)

    def callback(self, stage: str) -> Any:  # noqa: ARG002 - all stages are one run
        os.environ["MLFLOW_RUN_ID"] = self._run  # it goes on with this run instead of beginning one
        return _callbacks().MLflowCallback()

    def close(self) -> None:
        os.environ.pop("MLFLOW_RUN_ID", None)
        self._client.set_terminated(self._run)


class Trackio:
    """A run of trackio: in a database in `place`, unless it is online."""

    def __init__(self, settings: TrackingSettings, name: str, place: Path) -> None:
        os.environ.setdefault("TRACKIO_DIR", str((place / "trackio").resolve()))  # read once, at its import
        if not settings.online:
            os.environ.pop("TRACKIO_SPACE_ID", None)
        with redirect_stdout(sys.stderr):  # it prints; results are what belongs there
            self._trackio: Any = import_module("trackio")
            self._run: Any = self._trackio.init(project=settings.project, name=name, resume="allow")

    def log(self, figures: Mapping[str, float], seconds: int) -> None:
        self._run.log({**figures, "seconds": seconds})

    def callback(self, stage: str) -> Any:  # noqa: ARG002 - all stages are one run
        callback = _callbacks().TrackioCallback()
        # It would begin a run in a project of its own, and end it with the training.
        callback._initialized = True
        callback.on_train_end = _nothing
        return callback

    def log_step(self, stage: str, figures: Mapping[str, float], step: int) -> None:
        self._run.log({**_of_stage(stage, figures), f"{stage}/step": step})

    def close(self) -> None:
        with redirect_stdout(sys.stderr):
            self._trackio.finish()


OPENERS: Mapping[TrackerName, Callable[[TrackingSettings, str, Path], Tracker]] = {
    "tensorboard": TensorBoard,
    "wandb": Wandb,
    "mlflow": MLflow,
    "trackio": Trackio,
}


def _of_stage(stage: str, figures: Mapping[str, float]) -> dict[str, float]:
    """All stages are one run there: a stage's figures have its name before theirs."""
    return {f"{stage}/{name}": value for name, value in figures.items()}


def _nothing(*_: object, **__: object) -> None:
    """In place of what a callback would do."""


def _summary_writer(folder: Path) -> Any:
    return import_module("torch.utils.tensorboard").SummaryWriter(str(folder))


def _callbacks() -> Any:
    return import_module("transformers.integrations")
