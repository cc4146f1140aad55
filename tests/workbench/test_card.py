"""The card of the neuron that was clicked."""

from __future__ import annotations

import re
import threading

import numpy as np
import pytest
from plotly.callbacks import Points

from culnig_tl import question_scores, score_prompt
from culnig_tl.data.neurons import NeuronSet, Site
from culnig_tl.figures import promoted_tokens
from culnig_tl.workbench import reading
from culnig_tl.workbench.reading import Reader, TopQuestion, token_scores
from culnig_tl.workbench.source import ALL, Choice

from .acting import click


def test_click_shows_the_strongest_neurons_card(view, study):
    drawn = view._heat.drawn.panels[0]
    layer, neuron = map(int, np.argwhere(np.isfinite(drawn.values))[-1])
    click(view, "mlp.gate", layer, neuron)
    view.wait()
    strongest = drawn.cell(layer, float(neuron))[0]
    assert view.neuron == strongest
    assert f"mlp.gate, layer {layer}, neuron {strongest[2]}" in view._card.head.value
    for country in study.scores["neuron"].countries:
        assert country in view._card.head.value
    assert "culture-general" in view._card.head.value and "chip" in view._card.head.value
    assert "class='peak'" in view._card.questions.value and "raises" in view._card.promoted.value
    ring = view._heat.figure.data[2 * len(view._heat.drawn.panels)]
    assert list(ring.y) == [layer] and view.error == ""


def test_click_beside_the_set_does_nothing(view):
    panel = view._heat.drawn.panels[0]
    layer, cell = np.argwhere(~np.isfinite(panel.cells))[0]
    click(view, "mlp.gate", int(layer), int(cell) * panel.size)
    assert view.neuron is None


def test_dots_are_clicked_too(view):
    drawn = view._heat.drawn
    n = len(drawn.panels)
    neuron = int(drawn.panels[0].dots[0])
    dots = view._heat.figure.data[n]
    dots._dispatch_on_click(Points([0], [neuron], [float(dots.y[0])], None, n), None)
    view.wait()
    assert view.neuron == ("mlp.gate", drawn.layer, neuron)


def test_card_names_the_top_question_first(view, model, questions):
    key = ("mlp.gate", 0, 7)
    view.neuron = key
    view.wait()
    asked = questions.limit(12)
    scores = question_scores(model, asked, NeuronSet.from_indices([key]), progress=False)
    best = asked[int(scores.weighted[:, 0].argmax())]
    shown = view._card.questions.value
    assert best.country == min(asked.countries, key=lambda country: shown.find(country) % 10**9)
    top = view.source.reader(key, view.choice, view.selection).top(key, 3)
    np.testing.assert_allclose(top[0].weighted, scores.weighted[:, 0].max(), rtol=1e-3)


def test_card_shows_the_promoted_tokens(view, model):
    view.neuron = ("mlp.gate", 0, 7)
    view.wait()
    logit = promoted_tokens(model, "mlp.gate", 0, 7, count=1)["logit"][0]
    assert f"{logit:+.2f}" in view._card.promoted.value


def test_tokens_are_scored_for_one_neuron(model, questions):
    found = token_scores(
        model, [TopQuestion(question, 0.0, 0.0) for question in questions[:3]], ("mlp.gate", 0, 7)
    )
    for each in found:
        alone = score_prompt(model, each.top.question)
        assert each.tokens == alone.tokens
        np.testing.assert_allclose(each.values, alone.arrays[Site.MLP_GATE][0, :, 7], rtol=1e-3, atol=1e-7)


def test_queries_and_keys_promote_nothing(view):
    view.neuron = ("attn.k", 1, 3)
    view.wait()
    assert (
        "write nothing" in view._card.promoted.value
        and "class='peak'" in view._card.questions.value
        and view.error == ""
    )


def test_large_models_read_the_chosen_set_and_no_more(view, monkeypatch):
    monkeypatch.setattr("culnig_tl.workbench.source.FEW", 10)
    inside = view.source.check_neuron(tuple(view.selection.table.iloc[0][["site", "layer", "neuron"]]))
    reader = view.source.reader(inside, view.choice, view.selection)
    assert reader.neurons.keys() == view.selection.keys()
    outside = next(("attn.v", 5, i) for i in range(64) if ("attn.v", 5, i) not in view.selection.keys())
    assert view.source.reader(outside, view.choice, view.selection).neurons.keys() == {outside}
    assert view.source.reader(inside, Choice(ALL), view.selection) is reader, "what was read is kept"


def test_countries_are_sorted_by_score(view, study):
    key = ("mlp.gate", 0, 7)
    view.neuron = key
    view.wait()
    shown = view._card.head.value
    places = [shown.find(f"<span>{country}</span>") for country in view.source.country_scores(key)]
    values = list(view.source.country_scores(key).values())
    assert places == sorted(places) and min(places) > 0 and values == sorted(values, reverse=True)


def test_tags_say_what_they_mean(view, study):
    row = study.neurons["culture-specific"].for_country("Spain").table.iloc[0]
    tags = view.source.tags((row["site"], int(row["layer"]), int(row["neuron"])))
    assert list(tags) == ["culture-general", "culture-specific: Spain"]
    assert "not needed for reading" in tags["culture-general"]
    assert "higher there than elsewhere" in tags["culture-specific: Spain"]


@pytest.fixture
def slowly(monkeypatch):
    """Every step of reading takes one question, and the third one waits to be let go: (waiting, go)."""
    waiting, go = threading.Event(), threading.Event()
    step = Reader.step

    def one(reader, key):
        if reader.done == 2:
            waiting.set()
            assert go.wait(30)
        step(reader, key)

    monkeypatch.setattr(reading, "STEP", 1)
    monkeypatch.setattr(Reader, "step", one)
    return waiting, go


def test_first_questions_are_shown_while_reading_goes_on(view, slowly):
    waiting, go = slowly
    view.neuron = ("mlp.gate", 0, 7)
    assert waiting.wait(30)
    with view._screen:
        shown = view._card.questions.value
    assert "of 2 of 12 read so far" in shown and "class='peak'" in shown
    go.set()
    view.wait()
    assert "of 12 read)" in view._card.questions.value


def test_a_question_is_answered_while_reading_goes_on(view, slowly, questions):
    waiting, go = slowly
    view.neuron = ("mlp.gate", 0, 7)
    assert waiting.wait(30)
    seen = []
    view.observe(lambda change: seen.append(view.source._readers[-1].done), "answers")
    view._put(questions[0])
    view.ask()
    go.set()
    view.wait()
    assert seen == [3], "answered after the step that was running, before the next"


def test_the_first_card_of_another_neuron_needs_no_second_reading(view, monkeypatch):
    view.neuron = ("mlp.gate", 0, 7)
    view.wait()
    (reader,) = view.source._readers
    monkeypatch.setattr(Reader, "step", lambda *_: pytest.fail("read again"))
    view.neuron = ("mlp.gate", 1, 3)
    view.wait()
    best = reader.top(("mlp.gate", 1, 3), 1)[0].question
    found = re.search(r"<div class='question'>.*?</div>", view._card.questions.value)
    assert found and str(best.country) in found[0] and view.error == ""
