"""`cai reward`: a reward model of a run's pairs, or of any file of pairs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from cai.cli.run import checked_inputs, resumable
from cai.cli.train import Asked, foretell, made, training_command
from cai.records import Stage

if TYPE_CHECKING:
    from cai.config import ReadConfig
    from cai.training.course import Course
    from cai.training.results import OnEvent
    from cai.training.reward_results import RewardResult

NAME = "reward"


@training_command
def reward(asked: Asked) -> None:
    """Train a reward model on the pairs of a run (up to its labels), or of --data; `p_chosen` is a soft label.

    Then measures it on the held-out pairs. Resumes by itself. Of a run it lies in RUN/reward, and starts from the supervised
    model where there is one.
    """
    result = _of_run(asked) if asked.data is None else _of_file(asked.data, asked)
    if result is None:
        return
    if asked.json:
        typer.echo(result.model_dump_json(indent=1))
        return
    from cai.cli.reward_quality import print_quality
    from cai.cli.summary import print_training
    from cai.cli.terminal import tables

    print_training(NAME, result.training)
    if result.quality is not None:
        print_quality(result.quality, tables(), f"On {result.quality.pairs} held-out pairs; 95 % intervals over prompts")
    typer.echo(f"reward model  {result.training.folder}")


def _of_file(data: Path, asked: Asked) -> RewardResult | None:
    from cai.config import read_section
    from cai.data.training_rows import read_preference_rows
    from cai.training.settings import RewardSettings

    spec, folder = asked.places()
    chosen = read_section(RewardSettings, NAME, asked.settings)
    rows = read_preference_rows(data)

    def course() -> Course:
        from cai.training.reward import reward_course

        return reward_course(spec, rows, chosen)

    def train(tell: OnEvent) -> RewardResult:
        from cai.training.reward import train_reward

        return train_reward(spec, rows, chosen, folder, on_event=tell)

    return made(asked, NAME, course, train)


def _of_run(asked: Asked) -> RewardResult | None:
    wanted = asked.of_run(NAME)
    if asked.foretold:
        from cai.pipeline.rewarding import stored_reward_course

        foretell(stored_reward_course(wanted.config), NAME, asked)
        return None
    return _trained(wanted, json=asked.json)


def _trained(wanted: ReadConfig, *, json: bool) -> RewardResult:
    from cai.cli.progress import ProgressDisplay
    from cai.pipeline import open_session
    from cai.pipeline import run as run_stages
    from cai.pipeline.rewarding import train_run_reward

    inputs = checked_inputs(wanted, None)
    with resumable(), ProgressDisplay(json=json) as display, open_session(inputs, display.show) as session:
        run_stages(session, until=Stage.LABEL)
        return train_run_reward(session)
