"""Trains the embedded model: ``python -m culnig_tl.toy.train --seed 0 --output FOLDER``.

A small Llama, from random weights, in three stages. First what needs no facts, until it is answered: the binding drill (which
letter stands before a word?), reading, and the two tasks about words. Then facts are added, until most are known. Then the
learning rate falls. Two CPU threads, under an hour.
"""

from __future__ import annotations

import argparse
import json
import logging
import platform
import random
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from ..tasks import minicommonsense, miniculture, minireading, miniwords
from ..tasks.question import Question, seeded_random
from .corpus import Corpus, Mix, Sample
from .vocabulary import build_tokenizer

log = logging.getLogger(__name__)

SKILLS = Mix(drill=0.30, reading=0.26, paraphrase=0.22, answers=0.22)
FACTS = Mix(
    drill=0.08, culture=0.23, culture_short=0.07, control=0.02, reading=0.18,
    commonsense=0.11, commonsense_short=0.03, paraphrase=0.14, answers=0.14,
)  # fmt: skip

SKILL_TASKS = ("drill", "minireading", "miniparaphrase", "minianswers")
FACT_TASKS = ("miniculture:neuron", "miniculture:test", "minicommonsense")
EVERY = 250
"""Steps between two measurements."""


@dataclass
class Config:
    """All that decides the weights, but for the versions of the libraries."""

    seed: int = 0
    layers: int = 6
    d_model: int = 128
    d_mlp: int = 384
    heads: int = 4
    kv_heads: int = 2
    rope_theta: float = 50.0
    init: float = 0.08
    batch: int = 64
    lr: float = 1.2e-3
    weight_decay: float = 0.1
    warmup: int = 100
    skill_accuracy: float = 0.8
    """The first stage ends when every task without facts is answered this well,"""
    skill_steps: int = 6000
    """or after so many steps."""
    fact_accuracy: float = 0.85
    """The second stage ends when culture and commonsense are answered this well (the last stage adds some points): at 100%
    P(answer) would saturate and its gradients vanish,"""
    fact_steps: int = 6000
    """or after so many steps."""
    last_steps: int = 500
    """Steps of the last stage, in which the learning rate falls to 0."""
    smoothing: float = 0.1
    """Label smoothing among the labels, so that P(answer) does not saturate."""
    threads: int = 2


def encode(tokenizer: PreTrainedTokenizerFast, samples: list[Sample]) -> tuple[Tensor, Tensor]:
    """(tokens, targets), right padded; targets are -100 everywhere but where an answer token comes next."""
    prompts = [f"<bos><user>{prompt}<assistant>{prefix}" for prompt, prefix, _ in samples]
    ids = tokenizer(prompts, add_special_tokens=False)["input_ids"]
    answers = tokenizer([answer for _, _, answer in samples], add_special_tokens=False)["input_ids"]
    width = max(len(p) + len(a) - 1 for p, a in zip(ids, answers))
    padding: Any = tokenizer.pad_token_id
    tokens = torch.full((len(samples), width), padding)
    targets = torch.full((len(samples), width), -100)
    for row, (prompt, answer) in enumerate(zip(ids, answers)):
        both = prompt + answer
        tokens[row, : len(both) - 1] = torch.tensor(both[:-1])
        targets[row, len(prompt) - 1 : len(both) - 1] = torch.tensor(answer)
    return tokens, targets


def answer_logits(model: LlamaForCausalLM, tokens: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """(logits, targets) at the answer positions alone."""
    hidden = model.model(input_ids=tokens, use_cache=False).last_hidden_state
    asked = targets >= 0
    return model.lm_head(hidden[asked]), targets[asked]


def smoothed_loss(logits: Tensor, targets: Tensor, label_groups: list[Tensor], smoothing: float) -> Tensor:
    """Summed cross entropy; where the target is a label, `smoothing` of it is spread over the labels of its kind."""
    log_p = logits.float().log_softmax(-1)
    loss = -log_p.gather(-1, targets[:, None]).squeeze(-1)
    for labels in label_groups:
        own = torch.isin(targets, labels)
        spread = -log_p[:, labels].mean(-1)
        loss = torch.where(own, (1 - smoothing) * loss + smoothing * spread, loss)
    return loss.sum()


@torch.no_grad()
def accuracies(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, questions: dict[str, list[Question]]) -> dict[str, dict]:
    """Accuracy and mean P(answer), task by task."""
    model.eval()
    results = {}
    for name, asked in questions.items():
        right, p = [], []
        for start in range(0, len(asked), 256):
            logits, targets = answer_logits(
                model, *encode(tokenizer, [(q.prompt, q.answer_prefix, q.answer) for q in asked[start : start + 256]])
            )
            probabilities = logits.float().softmax(-1)
            right += (probabilities.argmax(-1) == targets).tolist()
            p += probabilities.gather(-1, targets[:, None]).squeeze(-1).tolist()
        results[name] = {"accuracy": round(sum(right) / len(right), 4), "p_answer": round(sum(p) / len(p), 4)}
    model.train()
    return results


def held_out_questions() -> dict[str, list[Question]]:
    """The questions of the toy's tasks, none of which is trained on."""
    culture = miniculture.load()
    return {
        "miniculture:neuron": list(culture.neuron_split()),
        "miniculture:test": list(culture.test_split()),
        "minicommonsense": list(minicommonsense.load()),
        "minireading": list(minireading.load()),
        "miniparaphrase": list(miniwords.load_paraphrase()),
        "minianswers": list(miniwords.load_answers()),
    }


def train(config: Config, output: Path) -> None:
    """Trains, and writes a Hugging Face folder with the weights in float16 and `training.json` beside them."""
    torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    rng = random.Random(f"toy-{config.seed}")
    corpus = Corpus()
    tokenizer: Any = build_tokenizer(corpus.texts())
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=config.d_model,
            intermediate_size=config.d_mlp,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            num_key_value_heads=config.kv_heads,
            tie_word_embeddings=True,
            max_position_embeddings=128,
            initializer_range=config.init,
            rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    model.set_attn_implementation("eager")  # faster than the fused kernel at this width on a CPU
    log.info("%d words, %.2f M parameters", len(tokenizer), sum(p.numel() for p in model.parameters()) / 1e6)
    label_groups = [torch.tensor(tokenizer.convert_tokens_to_ids(list(group))) for group in ("ABCD", "01")]
    matrices = [p for p in model.parameters() if p.dim() >= 2]
    vectors = [p for p in model.parameters() if p.dim() < 2]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": config.weight_decay}, {"params": vectors, "weight_decay": 0.0}],
        lr=config.lr, betas=(0.9, 0.98), fused=True,
    )  # fmt: skip

    questions = held_out_questions()
    watched = {name: seeded_random("watch", name).sample(asked, min(300, len(asked))) for name, asked in questions.items()}
    drill_rng = random.Random("drill")
    watched["drill"] = [
        Question("drill", str(i), "", p, tuple("ABCD"), a, answer_prefix=prefix)
        for i in range(300)
        for p, prefix, a in [corpus.drill(drill_rng)]
    ]
    curve: list[dict] = []
    started, step, losses = time.time(), 0, 0.0
    stage, ends = "skills", {"skills": config.skill_steps}  # stage -> the step after which it is over at the latest
    while step < ends[stage]:
        falling = (ends[stage] - step) / config.last_steps if stage == "last" else 1.0
        for group in optimizer.param_groups:
            group["lr"] = config.lr * min((step + 1) / config.warmup, falling, 1.0)
        samples = corpus.draw(SKILLS if stage == "skills" else FACTS, config.batch, rng)
        samples.sort(key=lambda s: len(s[0]))  # the short half and the long half apart: less padding
        halves = [encode(tokenizer, part) for part in (samples[: len(samples) // 2], samples[len(samples) // 2 :])]
        count = sum(int((targets >= 0).sum()) for _, targets in halves)
        for tokens, targets in halves:
            with torch.autocast("cpu", dtype=torch.bfloat16):
                logits, wanted = answer_logits(model, tokens, targets)
            loss = smoothed_loss(logits, wanted, label_groups, 0.0 if stage == "skills" else config.smoothing) / count
            loss.backward()
            losses += loss.item()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step += 1
        if step % EVERY and step < ends[stage]:
            continue
        measured = accuracies(model, tokenizer, watched)
        curve.append({"step": step, "stage": stage, "loss": round(losses / EVERY, 4), **measured})
        losses = 0.0
        log.info("step %d (%s), %.0f s, loss %.3f: %s", step, stage, time.time() - started, curve[-1]["loss"],
                 ", ".join(f"{name} {m['accuracy']:.2f}/{m['p_answer']:.2f}" for name, m in measured.items()))  # fmt: skip
        reached = {name: m["accuracy"] for name, m in measured.items()}
        if stage == "skills" and (min(reached[name] for name in SKILL_TASKS) >= config.skill_accuracy or step >= ends[stage]):
            stage, ends["facts"] = "facts", step + config.fact_steps
        elif stage == "facts" and (min(reached[name] for name in FACT_TASKS) >= config.fact_accuracy or step >= ends[stage]):
            stage, ends["last"] = "last", step + config.last_steps

    output.mkdir(parents=True, exist_ok=True)
    model.half().save_pretrained(output)
    tokenizer.save_pretrained(output)
    stored = LlamaForCausalLM.from_pretrained(output, dtype=torch.float32)
    record = {
        "config": asdict(config),
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "transformers": transformers.__version__},
        "minutes": round((time.time() - started) / 60, 1),
        "steps": step,
        "final": accuracies(stored, tokenizer, questions),
        "curve": curve,
    }
    (output / "training.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    log.info("%s", json.dumps(record["final"], indent=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    for name, default in asdict(Config()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default)
    arguments = vars(parser.parse_args())
    output = arguments.pop("output")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    train(Config(**arguments), output)


if __name__ == "__main__":
    main()
