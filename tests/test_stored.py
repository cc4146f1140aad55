"""Studies that come with the package: small, complete enough to be drawn, and without a data set's words."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from culnig_tl import Study, load_study
from culnig_tl.errors import StudyError
from culnig_tl.figures import accuracy_bars, layer_distribution
from culnig_tl.study.config import GENERAL
from culnig_tl.study.stored import FOLDER, WHOLE, store

from .studies import made_study

STORED = sorted(path.name for path in FOLDER.iterdir() if path.is_dir())
MOST = 2 << 20
"""Bytes of all of them together, in the wheel."""


@pytest.fixture
def stored(tmp_path):
    """A study made by hand, and the same as it is stored."""
    made = made_study(own={"food": 0.3})
    return made, load_study(store(made, tmp_path / "study"))


def test_what_is_stored_finds_the_same(stored):
    made, kept = stored
    assert isinstance(kept, Study) and kept.config == made.config
    for name, neurons in made.neurons.items():
        assert kept.neurons[name].hash == neurons.hash
    drops = [{task: study.drop(task) for task in ("food", "sense")} for study in (made, kept)]
    assert drops[0] == drops[1]


def test_scores_are_summed_over_the_countries(stored):
    made, kept = stored
    for name, scores in made.scores.items():
        assert kept.scores[name].countries == (WHOLE,)
        for site in scores.sites:
            np.testing.assert_array_equal(kept.scores[name].total(site), scores.total(site))


def test_an_unknown_name(tmp_path):
    with pytest.raises(StudyError, match="no study 'gemma-9': neither a folder nor one that comes with"):
        load_study("gemma-9")


def test_they_are_small():
    assert STORED and sum(p.stat().st_size for p in FOLDER.rglob("*") if p.is_file()) < MOST


@pytest.mark.parametrize("name", STORED)
def test_each_can_be_drawn(name):
    study = load_study(name)
    assert layer_distribution(study.neurons[GENERAL]).data and accuracy_bars(study.results).data


@pytest.mark.parametrize("name", STORED)
def test_none_holds_a_data_sets_words(name):
    for path in (FOLDER / name / "results").glob("*.parquet"):
        table = pd.read_parquet(path)
        assert not {"texts", "log_likelihoods", "priors"} & set(table.columns)
        assert (table["predicted"].str.len() <= 2).all()
