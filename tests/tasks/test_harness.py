"""Tasks of lm-evaluation-harness as tasks of ours: what it asks, and what it finds."""

# ruff: noqa: E402

from __future__ import annotations

import logging
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("lm_eval")

from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from culnig_tl import evaluate, load_task
from culnig_tl.data.results import EvaluationResult
from culnig_tl.errors import CulnigError, TaskError
from culnig_tl.method.cloze_answers import renormalised
from culnig_tl.tasks import harness
from culnig_tl.tasks.question import task_name

from .. import families, harness_tasks
from ..helpers import plain_model

ASKED = ("choice", "fewshot", "two_tokens", "line", "mutual", "processed")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return harness_tasks.write(tmp_path_factory.mktemp("harness"))


@pytest.fixture
def siblings(folder, monkeypatch):
    """The harness knows no other tasks than those of the folder: to list its own takes seconds."""
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    monkeypatch.setattr(harness, "_all_tasks", lambda: manager)


@pytest.fixture(scope="module")
def theirs(folder, checkpoints):
    """What the harness finds with its own `hf`."""
    plain = HFLM(pretrained=plain_model(checkpoints("llama")), tokenizer=families.tokenizer(), device="cpu")
    return harness_tasks.asked(plain, folder, ASKED)


@pytest.fixture(scope="module")
def mine(folder, loaded):
    """`mine(name)`: what `evaluate` finds with the same model on the same task."""
    made: dict[str, EvaluationResult] = {}

    def result(name: str) -> EvaluationResult:
        if name not in made:
            task = load_task(f"lm_eval:{folder / name}.yaml")
            made[name] = evaluate(loaded("llama"), task, progress=False)
        return made[name]

    return result


@pytest.mark.parametrize("name", ASKED)
def test_log_likelihoods_are_those_of_the_harness(name, mine, theirs):
    expected = harness_tasks.answers(theirs, name)
    for lls, its in zip(mine(name).table["log_likelihoods"], expected, strict=True):
        assert np.abs(np.subtract(lls, its[: len(lls)])).max() < 1e-4


@pytest.mark.parametrize(
    "metric, normalise", [("acc", "sum"), ("acc", "unconditional"), ("acc_norm", "length")]
)
@pytest.mark.parametrize("name", [name for name in ASKED if name != "mutual"])
def test_accuracy_is_that_of_the_harness(name, metric, normalise, mine, theirs):
    right = renormalised(mine(name), normalise).table["correct"]
    assert right.mean() == harness_tasks.numbers(theirs)[name][f"{metric},none"]


def test_few_shot_prompts_are_the_harness_own(folder, theirs):
    samples = {sample["doc_id"]: sample for sample in theirs["samples"]["fewshot"]}
    for number, question in enumerate(load_task(f"lm_eval:{folder / 'fewshot.yaml'}")):
        for text, pair in zip(question.texts, samples[number]["arguments"]):
            assert question.prompt + text == pair[0] + pair[1]
        assert question.prompt.startswith("Food.\n\n")
        assert question.prompt.count("Answer:") == 3


def test_a_task_says_where_it_came_from(folder):
    task = load_task(f"lm_eval:{folder / 'choice.yaml'}", limit=5)
    assert (task.name, task.form, task.culture, len(task)) == ("lm_eval:choice", "cloze", False, 5)
    assert task.source.startswith("lm-evaluation-harness 0.")
    assert task.cluster_count == 5
    assert task.questions[0].group == "choice"


def test_groups_are_expanded(folder, siblings):
    task = load_task("lm_eval:both")
    assert task.name == "lm_eval:both"
    assert {q.group for q in task} == {"choice", "line"}
    assert len(task) == task.cluster_count == 2 * harness_tasks.COUNT


@pytest.mark.slow
def test_a_group_has_a_file(folder, siblings):
    assert load_task(f"lm_eval:{folder / 'both.yaml'}").fingerprint == load_task("lm_eval:both").fingerprint


def test_names_are_looked_up_in_the_harness(siblings):
    with pytest.raises(TaskError, match="has no task 'choise', did you mean 'choice'"):
        load_task("lm_eval:choise")


@pytest.mark.slow
def test_the_harness_own_tasks_are_known():
    with pytest.raises(TaskError, match="has no task 'helaswag', did you mean 'hellaswag'"):
        load_task("lm_eval:helaswag")


@pytest.mark.parametrize(
    "name, why",
    [
        ("generated", "'generated' is answered by generate_until, and only multiple_choice can"),
        ("perplexity", "is answered by loglikelihood_rolling"),
        ("greedy", "is answered by loglikelihood,"),
        ("inputs", "document 'inputs/0': its options differ in the context"),
        ("bare", "document 'bare/0': its context is empty"),
        ("glued", "document 'glued/0': no blank stands between context and continuation"),
        ("several", "document 'several/0': it has 2 right answers"),
    ],
)
def test_what_the_cloze_form_cannot_ask_is_refused(name, why, folder):
    with pytest.raises(TaskError, match=why) as raised:
        load_task(f"lm_eval:{folder / name}.yaml")
    assert "python -m culnig_tl.lm_eval --model culnig" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_documents_without_a_right_option_are_left_out(folder, tmp_path, caplog):
    made = (folder / "choice.yaml").read_text().replace('"right"', '"{{[right, -1][right == 2]}}"')
    (folder / "unsure.yaml").write_text(made)
    with caplog.at_level(logging.WARNING, "culnig_tl"):
        task = load_task(f"lm_eval:{folder / 'unsure.yaml'}")
    assert (len(task), task.skipped) == (6, 2)
    assert "left out 2 documents whose target is none of their options, e.g. choice/2" in caplog.text


@pytest.mark.parametrize(
    "asked, why",
    [
        ({"split": "neuron"}, "has no neuron split"),
        ({"control": True}, "offers no control"),
        ({"language": "en"}, "takes no 'language'"),
    ],
)
def test_what_a_task_of_the_harness_does_not_have(asked, why, folder):
    with pytest.raises(TaskError, match=why):
        load_task(f"lm_eval:{folder / 'choice.yaml'}", **asked)


def test_it_is_asked_in_no_other_words(folder):
    with pytest.raises(TaskError, match="in the words of lm-evaluation-harness"):
        load_task(f"lm_eval:{folder / 'choice.yaml'}").cloze()


def test_a_file_that_is_not_there_and_one_that_is_broken(folder):
    with pytest.raises(TaskError, match="there is no file"):
        load_task("lm_eval:nowhere.yaml")
    (folder / "broken.yaml").write_text("task: broken\ncustom_dataset: !function nowhere.rows\n")
    with pytest.raises(
        TaskError, match="cannot load .*broken.yaml': ImportError: Cannot import module 'nowhere'"
    ):
        load_task(f"lm_eval:{folder / 'broken.yaml'}")


def test_documents_that_cannot_be_put_into_words(folder):
    """More examples are asked for than there are."""
    made = (folder / "fewshot.yaml").read_text().replace("num_fewshot: 2", "num_fewshot: 9")
    (folder / "greedy_for_examples.yaml").write_text(made)
    with pytest.raises(TaskError, match="cannot load 'fewshot': ValueError: Sample larger than population"):
        load_task(f"lm_eval:{folder / 'greedy_for_examples.yaml'}")


def test_without_the_harness_the_error_names_the_extra(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval.tasks", None)
    with pytest.raises(CulnigError, match=r"pip install 'culnig-tl\[lm-eval\]'"):
        load_task(f"lm_eval:{folder / 'choice.yaml'}")


def test_nothing_of_the_harness_is_imported_before_it_is_used():
    code = "import sys, culnig_tl as c; c.load_task, c.lm_eval_model; print('lm_eval' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"


@pytest.mark.parametrize(
    "given, name",
    [
        ("lm_eval:./here/my_task.yaml", "lm_eval:my_task"),
        ("lm_eval:arc_easy", "lm_eval:arc_easy"),
        ("lm_eval:afri_v1.1", "lm_eval:afri_v1.1"),
        ("here/mine.jsonl", "mine"),
        ("blend", "blend"),
    ],
)
def test_what_a_task_will_be_called(given, name):
    assert task_name(given) == name
