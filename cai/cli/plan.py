"""`cai plan`: what a run will take, said beforehand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cai.cli.quantities import duration, memory, rate
from cai.cli.run import ConfigFile, Settings, checked_inputs, read, resumable
from cai.cli.terminal import visible
from cai.records import Stage

if TYPE_CHECKING:
    from rich.console import Console

    from cai.pipeline.calibrating import Forecast
    from cai.pipeline.footprint import Footprint
    from cai.pipeline.speeds import Seconds


def plan(
    config: ConfigFile,
    settings: Settings = None,
    until: Annotated[Stage, typer.Option(help="Last stage of the run.")] = Stage.EVALUATE,
    *,
    calibrate: Annotated[
        bool,
        typer.Option("--calibrate", help="First make real calls for a while: tells the time also of a run not begun."),
    ] = False,
    seconds: Annotated[float, typer.Option(min=1.0, help="With --calibrate: for about so long.")] = 30.0,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """How many calls and tokens a run needs, how much disk and memory, and how long it takes; nothing is computed or written.

    With --calibrate the run is begun: calls on a sample of its own prompts are made and kept, so that the run makes none of
    them again, and the time of the others is foretold from theirs, with an interval.
    """
    import json as json_

    from cai.cli.planned import print_plan
    from cai.cli.progress import ProgressDisplay
    from cai.cli.terminal import tables
    from cai.pipeline import open_session
    from cai.pipeline import plan as plan_run
    from cai.pipeline.calibrating import calibrate as calibrate_run
    from cai.pipeline.calibrating import foretell
    from cai.pipeline.footprint import footprint

    inputs = checked_inputs(read(config, settings), None)
    calibration = None
    if calibrate:
        with resumable(), ProgressDisplay(json=json) as display, open_session(inputs, display.show) as session:
            calibration = calibrate_run(session, seconds=seconds, until=until)
    found = plan_run(inputs, until=until)
    size = footprint(found, inputs)
    forecast = foretell(found, inputs, calibration) if calibration is not None else None
    if json:
        content = found.as_json() | {"footprint": size.as_json(), "forecast": forecast.as_json() if forecast else None}
        typer.echo(json_.dumps(content, indent=1, ensure_ascii=False))
        return
    out = tables()
    print_plan(found, out, times=forecast is None)
    print_footprint(size, out)
    if forecast is not None:
        print_forecast(forecast, out)


def print_footprint(found: Footprint, out: Console) -> None:
    """Disk and memory, and whether there is enough."""
    from rich.text import Text

    from cai.pipeline.footprint import shortage

    models = f" and {memory(found.models_bytes)} of models" if found.models_bytes else ""
    out.print(
        Text(
            f"Disk: about {memory(found.run_bytes)}{models} in the end, {memory(found.peak_bytes)} at most "
            f"({memory(found.free_bytes)} free)."
        )
    )
    gpu = f", and {memory(found.gpu_bytes)} of the GPU's" if found.gpu_bytes is not None else ""
    out.print(Text(f"Memory: about {memory(found.memory_bytes)}{gpu} ({memory(found.machine_bytes)} free on this machine)."))
    for name in shortage(found):
        out.print(Text(f"  ! there is too little {name} for this", style="yellow"))


def print_forecast(forecast: Forecast, out: Console) -> None:
    """What the calibration saw, and what follows from it."""
    from rich.table import Table
    from rich.text import Text

    seen = forecast.calibration
    out.print(Text(f"Calibrated in {duration(seen.seconds)}; {seen.items} prompts went all the way.", style="bold"))
    if seen.speeds is None or forecast.total is None:
        out.print(
            Text("  Too little was seen to say how long the rest takes: give it more time with --seconds.", style="yellow")
        )
        return
    for number, name in enumerate(seen.names):
        prompt, drawn = (
            seen.speeds.prompt_tokens_per_s(number),
            seen.speeds.completion_tokens_per_s(number, seen.occupancy[number]),
        )
        parts = [f"prompts {rate(prompt)} tokens/s"] if prompt is not None else []
        parts += [f"answers {rate(drawn)} tokens/s at {seen.occupancy[number]:.0%} of its slots"] if drawn is not None else []
        out.print(Text(visible(f"  {name}: {', '.join(parts) or 'not asked'}")))
    table = Table(title="Time of the calls to be made", title_justify="left", title_style="bold")
    table.add_column("kind")
    table.add_column("calls", justify="right")
    table.add_column("expected", justify="right")
    table.add_column("with 90 %", justify="right")
    for each in (call for call in forecast.calls if call.seconds is not None):
        table.add_row(each.name, f"{each.calls:,}", *_told(each.seconds))
    table.add_section()
    table.add_row("all", "", *_told(forecast.total))
    out.print(table)
    out.print(Text("  Without loading models, and without training, whose time no call tells."))


def _told(seconds: Seconds | None) -> tuple[str, str]:
    from cai.cli.quantities import between
    from cai.store.heartbeat import Estimate

    return ("", "") if seconds is None else (duration(seconds.expected_s), between(Estimate(seconds.low_s, seconds.high_s)))
