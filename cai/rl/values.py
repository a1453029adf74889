"""The value head: what return is to be expected at each token, read off the policy's own hidden states."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ValueHead(nn.Module):
    """One linear layer in float32 on what the output head reads; 0 everywhere at first, whatever the model.

    Its gradient goes on into the policy, as in Ziegler et al. 2019 (arXiv 1909.08593), where one body bears both heads.
    """

    def __init__(self, width: int, device: torch.device) -> None:
        super().__init__()
        self.linear = nn.Linear(width, 1, device=device)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, hidden_SD: Tensor) -> Tensor:
        """values_S."""
        with torch.autocast(device_type=hidden_SD.device.type, enabled=False):
            return self.linear(hidden_SD.float())[:, 0]
