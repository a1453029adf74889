"""Supervised and preference training as stages of a run."""

from __future__ import annotations

from collections.abc import Iterable

from cai.config.settings import RunConfig
from cai.data.rows import sft_records
from cai.models.memory import return_free_memory
from cai.models.spec import ModelSpec
from cai.pipeline.exporting import finished_records, pairs
from cai.pipeline.session import Session
from cai.records import PreferenceRecord, RevisionRecord, SFTRecord, Stage
from cai.training.results import OnEvent, TrainingEvent, TrainingResult


def train_sft_stage(session: Session) -> TrainingResult:
    """Fine-tune the policy on the final replies. An interrupted run goes on, a finished one is returned as it is."""
    from cai.training.sft import train_sft

    config = session.inputs.config
    assert config.sft is not None, "asked for by the configuration"
    session.release_engines()
    rows = list(sft_records(finished_records(session)))
    result = train_sft(config.policy, rows, config.sft, session.folder.path / Stage.SFT, on_event=_told(session, "sft"))
    return _noted(session, Stage.SFT, result)


def train_dpo_stage(session: Session) -> TrainingResult:
    """Train on the labelled pairs, from the supervised model where there is one, held near it; kept drafts are anchors."""
    from cai.training.dpo import train_dpo

    config = session.inputs.config
    assert config.dpo is not None, "asked for by the configuration"
    session.release_engines()
    start = trained_spec(session, Stage.SFT) or config.policy
    result = train_dpo(
        start,
        list(pairs(session)),
        anchors(session),
        config.dpo,
        session.folder.path / Stage.DPO,
        on_event=_told(session, "dpo"),
    )
    return _noted(session, Stage.DPO, result)


def _noted(session: Session, stage: Stage, result: TrainingResult) -> TrainingResult:
    return_free_memory()
    with session.folder.transaction():
        if not session.is_current(stage, result.fingerprint):
            session.forget_after(stage)
        session.folder.put_stage(stage, result.fingerprint, result.as_json())
    return result


def trained_spec(session: Session, stage: Stage) -> ModelSpec | None:
    """The model that a training stage of this configuration left in the run folder, as a model to load; None without one."""
    # The note in the run folder, not the files: a model of other records may still lie there.
    return trained_place(session.inputs.config, stage) if session.folder.stage(stage) is not None else None


def trained_place(config: RunConfig, stage: Stage) -> ModelSpec | None:
    """Where a training stage leaves its model, as a model to load; None when the configuration has no such stage."""
    policy, folder = config.policy, config.run / stage
    settings = config.sft if stage is Stage.SFT else config.dpo
    if settings is None:
        return None
    if settings.lora is not None and not settings.merge:
        return policy.model_copy(update={"adapter": str(folder / "adapter")})
    return policy.model_copy(update={"name": str(folder), "adapter": None, "revision": None, "chat_template": None})


def newest_spec(session: Session) -> ModelSpec | None:
    """The last trained model of the run."""
    return trained_spec(session, Stage.DPO) or trained_spec(session, Stage.SFT)


def anchors(session: Session) -> list[SFTRecord]:
    """Drafts that needed no change. A prompt with a pair has none: its draft may be the reply that was rejected."""
    return unjudged(finished_records(session), pairs(session))


def unjudged(records: Iterable[RevisionRecord], judged: Iterable[PreferenceRecord]) -> list[SFTRecord]:
    """Of finished records, the drafts that needed no change and whose prompt has no pair."""
    with_pair = {pair.uid for pair in judged}
    return list(sft_records(record for record in records if not record.changed and record.uid not in with_pair))


def _told(session: Session, name: str) -> OnEvent:
    def tell(event: TrainingEvent) -> None:
        stage = f"{name} reference" if event.phase == "reference" else f"{name} training"
        loss = f"loss {event.loss:.3f}, " if event.loss is not None else ""
        session.tell(stage, event.step, event.total_steps, f"{loss}{event.tokens_per_second:.0f} tokens/s")

    return tell
