"""`cai sft` and `cai dpo`: a training stage of a run, or training on any file of rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from cai.cli.run import AsJson, Settings, perform, read
from cai.records import Stage

if TYPE_CHECKING:
    from cai.config import ReadConfig
    from cai.models.spec import ModelSpec
    from cai.training.course import Course
    from cai.training.results import OnEvent, TrainingEvent, TrainingResult

Result = TypeVar("Result")
Config = Annotated[Path | None, typer.Argument(metavar="[CONFIG.yaml]", help="A run; or give --data, --model and --output.")]
Data = Annotated[
    Path | None, typer.Option(help="Rows of your own (.jsonl, .parquet …), in TRL's conversational or hh-rlhf's form.")
]
Model = Annotated[str | None, typer.Option(help="Model to start from: folder, hub id or `smollm2-135m`.")]
Output = Annotated[Path | None, typer.Option(help="Folder for the trained model.")]
DryRunFlag = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        help="Only say what would be trained: rows, tokens, memory, time, and the first batch as text with its mask. Reads no "
        "weights and writes nothing.",
    ),
]
Trial = Annotated[
    bool, typer.Option("--trial", help="As --dry-run, but load the model after all, find its path, and time one pass.")
]


@dataclass(frozen=True, slots=True)
class Asked:
    """What a training command was asked for: arguments of the same names as its own."""

    config: Path | None
    data: Path | None
    model: str | None
    output: Path | None
    settings: list[str]
    dry_run: bool
    trial: bool
    json: bool

    @property
    def foretold(self) -> bool:
        """Nothing is trained."""
        return self.dry_run or self.trial

    def of_run(self, section: str) -> ReadConfig:
        """The configuration of the run, which has this section."""
        if self.config is None:
            raise typer.BadParameter("give a CONFIG.yaml, or --data, --model and --output")
        wanted = read(self.config, self.settings)
        if getattr(wanted.config, section) is None:
            raise typer.BadParameter(f"{self.config} has no `{section}` section: set {section}.epochs, for example")
        return wanted

    def places(self) -> tuple[ModelSpec, Path]:
        """Model and output folder, the latter only where something will be written."""
        from cai.models.spec import ModelSpec

        if self.model is None or (self.output is None and not self.foretold):
            raise typer.BadParameter("with --data, --model and --output are needed too")
        return ModelSpec(name=self.model), self.output or Path()


def training_command(answer: Callable[[Asked], None]) -> Callable[..., None]:
    """A command with the arguments of every training."""

    def command(
        config: Config = None,
        data: Data = None,
        model: Model = None,
        output: Output = None,
        settings: Settings = None,
        *,
        dry_run: DryRunFlag = False,
        trial: Trial = False,
        json: AsJson = False,
    ) -> None:
        answer(Asked(config, data, model, output, settings or [], dry_run, trial, json))

    command.__doc__ = answer.__doc__
    return command


@training_command
def sft(asked: Asked) -> None:
    """Fine-tune on supervised rows: of a run (up to this stage), or of --data. Resumes by itself."""
    data = asked.data
    if data is None:
        _stage(asked, Stage.SFT)
        return
    from cai.config import read_section
    from cai.data.training_rows import read_sft_rows
    from cai.training.settings import SFTSettings

    spec, folder = asked.places()
    chosen = read_section(SFTSettings, Stage.SFT, asked.settings)
    if chosen.rounds != "final":
        raise typer.BadParameter("sft.rounds is about the records of a run; of a file every row is trained on")

    def course() -> Course:
        from cai.training.sft import sft_course

        return sft_course(spec, read_sft_rows(data), chosen)

    def train(tell: OnEvent) -> TrainingResult:
        from cai.training.sft import train_sft

        return train_sft(spec, read_sft_rows(data), chosen, folder, on_event=tell)

    _show(made(asked, Stage.SFT, course, train), Stage.SFT, json=asked.json)


@training_command
def dpo(asked: Asked) -> None:
    """Train on preference pairs: of a run (up to this stage), or of --data. `p_chosen` is a soft label. Resumes by itself."""
    if asked.data is None:
        _stage(asked, Stage.DPO)
        return
    from cai.config import read_section
    from cai.data.training_rows import read_preference_rows
    from cai.training.settings import DPOSettings

    spec, folder = asked.places()
    chosen = read_section(DPOSettings, Stage.DPO, asked.settings)
    rows = read_preference_rows(asked.data)

    def course() -> Course:
        from cai.training.dpo import dpo_course

        return dpo_course(spec, rows, (), chosen)

    def train(tell: OnEvent) -> TrainingResult:
        from cai.training.dpo import train_dpo

        return train_dpo(spec, rows, (), chosen, folder, on_event=tell)

    _show(made(asked, Stage.DPO, course, train), Stage.DPO, json=asked.json)


def _stage(asked: Asked, stage: Stage) -> None:
    wanted = asked.of_run(stage)
    if asked.foretold:
        from cai.pipeline.rehearsing import stored_course

        foretell(stored_course(wanted.config, stage), stage, asked)
    else:
        perform(wanted, until=stage, json=asked.json)


def made(asked: Asked, name: str, course: Callable[[], Course], train: Callable[[OnEvent], Result]) -> Result | None:
    """What a training on a file came to; None where it was only foretold."""
    if asked.foretold:
        foretell(course(), name, asked)
        return None
    return _watched(train, name, json=asked.json)


def foretell(course: Course, name: str, asked: Asked) -> None:
    """Print what a training would do."""
    import json as json_

    from cai.cli.dry_run import print_dry_run
    from cai.cli.terminal import tables
    from cai.training.dry_run import dry_run

    found = dry_run(course, trial=asked.trial)
    if asked.json:
        typer.echo(json_.dumps(found.as_json(), indent=1, ensure_ascii=False))
    else:
        print_dry_run(name, found, tables())


def _show(result: TrainingResult | None, name: str, *, json: bool) -> None:
    from cai.cli.summary import print_training

    if result is None:
        return
    if json:
        typer.echo(result.model_dump_json(indent=1))
    else:
        print_training(name, result)


def _watched(train: Callable[[OnEvent], Result], name: str, *, json: bool) -> Result:
    """Train with progress on stderr. Ctrl-C ends the command with code 130."""
    from cai.cli.progress import ProgressDisplay
    from cai.pipeline.metering import Meter

    def tell(event: TrainingEvent) -> None:
        loss = f"loss {event.loss:.3f}, " if event.loss is not None else ""
        note = f"{loss}{event.tokens_per_second:.0f} tokens/s"
        meter.tell(f"{name} {event.phase}", event.step, event.total_steps, note)

    try:
        with ProgressDisplay(json=json) as display, Meter(display.show) as meter:
            return train(tell)
    except KeyboardInterrupt:
        typer.echo("\nInterrupted. The last checkpoint is kept; the same command goes on from there.", err=True)
        raise typer.Exit(130) from None
