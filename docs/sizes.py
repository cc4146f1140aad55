"""Prints the tables of docs/sizes.md: what a study of each model takes.

``python docs/sizes.py MODEL`` counts tokens with the tokenizer of MODEL, e.g. a GGUF file's. The models of
the table are described by their shapes, and take no memory.
"""

from __future__ import annotations

import sys

import transformers as hf

from culnig_tl.engine.loading import load_tokenizer, without_weights
from culnig_tl.engine.prompts import encode
from culnig_tl.run.forecast import duration
from culnig_tl.run.pieces import Questions, settings_of
from culnig_tl.study.config import RIVAL, StudyConfig

QWEN3 = {"vocab_size": 151936, "head_dim": 128, "num_key_value_heads": 8}
LLAMA = {"vocab_size": 128256, "num_key_value_heads": 8, "num_attention_heads": 32}
GEMMA3 = {"vocab_size": 262144, "head_dim": 256}


def _shape(kind: type, layers: int, hidden: int, wide: int, heads: int, **more: object) -> object:
    given = {"num_hidden_layers": layers, "hidden_size": hidden, "intermediate_size": wide}
    return kind(**{**given, "num_attention_heads": heads, **more})


MODELS = {
    "Qwen/Qwen3-0.6B": _shape(hf.Qwen3Config, 28, 1024, 3072, 16, **QWEN3, tie_word_embeddings=True),
    "Qwen/Qwen3-1.7B": _shape(hf.Qwen3Config, 28, 2048, 6144, 16, **QWEN3, tie_word_embeddings=True),
    "Qwen/Qwen3-4B": _shape(hf.Qwen3Config, 36, 2560, 9728, 32, **QWEN3, tie_word_embeddings=True),
    "google/gemma-3-1b-it": _shape(hf.Gemma3TextConfig, 26, 1152, 6912, 4, **GEMMA3, num_key_value_heads=1),
    "google/gemma-3-4b-it": _shape(hf.Gemma3TextConfig, 34, 2560, 10240, 8, **GEMMA3, num_key_value_heads=4),
    "meta-llama/Llama-3.2-1B-Instruct": _shape(
        hf.LlamaConfig, 16, 2048, 8192, **LLAMA, heads=32, tie_word_embeddings=True
    ),
    "meta-llama/Llama-3.1-8B-Instruct": _shape(hf.LlamaConfig, 32, 4096, 14336, **LLAMA, heads=32),
    "tiiuae/Falcon3-10B-Instruct": _shape(
        hf.LlamaConfig, 40, 3072, 23040, 12, num_key_value_heads=4, head_dim=256, vocab_size=131072
    ),
    "google/gemma-3-12b-it": _shape(
        hf.Gemma3TextConfig, 48, 3840, 15360, 16, **GEMMA3, num_key_value_heads=8
    ),
    "microsoft/phi-4": _shape(
        hf.Phi3Config, 40, 5120, 17920, 40, num_key_value_heads=10, vocab_size=100352, pad_token_id=0
    ),
    "Qwen/Qwen3-14B": _shape(hf.Qwen3Config, 40, 5120, 17408, 40, **QWEN3),
    "google/gemma-3-27b-it": _shape(
        hf.Gemma3TextConfig, 62, 5376, 21504, 32, vocab_size=262144, head_dim=128, num_key_value_heads=16
    ),
}
COUNTRIES = 16
T4 = 4e12
"""Operations per second in float32: half of what the card is sold as. A guess, not a measurement."""


def neurons_of(config: hf.PretrainedConfig) -> int:
    """Neurons of the gate, q, k and v."""
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    attention = head * (config.num_attention_heads + 2 * config.num_key_value_heads)
    return config.num_hidden_layers * (config.intermediate_size + attention)


def tokens_of(tokenizer: object, limit: int | None) -> tuple[int, int]:
    """(tokens that are scored, tokens that are asked in all settings) of the default study."""
    config = StudyConfig(limit=limit)
    questions = Questions.load(config)
    settings = len(settings_of(config, rival=RIVAL in questions.scored))
    scored, asked = (
        sum(len(prompt.tokens) for task in tasks for prompt in encode(tokenizer, task.questions))
        for tasks in (questions.scored.values(), questions.asked)
    )
    return scored, settings * asked


def main() -> None:
    tokenizer = load_tokenizer(sys.argv[1])
    scored, asked = tokens_of(tokenizer, 500)
    print(f"--limit 500: {scored / 1e6:.2f} million tokens scored, {asked / 1e6:.1f} million asked")
    print("| model | weights, float32 | bfloat16 | neurons | sums | operations | on a T4, float32 |")
    print("|---|---|---|---|---|---|---|")
    for name, config in MODELS.items():
        plain = without_weights(config)
        count = sum(p.numel() for p in {id(p): p for p in plain.parameters()}.values())
        body = count - plain.get_input_embeddings().weight.numel()
        neurons = neurons_of(config)
        work = (4 * scored + 2 * asked) * body
        fits = duration(work / T4) if 4 * count < 13 * 2**30 else "does not fit"
        print(
            f"| `{name}` | {4 * count / 2**30:.1f} GiB | {2 * count / 2**30:.1f} GiB | {neurons:,}"
            f" | {4 * COUNTRIES * neurons / 2**20:.0f} MiB | {work / 1e15:,.0f}e15 | {fits} |"
        )


if __name__ == "__main__":
    main()
