"""Our tasks in lm-evaluation-harness: with its own `hf` they have the accuracy that `evaluate` finds."""

# ruff: noqa: E402

from __future__ import annotations

import logging
from dataclasses import replace

import pytest

pytest.importorskip("lm_eval")

import transformers as hf
from lm_eval.models.huggingface import HFLM

from culnig_tl import evaluate, load_model, load_task
from culnig_tl.engine.loading import load_tokenizer
from culnig_tl.errors import TaskError
from culnig_tl.lm_eval.export import METRICS, export_task
from culnig_tl.method.cloze_answers import renormalised
from culnig_tl.toy import FOLDER

from . import families, harness_tasks
from .helpers import invoked, plain_model

COUNT = 90


@pytest.fixture(scope="module")
def toy():
    return load_model(device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def plain():
    """The toy as the harness' own model."""
    tokenizer = hf.AutoTokenizer.from_pretrained(FOLDER)
    return HFLM(pretrained=plain_model(FOLDER), tokenizer=tokenizer, device="cpu", batch_size=16)


def found(model, file):
    """Metric -> value, in the harness."""
    return harness_tasks.numbers(harness_tasks.asked(model, file.parent, [file.stem]))[file.stem]


def test_letters_have_the_accuracy_of_evaluate(toy, plain, tmp_path):
    task = load_task("miniculture", split="test", limit=COUNT)
    table = evaluate(toy, task, progress=False).table
    theirs = found(plain, export_task(task, tmp_path, tokenizer=load_tokenizer(str(FOLDER))))
    assert theirs == {"exact_match,none": table["correct"].mean(), "acc,none": table["correct_label"].mean()}
    assert 0.5 < theirs["exact_match,none"] < 1


def test_cloze_has_the_accuracies_of_evaluate(toy, plain, tmp_path):
    task = load_task("miniculture", split="test", limit=COUNT, form="cloze")
    result = evaluate(toy, task, progress=False)
    normalised = dict(zip(METRICS["cloze"], ("unconditional", "sum", "length")))
    mine = {
        f"{metric},none": renormalised(result, how).table["correct"].mean()
        for metric, how in normalised.items()
    }
    assert found(plain, export_task(task, tmp_path)) == mine
    assert len(set(mine.values())) == 3


@pytest.mark.parametrize("chat", [False, True])
def test_letters_of_a_random_model(chat, checkpoints, loaded, task, tmp_path):
    """With and without a chat template; few of a random model's answers are right by the whole vocabulary."""
    model = loaded("llama", chat=chat)
    tokenizer = families.tokenizer(chat=chat)
    theirs = HFLM(pretrained=plain_model(checkpoints("llama", chat=chat)), tokenizer=tokenizer, device="cpu")
    table = evaluate(model, task, progress=False).table
    assert (
        found(theirs, export_task(task, tmp_path, tokenizer=tokenizer))["acc,none"]
        == table["correct_label"].mean()
    )


def test_a_control_is_exported_as_well(toy, plain, tmp_path):
    task = load_task("miniculture", split="test", limit=40, form="cloze").control()
    right = evaluate(toy, task, progress=False).table["correct"].mean()
    theirs = found(plain, export_task(task, tmp_path))
    assert theirs["acc_unconditional,none"] == theirs["acc,none"] == right


def test_an_exported_task_is_one_of_ours_again(tmp_path):
    task = load_task("miniculture", split="test", limit=20, form="cloze")
    again = load_task(f"lm_eval:{export_task(task, tmp_path)}")
    mine = [(f"{q.prompt} ", q.texts, q.answer) for q in task]
    assert [(q.prompt, q.texts, q.answer) for q in again] == mine


def test_questions_keep_what_is_known_of_them(tmp_path):
    task = load_task("miniculture", split="test", limit=5)
    file = export_task(task, tmp_path)
    lines = file.with_suffix(".jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 5 and all(q.id in line and q.country in line for q, line in zip(task, lines))
    assert task.fingerprint in file.read_text()


def test_prompts_that_end_in_a_blank_are_named(task, tmp_path, caplog):
    with caplog.at_level(logging.WARNING, "culnig_tl"):
        export_task(task, tmp_path, tokenizer=families.tokenizer(chat=True))
    assert "prompts of small end in a blank" in caplog.text


def test_what_cannot_be_exported(task, tmp_path):
    in_words = replace(task[0], accepted=("A",))
    for broken, why in (
        (task[:0], "holds no question"),
        (replace(task, metric="alignment"), "not answered by one right option"),
        (replace(task, questions=(in_words,)), "not answered by one right option"),
    ):
        with pytest.raises(TaskError, match=why):
            export_task(broken, tmp_path)


def test_from_the_command_line(tmp_path):
    said = invoked("tasks", "export", "miniculture", "--to", tmp_path, "--form", "cloze", "--limit", 7)
    assert "7 questions" in said and "--tasks culnig_miniculture_cloze" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "culnig_miniculture_cloze.jsonl",
        "culnig_miniculture_cloze.yaml",
        "culnig_questions.py",
    ]


def test_links_among_exported_files_are_replaced_and_not_followed(tmp_path):
    mine, out = tmp_path / "mine.txt", tmp_path / "out"
    out.mkdir()
    mine.write_text("mine")
    for name in ("culnig_questions.py", "culnig_miniculture.jsonl", "culnig_miniculture.yaml"):
        (out / name).symlink_to(mine)
    export_task(load_task("miniculture", split="test", limit=2), out)
    assert mine.read_text() == "mine" and not any(path.is_symlink() for path in out.iterdir())
