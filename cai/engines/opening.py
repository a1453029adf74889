"""From a model's name to an engine. Importing it costs nothing: torch comes with the engine."""

from __future__ import annotations

from typing import Literal, Protocol, TypeAlias

from cai.engines.base import Engine
from cai.engines.scripts import check_script, is_script, read_script
from cai.errors import CaiError
from cai.models.spec import ModelSpec

SLOTS = 64
"""Rows decoded together where nobody says how many; on two CPU cores more bring little. Pages find their own number."""

SchedulerName: TypeAlias = Literal["auto", "slots", "paged"]


class EngineLimits(Protocol):
    """How an engine batches; the configuration's `engine` section."""

    @property
    def max_batch(self) -> int | None: ...
    @property
    def batch_tokens(self) -> int | None: ...
    @property
    def exact(self) -> bool | None: ...
    @property
    def scheduler(self) -> SchedulerName: ...


def check_engine(spec: ModelSpec) -> list[CaiError]:
    """Everything that is plainly wrong with a model or script, found in milliseconds and without torch."""
    if is_script(spec.name):
        return check_script(spec.name)
    from cai.models.checking import check_model

    return check_model(spec)


def open_engine(spec: ModelSpec, settings: EngineLimits) -> Engine:
    """An engine for a model. Finds and checks the model and loads its tokenizer; weights are read when they are first needed.

    A model on a server is asked for at its server.

    Raises:
        ModelError: If the model cannot be used (several problems: `ProblemList`).
        EngineError: If the local engine cannot run this kind of model, or the server does not answer.
    """
    if is_script(spec.name):
        return read_script(spec.name).engine()
    if spec.server is not None:
        from cai.engines.server import ServerEngine

        return ServerEngine(spec, max_in_flight=settings.max_batch)
    from cai.engines.local import LocalEngine
    from cai.models.loading import open_model

    return LocalEngine(
        open_model(spec),
        batch_tokens=settings.batch_tokens,
        max_batch=settings.max_batch,
        exact=settings.exact,
        scheduler=settings.scheduler,
    )
