"""An open run: its folder, its inputs, and its engines, each loaded when a stage first needs it."""

from __future__ import annotations

import os
import platform
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any

from cai.engines.base import Engine
from cai.engines.opening import open_engine
from cai.engines.scripts import is_script, read_script
from cai.models.memory import return_free_memory
from cai.models.spec import ModelSpec
from cai.pipeline.events import OnProgress, RowsSettled
from cai.pipeline.finished import ORDER, is_current
from cai.pipeline.metering import Counted, Meter
from cai.pipeline.preflight import Inputs
from cai.records import EVALUATION, Stage
from cai.store import MANIFEST_VERSION, PROGRAM, MemoisedEngine, RunFolder, Usage, fingerprint


@dataclass
class Session:
    """A run at work. Engines remember every call in the run folder."""

    inputs: Inputs
    folder: RunFolder
    meter: Meter = field(init=False)
    """Told of progress by the stages."""
    _engines: dict[ModelSpec, MemoisedEngine] = field(default_factory=dict[ModelSpec, MemoisedEngine], init=False)
    _released: Counted = field(default_factory=Counted, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)
    _facts: dict[ModelSpec, dict[str, Any]] = field(default_factory=dict[ModelSpec, dict[str, Any]], init=False)

    @property
    def policy(self) -> MemoisedEngine:
        return self.engine(self.inputs.config.policy)

    @property
    def feedback(self) -> MemoisedEngine:
        return self.engine(self.inputs.config.feedback_or_policy)

    def engine(self, spec: ModelSpec) -> MemoisedEngine:
        """The remembering engine of a model."""
        if spec not in self._engines:
            opened = open_engine(spec, self.inputs.config.engine)
            if spec.server is not None:
                self._facts[spec] = _served_facts(opened)
            with self._lock:
                self._engines[spec] = MemoisedEngine(opened, self.folder)
        return self._engines[spec]

    def counted(self) -> Counted:
        """What this process has asked of its engines, those that were released included. May be called from any thread."""
        with self._lock:
            return self._counted_now()

    def usage(self) -> Usage:
        """What this process has asked of its engines, all stages together."""
        return sum(self.counted().usage.values(), Usage())

    def release_engines(self) -> None:
        """Give back the memory of loaded models: training loads its own."""
        with self._lock:
            self._released = self._counted_now()
            self._engines.clear()
        return_free_memory()

    def tell(self, stage: str, done: int, total: int, note: str = "", *, growing: bool = False) -> None:
        """Say how far a stage is (see `Meter.tell`)."""
        self.meter.tell(stage, done, total, note, growing=growing)

    def tell_rows(self, phase: Stage) -> None:
        """Say how the ledger stands after a phase."""
        self.meter.settled(RowsSettled(phase, self.folder.ledger_counts(), self.folder.ledger_reasons()))

    def _counted_now(self) -> Counted:
        engines = (Counted(each.statistics(), each.usage(), each.failures()) for each in self._engines.values())
        return sum(engines, self._released)

    def is_current(self, stage: Stage, key: str) -> bool:
        """Whether a stage was finished on these very inputs, and has nothing left to do (see `cai.pipeline.finished`)."""
        return is_current(self.folder, stage, key)

    def begin(self, stage: Stage) -> None:
        """The stage makes its records anew: until it is put again it is not finished, and what came of the old ones is void."""
        self.folder.forget_stage(stage)
        self.forget_after(stage)

    def forget_after(self, stage: Stage) -> None:
        """What later stages found belongs to other records now: a report must not show it beside the new ones."""
        for later in ORDER[ORDER.index(stage) + 1 :]:
            self.folder.forget_stage(later)
        self.folder.put_measurements(EVALUATION, [])

    def _described(self, spec: ModelSpec) -> dict[str, Any]:
        """A model, for the manifest. What its server can do was found out when its engine was opened."""
        if spec.server is None:
            return _described(spec)
        if spec not in self._facts:
            self.engine(spec)
        return {"name": str(spec), **self._facts[spec]}

    def write_manifest(self) -> None:
        """Everything one needs to know to repeat the run; written anew once the records are those of these inputs."""
        config = self.inputs.config
        self.folder.write_manifest(
            {
                "version": MANIFEST_VERSION,
                "program": metadata.version(PROGRAM),
                "seed": config.seed,
                "config": config,
                "constitution": self.inputs.constitution.model_dump(mode="json")
                | {"fingerprint": self.inputs.constitution.fingerprint},
                "models": {"policy": self._described(config.policy), "feedback": self._described(config.feedback_or_policy)},
                "prompts": {
                    "source": self.inputs.source,
                    "rows": len(self.inputs.items) + len(self.inputs.failures),
                    "items": len(self.inputs.items),
                    "failures": len(self.inputs.failures),
                    "held_out": len(self.inputs.held_out_items),
                    "fingerprint": self.inputs.fingerprint,
                },
                "shard": None if self.inputs.shard is None else str(self.inputs.shard),
                "environment": _environment(),
            }
        )


def stage_key(*parts: object) -> str:
    """Fingerprint of what a stage's result depends on."""
    return fingerprint([MANIFEST_VERSION, *parts])


@contextmanager
def open_session(inputs: Inputs, on_progress: OnProgress | None = None, *, calls_only: bool = False) -> Generator[Session]:
    """Open (or begin) the run folder of a checked configuration; everything finished is committed when the block is left.

    Args:
        inputs: The checked run.
        on_progress: Told of progress.
        calls_only: For work beside the run: its stored calls are used and added to; its items, records, outcomes and manifest
            stay what the run made them, also where `inputs` are others.

    Raises:
        StoreError: If the folder is locked, foreign, damaged or cannot be written.
        ModelError: If a model cannot be used after all.
    """
    with RunFolder.open(inputs.config.run) as folder:
        session = Session(inputs, folder)
        with Meter(on_progress, session.counted, folder.path) as session.meter:
            if not calls_only:
                folder.put_items(
                    inputs.items,
                    failures=inputs.failures,
                    replicas=inputs.config.loop.replicas,
                    positions=None if inputs.shard is None else inputs.corpus.positions,
                )
                if not folder.manifest:
                    session.write_manifest()
            try:
                yield session
            finally:
                session.release_engines()


def _described(spec: ModelSpec) -> dict[str, Any]:
    if is_script(spec.name):
        return {"name": str(spec), "source": "a script", "fingerprint": read_script(spec.name).engine().fingerprint}
    from cai.models.loading import open_model

    opened = open_model(spec)
    return {
        "name": str(spec),
        "source": opened.source,
        "fingerprint": opened.fingerprint,
        "dtype": str(opened.dtype).removeprefix("torch."),
        "device": str(opened.device),
    }


def _served_facts(engine: Engine) -> dict[str, Any]:
    from cai.engines.server import ServerEngine

    assert isinstance(engine, ServerEngine), "a model on a server"
    return dict(engine.facts)


def _environment() -> dict[str, Any]:
    return {
        "python": platform.python_version(),
        "torch": metadata.version("torch"),
        "transformers": metadata.version("transformers"),
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "device": _device_name(),
    }


def _device_name() -> str:
    # Without torch no model is loaded here: the run is on a script, or on a server.
    if (torch := sys.modules.get("torch")) is not None and torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return platform.processor() or platform.machine()
