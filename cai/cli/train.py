"""`cai sft` and `cai dpo`: a training stage of a run, or training on any file of rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cai.cli.run import AsJson, Settings, perform, read
from cai.records import Stage

if TYPE_CHECKING:
    from cai.models.spec import ModelSpec
    from cai.training.results import OnEvent, TrainingEvent, TrainingResult

Config = Annotated[Path | None, typer.Argument(metavar="[CONFIG.yaml]", help="A run; or give --data, --model and --output.")]
Data = Annotated[
    Path | None, typer.Option(help="Rows of your own (.jsonl, .parquet …), in TRL's conversational or hh-rlhf's form.")
]
Model = Annotated[str | None, typer.Option(help="Model to start from: folder, hub id or `smollm2-135m`.")]
Output = Annotated[Path | None, typer.Option(help="Folder for the trained model.")]


def sft(
    config: Config = None,
    data: Data = None,
    model: Model = None,
    output: Output = None,
    settings: Settings = None,
    *,
    json: AsJson = False,
) -> None:
    """Fine-tune on supervised rows: of a run (up to this stage), or of --data. Resumes by itself."""
    if data is None:
        _stage(config, settings, Stage.SFT, json=json)
        return
    from cai.config import read_section
    from cai.data.training_rows import read_sft_rows
    from cai.training.settings import SFTSettings

    spec, folder = _required(model, output)
    chosen = read_section(SFTSettings, Stage.SFT, settings or [])
    rows = read_sft_rows(data)

    def train(tell: OnEvent) -> TrainingResult:
        from cai.training.sft import train_sft

        return train_sft(spec, rows, chosen, folder, on_event=tell)

    _show(train, Stage.SFT, json=json)


def dpo(
    config: Config = None,
    data: Data = None,
    model: Model = None,
    output: Output = None,
    settings: Settings = None,
    *,
    json: AsJson = False,
) -> None:
    """Train on preference pairs: of a run (up to this stage), or of --data. `p_chosen` is a soft label. Resumes by itself."""
    if data is None:
        _stage(config, settings, Stage.DPO, json=json)
        return
    from cai.config import read_section
    from cai.data.training_rows import read_preference_rows
    from cai.training.settings import DPOSettings

    spec, folder = _required(model, output)
    chosen = read_section(DPOSettings, Stage.DPO, settings or [])
    rows = read_preference_rows(data)

    def train(tell: OnEvent) -> TrainingResult:
        from cai.training.dpo import train_dpo

        return train_dpo(spec, rows, (), chosen, folder, on_event=tell)

    _show(train, Stage.DPO, json=json)


def _stage(config: Path | None, settings: list[str] | None, stage: Stage, *, json: bool) -> None:
    if config is None:
        raise typer.BadParameter("give a CONFIG.yaml, or --data, --model and --output")
    wanted = read(config, settings)
    if (wanted.sft if stage is Stage.SFT else wanted.dpo) is None:
        raise typer.BadParameter(f"{config} has no `{stage}` section: set {stage}.epochs, for example")
    perform(wanted, until=stage, json=json)


def _required(model: str | None, output: Path | None) -> tuple[ModelSpec, Path]:
    from cai.models.spec import ModelSpec

    if model is None or output is None:
        raise typer.BadParameter("with --data, --model and --output are needed too")
    return ModelSpec(name=model), output


def _show(train: Callable[[OnEvent], TrainingResult], name: str, *, json: bool) -> None:
    from cai.cli.progress import ProgressDisplay
    from cai.cli.summary import print_training
    from cai.pipeline.metering import Meter

    def tell(event: TrainingEvent) -> None:
        loss = f"loss {event.loss:.3f}, " if event.loss is not None else ""
        note = f"{loss}{event.tokens_per_second:.0f} tokens/s"
        meter.tell(f"{name} {event.phase}", event.step, event.total_steps, note)

    try:
        with ProgressDisplay(json=json) as display, Meter(display.show) as meter:
            result = train(tell)
    except KeyboardInterrupt:
        typer.echo("\nInterrupted. The last checkpoint is kept; the same command goes on from there.", err=True)
        raise typer.Exit(130) from None
    if json:
        typer.echo(result.model_dump_json(indent=1))
    else:
        print_training(name, result)
