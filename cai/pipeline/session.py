"""An open run: its folder, its inputs, and its engines, each loaded when a stage first needs it."""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from cai.engines.base import Engine
from cai.engines.opening import open_engine
from cai.engines.scripts import is_script, read_script
from cai.labels.debate import with_advocate
from cai.models.memory import return_free_memory
from cai.models.spec import ModelSpec
from cai.pipeline.events import OnProgress, RowsSettled
from cai.pipeline.examining import Examination
from cai.pipeline.finished import ORDER, is_current
from cai.pipeline.licences import stated_licence
from cai.pipeline.manifest import manifest_of
from cai.pipeline.metering import Counted, Meter
from cai.pipeline.preflight import Inputs
from cai.pipeline.provenance import noted_models
from cai.pipeline.tracking import Tracking, tracking
from cai.records import EVALUATIONS, Stage
from cai.store import MemoisedEngine, RunFolder, Usage, fingerprint


@dataclass
class Session:
    """A run at work. Engines remember every call in the run folder."""

    inputs: Inputs
    folder: RunFolder
    meter: Meter = field(init=False)
    """Told of progress by the stages."""
    tracking: Tracking = field(default_factory=Tracking, init=False)
    """Told of what the stages came to."""
    examination: Examination | None = field(default=None, init=False)
    """Of the labellers, once it was made."""
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

    @property
    def labellers(self) -> list[Engine]:
        """The engines of the models that label; where the policy argues in a debate, with it."""
        config = self.inputs.config
        return with_advocate([self.engine(spec) for spec in config.labellers], lambda: self.policy, config.labels.debate)

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
        for kind in EVALUATIONS:
            self.folder.put_measurements(kind, [])

    def _described(self, spec: ModelSpec) -> dict[str, Any]:
        """A model, for the manifest. What its server can do was found out when its engine was opened."""
        if spec not in self._facts:
            if spec.server is None:
                self._facts[spec] = described_model(spec)
            else:
                self.engine(spec)
        return {"name": str(spec), **self._facts[spec]}

    def write_manifest(self) -> None:
        """Everything one needs to know to repeat the run, and what it has come to so far."""
        models = {role: self._described(spec) for role, spec in noted_models(self.inputs.config).items()}
        self.folder.write_manifest(manifest_of(self.inputs, models, self.folder))


STAGE_KEYS_VERSION = 1
"""Rises when a stage makes something else of the same inputs: what an earlier version finished is then done again."""


def stage_key(*parts: object) -> str:
    """Fingerprint of what a stage's result depends on."""
    return fingerprint([STAGE_KEYS_VERSION, *parts])


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
        with (
            nullcontext(session.tracking) if calls_only else tracking(inputs.config) as session.tracking,
            Meter(session.tracking.listening(on_progress), session.counted, folder.path) as session.meter,
        ):
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


def described_model(spec: ModelSpec) -> dict[str, Any]:
    """What there is to say of a model that is here, by its files; no weights are read.

    Raises:
        ModelError: If it cannot be used.
    """
    if is_script(spec.name):
        return {"source": "a script", "fingerprint": read_script(spec.name).engine().fingerprint}
    from cai.models.loading import open_model

    opened = open_model(spec)
    return {
        "source": opened.source,
        "fingerprint": opened.fingerprint,
        "tokenizer": opened.tokenizer.template_fingerprint,
        "licence": stated_licence(opened.place.folder),
        "dtype": str(opened.dtype).removeprefix("torch."),
        "device": str(opened.device),
    }


def _served_facts(engine: Engine) -> dict[str, Any]:
    from cai.engines.server import ServerEngine

    assert isinstance(engine, ServerEngine), "a model on a server"
    return dict(engine.facts)
