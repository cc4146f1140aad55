"""Methods beside the bare passes that they need: ``pytest -m perf -s tests/perf/test_methods.py``.

Processor time on one thread; each measure in a process of its own. Gradient methods stand beside a bare
forward and backward pass (attribution patching beside that and a forward pass of the control), activation
methods beside bare forward passes, integrated gradients beside as many bare passes as it has steps, layers
and sites.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import time

import pytest
import torch

from culnig_tl.method.methods.base import DerivedMethod, OwnMethod
from culnig_tl.method.methods.registry import METHODS

from . import shapes

pytestmark = pytest.mark.perf
ROUNDS = 3
LIMIT = 1.10
ONE_PASS = [name for name, method in METHODS.items() if not issubclass(method, (DerivedMethod, OwnMethod))]
GRADIENT = [name for name in ONE_PASS if METHODS[name].gradient and not METHODS[name].corrupted]
CASES = {
    **{name: [name] for name in ONE_PASS},
    "all gradient methods": GRADIENT,
    "all of one pass": ONE_PASS,
    "ig": ["ig"],
}
REPORTED = {"all gradient methods", "all of one pass"}
"""Several methods at once do several methods' work: their ratio is printed, not bounded."""


@pytest.mark.parametrize("case", list(CASES))
def test_time(case):
    command = [sys.executable, "-m", "tests.perf.test_methods", case]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    seen = json.loads(done.stdout.splitlines()[-1])
    print(
        f"\n{case} ({seen['parameters'] / 1e6:.0f} M): {seen['ours'] / seen['bare']:.3f} x bare "
        f"({seen['bare']:.2f} s)"
    )
    assert case in REPORTED or seen["ours"] <= LIMIT * seen["bare"]


def measure(case: str) -> dict[str, float]:
    """What the child process does."""
    from culnig_tl import load_model, score_neurons
    from culnig_tl.data.neurons import SITES
    from culnig_tl.engine import run
    from culnig_tl.engine.probe import probe_gradients
    from culnig_tl.engine.prompts import encode, pad, plan_batches

    torch.set_num_threads(1)
    methods = CASES[case]
    integrating = methods == ["ig"]
    plain = shapes.build("llama", "smaller")
    if integrating:  # 20 steps x 4 sites x 12 layers of one short question
        shapes.SIZES["two layers"] = {**shapes.SIZES["smaller"], "num_hidden_layers": 2}
        plain = shapes.build("llama", "two layers")
    parameters = float(sum(p.numel() for p in plain.parameters()))
    tokenizer = shapes.families.tokenizer()
    task = shapes.questions(1, 40) if integrating else shapes.questions()
    # The control is the question itself: as long a forward pass as can be.
    task = dataclasses.replace(task, questions=tuple(dataclasses.replace(q, control=q.prompt) for q in task))
    prompts = encode(tokenizer, task.questions)
    plan = plan_batches([len(p.tokens) for p in prompts], shapes.BATCH)
    batches = [pad([prompts[i] for i in batch], tokenizer, torch.device("cpu")) for batch in plan]
    backward = integrating or any(METHODS[name].gradient for name in methods)
    times = 20 * 4 * 2 if integrating else 1

    corrupted = any(METHODS[name].corrupted for name in methods)
    forwards = corrupted if backward else 1 + corrupted

    def bare() -> None:
        for tokens, mask in batches:
            for _ in range(times if backward else 0):
                shapes.bare_pass(plain, tokens, mask)
            for _ in range(forwards):
                with torch.no_grad():
                    plain(input_ids=tokens, attention_mask=mask, logits_to_keep=1, use_cache=False)

    def clock(action) -> float:
        start = time.process_time()
        action()
        return time.process_time() - start

    # The bridge changes the module it wraps: the bare passes get a model of their own.
    model = load_model(hf_model=plain, tokenizer=tokenizer)
    read = {site for name in methods for site in map(METHODS[name]().reads, SITES) if site is not None}
    tried = probe_gradients(model, sorted(read), prompts[0].tokens[:16])
    assert tried.native, "every hook fires under native attention"
    # A cost per task, not per question.
    run.probe_gradients = run.probe_forward = lambda *_, **__: tried  # type: ignore[assignment]
    plain = shapes.build("llama", "two layers" if integrating else "smaller")

    def ours() -> None:
        score_neurons(model, task, method=methods, batch_size=shapes.BATCH, progress=False)

    ours()
    rounds = [(clock(bare), clock(ours)) for _ in range(1 if integrating else ROUNDS)]
    return {"parameters": parameters, "bare": min(r[0] for r in rounds), "ours": min(r[1] for r in rounds)}


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1])))
