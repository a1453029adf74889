"""What a run needs, read and checked before any model is loaded; every problem at once.

Knows configuration, principle files, prompts and the files of models; loads no weights and writes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from cai.config.settings import RunConfig
from cai.data.corpus import Corpus
from cai.data.filters.leakage import LEAKAGE, evaluation_set_problems
from cai.data.filters.sieve import is_on
from cai.data.human_pairs import read_human_pairs
from cai.data.prompts import read_items
from cai.data.training_rows import read_sft_rows
from cai.engines.opening import check_engine
from cai.engines.scripts import is_script
from cai.errors import CaiError, ConfigError, DataError, ModelError, ProblemList, unknown_principles
from cai.evaluation.suite_reading import WITHOUT_FILE, read_suites
from cai.labels.human_labels import HumanSet
from cai.loop import gate_problems
from cai.models.checking import check_trainable
from cai.models.spec import ModelSpec
from cai.pipeline.sharding import Shard
from cai.records import FailureRecord, Item
from cai.training.tracker_packages import missing_packages
from constitution.errors import ConstitutionError
from constitution.loading import load_constitution
from constitution.schema import Constitution


@dataclass(frozen=True)
class Inputs:
    """A checked run.

    Args:
        config: As it was read.
        constitution: The principles in use.
        corpus: Every input row, in order, on the disk; of a shard, the rows in its share.
        source: Where the prompts come from, in words.
        fingerprint: Of the whole input: which rows there are, and which are held out.
        shard: Which share of the input this run works on; None: all of it.
        human: Pairs labelled by people, to compare the labels with; None without any.
        origins: Key of a setting → where its value comes from; what is missing is a default.
        reproduces: Checksum of the manifest that this run is to repeat; "" for a run of its own.
    """

    config: RunConfig
    constitution: Constitution
    corpus: Corpus
    source: str
    fingerprint: str
    shard: Shard | None = None
    human: HumanSet | None = None
    origins: Mapping[str, str] = field(default_factory=dict[str, str])
    reproduces: str = ""

    @property
    def items(self) -> Sequence[Item]:
        """Every readable input row, in order; read from the disk each time."""
        return self.corpus.items

    @property
    def failures(self) -> Sequence[FailureRecord]:
        """Input rows that could not be read."""
        return self.corpus.failures

    @property
    def training_items(self) -> Sequence[Item]:
        """The items that go through the loop."""
        return self.corpus.training_items

    @property
    def held_out_items(self) -> Sequence[Item]:
        """The items kept for before and after: no model is trained on them."""
        return self.corpus.held_out_items


def read_inputs(config: RunConfig, shard: Shard | None = None, *, origins: Mapping[str, str] | None = None) -> Inputs:
    """Read principles and prompts, and look at the models' files.

    Prompts are read once and in a stream. A shard reads them all too: what is held out is drawn from the whole.

    Args:
        config: The run.
        shard: The share of it to work on.
        origins: Key of a setting → where its value comes from, for the manifest.

    Raises:
        ProblemList: With everything that is wrong, each with its place and what to do.
    """
    problems: list[CaiError] = []
    constitution = _constitution(config, problems)
    problems += unusable_models(config)
    human = human_set(config, problems)
    corpus, source = _prompts(config, problems)
    if constitution is None or corpus is None or problems:
        raise ProblemList("This run cannot start:", list({str(problem): problem for problem in problems}.values()))
    if config.lab is None:
        corpus.hold_out(config.holdout_share, config.seed)
    whole = corpus.fingerprint()
    if shard is not None:
        corpus.keep(shard.takes)
    return Inputs(config, constitution, corpus, source, whole, shard, human, origins or {})


def unusable_models(config: RunConfig) -> list[CaiError]:
    """What speaks against the models, files and trackers that settings name. Looks at files, asks servers; loads no weights."""
    problems: list[CaiError] = []
    unusable = [problem for spec in dict.fromkeys(config.models.values()) for problem in check_engine(spec)]
    problems += unusable
    if config.sft is not None or config.dpo is not None:
        problems += untrainable(config) or check_trainable(config.policy)
        problems += mix_problems(config)
    for spec, needs in scored(config).items():
        if spec.server is not None and not unusable:
            from cai.engines.server import check_scoring

            problems += check_scoring(spec, needs)
    if "tensor_parallel" in {spec.placement for spec in config.models.values()}:
        hint = "use `placement: auto`, or see examples/tensor_parallel.py for generation alone"
        problems.append(ConfigError("placement tensor_parallel: a run is written by one process and cannot be split so", hint))
    if is_on(config.filters, LEAKAGE):
        problems += evaluation_set_problems(config.filters.evaluation_sets)
    problems += _suite_problems(config)
    if missing := missing_packages(config.tracking.to):
        problems.append(
            ConfigError(f"`tracking.to`: {', '.join(missing)} is not installed.", f"pip install {' '.join(missing)}")
        )
    return problems


def mix_problems(config: RunConfig) -> list[CaiError]:
    """What is wrong with files that are mixed into supervised training; each is read whole."""
    problems: list[CaiError] = []
    for number, mix in enumerate(config.sft.mix if config.sft is not None else ()):
        try:
            for _ in read_sft_rows(mix.path):
                pass
        except DataError as error:
            problems.append(DataError(f"sft.mix[{number}]: {error.problem}", error.hint))
    return problems


def untrainable(config: RunConfig) -> list[CaiError]:
    """What is asked of a policy on a server, or of a script, that needs its weights."""
    script = is_script(config.policy.name)
    if config.policy.server is None and not script:
        return []
    stages = [name for name, settings in (("sft", config.sft), ("dpo", config.dpo)) if settings is not None]
    off = " and ".join(f"`{name}: null`" for name in stages)
    return [
        ModelError(
            f"model {config.policy.name}: is {'a script' if script else 'on a server'}, and cannot be trained there.",
            f"Write {off} to make data sets only, or name the policy's weights as `policy` (a server may still be `feedback`).",
        )
    ]


def scored(config: RunConfig) -> dict[ModelSpec, dict[str, Literal["letters", "verdicts"]]]:
    """Model → setting → which log-probabilities of the model it needs."""
    method = config.labels.method
    by_model: dict[ModelSpec, dict[str, Literal["letters", "verdicts"]]] = {}
    for spec in config.labellers:
        by_model[spec] = {f"`labels.method: {method}`": "letters" if method == "letters" else "verdicts"}
    needs = by_model.setdefault(config.feedback_or_policy, {})
    if config.loop.gate is not None:
        needs["`loop.gate`"] = "verdicts"
    trained = config.sft is not None or config.dpo is not None
    suite = config.evaluation.suite
    if trained and (suite == "principles" or (suite == "auto" and config.lab is None)):
        needs[f"`evaluation.suite: {suite}`"] = "verdicts"
    return by_model


def _suite_problems(config: RunConfig) -> list[CaiError]:
    """What is wrong with the behaviour suites, and with the model that judges them."""
    asked = config.evaluation
    problems = check_engine(asked.judge) if asked.judge is not None else []
    try:
        read_suites([name for name in asked.suites if name not in WITHOUT_FILE])
    except ProblemList as error:
        problems += error.problems
    return problems


def _constitution(config: RunConfig, problems: list[CaiError]) -> Constitution | None:
    try:
        constitution = load_constitution(config.constitution)
    except ConstitutionError as error:
        problems += [ConfigError(str(each)) for each in error.errors]
        return None
    if not _known("principles", config.principles, constitution, problems):
        return None
    selected = constitution.select(config.principles) if config.principles else constitution
    sound = True
    asked = {"labels.principles": config.labels.principles}
    if config.labels.human is not None:
        asked["labels.human.principles"] = config.labels.human.principles
    for key, judging in asked.items():
        if isinstance(judging, tuple):
            sound = _known(key, judging, selected, problems) and sound
    if config.loop.gate is not None:
        unknown = gate_problems(config.loop.gate, selected)
        problems += unknown
        sound = sound and not unknown
    return selected if sound else None


def _known(key: str, ids: Sequence[str], constitution: Constitution, problems: list[CaiError]) -> bool:
    """Whether all these principles are among those in use; says which are not."""
    unknown = unknown_principles(ids, constitution.ids, key=key)
    problems += unknown
    return not unknown


def human_set(config: RunConfig, problems: list[CaiError]) -> HumanSet | None:
    """The pairs labelled by people that settings name; what speaks against them goes into `problems`."""
    if config.labels.human is None:
        return None
    try:
        return read_human_pairs(config.labels.human.path, config.labels.human.max_pairs)
    except CaiError as error:
        problems.append(error)
        return None


def _prompts(config: RunConfig, problems: list[CaiError]) -> tuple[Corpus | None, str]:
    try:
        if config.lab is not None:
            from cai.lab.suite import loop_items

            more = ", more requests" if config.lab.more_requests else ""
            return Corpus.of(loop_items(config.lab)), f"the lab's world, seed {config.lab.seed}{more}"
        assert config.prompts is not None
        return read_items(config.prompts).corpus, config.prompts.path
    except CaiError as error:
        problems.append(error)
        return None, ""
