"""Defaults: the thresholds and models of the paper (CULNIG, arXiv 2510.08284), and the embedded model."""

from __future__ import annotations

from collections.abc import Mapping

TOP_MLP, TOP_ATTN, DROP_READING = 0.01, 0.002, 0.01
"""Culture-general neurons: the shares of the MLP's neurons and of the q, k, v neurons that are candidates
(the paper's t_mlp and t_attn), and the share removed for serving country reading comprehension (its r)."""
TOP_SPECIFIC, MIN_Z = 0.003, 0.5
"""Culture-specific neurons: the share that are candidates (the paper's t), and the least z."""
CONTRAST_OVER = 0.5
"""Not in the paper: standard deviations over the mean from which a neuron's score on a task without culture
has it passed over, where such tasks are held against it."""
RANDOM_SETS = 10
"""With ten, the smallest possible p by rank is 1/11."""
PAPER_MODELS: Mapping[str, tuple[int, int, int, int]] = {
    "google/gemma-3-12b-it": (48, 15360, 4096, 2048),
    "google/gemma-3-27b-it": (62, 21504, 4096, 2048),
    "Qwen/Qwen3-14B": (40, 17408, 5120, 1024),
    "meta-llama/Llama-3.1-8B-Instruct": (32, 14336, 4096, 1024),
    "microsoft/phi-4": (40, 17920, 5120, 1280),
    "tiiuae/Falcon3-10B-Instruct": (40, 23040, 3072, 1024),
}
"""The paper's models -> layers, and neurons per layer of mlp.gate, of attn.q, and of attn.k and attn.v each;
for lists, help, and files of neurons that do not say their model's shape."""
PAPER_TASKS: tuple[str, ...] = (
    "blend",
    "culturalbench",
    "normad",
    "worldvaluesbench",
    "commonsenseqa",
    "qnli",
    "mrpc",
)
"""Tasks of the paper's table, in its order."""
TOY = "toy"
"""Name of the embedded model."""
