"""The cloze form against bare passes over the same rows, and against letters: ``pytest -m perf -s
tests/perf/test_cloze_speed.py``.

Processor time on one thread, so that other work on the machine does not count.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch

from culnig_tl import evaluate, load_model, score_neurons
from culnig_tl.data.neurons import SITES
from culnig_tl.engine import run
from culnig_tl.engine.cloze import ClozePrompt, costs, encode_cloze
from culnig_tl.engine.probe import probe_forward, probe_gradients
from culnig_tl.engine.prompts import TOKENS_PER_BATCH, pad_rows, plan_batches
from culnig_tl.tasks.question import Question, Task

from .. import families
from . import shapes

pytestmark = pytest.mark.perf
ROUNDS, QUESTIONS, LIMIT = 3, 8, 1.05
CPU = torch.device("cpu")
Rows = tuple[torch.Tensor, torch.Tensor, list[list[int]]]
"""Tokens, mask, and of each question the tokens of its options' texts."""


def words(count: int, start: int) -> str:
    """A text of that many tokens, or nearly."""
    tokenizer = families.tokenizer(bos=False)
    many = tokenizer("What do people eat in Japan at New Year? noodles, bread and soup. " * 30)["input_ids"]
    return tokenizer.decode(many[start : start + count]).strip()


def questions() -> Task:
    """Of BLEnD's lengths: 84 tokens by letters; by words, prompts of 18 with four options of one to six, 91
    in all, and 18 of the control with its options (means, by SmolLM2's tokenizer)."""
    made = []
    for i in range(QUESTIONS):
        stem = words(6 + i % 5, i)
        texts = tuple(f"{words((0, 0, 1, 3)[(i + k) % 4], 3 * i + 5 * k)}{'.,;!'[k]}" for k in range(4))
        prompt = f"{stem}\n{words(66 + i % 13, 2 * i)}\nAnswer:"
        country = ("Japan", "Spain")[i % 2]
        known = ("perf", str(i), str(i), prompt, tuple("ABCD"), "ABCD"[i % 4], country)
        made.append(Question(*known, stem=stem, texts=texts))
    return Task("perf", tuple(made))


def passes(
    prompts: list[ClozePrompt], batch_sizes: list[int], plan: list[list[int]]
) -> list[tuple[Rows, Rows]]:
    """Of every batch, the rows of its options, and those of the control and its options."""
    assert [len(batch) for batch in plan] == batch_sizes
    made = []
    for batch in plan:
        chosen = [prompts[i] for i in batch]
        whole = pad_rows([row for p in chosen for row in p.rows], families.tokenizer(), CPU)
        bare = pad_rows([row for p in chosen for row in p.bare_rows], families.tokenizer(), CPU)
        made.append(
            (
                (*whole, [[len(text) for text in p.texts] for p in chosen]),
                (*bare, [[len(text) for text in p.bare_texts] for p in chosen]),
            )
        )
    return made


def bare_likelihoods(plain: Any, rows: Rows) -> torch.Tensor:
    """[question, option] LL by a plain model, of as few logits as it takes."""
    tokens, mask, lengths = rows
    longest = max(max(each) for each in lengths)
    logits = plain(tokens, attention_mask=mask, logits_to_keep=longest + 1, use_cache=False).logits.float()
    log_p = logits[:, :-1].log_softmax(-1).gather(2, tokens[:, -longest:, None]).squeeze(2)
    own = [length for each in lengths for length in each]
    summed = torch.stack([row[longest - length :].sum() for row, length in zip(log_p, own)])
    return torch.stack(summed.split(len(lengths[0])))


def bare_asking(plain: Any, batches: list[tuple[Rows, Rows]]) -> None:
    """The limit of asking: both passes forward."""
    with torch.no_grad():
        for whole, bare in batches:
            (bare_likelihoods(plain, whole) - bare_likelihoods(plain, bare)).argmax(-1)


def bare_scoring(plain: Any, batches: list[tuple[Rows, Rows]], *, prior: bool = True) -> None:
    """The limit of scoring: the gradient of P, through both passes, with the graph from the embedding on."""
    handle = plain.get_input_embeddings().register_forward_hook(
        lambda module, args, output: output.requires_grad_(True)
    )
    try:
        for whole, bare in batches:
            ll = bare_likelihoods(plain, whole)
            if prior:
                ll = ll - bare_likelihoods(plain, bare)
            ll.softmax(-1)[:, 0].sum().backward()
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
    monkeypatch.setattr(run, "probe_gradients", lambda *_: gradients)
    monkeypatch.setattr(run, "probe_forward", lambda *_: forward)
    return model, shapes.build("llama", "smaller")


def scoring(model: Any, task: Task, **options: Any) -> Any:
    return score_neurons(model, task, progress=False, **options)


def asking(model: Any, task: Task, **options: Any) -> Any:
    return evaluate(model, task, progress=False, **options)


@pytest.mark.parametrize("work", ["score", "score without a prior", "ask"])
def test_within_a_bare_pass_over_the_same_rows(work, models):
    model, plain = models
    task = questions().cloze()
    prompts = encode_cloze(families.tokenizer(), task.questions)
    lengths = costs(model, prompts, TOKENS_PER_BATCH["cpu"])
    mine, theirs, how = {
        "score": (scoring, bare_scoring, {}),
        "score without a prior": (scoring, partial(bare_scoring, prior=False), {"normalise": "sum"}),
        "ask": (asking, bare_asking, {}),
    }[work]
    seen = mine(model, task, **how).metadata["batch_sizes"]
    sizes = seen["perf"] if work == "ask" else seen
    batches = passes(prompts, sizes, plan_batches(lengths, sizes))
    found, seconds = ratio(lambda: mine(model, task, **how), lambda: theirs(plain, batches))
    print(f"\n{work}: {found:.3f} x bare ({seconds:.2f} s, {sum(lengths):,} tokens, batches {sizes})")
    assert found <= LIMIT


@pytest.mark.parametrize("work", ["score", "ask"])
def test_what_a_question_costs_against_letters(work, models):
    """Four short rows, and four shorter ones, against one long one: to be read, without a limit."""
    model, _ = models
    letters = questions()
    cloze, do = letters.cloze(), scoring if work == "score" else asking
    found, seconds = ratio(lambda: do(model, cloze), lambda: do(model, letters))
    print(f"\n{work}: {found:.2f} x letters ({seconds / len(letters):.3f} s per question)")
