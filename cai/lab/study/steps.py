"""The steps of a recipe, each a function of what it is given: chains, labels, pairs. What is shared by whom: see `bench`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeAlias

from cai.data.filters.sieve import Sieve, reply_of
from cai.data.rows import sft_records
from cai.engines.base import Engine, RequestFailure
from cai.lab.checker import check
from cai.lab.study.cells import Labelled
from cai.lab.study.recipes import Judge, Labelling
from cai.lab.study.setup import Setup
from cai.lab.world import LabItem, seeded
from cai.labels.candidates import Candidates, propose
from cai.labels.debate import with_advocate
from cai.labels.ensemble import MarginScales, pair_margin
from cai.labels.labelling import hear, p_chosen
from cai.labels.settings import LabelSettings
from cai.loop import LoopEvent, run_loop
from cai.loop.settings import LoopSettings
from cai.records import ComparisonRecord, Item, PreferenceRecord, RevisionRecord, SFTRecord
from cai.training.course import Course
from cai.training.packing import TokenGroup
from cai.training.results import TrainingEvent
from cai.training.rows import TrainingRow
from cai.training.settings import DPOSettings
from constitution.schema import Constitution

CERTAIN_NATS = 30.0
"""The margin of truth."""
MIN_MARGIN_NATS = 0.1
"""Below it a pair has no label to be trained on."""

Tell: TypeAlias = Callable[[str, int, int], None]
"""(what is being done, done, in all)."""


def tell_nobody(_what: str, _done: int, _total: int) -> None: ...


def chains(
    items: Sequence[Item],
    constitution: Constitution,
    plain: Engine,
    feedback: Engine,
    loop: LoopSettings,
    setup: Setup,
    seed: int,
    tell: Tell = tell_nobody,
) -> tuple[list[RevisionRecord], Counter[str]]:
    """The loop's records that the filters let pass, and prompts that gave none, by reason."""

    def on_event(event: LoopEvent) -> None:
        tell(event.stage if event.stage == "draft" else f"{event.stage} {event.round}", event.done, event.total)

    made = run_loop(items, constitution, plain, feedback, loop, seed=seed, on_event=on_event)
    sieve = Sieve(setup.filters)
    kept: list[RevisionRecord] = []
    lost: Counter[str] = Counter()
    for each in made:
        if not isinstance(each, RevisionRecord):
            lost[f"{each.stage}: {each.cause}"] += 1
        elif (rule := sieve.sift(reply_of(each)).dropped_by) is not None:
            lost[f"filter {rule}"] += 1
        else:
            kept.append(each)
    return kept, lost


def labels_of(
    records: Sequence[RevisionRecord],
    constitution: Constitution,
    labelling: Labelling,
    engine: Callable[[Judge], Engine],
    seed: int,
    tell: Tell = tell_nobody,
) -> list[tuple[Candidates, Labelled]]:
    """Every pair of draft and revision, with its label; `engine` gives the model of a role."""
    settings = labelling.settings or LabelSettings()
    facts = {record.uid: record.facts for record in records}
    proposed = propose(records, constitution, settings)
    groups = [each for each in proposed if isinstance(each, Candidates)]
    truths = [truth_of(group, facts[group.uid]) for group in groups]
    margins: Sequence[float | None]
    if labelling.settings is None:
        margins = [CERTAIN_NATS * truth for truth in truths]
    else:
        (judge,) = with_advocate([engine(labelling.judge)], lambda: engine("plain"), settings.debate)
        margins = margins_of(groups, judge, labelling, seed, tell)
    turned = turned_round(margins, labelling.noise, seed)
    return list(zip(groups, labelled(groups, turned, truths, labelling), strict=True))


def turned_round(margins: Sequence[float | None], share: float, seed: int) -> list[float | None]:
    """Margins, a share of them drawn to say the opposite."""
    rng = seeded(f"{seed}/noise")
    signs = [-1 if rng.random() < share else 1 for _ in margins]
    return [None if margin is None else sign * margin for sign, margin in zip(signs, margins, strict=True)]


def decided_pairs(labels: Sequence[tuple[Candidates, Labelled]]) -> list[PreferenceRecord]:
    """Those that have a label to be trained on."""
    return [pair_of(group, label) for group, label in labels if abs(label.margin_nats) >= MIN_MARGIN_NATS]


def anchors_of(records: Sequence[RevisionRecord], pairs: Sequence[PreferenceRecord]) -> list[SFTRecord]:
    """Drafts that nobody wanted to change."""
    with_pair = {pair.uid for pair in pairs}
    return list(sft_records(each for each in records if not each.changed and each.uid not in with_pair))


def margins_of(
    groups: Sequence[Candidates], judge: Engine, labelling: Labelling, seed: int, tell: Tell = tell_nobody
) -> list[float | None]:
    """The margin of each group's one pair, in nats; None where the judge failed."""
    settings = labelling.settings or LabelSettings()
    heard = hear(groups, [judge], settings, seed=seed, on_done=lambda done, total: tell("label", done, total))
    of_pairs = [[] if isinstance(each, RequestFailure) else _kept(each[0], labelling) for each in heard]
    scales = MarginScales()
    for comparisons in of_pairs:
        scales.add(comparisons)
    found = scales.result()
    return [pair_margin(each, settings.ensemble, scales=found) if each else None for each in of_pairs]


def labelled(
    groups: Sequence[Candidates], margins: Sequence[float | None], truths: Sequence[int], labelling: Labelling
) -> list[Labelled]:
    """Margins as labels, soft or certain; without one a pair is undecided."""
    settings = labelling.settings or LabelSettings()
    made: list[Labelled] = []
    for group, found, truth in zip(groups, margins, truths, strict=True):
        margin = found or 0.0
        if labelling.hard:
            p = 0.5 if margin == 0 else float(margin > 0)
        else:
            p = p_chosen(abs(margin), settings)
            p = p if margin >= 0 else 1 - p
        made.append(Labelled(uid=group.uid, margin_nats=margin, p_first=p, truth=truth, failed=found is None))
    return made


def truth_of(group: Candidates, facts: dict[str, object]) -> int:
    """1 where the first answer is good and the second is not, −1 the other way, 0 where both are the same."""
    item = LabItem.from_row(facts)
    first, second = group.pairs[0]
    good = [check(item, group.answers[place].text).label == "good" for place in (first, second)]
    return good[0] - good[1]


def _kept(comparisons: list[ComparisonRecord], labelling: Labelling) -> list[ComparisonRecord]:
    return [each for each in comparisons if not labelling.one_order or each.order == "first_second"]


def pair_of(group: Candidates, label: Labelled) -> PreferenceRecord:
    first, second = (group.answers[place] for place in group.pairs[0])
    better, worse = (first, second) if label.margin_nats > 0 else (second, first)
    return PreferenceRecord(
        uid=group.uid,
        replica=group.replica,
        prompt=group.conversation,
        chosen=better.text,
        rejected=worse.text,
        chosen_source=better.source,
        rejected_source=worse.source,
        p_chosen=max(label.p_first, 1 - label.p_first),
        margin_nats=abs(label.margin_nats),
        method="pointwise",
        principle_ids=(),
    )


def tokens_of(course: Course) -> int:
    """Of all rows in all steps, each prompt once with its replies."""
    groups = (
        group for step in course.plan for group in (*_groups(course.rows, step.rows), *_groups(course.anchors, step.anchors))
    )
    return sum(map(_size, groups))


def reference_tokens_of(course: Course) -> int:
    """That preference training lets through its reference model; 0 of another."""
    return sum(_size(row.group) for row in course.rows) if isinstance(course.settings, DPOSettings) else 0


def tell_training(stage: str, tell: Tell) -> Callable[[TrainingEvent], None]:
    """Events of training as progress."""

    def told(event: TrainingEvent) -> None:
        tell(f"{stage} {'reference' if event.phase == 'reference' else 'training'}", event.step, event.total_steps)

    return told


def _groups(rows: Sequence[TrainingRow], places: Iterable[int]) -> Iterator[TokenGroup]:
    return (rows[place].group for place in places)


def _size(group: TokenGroup) -> int:
    return len(group.prompt_ids) + sum(map(len, group.replies))
