"""Why two runs differ: what they were made of (`causes`), and what they came to (`effects`)."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cai.pipeline.causes import Causes, causes
from cai.pipeline.effects import BESIDE, NOTHING, Effects, effects
from cai.records import Stage
from cai.store import RunFolder


@dataclass(frozen=True, slots=True)
class RunDifferences:
    """Two runs: `first` and `second` are the names of their folders."""

    first: str
    second: str
    causes: Causes
    effects: Effects

    @property
    def stages(self) -> dict[str, bool]:
        """Stage, or folder beside the run → whether all that it made is the same; of those that one of the runs has come to."""
        effects = self.effects
        made: set[str] = {each.stage for each in effects.files}
        if effects.revisions != NOTHING:
            made.add(Stage.GENERATE)
        if effects.totals or any(each != NOTHING for each in effects.label_records.values()):
            made.add(Stage.LABEL)
        names = (*(stage.value for stage in Stage), *BESIDE)
        return {name: not effects.differing(name) for name in names if name in made}

    @property
    def same(self) -> bool:
        """Whether both runs came to the same, byte for byte."""
        return all(self.stages.values()) and self.effects.items.alike

    def as_json(self) -> dict[str, Any]:
        outcomes = [{"first": one, "second": other, "rows": rows} for (one, other), rows in self.effects.outcomes.items()]
        return {
            "first": self.first,
            "second": self.second,
            "same": self.same,
            "stages": self.stages,
            "causes": asdict(self.causes),
            "effects": asdict(self.effects) | {"outcomes": outcomes},
        }


def differences(first: Path, second: Path) -> RunDifferences:
    """Compare two run folders. Reads only; works beside processes that write.

    Raises:
        StoreError: If one holds no run, or is damaged.
    """
    with (
        RunFolder.open(first, create=False, read_only=True, checked=False) as one,
        RunFolder.open(second, create=False, read_only=True, checked=False) as other,
    ):
        return RunDifferences(
            first.resolve().name, second.resolve().name, causes(one.manifest, other.manifest), effects(one, other, beside=True)
        )
