"""`NeuronScores`: shapes, files, tables."""

from __future__ import annotations

import numpy as np
import pytest

from culnig_tl import NeuronScores, Site
from culnig_tl.errors import FileError, ScoreError


@pytest.fixture
def scores():
    rng = np.random.default_rng(0)
    shapes = {Site.MLP_GATE: 7, Site.ATTN_K: 3}
    return NeuronScores(
        arrays={site: rng.normal(size=(2, 4, width)).astype(np.float32) for site, width in shapes.items()},
        countries=("Japan", "Côte d'Ivoire"),
        questions=(5, 3),
        p_answer=(2.5, 0.6),
        clusters=6,
        country_clusters=(4, 3),
        metadata={
            "model": "a-model",
            "task": "blend",
            "method": "culnig",
            "batch_sizes": [4, 4],
            "accuracy": 0.375,
            "native_attention": True,
        },
        replicates={
            site: rng.normal(size=(3, 2, 4, width)).astype(np.float32) for site, width in shapes.items()
        },
        replicate_clusters=((6, 4, 3), (5, 3, 2), (9, 8, 4)),
    )


def same(a: NeuronScores, b: NeuronScores) -> bool:
    arrays = [(a.arrays, b.arrays), (a.replicates, b.replicates)]
    rest = [
        "countries",
        "questions",
        "p_answer",
        "clusters",
        "country_clusters",
        "metadata",
        "replicate_clusters",
    ]
    return all(list(x) == list(y) and all(np.array_equal(x[s], y[s]) for s in x) for x, y in arrays) and all(
        getattr(a, name) == getattr(b, name) for name in rest
    )


def test_what_is_saved_is_read(scores, tmp_path):
    assert same(NeuronScores.load(scores.save(tmp_path / "scores.safetensors")), scores)


def test_the_same_scores_are_the_same_bytes(scores, tmp_path):
    first, again = (scores.save(tmp_path / f"{name}.safetensors").read_bytes() for name in "ab")
    assert first == again


def test_a_replicate_is_scores_of_its_own(scores, tmp_path):
    plain = scores.replicate(1)
    assert plain.clusters == 5 and plain.country_clusters == (3, 2) and plain.metadata["replicate"] == 1
    assert np.array_equal(plain.arrays[Site.ATTN_K], scores.replicates[Site.ATTN_K][1])
    assert same(NeuronScores.load(plain.save(tmp_path / "scores.safetensors")), plain)


def test_a_replicate_that_was_not_kept_is_an_error(scores):
    with pytest.raises(ScoreError, match="no replicate 3: 3 were kept"):
        scores.replicate(3)


def test_it_knows_its_task_and_method(scores):
    assert (scores.task, scores.method) == ("blend", "culnig")


def test_a_file_takes_four_bytes_per_neuron_and_country(tmp_path):
    big = NeuronScores(
        {Site.MLP_GATE: np.ones((4, 8, 5000), np.float32)}, tuple("abcd"), (1,) * 4, (0.5,) * 4, 1, (1,) * 4
    )
    size = big.save(tmp_path / "big.safetensors").stat().st_size
    assert 4 * 4 * 8 * 5000 < size < 4 * 4 * 8 * 5000 + 2000


@pytest.mark.parametrize("spoil", ["missing", "text", "cut", "foreign"])
def test_a_bad_file_is_named(spoil, scores, tmp_path):
    path = tmp_path / "scores.safetensors"
    if spoil == "text":
        path.write_text("not safetensors")
    elif spoil == "cut":
        path.write_bytes(scores.save(path).read_bytes()[:-40])
    elif spoil == "foreign":
        from safetensors.numpy import save_file

        save_file({"weight": np.ones(3, np.float32)}, path)
    with pytest.raises(FileError, match="scores.safetensors"):
        NeuronScores.load(path)


def test_the_top_neurons(scores):
    top = scores.top(5)
    assert list(top.columns) == ["site", "layer", "neuron", "score"] and len(top) == 5
    best = max((float(v), site, i) for site in scores.sites for i, v in np.ndenumerate(scores.total(site)))
    first = top.iloc[0]
    assert (first["score"], first["site"], (first["layer"], first["neuron"])) == (
        pytest.approx(best[0]),
        best[1].value,
        best[2],
    )
    assert top["score"].is_monotonic_decreasing


def test_scores_as_a_table(scores):
    frame = scores.to_dataframe()
    assert len(frame) == 4 * (7 + 3) and len(scores.to_dataframe("attn.k")) == 4 * 3
    row = frame[(frame["site"] == "attn.k") & (frame["layer"] == 2) & (frame["neuron"] == 1)]
    assert row["Japan"].item() == scores.arrays[Site.ATTN_K][0, 2, 1]
    assert row["Côte d'Ivoire"].item() == scores.arrays[Site.ATTN_K][1, 2, 1]


@pytest.mark.parametrize(
    "part",
    [
        "a-model",
        "blend",
        "8 questions in 6 clusters",
        "2 countries (Japan, Côte d'Ivoire)",
        "37.5% answered right",
        "mean P(answer) 0.388",
        "mlp.gate 4 x 7",
    ],
)
def test_it_prints_what_it_holds(scores, part):
    assert part in str(scores)


def test_names_are_escaped_in_a_notebook(scores):
    page = scores._repr_html_()
    assert "Côte d" in page and "<script" not in page and "0.5" in page


def test_one_country(scores):
    assert np.array_equal(scores.of("Japan")[Site.ATTN_K], scores.arrays[Site.ATTN_K][0])


def test_a_country_that_was_not_scored_is_an_error(scores):
    with pytest.raises(
        ScoreError, match="no scores of 'Atlantis' in blend: countries are Japan, Côte d'Ivoire"
    ):
        scores.of("Atlantis")


def test_shapes_must_fit():
    with pytest.raises(ScoreError, match="have shape"):
        NeuronScores({Site.MLP_GATE: np.ones((2, 3, 4), np.float32)}, ("a",), (1,), (1.0,), 1, (1,))


def test_sites_must_have_the_same_layers():
    with pytest.raises(ScoreError, match="same number of layers"):
        arrays = {Site.MLP_GATE: np.ones((1, 3, 4), np.float32), Site.ATTN_Q: np.ones((1, 2, 4), np.float32)}
        NeuronScores(arrays, ("a",), (1,), (1.0,), 1, (1,))
