"""Defaults: the thresholds and models of the paper (CULNIG, arXiv 2510.08284), and the embedded model."""

from __future__ import annotations

TOP_MLP, TOP_ATTN, DROP_READING = 0.01, 0.002, 0.01
"""Culture-general neurons: the shares of the MLP's neurons and of the q, k, v neurons that are candidates
(the paper's t_mlp and t_attn), and the share removed for serving country reading comprehension (its r)."""
TOP_SPECIFIC, MIN_Z = 0.003, 0.5
"""Culture-specific neurons: the share that are candidates (the paper's t), and the least z."""
RANDOM_SETS = 10
"""With ten, the smallest possible p by rank is 1/11."""
PAPER_MODELS: tuple[str, ...] = (
    "google/gemma-3-12b-it",
    "google/gemma-3-27b-it",
    "Qwen/Qwen3-14B",
    "meta-llama/Llama-3.1-8B-Instruct",
    "microsoft/phi-4",
    "tiiuae/Falcon3-10B-Instruct",
)
"""The paper's models, for lists and help; nothing is decided by a name."""
TOY = "toy"
"""Name of the embedded model."""
