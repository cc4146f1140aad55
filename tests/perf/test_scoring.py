"""Scoring against the bare forward and backward pass, side by side: ``pytest -m perf -s tests/perf``.

Processor time on one thread, so that other work on the machine does not count; each measure in a process of
its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pytest
import torch

from . import shapes

pytestmark = pytest.mark.perf
ROUNDS = 5
LIMIT = 1.10


def measured(what: str, shape: str, size: str) -> dict[str, float]:
    """One measure in a fresh process: this file called as a script."""
    command = [sys.executable, "-m", "tests.perf.test_scoring", what, shape, size]
    # Freed blocks go back to the system at once; otherwise the peak depends on the allocator.
    quiet = (
        {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"}
        if what.startswith("memory")
        else None
    )
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=quiet)
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("size", list(shapes.SIZES))
@pytest.mark.parametrize("shape", list(shapes.SHAPES))
def test_time(shape, size):
    seen = measured("time", shape, size)
    print(
        f"\n{shape} {size} ({seen['parameters'] / 1e6:.0f} M): "
        f"scoring {seen['ours'] / seen['bare']:.3f} x bare ({seen['bare']:.2f} s)"
    )
    assert seen["ours"] <= LIMIT * seen["bare"]


@pytest.mark.parametrize("size", list(shapes.SIZES))
@pytest.mark.parametrize("shape", list(shapes.SHAPES))
def test_memory(shape, size):
    bare, ours = measured("memory-bare", shape, size), measured("memory-ours", shape, size)
    above = [seen["peak"] - seen["loaded"] for seen in (ours, bare)]
    total = (ours["weights"] + above[0]) / (bare["weights"] + above[1])
    print(
        f"\n{shape} {size}: peak memory of weights and activations {total:.3f} x bare "
        f"({(bare['weights'] + above[1]) / 2**20:.0f} MiB), "
        f"of activations alone {above[0] / above[1]:.3f} x"
    )
    assert total <= 1.05


@pytest.mark.parametrize("shape", ["llama"])
def test_against_the_usual_script(shape):
    seen = measured("usual", shape, "smaller")
    print(f"\n{shape}: the usual script takes {seen['usual'] / seen['ours']:.1f} x as long")
    assert seen["usual"] > seen["ours"]


def measure(what: str, shape: str, size: str) -> dict[str, float]:
    """What the child process does."""
    from culnig_tl import load_model, score_neurons
    from culnig_tl.data.neurons import SITES
    from culnig_tl.engine import run
    from culnig_tl.engine.probe import probe_gradients
    from culnig_tl.engine.prompts import encode, pad, plan_batches

    torch.set_num_threads(1)
    plain = shapes.build(shape, size)
    parameters = float(sum(p.numel() for p in plain.parameters()))
    weights = float(sum(p.nbytes for p in plain.parameters()))
    tokenizer = shapes.families.tokenizer()
    task = shapes.questions()
    prompts = encode(tokenizer, task.questions)
    batches = [
        pad([prompts[i] for i in batch], tokenizer, torch.device("cpu"))
        for batch in plan_batches([shapes.TOKENS] * len(task), shapes.BATCH)
    ]

    def bare() -> None:
        for tokens, mask in batches:
            shapes.bare_pass(plain, tokens, mask)

    def clock(action) -> float:
        start = time.process_time()
        action()
        return time.process_time() - start

    if what == "memory-bare":
        shapes.bare_pass(plain, batches[0][0][:1, :16], batches[0][1][:1, :16])
        loaded = reset_peak()
        bare()
        return {"weights": weights, "loaded": loaded, "peak": peak()}

    # The bridge changes the module it wraps: the bare passes get a model of their own.
    model = load_model(hf_model=plain, tokenizer=tokenizer)
    tried = probe_gradients(model, SITES, prompts[0].tokens[:16])
    assert tried.native, "every hook fires under native attention"
    run.probe_gradients = lambda *_, **__: tried  # a cost per task, not per question

    def ours() -> None:
        seen = score_neurons(model, task, batch_size=shapes.BATCH, progress=False)
        assert seen.metadata["native_attention"] and seen.metadata["batch_sizes"] == [shapes.BATCH] * len(
            batches
        )

    if what == "memory-ours":
        loaded = reset_peak()
        ours()
        return {"weights": weights, "loaded": loaded, "peak": peak()}
    plain = shapes.build(shape, size)
    if what == "usual":
        usual = clock(lambda: [shapes.usual_script(plain, *batch) for batch in batches])
        return {"usual": usual, "ours": clock(ours)}
    rounds = [(clock(bare), clock(ours)) for _ in range(ROUNDS)]
    return {"parameters": parameters, "bare": min(r[0] for r in rounds), "ours": min(r[1] for r in rounds)}


def reset_peak() -> float:
    """Forgets the peak of resident memory (Linux); returns what is resident now, in bytes."""
    with open("/proc/self/clear_refs", "w") as stream:
        stream.write("5")
    return peak()


def peak() -> float:
    """Peak of resident memory since the last reset, in bytes."""
    with open("/proc/self/status") as stream:
        return next(1024.0 * int(line.split()[1]) for line in stream if line.startswith("VmHWM"))


if __name__ == "__main__":
    print(json.dumps(measure(*sys.argv[1:])))
