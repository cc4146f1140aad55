"""Evaluation against one question at a time, and the tables made of it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch

from culnig_tl import EvaluationResult, NeuronSet, ablate, evaluate, mean_outputs
from culnig_tl.analyses.paper import paper_rows, results_table
from culnig_tl.data.results import COLUMNS, concat
from culnig_tl.engine.prompts import encode
from culnig_tl.errors import FileError, PromptError, ScoreError, TaskError
from culnig_tl.study.comparison import compare, halves
from culnig_tl.tasks.question import Question, Task

from . import families
from .builders import some_neurons


def ask(model, task, **options) -> EvaluationResult:
    return evaluate(model, task, progress=False, **options)


@pytest.mark.parametrize("family", ["llama", "gemma3", "phi3", "gpt2"])
def test_equals_one_question_at_a_time(family, loaded):
    model, task = loaded(family), families.questions(7)
    neurons = some_neurons(model)
    for chosen in (None, neurons):
        result = ask(model, task, ablate=chosen, batch_size=4).table
        for prompt, row in zip(encode(model.tokenizer, task.questions), result.itertuples()):
            with torch.no_grad(), ablate(model, chosen if chosen is not None else NeuronSet.from_indices([])):
                logits = model(torch.tensor([prompt.tokens]))[0, -1]
            p = logits.softmax(-1)
            among = logits[list(prompt.option_tokens)]
            assert row.p_answer == pytest.approx(float(p[prompt.answer_token]), rel=1e-3)
            assert row.correct == (int(logits.argmax()) == prompt.answer_token)
            assert row.predicted == model.tokenizer.decode([int(logits.argmax())])
            assert row.predicted_label == prompt.question.options[int(among.argmax())]
            assert row.correct_label == (row.predicted_label == prompt.question.answer)


def test_batches_and_order_do_not_matter(loaded):
    model, task = loaded("qwen3"), families.questions(9)
    whole = ask(model, task, batch_size=9).table.set_index("id")
    backwards = dataclasses.replace(task, questions=task.questions[::-1])
    for other in (ask(model, task, batch_size=1), ask(model, backwards, batch_size=2), ask(model, task)):
        table = other.table.set_index("id").loc[whole.index]
        np.testing.assert_allclose(table["p_answer"], whole["p_answer"], rtol=1e-4)
        assert table["predicted"].tolist() == whole["predicted"].tolist()


def test_the_empty_set_is_the_baseline_bit_for_bit(loaded):
    model, task = loaded("llama"), families.questions(6)
    base, empty = ask(model, task), ask(model, task, ablate=NeuronSet.from_indices([]))
    pd.testing.assert_frame_equal(base.table, empty.table, check_exact=True)


def test_operations_are_named_and_differ(loaded):
    model, task = loaded("llama"), families.questions(6)
    neurons = some_neurons(model)
    made = {
        "suppress": ask(model, task, ablate=neurons),
        "enhance": ask(model, task, ablate=neurons, scale=2.0),
        "scale 0.5": ask(model, task, ablate=neurons, scale=0.5),
    }
    assert {name: r.metadata["operation"] for name, r in made.items()} == {name: name for name in made}
    assert len({tuple(r.table["p_answer"]) for r in made.values()}) == 3
    assert ask(model, task).metadata["operation"] is None


def small_result() -> EvaluationResult:
    rows = []
    for i in range(12):
        rows.append(
            (
                "t",
                f"t{i}",
                f"c{i // 2}",
                ("Iran", "Spain")[i % 2],
                "Food",
                i % 3,
                "A",
                "A",
                "A",
                0.5,
                i % 4 == 0,
                True,
                np.nan,
            )
        )
    return EvaluationResult(
        pd.DataFrame(rows, columns=list(COLUMNS)), {"model": "m", "fingerprints": {"t": "f"}}
    )


def test_accuracy_by_country_template_and_topic():
    result = small_result()
    assert result.accuracy().loc["t", ["accuracy", "questions", "clusters"]].tolist() == [25.0, 12, 6]
    assert result.accuracy("country")["accuracy"].to_dict() == {"Iran": 50.0, "Spain": 0.0}
    assert result.accuracy("template").index.tolist() == [0, 1, 2]
    assert result.accuracy(["country", "template"]).shape[0] == 6
    assert result.accuracy("group").loc["Food", "accuracy"] == 25
    assert result.accuracy(None, labels_only=True)["accuracy"].tolist() == [100.0]
    half = np.array([0.5, 0, 0.5, 0, 0.5, 0])
    assert result.accuracy()["se"].iloc[0] == pytest.approx(100 * half.std(ddof=1) / np.sqrt(6))


def test_a_task_without_countries_asked_by_country_is_a_clear_error(loaded):
    task = Task("plain", tuple(dataclasses.replace(q, country=None) for q in families.questions(3)))
    result = ask(loaded("llama"), task)
    with pytest.raises(ScoreError, match="none of the 3 questions .* has a country"):
        result.accuracy("country")
    with pytest.raises(ScoreError, match="no column 'continent'"):
        result.accuracy("continent")
    with pytest.raises(ScoreError, match="alignment is a measure of worldvaluesbench"):
        result.alignment()
    with pytest.raises(ScoreError, match="no question to ask"):
        ask(loaded("llama"), Task("nothing", ()))


def test_alignment_of_the_values_survey(loaded):
    questions = tuple(
        Question(
            "worldvaluesbench",
            f"q{i}",
            f"c{i}",
            f"How important is family {i}? Answer 1 to 4.\nAnswer:",
            ("1", "2", "3", "4"),
            "2",
            country="Iran",
        )
        for i in range(4)
    )
    result = ask(loaded("llama"), Task("worldvaluesbench", questions, metric="alignment"))
    expected = [
        {"1": 50.0, "2": 100.0, "3": 50.0, "4": 0.0}.get(text.strip(), 0.0)
        for text in result.table["predicted"]
    ]
    assert result.table["alignment"].tolist() == expected
    assert result.alignment().loc["worldvaluesbench", "alignment"] == pytest.approx(np.mean(expected))
    assert result.alignment("country").index.tolist() == ["Iran"]


def test_a_result_is_saved_and_read_back(tmp_path, loaded):
    result = ask(loaded("llama"), families.questions(4), ablate=some_neurons(loaded("llama")))
    back = EvaluationResult.load(result.save(tmp_path / "result.parquet"))
    pd.testing.assert_frame_equal(back.table, result.table)
    assert back.metadata == result.metadata and back.metadata["neuron_count"] > 0
    (tmp_path / "other.parquet").write_bytes(b"no")
    with pytest.raises(FileError, match="other.parquet"):
        EvaluationResult.load(tmp_path / "other.parquet")


def test_results_of_different_settings_are_not_mixed(loaded):
    model, task = loaded("llama"), families.questions(4)
    base, suppressed = ask(model, task), ask(model, task, ablate=some_neurons(model))
    assert len(concat([base, ask(model, families.questions(3, task="more"))])) == 7
    with pytest.raises(ScoreError, match="different settings"):
        concat([base, suppressed])
    with pytest.raises(ScoreError, match="no results"):
        concat([])


# ------------------------------------------------------------------------------------------------- comparison


def answered(rate: float, seed: int, *, tasks=("culture", "nlu"), model="m") -> EvaluationResult:
    rng = np.random.default_rng(seed)
    rows = []
    for task in tasks:
        for i in range(80):
            right = bool(
                np.random.default_rng(i).random() < 0.9
                and rng.random() < (rate if task == "culture" else 0.97)
            )
            rows.append(
                (task, f"{task}{i}", f"c{i // 2}", None, None, 0, "A", "A", "A", 0.5, right, right, np.nan)
            )
    meta = {
        "model": model,
        "revision": "r",
        "fingerprints": dict.fromkeys(tasks, "f"),
        "neurons": "h",
        "neuron_count": 40,
        "operation": "suppress",
    }
    return EvaluationResult(pd.DataFrame(rows, columns=list(COLUMNS)), meta)


def test_compare_finds_the_task_that_drops():
    base, randoms = answered(1.0, 0), [answered(0.97, seed) for seed in range(1, 11)]
    found = compare(base, answered(0.6, 99), randoms)
    table = found.table()
    assert table.loc["culture", "rank"] == 1 and table.loc["culture", "p_bootstrap_holm"] < 0.01
    assert table.loc["nlu", "p_bootstrap"] > 0.05
    assert table.loc["culture", "p_bootstrap_holm"] == pytest.approx(2 * table.loc["culture", "p_bootstrap"])
    drops = [(base.accuracy() - r.accuracy()).loc["culture", "accuracy"] for r in randoms]
    assert table.loc["culture", "random_mean"] == pytest.approx(np.mean(drops))
    assert table.loc["culture", "random_sd"] == pytest.approx(np.std(drops, ddof=1))
    assert "smallest possible p by rank is 1/11" in str(found)


def test_results_of_other_questions_or_models_are_not_compared():
    base = answered(1.0, 0)
    with pytest.raises(ScoreError, match="same questions"):
        compare(base, answered(0.6, 1, tasks=("culture",)), [base])
    with pytest.raises(ScoreError, match="of one model"):
        compare(base, answered(0.6, 1, model="another"), [base])
    with pytest.raises(ScoreError, match="random set"):
        compare(base, answered(0.6, 1), [])


def test_halves_keep_clusters_together():
    task = Task(
        "commonsense",
        tuple(
            dataclasses.replace(q, id=f"{q.id}/{t}", template=t)
            for q in families.questions(40)
            for t in range(2)
        ),
    )
    first, second = halves(task)
    assert len(first) + len(second) == 80 and 20 < len(first) < 60
    assert not {q.cluster for q in first} & {q.cluster for q in second}
    assert [q.id for q in halves(dataclasses.replace(task, questions=task.questions[::-1]))[0]] == [
        q.id for q in first
    ][::-1]
    split = Task(
        "split",
        tuple(
            dataclasses.replace(q, split=("neuron", "test")[i % 2])
            for i, q in enumerate(families.questions(6))
        ),
    )
    assert [len(half) for half in halves(split)] == [3, 3] and halves(split)[0].questions[0].split == "neuron"
    with pytest.raises(TaskError, match="too few"):
        halves(families.questions(1))


# ------------------------------------------------------------------------------------------ the paper's table


def test_the_table_has_the_papers_form_and_rows():
    gemma = answered(0.8, 1, tasks=("mrpc", "blend"), model="/models/gemma-3-12b-it")
    table = results_table(
        {
            "unchanged": answered(1, 0, tasks=("mrpc", "blend"), model="/models/gemma-3-12b-it"),
            "culture-general": gemma,
        }
    )
    assert list(table.frame.columns) == ["model", "setting", "neurons", "blend", "mrpc"]
    assert table.frame["setting"].tolist() == [
        "unchanged",
        "culture-general",
        "unchanged (paper)",
        "culture-general (paper)",
        "random (paper)",
    ]
    assert table.frame["blend"].iloc[3] == 37.93 and table.frame["neurons"].iloc[3] == 8087
    markdown = table.to_markdown().splitlines()
    assert markdown[0] == "| model | setting | neurons | blend | mrpc |" and markdown[5].endswith(
        "| 8,087 | 37.93 | 78.65 |"
    )
    assert "±" in markdown[2] and len(markdown) == 7
    assert table.to_csv().splitlines()[0] == "model,setting,neurons,blend,blend se,mrpc,mrpc se"


def test_random_rows_are_means_over_their_sets():
    sets = [answered(0.9, seed) for seed in range(5)]
    table = results_table({"random": sets})
    each = [s.accuracy().loc["culture", "accuracy"] for s in sets]
    assert table.frame["setting"].tolist() == ["random (mean of 5)"]
    assert table.frame["culture"].iloc[0] == pytest.approx(np.mean(each)) and table.errors["culture"].iloc[
        0
    ] == pytest.approx(np.std(each, ddof=1))
    assert not len(paper_rows("toy")) and len(paper_rows()) == 8
    with pytest.raises(ScoreError, match="no results"):
        results_table({"random": []})


SCALE = tuple(str(number) for number in range(1, 11))


def on_a_scale(answers: str) -> Task:
    rows = [
        Question(
            "worldvaluesbench",
            f"q{i}",
            f"c{i}",
            f"How important is number {i}?",
            SCALE,
            answer,
            answer_prefix="Answer: (",
        )
        for i, answer in enumerate(answers.split())
    ]
    return Task("worldvaluesbench", tuple(rows), culture=True, metric="alignment")


@pytest.mark.parametrize(
    "first, second, read, right, aligned",
    [
        ("1", "0", "10", True, 100),  # the answer is 10 everywhere
        ("1", "x", "1", False, 0),
        ("1", "3", "13", False, 0),  # off the scale
        ("9", "0", "9", False, 100 * (1 - 1 / 9)),  # 9 starts no label of two tokens
        ("x", "0", "x", False, 0),
    ],
)
def test_a_label_of_two_tokens_is_read_back(loaded, monkeypatch, first, second, read, right, aligned):
    model, task = loaded("llama"), on_a_scale("10 10 10")
    token = {letter: model.tokenizer(letter, add_special_tokens=False)["input_ids"][-1] for letter in "0139x"}
    prompts = encode(model.tokenizer, task.questions)
    assert prompts[0].two_token_labels == ("10",) and prompts[0].second_tokens == (*[None] * 9, token["0"])
    longest = max(len(p.tokens) for p in prompts)

    def scripted(model, tokens, mask):
        went_on = tokens.shape[1] > longest
        logits = torch.zeros(len(tokens), len(model.tokenizer))
        logits[:, token[second if went_on else first]] = 5.0
        if not went_on and first == "x":
            logits[:, token["1"]] = 4.0  # the likeliest label
        return logits

    monkeypatch.setattr("culnig_tl.method.evaluation.last_logits", scripted)
    result = ask(model, task)
    assert result.metadata["two_token_labels"] == {"worldvaluesbench": ["10"]}
    assert set(result.table["predicted"].str.strip()) == {read} and set(result.table["correct"]) == {right}
    np.testing.assert_allclose(result.table["alignment"], aligned)
    expected = {"13": "1", "x": "10"}.get(read, read)
    assert set(result.table["predicted_label"]) == {expected}


def test_labels_of_two_tokens_equal_greedy_decoding(loaded):
    model, task = loaded("llama"), on_a_scale("1 10 5 10 1 7 10 2")
    table = ask(model, task, batch_size=3).table
    for prompt, row in zip(encode(model.tokenizer, task.questions), table.itertuples()):
        with torch.no_grad():
            one = model(torch.tensor([prompt.tokens]))[0, -1]
            firsts = list(dict.fromkeys(prompt.option_tokens))
            likeliest = firsts[int(one[firsts].argmax())]
            two = int(model(torch.tensor([[*prompt.tokens, likeliest]]))[0, -1].argmax())
        digit = model.tokenizer.decode([likeliest]).strip()
        ten = digit == "1" and model.tokenizer.decode([two]).strip() == "0"
        assert row.predicted_label == ("10" if ten else digit)
        assert row.p_answer == pytest.approx(float(one.softmax(-1)[prompt.answer_token]), rel=1e-3)


def test_no_other_label_may_be_two_tokens(loaded):
    model, task = loaded("llama"), on_a_scale("10")
    odd = dataclasses.replace(task.questions[0], options=("1", "1½"), answer="1")
    with pytest.raises(PromptError, match="is not one token after the prompt"):
        encode(model.tokenizer, [odd])


@pytest.mark.parametrize("family", ["llama", "phi3", "gpt2"])
@pytest.mark.parametrize("what", [0.0, 2.0, 1.5, "means"])
def test_evaluation_changes_neurons_as_ablate_does(loaded, family, what):
    """`evaluate` changes the chosen neurons in place, `ablate` makes another activation: the same answers."""
    model, task = loaded(family), families.questions(4)
    neurons = some_neurons(model)
    how = {"to": mean_outputs(model, task, progress=False)} if what == "means" else {"scale": what}
    result = ask(model, task, ablate=neurons, batch_size=1, **how).table
    for prompt, row in zip(encode(model.tokenizer, task.questions), result.itertuples()):
        with torch.no_grad(), ablate(model, neurons, **how):
            p = model(torch.tensor([prompt.tokens]))[0, -1].softmax(-1)
        assert row.p_answer == pytest.approx(float(p[prompt.answer_token]), rel=1e-3)
