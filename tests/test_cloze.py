"""The cloze form: tokens, answers, scores, and what is selected from them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from culnig_tl import (
    EvaluationResult,
    NeuronScores,
    NeuronSet,
    ablate,
    evaluate,
    exact_effects,
    mean_outputs,
    question_scores,
    score_prompt,
    select_general,
    select_random,
    select_rival,
    select_specific,
)
from culnig_tl.data.neurons import Site
from culnig_tl.data.results import concat
from culnig_tl.engine.cloze import Layout, asked_of, encode_cloze
from culnig_tl.engine.models import device_of
from culnig_tl.engine.prompts import pad
from culnig_tl.errors import NeuronError, PromptError, ScoreError
from culnig_tl.finetuning.baking import bake
from culnig_tl.method.cloze_answers import renormalised
from culnig_tl.method.methods.registry import METHODS
from culnig_tl.tasks.question import NORMALISATIONS, Question, Task

from . import families
from .builders import questions_with_texts, some_neurons
from .helpers import difference, plain_model, score
from .oracles import cloze, other_methods

NEURONS = NeuronSet.from_indices([("attn.v", 2, 3), ("mlp.gate", 0, 5), ("mlp.gate", 0, 2), ("attn.q", 1, 7)])


@pytest.fixture(scope="module")
def letters():
    return questions_with_texts(7)


@pytest.fixture(scope="module")
def task(letters):
    return letters.cloze()


@pytest.fixture(scope="module")
def answers(loaded, task) -> EvaluationResult:
    return evaluate(loaded("llama"), task, progress=False)


def asked(prompt: str, *texts: str, control: str | None = "Answer:") -> Question:
    """A cloze question, whose first option is right."""
    labels = tuple("ABCDEFG"[: len(texts)])
    return Question(
        "t", "q", "q", prompt, labels, "A", "Japan", control=control, stem="s", texts=texts, form="cloze"
    )


# ----------------------------------------------------------------------------------------------------- tokens


def wordpieces() -> PreTrainedTokenizerFast:
    """As BERT's: words cut at blanks and punctuation, pieces inside a word begin with "##"."""
    core = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    core.normalizer = normalizers.BertNormalizer(lowercase=True)
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    core.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(
        vocab_size=300, special_tokens=["[PAD]", "[UNK]", "[BOS]", "[EOS]"], show_progress=False
    )
    core.train_from_iterator([*families.CORPUS, "Question: What is eaten? bread and soup"], trainer)
    ends = [("[BOS]", 2), ("[EOS]", 3)]
    core.post_processor = TemplateProcessing(single="[BOS] $A [EOS]", special_tokens=ends)
    return PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="[BOS]", eos_token="[EOS]", pad_token="[PAD]", unk_token="[UNK]"
    )


def merging(*merges: tuple[str, str]) -> PreTrainedTokenizerFast:
    """Characters and these merges, which may cross the border between prompt and text."""
    vocab = ["<s>", *map(chr, range(10, 127)), *(left + right for left, right in merges)]
    core = Tokenizer(models.BPE({piece: i for i, piece in enumerate(vocab)}, list(merges)))
    return PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="<s>")


TOKENIZERS = {
    "byte-level BPE": lambda: families.tokenizer("bytes"),
    "byte-level BPE without BOS": lambda: families.tokenizer("bytes", bos=False),
    "SentencePiece": lambda: families.tokenizer("pieces"),
    "SentencePiece without BOS": lambda: families.tokenizer("pieces", bos=False),
    "WordPiece": wordpieces,
    "merges over the border": lambda: merging((":", " "), ("r", ": ")),
}


def harness_pair(tokenizer, context: str, continuation: str) -> tuple[list[int], list[int]]:
    """`_encode_pair` of lm-evaluation-harness, of a tokenizer that adds nothing at the end."""

    def tokens(text: str) -> list[int]:
        found = tokenizer(text)["input_ids"]
        return found[:-1] if tokenizer.eos_token_id == found[-1] else found

    spaces = len(context) - len(context.rstrip())
    if spaces > 0:
        continuation = context[-spaces:] + continuation
        context = context[:-spaces]
    whole, known = tokens(context + continuation), tokens(context)
    return known, whole[len(known) :]


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_tokens_are_those_of_the_harness(kind, task):
    tokenizer = TOKENIZERS[kind]()
    for question, prompt in zip(task, encode_cloze(tokenizer, task.questions)):
        pairs = [harness_pair(tokenizer, question.prompt, f" {text}") for text in question.texts]
        assert [(list(prompt.context), list(text)) for text in prompt.texts] == pairs
        bare = [harness_pair(tokenizer, "Answer:", f" {text}") for text in question.texts]
        assert [(list(prompt.bare), list(text)) for text in prompt.bare_texts] == bare


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("blank", (" ", "\n", "  "))
def test_a_blank_at_the_end_of_the_prompt_belongs_to_the_text(kind, blank):
    tokenizer = TOKENIZERS[kind]()
    (prompt,) = encode_cloze(tokenizer, [asked(f"Eaten:{blank}", "rice", "soup")])
    pairs = [harness_pair(tokenizer, f"Eaten:{blank}", text) for text in ("rice", "soup")]
    assert [(list(prompt.context), list(text)) for text in prompt.texts] == pairs


def test_a_merge_over_the_border_leaves_the_prompt_as_it_is():
    tokenizer = TOKENIZERS["merges over the border"]()
    (prompt,) = encode_cloze(tokenizer, [asked("Answer:", "tea", "soup")])
    assert tokenizer.convert_ids_to_tokens(list(prompt.context)) == list("Answer:")
    assert tokenizer.convert_ids_to_tokens(tokenizer("Answer: tea")["input_ids"])[5] == "r: "
    assert tokenizer.convert_ids_to_tokens(list(prompt.texts[0])) == ["e", "a"], "two tokens are one less"


@pytest.mark.parametrize("kind", ["byte-level BPE", "SentencePiece", "WordPiece"])
def test_there_is_one_bos_and_no_eos(kind, task):
    tokenizer = TOKENIZERS[kind]()
    for prompt in encode_cloze(tokenizer, task.questions):
        for row in prompt.options:
            assert row[0] == tokenizer.bos_token_id and row.count(row[0]) == 1
            assert tokenizer.eos_token_id not in row


def test_a_chat_template_is_not_used_unless_asked(task):
    plain, chat = families.tokenizer(), families.tokenizer(chat=True)
    assert encode_cloze(chat, task.questions) == encode_cloze(plain, task.questions)


def test_in_a_chat_template_a_text_begins_the_answer(letters):
    """Prompt and control are the user's turn; the template's last line break is counted with the text."""
    tokenizer = families.tokenizer(chat=True)
    for question, prompt in zip(
        letters, encode_cloze(tokenizer, letters.cloze(chat_template=True).questions)
    ):
        for asked, start, texts in (
            (f"Question: {question.stem}\nAnswer:", prompt.context, prompt.texts),
            ("Answer:", prompt.bare, prompt.bare_texts),
        ):
            turns = [{"role": "user", "content": asked}]
            how = {"add_generation_prompt": True, "enable_thinking": False, "tokenize": False}
            text = tokenizer.apply_chat_template(turns, **how)
            for mine, option in zip(texts, question.texts):
                whole = tokenizer(text + option, add_special_tokens=False)["input_ids"]
                assert [*start, *mine] == [*[tokenizer.bos_token_id][: start[0] != whole[0]], *whole]
                assert start[0] == tokenizer.bos_token_id and start.count(start[0]) == 1


def test_special_tokens_in_an_option_stay_text_in_a_chat_template():
    tokenizer = families.tokenizer(chat=True)
    named = replace(asked("Eaten?", "</s>", "soup"), chat_template=True)
    (prompt,) = encode_cloze(tokenizer, [named])
    assert tokenizer.eos_token_id not in prompt.texts[0] and len(prompt.texts[0]) > 1


def test_a_chat_template_that_is_not_there_is_named(task):
    with pytest.raises(
        PromptError, match="asked in a chat template, and the model's tokenizer has none"
    ) as e:
        encode_cloze(families.tokenizer(), letters_in_chat(task))
    assert "--chat-template" in str(e.value) and "\n" not in str(e.value)


def letters_in_chat(task):
    return task.cloze(chat_template=True).questions


def test_answers_and_scores_in_a_chat_template_are_others_and_say_so(loaded, letters):
    model = loaded("llama", chat=True)
    plain, chat = (letters.cloze(chat_template=given)[:3] for given in (False, True))
    found = [evaluate(model, each, progress=False) for each in (plain, chat)]
    assert not np.allclose(found[0].table["p_answer"], found[1].table["p_answer"])
    assert found[1].metadata["chat_template"] == {"words": True}
    scores = score(model, chat)
    mine = found[1].table.groupby("country")["p_answer"].sum()
    assert scores.p_answer == pytest.approx([mine[country] for country in scores.countries], abs=1e-4)
    with pytest.raises(NeuronError, match="differ in chat_template: True and False"):
        select_general(scores, score(model, plain.control()))


def test_a_text_that_becomes_no_token_names_its_question():
    tokenizer = merging((":", " "), (": ", "t"))
    with pytest.raises(PromptError, match="task 't', question 'q': option 't' becomes no token"):
        encode_cloze(tokenizer, [asked("Answer:", "tea", "t")])


def test_tokens_that_count_are_the_prompts_once_and_the_texts():
    (prompt,) = encode_cloze(families.tokenizer(), [asked("Eaten? Answer:", "rice", "soup")])
    asked_alone = (*prompt.context, *prompt.texts[0], *prompt.texts[1])
    assert prompt.without_prior().counted == asked_alone
    assert prompt.counted == (*asked_alone, *prompt.bare, *prompt.bare_texts[0], *prompt.bare_texts[1])


# ------------------------------------------------------------------------------------------ what does not fit


@pytest.mark.parametrize(
    "long",
    [
        asked("Answer:", "rice", "soup " * 300),
        asked("soup " * 300 + "Answer:", "rice", "soup"),
        asked("Eaten? Answer:", "rice", "soup", control="soup " * 300 + "Answer:"),
    ],
    ids=["an option", "the prompt", "the control"],
)
@pytest.mark.parametrize("work", ["evaluate", "score"])
def test_what_exceeds_the_context_is_left_out_and_named(work, long, loaded, task, caplog):
    longer = Task(task.name, (*task[:2], replace(long, id="long")))
    model = loaded("llama")
    if work == "evaluate":
        found = evaluate(model, longer, progress=False)
        assert len(found) == 2 and found.metadata["too_long"] == {"words": ["long"]}
    else:
        found = score(model, longer)
        assert sum(found.questions) == 2 and found.metadata["too_long"] == ["long"]
    assert "'long' (" in caplog.text and "context of 256 tokens and are left out" in caplog.text


# ----------------------------------------------------------------------------------------- options in one row


def layout_of(model, prompts) -> Layout:
    return Layout.of(prompts, *pad(prompts, model.tokenizer, device_of(model)))


@pytest.mark.parametrize("family", sorted(families.FAMILIES))
def test_options_stand_in_one_row(family, loaded, task):
    model = loaded(family)
    (prompt, *_) = asked_of(model, task).prompts
    assert prompt.one_row and prompt.rows == (prompt.counted,)


def test_an_option_sees_what_it_continues_and_itself(loaded):
    model = loaded("llama")
    (prompt,) = encode_cloze(model.tokenizer, [asked("Eaten? Answer:", "rice", "bread and soup")])
    layout = layout_of(model, [prompt])
    p, first, second, c = len(prompt.context), *map(len, prompt.texts), len(prompt.bare)
    start = p + first
    assert layout.seen is not None and layout.positions is not None
    assert layout.seen[0, start + 1].nonzero().flatten().tolist() == [*range(p), start, start + 1]
    control = start + second
    last = layout.seen[0, -1].nonzero().flatten().tolist()
    assert last == [*range(control, control + c), *range(len(prompt.counted) - second, len(prompt.counted))]
    assert layout.positions[0, start : start + 2].tolist() == [p, p + 1]
    assert layout.positions[0, -second:].tolist() == [*range(c, c + second)]


@pytest.mark.parametrize("family", ["phi3-sliding", "gemma3-text", "gpt2"])
def test_a_model_told_the_wrong_masks_or_positions_has_rows_of_their_own(
    family, loaded, task, monkeypatch, caplog
):
    """What a model that keeps to neither would look like: windows and absolute positions are left out."""
    model = loaded(family)
    right = evaluate(model, task, progress=False)

    def careless(model, layout):
        if layout.seen is None:
            return {"attention_mask": layout.mask}
        whole = torch.zeros(layout.seen.shape).masked_fill_(~layout.seen, torch.finfo(torch.float32).min)
        return {"attention_mask": whole[:, None]}

    monkeypatch.setattr("culnig_tl.engine.cloze._attended", careless)
    caplog.set_level("INFO", logger="culnig_tl")
    found = evaluate(model, task, progress=False)
    assert "options are run as rows of their own, which takes longer: logits differ" in caplog.text
    for mine, theirs in zip(found.table["log_likelihoods"], right.table["log_likelihoods"]):
        np.testing.assert_allclose(mine, theirs, atol=1e-4)


def test_a_model_that_takes_neither_one_row_nor_padding_is_not_asked(loaded, task, monkeypatch):
    """Rows of their own have different lengths, with padding before the shorter."""
    model = loaded("llama")
    monkeypatch.setattr("culnig_tl.engine.cloze._not_in_one_row", lambda *_: "it is a test")

    def poison(pattern, hook):
        hidden = pattern.sum(-1, keepdim=True) < 0.5  # rows of padding
        first = (pattern[:, :, -1:, :1] == 0).expand_as(hidden)
        return pattern.masked_fill(hidden | first, np.nan)

    with model.hooks(fwd_hooks=[("blocks.1.attn.hook_pattern", poison)]):
        with pytest.raises(ScoreError, match="padding changes what this model says.*form 'letters'"):
            score(model, task)
        with pytest.raises(ScoreError, match="padding changes what this model says.*form 'letters'"):
            evaluate(model, task, progress=False)


@pytest.mark.parametrize("method", ["ig", "exact"])
def test_what_wants_one_row_says_so(method, loaded, task, monkeypatch):
    monkeypatch.setattr("culnig_tl.engine.cloze._not_in_one_row", lambda *_: "it is a test")
    with pytest.raises(ScoreError, match="wants a question's options in one row, which this model cannot"):
        if method == "ig":
            score(loaded("llama"), task, method="ig")
        else:
            exact_effects(loaded("llama"), task, NEURONS, progress=False)


# ---------------------------------------------------------------------------------------------------- answers


def same(one: EvaluationResult, other: EvaluationResult) -> bool:
    pd.testing.assert_frame_equal(one.table, other.table)
    return True


def test_a_row_says_what_was_asked_and_answered(answers, task):
    row, q = answers.table.iloc[1], task[1]
    assert (row["id"], row["country"], row["answer"]) == (q.id, q.country, q.answer)
    assert (tuple(row["labels"]), tuple(row["texts"])) == (q.options, q.texts)
    best = int(np.argmax(np.subtract(row["log_likelihoods"], row["priors"])))
    assert (row["predicted"], row["predicted_label"]) == (q.texts[best], q.options[best])
    assert row["correct"] == row["correct_label"] == (q.options[best] == q.answer)


@pytest.mark.parametrize("normalise", NORMALISATIONS)
def test_every_normalisation_is_read_from_one_run(normalise, answers, loaded, task):
    again = evaluate(loaded("llama"), task.normalised(normalise), progress=False)
    assert same(renormalised(answers, normalise), again)
    assert renormalised(answers, normalise).metadata["normalise"] == {"words": normalise}


def test_normalisations_differ(answers):
    p = {name: tuple(renormalised(answers, name).table["p_answer"]) for name in NORMALISATIONS}
    assert len(set(p.values())) == 3


@pytest.mark.parametrize("normalise", NORMALISATIONS)
def test_predictions_follow_the_formula(normalise, answers):
    for row in renormalised(answers, normalise).table.itertuples():
        ll, prior = np.array(row.log_likelihoods), np.array(row.priors)
        value = {"sum": ll, "unconditional": ll - prior, "length": ll / [len(t) for t in row.texts]}[
            normalise
        ]
        p = np.exp(value) / np.exp(value).sum()
        assert row.p_answer == pytest.approx(p[list(row.labels).index(row.answer)])
        assert row.predicted == row.texts[int(p.argmax())]


def test_controls_have_no_prior(loaded, task):
    result = evaluate(loaded("llama"), task.control(), progress=False)
    assert all(not np.any(prior) for prior in result.table["priors"])
    assert same(renormalised(result, "sum"), result)


def test_an_unknown_normalisation_names_those_there_are(answers):
    with pytest.raises(ScoreError, match="unknown normalise 'bytes': use unconditional, sum, length"):
        renormalised(answers, "bytes")


def test_answers_by_label_have_no_likelihoods_to_normalise(loaded, letters):
    result = evaluate(loaded("llama"), letters[:2], progress=False)
    with pytest.raises(ScoreError, match="ask with form='cloze'"):
        renormalised(result, "sum")


def test_a_result_is_saved_and_read_back(answers, tmp_path):
    back = EvaluationResult.load(answers.save(tmp_path / "r.parquet"))
    assert back.metadata == answers.metadata
    for name in answers.table.columns:
        if name in ("labels", "texts", "log_likelihoods", "priors"):
            assert [list(v) for v in back.table[name]] == [list(v) for v in answers.table[name]]
    plain = [name for name in answers.table.columns if name not in ("labels", "texts", "log_likelihoods")]
    assert list(back.table.columns) == list(answers.table.columns) and len(plain) > 10
    assert back.accuracy().equals(answers.accuracy())


@pytest.mark.parametrize("normalise", NORMALISATIONS)
def test_a_result_read_back_is_normalised_in_every_way(normalise, answers, tmp_path):
    back = renormalised(EvaluationResult.load(answers.save(tmp_path / "r.parquet")), normalise)
    assert back.accuracy().equals(renormalised(answers, normalise).accuracy())


def test_the_same_answers_are_the_same_bytes(answers, loaded, task, tmp_path):
    again = evaluate(loaded("llama"), task, progress=False)
    files = [r.save(tmp_path / name) for r, name in ((answers, "a.parquet"), (again, "b.parquet"))]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_results_of_several_tasks_are_put_together(answers, loaded):
    other = questions_with_texts(3, task="others").cloze()
    both = concat([answers, evaluate(loaded("llama"), other.normalised("sum"), progress=False)])
    assert both.metadata["normalise"] == {"words": "unconditional", "others": "sum"}
    assert both.metadata["form"] == {"words": "cloze", "others": "cloze"}
    assert renormalised(both, "length").metadata["normalise"] == {"words": "length", "others": "length"}


def test_of_both_forms_together_accuracy_is_known_and_nothing_is_normalised(answers, loaded, tmp_path):
    letters = evaluate(loaded("llama"), families.questions(3), progress=False)
    both = concat([answers, letters])
    assert both.metadata["form"] == {"words": "cloze", "small": "letters"}
    assert list(EvaluationResult.load(both.save(tmp_path / "r.parquet")).accuracy().index) == [
        "words",
        "small",
    ]
    with pytest.raises(ScoreError, match="ask with form='cloze'"):
        renormalised(both, "sum")


@pytest.mark.parametrize("size", (1, 2, 7))
def test_batches_do_not_change_answers(size, answers, loaded, task):
    found = evaluate(loaded("llama"), task, batch_size=size, progress=False).table
    for mine, theirs in zip(found["log_likelihoods"], answers.table["log_likelihoods"]):
        np.testing.assert_allclose(mine, theirs, atol=1e-4)


def test_the_order_of_questions_does_not_change_answers(answers, loaded, task):
    turned = Task(task.name, task.questions[::-1])
    found = evaluate(loaded("llama"), turned, progress=False).table
    assert list(found["id"]) == list(answers.table["id"])[::-1]
    assert found["p_answer"].to_numpy()[::-1] == pytest.approx(answers.table["p_answer"].to_numpy(), abs=1e-5)


def test_a_question_that_gives_nan_is_named(loaded, task):
    """One token of its own makes the model overflow; others are not touched by it."""
    model = loaded("llama")
    odd = replace(task[3], id="odd", texts=("{}{}", *task[3].texts[1:]))
    token = encode_cloze(model.tokenizer, [odd])[0].texts[0][-1]

    def overflow(embedding, hook):
        return embedding.masked_fill((seen[-1] == token)[:, :, None], np.nan)

    seen: list = []
    forward = model.forward
    try:
        model.forward = lambda tokens, *a, **k: (seen.append(tokens), forward(tokens, *a, **k))[1]
        with model.hooks(fwd_hooks=[("hook_embed", overflow)]):
            with pytest.raises(ScoreError, match="question 'odd' of words gives NaN or infinity"):
                evaluate(model, Task(task.name, (*task[:3], odd)), batch_size=1, progress=False)
    finally:
        del model.forward


# --------------------------------------------------------------------------------------------------- ablation


def test_the_empty_set_is_the_baseline_bit_for_bit(answers, loaded, task):
    nothing = NeuronSet.from_indices([])
    assert same(evaluate(loaded("llama"), task, ablate=nothing, progress=False), answers)


@pytest.mark.parametrize("family", ["llama", "gemma3-text", "gpt2"])
def test_suppressed_neurons_are_those_of_the_baked_checkpoint(family, loaded, checkpoints, task, tmp_path):
    model = loaded(family)
    neurons = some_neurons(model)
    plain = plain_model(bake(checkpoints(family), neurons, tmp_path / "baked"))
    table = evaluate(model, task[:4], ablate=neurons, progress=False).table
    for row, q in zip(table.itertuples(), task):
        expected = cloze.likelihoods(plain, model.tokenizer, q.prompt, q.texts)
        np.testing.assert_allclose(row.log_likelihoods, expected, atol=1e-3)
        expected = cloze.likelihoods(plain, model.tokenizer, q.control, q.texts)
        np.testing.assert_allclose(row.priors, expected, atol=1e-3)


def test_suppressing_changes_answers_and_is_named(answers, loaded, task):
    found = evaluate(loaded("llama"), task, ablate=some_neurons(loaded("llama")), progress=False)
    assert found.metadata["operation"] == "suppress"
    assert not np.allclose(found.table["p_answer"], answers.table["p_answer"])


@pytest.mark.parametrize("how", [{"scale": 2.0}, {"to": "means"}], ids=["enhanced", "at their means"])
def test_evaluation_changes_neurons_as_ablate_does(how, loaded, task):
    model = loaded("llama")
    neurons = some_neurons(model)
    if "to" in how:
        how = {"to": mean_outputs(model, task, progress=False)}
    found = evaluate(model, task[:3], ablate=neurons, progress=False, **how).table
    with ablate(model, neurons, **how):
        inside = evaluate(model, task[:3], progress=False).table
    for mine, theirs in zip(found["log_likelihoods"], inside["log_likelihoods"]):
        np.testing.assert_allclose(mine, theirs, atol=1e-4)


# ----------------------------------------------------------------------------------------------------- scores


@pytest.mark.parametrize("method", ["culnig", "culnig-sum", "culnig-mean", "culnig-post"])
@pytest.mark.parametrize("size", [1, 3])
def test_batches_do_not_change_scores(method, size, loaded, task):
    model = loaded("qwen3")
    whole = score(model, task, method=method, batch_size=len(task))
    assert difference(score(model, task, method=method, batch_size=size), whole) < 1e-4


def test_scores_of_a_country_are_those_of_its_questions(loaded, task):
    model = loaded("llama")
    japan = score(model, task.filter(lambda q: q.country == "Japan"))
    whole = score(model, task)
    for site in whole.sites:
        mine, theirs = whole.of("Japan")[site], japan.of("Japan")[site]
        assert np.abs(mine - theirs).max() <= 1e-4 * np.abs(theirs).max()


def test_several_methods_share_a_pass(loaded, task):
    model, names = loaded("llama"), ["culnig", "culnig-mean", "lape", "random"]
    found = score(model, task, method=names)
    for name in names:
        alone = score(model, task, method=name)
        assert found[name].metadata["form"] == alone.metadata["form"] == "cloze"
        assert all(np.array_equal(found[name].arrays[site], alone.arrays[site]) for site in alone.sites)


def test_lape_counts_the_prompt_once_and_each_option(loaded, checkpoints, task):
    model, plain = loaded("llama"), plain_model(checkpoints("llama"))
    counts = {c: np.zeros((3, 72), int) for c in task.countries}
    tokens = dict.fromkeys(task.countries, 0)
    for q in task:
        start = 0
        for text in q.texts:
            context, own = cloze.encoded(model.tokenizer, q.prompt, text)
            for (site, layer), (activation, _) in other_methods.look(plain, context + own, 0)[0].items():
                if site == "mlp.gate":
                    counts[q.country][layer] += (activation[start:] > 0).sum(0).numpy()
            tokens[q.country] += len(context) + len(own) - start
            start = len(context)  # of the further options, their own tokens
    expected = other_methods.lape({c: table.tolist() for c, table in counts.items()}, tokens)
    found = score(model, task, method="lape")
    for country in task.countries:
        np.testing.assert_allclose(found.of(country)[Site.MLP_GATE], np.array(expected[country]), atol=1e-6)


def test_cape_takes_a_language_task_in_the_same_form(loaded, task):
    language = questions_with_texts(4, task="language").cloze()
    scores = score(loaded("llama"), task, method="cape", language=language)
    assert scores.metadata["method"] == "cape" and scores.metadata["form"] == "cloze"


def test_the_method_that_does_not_score_the_form_says_so_in_one_line(loaded, task):
    assert [name for name, method in METHODS.items() if not method.cloze] == ["atp-qk"]
    with pytest.raises(ScoreError, match="method 'atp-qk' does not score the cloze form: use") as error:
        score(loaded("llama"), task, method="atp-qk")
    assert "culnig" in str(error.value) and "\n" not in str(error.value)


def test_replicates_are_drawn_as_for_letters(loaded, task):
    scores = score(loaded("llama"), task, bootstrap=2)
    sums = [scores.replicate(number) for number in range(2)]
    assert all(s.metadata["form"] == "cloze" for s in sums)
    assert not np.array_equal(sums[0].arrays[Site.MLP_GATE], sums[1].arrays[Site.MLP_GATE])


def test_metadata_say_the_form_and_the_normalisation(loaded, letters, task, answers):
    scores = score(loaded("llama"), task)
    assert (scores.metadata["form"], scores.metadata["normalise"]) == ("cloze", "unconditional")
    assert 100 * scores.metadata["accuracy"] == pytest.approx(answers.accuracy(None)["accuracy"].iloc[0])
    assert score(loaded("llama"), letters).metadata["form"] == "letters"


@pytest.mark.parametrize("normalise", NORMALISATIONS)
def test_scoring_and_asking_give_the_same_probabilities(normalise, answers, loaded, task):
    scores = score(loaded("llama"), task.normalised(normalise))
    p = renormalised(answers, normalise).table.groupby("country")["p_answer"].sum()
    assert scores.p_answer == pytest.approx([p[country] for country in scores.countries], abs=1e-4)


# ----------------------------------------------------------------------------------------------- a close look


@pytest.mark.parametrize("normalise", NORMALISATIONS)
def test_question_scores_add_up_to_the_scores(normalise, loaded, task):
    model = loaded("llama")
    found = question_scores(model, task.normalised(normalise), NEURONS, progress=False)
    scores = score(model, task.normalised(normalise))
    for (site, layer, neuron), column in NEURONS.columns.items():
        for country in scores.countries:
            mine = sum(found.weighted[i, column] for i, q in enumerate(task) if q.country == country)
            theirs = scores.of(country)[Site(site)][layer]
            assert mine == pytest.approx(theirs[neuron], abs=1e-4 * float(np.abs(theirs).max()))


def test_question_scores_say_where_the_largest_sat(loaded, task):
    model = loaded("llama")
    found = question_scores(model, task, NEURONS, progress=False)
    for number in (0, 3):
        along = score_prompt(model, task[number])
        for (site, layer, neuron), column in NEURONS.columns.items():
            values = along.arrays[Site(site)][layer, :, neuron]
            assert values.max() == pytest.approx(found.scores[number, column], rel=1e-3, abs=1e-9)
            assert values[found.tokens[number, column]] == pytest.approx(values.max(), rel=1e-3, abs=1e-9)
        assert along.tokens == found.token_texts[number]


@pytest.mark.parametrize("normalise", NORMALISATIONS)
def test_one_prompt_equals_the_literal_method(normalise, loaded, checkpoints, task):
    model, q = loaded("llama"), replace(task[2], normalise=normalise)
    along = score_prompt(model, q)
    expected, p = cloze.question(plain_model(checkpoints("llama")), model.tokenizer, q, normalise)
    assert along.p_answer == pytest.approx(p, abs=1e-5) and along.answer == q.texts[q.options.index(q.answer)]
    for site, array in along.arrays.items():
        for layer, mine in enumerate(array):
            theirs = np.array([s.tolist() for s in expected[site.value, layer]])
            assert np.abs(mine - theirs).max() <= 1e-4 * np.abs(theirs).max()
    assert len(along.tokens) == len(theirs)


def test_one_prompt_names_its_likeliest_options(loaded, task, answers):
    along = score_prompt(loaded("llama"), task[1])
    assert along.top_tokens[0][0] == answers.table["predicted"][1]
    assert {text for text, _ in along.top_tokens} == set(task[1].texts)
    assert sum(p for _, p in along.top_tokens) == pytest.approx(1)


# -------------------------------------------------------------------------------------------------- selection


@pytest.fixture(scope="module")
def scored(loaded, letters, task) -> dict[str, NeuronScores]:
    model = loaded("llama")
    return {
        "letters": score(model, letters),
        "cloze": score(model, task),
        "control": score(model, task.control()),
    }


def selected(scored) -> NeuronSet:
    return select_general(scored["cloze"], scored["control"], top_mlp=0.1, top_attn=0.1)


def test_a_set_knows_its_form(scored):
    assert selected(scored).provenance.form == "cloze"
    assert select_general(scored["letters"], top_mlp=0.1, top_attn=0.1).provenance.form == "letters"


@pytest.mark.parametrize("end", ["parquet", "csv"])
def test_the_form_survives_a_file(end, scored, tmp_path):
    back = NeuronSet.load(selected(scored).save(tmp_path / f"set.{end}"))
    assert back.provenance.form == "cloze"


def test_the_form_of_scores_survives_a_file(scored, tmp_path):
    back = NeuronScores.load(scored["cloze"].save(tmp_path / "s.safetensors"))
    assert back.metadata["form"] == "cloze"


def test_specific_sets_know_their_form(scored):
    assert select_specific(scored["cloze"], top=0.1, z=0).provenance.form == "cloze"


def test_random_and_rival_sets_know_their_form(scored):
    general = selected(scored)
    assert select_random(general, scored["cloze"], seed=0).provenance.form == "cloze"
    assert select_rival(general, scored["cloze"]).provenance.form == "cloze"


@pytest.mark.parametrize("select", [select_general, select_specific])
def test_forms_are_not_mixed(select, scored):
    with pytest.raises(NeuronError, match="differ in form: 'cloze' and 'letters'") as error:
        select(scored["cloze"], scored["letters"])
    assert "\n" not in str(error.value)


def test_scores_from_before_there_were_forms_are_of_letters(scored):
    letters = scored["letters"]
    before = replace(letters, metadata={k: v for k, v in letters.metadata.items() if k != "form"})
    assert select_general(letters, before, top_mlp=0.1, top_attn=0.1).provenance.form == "letters"
    with pytest.raises(NeuronError, match="differ in form: 'cloze' and 'letters'"):
        select_general(scored["cloze"], before)


def test_options_of_the_same_tokens_are_logged(caplog):
    tokenizer = wordpieces()
    encode_cloze(tokenizer, [asked("Eaten:", "rice", "soup")])
    assert caplog.text == ""
    encode_cloze(tokenizer, [asked("Eaten:", "☃", "☄")])
    assert "1 of 1 questions have options that become the same tokens" in caplog.text
