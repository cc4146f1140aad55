"""The cloze form against bare passes over the same rows, and against letters: ``pytest -m perf -s
tests/perf/test_cloze_speed.py``.

Processor time on one thread, so that other work on the machine does not count.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch

from culnig_tl import evaluate, load_model, score_neurons
from culnig_tl.data.neurons import SITES
from culnig_tl.engine import cloze, run
from culnig_tl.engine.cloze import Layout, costs, encode_cloze
from culnig_tl.engine.probe import probe_forward, probe_gradients
from culnig_tl.engine.prompts import pad, plan_batches
from culnig_tl.tasks.question import Question, Task

from .. import families
from . import shapes

pytestmark = pytest.mark.perf
ROUNDS, QUESTIONS, LIMIT = 2, 40, 1.05
CPU = torch.device("cpu")


def words(count: int, start: int) -> str:
    """A text of that many tokens, or nearly."""
    tokenizer = families.tokenizer(bos=False)
    many = tokenizer("What do people eat in Japan at New Year? noodles, bread and soup. " * 30)["input_ids"]
    return tokenizer.decode(many[start : start + count]).strip()


def questions() -> Task:
    """Of BLEnD's lengths: 84 tokens by letters; by words, prompts of 18 with four options of one to six, and
    those again after the control (means, by SmolLM2's tokenizer)."""
    made = []
    for i in range(QUESTIONS):
        stem = words(6 + i % 5, i)
        texts = tuple(f"{words((0, 0, 1, 3)[(i + k) % 4], 3 * i + 5 * k)}{'.,;!'[k]}" for k in range(4))
        prompt = f"{stem}\n{words(66 + i % 13, 2 * i)}\nAnswer:"
        country = ("Japan", "Spain")[i % 2]
        known = ("perf", str(i), str(i), prompt, tuple("ABCD"), "ABCD"[i % 4], country)
        made.append(Question(*known, stem=stem, texts=texts))
    return Task("perf", tuple(made))


def bare_likelihoods(plain: Any, layout: Layout) -> tuple[torch.Tensor, torch.Tensor]:
    """LL and priors by a plain model of the same rows, of no more logits."""
    assert layout.seen is not None
    mask = torch.zeros(layout.seen.shape).masked_fill_(~layout.seen, torch.finfo(torch.float32).min)
    known = {"attention_mask": mask[:, None], "position_ids": layout.positions, "use_cache": False}
    hidden = plain.model(layout.tokens, **known).last_hidden_state
    logits = plain.lm_head(hidden.flatten(0, 1)[layout.at])
    log_p = logits.log_softmax(-1)[layout.predicts, layout.targets]
    sums = torch.zeros(len(layout.tokens) * 8).index_add(0, layout.option, log_p).view(-1, 2, 4)
    return sums[:, 0], sums[:, 1]


def bare_asking(plain: Any, batches: list[Layout]) -> None:
    """The limit of asking."""
    with torch.no_grad():
        for layout in batches:
            ll, prior = bare_likelihoods(plain, layout)
            (ll - prior).argmax(-1)


def bare_scoring(plain: Any, batches: list[Layout]) -> None:
    """The limit of scoring: the gradient of P, with the graph from the embedding on."""
    handle = plain.get_input_embeddings().register_forward_hook(
        lambda module, args, output: output.requires_grad_(True)
    )
    try:
        for layout in batches:
            ll, prior = bare_likelihoods(plain, layout)
            (ll - prior).softmax(-1)[:, 0].sum().backward()
    finally:
        handle.remove()


def ratio(mine: Callable[[], object], theirs: Callable[[], object]) -> tuple[float, float]:
    """(median ratio of processor time, seconds of the second)."""
    rounds = []
    for _ in range(ROUNDS + 1):  # the first warms up
        marks = [time.process_time()]
        for work in (mine, theirs):
            work()
            marks.append(time.process_time())
        rounds.append((marks[1] - marks[0], marks[2] - marks[1]))
    return statistics.median(a / b for a, b in rounds[1:]), statistics.median(b for _, b in rounds[1:])


@pytest.fixture
def models(monkeypatch):
    """(the loaded model, a plain one); which kernel is used is tried once, not in each round."""
    torch.set_num_threads(1)
    tokenizer = families.tokenizer()
    model = load_model(hf_model=shapes.build("llama", "smaller"), tokenizer=tokenizer)
    shortest = encode_cloze(tokenizer, questions().cloze().questions[:1])[0].tokens
    gradients, forward = probe_gradients(model, SITES, shortest), probe_forward(model, [], shortest)
    assert gradients.native and forward.native
    prompts = encode_cloze(tokenizer, questions().cloze().questions)
    assert not cloze._not_in_one_row(model, prompts[:2])
    monkeypatch.setattr(run, "probe_gradients", lambda *_, **__: gradients)
    monkeypatch.setattr(run, "probe_forward", lambda *_, **__: forward)
    monkeypatch.setattr(cloze, "_not_in_one_row", lambda *_: "")
    return model, shapes.build("llama", "smaller")


def scoring(model: Any, task: Task, **options: Any) -> Any:
    return score_neurons(model, task, progress=False, **options)


def asking(model: Any, task: Task, **options: Any) -> Any:
    return evaluate(model, task, progress=False, **options)


@pytest.mark.parametrize("work", ["score", "score without a prior", "ask"])
def test_within_a_bare_pass_over_the_same_rows(work, models):
    model, plain = models
    task = questions().cloze(normalise="sum" if "without" in work else "unconditional")
    mine, theirs = (asking, bare_asking) if work == "ask" else (scoring, bare_scoring)
    prompts = cloze.asked_of(model, task, control=work == "ask").prompts
    seen = mine(model, task).metadata["batch_sizes"]
    sizes = seen["perf"] if work == "ask" else seen
    plan = [[prompts[i] for i in batch] for batch in plan_batches(costs(model, prompts), sizes)]
    batches = [Layout.of(batch, *pad(batch, families.tokenizer(), CPU)) for batch in plan]
    found, seconds = ratio(lambda: mine(model, task), lambda: theirs(plain, batches))
    tokens = sum(len(p.counted) for p in prompts)
    print(f"\n{work}: {found:.3f} x bare ({seconds:.2f} s, {tokens:,} tokens, batches {sizes})")
    assert found <= LIMIT


@pytest.mark.parametrize("work", ["score", "ask"])
def test_what_a_question_costs_against_letters(work, models):
    """A short row with four options, twice, against a long one."""
    model, _ = models
    letters = questions()
    asked, do = letters.cloze(), scoring if work == "score" else asking
    found, seconds = ratio(lambda: do(model, asked), lambda: do(model, letters))
    print(f"\n{work}: {found:.2f} x letters ({seconds / len(letters):.3f} s per question)")
    assert found <= 1
