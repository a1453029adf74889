"""`cai score`: rewards for any data set or for a run's replies, and the best of several samples."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cai.cli.run import ROWS_FAILED, AsJson, resumable
from cai.models.spec import DtypeName

if TYPE_CHECKING:
    from cai.training.scoring import Row, Scoring


def score(
    data: Annotated[
        Path,
        typer.Argument(
            metavar="DATA",
            help="Rows with `messages`, or `prompt` and `completion` (or a list of `completions`), or pairs; or a run.",
        ),
    ],
    reward: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="Reward model: a folder that `cai reward` wrote, or any decoder's classifier."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE.jsonl", help="Write the rows with rewards there.")
    ] = None,
    best_of: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Write the best of the first N samples of each prompt instead, as rows for `cai sft`."
        ),
    ] = None,
    pessimism: Annotated[
        float, typer.Option(min=0.0, help="Of several heads: the mean less so many standard deviations.")
    ] = 0.0,
    dtype: Annotated[DtypeName, typer.Option(help="Precision of the reward model.")] = "auto",
    tokens_per_forward: Annotated[int, typer.Option(min=1, help="Most tokens of one forward pass.")] = 8192,
    *,
    force: Annotated[bool, typer.Option("--force", help="Replace the file that is there.")] = False,
    json: AsJson = False,
) -> None:
    """Add rewards to the rows of a data set; with pairs, measure the model on them; with --best-of, choose samples.

    Without --reward the rows hold rewards already, as an earlier `cai score` wrote them. With --out, a killed command goes on
    where it stopped. Exit code 3 if rows have none.
    """
    from cai.cli.output_files import refuse_existing
    from cai.errors import CaiError

    if reward is None and best_of is None:
        raise typer.BadParameter("give --reward MODEL; only --best-of can do with the rewards that rows hold already")
    if reward is None and pessimism:
        raise typer.BadParameter("--pessimism goes with --reward: what rows hold already had its own when it was made")
    if out is not None:
        if out.suffix not in {".jsonl", ".ndjson"}:
            raise typer.BadParameter(f"{out}: rows are written as JSONL; name the file *.jsonl")
        if out.resolve() == data.resolve():
            raise CaiError(f"{out}: is the file that is read; nothing was written.", "Give another place.")
        refuse_existing(out, force=force)
    with resumable(None if out is not None else " Nothing was written."):
        found = _scored(data, reward, out, best_of, pessimism, dtype, tokens_per_forward, json=json)
    if json:
        import json as json_

        typer.echo(json_.dumps(_content(found), indent=1, ensure_ascii=False))
    else:
        _print(found, out)
    if found.failed:
        raise typer.Exit(ROWS_FAILED)


def _scored(
    data: Path,
    reward: str | None,
    out: Path | None,
    best_of: int | None,
    pessimism: float,
    dtype: DtypeName,
    tokens_per_forward: int,
    *,
    json: bool,
) -> Scoring:
    from cai.cli.progress import ProgressDisplay
    from cai.models.spec import ModelSpec
    from cai.pipeline.metering import Meter
    from cai.training.reward_model import RewardModel
    from cai.training.scoring import score_rows

    with _rows(data) as rows, ProgressDisplay(json=json) as display, Meter(display.show) as meter:
        spec = None if reward is None else ModelSpec(name=reward, dtype=dtype)
        model = None if spec is None else RewardModel.open(spec, tokens_per_forward=tokens_per_forward)
        return score_rows(
            rows,
            model,
            out=out,
            best_of=best_of,
            pessimism=pessimism,
            on_rows=lambda done: meter.tell("rows scored", done, done),
        )


@contextmanager
def _rows(data: Path) -> Generator[Iterator[Row]]:
    """Rows of a file, or the final replies of a run, as supervised training would learn them."""
    from cai.data.exchanges import exchange_of, exchanges_in
    from cai.data.rows import sft_records
    from cai.records import RecordKind, RevisionRecord
    from cai.store import RunFolder
    from cai.store.run_folder import DATABASE_NAME

    run = RunFolder.look_at(data) if (data / DATABASE_NAME).is_file() else None
    if run is None:
        yield exchanges_in(data)
        return
    with run:
        yield (exchange_of(record) for record in sft_records(run.records(RecordKind.REVISION, RevisionRecord)))


def _content(found: Scoring) -> dict[str, Any]:
    best = found.best
    return {
        "rows": found.rows,
        "replies": found.replies,
        "failures": found.failures,
        "shown_failures": found.shown,
        "mean": found.mean,
        "standard_deviation": found.deviation,
        "mean_spread_over_heads": found.mean_spread,
        "quality": None if found.quality is None else found.quality.model_dump(mode="json"),
        "best_of": None
        if best is None
        else {
            "n": best.n,
            "prompts": best.prompts,
            "prompts_with_fewer": best.short_prompts,
            "rows": len(best.rows()),
            "figures": [asdict(each) for each in best.figures()],
        },
    }


def _print(found: Scoring, out: Path | None) -> None:
    from rich.table import Table
    from rich.text import Text

    from cai.cli.reward_quality import print_quality
    from cai.cli.terminal import tables, visible

    console = tables()
    spread = "" if found.mean_spread is None else f", {found.mean_spread:.3f} between heads"
    console.print(
        Text(f"{found.replies:,} replies in {found.rows:,} rows: mean reward {found.mean:+.3f}, standard deviation "
             f"{found.deviation:.3f}{spread}")
    )  # fmt: skip
    if found.quality is not None:
        print_quality(found.quality, console, f"On the {found.quality.pairs} labelled pairs; 95 % intervals over prompts")
    if found.best is not None:
        table = Table(title="Best of n: mean of the expected reward over prompts", title_justify="left", title_style="bold")
        for name in ("n", "prompts", "expected reward", "KL to one sample, nats"):
            table.add_column(name, justify="right")
        for each in found.best.figures():
            table.add_row(str(each.n), f"{each.prompts:,}", f"{each.expected_reward:+.3f}", f"{each.kl_nats:.3f}")
        console.print(table)
        if short := found.best.short_prompts:
            note = f"  ! {short:,} of {found.best.prompts:,} prompts have fewer than {found.best.n} samples, and give no row"
            console.print(Text(note, style="yellow"))
    if found.failed:
        causes = ", ".join(f"{count:,} {cause}" for cause, count in sorted(found.failures.items()))
        console.print(Text(f"  ! {found.failed:,} rows have no reward ({causes})", style="yellow"))
        for each in found.shown:
            console.print(Text(visible(f"    {each}"), style="yellow"))
    if out is not None:
        rows = len(found.best.rows()) if found.best is not None else found.rows + found.failed
        console.print(Text(f"{rows:,} rows written: {out}", overflow="fold"))
