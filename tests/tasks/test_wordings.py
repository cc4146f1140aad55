"""Wordings: the package's own, a user's file, and the way from a prompt's last token to the label."""

from __future__ import annotations

import json
import re
from collections import Counter

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from culnig_tl.engine.prompts import encode, render
from culnig_tl.errors import TaskError
from culnig_tl.tasks import COUNTRIES, Question, Task, load_task
from culnig_tl.tasks.wordings import check_blanks, fill, read_wordings, wordings

from .builders import (
    blend_row,
    culturalbench_rows,
    normad_rows,
    survey,
    write_blend,
    write_culturalbench,
    write_normad,
    write_survey,
)

REAL = ("choice", "countryrc", "normad", "worldvaluesbench", "qnli", "mrpc")


@pytest.mark.parametrize("task", REAL)
def test_four_wordings_a_task(task):
    rows = wordings(task)
    assert len(rows) == len({(row.prompt, row.system) for row in rows}) == 4
    for row in rows:
        assert (
            row.prompt.strip().endswith("Answer:")
            and '{"answer":""}' in row.prompt
            and row.answer_prefix == '{"answer":"'
        )
        assert max(len(line) for line in row.prompt.splitlines()) < 140 and "—" not in row.prompt
    assert Counter(row.labels for row in wordings("countryrc")) == {"ABCD": 2, "1234": 2}
    assert len({row.system for row in wordings("worldvaluesbench")}) == 2


@pytest.mark.parametrize("task", ("choice", "countryrc"))
def test_controls_are_whole_sentences_without_blanks_for_what_is_left_out(task):
    for row in wordings(task):
        assert row.control is not None and set(re.findall(r"\{(\w+)\}", row.control)) == {"options"}
        text = fill(row.control, {"options": "A. x\nB. y"}).strip()
        assert text.endswith("Answer:")
        # what is left reads well: no dangling "Question:", no empty quotes, no talk of a text or question
        assert not re.search(
            r"question|text|passage|:\s*\n\n\n|\n\n\n|,\s*,|\s,",
            text.replace('{"answer":""}', ""),
            flags=re.I,
        ), text
        for line in text.splitlines():
            assert line == "" or line[0].isupper(), text


def test_filling_is_one_pass_and_leaves_other_braces():
    assert fill('{a} {b} {"x":""} {} {c}', {"a": "{b}", "b": "2"}) == '{b} 2 {"x":""} {} {c}'


def test_blanks_are_checked():
    rows = wordings("qnli")
    check_blanks("qnli", rows, frozenset({"question", "sentence"}))
    with pytest.raises(TaskError, match="wording 1 of 'qnli': the prompt lacks {options}"):
        check_blanks("qnli", rows, frozenset({"options", "question", "sentence"}))
    with pytest.raises(
        TaskError, match="wording 1 of 'qnli': unknown blank {sentence}, it can hold \\['question'\\]"
    ):
        check_blanks("qnli", rows, frozenset({"question"}))


@pytest.mark.parametrize(
    "text, message",
    [
        ("[[qnli]", "not a readable TOML file"),
        ("[qnli]\nprompt = 'x'", "wordings of 'qnli' are tables"),
        ("qnli = []", "wordings of 'qnli' are tables"),
        ("[[qnli]]\ncontrol = 'x'", "[[qnli]] number 1: 'prompt' is missing"),
        ("[[qnli]]\nprompt = 3", "[[qnli]] number 1: 'prompt' must be text"),
        ("[[qnli]]\nprompt = 'x'\nprmpt = 'y'", "[[qnli]] number 1: unknown key 'prmpt'"),
        ("[[qnli]]\nprompt = 'x'\nlabels = 'AAB'", "'labels' holds a character twice"),
        ("[[qnly]]\nprompt = 'x'", "wordings for 'qnly', which is no task, did you mean 'qnli'?"),
    ],
)
def test_wrong_files_of_wordings_are_named(tmp_path, text, message):
    file = tmp_path / "w.toml"
    file.write_text(text)
    with pytest.raises(TaskError, match=re.escape(message)) as error:
        load_task("qnli", wordings=file)
    assert str(error.value).startswith(str(file))


def test_an_answer_can_start_with_nothing(tmp_path):
    file = tmp_path / "w.toml"
    file.write_text("[[countryrc]]\nprompt = '{passage} {question} {options}'\nanswer_prefix = ''")
    assert {q.answer_prefix for q in load_task("countryrc", wordings=file)} == {""}


def test_a_missing_blank_is_said_before_any_row_is_asked(tmp_path):
    file = tmp_path / "w.toml"
    file.write_text("[[countryrc]]\nprompt = '{passage} {options}'")
    with pytest.raises(TaskError, match="wording 1 of 'countryrc': the prompt lacks {question}"):
        load_task("countryrc", wordings=file)
    with pytest.raises(TaskError, match="not a readable TOML file"):
        read_wordings(tmp_path / "none.toml")
    file.write_text("[[countryrc]]\nprompt = '{passage} {question} {options}'\nlabels = 'AB'")
    with pytest.raises(TaskError, match="4 options and only 2 labels"):
        load_task("countryrc", wordings=file)


# The tokens of prompt + label are the prompt's and one more, for every kind of tokenizer.

GPT2 = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
CHATS = {
    "base": None,
    "chatml": "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "<|im_start|>assistant\n",
    "inst": "{{ bos_token }}{% for m in messages %}[INST] {{ m.content }} [/INST]{% endfor %}",
}


def corpus(task: Task) -> list[str]:
    """Prompts, and the JSON that real tokenizers have seen much of."""
    names = [*COUNTRIES, "Anna", "Bob", "Carl", "Dora", "Emil"]
    return (
        [q.prompt for q in task]
        + [f"{i} " * 30 for i in range(10)]
        + [
            json.dumps({"name": name, "kind": name[:1], "answer": name[0]}, separators=(",", ":"))
            for name in names
        ]
        * 20
    )


def tokenizer(kind: str, texts: list[str]) -> Tokenizer:
    """A small tokenizer of the family's kind."""
    special = ["<s>", "</s>", "<|im_start|>", "<|im_end|>"]
    if kind in ("gpt2", "llama3", "qwen"):
        made = Tokenizer(models.BPE())
        pattern = {"gpt2": GPT2, "llama3": LLAMA3, "qwen": QWEN}[kind]
        made.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(pattern), "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
        made.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=1200, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
        )
    elif kind == "gemma":  # no word is split off: merges may cross anything but lines of the vocabulary
        made = Tokenizer(models.BPE(byte_fallback=True))
        made.normalizer = normalizers.Replace(" ", "▁")
        made.pre_tokenizer = pre_tokenizers.Split(Regex(r"\p{N}|\n+"), "isolated")
        trainer = trainers.BpeTrainer(vocab_size=1200, special_tokens=special)
    else:
        made = Tokenizer(models.Unigram() if kind == "unigram" else models.BPE(byte_fallback=True))
        made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
        options = {"vocab_size": 1200, "special_tokens": special}
        trainer = (
            trainers.UnigramTrainer(unk_token="<s>", **options)
            if kind == "unigram"
            else trainers.BpeTrainer(**options)
        )
    made.train_from_iterator(texts, trainer)
    return made


@pytest.fixture(scope="module")
def questions(tmp_path_factory) -> list[Question]:
    """Some of every real task."""
    root = tmp_path_factory.mktemp("mirror")
    write_blend(
        root,
        [
            blend_row(number, question=question)
            for number in range(2)
            for question in ("Al-en-01", "Al-en-02")
        ],
    )
    write_culturalbench(root, culturalbench_rows())
    write_normad(root, normad_rows())
    write_survey(root / "WorldValuesBench", *survey(people=160))
    out: list[Question] = []
    for name in ("blend", "blend-local", "culturalbench", "normad", "worldvaluesbench", "countryrc"):
        task = load_task(name, data_dir=root)
        task = task.filter(
            lambda q: all(len(label) == 1 for label in q.options)
        )  # labels of two digits are prompting's business
        out += task.limit(12)
        if task.has_control:
            out += task.control().limit(6)
    return out


@pytest.mark.parametrize("chat", CHATS)
@pytest.mark.parametrize("kind", ("gpt2", "llama3", "qwen", "gemma", "sentencepiece", "unigram"))
def test_one_token_leads_from_the_prompt_to_the_label(kind, chat, questions):
    made = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer(kind, corpus(load_task("countryrc").limit(60))),
        bos_token="<s>",
        eos_token="</s>",
    )
    made.chat_template = CHATS[chat]
    prompts = encode(
        made, questions
    )  # raises PromptError where a label merges into the prompt or needs two tokens
    for prompt in prompts:
        q = prompt.question
        assert len(set(prompt.option_tokens)) == len(q.options)
        assert made.convert_ids_to_tokens(prompt.answer_token).strip("▁Ġ") == q.answer
        assert render(made, q).endswith(q.answer_prefix) and not q.answer_prefix.endswith(" ")
