"""Questions to tokens: one BOS, labels in context, batches without waste."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from culnig_tl.engine.prompts import MOST_PADDING, TOKENS_PER_BATCH, encode, pad, plan_batches, render
from culnig_tl.errors import PromptError

from . import families

KINDS = ["bytes", "pieces"]
WITHOUT_BOS = families.CHAT_TEMPLATE.replace("{{ bos_token }}", "")


@pytest.fixture(scope="module")
def question():
    return families.questions(1)[0]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("chat", [False, True])
def test_labels_are_the_tokens_that_follow_in_context(kind, chat, question):
    tokenizer = families.tokenizer(kind, chat=chat)
    (prompt,) = encode(tokenizer, [question])
    text = render(tokenizer, question)
    space = "" if chat else " "  # a base model's text goes on "Answer: A", an answer turn starts with "A"
    for label, token in zip(question.options, prompt.option_tokens):
        whole = tokenizer(text + space + label, add_special_tokens=not chat)["input_ids"]
        assert whole == [*prompt.tokens, token]
        assert tokenizer.decode([token]).strip() == label
    assert prompt.answer_token == prompt.option_tokens[question.options.index(question.answer)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_label_in_context_is_not_the_bare_label(kind, question):
    tokenizer = families.tokenizer(kind)
    for word in CORPUS_WITH_LABELS:
        tokenizer.add_tokens(word)
    (plain,) = encode(tokenizer, [question])
    (after_prefix,) = encode(tokenizer, [replace(question, answer_prefix='{"answer":"')])
    assert tokenizer.decode(after_prefix.tokens).endswith('{"answer":"')
    assert plain.answer_token != after_prefix.answer_token


CORPUS_WITH_LABELS = [" A", " B", " C", " D"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "template", [None, families.CHAT_TEMPLATE, "{{ bos_token }}" + families.CHAT_TEMPLATE, WITHOUT_BOS]
)
def test_one_bos_exactly(kind, template, question):
    tokenizer = families.tokenizer(kind)
    tokenizer.chat_template = template
    (prompt,) = encode(tokenizer, [question])
    assert prompt.tokens[0] == tokenizer.bos_token_id
    assert prompt.tokens.count(tokenizer.bos_token_id) == 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("template", [None, WITHOUT_BOS])
def test_no_bos_where_the_tokenizer_uses_none(kind, template, question):
    tokenizer = families.tokenizer(kind, bos=False)
    tokenizer.chat_template = template
    (prompt,) = encode(tokenizer, [question])
    assert tokenizer.bos_token_id not in prompt.tokens


def test_an_eos_that_the_tokenizer_adds_is_left_out(question):
    from tokenizers.processors import TemplateProcessing

    tokenizer = families.tokenizer("pieces")
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    assert tokenizer("a")["input_ids"][-1] == tokenizer.eos_token_id
    (prompt,) = encode(tokenizer, [question])
    assert tokenizer.eos_token_id not in prompt.tokens


def test_thinking_is_off_and_the_answer_turn_is_started(question):
    tokenizer = families.tokenizer(chat=True)
    text = render(tokenizer, replace(question, answer_prefix='{"answer":"', system="Be brief."))
    assert text.startswith("<s><|start|>system\nBe brief.<|end|>")
    assert text.endswith('<|start|>assistant\n<think>\n\n</think>\n\n{"answer":"')


def test_a_template_without_a_system_role_gets_it_before_the_prompt(question):
    tokenizer = families.tokenizer(chat=True)
    refuse = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    tokenizer.chat_template = refuse + families.CHAT_TEMPLATE
    text = render(tokenizer, replace(question, system="Be brief."))
    assert f"<|start|>user\nBe brief.\n\n{question.prompt}" in text
    tokenizer.chat_template = "{{ raise_exception('never') }}"
    with pytest.raises(PromptError, match="chat template fails on question 'small-0'"):
        render(tokenizer, question)


@pytest.mark.parametrize("kind", KINDS)
def test_a_label_of_several_tokens_is_an_error_that_shows_both(kind, question):
    with pytest.raises(PromptError, match="question 'small-0': the label 'football zebra' is not one token"):
        encode(
            families.tokenizer(kind),
            [replace(question, options=("football zebra", "B"), answer="football zebra")],
        )


def test_a_label_that_swallows_the_prompts_end_is_an_error(question):
    tokenizer = families.tokenizer()
    tokenizer.add_tokens(['"yes'])
    with pytest.raises(PromptError, match="is not one token after the prompt"):
        encode(tokenizer, [replace(question, answer_prefix='"', options=("yes", "no"), answer="yes")])


def test_two_labels_of_one_token_are_an_error(question):
    with pytest.raises(PromptError, match="are the same token"):
        encode(families.tokenizer(), [replace(question, options=("A", " A"), answer="A")])


def test_the_first_prompts_tokens_are_logged(question, caplog):
    with caplog.at_level("INFO", logger="culnig_tl.engine.prompts"):
        encode(families.tokenizer(), [question])
    assert "first prompt's tokens: ['<s>'," in caplog.text


def test_padding_is_on_the_left():
    tokenizer = families.tokenizer()
    prompts = encode(tokenizer, families.questions(4).questions)
    tokens, mask = pad(prompts, tokenizer, torch.device("cpu"))
    assert tokens.shape == mask.shape == (4, max(len(p.tokens) for p in prompts))
    for row, seen, prompt in zip(tokens, mask, prompts):
        assert row[seen.bool()].tolist() == list(prompt.tokens)
        assert seen.tolist() == sorted(seen.tolist())
        assert set(row[~seen.bool()].tolist()) <= {tokenizer.pad_token_id}


@given(
    st.lists(st.integers(1, 300), min_size=1, max_size=200),
    st.integers(1, 40) | st.just("auto"),
    st.integers(1, 4000),
)
@settings(max_examples=100, deadline=None)
def test_batches_hold_every_question_once(lengths, batch_size, most_tokens):
    plan = plan_batches(lengths, batch_size, most_tokens=most_tokens)
    assert sorted(i for batch in plan for i in batch) == list(range(len(lengths)))
    assert [lengths[i] for batch in plan for i in batch] == sorted(lengths, reverse=True)
    if batch_size == "auto":
        assert all(len(batch) == 1 or len(batch) * lengths[batch[0]] <= most_tokens for batch in plan)
    else:
        assert all(len(batch) <= batch_size for batch in plan)
    assert plan_batches(lengths, [len(batch) for batch in plan]) == plan, (
        "a stored plan is replayed as it was"
    )


def test_padding_share_of_an_even_spread_of_lengths():
    lengths = [50 + (37 * i) % 300 for i in range(5000)]
    plan = plan_batches(lengths, "auto", most_tokens=4096)
    padded = sum(len(batch) * lengths[batch[0]] for batch in plan)
    assert 1 - sum(lengths) / padded < MOST_PADDING


MIRROR = Path(__file__).parents[2] / "shared" / "data" / "hub"


@pytest.mark.skipif(
    not (MIRROR / "nayeon212" / "BLEnD").is_dir(), reason="no mirror of BLEnD beside the project"
)
def test_padding_share_of_blend_mixed_with_countryrc():
    from culnig_tl import load_task

    tasks = load_task("blend", split="neuron", data_dir=MIRROR), load_task("countryrc", split="neuron")
    tokenizer = families.tokenizer()
    lengths = [
        len(ids)
        for ids in tokenizer([render(tokenizer, question) for task in tasks for question in task])[
            "input_ids"
        ]
    ]
    assert len(lengths) > 10_000
    for most_tokens in TOKENS_PER_BATCH.values():
        plan = plan_batches(lengths, "auto", most_tokens=most_tokens)
        padded = sum(len(batch) * lengths[batch[0]] for batch in plan)
        assert 1 - sum(lengths) / padded < MOST_PADDING


def test_batches_without_padding():
    lengths = [5, 7, 7, 9, 5, 7]
    assert plan_batches(lengths, 4, padding=False) == [[3], [1, 2, 5], [0, 4]]
    assert plan_batches(lengths, "auto", padding=False) == [[3], [1, 2, 5], [0, 4]]
    assert plan_batches(lengths, "even") == [[3], [1, 2, 5], [0, 4]]


@pytest.mark.parametrize("wrong", [0, -3, "many", [2, 2], [3, 0]])
def test_a_wrong_batch_size_says_what_is_right(wrong):
    with pytest.raises(PromptError, match="batch"):
        plan_batches([5, 6, 7], wrong)


@pytest.mark.parametrize("system", [None, "Be brief."])
def test_a_template_that_fails_is_named_in_one_line(question, system):
    tokenizer = families.tokenizer()
    tokenizer.chat_template = "{{ raise_exception('no\\nway') }}"
    with pytest.raises(PromptError, match=r"^the chat template fails on question '.*': no$"):
        render(tokenizer, replace(question, system=system))
