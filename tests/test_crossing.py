"""Country x country drops, ranks, and relations between countries."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest

from culnig_tl import EvaluationResult, NeuronSet, evaluate
from culnig_tl.analyses.crossing import CountryDrops, country_drops
from culnig_tl.analyses.relations import SOURCES, relation_groups
from culnig_tl.errors import NeuronError, ScoreError, TaskError
from culnig_tl.method.score import score_neurons
from culnig_tl.method.selection import select_general, select_specific
from culnig_tl.tasks.countries import COUNTRIES

from .cultures import culture_task, plain_task


@pytest.fixture(scope="module")
def setup(loaded):
    model, task = loaded("llama"), culture_task()
    scores = score_neurons(model, task.neuron_split(), progress=False)
    return model, task.test_split(), scores


def test_the_matrix_is_the_accuracies_subtracted(setup):
    model, task, scores = setup
    specific = select_specific(scores, None, None, top=0.2, z=0)
    found = country_drops(model, task, specific, progress=False)
    assert list(found.drops.columns) == list(task.countries)
    assert set(found.drops.index) == set(specific.countries) >= {"USA", "UK"}
    base = evaluate(model, task, progress=False).accuracy("country")["accuracy"]
    uk = evaluate(model, task, neurons=specific.for_country("UK"), progress=False).accuracy("country")[
        "accuracy"
    ]
    np.testing.assert_allclose(found.drops.loc["UK"], (base - uk)[list(task.countries)])
    assert len(found.figure().data) >= 1


def made(drops) -> CountryDrops:
    frame = pd.DataFrame(drops, index=["Spain", "Mexico"], columns=["Spain", "Mexico", "Iran"])
    sets = dict.fromkeys(frame.index, NeuronSet.from_indices([("mlp.gate", 0, 0)]))
    return CountryDrops(
        frame, pd.Series([90.0, 80, 70], index=frame.columns), sets, "t", EvaluationResult(pd.DataFrame()), {}
    )


def test_ranks_and_mean_rank():
    found = made([[5.0, 9, 1], [0, 7, 0]])
    assert found.ranks().to_numpy().tolist() == [[2, 1, 3], [2.5, 1, 2.5]]
    assert found.mean_rank == 1.5
    assert found.summary().loc["Spain"].tolist() == [1, 5, 5, 2]
    assert "mean rank 1.50 (chance 2)" in str(found)


def test_own_related_and_unrelated_countries_with_intervals_over_countries(tmp_path):
    names = ["Spain", "Mexico", "Iran", "China"]
    drops = pd.DataFrame(
        [[9.0, 5, 1, 3], [3, 7, 0, 1], [2, 2, 8, 2], [1, 2, 3, 6]], index=names, columns=names
    )
    sets = dict.fromkeys(names, NeuronSet.from_indices([("mlp.gate", 0, 0)]))
    found = CountryDrops(drops, drops.loc["Spain"], sets, "t", EvaluationResult(pd.DataFrame()), {})
    table = tmp_path / "own.csv"
    table.write_text("country,language\nSpain,Spanish\nMexico,Spanish\nIran,Persian\n")
    rows = found.by_relation("language", table=table)
    own, related, unrelated = np.array([9.0, 7, 8, 6]), np.array([5.0, 3]), np.array([2.0, 0.5, 2, 2])
    assert rows["mean"].tolist() == [
        own.mean(),
        related.mean(),
        unrelated.mean(),
        own.mean() / unrelated.mean(),
    ]
    drawn = np.array(list(itertools.product(range(4), repeat=4)))  # every resample of four countries
    for row, values in (
        ("own", own[drawn].mean(1)),
        ("own / unrelated", own[drawn].mean(1) / unrelated[drawn].mean(1)),
    ):
        np.testing.assert_allclose(
            rows.loc[row, ["low", "high"]], np.quantile(values, [0.025, 0.975]), atol=0.35
        )
    assert rows.loc["related", ["low", "high"]].tolist() == [3, 5]
    table.write_text("country,language\nSpain,a\nMexico,b\nIran,c\nChina,d\n")
    with pytest.raises(ScoreError, match="no pair"):
        found.by_relation("language", table=table)


def test_related_countries_by_a_table_of_ones_own(tmp_path):
    table = tmp_path / "own.csv"
    table.write_text("country,language\nSpain,Spanish\nMexico,Spanish\nIran,Persian\n")
    found = made([[5.0, 9, 1], [8, 7, 0]]).related("language", table=table)
    assert (found.related, found.unrelated, found.pairs) == (8.5, 0.5, 2)
    with pytest.raises(TaskError, match="no columns 'country' and 'religion'"):
        relation_groups("religion", table)
    with pytest.raises(TaskError, match="cannot be read"):
        relation_groups("language", tmp_path / "nowhere.csv")


def test_the_packages_relations_cover_blend_and_name_their_source():
    for relation in SOURCES:
        groups = relation_groups(relation)
        assert set(groups) <= set(COUNTRIES) and len(groups) >= 15 and SOURCES[relation]
        assert any(list(groups.values()).count(group) > 1 for group in groups.values())
    assert relation_groups("family")["South Korea"] == relation_groups("family")["North Korea"]
    assert "North Korea" not in relation_groups("values")
    with pytest.raises(TaskError, match="unknown relation"):
        relation_groups("religion")


def test_bad_input_is_a_clear_error(setup, caplog):
    model, task, scores = setup
    specific = select_specific(scores, None, None, top=0.2, z=0)
    with pytest.raises(ScoreError, match="asks about no country"):
        country_drops(model, plain_task(), specific)
    with pytest.raises(NeuronError, match="has no countries"):
        country_drops(model, task, select_general(scores, None, None))
    with pytest.raises(NeuronError, match="no country has neurons"):
        country_drops(model, task, select_specific(scores, None, None, top=0))
    with pytest.raises(NeuronError, match="Atlantis"):
        country_drops(model, task, specific, countries=["Atlantis"])
