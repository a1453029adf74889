"""A reward model of a run's pairs. It is no stage: nothing else in a run hangs on it, and it lies in a folder of its own."""

from __future__ import annotations

from pathlib import Path

from cai.config.settings import RunConfig
from cai.models.spec import ModelSpec
from cai.pipeline.exporting import review_of
from cai.pipeline.learning import refuse_waiting, told, trained_place, trained_spec
from cai.pipeline.rehearsing import labelled_folder
from cai.pipeline.session import Session
from cai.records import Stage
from cai.review.flow import Review
from cai.training.course import Course
from cai.training.reward_results import REWARD, RewardResult


def train_run_reward(session: Session) -> RewardResult:
    """Train on the labelled pairs, from the supervised model where there is one (as InstructGPT does, arXiv 2203.02155).

    An interrupted training goes on, a finished one on the same pairs is returned as it is. The report is written anew.
    """
    from cai.report import write_report
    from cai.training.reward import train_reward

    config = session.inputs.config
    assert config.reward is not None, "asked for by the configuration"
    session.release_engines()
    review = review_of(session)
    pairs = list(review.pairs_of(session.folder))
    refuse_waiting(review, nothing_else=not pairs)
    start = trained_spec(session, Stage.SFT) or config.policy
    result = train_reward(
        start,
        pairs,
        config.reward,
        reward_place(config),
        on_event=told(session, REWARD),
        callbacks=session.tracking.callbacks(REWARD),
    )
    if result.quality is not None:
        session.tracking.note(f"{REWARD}-quality", result.quality.model_dump(mode="json"))
    write_report(session.folder)
    return result


def reward_place(config: RunConfig) -> Path:
    """Where the reward model of a run lies."""
    return config.run / REWARD


def stored_reward_course(config: RunConfig) -> Course:
    """What would be trained on, from the records as they are now. Reads only.

    Raises:
        StoreError: If the run has no finished labels.
        ModelError: If the model cannot be used.
        TrainingError: If there is nothing to train on.
    """
    from cai.training.reward import reward_course

    assert config.reward is not None, "asked for by the configuration"
    with labelled_folder(config) as folder:
        pairs = list(Review.of(folder, config.review).pairs_of(folder))
        start: ModelSpec | None = trained_place(config, Stage.SFT) if folder.stage(Stage.SFT) is not None else None
    return reward_course(start or config.policy, pairs, config.reward)
