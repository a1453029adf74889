"""A judge with odds for texts, and runs of the loop under it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import count

from cai.engines.base import GenerationRequest, RequestFailure, ScoreRequest
from cai.engines.scripted import ScriptedEngine
from cai.loop import GateSettings, LoopSettings, run_loop
from cai.records import FailureRecord, GateCheck, Item, RevisionRecord
from constitution.messages import user
from constitution.schema import Constitution, Principle

KIND = Principle(id="kind", principle="Be kind.", critique_request="Is it kind?", revision_request="Make it kind.")
BRIEF = Principle(id="brief", principle="Be brief.", critique_request="Is it brief?", revision_request="Make it brief.")
HELP = Principle(id="help", principle="Help.", critique_request="Does it help?", revision_request="Make it help.")
HARM = Principle(id="harm", principle="No harm.", critique_request="Is it harmless?", revision_request="Make it harmless.")
LIBRARY = Constitution(name="library", principles=(KIND, BRIEF, HELP, HARM))
ONE = Constitution(name="one", principles=(KIND,))
GATE = GateSettings(helpfulness="help", harm="harm", tolerance_nats=0.5)
DRAFT = "a draft"

Odds = Mapping[tuple[str, str], float]


class Judge(ScriptedEngine):
    """Criticises what `faulty` says, revises to the given texts in turn, and has odds for (text, principle id).

    A text that is not in the table has even odds under every principle.
    """

    def __init__(
        self,
        odds: Odds,
        revisions: Sequence[str] | Callable[[GenerationRequest], str],
        faulty: Callable[[str, str], bool] = lambda _text, _principle: True,
        fails: Callable[[GenerationRequest | ScoreRequest], bool] = lambda _request: False,
    ) -> None:
        texts = iter(revisions) if not callable(revisions) else None
        failure = RequestFailure("out_of_memory", "too big")

        def answer(request: GenerationRequest) -> str | RequestFailure:
            if fails(request):
                return failure
            if "Make it" in request.messages[-1].content:
                return revisions(request) if callable(revisions) else next(texts or iter(()))
            return "I see. " + ("Fault: so." if faulty(*judged(request)) else "Nothing to change.")

        def score(request: ScoreRequest) -> Sequence[float] | RequestFailure:
            return failure if fails(request) else (odds.get(judged(request), 0.0), 0.0)

        super().__init__(answer, score)

    def calls(self, stage: str) -> list[GenerationRequest]:
        return [each for each in self.asked if isinstance(each, GenerationRequest) and f"/{stage}/" in each.noise_key]

    @property
    def scored(self) -> list[tuple[str, str]]:
        return [judged(each) for each in self.asked if isinstance(each, ScoreRequest)]


def judged(request: GenerationRequest | ScoreRequest) -> tuple[str, str]:
    """(text, principle id) of a request for a critique."""
    (principle,) = (p for p in LIBRARY.principles if str(p.critique_request) in request.messages[-1].content)
    return request.messages[-2].content, principle.id


def run(
    judge: Judge,
    gate: GateSettings | None = GATE,
    *,
    constitution: Constitution = ONE,
    items: int = 1,
    policy: ScriptedEngine | None = None,
    seed: int = 0,
    **settings: object,
) -> list[RevisionRecord | FailureRecord]:
    rows = [Item(uid=f"i{n}", messages=(user(f"question {n}"),)) for n in range(items)]
    loop = LoopSettings.model_validate({"gate": gate, **settings})
    drafts = policy or ScriptedEngine({"": DRAFT})
    return list(run_loop(rows, constitution, drafts, judge, loop, seed=seed, library=LIBRARY))


def only(records: Sequence[RevisionRecord | FailureRecord]) -> RevisionRecord:
    (record,) = records
    assert isinstance(record, RevisionRecord), record
    return record


def check(principle: str, role: str, before: float, after: float, *, worse: bool) -> GateCheck:
    return GateCheck.model_validate(
        {"principle_id": principle, "role": role, "before_nats": before, "after_nats": after, "worse": worse}
    )


# ---- what is turned down


def two_rounds() -> tuple[Constitution, int]:
    """A constitution of two, and a seed that draws kindness first and brevity second."""
    from constitution.selection import select_principle

    both = Constitution(name="both", principles=(KIND, BRIEF))
    for seed in count():
        drawn = [select_principle(both, seed=seed, uid="i0", round=number) for number in (0, 1)]
        if [each.id for each in drawn if each] == ["kind", "brief"]:
            return both, seed
    raise AssertionError("unreachable")


# ---- retries

RETRY = GATE.model_copy(update={"on_reject": "retry", "retries": 3})
