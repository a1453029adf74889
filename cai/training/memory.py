"""How much memory a training will take at its largest, part by part, before it is started."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from cai.models.products import onednn_is_faster
from cai.training.head import tile_slots
from cai.training.settings import TrainingSettings
from cai.training.skeleton import Skeleton

PROCESS_BYTES = 540 * 2**20
"""Python with torch, transformers, accelerate and peft, on the CPU's side."""
KERNEL_BYTES, KERNEL_PASSES = 640 * 2**20, 45
"""What oneDNN keeps of the shapes it has met, up to 1,024 of them, and after how many passes all but 1/e of it: as measured on
passes of ever other lengths under models of 0.1M and 9M parameters (470 and 640 MiB in the end)."""
HELD_BEYOND = {("cpu", 4): 1.3, ("cpu", 2): 1.1}
HELD_BEYOND_ELSE = 1.1
"""What allocators hold for each byte of activations in use, by device and bytes of a number: from measured peaks of a 135M
model. glibc's cuts memory up when tensors of float32 come and go; how much hangs on their sizes, between 1 and 1.9."""


@dataclass(frozen=True, slots=True)
class TrainingMemory:
    """Bytes.

    Args:
        process: Of the program itself, with the kernels that are made on the way.
        weights: Of the model, in the precision they are trained or frozen in, and the copies that autocast makes.
        trained: Adapters (where there are any), gradients, and AdamW's two moments.
        activations: Of the largest pass.
        head: The buffer of logits, and the head's gradients.
        saving: What writing the model takes for a moment, when activations are gone.
        on_gpu: All but `process` and `saving` are the GPU's.
        counted: Activations were counted by running the architecture; else they are rough.
    """

    process: int
    weights: int
    trained: int
    activations: int
    head: int
    saving: int
    on_gpu: bool
    counted: bool

    @property
    def device_bytes(self) -> int:
        """At the largest, where the model is, without the program."""
        training = self.weights + self.trained + self.activations + self.head
        return training if self.on_gpu else max(training, self.weights + self.trained + self.saving)

    @property
    def process_bytes(self) -> int:
        """At the largest, of the machine's own memory."""
        return self.process + (self.saving if self.on_gpu else self.device_bytes)


def training_memory(
    skeleton: Skeleton, settings: TrainingSettings, device: torch.device, *, tokens: int, slots: int, passes: int = 0
) -> TrainingMemory:
    """Foretell it.

    Args:
        skeleton: The model.
        settings: Of the training.
        device: Where it will be.
        tokens: Positions of the largest pass.
        slots: Its scored positions.
        passes: Of the whole training.
    """
    cost, item = skeleton.cost, skeleton.dtype.itemsize
    autocast = skeleton.weight_dtype != skeleton.dtype
    weights = skeleton.parameters * (skeleton.weight_dtype.itemsize + (item if autocast else 0))
    adapters = 0 if skeleton.full else skeleton.trainable * 4
    kept = cost.border_bytes * skeleton.layers + cost.layer_bytes if settings.gradient_checkpointing else cost.kept_bytes
    tile = min(slots, tile_slots(skeleton.vocabulary, skeleton.dtype, device))
    # Hidden states of the slots and their gradient; of a trained head also its gradient, made apart and added.
    head = tile * skeleton.vocabulary * (4 + (item if item < 4 else 0)) + 2 * slots * skeleton.width * item
    head += skeleton.vocabulary * skeleton.width * 4 if skeleton.full else 0
    whole = settings.lora is None or settings.merge
    by_onednn = device.type == "cpu" and skeleton.dtype is torch.float32 and onednn_is_faster()
    return TrainingMemory(
        process=PROCESS_BYTES + (round(KERNEL_BYTES * -math.expm1(-passes / KERNEL_PASSES)) if by_onednn else 0),
        weights=weights,
        trained=adapters + skeleton.trainable * 12,
        activations=round(HELD_BEYOND.get((device.type, item), HELD_BEYOND_ELSE) * kept * tokens),
        head=head,
        # An adapter is merged in float32; safetensors makes bytes of every tensor before it writes them.
        saving=skeleton.parameters * ((4 - item if not skeleton.full else 0) + item) if whole else skeleton.trainable * 4,
        on_gpu=device.type != "cpu",
        counted=cost.counted,
    )
