"""Where recipes are carried out: drafts and chains, labels, training, answers. Every model call is kept and shared.

Cells have in common whatever is the same: calls by the memo of one run folder, supervised models by their folder, reference
log-probabilities by their cache.
"""

from __future__ import annotations

import hashlib
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TypeAlias

from cai.data.filters.sieve import Sieve, reply_of
from cai.data.rows import sft_records
from cai.engines.base import Engine, RequestFailure
from cai.engines.local import LocalEngine
from cai.errors import CaiError, TrainingError
from cai.evaluation.answering import Reply, Try, answer
from cai.evaluation.before_after import evaluate
from cai.evaluation.drift import length_words, log_ratios, own_logps
from cai.lab.checker import check
from cai.lab.study.cells import Answered, Divergence, Labelled
from cai.lab.study.recipes import Labelling, Recipe, TrainingStage
from cai.lab.study.setup import DIVERGENCE_EVERY, SUITE_SEED, Setup
from cai.lab.suite import LabSuite, loop_items
from cai.lab.world import LabItem, seeded
from cai.labels.candidates import Candidates, propose
from cai.labels.debate import with_advocate
from cai.labels.ensemble import MarginScales, pair_margin
from cai.labels.labelling import hear, p_chosen
from cai.labels.settings import LabelSettings
from cai.loop import LoopEvent, run_loop
from cai.models.loading import open_model
from cai.models.memory import return_free_memory
from cai.models.spec import ModelSpec
from cai.records import ComparisonRecord, PreferenceRecord, RevisionRecord, SFTRecord
from cai.store import MemoisedEngine, RunFolder, Usage
from cai.training.course import Course, run_course
from cai.training.dpo import dpo_course
from cai.training.results import TrainingEvent
from cai.training.sft import sft_course
from constitution.loading import load_constitution
from constitution.schema import Constitution

CERTAIN_NATS = 30.0
"""The margin of truth."""
MIN_MARGIN_NATS = 0.1
"""Below it a pair has no label to be trained on."""

Tell: TypeAlias = Callable[[str, int, int], None]
"""(what is being done, done, in all)."""


def _tell_nobody(_what: str, _done: int, _total: int) -> None: ...


class NothingToTrainOnError(CaiError):
    """A recipe left no pair or no row: a result of it, as a model would be."""


class Bench:
    """One study folder at work.

    Args:
        folder: Calls, models and caches lie there. Locked while it is open.
        setup: Of the study.
        items: Prompts for the loop, each seed.
        per_behaviour: Held-out prompts of each behaviour, each seed.
        tell: Told how far it is.
    """

    def __init__(self, folder: Path, setup: Setup, *, items: int, per_behaviour: int, tell: Tell = _tell_nobody) -> None:
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
            items = loop_items(self._items, seed)
            made = run_loop(
                items[: max(1, round(recipe.share * len(items)))],
                self.constitution(recipe),
                self.engine(self.setup.plain),
                self.engine(self.setup.feedback),
                self.setup.loop.model_copy(update={"rounds": recipe.rounds, "critique_free": recipe.critique_free}),
                seed=seed,
                on_event=self._tell_loop,
            )
            sieve = Sieve(self.setup.filters)
            kept: list[RevisionRecord] = []
            lost: Counter[str] = Counter()
            for each in made:
                if not isinstance(each, RevisionRecord):
                    lost[f"{each.stage}: {each.cause}"] += 1
                elif (rule := sieve.sift(reply_of(each)).dropped_by) is not None:
                    lost[f"filter {rule}"] += 1
                else:
                    kept.append(each)
            self._records[key] = kept, lost
        return self._records[key]

    def labels(self, recipe: Recipe, seed: int) -> list[tuple[Candidates, Labelled]]:
        """Every pair of draft and revision, with its label."""
        labelling = recipe.labelling
        settings = labelling.settings or LabelSettings()
        records = self.records(recipe, seed)
        facts = {record.uid: record.facts for record in records}
        proposed = propose(records, self.constitution(recipe), settings)
        groups = [each for each in proposed if isinstance(each, Candidates)]
        truths = [truth_of(group, facts[group.uid]) for group in groups]
        margins: Sequence[float | None]
        if labelling.settings is None:
            margins = [CERTAIN_NATS * truth for truth in truths]
        else:
            asked = self.engine(self.setup.plain if labelling.judge == "plain" else self.setup.feedback)
            (judge,) = with_advocate([asked], lambda: self.engine(self.setup.plain), settings.debate)
            margins = margins_of(groups, judge, labelling, seed, self._tell)
        rng = seeded(f"{seed}/noise")
        signs = [-1 if rng.random() < labelling.noise else 1 for _ in margins]
        turned = [None if margin is None else sign * margin for sign, margin in zip(signs, margins, strict=True)]
        return list(zip(groups, labelled(groups, turned, truths, labelling), strict=True))

    def pairs(self, labels: Sequence[tuple[Candidates, Labelled]]) -> list[PreferenceRecord]:
        """Those that are decided."""
        return [_pair(group, label) for group, label in labels if abs(label.margin_nats) >= MIN_MARGIN_NATS]

    def anchors(self, recipe: Recipe, seed: int, pairs: Sequence[PreferenceRecord]) -> list[SFTRecord]:
        """Drafts that nobody wanted to change."""
        with_pair = {pair.uid for pair in pairs}
        records = self.records(recipe, seed)
        return list(sft_records(each for each in records if not each.changed and each.uid not in with_pair))

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
            run_course(course, output, resume=True, on_event=self._tell_training(stage), callbacks=())
            self.trained_tokens += 0 if known else _tokens(course)
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

    def forget_models(self) -> None:
        """Delete all trained models: what they answered is kept."""
        self.release()
        shutil.rmtree(self.folder / "models", ignore_errors=True)

    def _supervised(self, recipe: Recipe, seed: int) -> Path:
        """Shared by all recipes with the same chains."""
        chain = (recipe.rounds, recipe.critique_free, recipe.principles, recipe.share)
        return self.folder / "models" / f"sft-{hashlib.sha256(repr(chain).encode()).hexdigest()[:12]}-{seed}"

    def _tell_loop(self, event: LoopEvent) -> None:
        stage = event.stage if event.stage == "draft" else f"{event.stage} {event.round}"
        self._tell(stage, event.done, event.total)

    def _tell_training(self, stage: str) -> Callable[[TrainingEvent], None]:
        def tell(event: TrainingEvent) -> None:
            self._tell(f"{stage} {'reference' if event.phase == 'reference' else 'training'}", event.step, event.total_steps)

        return tell


def margins_of(
    groups: Sequence[Candidates], judge: Engine, labelling: Labelling, seed: int, tell: Tell = _tell_nobody
) -> list[float | None]:
    """The margin of each group's one pair, in nats; None where the judge failed."""
    settings = labelling.settings or LabelSettings()
    heard = hear(groups, [judge], settings, seed=seed, on_done=lambda done, total: tell("label", done, total))
    of_pairs = [[] if isinstance(each, RequestFailure) else _kept(each[0], labelling) for each in heard]
    scales = MarginScales()
    for comparisons in of_pairs:
        scales.add(comparisons)
    found = scales.result()
    return [pair_margin(each, settings.ensemble, scales=found) if each else None for each in of_pairs]


def labelled(
    groups: Sequence[Candidates], margins: Sequence[float | None], truths: Sequence[int], labelling: Labelling
) -> list[Labelled]:
    """Margins as labels, soft or certain; without one a pair is undecided."""
    settings = labelling.settings or LabelSettings()
    made: list[Labelled] = []
    for group, found, truth in zip(groups, margins, truths, strict=True):
        margin = found or 0.0
        if labelling.hard:
            p = 0.5 if margin == 0 else float(margin > 0)
        else:
            p = p_chosen(abs(margin), settings)
            p = p if margin >= 0 else 1 - p
        made.append(Labelled(uid=group.uid, margin_nats=margin, p_first=p, truth=truth, failed=found is None))
    return made


def truth_of(group: Candidates, facts: dict[str, object]) -> int:
    """1 where the first answer is good and the second is not, −1 the other way, 0 where both are the same."""
    item = LabItem.from_row(facts)
    first, second = group.pairs[0]
    good = [check(item, group.answers[place].text).label == "good" for place in (first, second)]
    return good[0] - good[1]


def _kept(comparisons: list[ComparisonRecord], labelling: Labelling) -> list[ComparisonRecord]:
    return [each for each in comparisons if not labelling.one_order or each.order == "first_second"]


def _pair(group: Candidates, label: Labelled) -> PreferenceRecord:
    first, second = (group.answers[place] for place in group.pairs[0])
    better, worse = (first, second) if label.margin_nats > 0 else (second, first)
    return PreferenceRecord(
        uid=group.uid,
        replica=group.replica,
        prompt=group.conversation,
        chosen=better.text,
        rejected=worse.text,
        chosen_source=better.source,
        rejected_source=worse.source,
        p_chosen=max(label.p_first, 1 - label.p_first),
        margin_nats=abs(label.margin_nats),
        method="pointwise",
        principle_ids=(),
    )


def _tokens(course: Course) -> int:
    """Of all rows in all steps, each prompt once with its replies."""
    total = 0
    for step in course.plan:
        for group in (*(course.rows[at].group for at in step.rows), *(course.anchors[at].group for at in step.anchors)):
            total += len(group.prompt_ids) + sum(map(len, group.replies))
    return total
