"""Tasks without culture held against a neuron: the equations in plain Python, ties, several tasks."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from culnig_tl import NeuronSet, select_general
from culnig_tl.data.scores import NeuronScores
from culnig_tl.errors import NeuronError
from culnig_tl.method.contrast import Contrast

from .builders import CONTROL, CULTURE, READING, scores
from .helpers import invoked
from .oracles import selecting

CUT = {"top_mlp": 0.1, "top_attn": 0.05, "drop_reading": 0.1}
PLAIN = [scores(seed=11, clusters=7), scores(seed=12, clusters=3)]


def literal(some: NeuronScores) -> selecting.Scores:
    return {
        (country, str(site), layer): array[row, layer].tolist()
        for site, array in some.arrays.items()
        for row, country in enumerate(some.countries)
        for layer in range(some.layers)
    }


@pytest.mark.parametrize("way", ["filter", "subtract", "ranks"])
@pytest.mark.parametrize("tasks", [1, 2])
def test_the_set_is_the_equation(way, tasks):
    others = PLAIN[:tasks]
    mine = select_general(
        CULTURE, CONTROL, READING, contrast=others, contrast_way=way, contrast_over=0.3, **CUT
    )
    expected = selecting.contrasted(
        literal(CULTURE),
        CULTURE.clusters,
        literal(CONTROL),
        CONTROL.clusters,
        literal(READING),
        [(literal(other), other.clusters) for other in others],
        way,
        0.3,
        **CUT,
    )
    rank = {site: number for number, site in enumerate(selecting.ORDER)}
    assert {(rank[site], layer, n) for site, layer, n in mine.keys()} == expected
    plain = select_general(CULTURE, CONTROL, READING, **CUT)
    assert mine.keys() != plain.keys() and mine.provenance.candidates == plain.provenance.candidates
    assert mine.provenance.thresholds["contrast"] == way and not mine.provenance.paper_defaults


def test_a_neuron_is_as_bad_as_the_task_that_it_serves_most():
    both = select_general(CULTURE, contrast=PLAIN, contrast_over=0.3, **CUT)
    for other in PLAIN:
        pool = np.concatenate([other.total(site).ravel() for site in other.sites if site.pool == "mlp"])
        bar = pool.mean(dtype=float) + 0.3 * pool.std(dtype=float)
        mlp = [key for key in both.indices if key[0].pool == "mlp"]
        assert all(
            other.total(site)[layer, n] <= bar for site, layer in mlp for n in both.indices[site, layer]
        )


def test_scale_does_not_matter_and_order_does():
    for way in ("filter", "subtract", "ranks"):
        louder = replace(PLAIN[0], arrays={site: 8 * array for site, array in PLAIN[0].arrays.items()})
        sets = [
            select_general(CULTURE, contrast=each, contrast_way=way, **CUT) for each in (PLAIN[0], louder)
        ]
        assert sets[0].keys() == sets[1].keys(), way


def test_too_few_neurons_left_make_a_smaller_set():
    chosen = select_general(CULTURE, contrast=PLAIN[0], contrast_over=-1.2, top_mlp=0.9, top_attn=0.9)
    assert 0 < len(chosen) < len(select_general(CULTURE, top_mlp=0.9, top_attn=0.9))


def test_what_makes_no_sense_is_said():
    assert Contrast.of(None) is None and Contrast.of([]) is None
    with pytest.raises(NeuronError, match="standard deviations, not nan"):
        select_general(CULTURE, contrast=PLAIN[0], contrast_over=math.nan, **CUT)
    with pytest.raises(NeuronError, match="of different models"):
        fewer = replace(PLAIN[0], arrays={site: array[:, :-1] for site, array in PLAIN[0].arrays.items()})
        select_general(CULTURE, contrast=fewer, **CUT)
    holed = {site: array.copy() for site, array in PLAIN[0].arrays.items()}
    next(iter(holed.values()))[0, 0, 0] = np.nan
    with pytest.raises(NeuronError, match="hold NaN"):
        select_general(CULTURE, contrast=replace(PLAIN[0], arrays=holed), **CUT)


def test_the_command(tmp_path):
    names = {"culture": CULTURE, "control": CONTROL, "one": PLAIN[0], "two": PLAIN[1]}
    path = {name: some.save(tmp_path / f"{name}.safetensors") for name, some in names.items()}
    given = [
        "--scores",
        path["culture"],
        "--control",
        path["control"],
        "--contrast",
        f"{path['one']},{path['two']}",
    ]
    given += ["--contrast-way", "subtract", "--top-mlp", 0.1, "--output", tmp_path / "set.parquet"]
    invoked("select", "general", *given)
    expected = select_general(CULTURE, CONTROL, contrast=PLAIN, contrast_way="subtract", top_mlp=0.1)
    assert NeuronSet.load(tmp_path / "set.parquet").keys() == expected.keys()
