"""What is said about a study follows from its numbers: what does not hold comes first, and every number in a
text is one of them."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from culnig_tl.data.statistics import Drop
from culnig_tl.study.comparison import in_first_half
from culnig_tl.study.findings import Findings, Holds, TaskDrops, change, interval

from .studies import CASES, made_study

YES, NO, OPEN, CAUTION = Holds.YES, Holds.NO, Holds.OPEN, Holds.CAUTION
EXPECTED = {
    "shown": (YES, YES, YES),
    "no rival": (YES, YES, CAUTION),
    "random does it": (NO, NO, YES),
    "not alone": (YES, NO, YES),
    "rival does it": (YES, YES, NO),
    "both": (YES, NO, NO),
    "nearly alone": (YES, OPEN, YES),
    "nothing": (NO, NO, NO),
    "ignorant": (NO, OPEN, CAUTION),
}
"""Case -> whether "random", "culture alone" and "rival" hold."""


@pytest.fixture(scope="module")
def found():
    return {name: made_study(**case).findings() for name, case in CASES.items()}


def holds(findings: Findings) -> dict[str, Holds]:
    return {claim.name: claim.holds for claim in findings.claims()}


@pytest.mark.parametrize("name", CASES)
def test_each_claim_can_fail(found, name):
    said = holds(found[name])
    assert tuple(said[claim] for claim in ("random", "culture alone", "rival")) == EXPECTED[name]


@pytest.mark.parametrize("name", CASES)
def test_the_whole_holds_as_its_weakest_part_does(found, name):
    decisive = [state for state in EXPECTED[name] if state is not CAUTION]
    assert found[name].holds is min(decisive, key=list(Holds).index)


@pytest.mark.parametrize("name", CASES)
def test_claims_that_fail_stand_before_those_that_hold(found, name):
    places = [list(Holds).index(claim.holds) for claim in found[name].claims()]
    assert places == sorted(places)


@pytest.mark.parametrize("name", CASES)
def test_the_sentence_begins_with_the_result_only_where_the_claim_holds(found, name):
    measured = found[name].measured()
    assert found[name].sentence().startswith(measured) == (found[name].holds is YES)
    assert measured in found[name].sentence()


@pytest.mark.parametrize("name", ["not alone", "rival does it", "both", "nearly alone"])
def test_the_headline_says_first_what_does_not_hold(found, name):
    weakest = next(c for c in found[name].claims() if c.name in ("culture alone", "rival"))
    assert found[name].headline().startswith(weakest.title)


def test_a_model_that_does_not_know_the_answers_is_called_so(found):
    assert found["ignorant"].claims()[0].name == "ability" and "ability" not in holds(found["shown"])


@pytest.mark.parametrize(("lost", "state"), [(0.3, YES), (0.0, NO)])
def test_other_cultural_tasks_lose_too_or_not(lost, state):
    tasks = {"food": True, "norms": True, "sense": False}
    study = made_study(own={"food": 0.5, "norms": lost}, random={}, tasks=tasks)
    (claim,) = (c for c in study.findings().claims() if c.name == "other culture")
    assert claim.holds is state and claim.numbers["norms drop"] == pytest.approx(-100 * lost)


def test_one_cluster_shows_nothing():
    study = made_study(**CASES["shown"])
    for result in study.results.values():
        result.table["cluster"] = "one"
    said = study.findings()
    assert said.holds is NO and "nan" not in " ".join([said.sentence(), *(c.text for c in said.claims())])


def test_without_tasks_that_need_no_culture_it_stays_open():
    said = made_study(own={"food": 0.5}, random={}, tasks={"food": True}).findings()
    assert said.holds is holds(said)["culture alone"] is OPEN


@pytest.mark.parametrize("share", [0.97, 0.4])
def test_a_shared_pattern_is_a_caution_that_decides_nothing(found, share):
    said = replace(found["shown"], shared_pattern=share)
    (claim,) = (c for c in said.claims() if c.name == "countries")
    assert claim.holds is CAUTION and claim.numbers == {"percent": 100 * share} and said.holds is YES


def test_without_countries_nothing_is_said_of_them(found):
    assert "countries" not in holds(replace(found["shown"], shared_pattern=None))


def test_a_sample_is_a_caution(found):
    assert holds(replace(found["shown"], limit=100))["sample"] is CAUTION


def test_drops_are_computed_from_answers(found):
    drops = found["shown"].drops
    assert drops["food"].layer.drop == pytest.approx(50)
    assert drops["sense"].layer.drop == pytest.approx(100 * round(120 * 0.02) / 120)


def test_the_rivals_drop_is_computed_from_answers(found):
    assert found["shown"].drops["food"].rival.random_mean == pytest.approx(10)


def test_the_rivals_own_task_counts_the_half_it_was_not_found_on():
    study = made_study(**CASES["shown"])
    left = [f"c{i}" for i in range(120) if not in_first_half("sense", f"c{i}")]
    lost = study.results["rival"].table.query("task == 'sense'").set_index("cluster").loc[left, "correct"]
    assert study.findings().drops["sense"].rival.random_mean == pytest.approx(100 * (1 - lost.mean()))


def test_always_one_label_of_four(found):
    assert found["shown"].drops["food"].trivial == pytest.approx(25)


def test_the_share_is_of_all_scored_neurons(found):
    assert found["shown"].share == pytest.approx(100 * 60 / (4 * 64))


@pytest.mark.parametrize(
    ("drop", "words"),
    [(3.75, "−3.8"), (-2.0, "+2.0"), (0.0, "0.0"), (0.04, "0.0"), (-0.04, "0.0"), (float("nan"), "unknown")],
)
def test_a_drop_is_said_as_a_change(drop, words):
    assert change(drop) == words


def test_an_interval_is_said_from_low_to_high():
    assert interval(1.25, 6.26) == "−6.3 to −1.2" and interval(float("nan"), float("nan")) == "unknown"


numbers = st.floats(-30, 60, allow_nan=False).map(lambda v: round(v, 3))


@st.composite
def made_drops(draw, sets: int = 10) -> Drop:
    """Any drop whose parts fit together."""
    drop, random = draw(numbers), draw(numbers)
    half, excess_half = draw(st.floats(0.01, 15)), draw(st.floats(0.01, 15))
    return Drop(
        base=draw(st.floats(0, 100)),
        drop=drop,
        low=drop - half,
        high=drop + half,
        random_mean=random,
        random_sd=1.0,
        excess=drop - random,
        excess_low=drop - random - excess_half,
        excess_high=drop - random + excess_half,
        p_bootstrap=0.5,
        rank=draw(st.integers(1, sets + 1)),
        random_sets=sets,
    )


@st.composite
def made_findings(draw) -> Findings:
    """Findings of made-up drops: one cultural task, up to two without culture, with or without a rival."""
    with_rival = draw(st.booleans())
    plain = draw(st.sampled_from([[], ["sense"], ["sense", "pairs"]]))
    drops = {
        task: TaskDrops(
            task == "food",
            draw(made_drops()),
            draw(made_drops()),
            draw(made_drops(1)) if with_rival else None,
            1.0,
            draw(st.one_of(st.none(), st.floats(10, 60))),
        )
        for task in ["food", *plain]
    }
    rival, shared = "sense" if with_rival else None, draw(st.one_of(st.none(), st.floats(0, 1)))
    return Findings("food", drops, neurons=60, share=3.1, rival=rival, shared_pattern=shared)


def _beyond(drop: Drop) -> bool:
    return drop.excess_low > 0 and drop.rank == 1


@given(made_findings())
@settings(max_examples=300, deadline=None)
def test_claims_follow_any_numbers(found: Findings):
    """The rules, written out once more: nothing is called shown that the numbers do not show."""
    food, said = found.drops["food"], holds(found)
    plain = [d.layer.excess for d in found.drops.values() if not d.culture]
    assert (said["random"] is YES) == (_beyond(food.layer) and _beyond(food.count))
    assert (said["culture alone"] is NO) == any(excess >= food.layer.excess for excess in plain)
    if found.rival is None:
        assert said["rival"] is CAUTION
    else:
        assert (said["rival"] is NO) == (food.rival.excess <= 0)
        assert said["rival"] is not YES or food.rival.excess_low > 0


@given(made_findings())
@settings(max_examples=300, deadline=None)
def test_headline_and_sentence_praise_what_holds_alone(found: Findings):
    for text in (found.headline(), found.sentence()):
        assert text.startswith("Suppressing") == (found.holds is YES)


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
