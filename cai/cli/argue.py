"""`cai argue`: conversations in which the user argues back, as prompts for a run and as a suite. Needs no model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from cai.cli.pressing import PAIRS_NAME, Force, Out, WordingsFile, show_written, write_trials
from cai.cli.run import AsJson

if TYPE_CHECKING:
    from cai.evaluation.suites import Behaviour, Trial
    from cai.records import PreferenceRecord
    from cai.sycophancy.arguing import Drawn, Exchange
    from cai.sycophancy.wordings import Wordings
    from cai.sycophancy.written import Tests

LAB = "lab"


def argue(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="`lab`, a run (its folder or YAML file), or a file of pairs.")
    ],
    out: Out,
    items: Annotated[int, typer.Option(min=1, max=100_000, help="Prompts to argue about, at most.")] = 100,
    strength: Annotated[
        list[str] | None, typer.Option("--strength", "-s", help="How the user presses. May be repeated; default: all.")
    ] = None,
    pushes: Annotated[int, typer.Option(min=1, max=4, help="The user pushes so many times.")] = 1,
    held_out: Annotated[
        float,
        typer.Option(min=0.0, max=1.0, help="Share of the prompts for the suite; it is in no prompts and pairs written here."),
    ] = 0.3,
    min_p_chosen: Annotated[
        float, typer.Option(min=0.5, max=1.0, help="Pairs of a weaker label are left out: who is right is not known.")
    ] = 0.75,
    wordings: WordingsFile = None,
    seed: Annotated[int, typer.Option(min=0, help="Draws prompts and words.")] = 0,
    *,
    debate: Annotated[
        bool, typer.Option("--debate", help="Two people argue before the model, one of them pressing; it says who is right.")
    ] = False,
    force: Force = False,
    json: AsJson = False,
) -> None:
    """Users who argue back: against a right answer, which is to be held, and against a wrong one, which is to be given up.

    Of a pair, the chosen answer is the right one and the rejected one the wrong. The two conversations of a prompt differ in
    nothing but who is right. `prompts: {path: FOLDER/prompts.jsonl}` takes them through a run (critique and revision are of the
    last turn); `cai dpo --data FOLDER/pairs.jsonl` learns to hold and to give up in fixed words, which no judge has to find;
    `cai eval --suite FOLDER/suite.yaml` asks those held out; of a run's pairs, its own training may know them.

    With --debate two people argue about a prompt before the model, in both orders; who presses is wrong as often as right.
    """
    from cai.sycophancy.arguing import strength_of
    from cai.sycophancy.wordings import read_wordings
    from cai.sycophancy.written import json_lines, suite_text

    words = read_wordings(wordings)
    form = _debates(words, strength, pushes, seed) if debate else _arguments(words, strength, pushes, seed)
    learned, measured = _drawn(source, items, held_out, min_p_chosen, seed)
    to_learn, to_measure = form.trials(learned.exchanges), form.trials(measured.exchanges)
    longest = 48 if source == LAB else None
    suite = suite_text(form.name, form.description, form.behaviours, to_measure, max_tokens=longest, tests=form.tests)
    by_uid = {each.uid: each for each in learned.exchanges}
    pairs = [form.pair(by_uid[each.cluster_name], each) for each in to_learn]
    more = {PAIRS_NAME: json_lines(pairs)} if pairs else {}
    told = write_trials(out, [each.item for each in to_learn], suite, more=more, force=force)
    told["strengths"] = dict(Counter(strength_of(each) for each in to_learn))
    told["left out"] = {**learned.left_out, **suite.left_out}
    show_written(told, json=json)


class _Form(NamedTuple):
    """What is made of exchanges."""

    name: str
    description: str
    behaviours: tuple[Behaviour, ...]
    tests: Tests
    trials: Callable[[Sequence[Exchange]], list[Trial]]
    pair: Callable[[Exchange, Trial], dict[str, Any]]


def _arguments(words: Wordings, strength: list[str] | None, pushes: int, seed: int) -> _Form:
    from cai.sycophancy.arguing import BEHAVIOURS, JUDGES, argue, argued_pair

    strengths = _strengths(strength, tuple(words.pushes))
    return _Form(
        "argued",
        "Users who argue back: does it hold a right answer, and give up a wrong one?",
        BEHAVIOURS,
        dict(JUDGES.values()),
        partial(argue, wordings=words, strengths=strengths, pushes=pushes, seed=seed),
        partial(argued_pair, wordings=words, seed=seed),
    )


def _debates(words: Wordings, strength: list[str] | None, pushes: int, seed: int) -> _Form:
    from cai.errors import ConfigError
    from cai.sycophancy.debating import BEHAVIOURS, JUDGES, debate, debated_pair

    if pushes != 1:
        raise ConfigError("in a debate each side speaks once", "leave out --pushes")
    debates = words.debates
    if debates is None:
        raise ConfigError("these wordings have no `debates`", "add that section, or leave out --wordings")
    strengths = _strengths(strength, tuple(debates.presses))
    return _Form(
        "debated",
        "Two people argue: does it side with who is right, whoever of them presses?",
        BEHAVIOURS,
        dict(JUDGES.values()),
        partial(debate, wordings=debates, strengths=strengths, seed=seed),
        debated_pair,
    )


def _strengths(wanted: list[str] | None, known: tuple[str, ...]) -> tuple[str, ...]:
    from cai.errors import ConfigError, ProblemList

    unknown = [name for name in wanted or () if name not in known]
    if unknown:
        hint = f"there are {', '.join(known)}"
        raise ProblemList("Nobody can argue so:", [ConfigError(f"there is no strength {name!r}", hint) for name in unknown])
    return tuple(dict.fromkeys(wanted)) if wanted else known


def _drawn(source: str, items: int, held_out: float, min_p_chosen: float, seed: int) -> tuple[Drawn, Drawn]:
    """Exchanges to learn from, and those held out."""
    from cai.sycophancy.arguing import Drawn, is_held_out, lab_exchanges, pair_exchanges

    if source == LAB:
        measured = round(items * held_out)
        return lab_exchanges(items - measured, "train", seed=seed), lab_exchanges(measured, "test", seed=seed)
    found = pair_exchanges(_pairs(source), min_p_chosen=min_p_chosen)
    some = found.exchanges[:items]
    kept = [each for each in some if not is_held_out(each.uid, held_out, seed=seed)]
    rest = [each for each in some if is_held_out(each.uid, held_out, seed=seed)]
    if not some:
        from cai.errors import DataError

        reasons = ", ".join(f"{why}: {count}" for why, count in found.left_out.items()) or "there are none"
        raise DataError(
            f"{source}: no pair that can be argued about ({reasons}).", "Lower --min-p-chosen, or give other pairs."
        )
    return Drawn(kept, found.left_out), Drawn(rest)


def _pairs(source: str) -> Iterator[PreferenceRecord]:
    from cai.config import read_config
    from cai.data.training_rows import read_preference_rows
    from cai.errors import ConfigError
    from cai.review.flow import Review
    from cai.store import RunFolder

    path = Path(source)
    if path.suffix in (".yaml", ".yml"):
        path = read_config(path).config.run
    elif not path.is_dir():
        yield from read_preference_rows(path)
        return
    folder = RunFolder.look_at(path)
    if folder is None:
        raise ConfigError(f"{path}: there is no run", "name a run's folder or YAML file, a file of pairs, or `lab`")
    with folder:
        yield from Review.of(folder).pairs_of(folder)
