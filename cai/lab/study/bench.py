"""Where recipes are carried out: drafts and chains, labels, training, answers. Every model call is kept and shared.

Cells have in common whatever is the same: calls by the memo of one run folder, supervised models by their folder, reference
log-probabilities by their cache.
"""

from __future__ import annotations

import hashlib
import shutil
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType

from cai.data.rows import sft_records
from cai.engines.base import Engine, RequestFailure
from cai.engines.local import LocalEngine
from cai.errors import CaiError, TrainingError
from cai.evaluation.answering import Reply, Try, answer
from cai.evaluation.before_after import evaluate
from cai.evaluation.drift import length_words, log_ratios, own_logps
from cai.lab.settings import LabSettings
from cai.lab.study.cells import Answered, Divergence, Labelled
from cai.lab.study.recipes import Judge, Recipe, TrainingStage
from cai.lab.study.setup import DIVERGENCE_EVERY, SUITE_SEED, Setup
from cai.lab.study.steps import Tell, anchors_of, chains, labels_of, tell_nobody, tell_training, tokens_of
from cai.lab.suite import LabSuite, loop_items
from cai.labels.candidates import Candidates
from cai.models.loading import open_model
from cai.models.memory import return_free_memory
from cai.models.spec import ModelSpec
from cai.records import PreferenceRecord, RevisionRecord, SFTRecord
from cai.store import MemoisedEngine, RunFolder, Usage
from cai.training.course import Course, run_course
from cai.training.dpo import dpo_course
from cai.training.sft import sft_course
from constitution.loading import load_constitution
from constitution.schema import Constitution


class NothingToTrainOnError(CaiError):
    """A recipe left no pair or no row: a result of it, as a model would be."""


class Bench:
    """One study folder at work; use it in a `with` block, or `close` it.

    Args:
        folder: Calls, models and caches lie there. Locked while it is open.
        setup: Of the study.
        items: Prompts for the loop, each seed.
        per_behaviour: Held-out prompts of each behaviour, each seed.
        tell: Told how far it is.
    """

    def __init__(self, folder: Path, setup: Setup, *, items: int, per_behaviour: int, tell: Tell = tell_nobody) -> None:
        self.setup = setup
        self.folder = folder
        self._items = items
        self._per_behaviour = per_behaviour
        self._tell = tell
        self._run = RunFolder.open(folder / "calls")
        self._engines: dict[str, MemoisedEngine] = {}
        self._records: dict[tuple[object, ...], tuple[list[RevisionRecord], Counter[str]]] = {}
        self._used = Usage()
        self.trained_tokens = 0
        """In all forward passes of training so far."""

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Where all went well, trained models are deleted: what they answered is kept."""
        if error is None:
            self.release()
            shutil.rmtree(self.folder / "models", ignore_errors=True)
        self.close()

    def close(self) -> None:
        self._run.close()

    @cached_property
    def _shipped(self) -> Constitution:
        return load_constitution(["shipped"])

    def constitution(self, recipe: Recipe) -> Constitution:
        return self._shipped.select(recipe.principles) if recipe.principles else self._shipped

    @property
    def usage(self) -> Usage:
        """All calls so far."""
        used = self._used
        for engine in self._engines.values():
            used = sum(engine.usage().values(), used)
        return used

    def records(self, recipe: Recipe, seed: int) -> list[RevisionRecord]:
        """The loop's records that the filters let pass."""
        return self._chains(recipe, seed)[0]

    def lost_chains(self, recipe: Recipe, seed: int) -> Counter[str]:
        """Prompts that gave no record, by reason: they failed, or a filter did not let them pass."""
        return self._chains(recipe, seed)[1]

    def _chains(self, recipe: Recipe, seed: int) -> tuple[list[RevisionRecord], Counter[str]]:
        key = (recipe.rounds, recipe.critique_free, recipe.principles, recipe.share, seed)
        if key not in self._records:
            items = loop_items(LabSettings(items=self._items, seed=seed))
            self._records[key] = chains(
                items[: max(1, round(recipe.share * len(items)))],
                self.constitution(recipe),
                self.engine(self.setup.plain),
                self.engine(self.setup.feedback),
                self.setup.loop.model_copy(update={"rounds": recipe.rounds, "critique_free": recipe.critique_free}),
                self.setup,
                seed,
                self._tell,
            )
        return self._records[key]

    def labels(self, recipe: Recipe, seed: int) -> list[tuple[Candidates, Labelled]]:
        """Every pair of draft and revision, with its label."""

        def engine(judge: Judge) -> Engine:
            return self.engine(self.setup.feedback if judge == "feedback" else self.setup.plain)

        records = self.records(recipe, seed)
        return labels_of(records, self.constitution(recipe), recipe.labelling, engine, seed, self._tell)

    def anchors(self, recipe: Recipe, seed: int, pairs: Sequence[PreferenceRecord]) -> list[SFTRecord]:
        """Drafts that nobody wanted to change."""
        return anchors_of(self.records(recipe, seed), pairs)

    def train(self, recipe: Recipe, seed: int, pairs: Sequence[PreferenceRecord], folder: Path) -> Path:
        """The plain model, trained by the recipe's stages; what was trained before is read.

        Raises:
            NothingToTrainOnError: If there is nothing to train on.
            TrainingError: If a training failed.
        """
        self.release()
        start = self.setup.plain
        for stage in recipe.training:
            output = folder if stage == "dpo" else self._supervised(recipe, seed)
            try:
                course = self._course(stage, start, recipe, seed, pairs)
            except TrainingError as error:  # so far nothing was done but rows read
                raise NothingToTrainOnError(error.problem) from error
            known = (output / "training.json").exists()
            run_course(course, output, resume=True, on_event=tell_training(stage, self._tell), callbacks=())
            self.trained_tokens += 0 if known else tokens_of(course)
            start = ModelSpec(name=str(output))
        return Path(start.name)

    def _course(
        self, stage: TrainingStage, start: ModelSpec, recipe: Recipe, seed: int, pairs: Sequence[PreferenceRecord]
    ) -> Course:
        if stage == "sft":
            settings = self.setup.sft.model_copy(update={"seed": seed})
            return sft_course(start, sft_records(self.records(recipe, seed)), settings)
        changes = {"seed": seed, "beta": recipe.beta, "reference_cache": str(self.folder / "reference")}
        return dpo_course(start, pairs, self.anchors(recipe, seed, pairs), self.setup.dpo.model_copy(update=changes))

    def answers(self, trained: Path, seed: int) -> list[Answered]:
        """The same held-out prompts, greedily, by the plain and the trained model."""

        def tell(side: str, done: int, total: int) -> None:
            self._tell(f"answers {side}", done, total)

        suite = LabSuite(self.suite(seed).trials)
        result = evaluate(
            self.engine(self.setup.plain),
            self.engine(ModelSpec(name=str(trained))),
            suite,
            self.setup.answers,
            seed=seed,
            on_answer=tell,
        )
        return [
            Answered(
                uid=pair.uid,
                behaviour=pair.behaviour,
                before=pair.before_outcome,
                after=pair.after_outcome,
                words=(length_words(pair.before), length_words(pair.after)),
            )
            for pair in result.answers
        ]

    def divergences(self, trained: Path, seed: int) -> list[Divergence]:
        """How far the trained model is from the plain one, by its own samples on some held-out prompts, scored by both."""
        trials = self.suite(seed).trials[::DIVERGENCE_EVERY]
        plain, after = self.engine(self.setup.plain), self.engine(ModelSpec(name=str(trained)))
        asked = [Try(trial, 1.0, 0) for trial in trials]
        given = answer(after, asked, [self.setup.answers.max_tokens] * len(asked), seed=seed)
        whole = [(each, reply) for each, reply in zip(asked, given, strict=True) if isinstance(reply, Reply) and reply.text]
        texts = [(reply.conversation, reply.text) for _, reply in whole]
        ratios = log_ratios(own_logps(after, texts), own_logps(plain, texts))
        return [
            Divergence(uid=each.trial.item.uid, nats=ratio.nats, tokens=ratio.tokens)
            for (each, _), ratio in zip(whole, ratios, strict=True)
            if not isinstance(ratio, RequestFailure)
        ]

    def suite(self, seed: int) -> LabSuite:
        return LabSuite.draw(self._per_behaviour, seed=SUITE_SEED + seed)

    def engine(self, spec: ModelSpec) -> Engine:
        key = str(spec)
        if key not in self._engines:
            self._engines[key] = MemoisedEngine(LocalEngine(open_model(spec)), self._run)
        return self._engines[key]

    def release(self) -> None:
        """Give back the memory of models: training loads its own."""
        self._used = self.usage
        self._engines.clear()
        self._run.calls.flush()
        return_free_memory()

    def _supervised(self, recipe: Recipe, seed: int) -> Path:
        """Shared by all recipes with the same chains."""
        chain = (recipe.rounds, recipe.critique_free, recipe.principles, recipe.share)
        return self.folder / "models" / f"sft-{hashlib.sha256(repr(chain).encode()).hexdigest()[:12]}-{seed}"
