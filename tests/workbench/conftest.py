"""What the tests of the workbench look at: the toy, a few questions, and a study of both."""

from __future__ import annotations

import importlib.util
from dataclasses import replace

import numpy as np
import pytest

from culnig_tl import load_model, load_task, score_neurons
from culnig_tl.data.neurons import NeuronSet, Provenance
from culnig_tl.study.config import TOY_CONFIG
from culnig_tl.study.study import Study
from culnig_tl.tasks import Task

if not all(importlib.util.find_spec(name) for name in ("ipywidgets", "anywidget")):
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(scope="module")
def model():
    return load_model("toy", device="cpu")


@pytest.fixture(scope="module")
def questions() -> Task:
    return load_task("miniculture", split="neuron", limit=24)


@pytest.fixture(scope="module")
def study(model, questions) -> Study:
    """A study of the toy on a few questions, with what a view needs of it: scores and sets."""
    scores = {
        "neuron": score_neurons(model, questions, progress=False),
        "control": score_neurons(model, questions.control(), progress=False),
    }
    top = scores["neuron"].top(120)
    general = NeuronSet(top, Provenance(kind="culture-general", layers=6))
    countries = np.where(np.arange(len(top)) % 2 == 0, "Spain", "Iran")
    specific = NeuronSet(top.assign(country=countries), Provenance(kind="culture-specific", layers=6))
    sets = {"culture-general": general, "culture-specific": specific}
    return Study(replace(TOY_CONFIG, limit=24), {}, scores, sets)


@pytest.fixture
def view(study, model, questions):
    from culnig_tl import explore

    made = explore(study, model=model, task=questions, questions=12)
    yield made
    made.wait()
    made.close_all()
