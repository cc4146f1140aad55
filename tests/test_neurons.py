"""Sets of neurons: rows, algebra, files."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from culnig_tl.data.neurons import NeuronSet, Provenance, Site
from culnig_tl.errors import NeuronError

ROWS = st.sets(
    st.tuples(st.sampled_from([s.value for s in Site]), st.integers(0, 3), st.integers(0, 5)), max_size=30
)


@settings(deadline=None)
@given(ROWS, ROWS)
def test_algebra_is_that_of_sets(first, second):
    a, b = NeuronSet.from_indices(first), NeuronSet.from_indices(second)
    assert (
        (a | b).keys() == first | second
        and (a & b).keys() == first & second
        and (a - b).keys() == first - second
    )
    assert a.jaccard(b) == (len(first & second) / len(first | second) if first | second else 1)
    assert (a == b) == (first == second) and (a.hash == b.hash) == (first == second)
    assert {(s.value, layer, int(i)) for (s, layer), index in a.indices.items() for i in index} == first


@settings(deadline=None)
@given(st.permutations([("attn.v", 0, 1), ("mlp.gate", 1, 0), ("mlp.gate", 0, 7), ("attn.q", 0, 2)]))
def test_rows_are_in_the_order_site_layer_neuron(rows):
    table = NeuronSet.from_indices(rows).table
    assert list(zip(table["site"], table["layer"], table["neuron"])) == [
        ("mlp.gate", 0, 7), ("mlp.gate", 1, 0), ("attn.q", 0, 2), ("attn.v", 0, 1),
    ]  # fmt: skip


FULL = Provenance(
    kind="culture-general", model="m", revision="r", tasks={"blend": "f"}, thresholds={"top_mlp": 0.01},
    paper_defaults=True, pool={"mlp.gate": 8}, layers=2, candidates=5, removed_by_reading=2, version="1",
)  # fmt: skip


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_files_keep_rows_and_provenance(suffix, tmp_path):
    table = pd.DataFrame(
        {
            "country": ["Iran", "Spain"],
            "site": "mlp.gate",
            "layer": [0, 1],
            "neuron": [3, 3],
            "score": [0.25, np.nan],
        }
    )
    specific = Provenance(
        by_country={"Iran": {"candidates": 3, "removed_by_reading": 1, "removed_by_z": 1}}, shared_pattern=0.5
    )
    for neurons in (
        NeuronSet.from_indices([("mlp.gate", 0, 1), ("attn.k", 1, 2)], FULL),
        NeuronSet(table, specific),
    ):
        back = NeuronSet.load(neurons.save(tmp_path / f"set{suffix}"))
        pd.testing.assert_frame_equal(back.table, neurons.table)
        assert back.provenance == neurons.provenance


def test_one_countrys_neurons_keep_its_counts():
    table = pd.DataFrame({"country": ["Iran", "Spain"], "site": "mlp.gate", "layer": [0, 1], "neuron": 3})
    iran = NeuronSet(table, Provenance(by_country={"Iran": {"candidates": 3}})).for_country("Iran")
    assert iran.keys() == {("mlp.gate", 0, 3)} and iran.provenance.candidates == 3


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".json"])
def test_an_empty_set_is_saved_and_read(suffix, tmp_path):
    empty = NeuronSet.from_indices([], FULL)
    assert len(NeuronSet.load(empty.save(tmp_path / f"set{suffix}"))) == 0 and "empty" in str(empty)


@pytest.mark.parametrize(
    "rows, message",
    [
        ([("mlp.gate", -1, 0)], "is not an index"),
        ([("mlp.gate", 0, 1.5)], "is not an index"),
        ([("mlp.gate", "x", 0)], "is not an index"),
        ([("mlp", 0, 0)], "unknown site 'mlp'"),
        ([("mlp.gate", 0, 0)] * 2, "occurs twice"),
    ],
)
def test_bad_rows_are_named(rows, message):
    with pytest.raises(NeuronError, match=message):
        NeuronSet(pd.DataFrame(rows, columns=["site", "layer", "neuron"]))


def test_a_missing_column_is_named():
    with pytest.raises(NeuronError, match="missing: neuron"):
        NeuronSet(pd.DataFrame({"site": [], "layer": []}))


OUTPUT = json.dumps({"top_neurons": [{"module_name": "o_proj", "layer_idx": 0, "neuron_idx": 0}]})
SOURCED = "# culnig_tl " + json.dumps({"candidates": "many"}) + "\nsite,layer,neuron\n"


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("a.json", "[]", "not a file of neurons"),
        ("b.json", OUTPUT, "o_proj"),
        ("c.csv", "a,b\n1,2\n", "missing"),
        ("d.parquet", "no", "not a file of neurons"),
        ("e.txt", "", "are read from"),
        ("f.csv", SOURCED, "not a file of neurons"),
    ],
)
def test_bad_files_are_named(name, content, message, tmp_path):
    (tmp_path / name).write_text(content)
    with pytest.raises(NeuronError, match=rf"{name}.*{message}"):
        NeuronSet.load(tmp_path / name)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(NeuronError, match="no such file of neurons: .*no.csv"):
        NeuronSet.load(tmp_path / "no.csv")


def test_the_authors_json_has_no_mlp_post(tmp_path):
    with pytest.raises(NeuronError, match="mlp.post"):
        NeuronSet.from_indices([("mlp.post", 0, 0)]).save(tmp_path / "set.json")


def test_a_set_without_countries_has_none_to_give():
    with pytest.raises(NeuronError, match="no countries"):
        NeuronSet.from_indices([("mlp.gate", 0, 0)]).for_country("Iran")


def test_sets_made_of_sets_keep_the_model_they_belong_to():
    whole = NeuronSet.from_indices(
        [("mlp.gate", 0, 1), ("attn.q", 1, 2)],
        Provenance(kind="x", model="m", pool={"mlp.gate": 8, "attn.q": 4}, layers=2),
    )
    part = NeuronSet.from_indices([("mlp.gate", 0, 1)])
    for made in (whole - part, whole & part, whole | part):
        assert (made.provenance.model, made.provenance.layers, made.provenance.pool["attn.q"]) == ("m", 2, 4)
