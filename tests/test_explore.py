"""The workbench without a browser: its state, what it shows, what it asks, and that nobody waits for it."""

from __future__ import annotations

import gc
import html
import struct
import threading
import zlib
from dataclasses import replace

import numpy as np
import pytest
import torch

from culnig_tl import ablate, evaluate, explore, load_model, load_task, question_scores, score_neurons, score_prompt
from culnig_tl.errors import ModelError, NeuronError, PromptError, ScoreError, StudyError, TaskError
from culnig_tl.figures import promoted_tokens
from culnig_tl.models import last_logits
from culnig_tl.neurons import NeuronSet, Provenance, Site
from culnig_tl.study import TOY_CONFIG, Study
from culnig_tl.tasks import Task
from culnig_tl.workbench.asking import ask, option_lines, read_question, unknown_words
from culnig_tl.workbench.heat import draw
from culnig_tl.workbench.page import _png
from culnig_tl.workbench.reading import token_scores
from culnig_tl.workbench.source import ALL, SELECTION, Choice
from culnig_tl.workbench.twin import twin

from . import families

pytest.importorskip("ipywidgets")
pytest.importorskip("anywidget")

Points = pytest.importorskip("plotly.callbacks").Points
TYPED = "Which city is in Spain? Choose one.\nA. Madrid\nB. Busan\nC. Oaxaca\nD. Tehran"


@pytest.fixture(scope="module")
def model():
    return load_model("toy", device="cpu")


@pytest.fixture(scope="module")
def questions() -> Task:
    return load_task("miniculture").neuron_split().limit(24)


@pytest.fixture(scope="module")
def study(model, questions) -> Study:
    """A study of the toy on a few questions: scores and sets are what a view needs of it."""
    scores = {
        "neuron": score_neurons(model, questions, progress=False),
        "control": score_neurons(model, questions.control(), progress=False),
    }
    top = scores["neuron"].top(120)
    general = NeuronSet(top, Provenance(kind="culture-general", layers=6))
    countries = np.where(np.arange(len(top)) % 2 == 0, "Spain", "Iran")
    specific = NeuronSet(top.assign(country=countries), Provenance(kind="culture-specific", layers=6))
    return Study(replace(TOY_CONFIG, limit=24), {}, scores, {"culture-general": general, "culture-specific": specific})


@pytest.fixture
def view(study, model, questions):
    made = explore(study, model=model, task=questions, questions=12)
    yield made
    made.wait()
    made.close_all()


def click(view, site: str, layer: int, neuron: int) -> None:
    """What Plotly reports of a mouse click on a cell."""
    place = [panel.site.value for panel in view._heat.drawn.panels].index(site)
    panel = view._heat.drawn.panels[place]
    trace = view._heat.figure.data[place]
    x = float(panel.centres[neuron // panel.size])
    trace._dispatch_on_click(Points([[layer, neuron // panel.size]], [x], [layer], None, place), None)


# ------------------------------------------------------------------------------------------------------ the heatmap


def test_view_starts_with_the_first_set(view, study):
    assert view.set_name == "culture-general" and view.selection == study.neurons["culture-general"]
    assert view.selection.provenance is study.neurons["culture-general"].provenance
    assert view.operation == "unchanged" and view.neuron is None and view.answers is None and view.error == ""
    assert view.question.startswith("Question:") and view.answer_prefix


@pytest.mark.parametrize("choice", [Choice("culture-general"), Choice("culture-specific", "Spain"), Choice(ALL, "Iran", Site.ATTN_Q, 2)])
def test_cells_show_the_score_farthest_from_zero(view, study, choice):
    drawn = draw(view.source, choice, view.selection, None)
    scores, control = study.scores["neuron"], study.scores["control"]
    neurons = None if choice.name == ALL else study.neurons[choice.name]
    if neurons is not None and choice.country:
        neurons = neurons.for_country(choice.country)
    assert [panel.site for panel in drawn.panels] == ([choice.site] if choice.site else list(scores.sites))
    for panel in drawn.panels:
        for layer in range(scores.layers):
            for cell in range(panel.cells.shape[1]):
                best = np.nan
                for neuron in range(cell * panel.size, min((cell + 1) * panel.size, scores.widths[panel.site])):
                    if neurons is not None and (panel.site.value, layer, neuron) not in neurons.keys():
                        continue
                    values = []
                    for part in (scores, control):
                        every = part.arrays[panel.site][:, layer, neuron]
                        if choice.country is None:
                            values.append(every.sum() / part.clusters)
                        else:
                            row = part.countries.index(choice.country)
                            values.append(every[row] / part.country_clusters[row])
                    value = values[0] - values[1]
                    if np.isnan(best) or abs(value) > abs(best):
                        best = value
                np.testing.assert_allclose(panel.cells[layer, cell], best, rtol=1e-4, atol=1e-7)


def test_cell_holds_its_neurons_strongest_first(view):
    panel = draw(view.source, Choice(ALL), view.selection, None).panels[0]
    keys = panel.cell(1, panel.centres[3])
    assert {key[2] for key in keys} == set(range(3 * panel.size, 4 * panel.size)) and {key[:2] for key in keys} == {("mlp.gate", 1)}
    strengths = [abs(panel.values[1, key[2]]) for key in keys]
    assert strengths == sorted(strengths, reverse=True)


def test_heatmap_answers_to_every_choice(view, study):
    title = lambda: view._heat.figure.layout.title.text  # noqa: E731
    view.country = "Spain"
    view.wait()
    assert "Spain" in title()
    view.layer = 4
    view.wait()
    assert view._heat.drawn.layer == 4 and "layer 4" in view._heat.figure.layout.yaxis5.title.text
    view.site = "attn.v"
    view.wait()
    assert len(view._heat.figure.data) == 4 and view._heat.box.children == (view._heat.figure,)
    view.site, view.country, view.set_name = None, None, SELECTION
    view.selection = study.neurons["culture-general"] & NeuronSet(study.neurons["culture-general"].table.head(3))
    view.wait()
    assert view._heat.drawn.title == "My selection" and "3 neurons" in view._heat.drawn.small
    shown = [panel.values for panel in view._heat.drawn.panels]
    assert sum(int(np.isfinite(values).sum()) for values in shown) == 3
    view.selection = view.selection - view.selection
    view.wait()
    assert view._heat.figure.layout.annotations[-1].text == "this set has no neurons here"


def test_menus_and_traits_are_one(view):
    menus = {menu.description: menu for menu in view.children[1].children if hasattr(menu, "options")}
    view.country = "Iran"
    assert menus["Country"].value == "Iran"
    menus["Country"].value = ""
    assert view.country is None
    menus["Layer"].value = 3
    assert view.layer == 3


# ------------------------------------------------------------------------------------------------------ the card


def test_click_shows_the_strongest_neurons_card(view, study):
    drawn = view._heat.drawn.panels[0]
    layer, neuron = map(int, np.argwhere(np.isfinite(drawn.values))[5])
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


def test_card_names_the_top_questions_and_colours_their_tokens(view, model, questions):
    key = ("mlp.gate", 0, 7)
    view.neuron = key
    view.wait()
    asked = questions.limit(12)
    scores = question_scores(model, asked, NeuronSet.from_indices([key]), progress=False)
    best = asked[int(scores.weighted[:, 0].argmax())]
    assert view._card.questions.value.index(best.country) == min(view._card.questions.value.find(c) % 10**9 for c in asked.countries)
    reading = view.source.reading(key, view.choice, view.selection)
    top = reading.top(key, 3)
    np.testing.assert_allclose(top[0].weighted, scores.weighted[:, 0].max(), rtol=1e-3)
    for found in token_scores(model, top, key):
        alone = score_prompt(model, found.top.question, sites=["mlp.gate"])
        assert found.tokens == alone.tokens
        np.testing.assert_allclose(found.values, alone.arrays[Site.MLP_GATE][0, :, 7], rtol=1e-3, atol=1e-7)
    assert f"{promoted_tokens(model, 'mlp.gate', 0, 7, count=1)['logit'][0]:+.2f}" in view._card.promoted.value


def test_queries_and_keys_promote_nothing(view):
    view.neuron = ("attn.k", 1, 3)
    view.wait()
    assert "write nothing" in view._card.promoted.value and "class='peak'" in view._card.questions.value and view.error == ""


def test_large_models_read_the_chosen_set_and_no_more(view, monkeypatch):
    monkeypatch.setattr("culnig_tl.workbench.source.FEW", 10)
    inside = view.source.check_neuron(tuple(view.selection.table.iloc[0][["site", "layer", "neuron"]]))
    reading = view.source.reading(inside, view.choice, view.selection)
    assert reading.neurons.keys() == view.selection.keys()
    outside = next(("attn.v", 5, i) for i in range(64) if ("attn.v", 5, i) not in view.selection.keys())
    assert view.source.reading(outside, view.choice, view.selection).neurons.keys() == {outside}
    assert view.source.reading(inside, Choice(ALL), view.selection) is reading, "what was read is kept"


# ------------------------------------------------------------------------------------------------------ asking


def test_selection_goes_into_ablate_and_evaluate(view, model, questions):
    question = questions[0]
    view._put(question)
    view.operation = "suppress"
    view.wait()
    answers = view.answers
    assert view.error == "" and answers.operation == "suppress" and answers.right == question.answer
    place = question.options.index(question.answer)
    one = Task("one", (question,))
    for neurons, given in ((None, answers.before), (view.selection, answers.after)):
        p = evaluate(model, one, neurons=neurons, progress=False).table["p_answer"][0]
        np.testing.assert_allclose(given.labels[place], p, rtol=1e-3)
    with ablate(model, view.selection):
        assert score_prompt(model, question).p_answer == pytest.approx(answers.after.labels[place], rel=1e-3)
    assert answers.before.labels != answers.after.labels
    assert f"{100 * answers.after.labels[place]:.1f}%" in view._bench.answered.value and "✓" in view._bench.answered.value
    assert answers.to_dataframe()["option"].tolist() == list(option_lines(question.prompt).values())


def test_sets_made_in_code_are_asked_with(view):
    view.operation = "enhance"
    view.wait()
    seen = []
    view.observe(lambda change: seen.append(change["new"]), "answers")
    view.selection = NeuronSet.from_indices([("mlp.gate", 0, 1), ("attn.v", 2, 3)])
    view.wait()
    assert view.answers.neurons == 2 and seen == [view.answers] and "Selection: 2 neurons" in view._bench.selected.value
    view.selection = NeuronSet.from_indices([])
    view.wait()
    assert view.answers.neurons == 0 and view.answers.after == view.answers.before and "Selection: 0 neurons" in view._bench.selected.value


def test_buttons_change_the_selection(view, study):
    buttons = {}
    waiting = list(view.children)
    while waiting:
        each = waiting.pop()
        waiting += list(getattr(each, "children", ()))
        if hasattr(each, "on_click") and hasattr(each, "button_style"):
            buttons[each.description] = each
    assert buttons["Add to selection"].disabled
    buttons["Clear"].click()
    assert len(view.selection) == 0
    view.neuron = ("attn.q", 3, 9)
    assert not buttons["Add to selection"].disabled
    buttons["Add to selection"].click()
    assert view.selection.keys() == {("attn.q", 3, 9)}
    view.set_name, view.country = "culture-specific", "Spain"
    buttons["Select all shown"].click()
    assert view.selection.keys() == study.neurons["culture-specific"].for_country("Spain").keys()
    buttons["Only this neuron"].click()
    assert view.selection.keys() == {("attn.q", 3, 9)}
    buttons["Remove"].click()
    assert len(view.selection) == 0
    view.set_name = ALL
    buttons["Select all shown"].click()
    assert "no set to switch off" in view.error and len(view.selection) == 0


def test_typed_question_goes_by_the_rules_of_every_task(model):
    question = read_question(TYPED, answer_prefix='{"answer_choice":"')
    answers = ask(model, question, NeuronSet.from_indices([]))
    assert question.options == ("A", "B", "C", "D") and answers.options == ("Madrid", "Busan", "Oaxaca", "Tehran") and answers.right is None
    for label, p in zip(question.options, answers.before.labels):
        assert p == pytest.approx(score_prompt(model, replace(question, answer=label)).p_answer, rel=1e-4)
    alone = score_prompt(model, question)
    assert [t for t, _ in answers.before.top] == [t for t, _ in alone.top_tokens] and len(answers.before.top) == 10
    assert alone.tokens.count("<bos>") == 1


def test_question_without_options_shows_the_next_tokens_only(model, view):
    answers = ask(model, read_question("Which city is in Spain?"), NeuronSet.from_indices([]))
    assert answers.before.labels == () and len(answers.before.top) == 10
    view.answer_prefix, view.labels = '{"answer_choice":"', ""
    view.ask("Which city is in Spain?")
    view.wait()
    assert (
        view.answers.question.answer_prefix == ""
        and "P(label)" not in view._bench.answered.value
        and "next tokens" in view._bench.answered.value
    )


def test_option_lines():
    assert option_lines(TYPED) == {"A": "Madrid", "B": "Busan", "C": "Oaxaca", "D": "Tehran"}
    assert option_lines("Q. What?\n1) one\n2) two\n\nAnswer:") == {"1": "one", "2": "two"}
    assert option_lines("(a) x\n(b) y") == {"a": "x", "b": "y"}
    assert option_lines("I. Newton wrote it.\nNothing else") == {} and option_lines("A. alone") == {}


@pytest.mark.parametrize(
    "text, labels, says",
    [
        (" \n", (), "no question is typed"),
        ("Is it?", ("A",), "only one label"),
        ("Is it?", ("A", "A"), "occurs twice"),
    ],
)
def test_what_is_no_question_is_refused(text, labels, says):
    with pytest.raises(PromptError, match=says):
        read_question(text, labels=labels)


def test_unknown_words_are_named(model):
    assert unknown_words(model.tokenizer, "Which city is in Zxqv and Spain") == ("Zxqv",)


# ------------------------------------------------------------------------------------------------------ errors in words


def test_errors_appear_in_the_view_and_go_away(view):
    view._put(view._known[next(iter(view._known))])
    view.labels = "A, Madrid Seville"
    view.ask(TYPED)
    view.wait()
    assert view.error.startswith("the label 'Madrid Seville' is not one token") and view.error in html.unescape(view._message.value)
    view.labels = ""
    view.ask()
    view.wait()
    assert view.error == "" and view._message.value == "" and view.answers.question.prompt == TYPED


def test_errors_of_others_are_put_into_words(view, monkeypatch):
    def broken(*args):
        raise RuntimeError("the device <b>is gone</b>\nand much more")

    monkeypatch.setattr("culnig_tl.workbench.view.ask", broken)
    view.ask(TYPED)
    view.wait()
    assert view.error == "asking failed: RuntimeError: the device <b>is gone</b>"
    assert "&lt;b&gt;" in view._message.value and "<b>" not in view._message.value


def test_wrong_state_is_refused_where_it_is_set(view):
    for name, value, error in [
        ("set_name", "nothing", NeuronError),
        ("country", "Atlantis", ScoreError),
        ("site", "mlp.up", NeuronError),
        ("layer", 6, NeuronError),
        ("neuron", ("mlp.gate", 0, 384), NeuronError),
        ("selection", NeuronSet.from_indices([("mlp.gate", 17, 0)]), NeuronError),
    ]:
        before = getattr(view, name)
        with pytest.raises(error):
            setattr(view, name, value)
        assert getattr(view, name) is before


def test_explore_refuses_what_it_cannot_show(study, loaded):
    with pytest.raises(ModelError, match="6 layers"):
        explore(study, model=loaded("llama"))
    with pytest.raises(NeuronError, match="lies outside"):
        explore(study, neurons=NeuronSet.from_indices([("mlp.gate", 0, 4_000)]))
    with pytest.raises(NeuronError, match="uses that name itself"):
        explore(study, neurons={ALL: NeuronSet.from_indices([])})
    with pytest.raises(TaskError, match="questions"):
        explore(study, questions=0)


# ------------------------------------------------------------------------------------------------------ models


def test_scores_of_a_loaded_model(loaded, task):
    model = loaded("qwen3")
    scores = score_neurons(model, task, progress=False)
    view = explore(scores, model=model, task=task, questions=6)
    assert view.set_name == ALL and len(view.selection) == 0
    view.neuron = ("mlp.gate", 1, 2)
    view.selection = NeuronSet.from_indices([("mlp.gate", 1, i) for i in range(8)])
    view._put(task[0])
    view.operation = "suppress"
    view.wait()
    assert view.error == "" and view.answers.neurons == 8 and "class='peak'" in view._card.questions.value
    assert view.answers.before.labels != view.answers.after.labels


def test_without_its_model_a_view_shows_what_scores_show(study):
    scores = study.scores["neuron"]
    other = replace(scores, metadata={**scores.metadata, "model": "org/large"})
    view = explore(other)
    view.neuron = ("mlp.gate", 0, 3)
    view.wait()
    assert (
        "Score by country" in view._card.head.value
        and "load_model(&#x27;org/large&#x27;)" in view._card.questions.value
        and view.error == ""
    )
    view.ask(TYPED)
    view.wait()
    assert view.error == "this needs the model: explore(..., model=load_model('org/large'))" and view.answers is None


def test_toy_is_loaded_when_it_is_needed(study):
    view = explore(study.scores["neuron"], questions=4)
    view.set_name = SELECTION
    view.wait()
    assert not view.source.loaded
    view.ask()
    gc.collect()
    view.wait()
    assert view.source.loaded and view.error == "" and len(view.answers.before.labels) == 4


def test_scores_of_another_revision_come_with_a_caution(study, model, questions):
    scores = study.scores["neuron"]
    older = replace(scores, metadata={**scores.metadata, "revision": "0123456789abcdef"})
    view = explore(older, model=model, task=questions, questions=4)
    view.ask(TYPED)
    view.wait()
    assert "revision 0123456789abcdef" in view.error and "may not agree" in view.error and view.answers is not None


@pytest.mark.parametrize("family", ["toy", "llama", "phi3", "gemma3", "gpt2"])
def test_copy_shares_weights_and_no_hooks(loaded, model, family):
    given = model if family == "toy" else loaded(family)
    if family != "toy":
        score_neurons(
            given, families.questions(2), progress=False
        )  # leaves an attention pattern with its graph where attention is not native
    copied = twin(given)
    assert copied is not None and all(a is b for a, b in zip(given.parameters(), copied.parameters()))
    tokens = torch.arange(9)[None] + 3
    mask = torch.ones_like(tokens)
    neurons = NeuronSet.from_indices([("mlp.gate", 0, i) for i in range(12)])
    with torch.no_grad():
        plain = last_logits(given, tokens, mask)
        with ablate(copied, neurons):
            assert torch.equal(last_logits(given, tokens, mask), plain), "the view's ablation reaches into the notebook's model"
            ablated = last_logits(copied, tokens, mask)
        with ablate(given, neurons):
            assert torch.equal(last_logits(copied, tokens, mask), plain), "the notebook's ablation reaches into the view's"
            assert torch.equal(last_logits(given, tokens, mask), ablated)
        assert not torch.equal(ablated, plain)


def test_model_that_cannot_be_copied_is_used_itself(model, caplog):
    class Stubborn(torch.nn.Linear):
        cfg = None

        def __deepcopy__(self, memo):
            raise TypeError("no copies")

    with caplog.at_level("WARNING"):
        assert twin(Stubborn(2, 2)) is None
    assert "no copies" in caplog.text


# ------------------------------------------------------------------------------------------------------ nobody waits


def test_click_returns_while_the_model_works(view, monkeypatch):
    free, started = threading.Event(), threading.Event()

    def slow(*args):
        started.set()
        assert free.wait(30)
        return ask(*args)

    monkeypatch.setattr("culnig_tl.workbench.view.ask", slow)
    view.ask(TYPED)
    assert started.wait(30) and view.answers is None, "the call came back before the answer"
    view.country = "Spain"  # pictures go on meanwhile
    assert view._pictures.wait(30) and "Spain" in view._heat.drawn.title
    assert "working" in view._status.value
    with pytest.raises(StudyError, match="still working"):
        view.wait(0.01)
    free.set()
    view.wait()
    assert view.answers.question.prompt == TYPED and "ready" in view._status.value


# ------------------------------------------------------------------------------------------------------ without a kernel


def test_static_part_needs_no_script_and_escapes_names(study):
    view = explore(study, neurons={"<script>alert(1)</script>": study.neurons["culture-general"]})
    text = view.static_html()
    assert "<script" not in text and "&lt;script&gt;" in text
    assert text.count("<image ") == 4 and text.count("<tr") == 21 and "http" not in text
    assert len(text) < 100_000


def test_display_publishes_the_live_view_and_what_stays(view, capsys):
    from IPython.core.interactiveshell import InteractiveShell
    from IPython.utils.capture import capture_output

    InteractiveShell.instance()
    try:
        with capture_output() as captured:
            view._ipython_display_()
        live, static = captured.outputs
        assert "application/vnd.jupyter.widget-view+json" in live.data
        assert f"culnig-static-{view._id}" in static.data["text/html"]
        assert f".culnig-static-{view._id} {{ display: none }}" in view.children[0].value, "the live view hides it"
    finally:
        InteractiveShell.clear_instance()


def test_png_holds_its_pixels():
    pixels = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    data = _png(pixels)
    assert data[:8] == b"\x89PNG\r\n\x1a\n" and struct.unpack(">II", data[16:24]) == (3, 2)
    at, parts = 8, {}
    while at < len(data):
        (size,), kind = struct.unpack(">I", data[at : at + 4]), data[at + 4 : at + 8]
        parts[kind] = data[at + 8 : at + 8 + size]
        assert struct.unpack(">I", data[at + 8 + size : at + 12 + size])[0] == zlib.crc32(kind + parts[kind])
        at += 12 + size
    assert list(parts) == [b"IHDR", b"IDAT", b"IEND"]
    rows = np.frombuffer(zlib.decompress(parts[b"IDAT"]), dtype=np.uint8).reshape(2, 10)
    assert (rows[:, 0] == 0).all()
    np.testing.assert_array_equal(rows[:, 1:].reshape(2, 3, 3), pixels)
