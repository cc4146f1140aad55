"""What is said of a study follows from its numbers: what does not hold comes first, and every number in a sentence is one of them."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from culnig_tl.data.statistics import Drop
from culnig_tl.study.findings import Findings, Holds, TaskDrops, change, interval

from .studies import CASES, made_study


@pytest.fixture(scope="module")
def found():
    return {name: made_study(**case).findings() for name, case in CASES.items()}


def test_the_headline_says_first_what_does_not_hold(found):
    starts = {
        "shown": "Suppressing these neurons costs food more than random sets and a rival set do",
        "no rival": "Suppressing these neurons costs food more than random sets do, and more than tasks without culture lose",
        "random does it": "Nothing is shown about culture",
        "not alone": "It is not culture alone: pairs, a task without culture, loses as much",
        "rival does it": "A rival does the same: as many neurons of sense cost food as much",
        "both": "It is not culture alone: pairs",
        "nearly alone": "It is open whether it is culture alone: pairs",
        "nothing": "Nothing is shown about culture",
        "ignorant": "Nothing is shown about culture",
    }
    for name, start in starts.items():
        assert found[name].headline().startswith(start), (name, found[name].headline())
    assert "A rival does the same" in found["both"].headline()


def test_the_sentence_begins_with_what_does_not_hold(found):
    assert (
        found["random does it"]
        .sentence()
        .startswith("No more than random sets cost, so nothing is shown about culture. Suppressing 60")
    )
    assert (
        found["not alone"]
        .sentence()
        .startswith("More than every random set, but a task without culture loses as much")
    )
    assert (
        found["rival does it"]
        .sentence()
        .startswith("More than every random set, but as many neurons of sense do the same")
    )
    assert found["shown"].sentence().startswith("Suppressing 60 culture-general neurons")
    assert (
        found["shown"]
        .sentence()
        .endswith("more than any task without culture loses, and more than as many neurons of sense do.")
    )
    assert "takes food from 100.0% to 50.0% (−50.0 points" in found["shown"].sentence()


def test_claims_that_fail_stand_before_those_that_hold(found):
    order = list(Holds)
    for name, findings in found.items():
        places = [order.index(claim.holds) for claim in findings.claims()]
        assert places == sorted(places), name
    assert [c.name for c in found["both"].claims()][:2] == ["culture alone", "rival"]
    assert found["ignorant"].claims()[0].name == "ability"
    assert {c.name for c in found["no rival"].claims() if c.holds is Holds.CAUTION} >= {"rival"}
    assert found["shown"].holds is found["no rival"].holds is Holds.YES
    assert found["nearly alone"].holds is Holds.OPEN
    assert {
        found[name].holds
        for name in ("random does it", "not alone", "rival does it", "both", "nothing", "ignorant")
    } == {Holds.NO}


def test_other_cultural_tasks_are_spoken_of():
    tasks = {"food": True, "norms": True, "sense": False}
    claims = {}
    for lost in (0.3, 0.0):
        study = made_study(own={"food": 0.5, "norms": lost}, random={}, tasks=tasks)
        claims[lost] = next(c for c in study.findings().claims() if c.name == "other culture")
    assert claims[0.3].holds is Holds.YES and claims[0.0].holds is Holds.NO
    assert "norms −30.0" in claims[0.3].text


def test_one_cluster_shows_nothing():
    study = made_study(**CASES["shown"])
    for result in study.results.values():
        result.table["cluster"] = "one"
    said = study.findings()
    assert said.holds is Holds.NO and "unknown" in said.sentence()
    assert "nan" not in " ".join(c.text for c in said.claims())


def test_without_tasks_that_need_no_culture_it_stays_open():
    said = made_study(own={"food": 0.5}, random={}, tasks={"food": True}).findings()
    assert said.holds is Holds.OPEN and "no task without culture was asked" in said.verdict()
    assert said.headline().startswith("It is open whether it is culture alone")


def test_shared_pattern_is_a_caution(found):
    loud, quiet = (replace(found["shown"], shared_pattern=share) for share in (0.97, 0.4))
    assert "Countries hardly differ in their scores" in [c.title for c in loud.claims()]
    assert "97.0%" in next(c.text for c in loud.claims() if c.name == "countries")
    assert loud.holds is quiet.holds is Holds.YES, "it decides nothing about culture-general neurons"
    assert all(c.name != "countries" for c in replace(found["shown"], shared_pattern=None).claims())


def test_numbers_in_words():
    assert [change(v) for v in (3.75, -2.0, 0.0, 0.04, -0.04, float("nan"))] == [
        "−3.8",
        "+2.0",
        "0.0",
        "0.0",
        "0.0",
        "unknown",
    ]
    assert interval(1.25, 6.26) == "−6.3 to −1.2" and interval(float("nan"), float("nan")) == "unknown"


numbers = st.floats(-30, 60, allow_nan=False).map(lambda v: round(v, 3))


@st.composite
def made_drops(draw, sets: int = 10) -> Drop:
    """Any drop whose parts fit together."""
    drop, random = draw(numbers), draw(numbers)
    half, excess_half = draw(st.floats(0.01, 15)), draw(st.floats(0.01, 15))
    return Drop(
        base=draw(st.floats(0, 100)), drop=drop, low=drop - half, high=drop + half, random_mean=random, random_sd=1.0, excess=drop - random,
        excess_low=drop - random - excess_half, excess_high=drop - random + excess_half, p_bootstrap=0.5, rank=draw(st.integers(1, sets + 1)), random_sets=sets,
    )  # fmt: skip


@st.composite
def made_findings(draw) -> Findings:
    """Findings of made-up drops: one cultural task, up to two without culture, with or without a rival."""
    with_rival = draw(st.booleans())
    plain = draw(st.sampled_from([[], ["sense"], ["sense", "pairs"]]))
    drops = {
        task: TaskDrops(task == "food", draw(made_drops()), draw(made_drops()), draw(made_drops(1)) if with_rival else None, 1.0, draw(st.one_of(st.none(), st.floats(10, 60))))
        for task in ["food", *plain]
    }  # fmt: skip
    return Findings(
        "food",
        drops,
        60,
        3.1,
        "sense" if with_rival else None,
        draw(st.one_of(st.none(), st.floats(0, 1))),
        None,
    )


def _beyond(drop: Drop) -> bool:
    return drop.excess_low > 0 and drop.rank == 1


@given(made_findings())
@settings(max_examples=300, deadline=None)
def test_verdict_and_headline_follow_any_numbers(found: Findings):
    """The rules, written out once more: nothing is called shown that the numbers do not show."""
    food = found.drops["food"]
    more = _beyond(food.layer) and _beyond(food.count)
    plain = [d.layer for d in found.drops.values() if not d.culture]
    as_much = any(d.excess >= food.layer.excess for d in plain)
    rival_as_much = found.rival is not None and food.rival.excess <= 0
    headline, verdict, sentence = found.headline(), found.verdict(), found.sentence()
    assert headline.startswith("Nothing is shown") == verdict.startswith("no more than random") == (not more)
    if more:
        assert ("not culture alone" in headline) == ("not culture alone" in verdict) == as_much
        assert (
            ("A rival does the same" in headline)
            == ("do the same" in verdict and "may do" not in verdict)
            == rival_as_much
        )
    if not more or as_much or rival_as_much:
        assert (
            found.holds is Holds.NO
            and not sentence.startswith("Suppressing")
            and not headline.startswith("Suppressing")
        )
    if found.holds is Holds.YES:
        assert more and plain and not as_much and not rival_as_much
        assert found.rival is None or food.rival.excess_low > 0
        assert all(food.layer.excess > d.excess for d in plain)
        assert sentence.startswith("Suppressing") and headline.startswith("Suppressing")
    else:
        assert not headline.startswith("Suppressing")


def _said(text: str) -> set[str]:
    """Numbers in a text, without sign and without "95%" and "1/"."""
    text = re.sub(r"95% interval|1/\d+", "", text)
    return set(re.findall(r"\d+(?:\.\d+)?", text.replace(",", "")))


@given(made_findings())
@settings(max_examples=300, deadline=None)
def test_every_number_in_a_text_is_one_of_its_numbers(found: Findings):
    for claim in found.claims():
        known = {f"{abs(round(v, 1)) + 0.0:.1f}" for v in claim.numbers.values()} | {
            f"{abs(v):.0f}" for v in claim.numbers.values()
        }
        assert _said(claim.text) <= known, (claim.name, claim.text, claim.numbers)
        assert not re.search(r"\bnan\b|--\d|−0\.0\b", claim.text), claim.text


def test_findings_are_computed_from_answers():
    found = made_study(**CASES["shown"]).findings()
    assert found.drops["food"].layer.drop == pytest.approx(50) and found.drops[
        "sense"
    ].layer.drop == pytest.approx(100 * round(120 * 0.02) / 120)
    assert found.drops["food"].rival.random_mean == pytest.approx(10)
    assert found.drops["food"].trivial == pytest.approx(25)
    assert found.share == pytest.approx(100 * 60 / (4 * 64)) and found.rival == "sense"
    half = found.drops["sense"].rival
    assert half is not None and half.base == 100 and not np.isclose(half.random_mean, 0)
