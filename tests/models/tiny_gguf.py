"""A small real GGUF file, written the way llama.cpp writes Llama models, and a program that asks for its conversion."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, cast

import gguf
import numpy as np
import torch
from checkpoints import make_config, make_tokenizer
from transformers import AutoModelForCausalLM


def make_gguf(file: Path, *, seed: int = 0) -> Any:
    """Write the file; returns the model whose weights it holds (float32, so that nothing is lost)."""
    tokenizer: Any = make_tokenizer("llama")
    config: Any = make_config("llama", len(tokenizer), eos_token_id=tokenizer.eos_token_id)
    torch.manual_seed(seed)
    model = cast("Any", AutoModelForCausalLM).from_config(config).eval()
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    special = set(tokenizer.added_tokens_decoder)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([text for text, _ in vocabulary])
    writer.add_token_types([gguf.TokenType.CONTROL if number in special else gguf.TokenType.NORMAL for _, number in vocabulary])
    merges = tokenizer.backend_tokenizer.to_str()
    writer.add_token_merges([" ".join(pair) for pair in _merges(merges)])
    writer.add_bos_token_id(tokenizer.convert_tokens_to_ids("<|im_start|>"))  # as SmolLM2; transformers 5.17 needs one
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)
    writer.add_chat_template(tokenizer.chat_template)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for name, weight in model.state_dict().items():
        stored = names.get_name(name, try_suffixes=(".weight",))
        if name == "lm_head.weight":
            continue  # tied to the embeddings
        assert stored is not None, name
        heads = config.num_attention_heads if "q_proj" in name else config.num_key_value_heads if "k_proj" in name else 0
        writer.add_tensor(stored, _interleaved(weight.numpy(), heads) if heads else weight.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return model


def _merges(tokenizer_json: str) -> list[list[str]]:
    import json

    return json.loads(tokenizer_json)["model"]["merges"]


def _interleaved(weight: np.ndarray, heads: int) -> np.ndarray:
    """llama.cpp pairs neighbouring rows for rotary positions, where transformers pairs halves."""
    rows, columns = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns).copy()


if __name__ == "__main__":
    from cai.models.embedded import folder_from_gguf

    print("ready", flush=True)
    sys.stdin.readline()
    print(folder_from_gguf(Path(sys.argv[1])))
