"""The lab's evaluation suite: held-out prompts of every family, judged by exact truth."""

from __future__ import annotations

from collections.abc import Sequence

from cai.errors import DataError
from cai.evaluation.suites import Behaviour, Judgement, Trial
from cai.lab.checker import check
from cai.lab.settings import LabSettings
from cai.lab.world import Family, LabItem, Split, World, seeded
from cai.records import Item
from constitution.messages import Message

BEHAVIOURS: dict[Family, Behaviour] = {
    "wrong": Behaviour(id="wrong", label="agrees with false claims", kind="fault", twin="right"),
    "unsure": Behaviour(id="unsure", label="claims to know the unknowable", kind="fault", twin="fact"),
    "harm": Behaviour(id="harm", label="helps with wrongdoing", kind="fault", twin="benign"),
    "right": Behaviour(id="right", label="denies true claims", kind="control", twin="wrong"),
    "fact": Behaviour(id="fact", label="misses known facts", kind="control", twin="unsure"),
    "evidence": Behaviour(id="evidence", label="ignores a given report", kind="control", twin="unsure"),
    "benign": Behaviour(id="benign", label="refuses harmless requests", kind="control", twin="harm"),
}


def as_item(lab: LabItem) -> Item:
    """A lab item as the pipeline's input; its truth travels along in `facts`."""
    row = lab.to_row()
    return Item(
        uid=lab.uid,
        messages=tuple(Message.model_validate(message) for message in row["messages"]),
        tags=lab.tags,
        facts={"lab": row["lab"]},
        source="lab",
    )


def distinct_items(world: World, families: Sequence[Family], split: Split, seed: int) -> list[LabItem]:
    """One item per entry of `families`, no prompt twice; fewer where a family has no others."""
    rng = seeded(f"{seed}/{split}")
    taken: set[str] = set()
    exhausted: set[Family] = set()
    found: list[LabItem] = []
    for family in families:
        for _ in range(0 if family in exhausted else 200):
            item = world.item(rng, family, split)
            if item.prompt not in taken:
                taken.add(item.prompt)
                found.append(item)
                break
        else:
            exhausted.add(family)
    return found


def loop_items(settings: LabSettings) -> list[Item]:
    """Prompts for the loop, from the world's training split.

    Raises:
        DataError: If there are not so many different ones.
    """
    world = World.for_prompts() if settings.more_requests else World.load()
    rng = seeded(f"families/{settings.seed}")
    shares = settings.shares.model_dump()
    families = rng.choices(list(BEHAVIOURS), [shares[family] for family in BEHAVIOURS], k=settings.items)
    items = distinct_items(world, families, "train", settings.seed)
    if len(items) < settings.items:
        raise DataError(
            f"lab: of the {settings.items:,} prompts asked for, only {len(items):,} that differ were found.",
            "Ask for fewer (`lab.items`), spread `lab.shares` over more families, or set `lab.more_requests: true`.",
        )
    return [as_item(item) for item in items]


class LabSuite:
    """Held-out facts, words, topics and phrasings, judged by exact truth."""

    name = "lab"
    judge_name = "exact truth (cai.lab.checker)"

    def __init__(self, trials: Sequence[Trial]) -> None:
        self._trials = tuple(trials)

    @classmethod
    def draw(cls, per_behaviour: int, *, seed: int = 0) -> LabSuite:
        """A suite with so many prompts of each family, all different; another seed, other prompts."""
        families: list[Family] = [family for family in BEHAVIOURS for _ in range(per_behaviour)]
        return cls([Trial(as_item(item), item.family) for item in distinct_items(World.load(), families, "test", seed)])

    @property
    def behaviours(self) -> Sequence[Behaviour]:
        return tuple(BEHAVIOURS.values())

    @property
    def trials(self) -> Sequence[Trial]:
        return self._trials

    def judge(self, answers: Sequence[tuple[Trial, str]]) -> list[Judgement]:
        verdicts = [check(LabItem.from_row(trial.item.facts), reply) for trial, reply in answers]
        return [Judgement(verdict.label, verdict.why) for verdict in verdicts]
