"""Country x country drops, ranks, and relations between countries."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest

from culnig_tl import EvaluationResult, NeuronSet, evaluate, score_neurons, select_general, select_specific
from culnig_tl.analyses import CountryDrops, country_drops, relation_groups
from culnig_tl.analyses.relations import SOURCES
from culnig_tl.errors import NeuronError, ScoreError, TaskError
from culnig_tl.figures import drop_table
from culnig_tl.tasks.countries import COUNTRIES

from .cultures import culture_task, plain_task

TASK = culture_task()


@pytest.fixture(scope="module")
def scores(loaded):
    return score_neurons(loaded("llama"), TASK.neuron_split(), progress=False)


@pytest.fixture(scope="module")
def specific(scores):
    return select_specific(scores, top=0.2, z=0)


def test_the_matrix_is_the_accuracies_subtracted(loaded, specific):
    model, task = loaded("llama"), TASK.test_split()
    found = country_drops(model, task, specific, progress=False)
    assert list(found.drops.columns) == list(task.countries)
    assert set(found.drops.index) == set(specific.countries) >= {"USA", "UK"}
    base, uk = (
        evaluate(model, task, ablate=neurons, progress=False).accuracy("country")["accuracy"]
        for neurons in (None, specific.for_country("UK"))
    )
    np.testing.assert_allclose(found.drops.loc["UK"], (base - uk)[list(task.countries)])


def made(drops, rows=("Spain", "Mexico"), columns=("Spain", "Mexico", "Iran")) -> CountryDrops:
    """Drops by hand."""
    frame = pd.DataFrame(drops, index=pd.Index(rows, name="neurons of"), columns=list(columns))
    sets = dict.fromkeys(rows, NeuronSet.from_indices([("mlp.gate", 0, 0)]))
    base = pd.Series(80.0, index=frame.columns)
    asked = EvaluationResult(pd.DataFrame({"country": np.repeat(list(columns), 100)}))
    return CountryDrops(frame, base, sets, "t", asked, {})


def test_equal_drops_share_their_mean_rank():
    assert made([[5.0, 9, 1], [0, 7, 0]]).ranks().to_numpy().tolist() == [[2, 1, 3], [2.5, 1, 2.5]]


def test_drops_that_are_equal_by_counts_are_equal_whatever_their_floats():
    noisy = 100 * (0.94 - 0.89)  # five of a hundred questions, with the noise of a subtraction
    assert noisy != 5.0 and made([[5.0, noisy, 1], [noisy, 5.0, 9]]).ranks().to_numpy().tolist() == [
        [1.5, 1.5, 3],
        [2.5, 2.5, 1],
    ]


def test_figures_and_analyses_rank_alike(loaded, specific):
    found = country_drops(loaded("llama"), TASK.test_split(), specific, progress=False)
    table = drop_table(found.unchanged, found.suppressed).set_index(["neurons", "country"])["rank"]
    pd.testing.assert_frame_equal(
        table.unstack().loc[found.drops.index, found.drops.columns], found.ranks(), check_names=False
    )


def test_mean_rank():
    found = made([[5.0, 9, 1], [0, 7, 0]])
    assert found.mean_rank == 1.5 and "mean rank 1.50 (chance 2)" in str(found)


def test_summary_sets_own_against_others():
    assert made([[5.0, 9, 1], [0, 7, 0]]).summary().loc["Spain"].tolist() == [1, 5, 5, 2]


FOUR = ("Spain", "Mexico", "Iran", "China")
DROPS = [[9.0, 5, 1, 3], [3, 7, 0, 1], [2, 2, 8, 2], [1, 2, 3, 6]]
OWN, RELATED, UNRELATED = np.array([9.0, 7, 8, 6]), np.array([5.0, 3]), np.array([2.0, 0.5, 2, 2])


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "own.csv"
    path.write_text("country,language\nSpain,Spanish\nMexico,Spanish\nIran,Persian\n")
    return path


def test_own_related_and_unrelated_countries(table):
    rows = made(DROPS, FOUR, FOUR).by_relation("language", table=table)
    means = [OWN.mean(), RELATED.mean(), UNRELATED.mean(), OWN.mean() / UNRELATED.mean()]
    assert rows["mean"].tolist() == means


def test_their_intervals_are_those_of_every_resample_of_four_countries(table):
    rows = made(DROPS, FOUR, FOUR).by_relation("language", table=table)
    drawn = np.array(list(itertools.product(range(4), repeat=4)))
    ratio = OWN[drawn].mean(1) / UNRELATED[drawn].mean(1)
    for row, values in (("own", OWN[drawn].mean(1)), ("own / unrelated", ratio)):
        expected = np.quantile(values, [0.025, 0.975])
        np.testing.assert_allclose(rows.loc[row, ["low", "high"]], expected, atol=0.35)
    assert rows.loc["related", ["low", "high"]].tolist() == [3, 5]


def test_countries_that_are_all_unrelated_are_a_clear_error(table):
    table.write_text("country,language\nSpain,a\nMexico,b\nIran,c\nChina,d\n")
    with pytest.raises(ScoreError, match="no pair"):
        made(DROPS, FOUR, FOUR).by_relation("language", table=table)


def test_related_countries_by_a_table_of_ones_own(table):
    found = made([[5.0, 9, 1], [8, 7, 0]]).related("language", table=table)
    assert (found.related, found.unrelated, found.pairs) == (8.5, 0.5, 2)


def test_a_table_without_the_relation_is_refused(table):
    with pytest.raises(TaskError, match="no columns 'country' and 'religion'"):
        relation_groups("religion", table)


def test_a_table_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(TaskError, match="cannot be read"):
        relation_groups("language", tmp_path / "nowhere.csv")


@pytest.mark.parametrize("relation", SOURCES)
def test_the_packages_relations_cover_blend_and_name_their_source(relation):
    groups = relation_groups(relation)
    assert set(groups) <= set(COUNTRIES) and len(groups) >= 15 and SOURCES[relation]
    assert len(set(groups.values())) < len(groups), "some are related"


def test_the_two_koreas():
    assert relation_groups("family")["South Korea"] == relation_groups("family")["North Korea"]
    assert "North Korea" not in relation_groups("values")


def test_an_unknown_relation_is_refused():
    with pytest.raises(TaskError, match="unknown relation"):
        relation_groups("religion")


def test_a_task_without_countries_is_refused(loaded, specific):
    with pytest.raises(ScoreError, match="asks about no country"):
        country_drops(loaded("llama"), plain_task(), specific)


def test_a_set_without_countries_is_refused(loaded, scores):
    with pytest.raises(NeuronError, match="has no countries"):
        country_drops(loaded("llama"), TASK, select_general(scores))


def test_a_set_without_neurons_is_refused(loaded, scores):
    with pytest.raises(NeuronError, match="no country has neurons"):
        country_drops(loaded("llama"), TASK, select_specific(scores, top=0))


def test_an_unknown_country_is_named(loaded, specific):
    with pytest.raises(NeuronError, match="Atlantis"):
        country_drops(loaded("llama"), TASK, specific, countries=["Atlantis"])
