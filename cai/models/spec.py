"""Which model to use, and how. Importing it costs nothing: no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, model_validator

DtypeName: TypeAlias = Literal["auto", "float32", "bfloat16", "float16"]
PromptForm: TypeAlias = Literal["auto", "chat", "plain"]
Placement: TypeAlias = Literal["one", "auto", "tensor_parallel"]
Quantization: TypeAlias = Literal["bnb-4bit", "bnb-8bit", "torchao-int8", "torchao-fp8"]

_OF_SERVERS = ("api_key_env", "time_limit_s", "tokenizer", "context_tokens")
_OF_WEIGHTS = ("adapter", "dtype", "device", "placement", "quantization", "revision", "base_model_form", "chat_template")


class ModelSpec(BaseModel):
    """A model as a user names it: a folder, a hub id, or the embedded `smollm2-135m`; with an adapter or without.

    With `server`, the model is one that an OpenAI-compatible server has; then `name` is what the server calls it, and how it
    was loaded is the server's affair.
    """

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

    server: Annotated[
        str | None,
        Field(description="Base URL of an OpenAI-compatible server that has the model, such as `http://localhost:8000/v1`."),
    ] = None
    api_key_env: Annotated[
        str | None,
        Field(
            min_length=1, description="server: name of the environment variable that holds the API key; never the key itself."
        ),
    ] = None
    time_limit_s: Annotated[float, Field(gt=0.0, description="server: longest wait for one answer, in seconds.")] = 600.0
    tokenizer: Annotated[
        str | None,
        Field(min_length=1, description="server: folder or hub id of the model's tokenizer, where `name` is not one itself."),
    ] = None
    context_tokens: Annotated[
        int | None, Field(ge=16, description="server: longest prompt plus answer, in tokens, where the server does not tell.")
    ] = None

    @model_validator(mode="after")
    def _belongs_together(self) -> ModelSpec:
        default = type(self).model_fields
        without = _OF_SERVERS if self.server is None else _OF_WEIGHTS
        foreign = [name for name in without if getattr(self, name) != default[name].default]
        if foreign and self.server is None:
            raise ValueError(f"{_listed(foreign)} belongs to a model on a server: give `server`, too, or leave it out")
        if foreign:
            raise ValueError(f"{_listed(foreign)} is the server's affair: set it where the server is started, or leave it out")
        return self

    @property
    def tokenizer_place(self) -> ModelSpec:
        """The model as far as its tokenizer goes, which is a matter of this machine also where the model is on a server."""
        if self.server is None:
            return self
        return ModelSpec(name=self.tokenizer or self.name, thinking=self.thinking)

    def __str__(self) -> str:
        if self.server is not None:
            return f"{self.name} (served)"
        return f"{self.name} + {self.adapter}" if self.adapter else self.name


def _listed(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
