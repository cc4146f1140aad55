"""Small GGUF files of random models, written by the package `gguf` as llama.cpp's converter writes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
import transformers as hf
from gguf import GGMLQuantizationType as Kind

from . import families

ARCHITECTURES = {"llama": "llama", "qwen3": "qwen3", "gemma3_text": "gemma3"}
"""transformers' type of a model -> llama.cpp's name for it."""
HEADS = {"num_attention_heads": 3, "num_key_value_heads": 1, "max_position_embeddings": 256}
SHAPE: dict[str, Any] = {**families.COMMON, **HEADS, "hidden_size": 96, "intermediate_size": 128}
MODELS = {
    "llama": lambda: hf.LlamaForCausalLM(
        hf.LlamaConfig(**SHAPE, head_dim=32, num_hidden_layers=2, rope_parameters=_rope(5e5))
    ),
    "qwen3": lambda: hf.Qwen3ForCausalLM(
        hf.Qwen3Config(
            **SHAPE, head_dim=128, num_hidden_layers=2, tie_word_embeddings=False, rope_parameters=_rope(1e6)
        )
    ),
    "gemma3": lambda: hf.Gemma3ForCausalLM(
        hf.Gemma3TextConfig(**SHAPE, head_dim=32, num_hidden_layers=7, sliding_window=8)
    ),
}
"""Family -> a model of random weights that a GGUF file can hold: heads as wide as transformers supposes."""


def _rope(theta: float) -> dict[str, Any]:
    return {"rope_type": "default", "rope_theta": theta}


def build(family: str) -> Any:
    """The model of that family, in evaluation mode, its weights as wide as in `families`."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return families.spread(MODELS[family]())


def write(path: Path, model: Any, *, kind: Kind = Kind.F32, chat: bool = False, **more: str) -> Path:
    """Writes model and tokenizer; matrices are quantised to `kind`. `more`: another `architecture`."""
    config = model.config
    arch = ARCHITECTURES[config.model_type]
    writer = gguf.GGUFWriter(path, more.get("architecture", arch))
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    rope = config.rope_parameters
    writer.add_rope_freq_base(rope.get("full_attention", rope)["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    if arch == "gemma3":
        writer.add_sliding_window(config.sliding_window)
    _add_tokenizer(writer, pieces=arch == "gemma3", chat=chat)
    _add_tensors(writer, model, arch, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add_tokenizer(writer: gguf.GGUFWriter, *, pieces: bool, chat: bool) -> None:
    tokenizer = families.tokenizer("pieces" if pieces else "bytes")
    core = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    tokens = sorted(core["vocab"], key=core["vocab"].get)
    tokens += [f"[PAD{i}]" for i in range(len(tokens), families.COMMON["vocab_size"])]
    special = set(tokenizer.all_special_tokens) | {"<|start|>", "<|end|>"}
    writer.add_tokenizer_model("llama" if pieces else "gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_types(
        [gguf.TokenType.CONTROL if t in special else gguf.TokenType.NORMAL for t in tokens]
    )
    if pieces:
        writer.add_token_scores([-float(i) for i in range(len(tokens))])
    else:
        writer.add_token_merges([" ".join(merge) for merge in core["merges"]])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(0)
    writer.add_add_bos_token(True)
    if chat:
        writer.add_chat_template(families.CHAT_TEMPLATE)


def _add_tensors(writer: gguf.GGUFWriter, model: Any, arch: str, kind: Kind) -> None:
    key = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == arch)
    names = gguf.get_tensor_name_map(key, model.config.num_hidden_layers)
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and model.config.tie_word_embeddings:
            continue
        weights = tensor.float().numpy()
        if arch == "llama" and (heads := _heads(name, model.config)):
            weights = _interleaved(weights, heads)
        if arch == "gemma3" and "norm" in name:
            weights = weights + 1
        said = names.get_name(name, try_suffixes=(".weight",))
        if weights.ndim == 2 and kind != Kind.F32:
            writer.add_tensor(said, gguf.quantize(weights, kind), raw_dtype=kind)
        else:
            writer.add_tensor(said, np.ascontiguousarray(weights, np.float32))


def _heads(name: str, config: Any) -> int:
    """How many heads a matrix that rotary positions turn is made of."""
    if "q_proj" in name:
        return config.num_attention_heads
    return config.num_key_value_heads if "k_proj" in name else 0


def _interleaved(weights: np.ndarray, heads: int) -> np.ndarray:
    """Rows in llama.cpp's order: the two that are turned together side by side, not half a head apart."""
    halves = weights.reshape(heads, 2, -1, weights.shape[1])
    return halves.swapaxes(1, 2).reshape(weights.shape)
