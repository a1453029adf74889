"""AI feedback: which of two answers is better under the constitution, and how sure the judge is."""

from cai.labels.alone import AnswerScore, score_answers
from cai.labels.candidates import Candidate, Candidates
from cai.labels.ensemble import MarginScales, Voice, pair_margin
from cai.labels.labelling import ItemLabels, OnLabelEvent, check_labeller, label_candidates, margin_scales, run_labels
from cai.labels.letters import Compared, LetterMargins, Reasoning, compare
from cai.labels.quality import LabelQuality, LabelTally, label_quality
from cai.labels.settings import LabelSettings
from cai.verdicts import Judged, VerdictOdds, judge

__all__ = [
    "AnswerScore",
    "Candidate",
    "Candidates",
    "Compared",
    "ItemLabels",
    "Judged",
    "LabelQuality",
    "LabelSettings",
    "LabelTally",
    "LetterMargins",
    "MarginScales",
    "OnLabelEvent",
    "Reasoning",
    "VerdictOdds",
    "Voice",
    "check_labeller",
    "compare",
    "judge",
    "label_candidates",
    "label_quality",
    "margin_scales",
    "pair_margin",
    "run_labels",
    "score_answers",
]
