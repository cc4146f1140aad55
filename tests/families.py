"""Small random checkpoints of every model family, built with transformers' own config classes and saved.

Grouped key/value heads, q/k-norm, fused weights, sliding windows shorter than the prompts: what a family has,
its small checkpoint has too. The weights are wide enough that P(answer) and its gradients are far from
trivial.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers.processors import TemplateProcessing

from culnig_tl.tasks.question import Question, Task

COMMON: dict[str, Any] = {
    "vocab_size": 512,
    "max_position_embeddings": 256,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
GATED: dict[str, Any] = {
    **COMMON,
    "hidden_size": 48,
    "intermediate_size": 72,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "high_freq_factor": 4.0,
    "low_freq_factor": 1.0,
    "original_max_position_embeddings": 64,
}
GEMMA: dict[str, Any] = {
    **{**GATED, "num_hidden_layers": 4},
    "num_key_value_heads": 2,
    "head_dim": 12,
    "query_pre_attn_scalar": 12,
    "sliding_window": 8,
    "layer_types": ["sliding_attention", "sliding_attention", "full_attention", "sliding_attention"],
}
VISION = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 28,
    "patch_size": 14,
}


def _gemma3_multimodal() -> Any:
    rope = {
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
    }
    tokens = {"image_token_index": 508, "boi_token_index": 509, "eoi_token_index": 510}
    config = hf.Gemma3Config(
        text_config={**GEMMA, "rope_parameters": rope}, vision_config=VISION, mm_tokens_per_image=4, **tokens
    )
    return hf.Gemma3ForConditionalGeneration(config)


FAMILIES: dict[str, Callable[[], Any]] = {
    "llama": lambda: hf.LlamaForCausalLM(
        hf.LlamaConfig(**GATED, num_key_value_heads=2, rope_parameters=LLAMA3_ROPE)
    ),
    "qwen3": lambda: hf.Qwen3ForCausalLM(
        hf.Qwen3Config(**GATED, num_key_value_heads=3, head_dim=16, tie_word_embeddings=False)
    ),
    "phi3": lambda: hf.Phi3ForCausalLM(hf.Phi3Config(**GATED, num_key_value_heads=2, sliding_window=None)),
    "phi3-sliding": lambda: hf.Phi3ForCausalLM(
        hf.Phi3Config(**GATED, num_key_value_heads=3, sliding_window=7)
    ),
    "falcon3": lambda: hf.LlamaForCausalLM(
        hf.LlamaConfig(
            **GATED,
            num_key_value_heads=3,
            head_dim=16,
            rope_parameters={"rope_type": "default", "rope_theta": 1000042.0},
        )
    ),
    "gemma3-text": lambda: hf.Gemma3ForCausalLM(hf.Gemma3TextConfig(**GEMMA)),
    "gemma3": _gemma3_multimodal,
    "gpt2": lambda: hf.GPT2LMHeadModel(
        hf.GPT2Config(
            vocab_size=512,
            n_positions=256,
            n_embd=48,
            n_layer=3,
            n_head=6,
            n_ctx=256,
            bos_token_id=1,
            eos_token_id=2,
            pad_token_id=0,
        )
    ),
    "gpt-neox": lambda: hf.GPTNeoXForCausalLM(hf.GPTNeoXConfig(**GATED, rotary_pct=0.25)),
}
"""Family -> a freshly initialised model."""
SLIDING = {"phi3-sliding", "gemma3-text", "gemma3"}
PAPER = {
    "google/gemma-3-12b-it": "gemma3",
    "google/gemma-3-27b-it": "gemma3",
    "Qwen/Qwen3-14B": "qwen3",
    "meta-llama/Llama-3.1-8B-Instruct": "llama",
    "microsoft/phi-4": "phi3",
    "tiiuae/Falcon3-10B-Instruct": "falcon3",
}
"""The paper's models and the family that each is of."""

CORPUS = [
    "What do people in Japan eat at New Year? Answer with one letter.",
    "A. noodles\nB. bread\nC. rice\nD. soup\nAnswer:",
    'Which festival is held in Spain? {"answer_choice":"A"}',
    "The most common sport in Mexico is one of these: football, cricket, hockey, golf. Options: 1. 2. 3. 4.",
    "system user assistant model Answer with A, B, C, D or yes, no, neutral.",
    *["Answer: A B C D yes no"] * 20,
]
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|start|>{{ m['role'] }}\n{{ m['content'] }}<|end|>\n{% endfor"
    " %}{% if add_generation_prompt %}<|start|>assistant\n{% if enable_thinking is defined and not"
    " enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)


@cache
def _core(kind: str) -> str:
    special = ["<pad>", "<s>", "</s>", "<|start|>", "<|end|>", "<unk>"]
    if kind == "bytes":  # GPT-2, Llama 3, Qwen: byte-level BPE
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
    else:  # Llama 2, Gemma: SentencePiece's spaces as "▁", bytes for what is unknown
        special += [f"<0x{byte:02X}>" for byte in range(256)]
        tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        splits = [
            pre_tokenizers.Split("▁", "merged_with_next"),
            pre_tokenizers.Split("\n", "isolated"),
            pre_tokenizers.Punctuation(),
        ]
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            splits
        )  # for training alone: no merge crosses a word
        tokenizer.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
        )
        alphabet = []
    trainer = trainers.BpeTrainer(
        vocab_size=505, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    if kind != "bytes":
        tokenizer.pre_tokenizer = None  # type: ignore[assignment]
    return tokenizer.to_str()


def tokenizer(kind: str = "bytes", *, chat: bool = False, bos: bool = True) -> hf.PreTrainedTokenizerFast:
    """A small tokenizer: "bytes" (byte-level BPE) or "pieces" (SentencePiece-like); BOS is added to plain
    text where `bos`."""
    core = Tokenizer.from_str(_core(kind))
    if bos:
        core.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    made = hf.PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", eos_token="</s>", pad_token="<pad>", padding_side="right"
    )
    if chat:
        made.chat_template = CHAT_TEMPLATE
    return made


def build(family: str, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> Any:
    """A Hugging Face model of the family with random weights, in evaluation mode."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return spread(FAMILIES[family]()).to(dtype)


@torch.no_grad()
def spread(model: Any) -> Any:
    """The model in evaluation mode, with noise on its weights: norms around their start, matrices of gain
    about 1. Every site matters, nothing saturates."""
    for name, parameter in model.named_parameters():
        wide = 0.2 if parameter.ndim < 2 else 1.2 / parameter.shape[-1] ** 0.5
        if "embed" in name or "wte" in name or "wpe" in name:
            wide = 0.2
        parameter.add_(torch.randn_like(parameter) * wide)
    return model.eval()


def save(
    folder: Path,
    family: str,
    *,
    seed: int = 0,
    kind: str = "bytes",
    chat: bool = False,
    dtype: torch.dtype = torch.float32,
) -> Path:
    """Writes model and tokenizer as a Hugging Face checkpoint; returns the folder."""
    build(family, seed=seed, dtype=dtype).save_pretrained(folder)
    tokenizer(kind, chat=chat).save_pretrained(folder)
    return folder


def questions(count: int = 6, *, task: str = "small") -> Task:
    """Questions of different lengths about three countries."""
    foods = ("rice", "bread and soup", "noodles", "football, cricket and golf")
    made = []
    for i in range(count):
        country = ("Japan", "Spain", "Mexico")[i % 3]
        lines = "\n".join(f"{label}. {foods[(i + k) % 4]}" for k, label in enumerate("ABCD"))
        start = " ".join(["Answer with one letter."] * (i % 4))
        made.append(
            Question(
                task=task,
                id=f"{task}-{i}",
                cluster=f"c{i // 2}",
                prompt=f"{start} What do people in {country} eat at New Year?\n{lines}\nAnswer:".strip(),
                options=("A", "B", "C", "D"),
                answer="ABCD"[i % 4],
                country=country,
                control=f"{start}\n{lines}\nAnswer:".strip(),
            )
        )
    return Task(task, tuple(made), source="tests")
