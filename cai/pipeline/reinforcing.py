"""`cai rl` on a run's prompts, from its newest model; or on any prompts, from any model.

It works beside the run, as `cai eval` does: the run folder is read, and what comes out lies in `RUN/rl`.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from cai.config.settings import RunConfig
from cai.data.prompts import read_items
from cai.data.source import PromptsSource
from cai.engines.opening import open_engine
from cai.errors import ConfigError, DataError
from cai.models.spec import ModelSpec
from cai.pipeline.preflight import Inputs, read_inputs
from cai.pipeline.reinforced import start_of
from cai.records import Item
from cai.rl.course import RLCourse, rl_course
from cai.rl.functions import FunctionReward
from cai.rl.margins import MarginReward
from cai.rl.rewards import Reward
from cai.rl.settings import CONSTITUTION, FUNCTION, LAB, RLSettings
from cai.store import RunFolder
from cai.store.run_folder import DATABASE_NAME


@contextmanager
def course_of_run(config: RunConfig) -> Generator[RLCourse]:
    """What `cai rl CONFIG.yaml` trains, on the prompts that are not held out. Rewards are closed when the block is left.

    Raises:
        ProblemList: If the run's inputs are not sound.
        ConfigError: If the reward does not fit.
        ModelError: If a model cannot be used.
    """
    with course_of_inputs(read_inputs(config)) as course:
        yield course


@contextmanager
def course_of_inputs(inputs: Inputs) -> Generator[RLCourse]:
    """The same, of inputs that have been checked. Reads no weights."""
    config = inputs.config
    with _course(start_of(config), list(inputs.training_items), config.rl, inputs) as course:
        yield course


def begin_run(config: RunConfig) -> None:
    """See that the folder is a run's before anything is put into it: one that holds only `rl` would be taken for a stranger's.

    Raises:
        StoreError: If it is a stranger's, or cannot be written.
    """
    if not (config.run / DATABASE_NAME).is_file():
        with RunFolder.open(config.run):
            pass


@contextmanager
def course_of_data(data: Path, model: ModelSpec, settings: RLSettings) -> Generator[RLCourse]:
    """The same for a file of prompts and a model of one's own.

    Raises:
        DataError: If the prompts cannot be read, or a row of them.
    """
    read = read_items(PromptsSource(path=str(data)))
    if read.failures:
        first = read.failures[0]
        raise DataError(f"{len(read.failures)} rows of {data} cannot be read; the first is {first.uid}: {first.detail}")
    with _course(model, list(read.items), settings, None) as course:
        yield course


@contextmanager
def _course(spec: ModelSpec, items: list[Item], settings: RLSettings, inputs: Inputs | None) -> Generator[RLCourse]:
    with ExitStack() as stack:
        opened: list[Reward] = []
        for key, name in (("reward", settings.reward), ("truth", settings.truth)):
            if name is not None:
                opened.append(_open(name, key, settings, items, inputs))
                stack.callback(opened[-1].close)
        yield rl_course(spec, items, settings, opened[0], opened[1] if len(opened) > 1 else None)


def _open(name: str, key: str, settings: RLSettings, items: list[Item], inputs: Inputs | None) -> Reward:
    """A reward by its name; models in it are loaded when it begins, or is first asked.

    Raises:
        ConfigError: If there is no such reward, or it does not fit these prompts.
    """
    if name == LAB:
        from cai.lab.reward import LabReward, refuse_strangers

        refuse_strangers(items)
        return LabReward()
    if name == CONSTITUTION:
        if inputs is None:
            raise ConfigError(
                f"`rl.{key}: constitution` needs principles and a feedback model", "give a CONFIG.yaml in place of --data"
            )
        config = inputs.config
        engine = open_engine(config.feedback_or_policy, config.engine)
        per_reply, seed = settings.principles_per_reply, settings.seed
        return MarginReward(engine, inputs.constitution, config.labels, per_reply=per_reply, seed=seed)
    if FUNCTION.fullmatch(name):
        return FunctionReward(name, timeout_s=settings.reward_timeout_s)
    if not Path(name).is_dir():
        raise ConfigError(
            f"`rl.{key}: {name}`: there is no such reward",
            "write constitution, lab, module:function, or the folder of a reward model",
        )
    from cai.rl.reward_models import ModelReward, open_reward_model

    return ModelReward(open_reward_model(ModelSpec(name=name)), Path(name).name)
