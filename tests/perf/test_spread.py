"""What a second process gains: 2 processes of one thread against 1 process of one thread, the same batches.

    OMP_NUM_THREADS=1 pytest -m perf -s tests/perf/test_spread.py

An efficiency of 1 is twice the speed. By the clock a busy machine makes it worse than it is, so the load is
printed beside it; by processor time (that of the process which took more) other work on the machine does not
count, nor does waiting for each other.
"""

from __future__ import annotations

import os
import time

import psutil
import pytest
import torch

from culnig_tl import evaluate, load_model, score_neurons
from culnig_tl.engine.world import world

from .. import families
from ..processes import together
from .shapes import SHAPES, questions

pytestmark = pytest.mark.perf
BATCHES, ROUNDS = 24, 2
SIZE = {
    "hidden_size": 384,
    "intermediate_size": 1152,
    "num_hidden_layers": 6,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
}


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="two processes need two cores")
def test_two_processes_against_one(tmp_path):
    torch.set_num_threads(1)
    model = load_model(
        hf_model=SHAPES["llama"](SIZE).eval().requires_grad_(False), tokenizer=families.tokenizer()
    )
    task = questions(2 * BATCHES, 96)

    def seconds(name: str) -> tuple[float, float]:
        """(by the clock, of the processor) of one pass, from the moment at which all processes are ready."""
        world().gather(None)
        began = time.perf_counter(), time.process_time()
        (score_neurons if name == "score" else evaluate)(model, task, batch_size=2, progress=False)
        return time.perf_counter() - began[0], time.process_time() - began[1]

    def measure(file: str) -> None:
        for name in ("score", "evaluate"):
            seconds(name)  # warms up
            best = [min(times) for times in zip(*(seconds(name) for _ in range(ROUNDS)))]
            (tmp_path / f"{file} {name} {world().rank}").write_text(" ".join(map(str, best)))

    measure("one")
    assert together(2, lambda rank: measure("two")) == [0, 0]
    load = psutil.getloadavg()[0]

    def measured(file: str, name: str, rank: int) -> list[float]:
        return [float(word) for word in (tmp_path / f"{file} {name} {rank}").read_text().split()]

    for name in ("score", "evaluate"):
        one = measured("one", name, 0)
        two = [max(times) for times in zip(*(measured("two", name, rank) for rank in (0, 1)))]
        clock, processor = (alone / shared / 2 for alone, shared in zip(one, two))
        print(
            f"\n{name}: {one[0]:.2f} s alone, {two[0]:.2f} s by two; efficiency {clock:.2f} by the clock, "
            f"{processor:.2f} by processor time (load {load:.1f} on {os.cpu_count()} cores)"
        )
        assert processor > 0.75, "the work is divided"
