"""How long a click, a choice and a question take in the workbench: on the toy under 200 ms each, after the
first. And on a real model of 135M, where a card's first questions are to be there in 5 seconds and an answer
in 2 while reading goes on: printed, since a busy machine takes longer.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from statistics import median
from subprocess import run
from time import perf_counter, process_time, sleep

import numpy as np
import pytest

from culnig_tl import NeuronSet, explore, load_study, load_task, score_neurons
from culnig_tl.data.neurons import Site
from culnig_tl.data.scores import NeuronScores
from culnig_tl.engine.models import load_model
from culnig_tl.tasks.countries import COUNTRIES
from culnig_tl.workbench.heat import draw
from culnig_tl.workbench.source import Choice, Source

pytest.importorskip("ipywidgets")
pytest.importorskip("anywidget")
pytestmark = pytest.mark.perf


def milliseconds(view, act, times: int) -> tuple[float, float, float]:
    """Medians: until the call returns, until the answer is shown, and of processor time, which other programs
    leave alone.
    """
    back, done, work = [], [], []
    for i in range(times):
        start, used = perf_counter(), process_time()
        act(i)
        back.append(1000 * (perf_counter() - start))
        view.wait()
        done.append(1000 * (perf_counter() - start))
        work.append(1000 * (process_time() - used))
    assert view.error == ""
    return median(back), median(done), median(work)


def test_toy_answers_within_200_milliseconds():
    model = load_model("toy", device="cpu")
    scores = score_neurons(model, load_task("miniculture", split="neuron"), progress=False)
    view = explore(scores, model=model, neurons=NeuronSet(scores.top(116)))
    for name, act in {
        "first card": lambda: setattr(view, "neuron", ("mlp.gate", 0, 0)),
        "first question": view.ask,
        "first site": lambda: setattr(view, "site", "mlp.gate"),
    }.items():
        print(f"{name}: {milliseconds(view, lambda _, a=act: a(), 1)[1]:.0f} ms, once")
    view.operation = "suppress"
    view.wait()
    keys = [(row.site, int(row.layer), int(row.neuron)) for row in scores.top(12).itertuples()]
    for name, act in {
        "card": lambda i: setattr(view, "neuron", keys[i]),
        "country": lambda i: setattr(view, "country", COUNTRIES[i]),
        "layer": lambda i: setattr(view, "layer", i % 6),
        "site": lambda i: setattr(view, "site", "mlp.gate" if i % 2 else None),
        "question, before and after": lambda i: view.ask(),
        "selection, asked again": lambda i: setattr(view, "selection", NeuronSet.from_indices(keys[: i + 1])),
    }.items():
        back, done, work = milliseconds(view, act, 12)
        print(f"{name}: returns in {back:.1f} ms, shown in {done:.0f} ms ({work:.0f} ms of processor time)")
        assert work < 200, name


def test_heatmap_of_a_large_model():
    rng = np.random.default_rng(0)
    widths = {Site.MLP_GATE: 14_336, Site.ATTN_Q: 4_096, Site.ATTN_K: 1_024, Site.ATTN_V: 1_024}
    arrays = {site: rng.standard_normal((16, 32, width), dtype=np.float32) for site, width in widths.items()}
    about = {"task": "large", "model": "an 8B's shape"}
    scores = NeuronScores(arrays, COUNTRIES, (10,) * 16, (1.0,) * 16, 100, (10,) * 16, about)
    source = Source.of(scores, neurons={"chosen": NeuronSet(scores.top(5_000))})
    for choice in (Choice("chosen"), Choice("all scored neurons")):
        draw(source, choice, source.nothing(), None)  # sums over countries are made once
        start = perf_counter()
        draw(source, choice, source.nothing(), None)
        took = perf_counter() - start
        print(f"{choice.name}: drawn in {1000 * took:.0f} ms (655,360 neurons)")
        assert took < 1


STUDY = "smollm2-135m-instruct"


@pytest.fixture(scope="module")
def real():
    """(view of a stored study with its own model, seconds that it took): a GGUF file, and rows of BLEnD."""
    file = os.environ.get("CULNIG_SMOLLM2", "")
    if not Path(file).is_file():
        pytest.skip("CULNIG_SMOLLM2 names no file: SmolLM2-135M-Instruct.Q4_1.gguf")
    if not os.environ.get("CULNIG_DATA_DIR"):
        pytest.skip("CULNIG_DATA_DIR names no mirror of the Hub's data sets: BLEnD is needed")
    model, task = load_model(file, device="cpu"), load_task("blend", split="neuron", form="cloze")
    start = perf_counter()
    view = explore(STUDY, model=model, task=task)
    return view, perf_counter() - start


def until(condition, seconds: float = 300) -> float:
    """Seconds until it holds."""
    start = perf_counter()
    while not condition():
        assert perf_counter() - start < seconds
        sleep(0.01)
    return perf_counter() - start


def test_real_model_answers_while_it_reads(real):
    view, took = real
    print(f"explore(): {took:.1f} s; {os.getloadavg()[0]:.0f} programs on {os.cpu_count()} processors")
    row = load_study(STUDY).neurons["culture-general"].top(1).iloc[0]
    view.neuron = (row["site"], int(row["layer"]), int(row["neuron"]))
    first = until(lambda: "class='question'" in view._card.questions.value)
    print(f"first top questions of a card: {first:.1f} s")
    for name, act in {
        "ask": view.ask,
        "suppress": lambda: setattr(view, "operation", "suppress"),
        "another selection": lambda: setattr(view, "selection", view.source.single(view.neuron)),
    }.items():
        (reader,), view.answers = view.source._readers, None
        used, done = process_time(), reader.done
        act()
        took = until(lambda: view.answers is not None)
        print(
            f"{name}: {took:.1f} s ({process_time() - used:.1f} s of processor time), {done} questions read"
        )
        assert not reader.finished, "reading goes on meanwhile"
    view._models.submit("top questions", lambda: iter(()))
    view.wait(300)
    assert view.error == ""


def test_a_fresh_kernel_shows_a_sign_of_life():
    """What `explore` imports before it says that it is opening something."""
    code = (
        "import time; start = time.perf_counter(); import culnig_tl; culnig_tl.explore; import sys;"
        "print(time.perf_counter() - start); assert not {'torch', 'pandas', 'plotly'} & set(sys.modules)"
    )
    done = run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    print(f"until the first sign of life: {float(done.stdout):.2f} s after the kernel is there")
