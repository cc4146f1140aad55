"""What holds where nothing else is said: the paper's thresholds (CULNIG, arXiv 2510.08284), its models, and the embedded one."""

from __future__ import annotations

TOP_MLP, TOP_ATTN, DROP_READING = 0.01, 0.002, 0.01
"""Culture-general neurons: share of the MLP pool, share of the pooled q, k, v neurons (t_mlp and t_attn there), and the share
removed for serving country reading comprehension (r there)."""
TOP_SPECIFIC, MIN_Z = 0.003, 0.5
"""Culture-specific neurons: share of all neurons (t there), and the least z over the countries."""
RANDOM_SETS = 10
"""The smallest possible p by rank is then 1/11."""
PAPER_MODELS: tuple[str, ...] = (
    "google/gemma-3-12b-it",
    "google/gemma-3-27b-it",
    "Qwen/Qwen3-14B",
    "meta-llama/Llama-3.1-8B-Instruct",
    "microsoft/phi-4",
    "tiiuae/Falcon3-10B-Instruct",
)
"""For lists and help; nothing is decided by a name."""
TOY = "toy"
"""Name of the embedded model."""
