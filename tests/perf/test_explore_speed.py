"""How long a click, a choice and a question take in the workbench: on the toy under 200 ms each, after the
first.
"""

from __future__ import annotations

from statistics import median
from time import perf_counter, process_time

import numpy as np
import pytest

from culnig_tl import NeuronSet, explore, load_task, score_neurons
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
