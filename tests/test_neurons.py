"""Sets of neurons: rows, algebra, files."""

from __future__ import annotations

import csv
import io
import json

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from culnig_tl.analyses.paper import CANDIDATES
from culnig_tl.data.neurons import NeuronSet, Provenance, Site
from culnig_tl.defaults import PAPER_MODELS, TOP_ATTN, TOP_MLP
from culnig_tl.errors import FileError, NeuronError

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
    with pytest.raises(FileError, match=rf"{name}.*{message}"):
        NeuronSet.load(tmp_path / name)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileError, match="no such file of neurons: .*no.csv"):
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


KNOWN = Provenance(kind="culture-general", model="a, b", thresholds={"top_mlp": 0.01}, pool={"mlp.gate": 8})


def known_set() -> NeuronSet:
    rows = [("mlp.gate", 0, 3, 0.125), ("attn.v", 1, 2, 1e-05)]
    return NeuronSet(pd.DataFrame(rows, columns=["site", "layer", "neuron", "score"]), KNOWN)


def same(found: NeuronSet) -> bool:
    return found.table.equals(known_set().table) and found.provenance == KNOWN


@pytest.mark.parametrize("separator", [",", ";"])
def test_a_csv_that_excel_saved(tmp_path, separator):
    """Excel cuts the first line at its commas, or leaves it whole where semicolons separate; it quotes cells
    with quotes, fills up the line, and puts a byte order mark in front."""
    lines = known_set().save(tmp_path / "n.csv").read_text(encoding="utf-8").splitlines()
    cells = [line.split(",") for line in lines]
    if separator == ";":
        cells[0] = [lines[0]]
        cells[1:] = [
            [cell.replace(".", ",") if cell[:1].isdigit() else cell for cell in c] for c in cells[1:]
        ]
    out = io.StringIO()
    writer = csv.writer(out, delimiter=separator)
    writer.writerows([line + [""] * (max(map(len, cells)) - len(line)) for line in cells])
    (tmp_path / "n.csv").write_bytes(b"\xef\xbb\xbf" + out.getvalue().encode())
    assert same(NeuronSet.load(tmp_path / "n.csv"))


def test_an_excel_file_of_neurons(tmp_path):
    lines = known_set().save(tmp_path / "n.csv").read_text(encoding="utf-8").splitlines()
    known_set().table.to_excel(tmp_path / "plain.xlsx", index=False)
    assert NeuronSet.load(tmp_path / "plain.xlsx").table.equals(known_set().table)
    cells = pd.DataFrame([line.split(",") for line in lines])
    cells.to_excel(tmp_path / "n.xlsx", index=False, header=False)
    assert same(NeuronSet.load(tmp_path / "n.xlsx"))


def test_a_saved_csv_is_read_whatever_its_provenance_says(tmp_path):
    known = Provenance(kind='a,", "b', model='x,"y";z\n')
    found = NeuronSet.load(NeuronSet(known_set().table, known).save(tmp_path / "n.csv"))
    assert found.provenance == known and found.table.equals(known_set().table)


LAPE = [
    [torch.tensor([1, 5]), torch.tensor([], dtype=torch.long), torch.tensor([0])],
    [torch.tensor([2]), torch.tensor([3, 4]), torch.tensor([0])],
]


def test_language_neurons_of_lape(tmp_path):
    torch.save(LAPE, tmp_path / "lape.pth")
    found = NeuronSet.load(tmp_path / "lape.pth")
    assert found.countries == ("language 0", "language 1") and found.provenance.layers == 3
    assert found.for_country("language 1").keys() == {
        ("mlp.gate", 0, 2), ("mlp.gate", 1, 3), ("mlp.gate", 1, 4), ("mlp.gate", 2, 0),
    }  # fmt: skip
    named = NeuronSet.from_lape(tmp_path / "lape.pth", ["en", "vi"])
    assert named.for_country("vi").keys() == found.for_country("language 1").keys()
    torch.save({"en": LAPE[0], "vi": LAPE[1]}, tmp_path / "named.pth")
    assert NeuronSet.load(tmp_path / "named.pth").countries == ("en", "vi")


@pytest.mark.parametrize(
    "content, message",
    [
        ([Provenance()], "not read, because it must hold lists of tensors alone"),
        (torch.zeros(3), "no list of layers by language"),
        ([[torch.zeros(2, 2)]], "layer 0 of language 0 is no list of indices"),
        ([[torch.tensor([0.5])]], "is not an index"),
        ([["x"]], "layer 0 of language 0 is no list"),
    ],
)
def test_other_pth_files_are_refused_in_one_line(tmp_path, content, message):
    """Among them a file that would run code: nothing but tensors is read."""
    torch.save(content, tmp_path / "n.pth")
    with pytest.raises(NeuronError, match=message) as error:
        NeuronSet.load(tmp_path / "n.pth")
    assert str(error.value).count(str(tmp_path)) == 1 and "\n" not in str(error.value)


# ------------------------------------------------------------------------------------------ the authors' JSON

FOUND = Provenance(model="m", tasks={"blend": "print"}, clusters=2, rows=10)
"""Two of BLEnD's questions in ten rows: the authors divide by the rows."""


def scored(score: float, provenance: Provenance = FOUND) -> NeuronSet:
    table = pd.DataFrame({"site": ["mlp.gate"], "layer": [3], "neuron": [4], "score": [score]})
    return NeuronSet(table, provenance)


def test_the_authors_json_holds_the_authors_scale(tmp_path):
    said = json.loads(scored(5.0).save(tmp_path / "set.json").read_text())
    assert said["top_neurons"][0]["attribute_score"] == pytest.approx(1.0)


def test_and_comes_back_on_this_packages(tmp_path):
    back = NeuronSet.load(scored(5.0).save(tmp_path / "set.json"))
    assert back.table["score"].tolist() == pytest.approx([5.0]) and back.provenance == FOUND


def test_no_task_is_listed_without_its_ids(tmp_path):
    """An empty list would make the authors' evaluation count every row as one not used."""
    assert json.loads(scored(5.0).save(tmp_path / "set.json").read_text())["dataset_ids"] == {}


def of_authors(tmp_path, **more) -> NeuronSet:
    row = {"module_name": "mlp.gate_proj", "layer_idx": 3, "neuron_idx": 4, "attribute_score": 0.5}
    (tmp_path / "theirs.json").write_text(json.dumps({"top_neurons": [row], **more}))
    return NeuronSet.load(tmp_path / "theirs.json")


def test_ids_of_an_authors_file_say_how_many_questions_there_were(tmp_path):
    ids = [f"Al-en-0{question}_{row}" for question in (1, 2) for row in range(5)]
    neurons = of_authors(tmp_path, dataset_ids={"blend": ids, "countryrc": ["crc-1"]})
    assert (neurons.provenance.rows, neurons.provenance.clusters) == (10, 2)
    assert neurons.table["score"].tolist() == pytest.approx([0.5 * 10 / 2])


def test_an_authors_file_says_what_its_neurons_were_found_on(tmp_path):
    known = of_authors(tmp_path, dataset_ids={"blend": ["1"], "countryrc": ["crc-1"]}).provenance
    assert known.found_on("blend") and not known.found_on("culturalbench")
    assert of_authors(tmp_path, dataset_ids={}).provenance.found_on("culturalbench")  # it may have been


def test_an_authors_file_without_ids_keeps_its_scores(tmp_path):
    assert of_authors(tmp_path, dataset_ids={}).table["score"].tolist() == pytest.approx([0.5])


def test_an_authors_file_knows_the_papers_models(tmp_path):
    known = of_authors(tmp_path, model_name="models/gemma-3-12b-it").provenance
    assert known.layers == 48 and known.pool["attn.q"] == 4096
    assert of_authors(tmp_path, model_name="mine").provenance.layers is None


@pytest.mark.parametrize("name, shape", PAPER_MODELS.items())
def test_the_shapes_of_the_papers_models_give_its_numbers_of_candidates(name, shape):
    layers, gate, q, kv = shape
    candidates = int(layers * gate * TOP_MLP) + int(layers * (q + 2 * kv) * TOP_ATTN)
    assert candidates == CANDIDATES[name]
