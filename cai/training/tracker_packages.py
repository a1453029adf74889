"""Experiment trackers that transformers knows, and the package that each needs. Importing this module costs nothing."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec

TENSORBOARD = "tensorboard"
PACKAGES = {
    "clearml": "clearml",
    "codecarbon": "codecarbon",
    "comet_ml": "comet-ml",
    "dvclive": "dvclive",
    "mlflow": "mlflow",
    "swanlab": "swanlab",
    TENSORBOARD: "tensorboard",
    "trackio": "trackio",
    "wandb": "wandb",
}
"""Tracker's name for transformers, which is that of its module → name for pip."""


def missing_packages(names: Iterable[str]) -> list[str]:
    """What pip would have to install for these trackers."""
    return [PACKAGES[name] for name in names if not _is_installed(name)]


def _is_installed(module: str) -> bool:
    found = find_spec(module)
    return found is not None and found.origin is not None  # a folder of this name that a tracker left here is no package
