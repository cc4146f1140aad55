"""One prompt and one neuron: sums along the prompt, cards, and the tokens that a neuron reads and writes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from culnig_tl import figures
from culnig_tl.data.neurons import NeuronSet, Site
from culnig_tl.engine.cloze import encode_cloze
from culnig_tl.engine.models import last_logits
from culnig_tl.engine.prompts import encode
from culnig_tl.errors import NeuronError, ScoreError
from culnig_tl.figures import theme
from culnig_tl.figures.prompts import prompt_parts, shown
from culnig_tl.method.closeup import question_scores, score_prompt
from culnig_tl.method.score import score_neurons
from culnig_tl.tasks import Task

from .. import families
from .builders import WIDTHS, cells, make_prompt, make_scores, make_set, notes

FAMILIES = ("llama", "phi3", "gemma3-text", "gpt2", "gpt-neox")


def test_the_map_sums_to_the_attribution_of_all_neurons():
    prompt = make_prompt()
    z = np.asarray(figures.token_heatmap(prompt).data[0].z)
    assert z == pytest.approx(sum(array.sum(axis=2, dtype=np.float64) for array in prompt.arrays.values()))


def test_the_map_of_a_set_sums_its_neurons_alone_and_names_the_strongest():
    prompt, neurons = make_prompt(), make_set(3)
    figure = figures.token_heatmap(prompt, neurons)
    z = np.zeros((3, 4))
    for (site, layer), index in neurons.indices.items():
        z[layer] += prompt.arrays[site][layer][:, index].sum(1)
    assert np.asarray(figure.data[0].z) == pytest.approx(z, abs=1e-5)
    strongest = max(
        (
            (abs(float(prompt.arrays[s][1][2, n])), f"{s}, layer 1, neuron {n}")
            for (s, layer), index in neurons.indices.items()
            if layer == 1
            for n in index
        )
    )
    assert strongest[1] in figure.data[0].hovertext[1][2]


def test_long_prompts_share_columns_and_lose_nothing():
    prompt = make_prompt(40, ["Ġa"] * 601, widths={Site.MLP_GATE: 3})
    figure = figures.token_heatmap(prompt)
    assert cells(figure) <= 10_000 and "a column is 3 tokens" in notes(figure)
    assert np.asarray(figure.data[0].z).sum() == pytest.approx(
        prompt.arrays[Site.MLP_GATE].sum(dtype=np.float64), abs=1e-3
    )
    window = figures.token_heatmap(prompt, positions=(100, 120))
    assert np.asarray(window.data[0].z) == pytest.approx(
        prompt.arrays[Site.MLP_GATE][:, 100:121].sum(2), abs=1e-5
    )
    assert window.layout.xaxis.ticktext[0] == "100: ·a" and len(figure.layout.xaxis.ticktext) <= 80


def test_tokens_are_no_markup():
    assert (
        shown("<s>") == "&lt;s&gt;"
        and shown("Ġrice") == "·rice"
        and shown("▁a") == "·a"
        and shown("Ċ") == "↵"
    )
    assert figures.token_heatmap(make_prompt()).layout.xaxis.ticktext[0] == "0: &lt;s&gt;"


def test_prompts_and_sets_that_do_not_fit_are_refused():
    prompt = make_prompt()
    with pytest.raises(ScoreError, match="tokens 0 to 3"):
        figures.token_heatmap(prompt, positions=(2, 9))
    with pytest.raises(ScoreError, match="no scores of mlp.post"):
        figures.token_heatmap(prompt, sites=["mlp.post"])
    with pytest.raises(NeuronError, match="beyond layer 2"):
        figures.token_heatmap(prompt, make_set(5))
    with pytest.raises(NeuronError, match="different models"):
        figures.token_heatmap(prompt, NeuronSet.from_indices([("attn.v", 0, 999)]))


def test_a_card_shows_the_neurons_scores_and_tables():
    scores, control = make_scores(), make_scores(seed=1, task="blend:control")
    questions = pd.DataFrame({"question": ["<b>What</b> is eaten?"], "score": [0.25], "country": ["Spain"]})
    firing = pd.DataFrame({"token": [" rice"], "context": ["people eat"], "activation": [3.5]})
    promoted = pd.DataFrame({"token": ["up", "down", "higher"], "logit": [1.0, -2.0, 3.0]})
    figure = figures.neuron_card(
        scores, ("attn.q", 2, 5), control=control, questions=questions, firing=firing, promoted=promoted
    )
    assert list(figure.data[0].y) == pytest.approx(
        (scores.arrays[Site.ATTN_Q][:, 2, 5] / np.array([10, 11, 12])).tolist()
    )
    assert list(figure.data[1].y) == pytest.approx(
        (control.arrays[Site.ATTN_Q][:, 2, 5] / np.array([10, 11, 12])).tolist()
    )
    top, fires, writes = figure.data[2:]
    assert top.cells.values[0][0] == "&lt;b&gt;What&lt;/b&gt; is eaten?" and top.cells.values[1][0] == "0.25"
    assert fires.cells.values[2][0] == "3.5"
    assert [list(column) for column in writes.cells.values] == [
        ["higher", "up"],
        ["3", "1"],
        ["down", ""],
        ["−2", ""],
    ]
    values = {s: (scores.total(s) - control.total(s)) / 17 for s in WIDTHS if s.pool == "attn"}
    rank = 1 + sum(int((v > values[Site.ATTN_Q][2, 5]).sum()) for v in values.values())
    assert f"rank {rank} of 96 attention neurons" in notes(figure)


def test_a_card_needs_nothing_but_scores():
    figure = figures.neuron_card(make_scores(countries=("Spain",)), (Site.MLP_GATE, 0, 0))
    assert len(figure.data) == 1 and len(figure.data[0].y) == 1
    with pytest.raises(NeuronError, match="no scores of neuron"):
        figures.neuron_card(make_scores(), ("mlp.gate", 0, 40))
    with pytest.raises(ScoreError, match="promoted needs the columns token, logit"):
        figures.neuron_card(make_scores(), ("mlp.gate", 0, 0), promoted=pd.DataFrame({"token": ["a"]}))


def _push(model, site: Site, layer: int, neuron: int, step: float = 1e-2) -> np.ndarray:
    """Change of the last logits when a neuron of the last layer writes `step` more, nothing else in its layer
    answering."""
    tokens = torch.tensor([[5, 60, 61, 62, 63]])

    def push(activation, hook):
        flat = activation.flatten(2).clone()
        flat[:, :, neuron] += step
        return flat.reshape(activation.shape)

    def silence(activation, hook):
        return torch.zeros_like(activation)

    still = [(Site.MLP_POST.hook_name(layer), silence)] if site is Site.ATTN_V else []
    with torch.no_grad():
        with model.hooks(fwd_hooks=still):
            before = last_logits(model, tokens, torch.ones_like(tokens))[0]
        with model.hooks(fwd_hooks=[*still, (site.hook_name(layer), push)]):
            after = last_logits(model, tokens, torch.ones_like(tokens))[0]
    return ((after - before) / step).numpy()


@pytest.mark.parametrize("site", [Site.MLP_POST, Site.ATTN_V])
@pytest.mark.parametrize("family", FAMILIES)
def test_promoted_tokens_are_those_that_rise_when_the_neuron_writes_more(loaded, family, site):
    model = loaded(family)
    layer, tokenizer = model.cfg.n_layers - 1, model.tokenizer
    for neuron in (0, 7):
        change = _push(model, site, layer, neuron)
        table = figures.promoted_tokens(
            model, site, layer, neuron, count=256
        )  # half the vocabulary from either end: all of it
        assert table["logit"].is_monotonic_decreasing and len(table) == 512
        # The norms' division also answers; the logit lens leaves that out. Gemma has one norm more.
        by_name = dict(zip(table["token"], table["logit"]))
        unique = [i for i in range(512) if list(table["token"]).count(tokenizer.decode([i])) == 1]
        lens = [by_name[tokenizer.decode([i])] for i in unique]
        assert len(unique) > 200 and np.corrcoef(change[unique], lens)[0, 1] > (
            0.8 if "gemma" in family else 0.9
        ), neuron


def test_queries_and_keys_write_nothing(loaded):
    for site in ("attn.q", "attn.k"):
        with pytest.raises(NeuronError, match="decide where heads look"):
            figures.promoted_tokens(loaded("llama"), site, 0, 0)
    with pytest.raises(NeuronError, match="layers are 0 to 2, neurons 0 to 71"):
        figures.promoted_tokens(loaded("llama"), "mlp.gate", 0, 72)


@pytest.mark.parametrize(("family", "site"), [("llama", Site.MLP_GATE), ("gpt2", Site.ATTN_K)])
def test_firing_tokens_are_the_largest_outputs_one_question_at_a_time(loaded, family, site):
    model, task = loaded(family), families.questions(5)
    table = figures.firing_tokens(model, task, site, 1, 3, count=4, batch_size=2, progress=False)
    strength = abs if site.pool == "attn" else float
    seen = {}
    for prompt in encode(model.tokenizer, task.questions):
        with torch.no_grad():
            _, cache = model.run_with_cache(torch.tensor([prompt.tokens]))
        values = cache[site.hook_name(1)].flatten(2)[0, :, 3]
        for at, value in enumerate(values.tolist()):
            key = prompt.tokens[max(0, at - 8) : at + 1]
            seen[key] = max(seen.get(key, value), value, key=strength)
    best = sorted(seen.items(), key=lambda item: -strength(item[1]))[:4]
    assert table["activation"].tolist() == pytest.approx([value for _, value in best], rel=1e-4, abs=1e-5)
    assert table["token"].tolist() == [model.tokenizer.decode([key[-1]]) for key, _ in best]
    card = figures.neuron_card(make_scores(widths={site: 40}), (site, 1, 3), firing=table)
    assert len(card.data[1].cells.values[0]) == 4


def test_top_questions_are_a_countrys_scores_question_by_question(loaded):
    model, task = loaded("llama"), families.questions(6)
    neurons = NeuronSet.from_indices([("mlp.gate", 1, 3), ("attn.v", 2, 5)])
    scores = question_scores(model, task, neurons, progress=False)
    table = figures.top_questions(scores, ("attn.v", 2, 5), count=6)
    assert table["score"].is_monotonic_decreasing and set(table["question"]) == {q.prompt for q in task}
    whole = score_neurons(model, task, progress=False)
    own = table.groupby("country")["score"].sum()
    assert own["Spain"] == pytest.approx(float(whole.of("Spain")[Site.ATTN_V][2, 5]), rel=1e-4)
    card = figures.neuron_card(whole, ("attn.v", 2, 5), questions=scores)
    assert card.data[1].cells.values[1][0] == theme.number(table["score"][0])
    with pytest.raises(NeuronError, match="none of the 2 that were scored"):
        figures.top_questions(scores, ("attn.v", 2, 4))


# ------------------------------------------------------------------------------------------ the cloze form

OPTIONS = ("w12 w13", "w14", "w15 w16 w17")


@pytest.fixture(scope="module")
def cloze():
    made = [
        replace(q, stem=q.prompt, texts=OPTIONS, options=("A", "B", "C"), answer="B")
        for q in families.questions(4)
    ]
    return Task("words", tuple(made)).cloze()


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_parts_begin_where_their_tokens_do(loaded, cloze, family):
    model = loaded(family)
    (encoded,) = encode_cloze(model.tokenizer, [cloze[0]])
    parts = prompt_parts(model, cloze[0])
    assert [name for name, _ in parts] == ["question", *"ABC", "control", *"ABC"]
    rows = [encoded.context, *encoded.texts, encoded.bare, *encoded.bare_texts]
    ends = [start for _, start in parts[1:]] + [len(encoded.counted)]
    assert [encoded.counted[start:end] for (_, start), end in zip(parts, ends)] == rows
    assert prompt_parts(model, replace(cloze[0], form="letters")) == ()


def test_a_control_question_has_no_control_of_its_own(loaded, cloze):
    parts = prompt_parts(loaded("llama"), cloze.control()[0])
    assert [name for name, _ in parts] == ["question", *"ABC"]


def names_at(figure) -> list[tuple[float, str]]:
    """The names of parts and where they stand, from the left."""
    return sorted((note.x, note.text) for note in figure.layout.annotations)


def test_the_map_marks_where_parts_begin(loaded, cloze):
    model = loaded("llama")
    prompt, parts = score_prompt(model, cloze[0]), prompt_parts(model, cloze[0])
    figure = figures.token_heatmap(prompt, parts=parts)
    assert sorted(line.x0 for line in figure.layout.shapes) == [start - 0.5 for _, start in parts]
    assert set(names_at(figure)) <= {(start - 0.5, name) for name, start in parts}
    last = figure.data[0].hovertext[0][-1]
    assert (
        "option C after the control<br>" in last
        and "option C<br>" in figure.data[0].hovertext[0][parts[4][1] - 1]
    )
    assert "where the question, each option and the control" in notes(figure)
    assert not figures.token_heatmap(prompt).layout.shapes
    assert np.asarray(figure.data[0].z) == pytest.approx(np.asarray(figures.token_heatmap(prompt).data[0].z))


def test_a_window_of_the_map_marks_its_own_parts(loaded, cloze):
    model = loaded("llama")
    prompt, parts = score_prompt(model, cloze[0]), prompt_parts(model, cloze[0])
    first, last = parts[1][1] + 1, parts[3][1]  # from within option A to the first token of option C
    figure = figures.token_heatmap(prompt, parts=parts, positions=(first, last))
    starts = [-0.5, parts[2][1] - first - 0.5, last - first - 0.5]
    assert names_at(figure) == list(zip(starts, "ABC"))


def test_without_a_prior_there_is_no_control_to_mark(loaded, cloze):
    model, summed = loaded("llama"), replace(cloze[0], normalise="sum")
    figure = figures.token_heatmap(score_prompt(model, summed), parts=prompt_parts(model, summed))
    assert [name for _, name in names_at(figure)] == ["question", *"ABC"]
    assert "control" not in notes(figure)


def test_a_short_prompt_has_room_for_the_names_of_all_parts():
    parts = [("question", 0), ("A", 6), ("B", 8), ("control", 9), ("A", 11), ("B", 13)]
    figure = figures.token_heatmap(make_prompt(4, ["a"] * 14, widths={Site.MLP_GATE: 3}), parts=parts)
    assert names_at(figure) == [(start - 0.5, name) for name, start in parts]


def test_names_of_parts_that_would_overlap_are_left_to_hovering():
    prompt = make_prompt(4, ["a"] * 300, widths={Site.MLP_GATE: 3})
    parts = [("question", 0), ("A", 290), ("B", 291), ("control", 293), ("A", 296), ("B", 298)]
    figure = figures.token_heatmap(prompt, parts=parts)
    assert len(figure.layout.shapes) == 6 and "option B after the control" in figure.data[0].hovertext[0][-1]
    shown = names_at(figure)
    assert {"question", "control"} <= {name for _, name in shown} and len(shown) < 6


def test_names_of_parts_are_no_markup(loaded, cloze):
    figure = figures.token_heatmap(make_prompt(), parts=[("<b>x</b>", 0), ("A", 2)])
    assert (-0.5, "&lt;b&gt;x&lt;/b&gt;") in names_at(figure)


def test_top_cloze_questions_show_the_options_and_the_part_of_the_token(loaded, cloze):
    model, key = loaded("llama"), ("mlp.gate", 1, 3)
    scores = question_scores(model, cloze, NeuronSet.from_indices([key]), progress=False)
    table = figures.top_questions(scores, key, model=model)
    assert all(text.endswith("Answer: w12 w13 / w14 / w15 w16 w17") for text in table["question"])
    best = int(scores.weighted[:, 0].argmax())
    parts = [(n, s) for n, s in prompt_parts(model, cloze[best]) if s <= scores.tokens[best, 0]]
    assert parts[-1][0] in table["part"][0]
    assert "part" not in figures.top_questions(scores, key).columns
    card = figures.neuron_card(score_neurons(model, cloze, progress=False), key, questions=table)
    assert card.data[1].cells.values[-1] == [*table["part"]]


def test_tokens_fire_in_the_prompt_and_the_right_options_words(loaded, cloze):
    model = loaded("llama")
    table = figures.firing_tokens(model, cloze, "mlp.gate", 1, 3, count=5, batch_size=2, progress=False)
    largest = -np.inf
    for prompt in encode_cloze(model.tokenizer, cloze.questions):
        with torch.no_grad():
            _, cache = model.run_with_cache(torch.tensor([prompt.options[1]]))
        largest = max(largest, float(cache[Site.MLP_GATE.hook_name(1)][0, :, 3].max()))
    assert table["activation"][0] == pytest.approx(largest, rel=1e-4)
    assert table["activation"].is_monotonic_decreasing
