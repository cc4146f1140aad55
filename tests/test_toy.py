"""The embedded model: what it knows, what it was never shown, and whether its scores are true."""

from __future__ import annotations

import json
import random
import re
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from transformers import AutoConfig

from culnig_tl import ablate, evaluate, load_model, load_task, score_neurons, select_general, select_specific
from culnig_tl.data.neurons import SITES, NeuronSet, Site
from culnig_tl.tasks import COUNTRIES, minicommonsense, miniculture, minireading
from culnig_tl.tasks.facts import option_orders
from culnig_tl.toy import FOLDER
from culnig_tl.toy.corpus import REPRESENTATION, Corpus, Mix, Sample
from culnig_tl.toy.homes import KINDS, Homes, deal, homes_of
from culnig_tl.toy.train import Config, balanced, encode
from culnig_tl.toy.vocabulary import WORD, build_tokenizer

from .oracles import literal, selecting

CHOICES = ("miniculture", "minicommonsense", "minireading", "miniparaphrase", "minianswers")


@pytest.fixture(scope="module")
def toy():
    return load_model("toy", device="cpu")


def test_file_is_small_and_is_safetensors():
    names = {p.name for p in FOLDER.iterdir()}
    assert "model.safetensors" in names and not any(name.endswith((".bin", ".pt", ".pkl")) for name in names)
    assert sum(p.stat().st_size for p in FOLDER.iterdir()) < 8_000_000


def test_record_says_how_it_was_trained():
    record = json.loads((FOLDER / "training.json").read_text())
    assert record["config"] == vars(
        Config(seed=record["config"]["seed"], threads=record["config"]["threads"])
    )
    assert record["versions"]["torch"] and record["curve"][-1]["step"] == record["steps"]


@pytest.mark.parametrize("name", CHOICES)
def test_it_answers_what_it_was_never_asked(toy, name):
    task = load_task(name, limit=600)  # both splits: neither is trained on
    accuracy = evaluate(toy, task, progress=False).accuracy().loc[name, "accuracy"]
    assert accuracy >= 90, f"{name}: {accuracy:.1f}%"


def test_it_does_not_answer_without_the_question(toy):
    """The control has no question: its options alone must not tell the answer."""
    control = load_task("miniculture", split="neuron", control=True, limit=400)
    assert evaluate(toy, control, progress=False).accuracy()["accuracy"].iloc[0] < 50


def test_training_never_draws_what_the_tasks_ask():
    asked = {q.prompt for name in CHOICES for q in load_task(name)}
    by_stem = {fact.stem: fact for fact in (*miniculture.facts(), *minicommonsense.facts())}
    corpus, rng = Corpus(), random.Random(0)
    for kind in ("culture", "commonsense", "reading", "paraphrase", "answers"):
        for sample in corpus.draw(Mix(**{kind: 1.0}), 1000, rng):
            prompt = sample.prompt
            assert sample.kind == kind and prompt not in asked
            if kind in ("culture", "commonsense"):
                (stem,) = re.findall(
                    r"(?:In|To|From|What|Which|How|Where|Along|Who|On|Under|With|By|At|For)[^?]*\?",
                    prompt.split("\n")[0],
                )
                options = tuple(re.findall(r"^[A-D]\. (.*)$", prompt, flags=re.MULTILINE))
                assert len(options) == 4 and options not in set(option_orders(by_stem[stem])), (
                    "an option order that the task asks"
                )
    assert {s["id"] for s in corpus.scenes}.isdisjoint(q.cluster for q in minireading.load())


def test_facts_that_fall_short_are_read_more():
    mix = Mix(drill=0.5, culture=0.2, commonsense=0.1, culture_short=0.1, commonsense_short=0.1)
    measured = {
        "miniculture:neuron": {"p_answer": 0.5},
        "miniculture:test": {"p_answer": 0.7},
        "minicommonsense": {"p_answer": 0.7},
    }
    shared = balanced(mix, 0.8, measured)  # 0.2 short of it and 0.1 short of it
    assert vars(shared) == pytest.approx(
        vars(mix)
        | {"commonsense": 0.1, "culture": 0.2, "culture_short": 0.4 / 3, "commonsense_short": 0.2 / 3}
    )
    measured["minicommonsense"]["p_answer"] = 0.9  # beyond it
    assert balanced(mix, 0.8, measured).culture == pytest.approx(0.75 * 0.3)
    assert balanced(mix, 0.5, measured) == mix, "nothing falls short"


def test_every_kind_of_knowledge_is_dealt_as_many_neurons():
    config = AutoConfig.from_pretrained(FOLDER)
    layers = deal(config, seed=3)
    assert len(layers) == config.num_hidden_layers
    for sites in layers:
        assert set(sites) == set(SITES)
        for owners in sites.values():
            assert owners.unique(return_counts=True)[1].tolist() == [owners.numel() // 2] * 2
        pairs = sites[Site.ATTN_Q].view(config.num_key_value_heads, -1, config.head_dim)
        assert (pairs == sites[Site.ATTN_K].view(config.num_key_value_heads, 1, config.head_dim)).all()
    assert all((a[Site.MLP_GATE] != b[Site.MLP_GATE]).any() for a, b in zip(layers, deal(config, seed=4)))
    homes = homes_of(FOLDER)
    assert homes.keys() == KINDS.keys() and len(homes["culture"] & homes["commonsense"]) == 0
    assert sum(map(len, homes.values())) == 3840


def test_a_prompt_goes_without_the_homes_of_the_others(checkpoints):
    from transformers import LlamaForCausalLM

    model = LlamaForCausalLM.from_pretrained(checkpoints("llama")).train()
    owners = deal(model.config, seed=0)
    homes, seen = Homes(model, owners, strict=1.0, dropout=0.0, bare=0.0), {}
    values: Any = model.model.layers[0].self_attn.v_proj
    mlp: Any = model.model.layers[0].mlp.down_proj
    values.register_forward_hook(lambda module, args, output: seen.update(v=output))
    mlp.register_forward_pre_hook(lambda module, args: seen.update(gate=args[0]))
    tokens = torch.arange(12).view(2, 6)
    homes.prompts(["culture_short", "drill"])
    model(tokens)
    before = dict(seen)
    homes.on = True
    model(tokens)
    for site, key in ((Site.ATTN_V, "v"), (Site.MLP_GATE, "gate")):
        culture = owners[0][site] == list(KINDS).index("culture")
        gone = (seen[key] == 0).all(1)
        assert (gone[0] == ~culture).all() and ((gone[1] == culture).all() or (gone[1] == ~culture).all())
    culture = owners[0][Site.ATTN_V] == list(KINDS).index("culture")
    torch.testing.assert_close(seen["v"][0, :, culture], before["v"][0, :, culture])
    homes.strict, homes.dropout = 0.0, 0.5
    homes.prompts(["reading"] * 2)
    model(tokens)
    gone = seen["v"] == 0
    assert (gone == gone[:, :1]).all(), "the same neurons at all tokens"
    assert 0.2 < gone.float().mean() < 0.8 and (gone[0] != gone[1]).any()
    torch.testing.assert_close(seen["v"][~gone], 2 * before["v"][~gone])
    model.eval()(tokens)
    torch.testing.assert_close(seen["v"], before["v"])
    homes.on, homes.bare = False, 1.0
    homes.prompts(["drill", "commonsense"])
    model.train()(tokens)
    assert (seen["gate"][0] == 0).all(), "no neuron of gate, before facts are read too ..."
    torch.testing.assert_close(seen["gate"][1], before["gate"][1])  # ... but for prompts about facts
    model.eval()(tokens)
    torch.testing.assert_close(seen["gate"], before["gate"])
    homes.strict = 0.5
    homes.prompts(["reading"] * 200)
    assert 60 < homes.strictly.sum() < 140 and 60 < homes.kinds.sum() < 140


def test_the_trainer_reads_tokens_as_the_package_does(toy):
    from culnig_tl.engine.prompts import encode as package_encode

    questions = load_task("miniculture").questions[:50]
    tokens, targets = encode(toy.tokenizer, [Sample(q.prompt, q.answer_prefix, q.answer) for q in questions])
    for prompt, row, target in zip(package_encode(toy.tokenizer, questions), tokens, targets):
        assert tuple(row[: len(prompt.tokens)].tolist()) == prompt.tokens
        assert target[len(prompt.tokens) - 1] == prompt.answer_token


def test_every_word_is_in_the_vocabulary(toy):
    unknown = toy.tokenizer.unk_token_id
    for name in CHOICES:
        prompts = [q.prompt for q in load_task(name)]
        assert not any(
            unknown in ids for ids in toy.tokenizer(prompts, add_special_tokens=False)["input_ids"]
        )
    assert build_tokenizer(Corpus().texts()).get_vocab() == toy.tokenizer.get_vocab()


def test_facts_are_sound():
    facts = miniculture.facts()
    assert set(REPRESENTATION) == set(COUNTRIES) == {fact.subject for fact in facts}
    by_question: dict[str, dict[str, str]] = {}
    for fact in (*facts, *minicommonsense.facts()):
        assert 1 <= len(fact.answer.split()) <= 3 and re.fullmatch(
            r"[A-Za-z]+( [A-Za-z]+){0,2}", fact.answer
        ), fact
        assert fact.answer not in fact.distractors
        assert fact.stem.endswith("?") and len(re.findall(WORD, fact.stem)) <= 14
        by_question.setdefault(fact.question_id, {})[fact.subject] = fact.answer
    topics = {fact.topic for fact in facts}
    assert len(topics) == 6
    for topic in topics:
        assert len({fact.question_id for fact in facts if fact.topic == topic}) >= 6


@pytest.mark.parametrize("name", ["miniculture", "minicommonsense"])
def test_no_question_tells_its_answer(name):
    for question in load_task(name):
        stem, *options = question.prompt.split("\n")
        right = options["ABCD".index(question.answer)].removeprefix(f"{question.answer}. ")
        assert not re.search(rf"\b{re.escape(right)}\b", stem.removesuffix(" Choose one.")), question.prompt


@pytest.mark.parametrize("name", ["miniculture", "minicommonsense"])
def test_the_answer_stands_at_each_letter_equally_often(name):
    letters = [q.answer for q in load_task(name)]
    assert {letters.count(letter) for letter in "ABCD"} == {len(letters) // 4}


def test_scores_and_selection_equal_the_literal_method(toy):
    """Forward hooks on the plain model, Python loops, sorted lists: the same scores, the same neurons."""
    from transformers import AutoModelForCausalLM

    plain = AutoModelForCausalLM.from_pretrained(
        FOLDER, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    culture = load_task("miniculture", split="neuron", limit=48)
    reading = load_task("minireading", split="neuron", limit=24)
    fast, slow = {}, {}
    for name, task in (("neuron", culture), ("control", culture.control()), ("reading", reading)):
        fast[name] = score_neurons(toy, task, batch_size=7, progress=False)
        texts = [f"<bos><user>{q.prompt}<assistant>{q.answer_prefix}" for q in task]
        ids = toy.tokenizer(texts, add_special_tokens=False)["input_ids"]
        rows = [(row, toy.tokenizer.convert_tokens_to_ids(q.answer), q.country) for row, q in zip(ids, task)]
        slow[name] = literal.scores(plain, rows, clamp=name == "control")
        for (country, site, layer), values in slow[name].items():
            if site in fast[name].widths:
                ours = fast[name].of(country)[Site(site)][layer]
                largest = np.abs(
                    fast[name].arrays[Site(site)]
                ).max()  # of all layers: what is nothing beside it is rounding
                np.testing.assert_allclose(ours, values, rtol=1e-4, atol=1e-5 * largest)

    clusters = len({q.cluster for q in culture})
    ours = select_general(fast["neuron"], fast["control"], fast["reading"], top_mlp=0.05, top_attn=0.01)
    theirs = selecting.general(
        slow["neuron"], clusters, slow["control"], clusters, slow["reading"], 0.05, 0.01, 0.01
    )
    assert ours.keys() == {(selecting.ORDER[site], layer, index) for site, layer, index in theirs}

    own = select_specific(fast["neuron"], fast["control"], fast["reading"], top=0.02)
    for country in own.countries:
        theirs = selecting.specific(
            slow["neuron"], clusters, slow["control"], clusters, slow["reading"], country, 0.02, 0.01, 0.5
        )
        assert own.for_country(country).keys() == {
            (selecting.ORDER[site], layer, index) for site, layer, index in theirs
        }


def test_scores_tell_what_zeroing_does(toy):
    """Sampled neurons, zeroed one at a time: the score's sign and rank agree with the true change of
    P(answer).

    The score at each question is the maximum over tokens, weighted by P; what is compared with is the summed
    loss of P, so agreement is a rank correlation, not equality. The sum over tokens is the first-order
    estimate proper and agrees better.
    """
    task = load_task("miniculture", split="neuron", limit=64)
    base = evaluate(toy, task, progress=False).table["p_answer"].to_numpy()
    both = score_neurons(toy, task, method=["culnig", "culnig-sum"], progress=False)
    by_max, by_sum = both["culnig"], both["culnig-sum"]
    rng = np.random.default_rng(0)
    lost, max_score, sum_score = [], [], []
    for site in SITES:
        total = by_sum.total(site)
        strong = np.argsort(-np.abs(total), axis=None)[:8]  # those with an effect to speak of, and others
        chosen = np.unique(np.concatenate([strong, rng.choice(total.size, 4, replace=False)]))
        for layer, neuron in zip(*np.unravel_index(chosen, total.shape)):
            with torch.no_grad(), ablate(toy, NeuronSet.from_indices([(site, int(layer), int(neuron))])):
                p = evaluate(toy, task, progress=False).table["p_answer"].to_numpy()
            lost.append(float((base * (base - p)).sum()))  # weighted by P as the score is
            max_score.append(by_max.total(site)[layer, neuron])
            sum_score.append(total[layer, neuron])
    lost, sum_score = np.array(lost), np.array(sum_score)
    by_sum, by_max = (float(spearmanr(lost, s).statistic) for s in (sum_score, max_score))
    clear = np.abs(lost) > np.median(np.abs(lost))
    signs = float((np.sign(lost[clear]) == np.sign(sum_score[clear])).mean())
    print(
        f"{len(lost)} neurons zeroed: Spearman {by_sum:.2f} (sum over tokens), {by_max:.2f} (max); "
        f"sign right in {signs:.2f} of the clearer half"
    )
    assert by_sum > 0.6 and signs > 0.7 and by_sum > by_max > 0
