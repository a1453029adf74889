"""AI feedback: which of two answers is better under the constitution, and how sure the judge is."""

from cai.labels.labelling import Candidates, Label, OnLabelEvent, label_pairs, run_labels
from cai.labels.letters import Compared, LetterMargins, compare
from cai.labels.quality import LabelQuality, LabelTally, label_quality
from cai.labels.settings import LabelSettings
from cai.verdicts import Judged, VerdictOdds, judge

__all__ = [
    "Candidates",
    "Compared",
    "Judged",
    "Label",
    "LabelQuality",
    "LabelSettings",
    "LabelTally",
    "LetterMargins",
    "OnLabelEvent",
    "VerdictOdds",
    "compare",
    "judge",
    "label_pairs",
    "label_quality",
    "run_labels",
]
