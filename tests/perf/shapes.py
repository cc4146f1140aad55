"""Models of real proportions with random weights, and the same forward and backward pass in plain PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import transformers as hf

from culnig_tl.tasks.question import Question, Task

from .. import families

TOKENS, QUESTIONS, BATCH = 160, 4, 4
SIZES: dict[str, dict[str, Any]] = {
    "smaller": {
        "hidden_size": 768,
        "intermediate_size": 2304,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "num_key_value_heads": 4,
    },
    "larger": {
        "hidden_size": 1152,
        "intermediate_size": 3456,
        "num_hidden_layers": 14,
        "num_attention_heads": 12,
        "num_key_value_heads": 4,
    },
}
REST: dict[str, Any] = {
    "vocab_size": 32000,
    "max_position_embeddings": 1024,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
SHAPES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "llama": lambda size: hf.LlamaForCausalLM(hf.LlamaConfig(**size, **REST)),
    "qwen3": lambda size: hf.Qwen3ForCausalLM(hf.Qwen3Config(**size, **REST, head_dim=128)),
    "gemma3": lambda size: hf.Gemma3ForCausalLM(
        hf.Gemma3TextConfig(**size, **REST, head_dim=128, sliding_window=64)
    ),
}


def build(shape: str, size: str) -> Any:
    """A frozen model in evaluation mode."""
    torch.manual_seed(0)
    return SHAPES[shape](SIZES[size]).eval().requires_grad_(False)


def questions(count: int = QUESTIONS, tokens: int = TOKENS) -> Task:
    """Questions of exactly that many tokens, about two countries."""
    tokenizer = families.tokenizer()
    made = []
    for i in range(count):
        prompt = "Answer: A B C D. What do people eat? " * tokens
        short = tokenizer.decode(tokenizer(prompt)["input_ids"][1:tokens])
        assert len(tokenizer(short)["input_ids"]) == tokens
        made.append(
            Question(
                "perf",
                str(i),
                str(i),
                short,
                ("A", "B"),
                "A",
                country=("Japan", "Spain")[i % 2],
                answer_prefix="",
            )
        )
    return Task("perf", tuple(made))


def bare_pass(plain: Any, tokens: torch.Tensor, mask: torch.Tensor) -> float:
    """The limit: the gradient of P at the last position, parameters frozen, graph from the embedding on."""
    handle = plain.get_input_embeddings().register_forward_hook(
        lambda module, args, output: output.requires_grad_(True)
    )
    try:
        logits = (
            plain(input_ids=tokens, attention_mask=mask, logits_to_keep=1, use_cache=False)
            .logits[:, -1]
            .float()
        )
        p = logits.softmax(-1)[:, 7].sum()
        p.backward()
    finally:
        handle.remove()
    return p.item()


def usual_script(plain: Any, tokens: torch.Tensor, mask: torch.Tensor) -> dict[str, dict[int, float]]:
    """How it is usually written: hooks that retain gradients, gradients of all parameters, dictionaries of
    Python numbers."""
    kept: dict[str, torch.Tensor] = {}
    handles = []

    def keep(name: str) -> Callable[..., None]:
        def hook(module: Any, args: Any, output: torch.Tensor) -> None:
            output.retain_grad()
            kept[name] = output

        return hook

    for name, module in plain.named_modules():
        if name.endswith(("gate_proj", "q_proj", "k_proj", "v_proj")):
            handles.append(module.register_forward_hook(keep(name)))
    plain.requires_grad_(True)
    scores: dict[str, dict[int, float]] = {}
    try:
        logits = plain(input_ids=tokens, attention_mask=mask).logits[:, -1].float()
        logits.softmax(-1)[:, 7].sum().backward()
        for name, output in kept.items():
            assert output.grad is not None
            products = (output.detach() * output.grad).amax(1).sum(0)
            scores[name] = {i: value.item() for i, value in enumerate(products)}
    finally:
        plain.requires_grad_(False)
        plain.zero_grad(set_to_none=True)
        for handle in handles:
            handle.remove()
    return scores
