"""`plot` draws any result, `plots` all figures of one under the names of their files."""

from __future__ import annotations

import pytest

from culnig_tl import figures, load_study
from culnig_tl.analyses.checkpoints import compare_checkpoints
from culnig_tl.analyses.compare_sets import ComparedSets
from culnig_tl.analyses.crossing import CountryDrops
from culnig_tl.analyses.enhancing import Enhancement
from culnig_tl.analyses.parts import Parts
from culnig_tl.analyses.stability import Stability
from culnig_tl.analyses.sweep import Sweep, SweepPoint
from culnig_tl.errors import CulnigError
from culnig_tl.study.comparison import compare

from ..studies import CASES, made_study
from .builders import enhancement, make_prompt, make_result, make_scores, make_set, stable


def result(every=3):
    return make_result(lambda task, country, i: i % every > 0)


def compared() -> ComparedSets:
    sets = {"blend": make_set(), "normad": make_set(seed=1)}
    return ComparedSets(sets, result(), dict.fromkeys(sets, result(2)), dict.fromkeys(sets, (result(4),)))


def swept(country=None) -> Sweep:
    points = [
        SweepPoint({"top": top, "drop_reading": 0.01}, make_set(count=count), result(every))
        for top, count, every in ((0.01, 20, 3), (0.02, 40, 2))
    ]
    return Sweep("culture-general", tuple(points), result(5), ("blend",), country)


def crossed() -> CountryDrops:
    before = result().accuracy("country")["accuracy"]
    suppressed = {"Spain": result(2), "Japan": result(4)}
    drops = (before - suppressed["Spain"].accuracy("country")["accuracy"]).to_frame("Spain").T
    return CountryDrops(drops, before, {"Spain": make_set()}, "blend", result(), suppressed)


RESULTS = {
    "NeuronSet": (make_set, "neuronset"),
    "NeuronScores": (make_scores, "neuronscores"),
    "PromptScores": (make_prompt, "promptscores"),
    "EvaluationResult": (result, "evaluationresult"),
    "ComparedSets": (compared, "cross-effects"),
    "Comparison": (lambda: compare(result(), result(2), [result(4)]), "comparison"),
    "Parts": (lambda: Parts({"whole": make_set()}, result(), {"whole": result(2)}), "parts"),
    "Sweep": (swept, "sweep"),
    "Sweep of a country": (lambda: swept("Spain"), "sweep Spain"),
    "CountryDrops": (crossed, "countries"),
    "Enhancement": (lambda: Enhancement(enhancement(), ("culture",)), "enhance"),
    "Stability": (lambda: Stability(stable(), (), {}), "stability"),
}


@pytest.mark.parametrize(("make", "name"), RESULTS.values(), ids=RESULTS)
def test_a_result_is_drawn_under_the_name_of_its_file(make, name):
    found = make()
    drawn = figures.plots(found)
    assert list(drawn) == [name]
    assert drawn[name].to_json() == figures.plot(found).to_json()


def test_a_study_is_drawn_whole():
    study = made_study(**CASES["shown"])
    drawn = figures.plots(study)
    assert {"drops", "country_accuracy", "score_histogram"} <= set(drawn)
    assert figures.plot(study).to_json() == drawn["drops"].to_json()


def test_checkpoints_of_different_depth_are_shares():
    base, deeper = made_study(**CASES["shown"]), made_study(**CASES["both"])
    assert figures.plot(compare_checkpoints({"a": base, "b": deeper})).data[0].z.sum() == 120
    deeper.info["layers"] = 6
    assert figures.plot(compare_checkpoints({"a": base, "b": deeper})).data[0].z.sum() == pytest.approx(200)


def test_options_are_those_of_the_figure():
    assert (
        figures.plot(crossed(), show="rank").data[0].text[0][0] != figures.plot(crossed()).data[0].text[0][0]
    )
    assert figures.plot(make_set(), show="share").layout.yaxis.title.text.endswith("(% of the set)")


def test_what_cannot_be_drawn_is_an_error_that_says_what_can():
    with pytest.raises(CulnigError, match="a list cannot be drawn: give one of .*NeuronSet") as caught:
        figures.plot([1, 2])
    assert "\n" not in str(caught.value)
    with pytest.raises(CulnigError, match="a list cannot be drawn"):
        figures.plots([1, 2])


def test_what_draws_scores_takes_a_study_too():
    study = load_study("smollm2-135m-instruct")
    scores, control, general = (
        study.scores["neuron"],
        study.scores["control"],
        study.neurons["culture-general"],
    )
    drawn = figures.score_histogram(scores, control=control, neurons=general)
    assert figures.score_histogram(study).to_json() == drawn.to_json()
    assert study.folder is not None
    assert figures.score_histogram(study.folder).to_json() == drawn.to_json()
    card = figures.neuron_card(scores, ("mlp.gate", 3, 7), control=control)
    assert figures.neuron_card(study, ("mlp.gate", 3, 7)).to_json() == card.to_json()
