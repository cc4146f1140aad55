"""Evaluation, ablated or not, against a bare forward pass of the same model with last-position logits."""

from __future__ import annotations

import os
import statistics
import time

import pytest
import torch
import transformers as hf

from culnig_tl import NeuronSet, ablation_hooks, describe, evaluate, load_model
from culnig_tl.engine.probe import probe_forward
from culnig_tl.engine.prompts import encode, pad, plan_batches
from culnig_tl.tasks.question import Question, Task

from .. import families

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
ROUNDS = int(os.environ.get("CULNIG_PERF_ROUNDS", "5"))
COMMON = {
    "vocab_size": 512,
    "max_position_embeddings": 512,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
GATED = {
    **COMMON,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
}
MODELS = {
    "llama": lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**GATED, num_key_value_heads=4)),
    "qwen3": lambda: hf.Qwen3ForCausalLM(hf.Qwen3Config(**GATED, num_key_value_heads=4, head_dim=64)),
    "gemma3": lambda: hf.Gemma3ForCausalLM(
        hf.Gemma3TextConfig(**GATED, num_key_value_heads=4, head_dim=64, sliding_window=64)
    ),
}


def questions(count: int) -> Task:
    """Prompts of about 50 to 190 tokens."""
    rows = []
    for i in range(count):
        text = " ".join(["What do people in Japan eat at New Year?"] * (4 + 2 * (i % 6)))
        rows.append(
            Question(
                "speed", f"q{i}", f"c{i}", f"{text}\nA. rice\nB. bread\nAnswer:", ("A", "B"), "AB"[i % 2]
            )
        )
    return Task("speed", tuple(rows))


@pytest.mark.perf
@pytest.mark.parametrize("family", list(MODELS))
def test_within_a_bare_forward(family, tmp_path, monkeypatch):
    torch.manual_seed(0)
    plain = MODELS[family]().eval()
    tokenizer = families.tokenizer()
    plain.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    model = load_model(tmp_path, device=DEVICE, dtype="bfloat16" if DEVICE == "cuda" else "float32")
    plain = (
        hf.AutoModelForCausalLM.from_pretrained(
            tmp_path, dtype=torch.bfloat16 if DEVICE == "cuda" else torch.float32
        )
        .eval()
        .to(DEVICE)
    )
    task = questions(4000 if DEVICE == "cuda" else int(os.environ.get("CULNIG_PERF_QUESTIONS", "96")))
    info = describe(model)
    neurons = NeuronSet.from_indices(
        (site, layer, i)
        for site in info.widths
        for layer in range(info.layers)
        for i in range(0, info.widths[site], 50)
    )
    prompts = encode(tokenizer, task.questions)
    lengths = [len(p.tokens) for p in prompts]
    device = torch.device(DEVICE)
    batches = [
        pad([prompts[i] for i in batch], tokenizer, device) for batch in plan_batches(lengths, "auto", device)
    ]

    # Trying whether the fast kernel may be used is a cost per task, not per question.
    names = [name for name, _ in ablation_hooks(model, neurons)]
    tried = probe_forward(model, names, min((p.tokens for p in prompts), key=len))
    assert tried.native, "every hook fires under native attention"
    monkeypatch.setattr("culnig_tl.engine.run.probe_forward", lambda *_, **__: tried)

    def bare() -> None:
        """The forward pass alone: the same batches, tokens already in place."""
        with torch.no_grad():
            for tokens, mask in batches:
                plain(tokens, attention_mask=mask, logits_to_keep=1, use_cache=False)

    runs = {
        "bare": bare,
        "unchanged": lambda: evaluate(model, task, progress=False),
        "suppressed": lambda: evaluate(model, task, ablate=neurons, progress=False),
    }
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(ROUNDS + 1):  # the first warms up
        for name, run in runs.items():
            start = time.perf_counter() if DEVICE == "cuda" else time.process_time()
            run()
            if DEVICE == "cuda":
                torch.cuda.synchronize()
            if turn:
                seconds[name].append(
                    (time.perf_counter() if DEVICE == "cuda" else time.process_time()) - start
                )
    ratios = {
        name: statistics.median(a / b for a, b in zip(seconds[name], seconds["bare"]))
        for name in ("unchanged", "suppressed")
    }
    parameters = sum(p.numel() for p in plain.parameters()) / 1e6
    print(f"{family}, {parameters:.0f} M parameters, {sum(lengths):,} tokens on {DEVICE}: {ratios}")
    assert max(ratios.values()) < 1.05
