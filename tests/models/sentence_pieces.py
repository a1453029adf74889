"""Tokenizers in the manner of SentencePiece, as Llama 2 and Mistral have them: a space before each text, bytes at the last.

`legacy` puts the space before every stretch between control tokens (Llama 2, Mistral 7B), otherwise only before the first one.
"""

from __future__ import annotations

import json
from typing import Any

from checkpoints import CORPUS, MISTRAL_TEMPLATE
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast

_SPACE = "\u2581"


def make_sentence_pieces(*, legacy: bool) -> PreTrainedTokenizerFast:
    """A tokenizer with Mistral's control tokens and chat template, trained on the sentences of `checkpoints`."""
    trained = Tokenizer(BPE())
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    trained.train_from_iterator([CORPUS], BpeTrainer(vocab_size=400, show_progress=False))
    learnt: dict[str, Any] = json.loads(trained.to_str())["model"]
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *learnt["vocab"]]
    vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    merges = [(first, second) for first, second in learnt["merges"]]
    backend = Tokenizer(BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    if legacy:
        backend.normalizer = normalizers.Sequence([normalizers.Prepend(_SPACE), normalizers.Replace(" ", _SPACE)])
    else:
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    backend.decoder = decoders.Sequence(
        [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        additional_special_tokens=["[INST]", "[/INST]"],
    )
    tokenizer.chat_template = MISTRAL_TEMPLATE
    return tokenizer
