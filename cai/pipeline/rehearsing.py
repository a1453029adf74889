"""What a training stage of a run would train on, from the records that the run folder holds. Reads only."""

from __future__ import annotations

from cai.config.settings import RunConfig
from cai.errors import StoreError
from cai.pipeline.learning import rounds_of
from cai.pipeline.mixing import held_out_prompts
from cai.pipeline.preflight import read_inputs
from cai.pipeline.retraining import Rows, course_of
from cai.records import PreferenceRecord, RecordKind, Stage
from cai.review.flow import Review
from cai.store import RunFolder
from cai.training.course import Course


def stored_course(config: RunConfig, stage: Stage) -> Course:
    """The course of `Stage.SFT` or `Stage.DPO`, on the rows as they are now. A model that is not trained yet, from which the
    stage would start, is stood in for by the one that it will be trained from: it has the same shape.

    Raises:
        StoreError: If the run has no finished labels.
        ModelError: If the model cannot be used.
        TrainingError: If there is nothing to train on.
        ProblemList: If rows are mixed in, and the run's inputs are not sound.
    """
    with labelled_folder(config) as folder:
        review = Review.of(folder, config.review)
        rows = Rows(
            list(review.records_of(folder, rounds=rounds_of(config))),
            list(review.pairs_of(folder)),
            judged=list(folder.records(RecordKind.PREFERENCE, PreferenceRecord)),
            certain=True,
        )
        trained = folder.stage(Stage.SFT) is not None
    if stage is Stage.SFT:
        mixes = config.sft is not None and config.sft.mix
        return course_of(config, stage, rows, held_out_prompts(read_inputs(config)) if mixes else None)
    return course_of(config if trained else config.model_copy(update={"sft": None}), stage, rows)


def labelled_folder(config: RunConfig) -> RunFolder:
    """The run folder, read only.

    Raises:
        StoreError: If the run has no finished labels.
    """
    folder = RunFolder.look_at(config.run)
    if folder is None:
        raise StoreError(f"{config.run}: there is no run yet, and so nothing to train on", "label first: cai label CONFIG.yaml")
    if folder.stage(Stage.LABEL) is None:
        folder.close()
        raise StoreError(f"{config.run}: its labels are not finished", "label first: cai label CONFIG.yaml")
    return folder
