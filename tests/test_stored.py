"""Studies that come with the package: small, complete enough to be drawn, and without a data set's words."""

from __future__ import annotations

import zlib

import numpy as np
import pandas as pd
import pytest

from culnig_tl import Study, load_study
from culnig_tl.errors import StudyError
from culnig_tl.figures import accuracy_bars, layer_distribution
from culnig_tl.study.config import GENERAL
from culnig_tl.study.findings import Holds
from culnig_tl.study.stored import BITS, FOLDER, SECOND, WHOLE, store

from .studies import made_study

SHIPPED = {"gemma-3-270m": (194, 10), "smollm2-135m-instruct": (304, 5)}
"""Culture-general neurons, and layer-matched random sets, as docs/findings.md says."""
STORED = sorted(path.name for path in FOLDER.iterdir() if path.is_dir())
MOST = 2 << 20
"""Bytes of all of them together, in the wheel, which packs its files."""


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


def test_scores_are_summed_over_the_countries_and_rounded(stored):
    made, kept = stored
    for name, scores in made.scores.items():
        assert kept.scores[name].countries == (WHOLE,)
        for site in scores.sites:
            summed, whole = kept.scores[name].total(site), scores.total(site)
            np.testing.assert_allclose(summed, whole, rtol=2**-BITS)
            assert not (summed.view(np.uint32) & 0xFFF).any(), "bits that no wheel can pack away"


def test_an_unknown_name(tmp_path):
    with pytest.raises(StudyError, match="no study 'gemma-9': neither a folder nor one that comes with"):
        load_study("gemma-9")


def test_they_are_small():
    assert STORED and sum(len(zlib.compress(p.read_bytes())) for p in FOLDER.rglob("*") if p.is_file()) < MOST


@pytest.mark.parametrize("name", STORED)
def test_each_says_what_was_found_and_that_culture_alone_is_not_shown(name):
    findings = load_study(name).findings()
    assert findings.holds is not Holds.YES and findings.task == "blend"
    assert (findings.neurons, findings.drops["blend"].layer.random_sets) == SHIPPED[name]


@pytest.mark.parametrize(("name", "unit"), [("gemma-3-270m", "cluster"), ("smollm2-135m-instruct", "id")])
def test_the_second_half_is_of_other_questions(name, unit):
    """Of other clusters where the protocol says so; SmolLM2's was cut by rows alone."""
    first, second = (
        pd.read_parquet(FOLDER / name / half / f"{GENERAL}.parquet") for half in ("results", SECOND)
    )
    assert set(second["task"]) == {"blend"}
    assert not set(second[unit]) & set(first.loc[first["task"] == "blend", unit])


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
