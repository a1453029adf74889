"""A language model turned into a sequence classifier: the same layers, and a new head that reads rewards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn
from transformers import AutoModelForSequenceClassification

from cai.errors import TrainingError
from cai.models.chat import ChatTokenizer
from cai.training.scorer import inner_model
from constitution.messages import user

_PADS = ("<|finetune_right_pad_id|>", "<|pad|>", "<pad>", "[PAD]", "<|endoftext|>", "<unk>", "[UNK]")
"""Special tokens of the families that may stand for padding, where a tokenizer names none that can."""


@dataclass(frozen=True, slots=True)
class Padding:
    """A token, as text and as id."""

    token: str
    token_id: int


def is_reward_model(model: nn.Module) -> bool:
    """Whether it is a sequence classifier whose head reads rewards; bare or wrapped by peft."""
    return isinstance(getattr(inner_model(model), "score", None), nn.Module)


def with_reward_head(model: Any, heads: int, pad: Padding, *, seed: int) -> Any:
    """The sequence classifier with this model's layers; one that is a classifier already keeps its head.

    The new head is float32 and drawn as transformers draws it, by the seed alone: heads differ, and rewards of other texts
    too, so that a leak between sequences can be seen.

    Args:
        model: A causal language model or a sequence classifier, bare.
        heads: Rewards of each text.
        pad: What the classifier takes for padding: it reads at the last other token.
        seed: Of the head.

    Raises:
        TrainingError: If the architecture has no such classifier, or the model another number of heads.
    """
    config = model.config
    config.pad_token_id = config.get_text_config().pad_token_id = pad.token_id
    if is_reward_model(model):
        if model.score.out_features != heads:
            raise TrainingError(f"the model has {model.score.out_features} heads, not {heads}", "set heads, or start anew")
        model.score.float()
        return model
    config.num_labels = heads
    config.problem_type = "regression"
    try:
        with torch.device("meta"):
            classifier = cast("Any", AutoModelForSequenceClassification).from_config(config)
    except ValueError as error:
        raise _no_classifier(model) from error
    layers, old = getattr(model, model.base_model_prefix, None), getattr(classifier, classifier.base_model_prefix, None)
    if not is_reward_model(classifier) or layers is None or type(layers) is not type(old):
        raise _no_classifier(model)
    setattr(classifier, classifier.base_model_prefix, layers)
    classifier.config = config  # the very one that the layers look into
    score = nn.Linear(config.get_text_config().hidden_size, heads, bias=False, device="cpu", dtype=torch.float32)
    draw = torch.Generator().manual_seed(seed)
    nn.init.normal_(score.weight, std=float(getattr(config, "initializer_range", 0.02)), generator=draw)
    classifier.score = score.to(model.device)
    return classifier.eval()


def padding(tokenizer: ChatTokenizer) -> Padding:
    """What a reward model's texts are padded with.

    transformers' classifiers read at the last token that is not this one. So it is one with which no text ends: the tokenizer's
    own, another special one, and only where there is none the end of text, at which then nothing is read.
    """
    raw = tokenizer.tokenizer
    ending = tokenizer.encode_exchange((user("x"),), "x")[1][-1:]
    for token in (raw.pad_token, *_PADS):
        place = None if token is None else raw.get_vocab().get(token)
        if place is not None and place in tokenizer.control_ids and [place] != ending:
            return Padding(str(token), int(place))
    token = str(raw.eos_token or raw.convert_ids_to_tokens(ending)[0])
    return Padding(token, int(raw.convert_tokens_to_ids(token)))


def _no_classifier(model: Any) -> TrainingError:
    return TrainingError(
        f"{type(model).__name__}: transformers has no sequence classifier of this architecture that reads the last token",
        "start from another model",
    )
