"""Methods against the bare passes that they need, side by side: ``pytest -m perf -s tests/perf/test_methods.py``.

Processor time on one thread; each measure in a process of its own. Gradient methods stand beside a bare forward and backward pass (attribution patching
beside that and a forward pass of the control), activation methods beside bare forward passes, integrated gradients beside as many bare passes as it has
steps, layers and sites.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import time

import pytest
import torch

from . import shapes

pytestmark = pytest.mark.perf
ROUNDS = 3
LIMIT = 1.10
CASES = {
    "culnig": ["culnig"],
    "six gradient methods": ["culnig", "culnig-sum", "culnig-mean", "culnig-post", "culnig-sum-post", "culnig-mean-post"],
    "atp": ["atp"],
    "lape": ["lape"],
    "mean-difference": ["mean-difference"],
    "all of one pass": [
        "culnig", "culnig-sum", "culnig-mean", "culnig-post", "culnig-sum-post", "culnig-mean-post", "atp", "lape", "mean-difference",
    ],
    "ig": ["ig"],
}  # fmt: skip
REPORTED = {"six gradient methods", "all of one pass"}
"""Several methods at once do several methods' work: their ratio is printed, not bounded."""


@pytest.mark.parametrize("case", list(CASES))
def test_time(case):
    command = [sys.executable, "-m", "tests.perf.test_methods", case]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    seen = json.loads(done.stdout.splitlines()[-1])
    print(
        f"\n{case} ({seen['parameters'] / 1e6:.0f} M): {seen['ours'] / seen['bare']:.3f} x bare ({seen['bare']:.2f} s)"
    )
    assert case in REPORTED or seen["ours"] <= LIMIT * seen["bare"]


def measure(case: str) -> dict[str, float]:
    """What the child process does."""
    from culnig_tl import load_model, score_methods
    from culnig_tl.engine.prompts import encode, pad, plan_batches
    from culnig_tl.engine.run import probe
    from culnig_tl.method.methods import METHODS, together

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
    # The control is the question without its first word: as long a forward pass as can be.
    task = dataclasses.replace(task, questions=tuple(dataclasses.replace(q, control=q.prompt) for q in task))
    prompts = encode(tokenizer, task.questions)
    plan = plan_batches([len(p.tokens) for p in prompts], shapes.BATCH)
    batches = [pad([prompts[i] for i in batch], tokenizer, torch.device("cpu")) for batch in plan]
    backward = integrating or any(METHODS[name].gradient for name in methods)
    times = 20 * 4 * 2 if integrating else 1

    def bare() -> None:
        for tokens, mask in batches:
            for _ in range(times):
                if backward:
                    shapes.bare_pass(plain, tokens, mask)
                if not backward or any(METHODS[name].corrupted for name in methods):
                    with torch.no_grad():
                        for _ in range(
                            1 + (not backward and any(METHODS[name].corrupted for name in methods))
                        ):
                            plain(input_ids=tokens, attention_mask=mask, logits_to_keep=1, use_cache=False)

    def clock(action) -> float:
        start = time.process_time()
        action()
        return time.process_time() - start

    # The bridge changes the module it wraps: the bare passes get a model of their own.
    model = load_model(hf_model=plain, tokenizer=tokenizer)
    tried = probe(
        model,
        tuple(
            together._sites({m: {s: s for s in _read(m)} for m in methods}, [METHODS[m]() for m in methods])
        ),
        prompts[0].tokens[:16],
    )
    assert tried.native, "every hook fires under native attention"
    together.probe = lambda *args: tried  # a fixed cost a task, not a question
    plain = shapes.build("llama", "two layers" if integrating else "smaller")

    def ours() -> None:
        score_methods(model, task, methods, batch_size=shapes.BATCH, progress=False)

    ours()
    rounds = [(clock(bare), clock(ours)) for _ in range(1 if integrating else ROUNDS)]
    return {"parameters": parameters, "bare": min(r[0] for r in rounds), "ours": min(r[1] for r in rounds)}


def _read(name: str):
    from culnig_tl.data.neurons import SITES
    from culnig_tl.method.methods import METHODS

    return [read for site in SITES if (read := METHODS[name]().reads(site)) is not None]


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1])))
