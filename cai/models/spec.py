"""Which model to use, and how. Importing it costs nothing: no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

DtypeName: TypeAlias = Literal["auto", "float32", "bfloat16", "float16"]
PromptForm: TypeAlias = Literal["auto", "chat", "plain"]
Placement: TypeAlias = Literal["one", "auto", "tensor_parallel"]
Quantization: TypeAlias = Literal["bnb-4bit", "bnb-8bit", "torchao-int8", "torchao-fp8"]


class ModelSpec(BaseModel):
    """A model as a user names it: a folder, a hub id, or the embedded `smollm2-135m`; with an adapter or without."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[
        str, Field(min_length=1, description="Model folder, hub id such as `Qwen/Qwen2.5-7B-Instruct`, or `smollm2-135m`.")
    ]
    adapter: Annotated[
        str | None,
        Field(
            min_length=1,
            description="LoRA adapter to add: a folder, a hub id, or `feedback`, the one shipped for `smollm2-135m`.",
        ),
    ] = None
    dtype: Annotated[
        DtypeName, Field(description='Precision of the weights; "auto" takes bfloat16 where the machine is faster with it.')
    ] = "auto"
    device: Annotated[
        str, Field(pattern=r"^(auto|cpu|mps|(cuda|xpu)(:\d+)?)$", description='"auto" takes a GPU where there is one.')
    ] = "auto"
    placement: Annotated[
        Placement,
        Field(
            description='"one" puts the model on one device; "auto" spreads its layers over all GPUs, and over memory '
            'what they cannot hold; "tensor_parallel" splits every layer over the processes of a `torchrun`.'
        ),
    ] = "one"
    quantization: Annotated[
        Quantization | None,
        Field(
            description="Make the weights smaller while they are read, with bitsandbytes (4 bits: NF4) or torchao. "
            "A checkpoint that is quantised already needs no such setting."
        ),
    ] = None
    revision: Annotated[str | None, Field(description="Branch, tag or commit of a hub id.")] = None
    base_model_form: Annotated[
        PromptForm,
        Field(
            description='"chat" and "auto" use the chat template and refuse a model without one; '
            '"plain" writes Human/Assistant text, for base models.'
        ),
    ] = "auto"
    chat_template: Annotated[
        Path | None, Field(description="File with a jinja chat template to use instead of the model's own.")
    ] = None
    thinking: Annotated[
        bool, Field(description="Let a thinking model think first; the thoughts are kept apart from the answer.")
    ] = False

    def __str__(self) -> str:
        return f"{self.name} + {self.adapter}" if self.adapter else self.name
