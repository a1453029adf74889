"""Whether models that other commands made of a run (`cai reward`, `cai rl`) still stand. Reads tokenizers, and no weights."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from cai.errors import CaiError
from cai.pipeline.learning import trained_place
from cai.pipeline.plans import PlannedBeside, PlannedStage
from cai.pipeline.preflight import Inputs
from cai.pipeline.retraining import Rows
from cai.records import Stage
from cai.report.leash import FOLDER as RL
from cai.store import RunFolder
from cai.training.reward_results import REWARD

_OTHER = "made of other {}: `cai {}` begins anew, in the same folder"


def forecast_beside(
    inputs: Inputs, folder: RunFolder | None, stages: Sequence[PlannedStage], made: Rows
) -> Iterator[PlannedBeside]:
    """The reward model, where one is configured or there, and what `cai rl` left.

    Args:
        inputs: Of the run.
        folder: Of the run, if it has begun.
        stages: As they are planned.
        made: What may be learned, as far as it is known.
    """
    changing = {each.stage for each in stages if each.state == "to do" and each.trains}
    for found in (_reward(inputs, folder, made, start_changes=Stage.SFT in changing), _rl(inputs, changing)):
        if found is not None:
            yield found


def _reward(inputs: Inputs, folder: RunFolder | None, made: Rows, *, start_changes: bool) -> PlannedBeside | None:
    config = inputs.config
    begun, finished = _fingerprints(config.run / REWARD)
    settings = config.reward
    if settings is None:
        return PlannedBeside(REWARD, "outdated", "there is no `reward` section any more") if begun else None
    if begun is None:
        return PlannedBeside(REWARD, "not made", "`cai reward` makes it of the run's pairs; a run does not")
    if start_changes or not made.certain:
        return PlannedBeside(REWARD, "outdated", "the model it starts from, or a pair, changes")
    sft = folder is not None and folder.stage(Stage.SFT) is not None
    try:
        from cai.training.reward import reward_course

        start = trained_place(config, Stage.SFT) if sft else None
        now = reward_course(start or config.policy, made.pairs, settings).fingerprint()
    except CaiError as error:
        return PlannedBeside(REWARD, "outdated", error.problem)
    return _compared(REWARD, now, begun, finished, "pairs, settings or start model")


def _rl(inputs: Inputs, changing: set[Stage]) -> PlannedBeside | None:
    begun, finished = _fingerprints(inputs.config.run / RL)
    if begun is None:
        return None
    if changing and inputs.config.rl.start == "newest":
        return PlannedBeside(RL, "outdated", "the model it starts from changes")
    try:
        from cai.pipeline.reinforcing import course_of_inputs

        with course_of_inputs(inputs) as course:
            now = course.fingerprint
    except CaiError as error:
        return PlannedBeside(RL, "outdated", error.problem)
    return _compared(RL, now, begun, finished, "prompts, settings, reward or start model")


def _compared(name: str, now: str, begun: str, finished: str | None, parts: str) -> PlannedBeside:
    if now == finished:
        return PlannedBeside(name, "stands", f"the same {parts.replace(' or ', ' and ')}")
    if now == begun and finished is None:
        return PlannedBeside(name, "unfinished", f"`cai {name}` goes on with it")
    return PlannedBeside(name, "outdated", _OTHER.format(parts, name))


def _fingerprints(folder: Path) -> tuple[str | None, str | None]:
    """Of the training that was begun in a folder, and of the one that was finished; None without."""
    begun, finished = (_note(folder / name).get("fingerprint") for name in ("run.json", "training.json"))
    return begun, finished


def _note(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}
