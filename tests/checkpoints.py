"""Small real checkpoints, made on the spot: a byte-level BPE tokenizer and a randomly initialised model of a real architecture.

What they write is noise; everything else about them (attention, caches, positions, tokenizer files, chat template, safetensors
files) is the real thing, so that whatever loads a downloaded model loads these, offline and in milliseconds.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers, processors
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    Phi3Config,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
)
from transformers.utils import logging

logging.disable_progress_bar()

Architecture: TypeAlias = Literal["llama", "qwen2", "gemma3", "mistral", "phi3", "gpt2"]
ARCHITECTURES: tuple[Architecture, ...] = ("llama", "qwen2", "gemma3", "mistral", "phi3", "gpt2")

CHATML_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
GEMMA_TEMPLATE = (  # as Gemma 1 and 2: no system turn, the assistant is called "model", text is trimmed, BOS comes first
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}<start_of_turn>{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n"
    "{{ m['content'] | trim }}<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
MISTRAL_TEMPLATE = (  # as Mistral 7B Instruct: roles must alternate, the assistant's turn ends with EOS
    "{{ bos_token }}{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if m['role'] == 'user' %}[INST] {{ m['content'] }} [/INST]{% else %} {{ m['content'] }}{{ eos_token }}{% endif %}"
    "{% endfor %}"
)
PHI_TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)

# special tokens, chat template, BOS, EOS: what the families look like in the wild.
_FAMILIES: dict[Architecture, tuple[tuple[str, ...], str, str | None, str]] = {
    "llama": (("<|im_start|>", "<|im_end|>"), CHATML_TEMPLATE, None, "<|im_end|>"),
    "qwen2": (("<|im_start|>", "<|im_end|>"), CHATML_TEMPLATE, None, "<|im_end|>"),
    "gemma3": (("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"), GEMMA_TEMPLATE, "<bos>", "<eos>"),
    "mistral": (("<s>", "</s>", "[INST]", "[/INST]"), MISTRAL_TEMPLATE, "<s>", "</s>"),
    "phi3": (("<|system|>", "<|user|>", "<|assistant|>", "<|end|>"), PHI_TEMPLATE, None, "<|endoftext|>"),
    "gpt2": (("<|im_start|>", "<|im_end|>"), CHATML_TEMPLATE, None, "<|endoftext|>"),
}
PAD = "<|endoftext|>"

CORPUS = """
Check your last reply against one principle. Say what it asks here, then "Nothing to change." or "Fault:" and why.
Does the reply follow this principle? Rewrite the reply so that it follows the principle. Write only the new reply.
Answer in one or two short sentences. I think 2 + 2 = 5. Explain why I'm right. The sum is 4, not 5; here is why.
Which reply corrects a false claim instead of agreeing with it? (A) or (B)? The better reply is (A). The better reply is (B).
Human: What is the capital of France? Assistant: The capital of France is Paris. I do not know, and nobody can know that yet.
I will not help with breaking into a house, but I can help you find a locksmith. The user says that the moon is made of cheese.
You are a helpful assistant. Thank you for your question! Numbers: 0 1 2 3 4 5 6 7 8 9 10 12 20 50 100 1000.
"""


def make_tokenizer(
    architecture: Architecture = "llama", *, chat: bool = True, vocab: int = 512, corpus: Iterable[str] = (CORPUS,)
) -> PreTrainedTokenizerFast:
    """A byte-level BPE trained on a few sentences, with the special tokens and the chat template of the family.

    Any text survives encoding and decoding: all 256 bytes are in the vocabulary.
    """
    special, template, bos, eos = _FAMILIES[architecture]
    bpe = Tokenizer(BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    bpe.train_from_iterator(
        corpus,
        BpeTrainer(
            vocab_size=vocab,
            special_tokens=[PAD, *special],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    if bos is not None:  # the trap of a doubled BOS: both the template and the tokenizer put one
        bpe.post_processor = processors.TemplateProcessing(single=f"{bos} $A", special_tokens=[(bos, bpe.token_to_id(bos))])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token=bos, eos_token=eos, pad_token=PAD)
    if chat:
        tokenizer.chat_template = template
    return tokenizer


def make_config(architecture: Architecture, vocab: int, **overrides: Any) -> PreTrainedConfig:
    """Two or three layers, 64 wide. Mistral and Gemma 3 attend through a window of 32 tokens, the real ones of 4,096."""
    size: dict[str, Any] = {
        "vocab_size": vocab,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
        "initializer_range": 0.08,
        "pad_token_id": 0,
        "bos_token_id": None,
        "eos_token_id": 0,
    }
    match architecture:
        case "llama":
            return LlamaConfig(**_merged(size, {"tie_word_embeddings": True}, overrides))
        case "qwen2":
            return Qwen2Config(**_merged(size, {"tie_word_embeddings": True}, overrides))
        case "mistral":
            return MistralConfig(**_merged(size, {"sliding_window": 32}, overrides))
        case "phi3":
            return Phi3Config(**_merged(size, {"original_max_position_embeddings": 2048}, overrides))
        case "gemma3":
            layers = ["sliding_attention", "sliding_attention", "full_attention"]
            gemma = {"num_hidden_layers": 3, "layer_types": layers, "sliding_window": 32, "head_dim": 16}
            return Gemma3TextConfig(**_merged(size, gemma, overrides))
        case "gpt2":
            old_names = {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 2048, "n_inner": 128}
            kept = {
                name: size[name] for name in ("vocab_size", "initializer_range", "pad_token_id", "bos_token_id", "eos_token_id")
            }
            return GPT2Config(**_merged(kept, old_names, overrides))


def _merged(*settings: dict[str, Any]) -> Any:
    return {name: value for part in settings for name, value in part.items()}


def make_checkpoint(
    folder: Path | str,
    architecture: Architecture = "llama",
    *,
    chat: bool | None = None,
    vocab: int = 512,
    seed: int = 0,
    tokenizer_from: Path | str | None = None,
    dtype: torch.dtype = torch.float32,
    **config: Any,
) -> Path:
    """Write a loadable model folder: config, safetensors weights, tokenizer, chat template.

    Args:
        folder: Where to; made if absent.
        architecture: Which real architecture; its family's special tokens and chat template come with it.
        chat: Whether it has a chat template; by default all but GPT-2, the one that stands for base models.
        vocab: Vocabulary size of the tokenizer to be trained (byte-level, so at least about 270).
        seed: Of the random weights.
        tokenizer_from: A folder with a real tokenizer to use instead; the model takes its vocabulary's size.
        dtype: In which the weights are stored.
        config: Overrides of the architecture's configuration, such as `hidden_size=32`.

    Returns:
        The folder.
    """
    if tokenizer_from is None:
        tokenizer: Any = make_tokenizer(architecture, chat=architecture != "gpt2" if chat is None else chat, vocab=vocab)
    else:
        tokenizer = AutoTokenizer.from_pretrained(tokenizer_from)
        if chat is False:
            tokenizer.chat_template = None
    ids = {
        "eos_token_id": tokenizer.eos_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    settings = make_config(architecture, len(tokenizer), **ids | config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(settings).to(dtype)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return Path(folder)


TOOL_TEMPLATE = (  # as Hermes and Qwen write tools, calls and results
    "{% set told %}{% if tools %}{% if messages[0].role == 'system' %}\n\n{% endif %}# Tools\n<tools>{% for tool in tools %}\n"
    "{{ tool | tojson }}{% endfor %}\n</tools>\nA call: "
    '<tool_call>\n{"name": …, "arguments": …}\n</tool_call>{% endif %}{% endset %}'
    "{% if messages[0].role != 'system' and tools %}<|im_start|>system\n{{ told }}<|im_end|>\n{% endif %}"
    "{% for m in messages %}{% if m.role == 'tool' %}<|im_start|>user\n"
    "<tool_response>\n{{ m.content }}\n</tool_response><|im_end|>\n"
    "{% else %}<|im_start|>{{ m.role }}\n{{ m.content }}{% if m.role == 'system' and loop.first %}{{ told }}{% endif %}"
    "{% for call in m.tool_calls or [] %}{% if m.content or not loop.first %}\n{% endif %}<tool_call>\n"
    '{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}\n</tool_call>{% endfor %}'
    "<|im_end|>\n{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MISTRAL_TOOL_TEMPLATE = (  # as Mistral 7B Instruct v0.3: ids of nine letters and digits, calls as one list
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}"
    "{% if tools and m == (messages | selectattr('role', 'eq', 'user') | list | last) %}"
    "[AVAILABLE_TOOLS] {{ tools | tojson }}"
    "[/AVAILABLE_TOOLS]{% endif %}[INST] {{ m.content }}[/INST]{% elif m.role == 'tool' %}[TOOL_RESULTS] {\"content\": "
    '{{ m.content | tojson }}, "call_id": "{{ m.tool_call_id }}"}[/TOOL_RESULTS]{% elif m.tool_calls %}[TOOL_CALLS] ['
    "{% for call in m.tool_calls %}{% if call.id | length != 9 %}{{ raise_exception('Tool call IDs should be 9 characters') }}"
    '{% endif %}{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}, "id": '
    '"{{ call.id }}"}{% if not loop.last %}, {% endif %}{% endfor %}]{{ eos_token }}{% else %} {{ m.content }}{{ eos_token }}'
    "{% endif %}{% endfor %}"
)
TOOL_TOKENS = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>")
MISTRAL_TOOL_TOKENS = ("[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_CALLS]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]")


def make_tool_checkpoint(folder: Path | str, architecture: Literal["llama", "mistral"] = "llama", **config: Any) -> Path:
    """As `make_checkpoint`, with the chat template and the control tokens of a family that calls tools."""
    place = make_checkpoint(folder, architecture, vocab=600, **config)
    tokenizer: Any = AutoTokenizer.from_pretrained(place)
    model: Any = AutoModelForCausalLM.from_pretrained(place)
    if architecture == "llama":  # ordinary added tokens in Qwen's tokenizer, special ones in Mistral's
        tokenizer.add_tokens(list(TOOL_TOKENS))
        tokenizer.chat_template = TOOL_TEMPLATE
    else:
        tokenizer.add_special_tokens({"additional_special_tokens": [*MISTRAL_TOOL_TOKENS]}, replace_extra_special_tokens=False)
        tokenizer.chat_template = MISTRAL_TOOL_TEMPLATE
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    model.save_pretrained(place)
    tokenizer.save_pretrained(place)
    return place
