"""Supervised and preference training as stages of a run."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain

from cai.config.settings import RunConfig
from cai.data.rows import Rounds, sft_records
from cai.errors import TrainingError
from cai.models.spec import ModelSpec
from cai.pipeline.exporting import review_of
from cai.pipeline.mixing import held_out_prompts
from cai.pipeline.session import Session
from cai.records import PreferenceRecord, RecordKind, RevisionRecord, SFTRecord, Stage
from cai.review.flow import Review
from cai.training.results import OnEvent, TrainingEvent, TrainingResult


def train_sft_stage(session: Session) -> TrainingResult:
    """Fine-tune the policy on the replies. An interrupted run goes on, a finished one is returned as it is."""
    from cai.training.sft import train_sft

    config = session.inputs.config
    assert config.sft is not None, "asked for by the configuration"
    session.release_engines()
    review = review_of(session)
    rows = sft_records(review.records_of(session.folder, rounds=config.sft.rounds), rounds=config.sft.rounds)
    first = next(rows, None)
    refuse_waiting(review, nothing_else=first is None)
    result = train_sft(
        config.policy,
        rows if first is None else chain((first,), rows),
        config.sft,
        session.folder.path / Stage.SFT,
        evaluation_prompts=held_out_prompts(session.inputs),
        on_event=told(session, "sft"),
        callbacks=session.tracking.callbacks(Stage.SFT),
    )
    return _noted(session, Stage.SFT, result)


def train_dpo_stage(session: Session) -> TrainingResult:
    """Train on the labelled pairs, from the supervised model where there is one, held near it; kept drafts are anchors."""
    from cai.training.dpo import train_dpo

    config = session.inputs.config
    assert config.dpo is not None, "asked for by the configuration"
    session.release_engines()
    start = trained_spec(session, Stage.SFT) or config.policy
    review = review_of(session)
    pairs = list(review.pairs_of(session.folder))
    refuse_waiting(review, nothing_else=not pairs)
    result = train_dpo(
        start,
        pairs,
        anchors(session, review),
        config.dpo,
        session.folder.path / Stage.DPO,
        on_event=told(session, "dpo"),
        callbacks=session.tracking.callbacks(Stage.DPO),
    )
    return _noted(session, Stage.DPO, result)


def _noted(session: Session, stage: Stage, result: TrainingResult) -> TrainingResult:
    from cai.training.folder import finished_files

    noted = session.folder.stage(stage)
    if noted is not None and noted.summary == result.as_json() and session.is_current(stage, result.fingerprint):
        return result
    with session.folder.transaction():
        if not session.is_current(stage, result.fingerprint):
            session.forget_after(stage)
        session.folder.put_stage(stage, result.fingerprint, result.as_json(), files=finished_files(result.folder))
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


def rounds_of(config: RunConfig) -> Rounds:
    """Of which rounds supervised training learns the revisions."""
    return "final" if config.sft is None else config.sft.rounds


def newest_spec(session: Session) -> ModelSpec | None:
    """The last trained model of the run."""
    return trained_spec(session, Stage.DPO) or trained_spec(session, Stage.SFT)


def anchors(session: Session, review: Review) -> list[SFTRecord]:
    """Drafts that needed no change. A prompt with a pair has none: its draft may be the reply that was rejected."""
    return unjudged(review.records_of(session.folder), session.folder.records(RecordKind.PREFERENCE, PreferenceRecord))


def refuse_waiting(review: Review, *, nothing_else: bool) -> None:
    """Say so where there is nothing to learn because all of it waits for a person.

    Raises:
        TrainingError: If that is so.
    """
    if nothing_else and review.tally.waiting:
        raise TrainingError(
            f"There is nothing to train on: {review.tally.waiting:,} pairs and rows wait for review, and the rest is none.",
            "Judge them with `cai review RUN`, then run the same command; or turn `review.required` off.",
        )


def unjudged(records: Iterable[RevisionRecord], judged: Iterable[PreferenceRecord]) -> list[SFTRecord]:
    """Of finished records, the drafts that needed no change and whose prompt has no pair."""
    with_pair = {pair.uid for pair in judged}
    return list(sft_records(record for record in records if not record.changed and record.uid not in with_pair))


def told(session: Session, name: str) -> OnEvent:
    """Tells the session of a training's units of work."""

    def tell(event: TrainingEvent) -> None:
        stage = f"{name} reference" if event.phase == "reference" else f"{name} training"
        loss = f"loss {event.loss:.3f}, " if event.loss is not None else ""
        session.tell(stage, event.step, event.total_steps, f"{loss}{event.tokens_per_second:.0f} tokens/s")

    return tell
