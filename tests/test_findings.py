"""What is said about a study follows from its numbers: what does not hold comes first, and every number in a
text is one of them."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from culnig_tl.data.statistics import Drop, compare_drops
from culnig_tl.pages.report import drop_rows
from culnig_tl.study.comparison import in_first_half
from culnig_tl.study.findings import Findings, Holds, TaskDrops, change, interval

from .studies import CASES, made_study

YES, NO, OPEN, CAUTION = Holds.YES, Holds.NO, Holds.OPEN, Holds.CAUTION
EXPECTED = {
    "shown": (YES, YES, YES),
    "no rival": (YES, YES, CAUTION),
    "random does it": (NO, NO, YES),
    "random may do it": (OPEN, OPEN, YES),
    "nearly all open": (OPEN, OPEN, OPEN),
    "not alone": (YES, NO, YES),
    "rival does it": (YES, YES, NO),
    "both": (YES, NO, NO),
    "nearly alone": (YES, OPEN, YES),
    "nothing": (OPEN, OPEN, OPEN),
    "ignorant": (OPEN, OPEN, CAUTION),
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
def test_layer_matched_sets_alone_decide_where_there_are_no_others(found, name):
    """A study that drew none of the same size alone: no text speaks of sets that were not drawn."""
    study = made_study(**CASES[name])
    study.results = {k: v for k, v in study.results.items() if not re.fullmatch(r"random \d+", k)}
    alone = study.findings()
    assert alone.drops["food"].count is None and holds(alone) == holds(found[name])
    (random,) = (claim for claim in alone.claims() if claim.name == "random")
    assert "anywhere" not in random.text and "others" not in random.text
    assert not [key for key in random.numbers if key.startswith("count")]
    assert [row["cells"][5] for row in drop_rows(alone)] == ["–"] * len(alone.drops)


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


@pytest.mark.parametrize(("lost", "state"), [(0.3, YES), (0.0, OPEN)])
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
    assert said.holds is OPEN and "nan" not in " ".join([said.sentence(), *(c.text for c in said.claims())])


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
        random_low=random - half,
        random_high=random + half,
        random_sd=1.0,
        excess=drop - random,
        excess_low=drop - random - excess_half,
        excess_high=drop - random + excess_half,
        p_bootstrap=0.5,
        rank=draw(st.integers(1, sets + 1)),
        random_sets=sets,
        part_drop=drop,
        questions=100,
        random_questions=100,
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
    """The rules, written out once more: nothing is called shown or refuted that the numbers do not decide."""
    food, said = found.drops["food"], holds(found)
    assert (said["random"] is YES) == (_beyond(food.layer) and _beyond(food.count))
    assert (said["random"] is NO) == (food.layer.excess_high < 0 or food.count.excess_high < 0)
    gaps = [_gap(food.layer, d.layer) for d in found.drops.values() if not d.culture]
    assert (said["culture alone"] is NO) == any(gap + half < 0 for gap, half in gaps)
    assert (said["culture alone"] is YES) == bool(gaps and all(gap - half > 0 for gap, half in gaps))
    if found.rival is None:
        assert said["rival"] is CAUTION
    else:
        assert (said["rival"] is NO) == (food.rival.excess_high < 0)
        assert said["rival"] is not YES or food.rival.excess_low > 0
    if found.drops["food"].trivial is not None:
        low, high = (food.layer.base + sign * 1.96 * food.se - food.trivial for sign in (-1, 1))
        assert said.get("ability", YES) is (YES if low > 0 else NO if high < 0 else OPEN)


def _gap(culture: Drop, other: Drop) -> tuple[float, float]:
    """Difference of two excesses, and half the width of its interval."""
    widths = [d.excess_high - d.excess_low for d in (culture, other)]
    return culture.excess - other.excess, math.sqrt(widths[0] ** 2 + widths[1] ** 2) / 2


@given(made_findings())
@settings(max_examples=300, deadline=None)
def test_no_word_is_against_what_is_open(found: Findings):
    """Where the comparison with random sets is open, neither the headline nor the sentence decides it."""
    if holds(found)["random"] is OPEN:
        for text in (found.headline(), found.sentence()):
            assert "open whether" in text and "no more than random" not in text


def simulated(questions: int, lost: float, rng: np.random.Generator) -> Findings:
    """A study whose culture neurons cost `lost` points on one task, and random sets nothing but noise.

    A model that is right on 7 of 10 questions; every set flips a tenth of the answers, as ablations do.
    """
    clusters = np.array([f"c{i}" for i in range(questions)])
    base = rng.random(questions) < 0.7

    def suppressed(points: float) -> np.ndarray:
        fell = rng.random(questions) < 0.05 / 0.7 + points / 70
        return np.where(base, ~fell, rng.random(questions) < 0.05 / 0.3).astype(float)

    def drop(points: float) -> Drop:
        random = [suppressed(0) for _ in range(10)]
        return compare_drops(base.astype(float), suppressed(points), random, clusters, draws=400)

    drops = {"food": TaskDrops(True, drop(lost), drop(lost)), "sense": TaskDrops(False, drop(0), drop(0))}
    return Findings("food", drops, neurons=60, share=3.1)


@pytest.mark.parametrize("lost", [0, 4, 20])
@pytest.mark.parametrize("questions", [30, 300, 3000])
def test_simulated_studies_decide_what_their_size_can_decide(questions, lost):
    """Over sizes of effect and sample: a study says open unless its interval lies on one side of 0; an effect
    that the sample can show is found, and none is found where there is none."""
    studies = [simulated(questions, lost, np.random.default_rng([questions, lost, k])) for k in range(20)]
    said = [holds(found)["random"] for found in studies]
    for found, state in zip(studies, said):
        drops = (found.drops["food"].layer, found.drops["food"].count)
        assert state is OPEN or state is (YES if all(d.excess_low > 0 for d in drops) else NO)
        assert state is not NO or any(d.excess_high < 0 for d in drops)
    if lost == 0:
        assert said.count(YES) <= 1 and said.count(OPEN) >= 15  # 2.5% of the intervals lie below 0, twice
    if lost == 20 and questions >= 300 or lost == 4 and questions == 3000:
        assert said.count(YES) == 20
    if lost == 4 and questions == 30:
        assert said.count(OPEN) >= 15


def test_a_drop_that_the_interval_cannot_tell_is_open():
    """3.7 points beyond random sets, anywhere from 17 fewer to 24 more, is not "no more than random"."""
    wide = Drop(60, 4.2, -16.7, 24.0, 0.5, -1, 2, 1, 3.7, -17, 24, 0.4, 3, 10, 4.2, 24, 24)
    found = Findings("food", {"food": TaskDrops(True, wide, wide)}, neurons=60, share=1.0)
    (claim,) = (claim for claim in found.claims() if claim.name == "random")
    assert claim.holds is found.holds is OPEN


def test_a_sample_in_which_nothing_changed_is_open():
    """Of 20 questions none is lost 44 times in 100 where 4 points of them are."""
    right, clusters = np.ones(20), np.array([f"c{i}" for i in range(20)])
    drop = compare_drops(right, right, [right] * 10, clusters, draws=100)
    found = Findings("food", {"food": TaskDrops(True, drop, drop)}, neurons=60, share=1.0)
    assert (drop.excess_low, drop.excess_high) == (0, 0) and found.holds is OPEN


def test_random_sets_that_cost_as_much_leave_it_open():
    """The mean of the random sets is exceeded, one of them is not: the two tests do not agree."""
    drop = Drop(60, 10, 5, 15, 4, 2, 6, 3, 6, 1, 11, 0.01, 2, 10, 10, 24, 24)
    found = Findings("food", {"food": TaskDrops(True, drop, drop)}, neurons=60, share=1.0)
    assert holds(found)["random"] is OPEN


def test_what_fails_stands_before_what_is_open_in_the_headline():
    found = made_study(own={"food": 0.2, "pairs": 0.6}, random={"food": 0.18}).findings()
    assert found.holds is NO and found.headline().startswith("It is not culture alone")
    assert "open whether" in found.headline()


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
