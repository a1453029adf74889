"""A finished run in another program's form: read from its folder without a word to it, whoever else works on it."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from cai.data.cards import DatasetFacts, dataset_card
from cai.data.exporting import Choices, ExportFormat, ExportOutcome, Source, TokenCounter, write_export
from cai.data.exporting.files import data_pattern
from cai.data.exporting.formats import Judge
from cai.data.rows import sft_rows
from cai.engines.scripts import is_script
from cai.errors import CaiError, StoreError
from cai.models.spec import ModelSpec
from cai.pipeline.describing import dataset_facts
from cai.pipeline.exporting import ExportedRecords
from cai.records import Stage
from cai.review.flow import Review
from cai.store import RunFolder


def export_run(
    run: Path,
    form: ExportFormat,
    output: Path,
    *,
    threshold: float | None = None,
    test_share: float | None = None,
    tokenizer: str | None = None,
    licence: str | None = None,
    languages: tuple[str, ...] = (),
) -> ExportOutcome:
    """Write the data sets of a run, with their card, into `output`.

    Args:
        run: The run folder; its labels must be made.
        form: The format.
        output: A new or an empty folder, or that of an earlier export, which is replaced.
        threshold: Leave out pairs whose `p_chosen` is below.
        test_share: Share of the prompts that goes to a test part; None: no parts.
        tokenizer: Model whose tokenizer counts lengths; None: the run's policy, where its tokenizer is at hand.
        licence: Of the data set; None: as the run's settings say.
        languages: Likewise.

    Raises:
        StoreError: If there is no finished run, the disk is full, or something else stands at `output`.
        DataError: If there is nothing to write, or labels that the format cannot carry.
        ModelError: If the tokenizer that was asked for cannot be used.
    """
    with ExitStack() as stack:
        folder = stack.enter_context(RunFolder.open(run, create=False, read_only=True))
        labelled = _labelled(folder)
        counter, said = _counter(folder, form, tokenizer)
        config = folder.manifest.get("config", {})
        facts = dataset_facts(
            folder,
            licence=licence or config.get("export_licence"),
            languages=languages or tuple(config.get("export_languages", ())),
        )
        seen, review = ExportedRecords(), Review.of(folder)
        source = Source(
            pairs=lambda: review.pairs_of(folder),
            supervised=lambda: sft_rows(seen.records(review.records_of(folder))),
            constitution=facts.constitution,
            judges=tuple(Judge(each, text) for each, text in facts.principles.items()),
        )

        def card(outcome: ExportOutcome) -> str:
            if _labelled(folder) != labelled:
                raise StoreError(f"{run}: was made anew while it was exported; nothing was written.", "Export it once more.")
            return dataset_card(_with_files(facts, outcome, seen, review))

        choices = Choices(threshold, test_share, counter, said)
        return write_export(source, form, output, choices, card)


def _labelled(folder: RunFolder) -> str:
    """Fingerprint of the labels.

    Raises:
        StoreError: If they are not made yet, with what is missing.
    """
    stage = folder.stage(Stage.LABEL)
    if stage is not None:
        return stage.fingerprint
    done = [each.value for each in Stage if folder.stage(each) is not None]
    counts = {outcome.value: count for outcome, count in folder.ledger_counts().items() if count}
    rows = ", ".join(f"{count:,} {outcome}" for outcome, count in counts.items()) or "none"
    raise StoreError(
        f"{folder.path}: the labels are not made yet (finished: {', '.join(done) or 'nothing'}; rows: {rows}).",
        "Run `cai label` (or `cai run`) with the run's configuration, then export; `cai status` shows how far it is.",
    )


def _counter(folder: RunFolder, form: ExportFormat, tokenizer: str | None) -> tuple[TokenCounter | None, str]:
    """What counts lengths, and what to say of it."""
    if not any(each.limit for each in (*form.pairs, *form.supervised)):
        return None, ""
    if tokenizer is not None:
        spec = ModelSpec(name=tokenizer)
    else:
        stored = folder.whole_manifest.get("config", {}).get("policy")
        spec = ModelSpec.model_validate(stored) if stored else None
        if spec is None or is_script(spec.name):
            return None, "Lengths were not counted: the policy has no tokenizer; name one with --tokenizer."
        spec = spec.tokenizer_place
    if form.plain_text:
        spec = spec.model_copy(update={"base_model_form": "plain"})
    from cai.models.loading import load_tokenizer

    try:
        coder = load_tokenizer(spec)
    except CaiError as error:
        if tokenizer is not None:
            raise
        problem = " ".join(error.problem.split())
        return (
            None,
            f"Lengths were not counted, since the policy's tokenizer cannot be used: {problem} Name one with --tokenizer.",
        )
    return TokenCounter(coder, plain=form.plain_text), f"Lengths are in tokens of {Path(spec.name).name}."


def _with_files(facts: DatasetFacts, outcome: ExportOutcome, seen: ExportedRecords, review: Review) -> DatasetFacts:
    tables = outcome.written()
    form = outcome.format
    pairs = next((each for each in tables if each.table in form.pairs), None)
    names = {each.table.name: each for each in tables}
    holds = {"prompts of several turns": form.several_turns, "system turns": form.system_turns}
    holds |= {f"soft labels ({each.table.name})": each.table.labels.value for each in tables if each.table.labels is not None}
    return replace(
        facts,
        files={
            name: {split: data_pattern(path, form.container) for split, path in each.files.items()}
            for name, each in names.items()
        },
        rows={name: each.total for name, each in names.items()},
        kept_share=seen.kept_share if form.supervised else None,
        length_gap=pairs.gaps.result() if pairs is not None else None,
        columns={name: each.columns for name, each in names.items()},
        loading={name: each.table.use.format(file=next(iter(each.files.values()))) for name, each in names.items()},
        told=tuple(outcome.told()),
        settings={"format": form.title, **holds, **(seen.unmended_fact() if form.supervised else {}), **review.tally.told()},
    )
