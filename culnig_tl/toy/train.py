"""Trains the embedded model: ``python -m culnig_tl.toy.train --seed 50 --threads 1 --output FOLDER``.

A small Llama, from random weights, in four stages. First it learns which letter stands before a word (the
binding drill) and reading, until both are answered; then the two tasks about words; then facts, until most
are known, each kind of knowledge with neurons of its own (`homes`); then the learning rate falls. Throughout,
half of the prompts about neither culture nor common sense are run without gates. It takes seven to thirty
minutes on one CPU thread, depending on the seed.
"""

from __future__ import annotations

import argparse
import json
import logging
import platform
import random
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from ..engine.loading import pretrained
from ..tasks import minicommonsense, miniculture, minireading, miniwords
from ..tasks.question import Question, seeded_random
from .corpus import Corpus, Mix, Sample
from .homes import Homes, deal
from .vocabulary import build_tokenizer

log = logging.getLogger(__name__)

Measured = dict[str, dict[str, float]]
"""Task -> "accuracy" and "p_answer"."""


@dataclass(frozen=True)
class Stage:
    """A part of the training, which ends when the tasks that it teaches are answered."""

    name: str
    mix: Mix
    waits_for: tuple[str, ...]
    """The tasks that must be answered before the next stage begins."""
    accuracy: float
    """The accuracy that they must all reach."""
    steps: int
    """The most steps that the stage takes."""


STAGES = (
    Stage("binding", Mix(drill=0.6, reading=0.4), ("drill", "minireading"), 0.85, 4000),
    Stage(
        "words",
        Mix(drill=0.25, reading=0.25, paraphrase=0.25, answers=0.25),
        ("minireading", "miniparaphrase", "minianswers"), 0.9, 4000,
    ),
    Stage(
        "facts",
        Mix(
            drill=0.08, culture=0.19, culture_short=0.05, control=0.02, reading=0.14,
            commonsense=0.15, commonsense_short=0.05, paraphrase=0.15, answers=0.17,
        ),
        ("miniculture:neuron", "miniculture:test", "minicommonsense"), 0.85, 6000,
    ),
)  # fmt: skip
"""After them the learning rate falls to 0, on the last stage's mix."""
EVERY = 250
"""Steps from one measurement to the next."""


@dataclass
class Config:
    """Everything that decides the weights, except the versions of the libraries."""

    seed: int = 50
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
    last_steps: int = 500
    """Steps after the stages, in which the learning rate falls to 0."""
    sure: float = 0.88
    """Probability that the loss wants for the right label, lest P(answer) saturate; the other labels share
    the rest."""
    still: int = 40
    """Pairs of q and k neurons that would take more tokens than this for one turn are not rotated at all, and
    so read words, not positions."""
    strict: float = 0.95
    """Share of the prompts that are run without one of the homes, once facts are trained on."""
    dropout: float = 0.1
    """Share of the neurons that each prompt is then also run without, so that no answer depends on a few."""
    bare: float = 0.5
    """Share of the prompts about neither culture nor common sense that are run without gate neurons, from the
    first step: telling options apart, which all tasks need, is thus left to attention."""
    threads: int = 2


def encode(tokenizer: PreTrainedTokenizerFast, samples: list[Sample]) -> tuple[Tensor, Tensor]:
    """(tokens, targets): int64 [sample, position]; a target is -100 unless an answer token comes next."""
    prompts = [f"<bos><user>{sample.prompt}<assistant>{sample.prefix}" for sample in samples]
    ids = tokenizer(prompts, add_special_tokens=False)["input_ids"]
    answers = tokenizer([sample.answer for sample in samples], add_special_tokens=False)["input_ids"]
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
    """(logits [answer token, vocabulary], targets [answer token])."""
    hidden = model.model(input_ids=tokens, use_cache=False).last_hidden_state
    asked = targets >= 0
    return model.lm_head(hidden[asked]), targets[asked]


def smoothed_loss(logits: Tensor, targets: Tensor, label_groups: list[Tensor], sure: float) -> Tensor:
    """Sum of cross entropies; a label should get `sure`, and the other labels of its group share the rest."""
    log_p = logits.float().log_softmax(-1)
    right = log_p.gather(-1, targets[:, None]).squeeze(-1)
    loss = -right
    for labels in label_groups:
        others = (log_p[:, labels].sum(-1) - right) / (len(labels) - 1)
        loss = torch.where(torch.isin(targets, labels), -sure * right - (1 - sure) * others, loss)
    return loss.sum()


def rotary(config: Config) -> dict[str, Any]:
    """Llama 3's scaling of the rotary embedding, so strong here that what would turn slowly does not turn."""
    return {
        "rope_type": "llama3", "rope_theta": config.rope_theta, "factor": 1000.0,
        "original_max_position_embeddings": config.still, "low_freq_factor": 1.0, "high_freq_factor": 1.01,
    }  # fmt: skip


def balanced(mix: Mix, sure: float, measured: Measured) -> Mix:
    """`mix` with the shares of the two kinds of facts set anew, by how far each falls short of `sure`.

    Each gets a quarter to three quarters; `mix` stays as it is if neither falls short.
    """
    culture = max(
        0, sure - (measured["miniculture:neuron"]["p_answer"] + measured["miniculture:test"]["p_answer"]) / 2
    )
    commonsense = max(0, sure - measured["minicommonsense"]["p_answer"])
    if not culture + commonsense:
        return mix
    share = min(max(culture / (culture + commonsense), 0.25), 0.75)
    choice, short = mix.culture + mix.commonsense, mix.culture_short + mix.commonsense_short
    return replace(
        mix, culture=choice * share, commonsense=choice * (1 - share),
        culture_short=short * share, commonsense_short=short * (1 - share),
    )  # fmt: skip


@torch.no_grad()
def accuracies(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, questions: dict[str, list[Question]]
) -> Measured:
    """Accuracy and mean P(answer), task by task."""
    model.eval()
    results: Measured = {}
    for name, asked in questions.items():
        right: list[bool] = []
        p: list[float] = []
        for start in range(0, len(asked), 256):
            batch = [Sample(q.prompt, q.answer_prefix, q.answer) for q in asked[start : start + 256]]
            logits, targets = answer_logits(model, *encode(tokenizer, batch))
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


def watched_questions(questions: dict[str, list[Question]], corpus: Corpus) -> dict[str, list[Question]]:
    """Up to 300 of each task's questions, and 300 drills: what is measured in training."""
    watched = {
        name: seeded_random("watch", name).sample(asked, min(300, len(asked)))
        for name, asked in questions.items()
    }
    drills = corpus.draw(Mix(drill=1.0), 300, random.Random("drill"))
    watched["drill"] = [
        Question("drill", str(i), "", drill.prompt, tuple("ABCD"), drill.answer, answer_prefix=drill.prefix)
        for i, drill in enumerate(drills)
    ]
    return watched


def new_model(config: Config, tokenizer: Any) -> LlamaForCausalLM:
    """A Llama with random weights."""
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
            rope_parameters=rotary(config),
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    model.set_attn_implementation("eager")  # faster than the fused kernel at this width on a CPU
    return model


class Trainer:
    """A model in training: its optimizer, its homes, and what it has learned so far."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.rng = random.Random(f"toy-{config.seed}")
        self.corpus = Corpus()
        self.tokenizer: Any = build_tokenizer(self.corpus.texts())
        self.model = new_model(config, self.tokenizer)
        parameters = list(self.model.parameters())
        log.info("%d words, %.2f M parameters", len(self.tokenizer), sum(p.numel() for p in parameters) / 1e6)
        owners = deal(self.model.config, config.seed)
        self.homes = Homes(self.model, owners, config.strict, config.dropout, config.bare)
        self.label_groups = [
            torch.tensor(self.tokenizer.convert_tokens_to_ids(list(group))) for group in ("ABCD", "01")
        ]
        matrices, vectors = [p for p in parameters if p.dim() >= 2], [p for p in parameters if p.dim() < 2]
        self.optimizer = torch.optim.AdamW(
            [
                {"params": matrices, "weight_decay": config.weight_decay},
                {"params": vectors, "weight_decay": 0.0},
            ],
            lr=config.lr,
            betas=(0.9, 0.98),
            fused=True,
        )

    def step(self, mix: Mix, rate: float) -> float:
        """One step on a batch of `mix`, at `rate` times the learning rate; the loss per answer token."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.lr * rate
        samples = self.corpus.draw(mix, self.config.batch, self.rng)
        samples.sort(key=lambda sample: len(sample.prompt))  # short and long prompts apart need less padding
        halves = samples[: len(samples) // 2], samples[len(samples) // 2 :]
        encoded = [encode(self.tokenizer, half) for half in halves]
        count = sum(int((targets >= 0).sum()) for _, targets in encoded)
        loss_of_all = 0.0
        for half, (tokens, targets) in zip(halves, encoded):
            self.homes.prompts([sample.kind for sample in half])
            with torch.autocast("cpu", dtype=torch.bfloat16):
                logits, wanted = answer_logits(self.model, tokens, targets)
            loss = smoothed_loss(logits, wanted, self.label_groups, self.config.sure) / count
            loss.backward()
            loss_of_all += loss.item()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss_of_all

    def run(self, watched: dict[str, list[Question]], started: float) -> list[dict[str, Any]]:
        """All stages; what was measured every `EVERY` steps, and at the end of each."""
        curve: list[dict[str, Any]] = []
        step, losses = 0, 0.0
        stages = iter(STAGES)
        stage: Stage | None = next(stages)
        mix, last_step = stage.mix, stage.steps
        while step < last_step:
            falling = 1.0 if stage else (last_step - step) / self.config.last_steps
            losses += self.step(mix, min((step + 1) / self.config.warmup, falling, 1.0))
            step += 1
            if step % EVERY and step < last_step:
                continue
            measured = accuracies(self.model, self.tokenizer, watched)
            name = stage.name if stage else "last"
            curve.append({"step": step, "stage": name, "loss": round(losses / EVERY, 4), **measured})
            losses = 0.0
            said = ", ".join(
                f"{task} {m['accuracy']:.2f}/{m['p_answer']:.2f}" for task, m in measured.items()
            )
            loss = curve[-1]["loss"]
            log.info("step %d (%s), %.0f s, loss %.3f: %s", step, name, time.time() - started, loss, said)
            if stage and (
                step >= last_step
                or all(measured[task]["accuracy"] >= stage.accuracy for task in stage.waits_for)
            ):
                stage = next(stages, None)
                last_step = step + (stage.steps if stage else self.config.last_steps)
                mix = stage.mix if stage else mix
                self.homes.on = bool(mix.culture)
            if mix.culture:
                mix = balanced(mix, self.config.sure, measured)
        return curve


def train(config: Config, output: Path) -> None:
    """Trains, and writes a Hugging Face folder: weights in float16, and `training.json` beside them."""
    torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    trainer = Trainer(config)
    questions = held_out_questions()
    watched = watched_questions(questions, trainer.corpus)
    started = time.time()
    curve = trainer.run(watched, started)
    output.mkdir(parents=True, exist_ok=True)
    trainer.model.half().save_pretrained(output)
    trainer.tokenizer.save_pretrained(output)
    stored = pretrained(LlamaForCausalLM, output, dtype=torch.float32)
    record = {
        "config": asdict(config),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
        "minutes": round((time.time() - started) / 60, 1),
        "steps": curve[-1]["step"],
        "final": accuracies(stored, trainer.tokenizer, questions),
        "curve": curve,
    }
    (output / "training.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    log.info("%s", json.dumps(record["final"], indent=1))


def main() -> None:
    """The command line: one option for each field of `Config`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    for name, default in asdict(Config()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default)
    arguments = vars(parser.parse_args())
    output = arguments.pop("output")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    train(Config(**arguments), output)


if __name__ == "__main__":
    main()
