"""What a run needs, read and checked before any model is loaded; every problem at once.

Knows configuration, principle files, prompts and the files of models; loads no weights and writes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from cai.config.settings import RunConfig
from cai.data.corpus import Corpus
from cai.data.prompts import read_items
from cai.engines.opening import check_engine
from cai.engines.scripts import is_script
from cai.errors import CaiError, ConfigError, ModelError, ProblemList, unknown_principles
from cai.loop import gate_problems
from cai.models.checking import check_trainable
from cai.pipeline.sharding import Shard
from cai.records import FailureRecord, Item
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
    """

    config: RunConfig
    constitution: Constitution
    corpus: Corpus
    source: str
    fingerprint: str
    shard: Shard | None = None

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


def read_inputs(config: RunConfig, shard: Shard | None = None) -> Inputs:
    """Read principles and prompts, and look at the models' files.

    Prompts are read once and in a stream. A shard reads them all too: what is held out is drawn from the whole.

    Raises:
        ProblemList: With everything that is wrong, each with its place and what to do.
    """
    problems: list[CaiError] = []
    constitution = _constitution(config, problems)
    unusable = check_engine(config.policy)
    if config.feedback_or_policy != config.policy:
        unusable += check_engine(config.feedback_or_policy)
    problems += unusable
    if config.sft is not None or config.dpo is not None:
        problems += untrainable(config) or check_trainable(config.policy)
    if config.feedback_or_policy.server is not None and not unusable:
        from cai.engines.server import check_scoring

        problems += check_scoring(config.feedback_or_policy, scored(config))
    if "tensor_parallel" in {config.policy.placement, config.feedback_or_policy.placement}:
        hint = "use `placement: auto`, or see examples/tensor_parallel.py for generation alone"
        problems.append(ConfigError("placement tensor_parallel: a run is written by one process and cannot be split so", hint))
    corpus, source = _prompts(config, problems)
    if constitution is None or corpus is None or problems:
        raise ProblemList("This run cannot start:", list({str(problem): problem for problem in problems}.values()))
    if config.lab is None:
        corpus.hold_out(config.holdout_share, config.seed)
    whole = corpus.fingerprint()
    if shard is not None:
        corpus.keep(shard.takes)
    return Inputs(config, constitution, corpus, source, whole, shard)


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


def scored(config: RunConfig) -> dict[str, Literal["letters", "verdicts"]]:
    """Setting → which log-probabilities of the feedback model it needs."""
    needs: dict[str, Literal["letters", "verdicts"]] = {}
    if config.labels.method == "letters":
        needs["`labels.method: letters`"] = "letters"
    else:
        needs[f"`labels.method: {config.labels.method}`"] = "verdicts"
    if config.loop.gate is not None:
        needs["`loop.gate`"] = "verdicts"
    trained = config.sft is not None or config.dpo is not None
    suite = config.evaluation.suite
    if trained and (suite == "principles" or (suite == "auto" and config.lab is None)):
        needs[f"`evaluation.suite: {suite}`"] = "verdicts"
    return needs


def _constitution(config: RunConfig, problems: list[CaiError]) -> Constitution | None:
    try:
        constitution = load_constitution(config.constitution)
    except ConstitutionError as error:
        problems += [ConfigError(str(each)) for each in error.errors]
        return None
    if not _known("principles", config.principles, constitution, problems):
        return None
    selected = constitution.select(config.principles) if config.principles else constitution
    judging = config.labels.principles
    sound = not isinstance(judging, tuple) or _known("labels.principles", judging, selected, problems)
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


def _prompts(config: RunConfig, problems: list[CaiError]) -> tuple[Corpus | None, str]:
    if config.lab is not None:
        from cai.lab.suite import loop_items

        return Corpus.of(loop_items(config.lab.items, config.lab.seed)), f"the lab's world, seed {config.lab.seed}"
    assert config.prompts is not None
    try:
        return read_items(config.prompts).corpus, config.prompts.path
    except CaiError as error:
        problems.append(error)
        return None, ""
