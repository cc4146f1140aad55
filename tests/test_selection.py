"""Selection against the formulas in plain Python, the paper's counts, ties, and what must not matter."""

from __future__ import annotations

import json
import statistics

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from culnig_tl.analyses.paper import CANDIDATES
from culnig_tl.data.neurons import NeuronSet, Site
from culnig_tl.data.pools import share_count
from culnig_tl.data.scores import NeuronScores
from culnig_tl.defaults import TOP_ATTN, TOP_MLP
from culnig_tl.errors import NeuronError
from culnig_tl.method.selection import (
    layers_where_control_is_higher,
    select_general,
    select_random,
    select_rival,
    select_specific,
)
from culnig_tl.method.specificity import diagnose, residual_scores, shared_pattern
from culnig_tl.tasks.countries import COUNTRIES

from .builders import CONTROL, CULTURE, READING, WIDTHS, scores

GENERAL = {"top_mlp": 0.1, "top_attn": 0.05, "drop_reading": 0.1}


def flat(s: NeuronScores, country: str | None = None) -> dict[tuple[str, int, int], float]:
    """(site, layer, neuron) -> score, one country's or all countries' together, in the order that decides
    ties."""
    out = {}
    for site in Site:
        if site not in s.arrays:
            continue
        for layer in range(s.layers):
            for neuron in range(s.widths[site]):
                column = s.arrays[site][:, layer, neuron].tolist()
                out[site.value, layer, neuron] = (
                    sum(column) if country is None else column[s.countries.index(country)]
                )
    return out


def best(values: dict, share: float) -> list:
    return sorted(values, key=lambda key: values[key], reverse=True)[
        : int(len(values) * share)
    ]  # sorted() is stable


def literal_general(culture, control, reading, *, top_mlp, top_attn, drop_reading) -> set:
    """The method's formula for culture-general neurons, word for word."""
    a, b, c = flat(culture), flat(control), flat(reading)
    difference = {key: a[key] / culture.clusters - b[key] / control.clusters for key in a}
    chosen: set = set()
    for pool, share in (("mlp", top_mlp), ("attn", top_attn)):
        inside = [key for key in a if key[0].startswith(pool)]
        highest = best({k: c[k] for k in inside}, drop_reading)
        chosen |= set(best({k: difference[k] for k in inside}, share)) - set(highest)
    return chosen


def literal_specific(culture, control, reading, country, *, top, drop_reading, z) -> set:
    def d(name):
        a, b = flat(culture, name), flat(control, name)
        return {key: a[key] / culture.clusters - b[key] / control.clusters for key in a}

    every = {name: d(name) for name in culture.countries}
    kept = []
    for key in best(every[country], top):
        row = [every[name][key] for name in every]
        spread = statistics.pstdev(row)
        if (
            key not in best(flat(reading, country), drop_reading)
            and (0 if spread == 0 else (every[country][key] - statistics.mean(row)) / spread) >= z
        ):
            kept.append(key)
    return set(kept)


def test_general_is_the_formula():
    mine = select_general(CULTURE, CONTROL, READING, **GENERAL)
    assert mine.keys() == literal_general(CULTURE, CONTROL, READING, **GENERAL)
    known = mine.provenance
    assert known.candidates == 16 + 8 and known.removed_by_reading == 24 - len(mine)
    assert known.removed_by_reading > 0 and not known.paper_defaults
    assert f"of 24 candidates CountryRC removed {known.removed_by_reading}" in str(mine)
    no_filter = select_general(CULTURE, CONTROL, None, **GENERAL)
    assert len(no_filter) == 24 and mine.keys() < no_filter.keys()


@pytest.mark.parametrize("country", ["Iran", "USA"])
def test_specific_is_the_formula(country):
    mine = select_specific(CULTURE, CONTROL, READING, top=0.2, drop_reading=0.2, z=1.4)
    assert set(mine.countries) == {
        "China",
        "Indonesia",
        "Iran",
        "Mexico",
        "South Korea",
        "Spain",
        "UK",
        "USA",
    }
    own = mine.for_country(country)
    assert own.keys() == literal_specific(
        CULTURE, CONTROL, READING, country, top=0.2, drop_reading=0.2, z=1.4
    )
    known = own.provenance
    assert known.candidates == 64
    assert known.removed_by_reading > 0 and known.removed_by_z > 0
    assert len(own) == known.candidates - known.removed_by_reading - known.removed_by_z


@pytest.mark.parametrize(
    ("model", "layers", "mlp", "q", "kv"),
    [
        ("google/gemma-3-12b-it", 48, 15360, 16 * 256, 8 * 256),
        ("Qwen/Qwen3-14B", 40, 17408, 40 * 128, 8 * 128),
        ("meta-llama/Llama-3.1-8B-Instruct", 32, 14336, 32 * 128, 8 * 128),
        ("tiiuae/Falcon3-10B-Instruct", 40, 23040, 12 * 256, 4 * 256),
        ("google/gemma-3-27b-it", 62, 21504, 32 * 128, 16 * 128),
        ("microsoft/phi-4", 40, 17920, 40 * 128, 10 * 128),
    ],
)
def test_the_papers_counts_follow_from_the_shapes(model, layers, mlp, q, kv):
    candidates = share_count(layers * mlp, TOP_MLP) + share_count(layers * (q + 2 * kv), TOP_ATTN)
    assert candidates == CANDIDATES[model]


def test_candidates_of_real_scores_are_what_the_shapes_say():
    widths = {Site.MLP_GATE: 701, Site.ATTN_Q: 333, Site.ATTN_K: 111, Site.ATTN_V: 111}
    culture, other = (
        scores(0, widths=widths, countries=COUNTRIES[:2]),
        scores(1, widths=widths, countries=COUNTRIES[:2]),
    )
    chosen = select_general(culture, other, other)
    assert chosen.provenance.candidates == 28 + 4
    assert chosen.provenance.paper_defaults


def test_ties_go_to_the_lower_site_layer_index():
    even = scores(0, values=1.0)
    chosen = select_general(even, None, None, top_mlp=0.3, top_attn=0.5, drop_reading=0)
    expected = {("mlp.gate", i // 40, i % 40) for i in range(48)} | {
        ("attn.q", i // 20, i % 20) for i in range(80)
    }
    assert chosen.keys() == expected
    own = select_specific(even, None, None, countries=["Iran"], top=0.01, drop_reading=0, z=0)
    assert own.keys() == {("mlp.gate", 0, 0), ("mlp.gate", 0, 1), ("mlp.gate", 0, 2)}
    assert not len(select_specific(even, None, None, countries=["Iran"], top=0.01, drop_reading=0, z=0.5)), (
        "nobody's own where all are alike"
    )


def permuted(s: NeuronScores, order: list[int]) -> NeuronScores:
    return NeuronScores(
        {site: array[order] for site, array in s.arrays.items()},
        tuple(s.countries[i] for i in order),
        tuple(s.questions[i] for i in order),
        s.p_answer,
        s.clusters,
        tuple(s.country_clusters[i] for i in order),
        s.metadata,
    )


@settings(max_examples=20, deadline=None)
@given(order=st.permutations(range(16)), top=st.floats(0, 0.3), drop_reading=st.floats(0, 0.3))
def test_the_order_of_countries_does_not_matter(order, top, drop_reading):
    shuffled = [permuted(s, order) for s in (CULTURE, CONTROL, READING)]
    cut = {"top": top, "drop_reading": drop_reading, "z": 0.7}
    assert select_specific(*shuffled, **cut) == select_specific(CULTURE, CONTROL, READING, **cut)
    general = {"top_mlp": top, "top_attn": top / 5, "drop_reading": drop_reading}
    assert select_general(*shuffled, **general) == select_general(CULTURE, CONTROL, READING, **general)


def test_sites_are_the_papers_unless_others_are_asked_for():
    widths = {Site.MLP_GATE: 40, Site.MLP_UP: 40, Site.ATTN_Q: 20}
    with_up = scores(0, widths=widths)
    chosen = select_general(with_up, None, None, top_mlp=0.5, top_attn=0.5)
    assert set(chosen.table["site"]) == {"mlp.gate", "attn.q"} and set(chosen.provenance.pool) == {
        "mlp.gate",
        "attn.q",
    }
    asked = select_general(with_up, None, None, top_mlp=0.5, sites=["mlp.up"])
    assert set(asked.table["site"]) == {"mlp.up"} and len(asked) == 80 and not asked.provenance.paper_defaults
    with pytest.raises(NeuronError, match="no scores of attn.v"):
        select_general(with_up, None, None, sites=["attn.v"])
    with pytest.raises(NeuronError, match="unknown site"):
        select_general(with_up, None, None, sites=["mlp.sideways"])


def test_random_sets_match_by_count_or_by_layer():
    general = select_general(CULTURE, CONTROL, READING, **GENERAL)
    by_layer = [select_random(general, CULTURE, seed=seed, match="layer") for seed in range(20)]
    for drawn in by_layer:
        assert drawn.counts(["site", "layer"]).equals(general.counts(["site", "layer"]))
    by_count = [select_random(general, CULTURE, seed=seed) for seed in range(100)]
    assert {len(drawn) for drawn in by_count} == {len(general)}
    share = np.mean([(drawn.table["site"] == "mlp.gate").mean() for drawn in by_count])
    assert abs(share - 0.5) < 0.04, "drawn from one pool of all sites, of which half is mlp.gate"
    assert len({drawn.hash for drawn in by_count}) == 100
    assert select_random(general, CULTURE, seed=3) == by_count[3]


def test_the_rival_is_the_best_on_another_task_layer_by_layer():
    general, commonsense = (
        select_general(CULTURE, CONTROL, READING, **GENERAL),
        scores(5, task="commonsense", countries=("-",)),
    )
    rival = select_rival(general, commonsense)
    assert rival.counts(["site", "layer"]).equals(general.counts(["site", "layer"]))
    for (site, layer), index in rival.indices.items():
        values = commonsense.arrays[site][0, layer]
        assert set(index) == set(np.argsort(-values)[: len(index)])


# ------------------------------------------------------------------------------------------------ specificity


def one_pattern(noise: float) -> NeuronScores:
    s = scores(3)
    rng = np.random.default_rng(9)
    weights = rng.uniform(0.5, 2, size=16)
    arrays = {}
    for site, array in s.arrays.items():
        common = rng.normal(size=array.shape[1:])
        arrays[site] = (weights[:, None, None] * common + noise * array).astype(np.float32)
    return NeuronScores(
        arrays, s.countries, s.questions, s.p_answer, s.clusters, s.country_clusters, s.metadata
    )


def test_rank_one_share_is_that_of_the_singular_values():
    for normalise in ("paper", "country"):
        divide = np.array(CULTURE.country_clusters if normalise == "country" else [CULTURE.clusters] * 16)[
            :, None
        ]
        matrix = np.concatenate([a.reshape(16, -1) for a in CULTURE.arrays.values()], axis=1) / divide
        singular = np.linalg.svd(matrix, compute_uv=False) ** 2
        pattern = shared_pattern(CULTURE, normalise=normalise)
        assert pattern.share == pytest.approx(singular[0] / singular.sum(), rel=1e-5)
    assert shared_pattern(one_pattern(0.0)).share == pytest.approx(1, abs=1e-6)


def test_a_warning_where_one_pattern_is_nearly_all(caplog):
    select_specific(CULTURE, CONTROL, READING)
    assert not caplog.records
    chosen = select_specific(one_pattern(0.05), None, None)
    assert "one pattern shared by all countries explains" in caplog.text
    assert chosen.provenance.shared_pattern > 0.9
    caplog.clear()
    table = diagnose(one_pattern(0.05))
    assert (
        list(table.index) == ["paper", "country"]
        and (table["rank1_share"] > 0.9).all()
        and len(caplog.records) == 2
    )


def test_residuals_have_no_shared_pattern_left():
    mixed = one_pattern(0.3)
    left = residual_scores(mixed)
    matrix = np.stack(
        [np.concatenate([left[c][site].ravel() for site in mixed.arrays]) for c in mixed.countries]
    )
    whole = np.concatenate([a.reshape(16, -1) for a in mixed.arrays.values()], axis=1) / mixed.clusters
    u, s, v = np.linalg.svd(whole, full_matrices=False)
    np.testing.assert_allclose(matrix, whole - s[0] * np.outer(u[:, 0], v[0]), atol=1e-5)
    plain = select_specific(mixed, None, None, countries=["Iran"], top=0.05, z=0)
    residual = select_specific(mixed, None, None, countries=["Iran"], top=0.05, z=0, residual=True)
    iran = matrix[mixed.countries.index("Iran")]
    names = list(flat(mixed))
    assert residual.keys() == {names[i] for i in np.argsort(-iran)[:16]}
    assert residual != plain and not residual.provenance.paper_defaults


def test_normalise_by_country_takes_counts_out():
    doubled = {site: array.copy() for site, array in CULTURE.arrays.items()}
    for array in doubled.values():
        array[0] *= 2  # twice the questions, twice the sum
    counts = (2 * CULTURE.country_clusters[0], *CULTURE.country_clusters[1:])
    more = NeuronScores(
        doubled, CULTURE.countries, counts, CULTURE.p_answer, CULTURE.clusters, counts, CULTURE.metadata
    )
    cut = {"top": 0.1, "drop_reading": 0, "z": 1.0, "countries": ["USA", "Spain"]}
    assert select_specific(more, None, None, normalise="country", **cut) == select_specific(
        CULTURE, None, None, normalise="country", **cut
    )
    assert select_specific(more, None, None, **cut) != select_specific(CULTURE, None, None, **cut)


# -------------------------------------------------------------------------------------------------- bad input


def test_bad_input_is_a_clear_error():
    other = scores(1, widths={**WIDTHS, Site.ATTN_Q: 21})
    broken = scores(1)
    broken.arrays[Site.MLP_GATE][0, 0, 0] = np.nan
    empty = NeuronSet.from_indices([])
    cases = [
        (lambda: select_general(CULTURE, other, None), "different models"),
        (lambda: select_general(broken, None, None), "NaN"),
        (lambda: select_general(CULTURE, None, None, top_mlp=1.5), "between 0 and 1"),
        (lambda: select_specific(CULTURE, None, None, countries=["Atlantis"]), "Atlantis"),
        (lambda: select_specific(scores(0, countries=("-",)), None, None), "at least two"),
        (lambda: select_random(empty, CULTURE), "empty"),
        (lambda: select_rival(empty, CULTURE), "empty"),
        (lambda: select_random(NeuronSet.from_indices([("mlp.gate", 99, 0)]), CULTURE), "another model"),
        (
            lambda: select_random(NeuronSet.from_indices([("mlp.post", 0, 0)]), CULTURE, match="layer"),
            "another model",
        ),
    ]
    for call, message in cases:
        with pytest.raises(NeuronError, match=message):
            call()


def test_a_country_that_reading_does_not_ask_about_is_said(caplog):
    reading = scores(2, task="countryrc", countries=("Iran", "Spain"))
    select_specific(CULTURE, CONTROL, reading, countries=["Iran", "Greece"])
    assert "countryrc does not ask about Greece" in caplog.text


def test_the_authors_json_comes_and_goes(tmp_path):
    general = select_general(CULTURE, CONTROL, READING, **GENERAL)
    back = NeuronSet.load(general.save(tmp_path / "all_neurons.json"))
    assert back == general and back.table["score"].to_numpy() == pytest.approx(
        general.table["score"].to_numpy()
    )
    specific = select_specific(CULTURE, CONTROL, READING, top=0.2)
    with pytest.raises(NeuronError, match="one country"):
        specific.save(tmp_path / "all.json")
    iran = specific.for_country("Iran")
    assert NeuronSet.load(iran.save(tmp_path / "Iran.json")) == iran
    row = json.loads((tmp_path / "Iran.json").read_text())["top_neurons"][0]
    assert row.keys() == {"module_name", "layer_idx", "neuron_idx", "attribute_score"}
    theirs = {"model_name": "m", "dataset_ids": {}, "top_neurons": [{**row, "scores": {"Iran": 1.0}}]}
    (tmp_path / "theirs.json").write_text(json.dumps(theirs))
    assert len(NeuronSet.load(tmp_path / "theirs.json")) == 1


def test_a_control_above_its_task_in_most_layers_is_warned_of(caplog):
    task, low, high = (
        scores(i, task=name, values=value)
        for i, (name, value) in enumerate((("culture", 2.0), ("control", 1.0), ("control", 3.0)))
    )
    for array in high.arrays.values():
        array[:, 0] = 0.0  # not in the first layer
    assert layers_where_control_is_higher(task, low) == []
    assert layers_where_control_is_higher(task, high) == [1, 2, 3]
    select_general(task, low, None)
    assert not caplog.records
    select_general(task, high, None)
    assert "scores above the task itself in 3 of 4 layers" in caplog.text
