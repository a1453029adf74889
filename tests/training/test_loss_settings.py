"""Which settings a loss takes, and what is said where they do not fit."""

from __future__ import annotations

import subprocess
import sys
from typing import Any, get_args

import pytest
from pydantic import ValidationError

from cai.training.loss_table import LOSS_SETTINGS, LOSSES, LossOptions, LossSetting, PreferenceLoss
from cai.training.settings import DPOSettings

GOOD: dict[LossSetting, float] = {"label_noise": 0.1, "length_penalty": 0.02, "tail_weight": 0.5, "target_margin": 1.0}


def fitting(loss: PreferenceLoss) -> dict[str, Any]:
    own: dict[str, Any] = {name: GOOD[name] for name in LOSSES[loss].takes}
    return {"loss": loss, **own, **({} if LOSSES[loss].bears_certainty else {"max_p_chosen": 0.999})}


@pytest.mark.parametrize("loss", get_args(PreferenceLoss))
def test_every_loss_takes_its_own_settings_and_no_other(loss: PreferenceLoss) -> None:
    settings = DPOSettings.model_validate(fitting(loss))
    for name in LOSS_SETTINGS:
        if name in LOSSES[loss].takes:
            assert getattr(settings.loss_options, name) == GOOD[name]
            without = {key: value for key, value in fitting(loss).items() if key != name}
            with pytest.raises(ValidationError, match=f'the loss "{loss}" needs {name}: '):
                DPOSettings.model_validate(without)
        else:
            assert getattr(settings.loss_options, name) == getattr(LossOptions(0.1), name)
            with pytest.raises(ValidationError, match=f'the loss "{loss}" takes no {name}: leave it out, or take "'):
                DPOSettings.model_validate({**fitting(loss), name: GOOD[name]})


def test_all_misfits_are_told_at_once() -> None:
    with pytest.raises(ValidationError) as caught:
        DPOSettings.model_validate({"loss": "robust", "tail_weight": 0.5, "target_margin": 1})
    message = str(caught.value)
    assert all(name in message for name in ("label_noise", "tail_weight", "target_margin"))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"loss": "exo_pair"}, "infinite for a label of 1: set max_p_chosen"),
        ({"loss": "orpo", "nll_weight": 0}, "set nll_weight"),
        ({"loss": "kto"}, "depend on what else is in the batch; take \"apo_zero\""),
        ({"loss": "cdpo", "label_noise": 0.5}, "less than 0.5"),
        ({"loss": "robust", "label_noise": -0.1}, "greater than or equal to 0"),
        ({"loss": "ld_dpo", "tail_weight": 1.1}, "less than or equal to 1"),
        ({"loss": "rdpo", "length_penalty": -1}, "greater than or equal to 0"),
        ({"loss": "simpo", "target_margin": float("nan")}, "target_margin"),
        ({"loss": "dpo"}, "sigmoid"),
    ],
)  # fmt: skip
def test_nonsense_is_refused_with_a_reason(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        DPOSettings.model_validate(settings)


def test_losses_without_a_reference_say_so() -> None:
    assert {loss for loss, traits in LOSSES.items() if not traits.needs_reference} == {"simpo", "orpo"}
    assert {loss for loss, traits in LOSSES.items() if traits.needs_openings} == {"ld_dpo"}


def test_settings_do_not_load_torch() -> None:
    code = "import sys, cai.training.settings; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
