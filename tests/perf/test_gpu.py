"""The shape of Llama-3.1-8B in bfloat16 on a GPU: ``pytest -m perf -s tests/perf/test_gpu.py``.

`measure` is tried on the CPU with a small shape, so that a GPU's time is not spent on finding mistakes in it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf

from culnig_tl import load_model, load_task, score_neurons
from culnig_tl.data.neurons import SITES
from culnig_tl.engine.probe import probe_gradients
from culnig_tl.engine.prompts import encode, pad, render
from culnig_tl.tasks.question import Question

from .. import families
from . import shapes

pytestmark = pytest.mark.perf
LLAMA_8B: dict[str, Any] = {
    "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256,
    "max_position_embeddings": 131072, "rope_parameters": families.LLAMA3_ROPE,
}  # fmt: skip
SMALL: dict[str, Any] = {
    **LLAMA_8B,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
MIRROR = Path(__file__).parents[3] / "shared" / "data" / "hub"


@dataclass(frozen=True)
class Figures:
    seconds: float
    bare_seconds: float
    tokens_per_second: float
    peak_share: float
    """Of what a plain matrix product of the same dtype reaches on the device."""
    memory: float
    """Peak bytes of scoring over those of the bare pass; NaN on the CPU."""


def measure(
    shape: dict[str, Any],
    device: str,
    dtype: torch.dtype,
    *,
    questions: int,
    tokens: int,
    side: int,
    rounds: int = 3,
) -> Figures:
    """Scoring beside the bare pass, on the same weights."""
    torch.manual_seed(0)
    with torch.device(device):
        plain = (
            hf.LlamaForCausalLM(hf.LlamaConfig(**shape, bos_token_id=1, eos_token_id=2, pad_token_id=0))
            .to(dtype)
            .eval()
            .requires_grad_(False)
        )
    tokenizer = families.tokenizer()
    task = shapes.questions(questions, tokens)
    batch, mask = pad(encode(tokenizer, task.questions), tokenizer, torch.device(device))

    def clock(action: Callable[[], Any]) -> tuple[float, float]:
        """(best seconds, peak bytes)"""
        best = float("inf")
        for _ in range(rounds):
            if device == "cuda":
                torch.cuda.reset_peak_memory_stats()
            start = time.perf_counter()
            action()
            if device == "cuda":
                torch.cuda.synchronize()
            best = min(best, time.perf_counter() - start)
        return best, float(torch.cuda.max_memory_allocated()) if device == "cuda" else float("nan")

    matrix = torch.randn(side, side, device=device, dtype=dtype)
    product, _ = clock(lambda: matrix @ matrix)
    peak = 2 * side**3 / product
    bare, bare_memory = clock(lambda: shapes.bare_pass(plain, batch, mask))
    model = load_model(hf_model=plain, tokenizer=tokenizer)
    assert probe_gradients(model, SITES, [3] * 16).native
    ours, memory = clock(lambda: score_neurons(model, task, batch_size=questions, progress=False))
    inside = sum(
        p.numel() for name, p in plain.named_parameters() if "embed" not in name and "lm_head" not in name
    )
    count = questions * tokens
    # A product and its gradient with respect to the activation: 4 operations per weight and token.
    return Figures(ours, bare, count / ours, 4 * inside * count / ours / peak, memory / bare_memory)


def tokens_of_the_study() -> int:
    """Tokens of BLEnD, its control and CountryRC, at four characters per token."""
    if not MIRROR.is_dir():
        pytest.skip(f"no mirror of the data sets at {MIRROR}")
    blend = load_task("blend", split="neuron", data_dir=MIRROR)
    asked: list[Question] = [*blend, *blend.control(), *load_task("countryrc", split="neuron")]
    return sum(len(render(families.tokenizer(), question)) for question in asked) // 4


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_llama_8b_on_a_gpu():
    seen = measure(LLAMA_8B, "cuda", torch.bfloat16, questions=64, tokens=256, side=8192)
    minutes = tokens_of_the_study() / seen.tokens_per_second / 60
    print(
        f"\nLlama-3.1-8B shape in bfloat16: {seen.tokens_per_second:,.0f} tokens per second, "
        f"{seen.peak_share:.0%} of the matrix peak, {seen.seconds / seen.bare_seconds:.3f} x bare, "
        f"memory {seen.memory:.3f} x; BLEnD, its control and CountryRC: {minutes:.1f} minutes"
    )
    assert seen.seconds <= 1.05 * seen.bare_seconds and seen.memory <= 1.05 and minutes < 10


def test_the_measure_itself_on_the_cpu():
    seen = measure(SMALL, "cpu", torch.float32, questions=3, tokens=40, side=64, rounds=1)
    assert seen.seconds > 0 and seen.tokens_per_second > 0 and 0 < seen.peak_share < 1
