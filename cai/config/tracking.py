"""Settings of experiment trackers. Importing this module costs nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

TrackerName: TypeAlias = Literal["tensorboard", "wandb", "mlflow", "trackio"]


class TrackingSettings(BaseModel):
    """Trackers that get the figures of a run: generation, labels, training, evaluation. They decide nothing that is made.

    What they need to log in is theirs to find (`WANDB_API_KEY` …): no key is a setting.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    to: Annotated[
        tuple[TrackerName, ...], Field(description="tensorboard, wandb, mlflow, trackio; none: nothing is tracked.")
    ] = ()
    project: Annotated[str, Field(min_length=1, description="The project, or experiment, that the run belongs to.")] = (
        "constitution-cai"
    )
    name: Annotated[str | None, Field(min_length=1, description="Name of the run; null: that of its folder.")] = None
    dir: Annotated[Path | None, Field(description="Where trackers keep their files; null: `tracking` in the run folder.")] = (
        None
    )
    online: Annotated[
        bool,
        Field(
            description="Let trackers send what they get to where their own settings say (MLFLOW_TRACKING_URI, "
            "TRACKIO_SPACE_ID, a wandb account); otherwise all stays in `dir`."
        ),
    ] = False
