"""Small random checkpoints whose layers differ, or whose hooks carry something else than their names say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import transformers as hf

from .families import GATED

_MOE = {"num_experts_per_tok": 2}
MIXED: dict[str, Callable[[], Any]] = {
    "mixtral": lambda: hf.MixtralForCausalLM(
        hf.MixtralConfig(**GATED, **_MOE, num_key_value_heads=2, num_local_experts=4)
    ),
    "olmoe": lambda: hf.OlmoeForCausalLM(hf.OlmoeConfig(**GATED, **_MOE, num_experts=4)),
    "qwen3-moe": lambda: hf.Qwen3MoeForCausalLM(
        hf.Qwen3MoeConfig(
            **GATED,
            **_MOE,
            num_key_value_heads=2,
            head_dim=16,
            num_experts=4,
            moe_intermediate_size=32,
            mlp_only_layers=[1],
        )
    ),
    "gpt-oss": lambda: hf.GptOssForCausalLM(
        hf.GptOssConfig(
            **GATED,
            **_MOE,
            head_dim=16,
            num_key_value_heads=2,
            num_local_experts=4,
            sliding_window=8,
            layer_types=["sliding_attention", "full_attention", "sliding_attention"],
        )
    ),
    "lfm2": lambda: hf.Lfm2ForCausalLM(
        hf.Lfm2Config(
            **GATED,
            num_key_value_heads=2,
            layer_types=["conv", "full_attention", "conv"],
            block_auto_adjust_ff_dim=False,
        )
    ),
    "deepseek-v2": lambda: hf.DeepseekV2ForCausalLM(
        hf.DeepseekV2Config(
            **GATED,
            **_MOE,
            num_key_value_heads=6,
            q_lora_rank=None,
            kv_lora_rank=16,
            qk_nope_head_dim=8,
            qk_rope_head_dim=8,
            v_head_dim=8,
            n_routed_experts=4,
            moe_intermediate_size=32,
            first_k_dense_replace=1,
            n_shared_experts=1,
            n_group=1,
            topk_group=1,
        )
    ),
}
"""Name -> a freshly initialised model."""
if hasattr(hf, "Gemma4TextConfig"):  # whose later layers share the keys and values of earlier ones
    MIXED["gemma4"] = lambda: hf.Gemma4ForCausalLM(
        hf.Gemma4TextConfig(
            **{**GATED, "num_hidden_layers": 4},
            num_key_value_heads=2,
            head_dim=12,
            global_head_dim=12,
            vocab_size_per_layer_input=512,
            hidden_size_per_layer_input=8,
            sliding_window=8,
            layer_types=["sliding_attention", "full_attention"] * 2,
            num_kv_shared_layers=2,
        )
    )
GATE, UP, POST = "mlp.gate", "mlp.up", "mlp.post"
HEADS = {"attn.q": (96, 96, 96), "attn.k": (32, 32, 32), "attn.v": (32, 32, 32)}
SITES: dict[str, dict[str, tuple[int, ...]]] = {
    "mixtral": {"attn.q": (48, 48, 48), "attn.k": (16, 16, 16), "attn.v": (16, 16, 16)},
    "olmoe": {site: (48, 48, 48) for site in HEADS},
    "qwen3-moe": {**{site: (0, 72, 0) for site in (GATE, UP, POST)}, **HEADS},
    "gpt-oss": HEADS,
    "lfm2": {
        **{site: (72, 72, 72) for site in (GATE, UP, POST)},
        "attn.q": (0, 48, 0),
        "attn.k": (0, 16, 0),
        "attn.v": (0, 16, 0),
    },
    "deepseek-v2": {site: (72, 0, 0) for site in (GATE, UP, POST)},
    "gemma4": {
        **{site: (72, 72, 72, 72) for site in (GATE, UP, POST, "attn.q")},
        "attn.k": (24, 24, 0, 0),
        "attn.v": (24, 24, 0, 0),
    },
}
"""Model -> site -> neurons in each layer, by its configuration."""
